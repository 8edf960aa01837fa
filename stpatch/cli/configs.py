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
    preset: Annotated[str, typer.Option("--preset", "-p", metavar="NAME", help="One of --list.")] = "visium",
    names: Annotated[bool, typer.Option("--list", help="List the presets.")] = False,
) -> None:
    """Write a commented config."""
    from stpatch.errors import ConfigError
    from stpatch.presets import preset_names, preset_text
    from stpatch.storage import write_bytes

    if names:
        typer.echo("\n".join(preset_names()))
        return
    if path.exists():
        raise ConfigError("there is such a file already", where=path, hint="name another file, or remove it")
    write_bytes(path, preset_text(preset).encode())
    typer.echo(f"{path} written from preset {preset}; next: stpatch check {path}")


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
