"""Options that several commands share, and progress bars."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from stpatch.stages.job import Job

ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="The YAML config.", show_default=False)]
DatasetPath = Annotated[Path, typer.Argument(metavar="DATASET", help="The dataset's folder.", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key: --set crop.stride=8 (repeatable)."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="A line for every finished unit.")]
LogFile = Annotated[
    Path | None, typer.Option("--log", metavar="FILE", help="Append what happens, with the time, to a file.")
]


def job_of(config: Path, overrides: list[str] | None) -> Job:
    """Load a config as a job."""
    from stpatch.config_file import load_config
    from stpatch.stages.job import Job

    return Job(load_config(config, overrides or []))


@contextmanager
def bar(name: str, total: int, done: int, *, quiet: bool = False) -> Iterator[Any]:
    """Show a progress bar on stderr; where that is not a terminal, plain lines with a time."""
    if not quiet and not sys.stderr.isatty():
        from stpatch.cli.lines import LineProgress

        yield LineProgress(name, total, done)
        return
    from tqdm import tqdm

    with tqdm(total=total, initial=done, desc=f"{name:<10}", unit="unit", file=sys.stderr, disable=quiet) as shown:
        yield shown
