"""Files at the edge: atomic writes, checksums, canonical JSON, safe names.

A final name never holds a half-written file: everything is written beside it under a temporary name and renamed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import os
import re
import uuid
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

BLOCK = 1 << 20
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,127}")
_TEMPORARY = ".tmp-"


def is_safe_id(text: str) -> bool:
    """Whether `text` may become (part of) a file name: letters, digits and ``_.+-``, at most 128 of them."""
    return _ID.fullmatch(text) is not None


def plain_number(value: float) -> int | float:
    """Return a whole number as int, any other as float: counts look like counts in JSON and in messages."""
    return int(value) if float(value).is_integer() else float(value)


@lru_cache(maxsize=1024)
def key_text(text: str) -> str:
    """Return `text` as part of a sample key: lower case, only ``[a-z0-9_-]``."""
    return re.sub(r"[^a-z0-9_-]", "-", text.lower())


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path` for writing; on success it is synced and renamed to `path`, else removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{_TEMPORARY}{uuid.uuid4().hex}-{path.name}")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` for libraries that open files themselves; renamed on success."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{_TEMPORARY}{uuid.uuid4().hex}-{path.name}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` atomically."""
    with atomic_file(path) as file:
        file.write(data)


def remove_temporaries(folder: Path) -> None:
    """Remove what a killed process left under temporary names below `folder`."""
    for path in folder.rglob(f"{_TEMPORARY}*"):
        path.unlink(missing_ok=True)


def remove_empty_folders(folder: Path) -> None:
    """Remove the folders below `folder` that hold nothing but such folders."""
    for path in sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True):
        with contextlib.suppress(OSError):  # it holds something
            path.rmdir()


def release_pages(*arrays: Any) -> None:
    """Give back the memory of arrays that are mapped from files; what is touched again is read again."""
    files = {id(file): file for file in map(_file_of, arrays) if file is not None}
    for file in files.values():
        if hasattr(mmap, "MADV_DONTNEED"):
            file.madvise(mmap.MADV_DONTNEED)


def _file_of(array: Any) -> mmap.mmap | None:
    """Return the mapped file whose bytes an array is a view of."""
    while array is not None and not isinstance(array, mmap.mmap):
        array = array.obj if isinstance(array, memoryview) else getattr(array, "base", None)
    return array


def canonical_json(value: Any, *, indent: int | None = None) -> str:
    """Return JSON with sorted keys and no NaN: equal values give equal text."""
    return _json_encoder(indent).encode(value)


@lru_cache
def _json_encoder(indent: int | None) -> json.JSONEncoder:
    separators = (",", ":") if indent is None else (",", ": ")
    return json.JSONEncoder(sort_keys=True, allow_nan=False, ensure_ascii=False, indent=indent, separators=separators)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented canonical JSON, atomically."""
    write_bytes(path, (canonical_json(value, indent=1) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def digest(value: Any) -> str:
    """Return the SHA-256 (hex) of a JSON value's canonical text."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def sha256_file(path: Path) -> str:
    """Return the SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
