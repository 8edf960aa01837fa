"""Random access to samples in shards, by byte range: safe in threads, in forked and in spawned workers.

Reads are positional, so threads and processes that share a file descriptor do not disturb each other, and no lock is
there for a fork to inherit. A file stays open until its last user lets go of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from stpatch.dataset.entries import FileEntry
from stpatch.dataset.formats.base import Address, ByteRanges, Entries, Range, Stored
from stpatch.dataset.layout import Layout
from stpatch.errors import DatasetError
from stpatch.registry import FORMATS

OPEN_FILES = 128


class ShardReader:
    """Reads samples of one dataset.

    Parameters
    ----------
    folder
        The dataset's folder.
    layout
        How its samples are stored.
    files
        What reads its files; None: they are opened in the folder.
    """

    def __init__(self, folder: Path, layout: Layout, *, files: ByteRanges | None = None) -> None:
        self.folder = folder
        self.layout = layout
        self._files = OpenFiles(folder) if files is None else files
        self._reader = FORMATS.get(layout.format).reader(self._files, layout)

    def close(self) -> None:
        """Let go of all files; the next read opens them again."""
        self._files.close()
        self._reader.forget()

    def expect(self, addresses: Iterable[Address]) -> None:
        """Take note of samples that will be read soon, so that those that lie far away are on their way."""
        self._files.expect(wanted for address in addresses for wanted in self._reader.ranges(address))

    def checksum(self, address: Address) -> int:
        """Return the CRC-32C of what is stored of a sample; see `formats.base.SampleReader`."""
        return self._reader.checksum(address)

    def read(self, address: Address) -> Stored:
        """Return a sample's arrays and, where the format stores it, its meta.json; see `formats.base.SampleReader`."""
        return self._reader.read(address)

    def fields(self, address: Address) -> dict[str, bytes] | None:
        """Return a sample's bytes as they were encoded; see `formats.base.SampleReader.fields`."""
        return self._reader.fields(address)

    def read_into(self, address: Address, out: Mapping[str, NDArray[Any]]) -> Entries | None:
        """Read a sample's planes to arrays that are there already; see `formats.base.SampleReader.read_into`."""
        return self._reader.read_into(address, out)


class OpenFiles:
    """The files of a dataset, opened when they are read and kept open, `OPEN_FILES` at most."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: dict[str, _File] = {}

    def __len__(self) -> int:
        return len(self._files)

    def close(self) -> None:
        """Let go of all files; the next read opens them again."""
        self._files = {}

    def expect(self, ranges: Iterable[Range]) -> None:
        """Do nothing: the system reads ahead."""

    def read(self, file: FileEntry, offset: int, nbytes: int, *, where: str) -> bytes:
        """Return a byte range of a file.

        Raises
        ------
        DatasetError
            The file is missing, cannot be read, is cut short, or has no such range.
        """
        check_range(file, offset, nbytes, where=where)
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


def check_range(file: FileEntry, offset: int, nbytes: int, *, where: str) -> None:
    """Raise `DatasetError` unless a file has a byte range."""
    if offset < 0 or nbytes <= 0 or offset + nbytes > file.bytes:
        raise DatasetError(
            "a byte range lies outside of its shard",
            where=where,
            found=f"{nbytes} bytes at {offset}",
            expected=f"inside {file.bytes} bytes",
        )


class _File:
    """A file descriptor that closes with its last reference."""

    def __init__(self, path: Path) -> None:
        self._descriptor = -1
        # a pipe in a shard's place is refused by `pread`; without the second flag, opening it would wait for ever
        self._descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0))

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
