"""How much memory there is, and how much a unit needs: local workers run as many units together as fit.

The numbers are estimates from file sizes, since nothing else is known before a file is read. Units are spread by what
they are expected to need; one is refused only where even the least that it can need is not there.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from stpatch.engine.graph import Stage
from stpatch.errors import StpatchError
from stpatch.stages.job import Job

WORKER_BYTES = 400_000_000
"""What a worker needs beside its slide: the interpreter, compiled loops, one shard's encoded samples."""
_OF_INPUT, _OF_STREAMED, _OF_STORED = 8.0, 0.5, 1.5
"""Times a file's size: a packed matrix grows and its canonical form is made beside it; tables of molecules are read in
blocks; a stored slide is read or mapped."""
_STREAMED = ("transcripts", ".gem", "tx_file", "molecules")
_NONE = 1 << 60
"""A limit of a cgroup beyond this is none."""


@dataclass(frozen=True)
class Limit:
    """Bytes that all local workers may hold together, and where the number comes from."""

    bytes: int
    source: str


@dataclass(frozen=True)
class UnitSize:
    """Bytes that a unit is expected to need, and the least that it can need."""

    expected: int
    least: int = 0


def memory_limit(job: Job) -> Limit | None:
    """Return the limit by ``run.max_memory``, None for no limit."""
    asked = job.config.run.max_memory
    if asked is None:
        return None
    if asked != "auto":
        return Limit(int(asked), "run.max_memory")
    return machine_limit()


@lru_cache
def machine_limit(root: Path = Path("/")) -> Limit | None:
    """Return what this process may use: the smallest limit of its cgroups (v1 or v2), or the machine's memory.

    Sources: the kernel's cgroup-v2.rst (``memory.max``), memory.rst of v1 (``memory.limit_in_bytes``), proc(5).
    """
    found = [Limit(size, "the memory of this machine")] if (size := _machine_bytes()) else []
    for path in _limit_files(root):
        with contextlib.suppress(OSError, ValueError):  # "max", or no such file
            number = int(path.read_text(encoding="ascii"))
            if 0 < number < _NONE:
                found.append(Limit(number, f"the cgroup's limit, {path}"))
    return min(found, key=lambda limit: limit.bytes, default=None)


def _machine_bytes() -> int:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return 0


def _limit_files(root: Path) -> list[Path]:
    """Return the files of the process' cgroup and those above it."""
    files = []
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    for line in lines:
        _, controllers, place = (*line.split(":", 2), "", "")[:3]
        if controllers == "":
            base, name = root / "sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            base, name = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        folder = base / place.lstrip("/")
        while folder != base.parent:
            files.append(folder / name)
            folder = folder.parent
    return files


def unit_sizes(job: Job, stage: Stage, units: Iterable[str]) -> dict[str, UnitSize]:
    """Return what each unit needs; corpus stages have one unit, of which nothing is known."""
    if stage.unit == "corpus":
        return {unit: UnitSize(WORKER_BYTES) for unit in units}
    if stage.name == "ingest":
        return {unit: _ingest_size(job, unit) for unit in units}
    sizes = {slide_id: _bytes_of(job.slide_path(slide_id)) for slide_id in job.sources}
    if stage.unit == "slide":
        return {unit: _stored_size(sizes[unit], whole=stage.name == "normalize") for unit in units}
    from stpatch.stages.plan import read_plan

    plan = read_plan(job.plan_path)
    tasks = plan.tasks()
    of_slide = np.array([sizes.get(slide_id, 0) for slide_id in plan.slides])
    return {
        unit: _stored_size(int(of_slide[plan.slide[tasks[unit]]].max()) if unit in tasks else 0, whole=False)
        for unit in units  # one that is not in the plan is taken over from the parent
    }


def _stored_size(size: int, *, whole: bool) -> UnitSize:
    return UnitSize(int(WORKER_BYTES + _OF_STORED * size), size // 2 if whole else 0)


def _ingest_size(job: Job, slide_id: str) -> UnitSize:
    source = job.sources[slide_id]
    named = [path for path in (source.matrix, source.transcripts) if path is not None]
    files = [file for path in (source.path, *named) for file in _files(path)]
    sizes = [
        (_OF_STREAMED if any(word in path.name for word in _STREAMED) else _OF_INPUT) * _bytes_of(path)
        for path in files
        if not path.name.endswith(_PICTURES)
    ]
    return UnitSize(int(WORKER_BYTES + max(sizes, default=0)))


_PICTURES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".btf")
"""Files beside the counts that no reader opens."""


def _files(path: Path) -> list[Path]:
    return [item for item in path.rglob("*") if item.is_file()] if path.is_dir() else [path] if path.is_file() else []


def _bytes_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def refuse_too_large(stage: Stage, sizes: dict[str, UnitSize], limit: Limit) -> None:
    """Refuse units that cannot fit, whatever else runs.

    Raises
    ------
    StpatchError
        It says which unit, what it needs at least, and what there is.
    """
    from stpatch.engine.estimate import human_size

    for unit, size in sizes.items():
        if size.least > limit.bytes:
            raise StpatchError(
                "a unit needs more memory than there is",
                where=f"stage {stage.name}, unit {unit}",
                found=f"at least {human_size(size.least)}, about {human_size(size.expected)} expected",
                expected=f"at most {human_size(limit.bytes)} ({limit.source})",
                hint="run it on a machine, or ask the scheduler for a job, with more memory; run.max_memory: null "
                "turns this check off",
            )


def fits(running: Sequence[int], size: int, *, workers: int, limit: Limit | None) -> bool:
    """Whether one more unit may be handed to the workers: those that can run together must fit into the limit.

    Parameters
    ----------
    running
        What the units need that the workers have already; more of them than `workers` wait for their turn.
    size
        What the next one needs.
    """
    if limit is None or not running:
        return True
    return sum(sorted([*running, size])[-workers:]) <= limit.bytes
