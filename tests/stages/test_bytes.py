"""One dataset, byte for byte: from any number of workers and ranks, in any order, at any place, after any kill."""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from bundles.corpus import digests, write_config, write_corpus
from commands import built

from stpatch import storage

STAGES = ("ingest", "normalize", "select", "crop", "plan", "shard", "finalize")
SETTINGS: dict[str, dict[str, Any]] = {"shards": {"patches": 3, "mix": 2}, "channels": {"n": 5, "draws": 2}}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The slides; nothing is built here."""
    folder = tmp_path_factory.mktemp("slides")
    write_corpus(folder)
    return folder


@pytest.fixture(scope="module")
def expected(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The bytes of one uninterrupted build by one worker."""
    folder = tmp_path_factory.mktemp("expected")
    built("build", config_at(folder, corpus), "-q")
    return digests(folder / "out")


def config_at(folder: Path, corpus: Path, **sections: dict[str, Any]) -> Path:
    return write_config(folder, slides={"sheet": str(corpus / "slides.csv")}, **{**SETTINGS, **sections})


def nothing_temporary(folder: Path) -> bool:
    return not [path for path in folder.rglob("*") if ".tmp" in path.name or path.name.startswith("tmp")]


def test_two_workers(tmp_path: Path, corpus: Path, expected: dict[str, str]) -> None:
    built("build", config_at(tmp_path, corpus), "-q", "--workers", 2)
    assert digests(tmp_path / "out") == expected
    assert nothing_temporary(tmp_path)


def test_one_slide_that_this_process_ingests_while_its_workers_get_ready(tmp_path: Path, corpus: Path) -> None:
    sheet = corpus / "one.csv"
    sheet.write_text("\n".join((corpus / "slides.csv").read_text().splitlines()[:2]) + "\n")
    found = []
    for workers in (1, 2):
        folder = tmp_path / str(workers)
        folder.mkdir()
        config = write_config(folder, slides={"sheet": str(sheet)}, **SETTINGS, split={"fractions": {"train": 1.0}})
        built("build", config, "-q", "--workers", workers)
        found.append(digests(folder / "out"))
    assert found[0] == found[1]
    assert len([path for path in found[0] if path.endswith(".tar")]) > 1


def test_ranks_in_any_order(tmp_path: Path, corpus: Path, expected: dict[str, str]) -> None:
    config = config_at(tmp_path, corpus)
    orders = itertools.cycle([(2, 0, 1), (1, 2, 0), (0, 1, 2), (2, 1, 0)])
    for stage, order in zip(STAGES, orders, strict=False):
        for rank in order:
            built("run", stage, config, "-q", "--rank", rank, "--world-size", 3)
    assert digests(tmp_path / "out") == expected
    assert nothing_temporary(tmp_path)


def test_ranks_of_a_scheduler_and_ranks_beyond_the_units(
    tmp_path: Path, corpus: Path, expected: dict[str, str]
) -> None:
    config = config_at(tmp_path, corpus)
    for stage in STAGES:
        for task in (40, 3, 2, 1):
            environment = {
                "SLURM_ARRAY_TASK_ID": str(task),
                "SLURM_ARRAY_TASK_MIN": "1",
                "SLURM_ARRAY_TASK_COUNT": "40",
            }
            with mock.patch.dict(os.environ, environment):
                done = built("run", stage, config, "-q")
            assert f"rank {task - 1} of 40 (Slurm array)" in done.err
        built("run", stage, config, "-q")
    assert digests(tmp_path / "out") == expected


def test_another_place_and_another_copy_of_the_slides(tmp_path: Path, expected: dict[str, str]) -> None:
    folder = tmp_path / "else where" / "é"
    write_corpus(folder)
    built("build", config_at(folder, folder, dataset={"output": "../made/here", "work_dir": "w"}), "-q")
    assert digests(tmp_path / "else where" / "made" / "here") == expected


def test_the_order_of_the_sheet_does_not_matter(tmp_path: Path, corpus: Path, expected: dict[str, str]) -> None:
    header, *rows = (corpus / "slides.csv").read_text().splitlines()
    sheet = corpus / "reversed.csv"
    sheet.write_text("\n".join([header, *reversed(rows)]) + "\n")
    built("build", write_config(tmp_path, slides={"sheet": str(sheet)}, **SETTINGS), "-q")
    assert digests(tmp_path / "out") == expected


class Killed(BaseException):
    """Nothing catches it, as nothing catches SIGKILL."""


def test_a_crash_before_any_write(tmp_path: Path, corpus: Path, expected: dict[str, str]) -> None:
    """Crash again and again, a few writes further each time, until a run comes through."""
    config = config_at(tmp_path, corpus)
    real = Path.replace
    crashes = 0
    for allowed in itertools.cycle([3, 5, 7, 8, 4, 12]):
        written = 0

        def replace(path: Path, target: Path, *, most: int = allowed) -> Path:
            nonlocal written
            written += 1
            if written > most:
                raise Killed
            return real(path, target)

        with mock.patch.object(Path, "replace", replace):
            try:
                built("build", config, "-q")
                break
            except Killed:
                crashes += 1
        if (tmp_path / "out" / "manifest.json").exists():
            assert digests(tmp_path / "out") == expected, "a dataset that is not finished has no entry point"
        assert crashes < 100
    assert crashes > 5
    assert digests(tmp_path / "out") == expected
    assert nothing_temporary(tmp_path)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_kill_at_any_time(tmp_path: Path, corpus: Path, expected: dict[str, str], workers: int) -> None:
    config = config_at(tmp_path, corpus)
    command = [sys.executable, "-m", "stpatch", "build", str(config), "-q", "--workers", str(workers)]
    receipts = tmp_path / "out.work" / "receipts"
    moments = random.Random(workers)
    done = 0
    while True:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
        done += moments.randrange(4, 16)
        while process.poll() is None and len(list(receipts.rglob("[!.]*.json"))) < done:
            time.sleep(0.005)
        if process.poll() is None:
            time.sleep(moments.random() * 0.02)
            os.killpg(process.pid, signal.SIGKILL)
        _, err = process.communicate()
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, err.decode()
        for path in (tmp_path / "out").rglob("*.tar"):
            assert (
                path.name.startswith(storage._TEMPORARY)
                or digests(path.parent)[path.name] == expected[path.relative_to(tmp_path / "out").as_posix()]
            ), "a final name holds a whole shard or nothing"
    assert digests(tmp_path / "out") == expected
    assert nothing_temporary(tmp_path)


def test_a_killed_rebuild_leaves_the_old_dataset_whole(tmp_path: Path, corpus: Path, expected: dict[str, str]) -> None:
    built("build", config_at(tmp_path, corpus, shards={"patches": 5}), "-q")
    before = digests(tmp_path / "out")
    config = config_at(tmp_path, corpus)
    real, written = Path.replace, 0

    def replace(path: Path, target: Path) -> Path:
        nonlocal written
        written += 1
        if written > 8:
            raise Killed
        return real(path, target)

    with mock.patch.object(Path, "replace", replace), pytest.raises(Killed):
        built("build", config, "-q", "--replace")
    assert digests(tmp_path / "out") == before
    built("build", config, "-q", "--replace")
    assert digests(tmp_path / "out") == expected


@pytest.mark.parametrize(
    "sections",
    [
        {"shards": {"format": "zarr", "patches": 4}},
        {"shards": {"encoding": "npy", "patches": 4}},
        {
            "shards": {"values": "normalized", "patches": 4},
            "channels": {"scope": "panel", "method": "all"},
        },
    ],
    ids=["zarr", "npy", "normalized panel"],
)
def test_other_formats_by_ranks(tmp_path: Path, corpus: Path, sections: dict[str, Any]) -> None:
    for name in ("one", "ranks"):
        (tmp_path / name).mkdir()
    built("build", config_at(tmp_path / "one", corpus, **sections), "-q")
    config = config_at(tmp_path / "ranks", corpus, **sections)
    for stage in STAGES:
        for rank in (1, 0):
            built("run", stage, config, "-q", "--rank", rank, "--world-size", 2)
    assert digests(tmp_path / "ranks" / "out") == digests(tmp_path / "one" / "out")
