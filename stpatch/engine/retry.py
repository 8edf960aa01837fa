"""What is left to run: the units of a stage that are not done, as names, as numbers and as a scheduler's array."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from stpatch.engine.graph import STAGES, Stage
from stpatch.errors import StpatchError
from stpatch.stages.job import Job


@dataclass(frozen=True, kw_only=True)
class Left:
    """The units of a stage that are not done.

    Attributes
    ----------
    stage
        Its name.
    total
        How many units it has.
    units, numbers
        The names of those left, and their places among the stage's units, from 0 and rising: what ``stpatch run STAGE
        CONFIG --unit NAME`` and ``--offset NUMBER`` take.
    failed
        Those of them that have failed.
    """

    stage: str
    total: int
    units: tuple[str, ...] = ()
    numbers: tuple[int, ...] = ()
    failed: tuple[str, ...] = ()

    @property
    def array(self) -> str:
        """The numbers as schedulers write them: ``3,7-9,12``."""
        return compact(self.numbers)

    def as_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "stage": self.stage,
            "total": self.total,
            "left": len(self.units),
            "array": self.array,
            "units": list(self.units),
            "failed": list(self.failed),
        }


def compact(numbers: Iterable[int]) -> str:
    """Return rising numbers with runs of three and more as ranges: ``3,7-9,12``."""
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return ",".join(_run_text(first, last) for first, last in runs)


def _run_text(first: int, last: int) -> str:
    if last - first < 2:
        return str(first) if first == last else f"{first},{last}"
    return f"{first}-{last}"


def expand(array: str) -> list[int]:
    """Return the numbers of a text that `compact` wrote."""
    numbers: list[int] = []
    for part in filter(None, array.split(",")):
        first, _, last = part.partition("-")
        numbers += range(int(first), int(last or first) + 1)
    return numbers


def windows(numbers: Sequence[int], size: int) -> list[tuple[int, tuple[int, ...]]]:
    """Cut rising numbers into windows that a scheduler with array indices below `size` takes.

    Returns
    -------
    list
        Pairs of an offset, a multiple of `size`, and the window's numbers less the offset; no window is empty.
    """
    found: dict[int, list[int]] = {}
    for number in numbers:
        found.setdefault(number // size * size, []).append(number % size)
    return [(offset, tuple(members)) for offset, members in found.items()]


def units_left(job: Job, stage: Stage) -> Left:
    """Return what is left of a stage.

    A receipt is looked at as a run does before it starts a unit: by request, code, inputs and its outputs' sizes.

    Raises
    ------
    StpatchError
        A stage before it must be done first, so that its units are known.
    """
    with _many_at_once():
        return _units_left(job, stage)


@contextlib.contextmanager
def _many_at_once() -> Iterator[None]:
    """Let thousands of receipts be read without Python looking for cycles among them, which takes half of the time."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def _units_left(job: Job, stage: Stage) -> Left:
    numbered = stage.numbered(job)
    going = set(stage.among(job, numbered))
    left = [(i, unit) for i, unit in enumerate(numbered) if unit in going and not is_done(job, stage, unit)]
    return Left(
        stage=stage.name,
        total=len(numbered),
        units=tuple(unit for _, unit in left),
        numbers=tuple(i for i, _ in left),
        failed=tuple(unit for _, unit in left if job.book.failure(stage.name, unit) is not None),
    )


def first_left(job: Job) -> Left | None:
    """Return what is left of the first stage that something is left of, None where all is done.

    With ``run.on_error: skip`` failed slides keep no stage waiting: a stage of which only those are left comes last.
    """
    only_failed: Left | None = None
    for stage in STAGES.values():
        left = units_left(job, stage)
        if len(left.units) > (len(left.failed) if job.config.run.on_error == "skip" else 0):
            return left
        if left.units and only_failed is None:
            only_failed = left
    return only_failed


def is_done(job: Job, stage: Stage, unit: str) -> bool:
    """Whether a unit seems done; it does not where what it stands on is not there."""
    try:
        return stage.seems_done(job, unit)
    except StpatchError:
        return False
