"""Binary files for libraries to write into: errors name the file that it will be, and none is lost."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO


class FileWriter(io.BufferedIOBase):
    """A temporary file that is being written; its errors name the file that it will be.

    It has no file descriptor to give away: libraries that write through C's streams when they find one (NumPy's
    ``tofile``) lose the error of their last flush, so that a full disk goes unnoticed.
    """

    def __init__(self, file: io.BufferedRandom, path: Path) -> None:
        self._file = file
        self._path = path

    def readable(self) -> bool:
        """Return True: HDF5 reads what it wrote."""
        return True

    def writable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def write(self, data: Any, /) -> int:
        """Write all of `data`."""
        with self._named():
            return self._file.write(data)

    def readinto(self, buffer: Any, /) -> int:
        """Read into a buffer."""
        with self._named():
            return self._file.readinto(buffer)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go to a place, which may write what waits."""
        with self._named():
            return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Return the place."""
        return self._file.tell()

    def truncate(self, size: int | None = None, /) -> int:
        """Cut or lengthen the file."""
        with self._named():
            return self._file.truncate(size)

    def flush(self) -> None:
        """Hand on what waits."""
        if not self._file.closed:  # Python flushes once more when it throws the object away
            with self._named():
                self._file.flush()

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.filename is None:
                error.filename = str(self._path)
            raise


class PatientWriter(io.RawIOBase):
    """A file for a library that does not bear an error of a write: the first one is kept, and the rest left out.

    HDF5 crashes the process when its caches cannot be written while it closes a file. So it is told that all went
    well, and `raise_error` tells the truth when it is through.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._place = 0
        self._end = 0
        self._error: OSError | None = None

    def raise_error(self) -> None:
        """Raise the first error that was kept."""
        if self._error is not None:
            raise self._error

    def write(self, data: Any, /) -> int:
        """Write all of `data`, or nothing once a write has failed."""
        size = memoryview(data).nbytes
        self._try(self._file.write, data)
        self._place += size
        self._end = max(self._end, self._place)
        return size

    def readinto(self, buffer: Any, /) -> int:
        """Read into a buffer; zeros where the bytes could not be written."""
        view = memoryview(buffer).cast("B")
        found = self._try(self._file.readinto, view) or 0  # type: ignore[attr-defined]
        view[found:] = bytes(len(view) - found)
        self._place += len(view)
        return len(view)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go to a place."""
        self._place = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._end}[whence]
        self._try(self._file.seek, self._place)
        return self._place

    def tell(self) -> int:
        """Return the place."""
        return self._place

    def truncate(self, size: int | None = None, /) -> int:
        """Cut or lengthen the file."""
        self._end = self._place if size is None else size
        self._try(self._file.truncate, self._end)
        return self._end

    def flush(self) -> None:
        """Hand on what waits."""
        self._try(self._file.flush)

    def _try(self, call: Callable[..., Any], *arguments: Any) -> Any:
        if self._error is None:
            try:
                return call(*arguments)
            except OSError as error:
                self._error = error
        return None
