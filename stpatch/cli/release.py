"""Commands for a dataset that goes to others: audit, release."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from stpatch.cli.options import AsJson, DatasetPath


def add_commands(app: typer.Typer) -> None:
    """Register the commands."""
    for command in (audit, release):
        app.command()(command)


def audit(
    dataset: DatasetPath,
    against: Annotated[
        list[Path] | None, typer.Option("--against", metavar="OTHER", help="Another dataset or version (repeatable).")
    ] = None,
    digests: Annotated[
        Path | None, typer.Option("--digests", metavar="FILE", help="A published list of digests.")
    ] = None,
    near: Annotated[bool, typer.Option("--near", help="Compare gene totals too: reads every sample.")] = False,
    print_digests: Annotated[
        bool, typer.Option("--print-digests", help="Print the dataset's own list of digests instead.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say what splits and datasets share.

    Files, matrices, sections and donors. Exit code 1 if something is shared.
    """
    from stpatch.dataset.audit import digest_lines, read_digests
    from stpatch.dataset.near import audit_near

    if print_digests:
        typer.echo("\n".join(digest_lines(dataset)))
        return
    published = None if digests is None else read_digests(digests)
    found = audit_near(dataset, against=against or [], digests=published, near=near)
    typer.echo(json.dumps(found.as_json(), indent=1) if as_json else found.text())
    if found.shared or found.near:
        raise typer.Exit(1)


def release(
    dataset: DatasetPath,
    author: Annotated[
        list[str] | None,
        typer.Option("--author", metavar="NAME", help='Who releases it: "Family, Given" (repeatable).'),
    ] = None,
    doi: Annotated[str, typer.Option("--doi", help="The dataset's DOI, where it has one.")] = "",
    url: Annotated[str, typer.Option("--url", help="Where it will be.")] = "",
    date: Annotated[
        str | None, typer.Option("--date", metavar="YYYY-MM-DD", help="The day of its publication.")
    ] = None,
    config: Annotated[Path | None, typer.Option("--config", metavar="CONFIG", help="The config that built it.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write what a public release needs; say what is missing.

    Nothing is uploaded. Exit code 1 if something is missing.
    """
    from stpatch.dataset.release import make_release

    sections = None
    if config is not None:
        from stpatch.config_file import load_config

        sections = load_config(config, []).model_dump(mode="json", exclude_defaults=True)
    made = make_release(dataset, authors=author or [], doi=doi, url=url, date=date, config=sections)
    typer.echo(json.dumps(made.as_json(), indent=1) if as_json else made.text())
    if made.missing:
        raise typer.Exit(1)
