"""Runs stages: skips what is done, shares the rest between workers or ranks, reports, stops or goes on after faults."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from stpatch.engine.changes import record_finished, require_consent, shortened
from stpatch.engine.check import require_output
from stpatch.engine.executors import Executor, executor_for
from stpatch.engine.graph import CORPUS, STAGES, Stage
from stpatch.engine.journal import journal_of
from stpatch.engine.owner import claim_output, enter, release_empty_output, release_output
from stpatch.engine.ranks import Rank
from stpatch.engine.replace import begin, must_be_made_beside, publish, recover
from stpatch.engine.shares import Share
from stpatch.engine.stale import to_be_redone
from stpatch.engine.workers import worker_count
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
    replace: bool = False,
    tell: Callable[[str], object] = lambda _line: None,
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
    replace
        Whether a finished dataset of other settings may be replaced.
    tell
        Is told, before anything runs, what has changed and what will be done again.

    Raises
    ------
    MismatchError
        The output folder or the work dir is another's, or holds a finished dataset that may not be replaced.
    StpatchError
        With ``run.on_error: stop`` the first fault of a unit. With ``skip`` faults are collected in the summary.
    """
    stages = tuple(stages)
    recover(job)
    require_output(job)
    makes_dataset = bool({"shard", "finalize"} & set(stages))
    if makes_dataset and (lines := require_consent(job, replace=replace)):
        _tell_changes(job, lines, tell)
    journal = journal_of(job)
    enter(job, journal, stages=stages, rank=str(rank or ""))
    summary = Summary()
    with journal.running():
        if makes_dataset:
            claim_output(job)
        try:
            _run_all(job, stages, summary, progress=progress, rank=rank, workers=workers, replace=replace)
        finally:
            if makes_dataset:
                release_empty_output(job)
    return summary


def _tell_changes(job: Job, lines: Sequence[str], tell: Callable[[str], object]) -> None:
    tell(f"the finished dataset in {job.place} will be replaced; changed since it was made:")
    for line in shortened(lines):
        tell(f"  {line}")
    again = [name if count is None else f"{name} ({count})" for name, count in to_be_redone(job).items()]
    tell(f"to be done again: {', '.join(again) or 'nothing'}; readers keep the old dataset until the new one is whole")


def _run_all(
    job: Job,
    stages: Sequence[str],
    summary: Summary,
    *,
    progress: Progress,
    rank: Share | None,
    workers: int | None,
    replace: bool,
) -> None:
    count = worker_count(job.config) if workers is None else workers
    with executor_for(job, count, local=rank is not None) as pool:
        for name in stages:
            try:
                if name in ("shard", "finalize") and must_be_made_beside(job):
                    require_consent(job, replace=replace)  # once more: of new inputs only now is known what they hold
                    begin(job)
                _run_stage(job, STAGES[name], pool, summary, progress=progress, rank=rank or Rank())
                if name == "finalize" and (rank or Rank()).share([CORPUS]):
                    _end(job)
            except StpatchError as error:
                if not summary.failures:
                    raise
                raise ProblemsError([*(failure for _, _, failure in summary.failures), error]) from error


def _end(job: Job) -> None:
    """Put a finished dataset in its place, and write down what it was made of."""
    if job.replacing:
        publish(job)
    record_finished(job)
    release_output(job)
    if job.url is not None:
        from stpatch.stages.publish import publish as copy_to

        copy_to(job, job.url)


def _run_stage(job: Job, stage: Stage, pool: Executor, summary: Summary, *, progress: Progress, rank: Share) -> None:
    units = stage.among(job, rank.share(stage.numbered(job)))
    seemingly = [unit for unit in units if stage.seems_done(job, unit)]
    if found := stage.remove_damaged(job, seemingly):
        summary.damaged += found
        seemingly = [unit for unit in seemingly if stage.seems_done(job, unit)]
    done = set(seemingly)
    left = [unit for unit in units if unit not in done]
    summary.skipped[stage.name] = len(units) - len(left)
    if left and stage.name == "shard":
        remove_file(job.output / "manifest.json")  # a dataset in change has no entry point
    with progress(stage.name, len(units), len(units) - len(left)) as bar:
        for unit, error in pool.results(stage.name, left):
            bar.update(1)
            if error is None:
                summary.done[stage.name] = summary.done.get(stage.name, 0) + 1
            elif job.config.run.on_error == "stop" or unit == CORPUS or stage.unit == "task":
                raise error
            else:
                summary.failures.append((stage.name, unit, error))


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
