"""HDF5 at the edge: every fault of a file becomes an `InputError` with file and key."""

from __future__ import annotations

import contextlib
import re
import struct
import zlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from stpatch.errors import InputError, StpatchError

FAULTS = (
    OSError, KeyError, ValueError, TypeError, IndexError, RuntimeError, AttributeError, ArithmeticError, MemoryError,
    SystemError, EOFError, zlib.error,
)  # fmt: skip
"""What h5py, zarr and anndata raise on damaged files."""


HEAP_WINDOW = 1 << 20
"""Bytes at either end of a file in which heaps are checked."""


_RECORD = struct.Struct("<H6xQ")
"""Number (0 = free space) and size of a heap's record; a heap's own header has its size at the same place."""


@contextlib.contextmanager
def faults(where: object) -> Iterator[None]:
    """Turn what libraries raise on damaged files into `InputError`."""
    try:
        yield
    except StpatchError:
        raise
    except FAULTS as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            "the file cannot be read: it is damaged, cut short or not of this layout",
            where=where,
            found=text[:300],
            hint="check its size against the source, and fetch it again",
        ) from error


def is_hdf5(path: Path) -> bool:
    """Whether `path` is a file that starts as HDF5 does."""
    return path.is_file() and bool(h5py.is_hdf5(path))


def looks_hdf5(path: Path) -> bool:
    """Whether `path` is a file with the HDF5 signature, even where the rest is damaged."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(8) == b"\x89HDF\r\n\x1a\n"


@contextlib.contextmanager
def hdf5_file(path: Path) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading."""
    with faults(path):
        check_heaps(path)
        file = h5py.File(path, "r", locking=False)  # nobody writes it, and some file systems know no locks
    with file, faults(path):
        refuse_other_files(file, path)
        yield file


def refuse_other_files(file: h5py.File, path: Path) -> None:
    """Refuse a file that has HDF5 open others: by external links, external storage or virtual datasets.

    What is read from another file is not among the slide's inputs, so that a change of it would go unnoticed; and a
    file from elsewhere could have any file of this machine read as counts. A file is looked through once while it
    stays as it is.

    Raises
    ------
    InputError
        It names the link or the dataset, and the file that it points to.
    """
    stat = path.stat()
    key = (str(path), stat.st_size, stat.st_mtime_ns, stat.st_ino)
    if key in _looked_through:
        return
    found: list[tuple[str, str, str]] = []

    def look(name: bytes, link: Any) -> bool | None:
        text = name.decode(errors="replace")
        if link.type == h5py.h5l.TYPE_EXTERNAL:
            filename, target = file.id.links.get_val(name)
            found.append((text, "external link", f"{filename.decode(errors='replace')}, key {target.decode()}"))
        elif link.type not in (h5py.h5l.TYPE_HARD, h5py.h5l.TYPE_SOFT):
            found.append((text, "link of an unknown kind", f"link class {link.type}"))
        elif link.type == h5py.h5l.TYPE_HARD:
            found.extend((text, kind, target) for kind, target in _other_files(file, name))
        return True if found else None  # which ends the walk

    file.id.links.visit(look, info=True)
    for text, kind, target in found:
        raise InputError(
            "the file takes data from another file",
            where=f"{path}, key /{text}",
            found=f"{kind} to {target}",
            expected="all data in the file itself",
            hint="repack it, so that it holds its data (h5repack does so with external storage and virtual datasets; "
            "copy the target of an external link in its place)",
        )
    _looked_through[key] = None
    while len(_looked_through) > _LOOKED_MOST:
        del _looked_through[next(iter(_looked_through))]


_LOOKED_MOST = 256
_looked_through: dict[tuple[str, int, int, int], None] = {}
"""Files of this process in which no way to another file was found."""


def _other_files(file: h5py.File, name: bytes) -> Iterator[tuple[str, str]]:
    """Yield how a dataset takes its data from other files: kind and target; nothing for what is not a dataset."""
    if h5py.h5o.get_info(file.id, name).type != h5py.h5o.TYPE_DATASET:
        return
    settings = h5py.h5d.open(file.id, name).get_create_plist()
    for i in range(settings.get_external_count()):
        yield "external storage", settings.get_external(i)[0].decode(errors="replace")
    if settings.get_layout() == h5py.h5d.VIRTUAL:
        for i in range(settings.get_virtual_count()):
            target = settings.get_virtual_filename(i)
            if target != ".":  # the file itself
                yield "virtual dataset", target


def check_heaps(path: Path) -> None:
    """Refuse a global heap (where HDF5 keeps texts) with an empty free-space record: libhdf5 walks it for ever.

    Looks at the first and last `HEAP_WINDOW` bytes, so that a look at the headers of a large file stays one; and once
    at a file, which several readers open.
    """
    stat = path.stat()
    _check_heaps(path, stat.st_size, stat.st_mtime_ns, stat.st_ino)


@lru_cache(maxsize=256)
def _check_heaps(path: Path, size: int, _mtime_ns: int, _inode: int) -> None:
    with path.open("rb") as file:
        blocks = [file.read(HEAP_WINDOW)]
        if size > HEAP_WINDOW:
            file.seek(max(HEAP_WINDOW, size - HEAP_WINDOW))
            blocks.append(file.read())
    for block in blocks:
        for match in re.finditer(rb"GCOL\x01\0\0\0", block):
            _check_heap(block, match.start(), path)


def _check_heap(block: bytes, start: int, path: Path) -> None:
    """Walk a heap's records: number (2 bytes, 0 = free space), 6 bytes, size (8 bytes), content padded to 8 bytes."""
    header = _RECORD.size
    if start + header > len(block):
        return
    end = min(len(block), start + _RECORD.unpack_from(block, start)[1])
    place = start + header
    while place + header <= end:
        number, length = _RECORD.unpack_from(block, place)
        if number == 0:
            if length == 0:
                raise InputError(
                    "the file cannot be read: it is damaged",
                    where=path,
                    found=f"an empty free-space record in the heap at or after byte {start}",
                    hint="check its size against the source, and fetch it again",
                )
            place += length  # a free-space record's size includes its header
        else:
            place += header + (length + 7) // 8 * 8


def child(group: Any, key: str, path: Path) -> Any:
    """Return a dataset or group by key; one that is missing is an error that lists those present."""
    with faults(f"{path}, key {group.name}"):
        if key not in group:
            raise InputError(
                f"the file has no {key!r}",
                where=f"{path}, key {group.name}",
                found=", ".join(sorted(group)[:20]) or "an empty group",
                expected=key,
            )
        return group[key]


def read_texts(group: Any, key: str, path: Path) -> NDArray[np.object_]:
    """Read a one-dimensional dataset of texts, bytes or numbers as str objects."""
    values = child(group, key, path)
    where = f"{path}, key {group.name}/{key}"
    with faults(where):
        array = np.asarray(values[:])
        if array.ndim != 1:
            raise InputError(
                "an array of names does not have one dimension",
                where=where,
                found=array.shape,
                hint="export the file anew from the vendor's software, or fetch it again",
            )
        return as_texts(array)


def as_texts(array: NDArray[Any]) -> NDArray[np.object_]:
    """Return names as str objects: bytes are decoded, whole floats lose their ``.0``."""
    if array.dtype.kind == "S":
        return np.char.decode(array, "utf-8").astype(object)
    if array.dtype.kind == "f" and np.isfinite(array).all() and (array == np.rint(array)).all():
        array = array.astype(np.int64)
    return np.array([v.decode("utf-8") if isinstance(v, bytes) else str(v) for v in array.tolist()], dtype=object)


def attribute_text(value: Any) -> str:
    """Return an HDF5 attribute as text: str, bytes or an array of one of them; "" for None."""
    if value is None:
        return ""
    array = np.atleast_1d(np.asarray(value))
    return str(as_texts(array.astype(object) if array.dtype.kind == "O" else array)[0]) if array.size else ""
