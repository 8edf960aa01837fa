"""Files at the edge: durable writes, checksums, canonical JSON, safe names.

One rule holds for every final name, and only this module writes any: the bytes go to a temporary name beside it, are
flushed and synced, the name is changed, and the folder is synced. So a final name never holds half a file, neither
after a kill nor after a loss of power, and whatever could not be written is an error before the name appears.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import mmap
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, cast

from stpatch.file_writers import FileWriter, PatientWriter
from stpatch.processes import find_process, this_process

BLOCK = 1 << 20
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,127}")
_DEVICE = re.compile(r"con|prn|aux|nul|(com|lpt)[0-9]", re.IGNORECASE)
"""Names of devices, see Microsoft's "Naming Files, Paths, and Namespaces"."""
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
    """Whether `text` may become (part of) a file name on any system: letters, digits and ``_.+-``, at most 128 of them.

    Windows drops a dot at the end, and takes ``nul``, ``con.txt`` and the like for devices.
    """
    return (
        _ID.fullmatch(text) is not None and not text.endswith(".") and _DEVICE.fullmatch(text.partition(".")[0]) is None
    )


def plain_number(value: float) -> int | float:
    """Return a whole number as int, any other as float: counts look like counts in JSON and in messages."""
    return int(value) if float(value).is_integer() else float(value)


@lru_cache(maxsize=1024)
def key_text(text: str) -> str:
    """Return `text` as part of a sample key: lower case, only ``[a-z0-9_-]``."""
    return re.sub(r"[^a-z0-9_-]", "-", text.lower())


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


def _temporary_beside(path: Path) -> Path:
    """Return a name of this process' own, which tells those that clean up whose it is."""
    return path.with_name(f"{_TEMPORARY}{this_process()}-{uuid.uuid4().hex[:12]}-{path.name}")


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` for libraries that open files themselves; synced and renamed on success."""
    make_folder(path.parent)
    temporary = _temporary_beside(path)
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
    if target.exists() and target.samefile(source):
        return
    make_folder(target.parent)
    temporary = _temporary_beside(target)
    try:
        os.link(source, temporary)
        temporary.replace(target)
        sync_folder(target.parent)
    except OSError:  # another file system, one without hard links, or a file of somebody else's
        with atomic_path(target) as path:
            _clone(source, path)
    finally:  # a rename between two names of one file does nothing
        temporary.unlink(missing_ok=True)


_FICLONE = 0x40049409
"""``ioctl_ficlone`` of Linux: the second file shares the first one's blocks until one of them is written to."""


def _clone(source: Path, target: Path) -> None:
    try:
        import fcntl

        with source.open("rb") as read, target.open("wb") as write:
            fcntl.ioctl(write.fileno(), _FICLONE, read.fileno())
    except (ImportError, OSError):
        shutil.copyfile(source, target)


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


def exchange_folders(one: Path, other: Path) -> None:
    """Let two folders of one file system change places in one step: at no moment is one of the names missing.

    Raises
    ------
    OSError
        The system or the file system cannot do it (``renameat2`` with ``RENAME_EXCHANGE`` is Linux'), or one of them is
        a place that cannot be moved, such as where a disk is mounted.
    """
    import ctypes

    function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if os.name == "posix" else None
    if function is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), str(one))
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    if function(here, os.fsencode(one), here, os.fsencode(other), exchange) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(one), None, str(other))
    sync_folder(one.parent)


def write_new(path: Path, data: bytes) -> bool:
    """Write a file that nobody has written yet, whole at once; return False where there is one."""
    make_folder(path.parent)
    temporary = _temporary_beside(path)
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError:  # a file system without links: its name appears before its bytes
            try:
                with path.open("xb") as file:
                    file.write(data)
            except FileExistsError:
                return False
        sync_folder(path.parent)
        return True
    finally:
        temporary.unlink(missing_ok=True)


def remove_temporaries(folder: Path) -> None:
    """Remove what a killed process left under temporary names below `folder`, and nothing that is being written.

    A temporary name carries the process that writes it. One that lives keeps its files; of one on another host nothing
    is known, so its files are taken for left behind when nobody has written to them for `LEFT_BEHIND` seconds.
    """
    for path in folder.rglob(f"{_TEMPORARY}*"):
        process = find_process(path.name.removeprefix(_TEMPORARY))
        lives = False if process is None else process.lives()
        with contextlib.suppress(FileNotFoundError):  # renamed or removed meanwhile, by its own process or another
            if lives is None:
                lives = time.time() - path.stat().st_mtime < LEFT_BEHIND
            if not lives:
                path.unlink()


LEFT_BEHIND = 3600.0
"""Seconds after which a file of a process on another host, under a temporary name, counts as left behind."""


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
