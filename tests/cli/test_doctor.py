"""`doctor`: each look passes, warns or fails for its own reason, and says what helps."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
from bundles.corpus import write_corpus
from commands import stpatch

from stpatch.engine import doctor
from stpatch.engine.doctor import FAIL, PASS, WARN, Finding, examine

NAMES = {
    "installation",
    "packages",
    "extras",
    "compiler cache",
    "disk",
    "files",
    "file locking",
    "memory",
    "schedulers",
}


def look(folder: Path, **environment: str) -> dict[str, Finding]:
    return {finding.name: finding for finding in examine(folder, environment=environment, config=None)}


def test_every_look_says_something(tmp_path: Path) -> None:
    done = stpatch("doctor", "--json")
    findings = json.loads(done.out)
    assert {finding["name"] for finding in findings} == NAMES
    assert {finding["state"] for finding in findings} <= {PASS, WARN, FAIL}
    assert all(finding["hint"] for finding in findings if finding["state"] != PASS)
    assert "PASS  installation" in stpatch("doctor").out
    assert not list(tmp_path.iterdir()), "nothing is left behind"


def test_a_config_is_looked_at(tmp_path: Path) -> None:
    config = write_corpus(tmp_path)
    done = stpatch("doctor", config, "--json")
    assert json.loads(done.out)[-1] == {
        "name": "config", "state": PASS, "said": "can be read; stpatch check looks at the slides", "hint": "",
    }  # fmt: skip
    (tmp_path / "bad.yaml").write_text(config.read_text().replace("slides.csv", "none.csv"))
    done = stpatch("doctor", tmp_path / "bad.yaml")
    assert done.code == 1
    assert "FAIL  config" in done.out
    assert "none.csv" in done.out
    assert "hint: " in done.out


@pytest.mark.parametrize(("free", "state"), [(10**7, FAIL), (10**9, WARN), (10**11, PASS)])
def test_little_disk_is_told(free: int, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: usage(0, 0, free))
    assert look(tmp_path)["disk"].state == state


def test_missing_packages_and_extras_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.metadata.version

    def without(name: str) -> str:
        if name in ("zarr", "torch"):
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib.metadata, "requires", lambda _name: ["zarr>=3", "numpy", 'torch; extra == "torch"'])
    monkeypatch.setattr(importlib.metadata, "version", without)
    found = look(tmp_path)
    assert found["packages"].state == FAIL
    assert found["packages"].hint == "pip install zarr"
    assert "torch" in found["extras"].said.partition("not installed")[2]


def test_a_folder_that_cannot_be_written_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: Any, **_named: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor.tempfile, "TemporaryDirectory", refuse)
    found = look(tmp_path / "not" / "there")
    assert found["files"].state == FAIL
    assert "Permission denied" in found["files"].said


def test_a_cache_that_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert look(tmp_path, NUMBA_CACHE_DIR=str(tmp_path / "cache"))["compiler cache"].state == PASS
    monkeypatch.setattr(doctor.os, "access", lambda *_args: False)
    assert "NUMBA_CACHE_DIR" in look(tmp_path)["compiler cache"].hint


def test_memory_is_the_smaller_of_machine_and_cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "memory_limit", lambda: (10**9, "of the cgroup"))
    found = look(tmp_path)["memory"]
    assert found.state == WARN
    assert "1.0 GB (of the cgroup)" in found.said


def test_the_scheduler_of_a_task_is_named(tmp_path: Path) -> None:
    told = look(tmp_path, SLURM_PROCID="2", SLURM_NTASKS="4")["schedulers"].said
    assert "task 2 of 4 (Slurm" in told
