"""Files at the edge: durable writes, checksums, canonical JSON, safe names.

One rule holds for every final name, and only this module writes any: the bytes go to a temporary name beside it, are
flushed and synced, the name is changed, and the folder is synced. So a final name never holds half a file, neither
after a kill nor after a loss of power, and whatever could not be written is an error before the name appears.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import mmap
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, cast

BLOCK = 1 << 20
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,127}")
_TEMPORARY = ".tmp-"
_SEAL = "seal"
_SEAL_LINE = '\n "seal": "%s"'
"""As it stands in the file: only a member of the outermost mapping is indented by one."""


def cache_folder() -> Path:
    """Return the user's folder for what can be made again: ``STPATCH_CACHE``, or ``stpatch`` in the usual place.

    Raises
    ------
    OSError
        The user has no home.
    """
    if chosen := os.environ.get("STPATCH_CACHE"):
        return Path(chosen)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stpatch"
    except RuntimeError as error:
        raise OSError(str(error)) from error


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


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path`; on success it is flushed, synced and renamed to `path`, else removed.

    Raises
    ------
    OSError
        Something could not be written, such as on a full disk; `path` is as it was. Where the folder alone could not be
        synced, `path` is new and whole, and may be gone after a loss of power.
    """
    with atomic_path(path) as temporary:
        file = temporary.open("w+b")
        writer = FileWriter(file, path)
        try:
            yield cast(BinaryIO, writer)
            writer.flush()
        except BaseException:
            with contextlib.suppress(OSError):  # it would try to write the rest once more
                file.close()
            raise
        file.close()


@contextlib.contextmanager
def patient_file(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file as `atomic_file` does, for a library that crashes when a write fails.

    Raises
    ------
    OSError
        As `atomic_file`, but not before the library has done with the file.
    """
    with atomic_file(path) as file:
        writer = PatientWriter(file)
        try:
            yield cast(BinaryIO, writer)
        finally:  # whatever the library made of it, the first cause is the disk's
            writer.raise_error()


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` for libraries that open files themselves; synced and renamed on success."""
    make_folder(path.parent)
    temporary = path.with_name(f"{_TEMPORARY}{uuid.uuid4().hex}-{path.name}")
    try:
        yield temporary
        _sync(temporary, path)
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _sync(temporary: Path, path: Path) -> None:
    """Bring a file's bytes to the disk, by whatever descriptor they were written; the error names `path`."""
    with temporary.open("r+b") as file:
        try:
            os.fsync(file.fileno())
        except OSError as error:
            error.filename = str(path)
            raise


def share_file(source: Path, target: Path) -> None:
    """Have a file under another name too, atomically: by a second name for it, else by a clone of it, else by a copy.

    A second name (hard link) costs nothing; a clone has its own name and rights and shares the blocks of the disk.
    """
    try:
        _link(source, target)
    except OSError:  # another file system, one without hard links, or a file of somebody else's
        with atomic_path(target) as temporary:
            _clone(source, temporary)


_FICLONE = 0x40049409
"""``ioctl_ficlone`` of Linux: the second file shares the first one's blocks until one of them is written to."""


def _clone(source: Path, target: Path) -> None:
    try:
        import fcntl

        with source.open("rb") as read, target.open("wb") as write:
            fcntl.ioctl(write.fileno(), _FICLONE, read.fileno())
    except (ImportError, OSError):
        shutil.copyfile(source, target)


def _link(source: Path, target: Path) -> None:
    make_folder(target.parent)
    temporary = target.with_name(f"{_TEMPORARY}{uuid.uuid4().hex}-{target.name}")
    try:
        os.link(source, temporary)
        temporary.replace(target)
        sync_folder(target.parent)
    finally:  # a rename between two names of one file does nothing
        temporary.unlink(missing_ok=True)


_NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)
"""What file systems answer that have nothing to sync of a folder."""


def sync_folder(folder: Path) -> None:
    """Bring a folder's names to the disk, where the system can be asked for it."""
    if os.name == "nt":  # which opens no folders, and keeps names by its journal
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            error.filename = str(folder)
            raise
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, so that a file that is synced in it is found after a loss of power."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        if folder.parent == folder or folder.is_symlink() or folder.exists():
            break
        folder = folder.parent
    for new in reversed(missing):
        new.mkdir(exist_ok=True)
        sync_folder(new.parent)


def remove_file(path: Path) -> None:
    """Remove a file, if it is there, so that it does not come back after a loss of power."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
        sync_folder(path.parent)


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


def write_sealed(path: Path, value: Mapping[str, Any]) -> None:
    """Write a mapping as `write_json` does, with a digest of all the file's text beside its members."""
    text = canonical_json({**value, _SEAL: ""}, indent=1) + "\n"
    write_bytes(path, text.replace(_SEAL_LINE % "", _SEAL_LINE % _text_digest(text), 1).encode())


def read_sealed(path: Path | str) -> dict[str, Any]:
    """Read what `write_sealed` wrote.

    The seal is of the text as it stands: thousands of receipts are read at once, and writing their values anew for a
    digest takes as long as all the rest.

    Raises
    ------
    ValueError
        The file is not JSON, or one of its bits is not as it was written.
    OSError
        It cannot be read.
    """
    with open(path, encoding="utf-8") as file:  # noqa: PTH123 - as above
        text = file.read()
    value = json.loads(text)
    seal = value.pop(_SEAL, None) if isinstance(value, dict) else None
    if not isinstance(seal, str) or seal != _text_digest(text.replace(_SEAL_LINE % seal, _SEAL_LINE % "", 1)):
        raise ValueError(f"{path} is not as it was written")
    return cast(dict[str, Any], value)


def _text_digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def digest(value: Any) -> str:
    """Return the SHA-256 (hex) of a JSON value's canonical text."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def crc32c(*parts: bytes) -> int:
    """Return the CRC-32C (Castagnoli) of bytes, as if the parts stood one after the other."""
    import google_crc32c

    whole: int = google_crc32c.value(parts[0]) if parts else 0
    for part in parts[1:]:
        whole = google_crc32c.extend(whole, part)
    return whole


def sha256_file(path: Path) -> str:
    """Return the SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
