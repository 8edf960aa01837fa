"""Random access to samples in shards, by byte range: safe in threads, in forked and in spawned workers.

Reads are positional, so threads and processes that share a file descriptor do not disturb each other, and no lock is
there for a fork to inherit. A file stays open until its last user lets go of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpatch.dataset import codecs as codec
from stpatch.dataset.formats.tar import parse_sample
from stpatch.dataset.formats.zarr import MISSING, index_bytes, parse_index
from stpatch.dataset.layout import ArraySpec, FileRecord, Layout, ShardRecord
from stpatch.errors import DatasetError

OPEN_FILES = 128
KEPT_INDEXES = 256
Arrays = dict[str, NDArray[Any]]


class ShardReader:
    """Reads samples of one dataset.

    Parameters
    ----------
    folder
        The dataset's folder.
    layout
        How its samples are stored.
    """

    def __init__(self, folder: Path, layout: Layout) -> None:
        self.folder = folder
        self.layout = layout
        self._specs = {spec.name: spec for spec in layout.arrays()}
        self._files: dict[str, _File] = {}
        self._indexes: dict[str, NDArray[np.uint64]] = {}

    def close(self) -> None:
        """Let go of all files; the next read opens them again."""
        self._files = {}
        self._indexes = {}

    def read(
        self, shard: ShardRecord, *, index: int, place: tuple[int, int], key: str, plane: tuple[int, int] | None = None
    ) -> Arrays:
        """Return a sample's arrays by name: x, totals, genes where samples list them, label_<name>.

        Parameters
        ----------
        shard
            Its shard.
        index
            Its place in the shard.
        place
            (offset, nbytes) in the shard's file, from patches.parquet.
        key
            Its key.
        plane
            (H, W) where samples vary.

        Raises
        ------
        DatasetError
            The file is missing, cut short or damaged, or holds another sample there.
        """
        if self.layout.format == "tar":
            return self.decode(self.fields(shard, place=place, key=key), plane=plane, where=_where(shard.file, key))
        return self._read_zarr(shard, index, place, key, plane)

    def fields(self, shard: ShardRecord, *, place: tuple[int, int], key: str) -> dict[str, memoryview]:
        """Return a tar sample's members as they are."""
        where = _where(shard.file, key)
        found, fields = parse_sample(self._bytes(shard.file, *place, where=where), where=where)
        if found != key:
            raise DatasetError("a byte range holds another sample", where=where, found=found, expected=key)
        if tuple(fields) != self.layout.fields:
            raise DatasetError(
                "a sample has other fields than the dataset",
                where=where,
                found=", ".join(fields),
                expected=", ".join(self.layout.fields),
            )
        return fields

    def decode(self, fields: dict[str, memoryview], *, plane: tuple[int, int] | None, where: str) -> Arrays:
        """Return the arrays of a tar sample's members."""
        arrays = {}
        for name, spec in self._specs.items():
            encoding = self.layout.encoding if name == "x" else "npy"
            arrays[name] = codec.decode(
                fields[f"{name}.{encoding}"],
                encoding,
                dtype=spec.dtype,
                shape=_shape(spec, plane),
                where=f"{where}, {name}",
            )
        return arrays

    def shard_index(self, file: FileRecord) -> NDArray[np.uint64]:
        """Return the (patches, 2) offsets and lengths of a zarr shard file."""
        index = self._indexes.get(file.path)
        if index is None:
            size = index_bytes(self.layout.patches)
            data = self._bytes(file, file.bytes - size, size, where=file.path)
            index = parse_index(data, chunks=self.layout.patches, where=self.folder / file.path)
            if len(self._indexes) >= KEPT_INDEXES:
                self._indexes = {}
            self._indexes[file.path] = index
        return index

    def _read_zarr(
        self, shard: ShardRecord, index: int, place: tuple[int, int], key: str, plane: tuple[int, int] | None
    ) -> Arrays:
        arrays = {}
        for name, spec in self._specs.items():
            file = shard.file if name == "x" else shard.parts[name]
            where = f"{_where(file, key)}, {name}"
            offset, nbytes = place if name == "x" else self._chunk(file, index, where)
            data = self._bytes(file, offset, nbytes, where=where)
            array = self._decode_chunk(data, spec, where)
            arrays[name] = array if plane is None else array[tuple(slice(size) for size in _shape(spec, plane))]
        return arrays

    def _chunk(self, file: FileRecord, index: int, where: str) -> tuple[int, int]:
        offset, nbytes = self.shard_index(file)[index]
        if offset == MISSING:
            raise DatasetError(
                "a zarr shard lacks a sample", where=where, hint="fetch the dataset's files again, or build it again"
            )
        return int(offset), int(nbytes)

    def _decode_chunk(self, data: bytes, spec: ArraySpec, where: str) -> NDArray[Any]:
        if self.layout.encoding == "blosc":
            return codec.decode(data, "blosc", dtype=spec.dtype, shape=spec.shape, where=where)
        dtype = np.dtype(spec.dtype).newbyteorder("<")
        expected = int(np.prod(spec.shape)) * dtype.itemsize
        if len(data) != expected:
            raise DatasetError(
                "a chunk has a wrong size", where=where, found=f"{len(data)} bytes", expected=f"{expected} bytes"
            )
        return np.frombuffer(data, dtype=dtype).reshape(spec.shape).astype(spec.dtype)

    def _bytes(self, file: FileRecord, offset: int, nbytes: int, *, where: str) -> bytes:
        if offset < 0 or nbytes <= 0 or offset + nbytes > file.bytes:
            raise DatasetError(
                "a byte range lies outside of its shard",
                where=where,
                found=f"{nbytes} bytes at {offset}",
                expected=f"inside {file.bytes} bytes",
            )
        try:
            data = self._open(file.path).read(offset, nbytes)
        except FileNotFoundError:
            raise DatasetError("a shard is missing", where=self.folder / file.path, hint="copy it again") from None
        except OSError as error:
            raise DatasetError(
                "a shard cannot be read",
                where=self.folder / file.path,
                found=error,
                hint="fetch the dataset's files again, or build it again",
            ) from error
        if len(data) != nbytes:
            raise DatasetError(
                "a shard is cut short",
                where=where,
                found=f"{offset + len(data)} bytes",
                expected=f"{file.bytes} bytes",
                hint="copy it again",
            )
        return data

    def _open(self, path: str) -> _File:
        file = self._files.get(path)
        if file is None:
            file = _File(self.folder / path)
            if len(self._files) >= OPEN_FILES:
                self._files = {}
            self._files[path] = file
        return file


class _File:
    """A file descriptor that closes with its last reference."""

    def __init__(self, path: Path) -> None:
        self._descriptor = -1
        self._descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))

    def read(self, offset: int, nbytes: int) -> bytes:
        """Return `nbytes` bytes at `offset`, fewer at the end of the file."""
        data = os.pread(self._descriptor, nbytes, offset)
        if len(data) in (0, nbytes):
            return data
        parts, have = [data], len(data)
        while have < nbytes and (data := os.pread(self._descriptor, nbytes - have, offset + have)):
            parts.append(data)
            have += len(data)
        return b"".join(parts)

    def __del__(self, _close: Callable[[int], None] = os.close) -> None:
        # bound here: when the interpreter ends, the module's own names may be gone before its objects are
        if self._descriptor >= 0:
            _close(self._descriptor)


def _shape(spec: ArraySpec, plane: tuple[int, int] | None) -> tuple[int, ...]:
    """Return an array's shape in a sample of height and width `plane`."""
    if plane is None:
        return spec.shape
    sizes = {"row": plane[0], "col": plane[1]}
    return tuple(sizes.get(dim, size) for dim, size in zip(spec.dims, spec.shape, strict=True))


def _where(file: FileRecord, key: str) -> str:
    return f"{file.path}, {key}"
