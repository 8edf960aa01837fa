"""Where compiled loops are kept from one process to the next, also where neither the package nor HOME can be written.

Numba keeps them in ``NUMBA_CACHE_DIR``, else beside the sources, else in the user's cache folder, and refuses to
compile where it finds none of them, as in many containers. Then they go to a folder of this user below the temporary
folder, and where there is none either, every process compiles for itself.
"""

from __future__ import annotations

import os
import stat
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Cache:
    """Whether loops are cached, in which folder where numba would find none, and what the user is to know of it."""

    used: bool = True
    folder: Path | None = None
    note: str = ""


@lru_cache
def find_cache() -> Cache:
    """Return where this process' loops are cached."""
    package = Path(__file__).parent
    named = os.environ.get("NUMBA_CACHE_DIR")
    if any(_can_make(place) for place in (*([Path(named)] if named else []), package / "__pycache__", _users())):
        return Cache()
    hint = "the package and HOME cannot be written; set NUMBA_CACHE_DIR to a folder that stays"
    folder = Path(tempfile.gettempdir()) / f"stpatch-kernels-{_user_number()}"
    if _is_own(folder):
        return Cache(folder=folder, note=f"compiled loops are kept in {folder}: {hint}")
    return Cache(used=False, note=f"every process compiles its loops anew: {hint}")


def _users() -> Path:
    """Return the user's cache folder on this system, where numba (through appdirs) looks."""
    if os.name == "nt":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home())
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())


def _can_make(folder: Path) -> bool:
    """Whether files can be made in a folder, or the folder itself; numba tries it the same way."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _is_own(folder: Path) -> bool:
    """Whether a folder is this user's alone: what lies in it is run, and the temporary folder is everybody's."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError:
        return False
    if not stat.S_ISDIR(found.st_mode) or (os.name == "posix" and found.st_mode & 0o077):
        return False
    return found.st_uid == _user_number() and _can_make(folder)


def _user_number() -> int:
    return os.getuid() if hasattr(os, "getuid") else 0
