"""The files of a dataset as its manifest lists them."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from stpatch.storage import write_bytes

_SHA256 = re.compile(r"[0-9a-f]{64}")


def _relative(path: str) -> str:
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or "\\" in path or ":" in path or "\0" in path or not pure.parts:
        raise ValueError("a relative path inside the dataset's folder")
    return path


def _hexadecimal(text: str) -> str:
    if _SHA256.fullmatch(text) is None:
        raise ValueError("64 hexadecimal digits")
    return text


MOST = 2**53
"""The largest count that JSON readers in every language take exactly."""
LONGEST = 2**31 - 1
"""The longest axis, and the most samples of a shard: int32 columns and positions hold it."""

Text = Annotated[str, Field(strict=True)]
Count = Annotated[int, Field(strict=True, ge=0, le=MOST)]
Positive = Annotated[int, Field(strict=True, ge=1, le=LONGEST)]
RelativePath = Annotated[Text, AfterValidator(_relative), Field(description="From the dataset's folder, with /.")]
Sha256 = Annotated[Text, AfterValidator(_hexadecimal), Field(json_schema_extra={"pattern": "^[0-9a-f]{64}$"})]


class Part(BaseModel):
    """Base of the manifest's parts: frozen; a key that this version does not know is ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    def as_json(self) -> dict[str, Any]:
        """Return JSON values: the keys that were given, and no others."""
        return self.model_dump(mode="json", exclude_unset=True)


class FileEntry(Part):
    """A file: its path from the dataset's folder, its size and the SHA-256 of its bytes."""

    path: RelativePath
    bytes: Count
    sha256: Sha256


class ShardEntry(FileEntry):
    """A shard: its file and the number of samples in it.

    A format that stores each plane in a file of its own lists the files of all planes but `x` as `parts`, by plane.
    """

    patches: Positive
    parts: dict[str, FileEntry] = {}

    def files(self) -> list[FileEntry]:
        """Return all its files, that of `x` first."""
        return [self, *self.parts.values()]


class SplitEntry(Part):
    """A split: its shards in order; ``spots`` is the sum of its patches' n_spots, ``bytes`` that of all files."""

    patches: Count
    spots: Count
    bytes: Count
    shards: tuple[ShardEntry, ...]

    @classmethod
    def of(cls, shards: Sequence[ShardEntry], *, spots: int) -> Self:
        """Return the split of some shards, with their sums."""
        return cls(
            patches=sum(shard.patches for shard in shards),
            spots=spots,
            bytes=sum(file.bytes for shard in shards for file in shard.files()),
            shards=tuple(shards),
        )

    @property
    def starts(self) -> list[int]:
        """The number of samples before each shard, and that of all samples."""
        return list(itertools.accumulate((shard.patches for shard in self.shards), initial=0))


@dataclass(frozen=True, kw_only=True)
class WrittenShard:
    """A shard that was just written.

    Attributes
    ----------
    entry
        As the manifest lists it.
    ranges
        Byte range (offset, nbytes) of each sample in the shard's file, for patches.parquet.
    checksums
        CRC-32C of each sample's stored bytes, for patches.parquet; see `stpatch.dataset.formats.base.check_stored`.
    """

    entry: ShardEntry
    ranges: tuple[tuple[int, int], ...]
    checksums: tuple[int, ...]


def write_file(folder: Path, path: str, data: bytes) -> FileEntry:
    """Write a file into the dataset's folder, atomically; return its entry."""
    write_bytes(folder / path, data)
    return FileEntry(path=path, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
