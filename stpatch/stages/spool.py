"""Where a task's encoded samples wait until their shard is written in its own order."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import IO, Self

IN_MEMORY = 64 << 20
"""Encoded bytes that wait in memory; what comes after them waits in a file."""


class Spool(AbstractContextManager["Spool"]):
    """Encoded samples by their position in the shard.

    Parameters
    ----------
    folder
        Where the file lies while it is needed.
    in_memory
        Bytes to keep in memory.
    """

    def __init__(self, folder: Path, *, in_memory: int = IN_MEMORY) -> None:
        self._folder = folder
        self._memory_left = in_memory
        self._keys: dict[int, str] = {}
        self._kept: dict[int, dict[str, bytes]] = {}
        self._filed: dict[int, dict[str, tuple[int, int]]] = {}
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def put(self, position: int, key: str, parts: dict[str, bytes]) -> None:
        """Keep the encoded parts of the sample at a position."""
        self._keys[position] = key
        size = sum(map(len, parts.values()))
        if size <= self._memory_left:
            self._memory_left -= size
            self._kept[position] = parts
            return
        self._memory_left = 0  # from the first one on that does not fit: a small one later must not jump the queue
        file = self._opened()
        ranges = {}
        for name, data in parts.items():
            ranges[name] = (file.tell(), len(data))
            file.write(data)
        self._filed[position] = ranges

    def in_order(self) -> Iterator[tuple[str, dict[str, bytes]]]:
        """Yield keys and parts by position; what is yielded is kept no longer."""
        for position in sorted(self._keys):
            parts = self._kept.pop(position) if position in self._kept else self._read(position)
            yield self._keys[position], parts

    def _opened(self) -> IO[bytes]:
        if self._file is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115, closed in __exit__
        return self._file

    def _read(self, position: int) -> dict[str, bytes]:
        file = self._opened()
        parts = {}
        for name, (offset, size) in self._filed[position].items():
            file.seek(offset)
            parts[name] = file.read(size)
        return parts
