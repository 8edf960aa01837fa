"""Byte ranges of shards behind a URL: fetched ahead and side by side, or from whole shards that are kept.

A request takes tens of milliseconds whatever it asks for, so ranges that lie close together are one request, several
requests run at once, and what the next batches need is fetched while this one is decoded.
"""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stpatch.dataset.access import OpenFiles, check_range
from stpatch.dataset.entries import FileEntry
from stpatch.dataset.formats.base import Range
from stpatch.errors import DatasetError, RemoteError
from stpatch.remote import Store

AT_ONCE = 16
"""Requests of a process that run at the same time."""
GAP = 1 << 16
"""Bytes that are fetched for nothing rather than asked around."""
LARGEST = 16 << 20
"""Bytes of a request, so that large reads are spread over several."""
AHEAD = 4
"""Batches that are fetched together, ahead of those that are read."""
KEPT = 4
"""Groups of ranges that are kept: those that are read, and those fetched ahead."""


class _Chunk(NamedTuple):
    """Bytes that are fetched or on their way."""

    start: int
    stop: int
    data: Future[bytes]


class RemoteFiles:
    """Reads byte ranges of a dataset's files behind a URL."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._groups: deque[dict[str, list[_Chunk]]] = deque(maxlen=KEPT)
        self._threads: tuple[int, ThreadPoolExecutor] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"_store": self._store, "_groups": deque(maxlen=KEPT), "_threads": None}

    def close(self) -> None:
        """Let go of what was fetched."""
        self._groups.clear()
        threads, self._threads = self._threads, None
        if threads is not None and threads[0] == os.getpid():
            threads[1].shutdown(wait=False, cancel_futures=True)

    def expect(self, ranges: Iterable[Range]) -> None:
        """Begin to fetch ranges that will be read; those that are on their way already are left out."""
        if self._threads is not None and self._threads[0] != os.getpid():
            self._groups.clear()  # a fork has neither the threads nor what they were to bring
        new = [wanted for wanted in ranges if self._find(wanted.file.path, wanted.offset, wanted.nbytes) is None]
        group: dict[str, list[_Chunk]] = {}
        for path, start, stop in _joined(new):
            future = self._executor().submit(self._store.read_range, path, start, stop - start)
            group.setdefault(path, []).append(_Chunk(start, stop, future))
        if group:
            self._groups.append(group)

    def read(self, file: FileEntry, offset: int, nbytes: int, *, where: str) -> bytes:
        """Return a byte range of a file; see `stpatch.dataset.access.OpenFiles.read`.

        Raises
        ------
        RemoteError
            The store failed, however often it was asked.
        """
        check_range(file, offset, nbytes, where=where)
        try:
            chunk = self._find(file.path, offset, nbytes)
            if chunk is None:
                return self._store.read_range(file.path, offset, nbytes)
            return chunk.data.result()[offset - chunk.start : offset - chunk.start + nbytes]
        except FileNotFoundError:
            raise DatasetError(
                "a shard is missing", where=self._store.url_of(file.path), hint="copy it again"
            ) from None
        except RemoteError:
            self._groups.clear()  # what failed is asked for anew when it is read once more
            raise

    def _find(self, path: str, offset: int, nbytes: int) -> _Chunk | None:
        if self._threads is None or self._threads[0] != os.getpid():
            return None
        for group in list(self._groups):
            for chunk in group.get(path, ()):
                if chunk.start <= offset and offset + nbytes <= chunk.stop:
                    return chunk
        return None

    def _executor(self) -> ThreadPoolExecutor:
        threads = self._threads
        if threads is None or threads[0] != os.getpid():
            threads = self._threads = (os.getpid(), ThreadPoolExecutor(AT_ONCE, thread_name_prefix="stpatch-fetch"))
        return threads[1]


class CachedFiles:
    """Reads byte ranges of files that are fetched whole when they are first read, checked, and kept in a folder."""

    def __init__(self, store: Store, folder: Path) -> None:
        self._store = store
        self._folder = folder
        self._open = OpenFiles(folder)
        self._there: set[str] = set()

    def close(self) -> None:
        """Let go of the files; the next read opens them again."""
        self._open.close()

    def expect(self, ranges: Iterable[Range]) -> None:
        """Do nothing: whole files are fetched."""

    def read(self, file: FileEntry, offset: int, nbytes: int, *, where: str) -> bytes:
        """Return a byte range of a file; see `RemoteFiles.read`."""
        check_range(file, offset, nbytes, where=where)
        if file.path not in self._there:
            local = self._folder / file.path
            if not local.is_file() or local.stat().st_size != file.bytes:
                try:
                    self._store.copy_to(file.path, local, nbytes=file.bytes, sha256=file.sha256)
                except FileNotFoundError:
                    raise DatasetError(
                        "a shard is missing", where=self._store.url_of(file.path), hint="copy it again"
                    ) from None
            self._there.add(file.path)
        return self._open.read(file, offset, nbytes, where=where)


def ahead(
    batches: Sequence[NDArray[np.int64]], expect: Callable[[NDArray[np.int64]], None]
) -> Iterator[NDArray[np.int64]]:
    """Yield batches' numbers, and tell `expect` before a group of batches what it and the next group need."""
    edges = [0, *range(1, len(batches), AHEAD), len(batches)]  # the first batch does not wait for others
    groups = [batches[start:stop] for start, stop in itertools.pairwise(edges)]
    for number, group in enumerate(groups):
        for near in groups[number : number + 2]:
            if near:
                expect(np.concatenate(near))
        yield from group


def _joined(ranges: Iterable[Range]) -> Iterator[tuple[str, int, int]]:
    """Yield (path, start, stop) that hold all ranges; those that lie close together are one."""
    place: tuple[str, int, int] | None = None
    for file, offset, nbytes in sorted(ranges, key=lambda wanted: (wanted.file.path, wanted.offset)):
        stop = offset + nbytes
        if place is not None and place[0] == file.path and offset <= place[2] + GAP and stop - place[1] <= LARGEST:
            place = (place[0], place[1], max(place[2], stop))
            continue
        if place is not None:
            yield place
        place = (file.path, offset, stop)
    if place is not None:
        yield place
