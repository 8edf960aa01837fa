"""Commands that look at parts of a dataset: inspect, windows."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stpatch.cli.options import DatasetPath

if TYPE_CHECKING:
    from stpatch.views.panels import Panel

WorkDir = Annotated[
    Path | None, typer.Option("--work-dir", metavar="DIR", help="The build's work dir; beside it if left out.")
]


def add_commands(app: typer.Typer) -> None:
    """Register the commands."""
    for command in (inspect, windows):
        app.command()(command)


def inspect(
    dataset: DatasetPath,
    key: Annotated[str | None, typer.Argument(metavar="KEY", help="A sample's key; the dataset if left out.")] = None,
    slide: Annotated[str | None, typer.Option("--slide", metavar="ID", help="Look at a slide.")] = None,
    shard: Annotated[str | None, typer.Option("--shard", metavar="NAME", help="Look at a shard.")] = None,
    gene: Annotated[list[str] | None, typer.Option("--gene", metavar="NAME", help="Gene to draw (repeatable).")] = None,
    label: Annotated[str, typer.Option("--label", metavar="NAME", help="Label to draw.")] = "",
    channels: Annotated[int, typer.Option("--channels", min=0, help="How many strongest channels to draw.")] = 8,
    png: Annotated[Path | None, typer.Option("--png", metavar="FILE", help="Draw it as a PNG.")] = None,
    show: Annotated[bool, typer.Option("--show", help="Draw it in the terminal (24-bit colours).")] = False,
    work_dir: WorkDir = None,
) -> None:
    """Show the dataset, a patch, a slide or a shard.

    In words, and as a picture: in a file (--png) or in the terminal (--show).
    """
    from stpatch.errors import ConfigError
    from stpatch.views.describe import describe_dataset, describe_patch, describe_shard, describe_slide

    if sum(given is not None for given in (key, slide, shard)) > 1:
        raise ConfigError("look at one thing at a time", where="stpatch inspect", expected="KEY, --slide or --shard")
    drawn = png is not None or show
    if slide is not None:
        typer.echo(describe_slide(dataset, slide))
    elif shard is not None:
        typer.echo(describe_shard(dataset, shard))
    else:
        typer.echo(describe_dataset(dataset) if key is None else describe_patch(dataset, key))
    if drawn and key is None and slide is None and shard is None:
        if png is not None:
            from stpatch.views.preview import preview

            draw(png, preview(dataset))
        if show:
            raise ConfigError(
                "the whole dataset is too large for a terminal",
                where="--show",
                hint="name a KEY, --slide or --shard; or draw it with --png, or as a page: stpatch report",
            )
        return
    if drawn:
        title, panels = _panels(dataset, key, slide, shard, (tuple(gene or ()), label, channels), work_dir)
        if show:
            typer.echo(_in_terminal(panels))
        if png is not None:
            from stpatch.views.panels import panels_figure

            draw(png, panels_figure(title, str(dataset), panels, columns=8 if shard else 5))


def _panels(
    dataset: Path,
    key: str | None,
    slide: str | None,
    shard: str | None,
    asked: tuple[tuple[str, ...], str, int],
    work_dir: Path | None,
) -> tuple[str, list[Panel]]:
    from stpatch.engine.work_maps import work_dir_of, work_maps
    from stpatch.views.look import Choice, patch_panels, shard_panels, slide_panels
    from stpatch.views.whole import Whole

    work = work_dir_of(dataset, work_dir)
    maps_of = None if work is None else work_maps(dataset, work)
    choice = Choice(genes=asked[0], label=asked[1], n=asked[2])
    whole = Whole(dataset)
    try:
        if slide is not None:
            return slide, slide_panels(whole, slide, choice, maps_of=maps_of)
        if shard is not None:
            return shard, shard_panels(whole, shard)
        return str(key), patch_panels(whole, str(key), choice, maps_of=maps_of)
    finally:
        whole.close()


def _in_terminal(panels: list[Panel]) -> str:
    from stpatch.errors import ConfigError
    from stpatch.views.panels import panels_text
    from stpatch.views.terminal import has_colours

    if not has_colours(os.environ, is_terminal=sys.stdout.isatty()):
        raise ConfigError(
            "this terminal does not say that it shows 24-bit colours",
            where="--show",
            found=f"COLORTERM={os.environ.get('COLORTERM', '')!r}" if sys.stdout.isatty() else "no terminal",
            expected="COLORTERM=truecolor",
            hint="draw a file with --png, or set COLORTERM=truecolor if your terminal has them",
        )
    return panels_text(panels, width=min(shutil.get_terminal_size().columns, 100))


def windows(
    dataset: DatasetPath,
    slide: Annotated[str, typer.Option("--slide", metavar="ID", help="The slide.", show_default=False)],
    kind: Annotated[str, typer.Option("--as", metavar="FORMAT", help="geojson, xenium or napari.")] = "geojson",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Where to; <slide>.geojson if left out.")
    ] = None,
    work_dir: WorkDir = None,
) -> None:
    """Write a slide's windows for a viewer.

    In the coordinates of the slide's files, mostly full-resolution pixels: GeoJSON for QuPath, geopandas and
    SpatialData, selections for Xenium Explorer (um), shapes for napari. Needs the build's work dir.
    """
    from stpatch.engine.placement import placed_windows
    from stpatch.engine.work_maps import work_dir_of
    from stpatch.errors import ConfigError
    from stpatch.storage import write_bytes
    from stpatch.views.windows_file import WRITERS

    if kind not in WRITERS:
        raise ConfigError("there is no such format of windows", where="--as", found=kind, expected=", ".join(WRITERS))
    write, ending = WRITERS[kind]
    placed = placed_windows(dataset, work_dir_of(dataset, work_dir), slide)
    path = out or Path(f"{slide}{ending}")
    write_bytes(path, write(placed))
    typer.echo(f"windows: {path} ({len(placed.keys)} of slide {slide})")


def draw(path: Path, figure: object) -> None:
    """Write a figure as PNG and say where."""
    from stpatch.storage import write_bytes
    from stpatch.views.paint import png

    write_bytes(path, png(figure))  # type: ignore[arg-type]
    typer.echo(f"picture: {path}")
