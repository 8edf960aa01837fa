"""Commands for clusters: what is left of a build, and its jobs."""

from __future__ import annotations

import json
import shlex
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stpatch.cli.options import AsJson, ConfigPath, Overrides, job_of

if TYPE_CHECKING:
    from stpatch.engine.retry import Left
    from stpatch.engine.submit import Batch


def add_commands(app: typer.Typer) -> None:
    """Register the commands."""
    for command in (retry, submit):
        app.command()(command)


def retry(
    config: ConfigPath,
    overrides: Overrides = None,
    stage: Annotated[
        str | None, typer.Option("--stage", metavar="STAGE", help="The first stage with units left, if left out.")
    ] = None,
    names: Annotated[bool, typer.Option("--names", help="Units' names, one per line, for run --from-list.")] = False,
    slurm: Annotated[bool, typer.Option("--slurm", help="Print sbatch's option: --array=3,7-9,12")] = False,
    as_json: AsJson = False,
) -> None:
    """Say which units are left, as the numbers of an array job.

    Such as 3,7-9,12; nothing where all is done. A task of that array runs: stpatch run STAGE CONFIG --offset 0
    """
    from stpatch.engine.graph import STAGES, stage_named
    from stpatch.engine.retry import Left, first_left, units_left

    job = job_of(config, overrides)
    found = first_left(job) if stage is None else units_left(job, stage_named(stage))
    left = found or Left(stage=list(STAGES)[-1], total=1)
    if as_json:
        typer.echo(json.dumps(left.as_json(), indent=1))
    elif left.units:
        typer.echo("\n".join(left.units) if names else f"{'--array=' if slurm else ''}{left.array}")
    if not as_json:
        typer.echo(_left_text(left), err=True)


def submit(
    config: ConfigPath,
    overrides: Overrides = None,
    setup: Annotated[
        list[str] | None,
        typer.Option("--setup", metavar="LINE", help="A shell line before each task (repeatable; adds to run.setup)."),
    ] = None,
    sbatch: Annotated[
        list[str] | None, typer.Option("--sbatch", metavar="OPTION", help="A further sbatch option (repeatable).")
    ] = None,
    program: Annotated[
        str | None,
        typer.Option("--program", metavar="COMMAND", help="How a node starts stpatch; this Python if not set."),
    ] = None,
    units_per_task: Annotated[
        int | None, typer.Option("--units-per-task", min=1, help="From the estimates if left out.")
    ] = None,
    at_once: Annotated[
        int | None, typer.Option("--at-once", min=1, help="Tasks of an array that run together.")
    ] = None,
    max_array: Annotated[
        int | None, typer.Option("--max-array", min=1, help="MaxArraySize; Slurm is asked if left out.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the job scripts and submit nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Submit what is left of a build to Slurm.

    As a chain of array jobs.

    Submitting again after a failure submits only what is left.
    """
    from stpatch.engine import slurm
    from stpatch.engine.check import require_settings
    from stpatch.engine.submit import plan_batches

    job = job_of(config, overrides)
    require_settings(job)
    batches = plan_batches(job, largest_array=max_array or slurm.largest_array(), units_per_task=units_per_task)
    submission = slurm.Submission(
        program=shlex.split(program) if program else (sys.executable, "-m", "stpatch"),
        config=config.absolute(),
        overrides=overrides or (),
        work=job.work.absolute(),
        setup=(*job.config.run.setup, *(setup or ())),
        options=sbatch or (),
        at_once=at_once,
    )
    ids = {} if dry_run or not batches else slurm.submit(batches, submission)
    if as_json:
        jobs = [_batch_json(batch, ids.get(batch.name), slurm.script(batch, submission)) for batch in batches]
        typer.echo(json.dumps({"jobs": jobs}, indent=1))
    elif not batches:
        typer.echo("nothing is left")
    elif dry_run:
        typer.echo(slurm.shell_text(batches, submission), nl=False)
    else:
        for batch in batches:
            count = (
                "one task" if batch.tasks is None else f"{len(batch.tasks)} task{'s' if len(batch.tasks) > 1 else ''}"
            )
            typer.echo(f"{batch.name:<12} job {ids[batch.name]}, {count}")
        typer.echo(f"logs: {submission.logs}", err=True)


def _batch_json(batch: Batch, job_id: str | None, script: str) -> dict[str, Any]:
    from stpatch.engine.retry import compact

    return {
        "name": batch.name,
        "stage": batch.stage,
        "id": job_id,
        "array": None if batch.tasks is None else compact(batch.tasks),
        "offset": batch.offset,
        "world_size": batch.world_size,
        "after": [{"kind": kind, "name": name} for kind, name in batch.after],
        "script": script,
    }


def _left_text(left: Left) -> str:
    if not left.units:
        return "nothing is left"
    failed = f", {len(left.failed)} of them failed" if left.failed else ""
    return f"stage {left.stage}: {len(left.units)} of {left.total} units left{failed}"
