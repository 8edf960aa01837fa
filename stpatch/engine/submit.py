"""A build as a chain of array jobs: which tasks of which stages are left, and what each waits for.

    ingest ==aftercorr==> normalize --> select --> crop --> plan --> shard --> finalize

A task of an array runs one rank's share of a stage, so any width gives the same bytes, and the shard stage can be
submitted before the plan says how many shards there are. A slide has the same rank in ingest and in normalize: there a
task waits for the same task of the stage before and for no other. Every other arrow waits for whole stages.

Nothing is kept of what was submitted: receipts say what is left, and submitting again submits that.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from stpatch.engine.graph import STAGES, Stage
from stpatch.engine.resources import Needs, job_needs
from stpatch.engine.retry import is_done, windows
from stpatch.stages.job import Job

Wait = Literal["aftercorr", "afterok", "afterany"]
"""For the same task of an array to succeed, for all of it to succeed, or for all of it to end."""

TASK_SECONDS = 600.0
"""What a task should have to do at least, where units are small: starting one costs the scheduler and the process."""
MOST_UNITS = 100
"""Units of one task, however small they are: more would leave a large cluster idle."""
LEAST_LIMIT, SAFETY = 600.0, 4.0
"""A job's time limit is so many times the estimate, and at least so many seconds."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Tasks of one stage that are submitted as one job.

    Attributes
    ----------
    name
        Of its own in the chain: the stage's name, with a number from the second batch on.
    stage
        The stage's name.
    tasks
        Array indices; None for a single job, which runs all of the stage.
    offset, world_size
        Task `i` runs rank `i + offset` of `world_size`.
    memory, seconds
        Bytes per task and time limit.
    after
        What it waits for: how, and the name of an earlier batch.
    """

    name: str
    stage: str
    tasks: tuple[int, ...] | None
    offset: int = 0
    world_size: int = 1
    memory: int
    seconds: float
    after: tuple[tuple[Wait, str], ...] = ()


def plan_batches(job: Job, *, largest_array: int, units_per_task: int | None = None) -> list[Batch]:
    """Return the jobs that are left of a build, in the order of their submission; none where all is done.

    Parameters
    ----------
    job
        The config with its slides.
    largest_array
        Array indices that the scheduler takes: those below this number.
    units_per_task
        How many units a task runs; from the estimates where None.
    """
    left = ranks_left(job)
    if not any(left.values()):
        return []
    needs = job_needs(job, planned=left["plan"] == ())
    chain = _Chain(job, needs, largest_array=largest_array, units_per_task=units_per_task)
    for name, units in left.items():
        chain.add(STAGES[name], units)
    return chain.batches


def ranks_left(job: Job) -> dict[str, tuple[int, ...] | None]:
    """Return the numbers of the units that are left, by stage; None: all of a stage, however many it will have.

    Once something is left before a reduce, all that comes after it is looked at by its own tasks, which skip what turns
    out to be done.
    """
    left: dict[str, tuple[int, ...] | None] = {}
    known = True
    for stage in STAGES.values():
        if not known:
            left[stage.name] = None if stage.unit == "task" else tuple(range(_count(job, stage)))
            continue
        before: set[int] = set()  # a slide that is left here is left in the stages after this one too
        for name in stage.after:
            before.update(left[name] or ())
        units = stage.numbered(job)
        left[stage.name] = tuple(i for i, unit in enumerate(units) if i in before or not is_done(job, stage, unit))
        known = stage.name == "ingest" or not left[stage.name]  # between ingest and normalize stands no reduce
    return left


def _count(job: Job, stage: Stage) -> int:
    return len(job.sources) if stage.unit == "slide" else 1


class _Chain:
    """Batches as they are added, stage by stage."""

    def __init__(self, job: Job, needs: Needs, *, largest_array: int, units_per_task: int | None) -> None:
        self.job, self.needs = job, needs
        self.largest_array, self.units_per_task = largest_array, units_per_task
        self.batches: list[Batch] = []
        self._waiting: tuple[str, ...] = ()
        """The batches that the next stage must wait for."""
        self._skips = job.config.run.on_error == "skip"

    def add(self, stage: Stage, units: Sequence[int] | None) -> None:
        """Add what is left of a stage; nothing where nothing is."""
        if units == ():
            return
        if stage.unit == "corpus":
            self._reduce(stage)
        elif stage.after and STAGES[stage.after[-1]].unit == "slide" and self._follows(stage):
            self._follow(stage, units or ())
        else:
            self._array(stage, units)

    def _reduce(self, stage: Stage) -> None:
        self._waiting = (self._add(stage, None, after=self._all(self._waiting)),)

    def _array(self, stage: Stage, units: Sequence[int] | None) -> None:
        """Add an array that waits for all that is before it."""
        size = self._world_size(stage)
        after = self._all(self._waiting)
        self._waiting = tuple(
            self._add(stage, tasks, offset=offset, world_size=size, after=after)
            for offset, tasks in windows(_ranks(units, size), self.largest_array)
        )

    def _follows(self, stage: Stage) -> bool:
        """Whether a task of this stage needs one task of the stage before alone."""
        per_slide = self._world_size(stage) == len(self.job.sources)
        whole = stage.name == "normalize" and self.job.config.normalize.target_sum == "corpus_median"
        # A slide that fails and is left out ends its task as failed: others of that task would wait for ever.
        return stage.name == "normalize" and not whole and (per_slide or not self._skips)

    def _follow(self, stage: Stage, units: Sequence[int]) -> None:
        """Add arrays that wait task by task; tasks that the stage before has none of wait for nothing."""
        size = self._world_size(stage)
        ranks = set(_ranks(units, size))
        added = []
        for before in [batch for batch in self.batches if batch.name in self._waiting]:
            shared = {before.offset + i for i in before.tasks or ()} & ranks
            ranks -= shared
            tasks = tuple(sorted(rank - before.offset for rank in shared))
            wait: tuple[tuple[Wait, str], ...] = (("aftercorr", before.name),)
            if tasks:
                added.append(self._add(stage, tasks, offset=before.offset, world_size=size, after=wait))
        for offset, tasks in windows(sorted(ranks), self.largest_array):
            added.append(self._add(stage, tasks, offset=offset, world_size=size))
        # The stage before is waited for too: a task that is taken out because that before it failed counts as ended.
        self._waiting = (*self._waiting, *added)

    def _all(self, names: Iterable[str]) -> tuple[tuple[Wait, str], ...]:
        """Wait for whole stages: to end where slides may fail and be left out, else to succeed."""
        stages = {batch.name: STAGES[batch.stage] for batch in self.batches}
        return tuple(
            ("afterany" if self._skips and stages[name].unit == "slide" else "afterok", name) for name in names
        )

    def _add(
        self,
        stage: Stage,
        tasks: tuple[int, ...] | None,
        *,
        offset: int = 0,
        world_size: int = 1,
        after: tuple[tuple[Wait, str], ...] = (),
    ) -> str:
        """Add a batch and return its name."""
        number = sum(batch.stage == stage.name for batch in self.batches) + 1
        need = self.needs.by_stage[stage.name]
        units = math.ceil(self._units(stage) / world_size)
        batch = Batch(
            name=stage.name if number == 1 else f"{stage.name}-{number}",
            stage=stage.name,
            tasks=tasks,
            offset=offset,
            world_size=world_size,
            memory=need.memory,
            seconds=max(LEAST_LIMIT, SAFETY * units * need.seconds),
            after=after,
        )
        self.batches.append(batch)
        return batch.name

    def _units(self, stage: Stage) -> int:
        return {"slide": len(self.job.sources), "task": self.needs.tasks, "corpus": 1}[stage.unit]

    def _world_size(self, stage: Stage) -> int:
        """Return how many tasks share a stage; the stages of slides have one number, that of the slowest."""
        stages = [other.name for other in STAGES.values() if other.unit == stage.unit]
        seconds = max(self.needs.by_stage[name].seconds for name in stages)
        each = self.units_per_task or min(MOST_UNITS, max(1, int(TASK_SECONDS // seconds)))
        return max(1, math.ceil(self._units(stage) / each))


def _ranks(units: Sequence[int] | None, world_size: int) -> list[int]:
    """Return the ranks that own some units, rising; all where the units are not known."""
    return list(range(world_size)) if units is None else sorted({unit % world_size for unit in units})
