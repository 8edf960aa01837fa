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
from bundles.many import write_many
from cluster.conftest import Slurm
from commands import Done, built, stpatch

from stpatch.stages.receipts import ReceiptBook

LAYERS = {"shards": {"patches": 20, "mix": 4}}


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


def test_twelve_slides_in_windows_of_four_tasks_one_of_which_fails_first(slurm: Slurm, tmp_path: Path) -> None:
    config = write_many(tmp_path, 12, bad=(5,), **LAYERS)
    sound = write_many(tmp_path / "sound", 12, **LAYERS)
    jobs = submitted(config, "--units-per-task", "2")
    assert [jobs[name]["array"] for name in ("ingest", "ingest-2", "normalize", "normalize-2")] == ["0-3", "0,1"] * 2
    assert jobs["normalize-2"]["after"] == [{"kind": "aftercorr", "name": "ingest-2"}]
    again = stpatch("submit", config)
    assert again.code == 2
    assert "still in the queue" in again.err
    slurm.until_all_end()
    work = tmp_path / "out.work"
    assert len(list((work / "slurm").glob("ingest-*.log"))) == 6
    book = ReceiptBook(work / "receipts")
    assert book.failure("ingest", "S05") is not None
    assert [name for name in map("S{:02d}".format, range(12)) if book.receipt("normalize", name) is None] == [
        "S05", "S11",  # of the same task; the others went their way
    ]  # fmt: skip
    assert not any((work / "receipts" / stage).exists() for stage in ("select", "crop"))
    assert not (tmp_path / "out").exists()

    (tmp_path / "s05.h5ad").write_bytes((sound.parent / "s05.h5ad").read_bytes())
    jobs = submitted(config, "--units-per-task", "2")
    found = [(job["stage"], job["array"], job["offset"]) for job in jobs.values()][:5]
    assert found == [
        ("ingest", "1", 4), ("normalize", "1", 4), ("select", None, 0), ("crop", "0-3", 0), ("crop", "0,1", 4),
    ]  # fmt: skip
    slurm.until_all_end()
    built("build", sound, "-q")
    assert digests(tmp_path / "out") == digests(sound.parent / "out"), logs(tmp_path)
    assert built("submit", config).out == "nothing is left\n"


def logs(folder: Path) -> str:
    return "\n".join(f"{path.name}: {path.read_text()}" for path in sorted((folder / "out.work" / "slurm").iterdir()))


def test_a_slide_that_fails_is_left_out(slurm: Slurm, tmp_path: Path) -> None:
    config = write_many(tmp_path, 3, bad=(1,), run={"on_error": "skip"}, **LAYERS)
    submitted(config, "--units-per-task", "1")
    states = slurm.until_all_end()
    assert {"CANCELLED", "COMPLETED", "FAILED"} == set(states.values()) - {"PREEMPTED"}
    build = stpatch("build", config, "-q", "--set", f"dataset.output={tmp_path / 'alone'}")
    assert build.code == 1  # the slide is told
    assert digests(tmp_path / "out") == digests(tmp_path / "alone"), logs(tmp_path)


SLOW = """\
import os, pathlib, sys, time
from stpatch.stages import ingest
run, folder = ingest.run, pathlib.Path(sys.argv.pop(1))

def slow(job, slide_id):
    if "SLURM_RESTART_COUNT" not in os.environ:
        (folder / f"{slide_id}.tmp").write_text(f"{os.getpid()} {os.environ['SLURM_JOB_ID']}")
        (folder / f"{slide_id}.tmp").rename(folder / slide_id)
        time.sleep(120)
    return run(job, slide_id)

ingest.run = slow
sys.argv[0] = "stpatch"
from stpatch.cli.app import main
main()
"""
"""The command line, whose ingest never ends where the job runs for the first time."""


def test_tasks_that_are_killed_warned_and_preempted_go_on(slurm: Slurm, tmp_path: Path) -> None:
    config = write_many(tmp_path, 3, **LAYERS)
    (tmp_path / "slow.py").write_text(SLOW)
    marks = tmp_path / "marks"
    marks.mkdir()
    program = f"{sys.executable} {tmp_path / 'slow.py'} {marks}"
    submitted(config, "--units-per-task", "1", "--program", program, "--setup", f"touch {marks}/set-up")
    killed, warned, preempted = (mark(marks / name) for name in ("S00", "S01", "S02"))
    os.kill(killed[0], signal.SIGKILL)
    slurm.call("scancel", "--batch", "--signal=USR1", str(warned[1]))  # as Slurm does before the time limit
    assert_ends_within(5, warned[0])
    slurm.call("sbatch", "--partition=urgent", "--exclusive", "--output=/dev/null", "--wrap", "true")
    assert_ends_within(5, preempted[0])
    states = slurm.until_all_end()
    assert "DUE TO PREEMPTION" in logs(tmp_path)
    assert "it is queued again" in logs(tmp_path)
    assert {state for name, state in states.items()} >= {"COMPLETED"}
    assert (marks / "set-up").exists()
    built("build", config, "-q", "--set", f"dataset.output={tmp_path / 'alone'}")
    assert digests(tmp_path / "out") == digests(tmp_path / "alone")


def mark(path: Path) -> tuple[int, int]:
    """Wait until a unit has begun; return its process and its job."""
    end = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < end, f"{path.name} did not begin"
        time.sleep(0.05)
    process, job = path.read_text().split()
    return int(process), int(job)


def assert_ends_within(seconds: float, process: int) -> None:
    end = time.monotonic() + seconds
    while Path(f"/proc/{process}").exists():
        assert time.monotonic() < end, f"process {process} is still there after {seconds} s"
        time.sleep(0.05)


def test_what_slurm_refuses_leaves_nothing_in_the_queue(slurm: Slurm, tmp_path: Path) -> None:
    config = write_many(tmp_path, 2, **LAYERS)
    done: Done = stpatch("submit", config, "--sbatch", "--partition=nowhere")
    assert done.code == 1
    assert "invalid partition" in done.err
    assert not slurm.call("squeue", "--noheader")


def test_the_dry_run_is_a_script_that_submits(slurm: Slurm, tmp_path: Path) -> None:
    config = write_many(tmp_path, 2, **LAYERS)
    text = built("submit", config, "--dry-run", "--sbatch", "--hold").out
    assert not slurm.call("squeue", "--noheader")
    said = slurm.call("bash", given=text)
    ids = [line.split()[1] for line in said.splitlines()]
    assert len(ids) == 7
    waits = slurm.call("squeue", "--noheader", "--array", "--format=%F %E")
    assert f"aftercorr:{ids[0]}_" in waits
    slurm.call("scancel", *ids)
    slurm.until_all_end()
