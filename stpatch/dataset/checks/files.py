"""Files: each one that the manifest names is there, inside the folder and as it was written, and no other is.

No link is followed: what a link leads to is not part of the dataset, and would be missing wherever it is copied to.
Hard links are files like others, told apart by nothing but a count; their bytes are checked as those of any file.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stpatch.dataset.entries import FileEntry, ShardEntry
from stpatch.dataset.manifest import MANIFEST, SEALED_SINCE, Manifest
from stpatch.errors import DatasetError
from stpatch.registry import FORMATS
from stpatch.storage import BLOCK, canonical_json

AGAIN = "fetch the dataset's files again, or build it again"


def check_file(folder: Path, file: FileEntry) -> DatasetError | None:
    """Return the problem of a file's place, kind, size or checksum; a file of another size is not read."""
    path = folder / file.path
    try:
        if problem := place_problem(folder, file.path):
            return problem
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(descriptor, "rb", buffering=0) as opened:
            size = os.fstat(descriptor).st_size
            if size != file.bytes:
                return DatasetError(
                    "a file has a wrong size", where=path, found=f"{size} bytes", expected=f"{file.bytes} bytes"
                )
            sha256 = _digest_of(opened)
    except FileNotFoundError:
        return DatasetError("a file is missing", where=path, hint=AGAIN)
    except OSError as error:
        return DatasetError("a file cannot be read", where=path, found=error, hint=AGAIN)
    if sha256 != file.sha256:
        return DatasetError("a file's checksum is wrong", where=path, found=sha256, expected=file.sha256)
    return None


def place_problem(folder: Path, path: str) -> DatasetError | None:
    """Return why a path below `folder` is not that of a regular file in it: a link on the way, or another kind.

    Raises
    ------
    OSError
        A part of the path is missing.
    """
    place = folder
    for part in Path(path).parts:
        place = place / part
        mode = place.lstat().st_mode
        if stat.S_ISLNK(mode):
            return _link(place)
    if not stat.S_ISREG(mode):
        return DatasetError("there is something else than a file", where=place, expected="a regular file")
    return None


def in_place(folder: Path, shard: ShardEntry) -> bool:
    """Whether all files of a shard are regular files inside the folder, damaged or not."""
    try:
        return all(place_problem(folder, file.path) is None for file in shard.files())
    except OSError:
        return False


def check_manifest_bytes(folder: Path, manifest: Manifest) -> Iterator[DatasetError]:
    """Yield where ``manifest.json`` is not, byte for byte, the canonical JSON of its values."""
    path = folder / MANIFEST
    data = path.read_bytes()
    if manifest.version >= SEALED_SINCE and data != _canonical(data):
        yield DatasetError(
            "the manifest is not as it was written", where=path, expected="canonical JSON, indented by 1", hint=AGAIN
        )


def unlisted(folder: Path, manifest: Manifest) -> Iterator[DatasetError]:
    """Yield files that the manifest does not name, and links.

    A reader that takes whole folders would read them, and a stranger would take them for part of the dataset. Names at
    the top that begin with a dot are not looked at: hosts and version control keep theirs there, and no reader looks.
    Manifests of format 1 do not name every file, so that only the folders of their splits are looked through.
    """
    known = {MANIFEST, *(file.path for file in manifest.all_files())}
    if manifest.version >= SEALED_SINCE:
        tops = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    else:
        formats = [FORMATS.get(name) for name in {*FORMATS.own(), manifest.layout.format}]
        tops = sorted({folder / format_.folder(name) for name in manifest.splits for format_ in formats})
    for top in tops:
        for path in _below(top):
            if path.is_symlink():
                yield _link(path)
            elif path.relative_to(folder).as_posix() not in known:
                yield DatasetError("a file is not in the manifest", where=path, hint="remove it")


def _below(top: Path) -> Iterator[Path]:
    """Yield what is not a folder at or below `top`, links among it."""
    if top.is_symlink() or (top.exists() and not top.is_dir()):
        yield top
        return
    for parent, folders, files in sorted(os.walk(top)):
        yield from sorted(Path(parent) / name for name in folders if (Path(parent) / name).is_symlink())
        yield from sorted(Path(parent) / name for name in files)


def _link(path: Path) -> DatasetError:
    return DatasetError(
        "a link is not part of a dataset",
        where=path,
        expected="files and folders",
        hint="copy what it leads to (cp -L)",
    )


def _digest_of(file: Any) -> str:
    sha256 = hashlib.sha256()
    while data := file.read(BLOCK):
        sha256.update(data)
    return sha256.hexdigest()


def _canonical(data: bytes) -> bytes:
    try:
        return (canonical_json(json.loads(data), indent=1) + "\n").encode()
    except (ValueError, RecursionError):
        return b""
