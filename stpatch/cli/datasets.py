"""Commands that work on a dataset: validate, inspect, demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stpatch.cli.options import AsJson, DatasetPath, Quiet


def add_commands(app: typer.Typer) -> None:
    """Register the commands."""
    for command in (validate, inspect, demo):
        app.command()(command)


def validate(
    dataset: DatasetPath,
    deep: Annotated[bool, typer.Option("--deep", help="Decode every patch and check it against its row.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check manifest, tables and shard checksums."""
    raise NotImplementedError


def inspect(
    dataset: DatasetPath,
    key: Annotated[str | None, typer.Argument(metavar="[KEY]", help="A sample's key; the dataset if left out.")] = None,
    png: Annotated[Path | None, typer.Option("--png", metavar="FILE", help="Write a picture too.")] = None,
) -> None:
    """Show a patch, or the dataset, in words and as a picture."""
    raise NotImplementedError


def demo(
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="Where to put it.")] = Path("stpatch-demo"),
    quiet: Quiet = False,
) -> None:
    """Simulate slides in three vendor layouts and build them."""
    raise NotImplementedError
