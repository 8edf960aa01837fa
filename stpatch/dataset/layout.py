"""What all shards of a dataset have in common, and the records of the files that hold them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from stpatch.dataset.codecs import Encoding
from stpatch.dataset.sample import LABEL, NO_LABEL, PAD_GENE, field_names

Format = Literal["tar", "zarr"]
DIMS = ("channel", "row", "col")


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The shape of a dataset's samples and how they are stored.

    Attributes
    ----------
    format, encoding
        As in section ``shards`` of the config.
    dtype
        Of `x`, one for the whole dataset: uint16, uint32, float32 or float16.
    shape
        (C, H, W) of `x`; the largest H and W where `variable`.
    patches
        Samples a shard; only a split's last one has fewer.
    labels
        Names of the label maps, sorted.
    genes
        Whether each sample lists its genes (scope slide or patch).
    variable
        Whether H and W differ between samples (unit slide). Tar members have the true shape and meta.json tells it;
        zarr rows are padded to `shape`, and patches.parquet tells the true height and width.
    """

    format: Format = "tar"
    encoding: Encoding = "blosc"
    dtype: str
    shape: tuple[int, int, int]
    patches: int
    labels: tuple[str, ...] = ()
    genes: bool = False
    variable: bool = False

    @property
    def fields(self) -> tuple[str, ...]:
        """Member names of a tar sample, in order."""
        return field_names(self.encoding, genes=self.genes, labels=self.labels)

    def arrays(self) -> Iterator[ArraySpec]:
        """Yield the zarr arrays of a split, x first."""
        plane = self.shape[1:]
        yield ArraySpec(name="x", dtype=self.dtype, shape=self.shape, fill=0, dims=DIMS)
        yield ArraySpec(name="totals", dtype="float32", shape=plane, fill=0, dims=DIMS[1:])
        if self.genes:
            yield ArraySpec(name="genes", dtype="int32", shape=self.shape[:1], fill=PAD_GENE, dims=DIMS[:1])
        for name in sorted(self.labels):
            yield ArraySpec(name=f"{LABEL}{name}", dtype="int16", shape=plane, fill=NO_LABEL, dims=DIMS[1:])


@dataclass(frozen=True, kw_only=True)
class ArraySpec:
    """One array of a sample: its name, dtype, shape, the value of padding, and what its axes mean."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    fill: int
    dims: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """A file of the dataset: its path from the dataset's folder, its size and the SHA-256 of its bytes."""

    path: str
    bytes: int
    sha256: str

    def as_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {"path": self.path, "bytes": self.bytes, "sha256": self.sha256}


@dataclass(frozen=True, kw_only=True)
class ShardRecord:
    """A finished shard.

    Attributes
    ----------
    patches
        Samples in it.
    file
        The tar file, or the shard file of zarr array x.
    parts
        Zarr: the shard files of the other arrays, by array name.
    ranges
        (offset, nbytes) of each sample in `file`; empty in a record read from a manifest.
    """

    patches: int
    file: FileRecord
    parts: dict[str, FileRecord]
    ranges: tuple[tuple[int, int], ...] = ()

    @property
    def bytes(self) -> int:
        """Bytes of all its files."""
        return sum(file.bytes for file in self.files())

    def files(self) -> list[FileRecord]:
        """Return all its files."""
        return [self.file, *self.parts.values()]

    def as_json(self) -> dict[str, Any]:
        """Return JSON values for the manifest (without the ranges, which patches.parquet holds)."""
        value: dict[str, Any] = {**self.file.as_json(), "patches": self.patches}
        if self.parts:
            value["parts"] = {name: part.as_json() for name, part in self.parts.items()}
        return value


def tar_path(split: str, number: int) -> str:
    """Return a tar shard's path in the dataset."""
    return f"{split}/{split}-{number:06d}.tar"


def zarr_path(split: str) -> str:
    """Return the path of a split's zarr group in the dataset."""
    return f"{split}.zarr"


def zarr_shard_path(split: str, array: ArraySpec, number: int) -> str:
    """Return the path of the shard file `number` of a zarr array in the dataset."""
    chunk = "/".join(["c", str(number), *("0" for _ in array.shape)])
    return f"{zarr_path(split)}/{array.name}/{chunk}"
