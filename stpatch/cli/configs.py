"""Commands about configs: init, config."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from stpatch.cli.options import Overrides, job_of


def add_commands(app: typer.Typer) -> None:
    """Register the commands."""
    app.command()(init)
    app.command("config")(show)


def init(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write it.")] = Path("stpatch.yaml"),
    preset: Annotated[
        str | None, typer.Option("--preset", "-p", metavar="NAME", help="One of --list; visium, or what --from finds.")
    ] = None,
    source: Annotated[
        str | None,
        typer.Option("--from", metavar="FOLDER_OR_GLOB", help="Find the slides there and write the samplesheet too."),
    ] = None,
    names: Annotated[bool, typer.Option("--list", help="List the presets.")] = False,
) -> None:
    """Write a commented config.

    With --from, find the slides of a folder as it was downloaded and write the samplesheet too.
    """
    from stpatch.errors import ConfigError
    from stpatch.presets import commands_for, preset_names, preset_text
    from stpatch.storage import write_bytes

    if names:
        typer.echo("\n".join(preset_names()))
        return
    if path.exists():
        raise ConfigError("there is such a file already", where=path, hint="name another file, or remove it")
    if source is not None:
        _init_from(source, path, preset)
        return
    preset = preset or "visium"
    write_bytes(path, commands_for(preset_text(preset), path.name).encode())
    typer.echo(f"{path} written from preset {preset}; next: stpatch check {path}")


def _init_from(source: str, path: Path, preset: str | None) -> None:
    from stpatch.engine.discover import config_text, discover, label_notes, sheet_text
    from stpatch.errors import ConfigError
    from stpatch.presets import commands_for, preset_text
    from stpatch.storage import write_bytes

    sheet = path.with_name(f"{path.stem}.slides.csv")
    if sheet.exists():
        raise ConfigError("there is such a samplesheet already", where=sheet, hint="name another file, or remove it")
    found = discover(source)
    preset = preset or found.platform
    text = config_text(found, preset_text(preset), sheet=sheet.name, name=path.stem)
    write_bytes(sheet, sheet_text(found, path.parent).encode())
    write_bytes(path, commands_for(text, path.name).encode())
    for note in (*found.notes, *label_notes(found)):
        typer.echo(f"note: {note}", err=True)
    count = len(found.slides)
    typer.echo(
        f"{sheet} written: {count} slide{'s' if count > 1 else ''}; {path} written from preset {preset}; "
        f"next: stpatch check {path}"
    )


def show(
    config: Annotated[Path | None, typer.Argument(metavar="CONFIG", help="The YAML config.")] = None,
    overrides: Overrides = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema instead.")] = False,
) -> None:
    """Print the config with all defaults, or its JSON Schema."""
    import yaml

    from stpatch.config import Config
    from stpatch.errors import ConfigError

    if schema:
        typer.echo(json.dumps(Config.model_json_schema(), indent=1))
        return
    if config is None:
        raise ConfigError("no config is given", where="stpatch config", hint="name one, or ask for --schema")
    value = job_of(config, overrides).config.model_dump(mode="json")
    typer.echo(yaml.safe_dump(value, sort_keys=False, allow_unicode=True), nl=False)
