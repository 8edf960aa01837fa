"""Planes: the named arrays that make a sample, each with its dims, dtype, encoding and fill.

Whatever goes through all arrays of a sample (writers, readers, batches, checks) goes through its list of planes, so
that a further plane, such as a photograph of the tissue or a map of cells, needs no change there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from stpatch.registry import ENCODINGS

X, TOTALS, GENES, LABEL = "x", "totals", "genes", "label_"
"""Names of the planes that stpatch makes itself; a label's follows its prefix."""

VALUES_KIND, TOTALS_KIND, GENES_KIND, LABEL_KIND = "values", "totals", "genes", "label"
"""What a plane holds, which decides on the checks of its contents; a further plane may have a kind of its own."""

DIMS = ("channel", "row", "col")
NO_LABEL = -1
PAD_GENE = 0
LARGEST_GENE_ID = 2**24 - 1
"""Tables by gene id are as long as the largest one; a larger id is damage, or a vocabulary that needs other ids."""


@dataclass(frozen=True, kw_only=True)
class Plane:
    """One array of every sample.

    Attributes
    ----------
    name
        Unique in a sample; ``[a-z0-9_-]``.
    kind
        ``values``, ``totals``, ``genes``, ``label``, or a further plane's own.
    dims
        What the axes mean; ``row`` and ``col`` differ in length between samples where the dataset is variable.
    shape
        Lengths of the axes, the largest where they vary.
    dtype
        NumPy's name of it.
    encoding
        Of the plane's tar member. In zarr shards all planes have the encoding of `x`.
    fill
        The value of padding.
    """

    name: str
    kind: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    encoding: str = "npy"
    fill: int = 0

    @property
    def member(self) -> str:
        """Name of the plane's tar member, after the sample's key and a dot."""
        return f"{self.name}.{ENCODINGS.get(self.encoding).suffix}"

    def shape_at(self, size: tuple[int, int] | None) -> tuple[int, ...]:
        """Return the shape in a sample of (height, width) `size`; None where samples do not vary."""
        if size is None:
            return self.shape
        sizes = {"row": size[0], "col": size[1]}
        return tuple(sizes.get(dim, length) for dim, length in zip(self.dims, self.shape, strict=True))

    def as_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "name": self.name,
            "kind": self.kind,
            "dims": list(self.dims),
            "shape": list(self.shape),
            "dtype": self.dtype,
            "encoding": self.encoding,
            "fill": self.fill,
        }


def sample_planes(
    *,
    shape: tuple[int, int, int],
    dtype: str,
    encoding: str,
    genes: bool,
    labels: Iterable[str] = (),
    further: Iterable[Plane] = (),
) -> tuple[Plane, ...]:
    """Return a sample's planes in their order on disk: x, totals, genes, labels by name, then further ones."""
    image = shape[1:]
    planes = [
        Plane(name=X, kind=VALUES_KIND, dims=DIMS, shape=shape, dtype=dtype, encoding=encoding),
        Plane(name=TOTALS, kind=TOTALS_KIND, dims=DIMS[1:], shape=image, dtype="float32"),
    ]
    if genes:
        planes.append(Plane(name=GENES, kind=GENES_KIND, dims=DIMS[:1], shape=shape[:1], dtype="int32", fill=PAD_GENE))
    planes += [
        Plane(name=f"{LABEL}{name}", kind=LABEL_KIND, dims=DIMS[1:], shape=image, dtype="int16", fill=NO_LABEL)
        for name in sorted(labels)
    ]
    return (*planes, *further)
