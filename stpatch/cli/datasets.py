"""Commands that work on a dataset: validate, demo."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from stpatch.cli.inspect import draw
from stpatch.cli.options import AsJson, Quiet, bar, job_of

SHOWN = 50
"""Problems that `validate` prints before it says how many more there are."""


def add_commands(app: typer.Typer) -> None:
    """Register the commands."""
    for command in (validate, demo):
        app.command()(command)


def validate(
    dataset: Annotated[Path | None, typer.Argument(metavar="DATASET", help="The dataset's folder.")] = None,
    deep: Annotated[bool, typer.Option("--deep", help="Decode every patch and check it against its row.")] = False,
    work: Annotated[
        Path | None, typer.Option("--work", metavar="DIR", help="Compare it with the work dir that made it.")
    ] = None,
    digest: Annotated[
        str | None, typer.Option("--digest", metavar="SHA256", help="The digest that its manifest was published with.")
    ] = None,
    as_json: AsJson = False,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of manifest.json instead.")] = False,
) -> None:
    """Check manifest, tables and checksums.

    Exit code 1 if a problem is found.
    """
    from stpatch.dataset.manifest import manifest_schema
    from stpatch.dataset.validate import verify
    from stpatch.errors import ConfigError

    if schema:
        typer.echo(json.dumps(manifest_schema(), indent=1))
        return
    if dataset is None:
        raise ConfigError("no dataset is given", where="stpatch validate", hint="name its folder, or ask for --schema")
    looked: list[str] = []
    problems = list(verify(dataset, deep=deep, work=work, digest=digest, progress=looked.append))
    if not dataset.is_dir():
        raise problems[0]
    if as_json:
        typer.echo(json.dumps({"dataset": str(dataset), "problems": [item.block() for item in problems]}, indent=1))
    elif problems:
        for problem in problems[:SHOWN]:
            typer.echo(problem.block())
        if len(problems) > SHOWN:
            typer.echo(f"... and {len(problems) - SHOWN} more")
        typer.echo(f"{dataset}: {len(problems)} problem{'s' if len(problems) > 1 else ''} found")
    else:
        depth = "every sample decoded" if deep else "checksums only; --deep decodes every sample"
        typer.echo(f"{dataset}: whole ({len(set(looked))} files looked at, {depth})")
    if problems:
        raise typer.Exit(1)


def demo(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to put it.")] = Path("stpatch-demo"),
    quiet: Quiet = False,
) -> None:
    """Simulate slides in three vendor layouts and build them.

    Where matplotlib is installed, the dataset is drawn too.
    """
    from stpatch.demo import simulate
    from stpatch.engine.graph import STAGES
    from stpatch.engine.run import run_stages

    config = simulate(folder)
    typer.echo(f"simulated slides: {folder / 'slides.csv'}")
    job = job_of(config, None)
    run_stages(job, tuple(STAGES), progress=partial(bar, quiet=quiet))
    typer.echo(f"dataset: {job.output}")
    validate(job.output, deep=True)
    _preview(folder / "preview.png", job.output)
    typer.echo(f"config: {config}; change it and run: stpatch build {config}")


def _preview(png: Path, dataset: Path) -> None:
    from stpatch.errors import MissingExtraError
    from stpatch.views.preview import preview

    try:
        draw(png, preview(dataset))
    except MissingExtraError as error:
        typer.echo(f"no picture: {error.block()}", err=True)
