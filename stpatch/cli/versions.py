"""Commands that work on several datasets: diff, merge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from stpatch.cli.options import AsJson


def add_commands(app: typer.Typer) -> None:
    """Register the commands."""
    for command in (diff, merge):
        app.command()(command)


def diff(
    first: Annotated[Path, typer.Argument(metavar="A", help="A dataset's folder.", show_default=False)],
    second: Annotated[Path, typer.Argument(metavar="B", help="Another's.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Show what is different between two datasets.

    Such as two versions of one: slides, samples, splits, genes and shards that were added, removed or changed, from
    manifests and tables alone.
    """
    from stpatch.dataset.difference import difference

    found = difference(first, second)
    typer.echo(json.dumps(found.as_json(), indent=1) if as_json else found.text())


def merge(
    datasets: Annotated[list[Path], typer.Argument(metavar="DATASET...", help="Two or more.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Where the whole goes.")],
    name: Annotated[str | None, typer.Option(help="What it is called; as the first dataset if left out.")] = None,
    version: Annotated[str, typer.Option(help="Its version.")] = "1.0.0",
    allow_leak: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN", help="A donor-like column that may span splits.")
    ] = None,
    allow_duplicates: Annotated[
        list[str] | None, typer.Option(metavar="SLIDE_ID", help="A slide that may be there under another id too.")
    ] = None,
) -> None:
    """Put datasets of one tensor contract together into one.

    Shards are linked (or copied) as they are; only those whose gene ids or label numbers differ are written anew.
    """
    from stpatch.dataset.merge import merge as merge_datasets

    merged = merge_datasets(
        datasets,
        output,
        name=name,
        version=version,
        allow_leak=allow_leak or (),
        allow_duplicates=allow_duplicates or (),
    )
    typer.echo(merged.text())
