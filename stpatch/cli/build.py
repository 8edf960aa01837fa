"""Commands that work on a config: check, plan, build, run, status."""

from __future__ import annotations

import json
import os
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stpatch.cli.options import AsJson, ConfigPath, LogFile, Overrides, Quiet, Verbose, bar, job_of

if TYPE_CHECKING:
    from stpatch.engine.check import SlideCheck
    from stpatch.engine.run import Progress, Summary
    from stpatch.stages.job import Job

BEFORE_PLAN = ("ingest", "normalize", "select", "crop", "plan")
WorkersOption = Annotated[int | None, typer.Option("--workers", "-w", min=1, help="Worker processes (run.workers).")]
Replace = Annotated[
    bool, typer.Option("--replace", help="Replace a finished dataset that was made with other settings or inputs.")
]

UnitOption = Annotated[
    list[str] | None, typer.Option("--unit", metavar="NAME", help="Run this unit alone (repeatable).")
]
OffsetOption = Annotated[
    int | None,
    typer.Option("--offset", metavar="N", help="Add N to the task's number; without --world-size it is one unit's."),
]
ListOption = Annotated[
    Path | None, typer.Option("--from-list", metavar="FILE", help="Share the units of a file, one name per line.")
]


def add_commands(app: typer.Typer) -> None:
    """Register the commands."""
    for command in (check, plan, build, run, status):
        app.command()(command)


def check(config: ConfigPath, overrides: Overrides = None, as_json: AsJson = False, quiet: Quiet = False) -> None:
    """Look at the config and every slide's headers.

    No matrix is read, and all problems are listed at once.
    """
    from stpatch.engine.check import check_labels, check_settings, check_slides
    from stpatch.engine.corpus_check import check_corpus
    from stpatch.errors import one_or_many
    from stpatch.views.build_table import note_lines

    job = job_of(config, overrides)
    problems = check_settings(job)
    with bar("check", len(job.sources), 0, quiet=quiet) as shown:
        rows = check_slides(job, tick=lambda: shown.update(1))
    problems += [row.problem for row in rows if row.problem is not None]
    problems += check_labels(job, rows)
    corpus = check_corpus(job, {row.source.slide_id: row.probe for row in rows if row.probe is not None})
    problems += [problem for problem in corpus.problems if problem.block() not in {other.block() for other in problems}]
    if as_json:
        value = {
            "slides": [row.as_json() for row in rows],
            "problems": [problem.block() for problem in problems],
            "notes": corpus.notes,
        }
        typer.echo(json.dumps(value, indent=1))
    else:
        typer.echo(_check_table(rows))
        notes = [(row.source.slide_id, note) for row in rows if row.probe is not None for note in row.probe.notes]
        for note in (*note_lines(notes), *corpus.notes):
            typer.echo(f"note: {note}")
    if problems:
        raise one_or_many(problems)
    if not as_json:
        typer.echo(f"{len(rows)} slide{'s' if len(rows) != 1 else ''}, no problem found")


def _check_table(rows: list[SlideCheck]) -> str:
    from stpatch.views.words import aligned

    header = ["slide", "platform", "version", "spots", "genes", "unit", "um/unit", "pitch um", "recognized by"]
    cells: list[list[object]] = []
    for row in rows:
        probe = row.probe
        if probe is None:
            cells.append([row.source.slide_id, "?", "", None, None, "", None, None, "see the problems"])
            continue
        cells.append(
            [
                row.source.slide_id,
                probe.platform,
                probe.version,
                probe.n_spots,
                probe.n_genes,
                probe.unit,
                probe.um_per_unit,
                probe.pitch_um,
                probe.reason,
            ]
        )
    return aligned(header, cells, indent="", digits=4)


def plan(
    config: ConfigPath,
    overrides: Overrides = None,
    estimate: Annotated[bool, typer.Option("--estimate", help="Estimate from the headers; read no matrix.")] = False,
    workers: WorkersOption = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Run up to the patch plan and say what it holds.

    Samples by slide and split, bytes, memory, tasks, the array range to submit.
    """
    from stpatch.engine.estimate import estimate_outlook, plan_outlook

    job = job_of(config, overrides)
    summary = None
    if estimate:
        outlook = estimate_outlook(job)
    else:
        summary = _run(job, BEFORE_PLAN, workers=workers, quiet=quiet)
        outlook = plan_outlook(job)
    if as_json:
        typer.echo(json.dumps(outlook.as_json(), indent=1))
    else:
        typer.echo(outlook.text())
    _raise_failures(summary)


def build(
    config: ConfigPath,
    overrides: Overrides = None,
    workers: WorkersOption = None,
    replace: Replace = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    log: LogFile = None,
) -> None:
    """Run all stages; running it again continues."""
    from stpatch.cli.progress import BuildProgress
    from stpatch.engine.account import run_account
    from stpatch.engine.graph import STAGES

    job = job_of(config, overrides)
    progress = BuildProgress(job, quiet=quiet, verbose=verbose, log=log)
    summary = _run(job, tuple(STAGES), workers=workers, replace=replace, quiet=quiet, progress=progress)
    done = _done_text(job, summary)
    if summary.done:
        typer.echo(run_account(job, progress.seconds), err=True)
    typer.echo(done)
    _raise_failures(summary)


def run(
    stage: Annotated[
        str,
        typer.Argument(
            metavar="STAGE", help="ingest, normalize, select, crop, plan, shard or finalize.", show_default=False
        ),
    ],
    config: ConfigPath,
    overrides: Overrides = None,
    *,
    rank: Annotated[int | None, typer.Option(min=0, help="This task's number; from the scheduler if left out.")] = None,
    world_size: Annotated[int | None, typer.Option(min=1, help="Number of tasks; likewise.")] = None,
    unit: UnitOption = None,
    offset: OffsetOption = None,
    from_list: ListOption = None,
    workers: WorkersOption = None,
    replace: Replace = False,
    quiet: Quiet = False,
) -> None:
    """Run one stage, or a task's share of it in an array job.

    A rank beyond the units has nothing to do, and exits with 0.
    """
    from stpatch.engine.graph import stage_named
    from stpatch.engine.shares import ShareOptions, find_share

    stage_named(stage)
    options = ShareOptions(
        rank=rank, world_size=world_size, units=tuple(unit or ()), offset=offset, from_list=from_list
    )
    share = find_share(options, os.environ)
    job = job_of(config, overrides)
    from stpatch.engine.run import check_upstream, run_stages

    check_upstream(job, stage, rank=share)
    summary = run_stages(
        job,
        [stage],
        progress=partial(bar, quiet=quiet),
        rank=share,
        workers=workers or 1,
        replace=replace,
        tell=partial(typer.echo, err=True),
    )
    typer.echo(
        f"stage {stage}, {share}: {summary.done.get(stage, 0)} done, "
        f"{summary.skipped.get(stage, 0)} were done already, {len(summary.failures)} failed",
        err=True,
    )
    _raise_failures(summary)


def status(
    config: ConfigPath,
    overrides: Overrides = None,
    watch: Annotated[bool, typer.Option("--watch", help="Show it again and again until all is done.")] = False,
    every: Annotated[float, typer.Option("--every", min=0.1, help="Seconds between two looks of --watch.")] = 5.0,
    as_json: AsJson = False,
) -> None:
    """Show units done, running, failed and left.

    Over all ranks and hosts that work on the job.
    """
    from stpatch.engine.status import is_at_rest, stage_statuses, status_text, what_changed

    while True:
        job = job_of(config, overrides)
        statuses = stage_statuses(job)
        if as_json:
            typer.echo(json.dumps([item.as_json() for item in statuses], indent=None if watch else 1))
        else:
            if watch and sys.stdout.isatty():
                typer.echo("\x1b[2J\x1b[H", nl=False)  # clear the screen
            elif watch:
                typer.echo(time.strftime("%Y-%m-%d %H:%M:%S"))
            typer.echo(status_text(statuses, what_changed(job)))
        if not watch or is_at_rest(statuses):
            return
        time.sleep(every)


def _run(
    job: Job,
    stages: tuple[str, ...],
    *,
    workers: int | None,
    quiet: bool,
    replace: bool = False,
    progress: Progress | None = None,
) -> Summary:
    from stpatch.engine.check import require_settings
    from stpatch.engine.run import run_stages

    require_settings(job)
    return run_stages(
        job,
        stages,
        progress=progress or partial(bar, quiet=quiet),
        workers=workers,
        replace=replace,
        tell=partial(typer.echo, err=True),
    )


def _done_text(job: Job, summary: Summary) -> str:
    from stpatch.dataset.manifest import read_manifest
    from stpatch.engine.account import corpus_notes, slide_account
    from stpatch.engine.estimate import human_size
    from stpatch.engine.graph import CORPUS
    from stpatch.engine.growth import growth_notes
    from stpatch.stages.deal import dealt_slides

    for path in summary.damaged:
        typer.echo(f"note: {path} was damaged since it was written, and has been made again", err=True)
    facts = job.receipt("finalize", CORPUS).facts
    if summary.done and job.sources:
        typer.echo(slide_account(job), err=True)
    growth = growth_notes(job, job.parent, dealt_slides(job)) if job.parent else []
    for note in dict.fromkeys([*growth, *facts["notes"], *corpus_notes(job)]):
        typer.echo(f"note: {note}", err=True)
    parts = ", ".join(f"{name} {split.patches}" for name, split in read_manifest(job.output).splits.items())
    shards = f"{facts['shards']} shard{'s' if facts['shards'] > 1 else ''}"
    state = "up to date" if not summary.done else "finished"
    return f"{state}: {job.url or job.output} ({parts} samples; {human_size(facts['bytes'])} in {shards})"


def _raise_failures(summary: Summary | None) -> None:
    if summary is not None and (error := summary.failed_error()) is not None:
        raise error
