"""Where a dataset lies: a folder, or a URL whose manifest and tables are kept in a local folder.

Opening a URL costs one request for the manifest and one for each table that is needed and not kept from before. Tables
are kept in a folder that is named for the manifest's bytes, so that a dataset that was changed is fetched anew.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import warnings
from functools import cached_property
from pathlib import Path
from typing import Any

from stpatch.dataset.access import OpenFiles
from stpatch.dataset.ahead import CachedFiles, RemoteFiles
from stpatch.dataset.formats.base import ByteRanges
from stpatch.dataset.manifest import MANIFEST, Manifest, parse_manifest, read_manifest
from stpatch.errors import DatasetError
from stpatch.remote import Store, is_url
from stpatch.storage import cache_folder, write_bytes


class Home:
    """A dataset's place.

    Parameters
    ----------
    place
        A folder, or a URL.
    cache
        A folder for whole shards, which are fetched when they are first read; None: byte ranges are read in place.

    Attributes
    ----------
    place
        As given, for messages.
    folder
        The dataset's folder, or the one where the manifest and the tables of a URL are kept.
    manifest
        The manifest.
    files
        What reads byte ranges of shards.
    """

    def __init__(self, place: str | Path, *, cache: Path | None = None) -> None:
        self.place = str(place)
        self._cache = cache
        self._store = None
        self.files: ByteRanges
        if is_url(place) or cache is not None:
            self._store = Store(self.place if is_url(place) else Path(place).absolute().as_uri())
            data = self._manifest_bytes(self._store)
            self.manifest: Manifest = _parsed(data, f"{self.place}/{MANIFEST}")
            self.folder = self._kept_at(hashlib.sha256(data).hexdigest(), data)
            self.files = RemoteFiles(self._store) if cache is None else CachedFiles(self._store, self.folder)
        else:
            self.folder = Path(place)
            self.manifest = read_manifest(self.folder)
            self.files = OpenFiles(self.folder)

    @property
    def is_remote(self) -> bool:
        """Whether its files are fetched."""
        return self._store is not None

    def table(self, name: str) -> Path:
        """Return the file of a table, which is fetched first where it is not there.

        Raises
        ------
        DatasetError
            It is missing, or is not the one that the manifest lists.
        RemoteError
            It cannot be fetched.
        """
        entry = self.manifest.tables[name]
        path = self.folder / entry.path
        if self._store is None or (path.is_file() and path.stat().st_size == entry.bytes):
            return path
        try:
            data = self._store.read(entry.path, nbytes=entry.bytes)
        except FileNotFoundError:
            raise DatasetError(
                "a table is missing", where=self._store.url_of(entry.path), hint="copy or build the dataset again"
            ) from None
        sha256 = hashlib.sha256(data).hexdigest()
        if sha256 != entry.sha256:
            raise DatasetError(
                "a file's checksum is wrong", where=self._store.url_of(entry.path), found=sha256, expected=entry.sha256
            )
        write_bytes(path, data)
        return path

    def __reduce__(self) -> tuple[Any, ...]:
        """Go to a spawned worker as the place alone."""
        return (_home, (self.place, self._cache))

    def _manifest_bytes(self, store: Store) -> bytes:
        try:
            return store.read(MANIFEST)
        except FileNotFoundError:
            raise DatasetError(
                f"not a dataset: there is no {MANIFEST}",
                where=self.place,
                hint="name the folder that stpatch build wrote; an unfinished build has no manifest yet",
            ) from None

    def _kept_at(self, digest: str, manifest: bytes) -> Path:
        """Return the folder for a manifest and its tables; a temporary one where the user's cache cannot be written."""
        try:
            folder = (self._cache or cache_folder() / "datasets") / digest
            if not (folder / MANIFEST).is_file():
                write_bytes(folder / MANIFEST, manifest)
        except OSError as error:
            if self._cache is not None:
                raise
            warnings.warn(
                f"the tables of {self.place} are fetched by every process, since they cannot be written to a cache: "
                f"{error}; set STPATCH_CACHE to a folder that can be written",
                RuntimeWarning,
                stacklevel=2,
            )
            return Path(self._temporary.name)
        return folder

    @cached_property
    def _temporary(self) -> tempfile.TemporaryDirectory[str]:
        return tempfile.TemporaryDirectory(prefix="stpatch-")


def _home(place: str, cache: Path | None) -> Home:
    return Home(place, cache=cache)


def _parsed(data: bytes, where: str) -> Manifest:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DatasetError("the manifest cannot be read", where=where, found=error, expected="JSON") from error
    return parse_manifest(value, where=where)
