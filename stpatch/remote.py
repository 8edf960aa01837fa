"""Files behind URLs, through fsspec: whole objects and byte ranges, with patience for what passes.

A store or a network fails now and then: a connection is dropped, a server is busy (503), a reply is cut short. Each is
tried again after a pause that grows; what then still fails is a `RemoteError`, which is no fault of the dataset.
Which package reads a URL, where its server is and with which credentials is fsspec's configuration (such as
``AWS_ENDPOINT_URL``, ``~/.aws/credentials`` or ``~/.config/fsspec``), not stpatch's.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stpatch.errors import MissingExtraError, RemoteError, StpatchError
from stpatch.storage import atomic_file

EXTRA = "remote"
PAUSES = (0.25, 1.0, 4.0, 16.0)
"""Seconds before each further try."""
BLOCK = 8 << 20
"""Bytes of a file that is copied that are fetched together."""

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://.+")
_PACKAGES = {
    "s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "hf": "huggingface_hub", "http": "aiohttp",
    "https": "aiohttp", "az": "adlfs", "abfs": "adlfs",
}  # fmt: skip
_NEVER = (
    FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError, NotImplementedError,
    ValueError, TypeError, LookupError, AttributeError, ImportError, StpatchError,
)  # fmt: skip
"""What no further try would change."""


def is_url(path: object) -> bool:
    """Whether a path is a URL such as ``s3://bucket/folder``."""
    return isinstance(path, str) and _URL.fullmatch(path) is not None


class Store:
    """A folder behind a URL, or a file; safe in threads, and in forked and spawned processes.

    Attributes
    ----------
    url
        Without a slash at its end.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._opened: tuple[int, Any, str] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return (Store, (self.url,))

    def read(self, path: str = "", *, nbytes: int | None = None) -> bytes:
        """Return a whole file.

        Parameters
        ----------
        path
            From the store's folder.
        nbytes
            Its size, where that is known: fewer or more bytes are a failure of the store.

        Raises
        ------
        FileNotFoundError
            There is none.
        RemoteError
            It cannot be read, however often that is tried.
        """
        data: bytes = self._patiently(path, lambda fs, place: _whole(bytes(fs.cat_file(place)), nbytes))
        return data

    def read_range(self, path: str, offset: int, nbytes: int) -> bytes:
        """Return `nbytes` bytes of a file; see `read`."""

        def cut(fs: Any, place: str) -> bytes:  # by name: of some file systems, the second argument is a version
            return _whole(bytes(fs.cat_file(place, start=offset, end=offset + nbytes)), nbytes)

        data: bytes = self._patiently(path, cut)
        return data

    def size(self, path: str = "") -> int | None:
        """Return a file's size, None where there is no such file."""
        try:
            found = self._patiently(path, lambda fs, place: fs.info(place))
        except FileNotFoundError:
            return None
        return int(found["size"]) if found.get("type", "file") == "file" else None

    def is_folder(self, path: str = "") -> bool:
        """Whether there are files below a path."""
        return bool(self._patiently(path, lambda fs, place: fs.isdir(place)))

    def files(self, path: str = "") -> dict[str, int]:
        """Return the sizes of all files below a folder by their paths from it, in order of the paths."""

        def listed(fs: Any, place: str) -> dict[str, int]:
            fs.invalidate_cache()
            found = fs.find(place, detail=True)
            start = fs._strip_protocol(place).rstrip("/") + "/"
            return {str(name).removeprefix(start): int(info["size"]) for name, info in found.items()}

        try:
            return dict(sorted(self._patiently(path, listed).items()))
        except FileNotFoundError:
            return {}

    def glob(self, pattern: str) -> list[str]:
        """Return the URLs that match a pattern below the store's folder, in order."""
        found = self._patiently(pattern, lambda fs, place: [fs.unstrip_protocol(name) for name in fs.glob(place)])
        return sorted(found)

    def copy_to(self, path: str, local: Path, *, nbytes: int, sha256: str | None = None) -> str:
        """Copy a file to a local place, atomically, in blocks; return its SHA-256.

        Raises
        ------
        FileNotFoundError, RemoteError
            As for `read`.
        RemoteError
            It is not the file of this checksum.
        """
        found = hashlib.sha256()
        with atomic_file(local) as file:
            for offset in range(0, nbytes, BLOCK):
                data = self.read_range(path, offset, min(BLOCK, nbytes - offset))
                found.update(data)
                file.write(data)
            if sha256 not in (None, found.hexdigest()):
                raise RemoteError(
                    "a file behind a URL is not the one that is wanted",
                    where=self.url_of(path),
                    found=found.hexdigest(),
                    expected=sha256,
                    hint="it was changed, or damaged on the way",
                )
        return found.hexdigest()

    def put(self, local: Path, path: str) -> None:
        """Store a local file as a whole object: it is there when all of it is, and what was there before goes."""

        def upload(fs: Any, place: str) -> None:
            if self.url.split("://", 1)[0].lower() not in _PACKAGES:  # stores of objects have no folders to make
                fs.makedirs(fs._parent(place), exist_ok=True)
            fs.put_file(str(local), place)
            fs.invalidate_cache()

        try:
            self._patiently(path, upload)
        except FileNotFoundError as error:
            raise self._failed(path, error, "make the bucket first, or check the URL") from error

    def remove(self, path: str) -> None:
        """Remove a file, if it is there."""

        def gone(fs: Any, place: str) -> None:
            if fs.exists(place):
                fs.rm_file(place)
                fs.invalidate_cache()

        self._patiently(path, gone)

    def url_of(self, path: str) -> str:
        """Return a file's URL."""
        return f"{self.url}/{path}" if path else self.url

    def _patiently(self, path: str, call: Callable[[Any, str], Any]) -> Any:
        fs, root = self._filesystem()
        place = f"{root.rstrip('/')}/{path}" if path else root
        for pause in (*PAUSES, None):
            try:
                return call(fs, place)
            except _NEVER as error:
                if isinstance(error, (FileNotFoundError, StpatchError)):
                    raise
                raise self._failed(path, error, "check the URL, and what may be done there") from error
            except Exception as error:
                if pause is None:
                    hint = f"the store or the network failed {len(PAUSES) + 1} times: go on later from here"
                    raise self._failed(path, error, hint) from error
                time.sleep(pause)
        raise AssertionError  # never reached

    def _failed(self, path: str, error: BaseException, hint: str) -> RemoteError:
        found = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        return RemoteError(
            "a file behind a URL cannot be read or written", where=self.url_of(path), found=found, hint=hint
        )

    def _filesystem(self) -> tuple[Any, str]:
        """Return fsspec's file system, of this process' own, and the folder's path in it."""
        opened = self._opened
        if opened is None or opened[0] != os.getpid():
            opened = self._opened = (os.getpid(), *_opened(self.url))
        return opened[1], opened[2]


def _opened(url: str) -> tuple[Any, str]:
    protocol = url.split("://", 1)[0].lower()
    purpose = f"{protocol}:// URLs"
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise MissingExtraError.of(EXTRA, needs="fsspec", purpose=purpose) from error
    try:
        fs, root = url_to_fs(url)
    except ImportError as error:
        raise MissingExtraError.of(EXTRA, needs=_PACKAGES.get(protocol, protocol), purpose=purpose) from error
    except ValueError as error:
        raise RemoteError("fsspec does not know this kind of URL", where=url, found=error) from error
    return fs, str(root)


def _whole(data: bytes, nbytes: int | None) -> bytes:
    """Return data of the wanted size; fewer or more bytes are a failure that passes."""
    if nbytes is not None and len(data) != nbytes:
        raise ConnectionError(f"a reply of {len(data)} bytes instead of {nbytes}")
    return data
