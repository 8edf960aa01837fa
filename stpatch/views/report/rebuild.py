"""How a dataset is made again: the commands, and the config as it counts."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import yaml

from stpatch.config import Config
from stpatch.dataset.manifest import read_manifest


def rebuild_commands(dataset: Path, *, config: Path | None, overrides: Sequence[str]) -> list[str]:
    """Return the commands that make a dataset again and see that it is whole; folders are left to the reader."""
    manifest = read_manifest(dataset)
    version = manifest.versions.get("stpatch", "").split(",")[0]
    name = "CONFIG" if config is None else config.name
    settings = " ".join(f"--set {shlex.quote(item)}" for item in overrides)
    return [
        f"pip install 'stpatch=={version}'" if version else "pip install stpatch",
        f"stpatch build {shlex.quote(name)}" + (f" {settings}" if settings else ""),
        f"stpatch validate {shlex.quote(str(manifest.dataset.get('name', 'DATASET')))} --deep",
    ]


def settings_text(config: Config) -> str:
    """Return a config as YAML, without the places of this machine."""
    value = config.model_dump(mode="json", exclude_defaults=True)
    for key in ("output", "work_dir"):
        value.get("dataset", {}).pop(key, None)
    value.pop("slides", None)
    value.pop("run", None)
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
