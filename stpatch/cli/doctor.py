"""The command that looks at the machine: doctor."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from stpatch.cli.options import AsJson, Overrides, job_of


def add_commands(app: typer.Typer) -> None:
    """Register the commands."""
    app.command()(doctor)


def doctor(
    config: Annotated[Path | None, typer.Argument(metavar="CONFIG", help="A config to look at too.")] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Look at the machine: PASS, WARN or FAIL, with hints.

    Installation, extras, compiler cache, disk, files, memory, schedulers, and a config. Exit code 1 if one fails.
    """
    from stpatch.engine.check import require_settings
    from stpatch.engine.doctor import examine, exit_code
    from stpatch.errors import StpatchError

    folder = Path()
    if config is not None:
        try:
            folder = job_of(config, overrides).output
        except StpatchError:
            folder = config.parent  # what is wrong with it is one of the findings
    looks = None if config is None else lambda: require_settings(job_of(config, overrides))
    findings = examine(folder, environment=os.environ, config=looks)
    if as_json:
        typer.echo(json.dumps([vars(finding) for finding in findings], indent=1))
    else:
        width = max(len(finding.name) for finding in findings)
        for finding in findings:
            typer.echo(f"{finding.state}  {finding.name.ljust(width)}  {finding.said}")
            if finding.hint:
                typer.echo(f"{' ' * (width + 8)}hint: {finding.hint}")
    if exit_code(findings):
        raise typer.Exit(1)
