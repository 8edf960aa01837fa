"""What all shards of a dataset have in common."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from stpatch.dataset.planes import Plane, sample_planes

META = "meta.json"

FORMAT_VERSION = 2
"""Of the format that is written; earlier ones are read. What changed stands in README.md, "Versions"."""


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
        Samples per shard; only a split's last one has fewer.
    labels
        Names of the label maps, sorted.
    genes
        Whether each sample lists its genes (scope slide or patch).
    variable
        Whether H and W differ between samples (unit slide). Tar members have the true shape and meta.json tells it;
        zarr rows are padded to `shape`, and patches.parquet tells the true height and width.
    further
        Planes beside those that stpatch makes itself.
    version
        Of the format.
    """

    format: str = "tar"
    encoding: str = "blosc"
    dtype: str
    shape: tuple[int, int, int]
    patches: int
    labels: tuple[str, ...] = ()
    genes: bool = False
    variable: bool = False
    further: tuple[Plane, ...] = ()
    version: int = FORMAT_VERSION

    @cached_property
    def planes(self) -> tuple[Plane, ...]:
        """A sample's planes in order, x first."""
        return sample_planes(
            shape=self.shape,
            dtype=self.dtype,
            encoding=self.encoding,
            genes=self.genes,
            labels=self.labels,
            further=self.further,
        )

    @cached_property
    def fields(self) -> tuple[str, ...]:
        """A sample's fields in order: a member per plane, then meta.json."""
        return (*(plane.member for plane in self.planes), META)
