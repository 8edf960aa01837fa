"""Rank and world size of an array job, from options or from the scheduler's environment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from stpatch.errors import ConfigError

T = TypeVar("T")


@dataclass(frozen=True)
class Rank:
    """Rank `rank` of `world_size`; it takes the units whose number is `rank` modulo `world_size`."""

    rank: int = 0
    world_size: int = 1
    source: str = "options"

    def share(self, units: Sequence[T]) -> list[T]:
        """Return this rank's units: a deterministic share, empty for a rank beyond the units."""
        return list(units[self.rank :: self.world_size])

    def __str__(self) -> str:
        return f"rank {self.rank} of {self.world_size} ({self.source})"


@dataclass(frozen=True)
class _Scheduler:
    """Where a scheduler says which task of an array this is.

    `first` and `step` name variables of the array's first index and its step, `last` of its last index, `count` of the
    number of tasks; `least` is the least index that an array of this scheduler can have. Sources: the manuals of Slurm
    (sbatch), SGE (qsub -t), LSF (bsub -J), PBS (qsub -J), AWS Batch (array jobs) and Kubernetes (indexed jobs).
    """

    name: str
    index: str
    first: str | int = 0
    step: str | int = 1
    last: str | None = None
    count: str | None = None
    least: int = 0


_SCHEDULERS = (
    _Scheduler("Slurm array", "SLURM_ARRAY_TASK_ID", first="SLURM_ARRAY_TASK_MIN", count="SLURM_ARRAY_TASK_COUNT",
               step="SLURM_ARRAY_TASK_STEP"),
    _Scheduler("AWS Batch", "AWS_BATCH_JOB_ARRAY_INDEX", count="AWS_BATCH_JOB_ARRAY_SIZE"),
    _Scheduler("SGE", "SGE_TASK_ID", first="SGE_TASK_FIRST", step="SGE_TASK_STEPSIZE", last="SGE_TASK_LAST",
               least=1),
    _Scheduler("LSF", "LSB_JOBINDEX", first=1, step="LSB_JOBINDEX_STEP", last="LSB_JOBINDEX_END", least=1),
    _Scheduler("PBS", "PBS_ARRAY_INDEX"),
    _Scheduler("Kubernetes", "JOB_COMPLETION_INDEX"),
    _Scheduler("Slurm", "SLURM_PROCID", count="SLURM_NTASKS"),
)  # fmt: skip


def find_rank(rank: int | None, world_size: int | None, environment: Mapping[str, str]) -> Rank:
    """Return the rank: options first, else the scheduler's variables, else rank 0 of 1.

    Parameters
    ----------
    rank, world_size
        The options; `world_size` alone may complete a scheduler that does not tell the number of tasks.
    environment
        The process' environment.

    Raises
    ------
    ConfigError
        A rank without a world size, or numbers that make no sense.
    """
    if rank is not None:
        if world_size is None:
            raise ConfigError("a rank needs a world size", where="--rank", found=rank, hint="give --world-size too")
        return checked_rank(rank, world_size, "options")
    if (found := _scheduler(environment)) is not None:
        return _from_scheduler(*found, world_size, environment)
    if world_size is not None and world_size != 1:
        raise ConfigError(
            "a world size needs a rank", where="--world-size", found=world_size, hint="give --rank, or run an array job"
        )
    return Rank()


def task_number(environment: Mapping[str, str]) -> tuple[int, str]:
    """Return the number that the scheduler gave this task, counted from 0, and the scheduler; 0 outside of an array.

    Unlike a rank it does not change with the other tasks of the array, which may have holes: task 12 of ``3,7-9,12`` is
    number 12. Schedulers that count from 1 have their task 1 as number 0.
    """
    found = _scheduler(environment)
    return (0, "options") if found is None else (found[1] - found[0].least, found[0].name)


def _scheduler(environment: Mapping[str, str]) -> tuple[_Scheduler, int] | None:
    """Return the scheduler that runs this process, with the task's index as it counts."""
    for scheduler in _SCHEDULERS:
        text = environment.get(scheduler.index, "")
        if text.isdigit() and not (scheduler.name == "LSF" and text == "0"):  # LSF's 0: not an array
            return scheduler, int(text)
    return None


def _from_scheduler(scheduler: _Scheduler, index: int, world_size: int | None, environment: Mapping[str, str]) -> Rank:
    def number(name: str | int | None, default: int | None = None) -> int | None:
        if isinstance(name, int):
            return name
        text = environment.get(name or "", "")
        return int(text) if text.isdigit() else default

    first, step = number(scheduler.first, 0) or 0, number(scheduler.step, 1) or 1
    size = world_size or number(scheduler.count)
    last = number(scheduler.last)
    if size is None and last is not None:
        size = (last - first) // step + 1
    if size is None:
        raise ConfigError(
            f"{scheduler.name} does not tell the number of tasks",
            where=f"environment {scheduler.index}",
            found=index,
            hint="give --world-size",
        )
    return checked_rank((index - first) // step, size, scheduler.name)


def checked_rank(rank: int, world_size: int, source: str) -> Rank:
    """Return the rank.

    Raises
    ------
    ConfigError
        The numbers make no sense.
    """
    if world_size < 1 or rank < 0:
        raise ConfigError(
            "rank and world size make no sense", where=source, found=f"rank {rank} of {world_size}",
            expected="0 <= rank < world size",
        )  # fmt: skip
    if rank >= world_size:
        raise ConfigError(
            "the rank is not below the world size",
            where=source,
            found=f"rank {rank} of {world_size}",
            expected="a rank from 0 to the world size less 1",
            hint="where the array has holes, such as 3,7-9, its tasks' numbers are those of units: give --offset 0",
        )
    return Rank(rank, world_size, source)
