"""Runs stages: skips what is done, shares the rest between workers or ranks, reports, stops or goes on after faults."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from stpatch.engine.check import require_output
from stpatch.engine.executors import Executor, executor_for
from stpatch.engine.graph import CORPUS, STAGES, Stage
from stpatch.engine.ranks import Rank
from stpatch.engine.shares import Share
from stpatch.engine.workers import worker_count, workers_in
from stpatch.errors import MismatchError, ProblemsError, StpatchError, UnitsFailedError
from stpatch.stages.job import Job
from stpatch.storage import remove_file


class Bar(Protocol):
    """A progress bar, as tqdm makes them."""

    def update(self, n: int) -> object:
        """Move on by `n` units."""
        ...


Progress = Callable[[str, int, int], AbstractContextManager[Bar]]
"""Makes the bar of a stage from its name, its number of units and how many of them are done already."""


@dataclass
class Summary:
    """What a run did."""

    done: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    failures: list[tuple[str, str, StpatchError]] = field(default_factory=list)
    damaged: list[Path] = field(default_factory=list)

    def failed_error(self) -> UnitsFailedError | None:
        """Return one error that lists the failures, None if there are none."""
        if not self.failures:
            return None
        blocks = "\n".join(f"[{stage} {unit}] {error.block()}" for stage, unit, error in self.failures)
        count = len(self.failures)
        return UnitsFailedError(f"{count} unit{'s' if count > 1 else ''} failed; the rest is done\n{blocks}")


def run_stages(
    job: Job,
    stages: Iterable[str],
    *,
    progress: Progress,
    rank: Share | None = None,
    workers: int | None = None,
) -> Summary:
    """Run stages in order, each unit at most once, and only those that are not done.

    Parameters
    ----------
    job
        The config with its slides.
    stages
        Names, in the order of `STAGES`.
    progress
        Makes progress bars.
    rank
        Of an array job: only these units are run. Corpus stages belong to rank 0.
    workers
        Worker processes; the config's number where None.

    Raises
    ------
    StpatchError
        With ``run.on_error: stop`` the first fault of a unit. With ``skip`` faults are collected in the summary.
    """
    require_output(job)
    summary = Summary()
    count = worker_count(job.config) if workers is None else workers
    with executor_for(job, count, local=rank is not None) as pool:
        for name in stages:
            try:
                _run_stage(job, STAGES[name], pool, summary, progress=progress, rank=rank or Rank())
            except StpatchError as error:
                if not summary.failures:
                    raise
                raise ProblemsError([*(failure for _, _, failure in summary.failures), error]) from error
            if name == "finalize" and job.url is not None and (rank or Rank()).share([CORPUS]):
                from stpatch.stages.publish import publish

                publish(job, job.url)
    return summary


def _run_stage(job: Job, stage: Stage, pool: Executor, summary: Summary, *, progress: Progress, rank: Share) -> None:
    units = stage.among(job, rank.share(stage.numbered(job)))
    seemingly = [unit for unit in units if stage.seems_done(job, unit)]
    if found := stage.remove_damaged(job, seemingly):
        summary.damaged += found
        seemingly = [unit for unit in seemingly if stage.seems_done(job, unit)]
    done = set(seemingly)
    left = [unit for unit in units if unit not in done]
    summary.skipped[stage.name] = len(units) - len(left)
    if left and stage.name in ("shard", "finalize"):
        remove_file(job.output / "manifest.json")  # a dataset in change has no entry point
    with progress(stage.name, len(units), len(units) - len(left)) as bar:
        for unit, error in pool.results(stage.name, left, at_once=_at_once(job, stage)):
            bar.update(1)
            if error is None:
                summary.done[stage.name] = summary.done.get(stage.name, 0) + 1
            elif job.config.run.on_error == "stop" or unit == CORPUS or stage.unit == "task":
                raise error
            else:
                summary.failures.append((stage.name, unit, error))


def _at_once(job: Job, stage: Stage) -> int | None:
    """Return how many units of a stage fit into ``run.max_memory``; None = no limit."""
    memory = job.config.run.max_memory
    if memory is None:
        return None
    if stage.name == "ingest":  # compressed matrices grow, and a canonical slide is made beside the raw one
        sizes = [file.stat().st_size for source in job.sources.values() for file in _files(source.path)]
        return workers_in(memory, largest=max(sizes, default=0), times=8)
    sizes = [path.stat().st_size for path in (job.work / "slides").glob("*.h5ad")]
    return workers_in(memory, largest=max(sizes, default=0), times=1.5)


def _files(path: Path) -> list[Path]:
    return [item for item in path.rglob("*") if item.is_file()] if path.is_dir() else [path] if path.is_file() else []


def check_upstream(job: Job, name: str, *, rank: Share | None = None) -> None:
    """Refuse to run a stage on what an older config made, or on what is damaged.

    Every receipt that the share's units stand on must answer today's config: those of the stages before, for a slide's
    unit those of the slide alone. What these units read must be what was written, by checksum: the outputs of the
    corpus stages, and of the slides that the units go through.

    Raises
    ------
    MismatchError
        A receipt of an earlier stage is of another config, or an output is not what its receipt says.
    """
    target = STAGES[name]
    before = list(STAGES.values())[: list(STAGES).index(name)]
    own = (rank or Rank()).share(target.numbered(job)) if target.unit == "slide" else []
    for stage in before:
        units = stage.among(job, own) if target.unit == stage.unit == "slide" else stage.units(job)
        for unit in units:
            receipt = job.book.receipt(stage.name, unit)
            if receipt is not None and not stage.is_current(job, receipt):
                other = "with another config" if receipt.request != stage.request(job, unit) else "by other code"
                raise MismatchError(
                    f"stage {stage.name} was run {other}",
                    where=f"work dir {job.work}, unit {unit}",
                    hint=f"run it again first: stpatch run {stage.name} CONFIG",
                )
        if stage.unit == "corpus":  # before its outputs are read to tell the units of the stages after it
            _require_whole(job, stage, units)
    own = target.among(job, (rank or Rank()).share(target.numbered(job)))
    slides = _slides_of(job, target, own)
    for stage in before:
        if stage.unit == "slide":
            _require_whole(job, stage, stage.among(job, [unit for unit in job.sources if unit in slides]))
        elif stage.unit == "task" and own:
            _require_whole(job, stage, stage.units(job))


def _slides_of(job: Job, stage: Stage, units: Sequence[str]) -> set[str]:
    """Return the slides that some units of a stage read."""
    if stage.unit == "slide" or not units:
        return set(units)
    if stage.unit == "corpus":
        return set(job.sources)
    from stpatch.stages.plan import read_plan

    plan = read_plan(job.plan_path)
    tasks = plan.tasks()
    return {plan.slides[i] for unit in units if unit in tasks for i in set(plan.slide[tasks[unit]].tolist())}


def _require_whole(job: Job, stage: Stage, units: Iterable[str]) -> None:
    if damaged := stage.damaged(job, units):
        raise MismatchError(
            f"what stage {stage.name} made is damaged",
            where=", ".join(str(path) for path in damaged[:4]),
            found="other bytes than those that were written",
            hint=f"make it again first: stpatch run {stage.name} CONFIG",
        )
