"""A real Slurm runs the chain: the same bytes as a build, whatever is killed, preempted or fails on the way."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest
from bundles.corpus import digests
from bundles.many import spoil, write_many
from cluster.conftest import Slurm
from commands import Done, built, stpatch

from stpatch.stages.receipts import ReceiptBook

LAYERS = {"shards": {"patches": 6, "mix": 4}}


@pytest.fixture(autouse=True)
def _environment(slurm: Slurm, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the command line find this Slurm, and its tasks this package."""
    for name in ("SLURM_CONF", "PATH"):
        monkeypatch.setenv(name, slurm.environment[name])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))


def submitted(config: Path, *words: object) -> dict[str, dict[str, object]]:
    """Submit, and return the jobs by name."""
    done = built("submit", config, "--json", *words)
    return {job["name"]: job for job in json.loads(done.out)["jobs"]}


def test_twelve_slides_in_windows_of_four_tasks_give_what_a_build_gives(slurm: Slurm, tmp_path: Path) -> None:
    config = write_many(tmp_path, 12, **LAYERS)
    jobs = submitted(config, "--units-per-task", "2")
    assert [jobs[name]["array"] for name in ("ingest", "ingest-2", "normalize", "normalize-2")] == ["0-3", "0,1"] * 2
    assert jobs["normalize-2"]["after"] == [{"kind": "aftercorr", "name": "ingest-2"}]
    again = stpatch("submit", config)
    assert again.code == 2
    assert "still in the queue" in again.err
    states = slurm.until_all_end(seconds=120)
    assert set(states.values()) == {"COMPLETED"}, logs(tmp_path)
    built("build", config, "-q", "--set", f"dataset.output={tmp_path / 'alone'}")
    assert digests(tmp_path / "out") == digests(tmp_path / "alone")
    assert len(list((tmp_path / "out.work" / "slurm").glob("ingest-*.log"))) == 6
    assert built("submit", config).out == "nothing is left\n"


def logs(folder: Path) -> str:
    return "\n".join(f"{path.name}: {path.read_text()}" for path in sorted((folder / "out.work" / "slurm").iterdir()))
