"""The command that makes something else of a dataset of whole slides."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stpatch.cli.options import DatasetPath


def add_commands(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(convert)


def convert(
    dataset: DatasetPath,
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="A new folder.", show_default=False)],
    to: Annotated[str, typer.Option("--to", metavar="KIND", help="tar, zarr, h5ad or spatialdata.")] = "tar",
    encoding: Annotated[str | None, typer.Option(help="Of shards; the dataset's own if left out.")] = None,
    patches: Annotated[int | None, typer.Option(min=1, help="Samples per shard; likewise.")] = None,
    mix: Annotated[int, typer.Option(min=1, help="Slides whose samples are shuffled together.")] = 16,
) -> None:
    """Turn a dataset of slides into shards or slide files.

    Shards are those of a build with shards.format tar or zarr.
    """
    from stpatch.errors import ConfigError
    from stpatch.registry import ENCODINGS
    from stpatch.stages.convert import SLIDE_KINDS, kinds, to_shards, to_slides

    known = list(kinds())
    if to not in known:
        raise ConfigError("a dataset cannot become this", where="option --to", found=to, expected=" or ".join(known))
    if encoding is not None:
        ENCODINGS.get(encoding, where="option --encoding")
    if to in SLIDE_KINDS:
        for path in to_slides(dataset, output, kind=to):
            typer.echo(str(path))
        return
    made = to_shards(dataset, output, format_=to, encoding=encoding, patches=patches, mix=mix)
    typer.echo(f"{output}: {made.patches} samples in {made.totals.shards} shards")
