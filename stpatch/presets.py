"""The presets of ``configs/``, which are installed with the package."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

from stpatch.errors import ConfigError

_INSTALLED = Path(__file__).parent / "configs"
SCHEMA = "config.schema.json"
_CHECKOUT = Path(__file__).parents[1] / "configs"


def preset_folder() -> Path:
    """Return the folder of presets: the installed one, or the repository's."""
    return _INSTALLED if _INSTALLED.is_dir() else _CHECKOUT


def preset_names() -> list[str]:
    """Return the presets' names, sorted."""
    return sorted(path.stem for path in preset_folder().glob("*.yaml"))


def commands_for(text: str, file: str) -> str:
    """Return a preset whose comments name the file that it is written to."""
    return re.sub(r"(?m)^(#   stpatch (?:check|build) )[\w.-]+\.yaml", lambda match: match[1] + file, text)


def preset_text(name: str) -> str:
    """Return a preset's YAML text; the line that names its schema for editors names it where it is installed.

    Raises
    ------
    ConfigError
        There is none of that name; the message names the nearest.
    """
    names = preset_names()
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        raise ConfigError(
            "there is no such preset",
            where="--preset",
            found=name,
            expected=", ".join(names),
            hint=f"did you mean {near[0]!r}?" if near else None,
        )
    text = (preset_folder() / f"{name}.yaml").read_text(encoding="utf-8")
    return text.replace(f"$schema={SCHEMA}\n", f"$schema={(preset_folder() / SCHEMA).as_uri()}\n")
