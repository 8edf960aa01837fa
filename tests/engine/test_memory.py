"""How much memory there is, what units need of it, and how many run together."""

from __future__ import annotations

from pathlib import Path

import pytest
from bundles.corpus import write_corpus
from commands import built, stpatch
from hypothesis import given
from hypothesis import strategies as st

from stpatch.cli.options import job_of
from stpatch.engine import memory
from stpatch.engine.graph import STAGES
from stpatch.engine.memory import WORKER_BYTES, Limit, fits, machine_limit, memory_limit, unit_sizes
from stpatch.engine.workers import Workers

GB = 10**9


def host(folder: Path, cgroup: str, limits: dict[str, str]) -> Path:
    (folder / "proc" / "self").mkdir(parents=True)
    (folder / "proc" / "self" / "cgroup").write_text(cgroup)
    for name, text in limits.items():
        path = folder / "sys" / "fs" / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return folder


@pytest.mark.parametrize(
    ("cgroup", "limits", "size"),
    [
        ("0::/job/step\n", {"job/memory.max": "3000000000", "job/step/memory.max": "max"}, 3 * GB),
        ("0::/job\n", {"job/memory.max": "3000000000", "memory.max": "2000000000"}, 2 * GB),
        ("5:cpu:/x\n4:memory,hugetlb:/job\n", {"memory/job/memory.limit_in_bytes": "2000000000"}, 2 * GB),
        ("4:memory:/job\n", {"memory/job/memory.limit_in_bytes": "9223372036854771712"}, None),
        ("0::/\n", {}, None),
        ("", {}, None),
    ],
    ids=["v2, above", "v2, the smaller", "v1", "v1, none", "v2, no file", "no cgroup"],
)
def test_the_limit_of_a_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cgroup: str, limits: dict[str, str], size: int | None
) -> None:
    monkeypatch.setattr(memory, "_machine_bytes", lambda: 64 * GB)
    limit = machine_limit(host(tmp_path, cgroup, limits))
    assert limit is not None
    assert limit.bytes == (64 * GB if size is None else size)
    assert limit.source.startswith("the memory") == (size is None)


@given(st.lists(st.integers(1, 100), max_size=8), st.integers(1, 100), st.integers(1, 4))
def test_what_runs_together_fits(running: list[int], size: int, workers: int) -> None:
    limit = Limit(150, "test")
    assert fits(running, size, workers=workers, limit=None)
    if fits(running, size, workers=workers, limit=limit) and running:
        assert sum(sorted([*running, size], reverse=True)[:workers]) <= 150
    assert fits([], size, workers=workers, limit=Limit(1, "test")), "one unit always runs"


def test_the_config_says_auto_a_size_or_none(tmp_path: Path) -> None:
    config = write_corpus(tmp_path)
    auto, size, none = (memory_limit(job_of(config, [f"run.max_memory={text}"])) for text in ("auto", "2GB", "null"))
    assert auto == machine_limit()
    assert size == Limit(2 * GB, "run.max_memory")
    assert none is None


def test_sizes_of_units(tmp_path: Path) -> None:
    config = write_corpus(tmp_path)
    built("build", config, "-q")
    job = job_of(config, None)
    (tmp_path / "visium" / "V1" / "image.tif").write_bytes(bytes(10**6))
    for stage in STAGES.values():
        sizes = unit_sizes(job, stage, stage.units(job))
        assert list(sizes) == stage.units(job)
        assert all(WORKER_BYTES <= size.expected < WORKER_BYTES + 10**6 for size in sizes.values()), stage.name
    stored = job.slide_path("H1").stat().st_size
    assert unit_sizes(job, STAGES["normalize"], ["H1"])["H1"].expected == WORKER_BYTES + int(1.5 * stored)


def test_a_unit_that_cannot_fit_is_refused_with_numbers(tmp_path: Path) -> None:
    config = write_corpus(tmp_path)
    done = stpatch("build", config, "-q", "--set", "run.max_memory=5kB")
    assert done.code == 2
    for text in ("more memory than there is", "stage normalize, unit", "at most 5 kB (run.max_memory)", "null"):
        assert text in done.err
    built("build", config, "-q", "--set", "run.max_memory=null")


def test_where_two_units_do_not_fit_this_process_does_them_one_by_one(tmp_path: Path) -> None:
    job = job_of(write_corpus(tmp_path), ["run.max_memory=500MB"])
    with Workers(job, 2) as pool:
        assert len(list(pool.results("ingest", list(job.sources)))) == 4
        assert pool._pool is None
