"""What a sample's arrays and meta.json must say, given its row and the dataset's tables."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from stpatch.dataset.formats.base import Arrays
from stpatch.dataset.manifest import Manifest
from stpatch.dataset.planes import GENES_KIND, LABEL, LABEL_KIND, NO_LABEL, TOTALS, X
from stpatch.dataset.tables import unpack_measured
from stpatch.storage import canonical_json

FLOAT32_ROUNDING = 1e-6
"""Relative error of a total as float32, with some room."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What the manifest and the tables say of all samples.

    Attributes
    ----------
    manifest
        The manifest.
    gene_ids
        (genes,) int32, the ids of genes.parquet.
    measured
        Bit masks of measured genes by slide_id.
    target_sums
        Of the normalization, by slide_id.
    """

    manifest: Manifest
    gene_ids: NDArray[np.int32]
    measured: Mapping[str, bytes]
    target_sums: Mapping[str, float | None] = field(default_factory=dict)

    @classmethod
    def of(cls, manifest: Manifest, *, slides: Any, gene_ids: NDArray[np.int32]) -> Self:
        """Take the facts from the manifest and the table of slides."""
        masks = zip(slides["slide_id"].to_pylist(), slides["measured"].to_pylist(), strict=True)
        targets = zip(slides["slide_id"].to_pylist(), slides["target_sum"].to_pylist(), strict=True)
        return cls(manifest=manifest, gene_ids=gene_ids, measured=dict(masks), target_sums=dict(targets))


def check_meta(data: bytes, row: Mapping[str, Any], facts: Facts) -> list[str]:
    """Return where meta.json differs from the sample's row."""
    try:
        meta = json.loads(data)
    except (ValueError, RecursionError):
        return ["meta.json is not JSON"]
    layout = facts.manifest.layout
    expected = {name: row[name] for name in ("key", "slide_id", "row", "col", "n_spots", "draw") if name in row}
    expected = {name: value if isinstance(value, str) else int(value) for name, value in expected.items()}
    if layout.variable:
        expected["shape"] = [layout.shape[0], int(row["height"]), int(row["width"])]
    if not isinstance(meta, dict):
        return ["meta.json is not a mapping"]
    if data != canonical_json(meta).encode():
        return ["meta.json is not canonical JSON"]
    names = sorted({*meta, *expected})
    return [
        f"meta.json and the row disagree on {name}: {meta.get(name)!r} and {expected.get(name)!r}"
        for name in names
        if meta.get(name) != expected.get(name)
    ]


def check_arrays(arrays: Arrays, row: Mapping[str, Any], facts: Facts) -> Iterator[str]:
    """Yield what contradicts itself in a sample, or contradicts its row."""
    x, totals = arrays[X], arrays[TOTALS]
    empty = ~(totals > 0)
    if not np.isfinite(totals).all() or (totals < 0).any():
        yield "totals are negative or not numbers"
    yield from _check_coverage(totals.size - int(empty.sum()), totals.size, row)
    yield from _check_values(x, totals, empty, facts.manifest.values)
    if facts.manifest.values == "normalized":
        yield from _check_normalized(x, totals, facts.target_sums.get(str(row["slide_id"])), facts.manifest)
    for plane in facts.manifest.layout.planes:
        array = arrays.get(plane.name)
        if array is None:
            continue
        if plane.kind == GENES_KIND:
            yield from _check_genes(x, array, str(row["slide_id"]), facts)
        elif plane.kind == LABEL_KIND:
            categories = facts.manifest.labels[plane.name.removeprefix(LABEL)]
            if array.size and not (array.min() >= NO_LABEL and array.max() < len(categories)):
                yield f"{plane.name} has values outside of its {len(categories)} categories"


def _check_coverage(counted: int, pixels: int, row: Mapping[str, Any]) -> Iterator[str]:
    """Yield where the number of pixels with counts contradicts the row's n_spots or coverage.

    A spot without counts leaves its pixel's total at 0, so there may be fewer such pixels than occupied ones,
    never more; and an occupied pixel has at least one spot.
    """
    spots, coverage = int(row["n_spots"]), float(row["coverage"])
    covered = round(coverage * pixels)
    slack = pixels * FLOAT32_ROUNDING  # below one pixel, unless the patch is a whole slide of a million
    if counted > spots or counted > covered + slack:
        yield f"{counted} pixels have counts, the row tells of {spots} spots and {covered} occupied pixels"
    # Coverage is a number of pixels by the patch's size, as float32: anything between two such numbers is wrong.
    if abs(coverage * pixels - covered) > slack:
        yield f"the row's coverage {coverage:g} is not a whole number of the patch's {pixels} pixels"
    if covered > spots + slack:
        yield f"the row tells of {covered} occupied pixels, but of {spots} spots only"


def _check_values(x: NDArray[Any], totals: NDArray[Any], empty: NDArray[np.bool_], values: str) -> Iterator[str]:
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        yield "x holds values that are not numbers"
    if x[:, empty].any():
        yield "x has values where totals say that the pixel is empty"
    if values == "counts":
        sums = x.sum(axis=0, dtype=np.float64)
        if (sums > totals * (1 + FLOAT32_ROUNDING)).any():
            yield "x sums to more than totals"


_COUNTS_OF: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "total": lambda x: x,
    "log1p_total": np.expm1,
    "sqrt_total": np.square,
}
"""What gives ``counts * target_sum / total`` back, by the normalization's name."""
_TOLERANCE = {"float32": 1e-5, "float16": 2e-2}
"""Relative error of a count that is taken back from its normalized value, by the dtype of that."""


def _check_normalized(
    x: NDArray[Any], totals: NDArray[np.float32], target: float | None, manifest: Manifest
) -> Iterator[str]:
    """Yield where normalized values, taken back, are not the whole counts of pixels with whole totals."""
    back = _COUNTS_OF.get(str(manifest.normalization["method"]))
    if (
        manifest.grid.get("collisions") == "mean"
        or back is None
        or target is None
        or (totals != np.round(totals)).any()
    ):
        return
    with np.errstate(over="ignore", invalid="ignore"):
        counts = back(x.astype(np.float64)) * (totals.astype(np.float64) / target)
        slack = _TOLERANCE.get(str(x.dtype), 1e-5)
        far = np.abs(counts - np.round(counts)) > slack * np.maximum(counts, 1)
        many = counts.sum(axis=0) > totals * (1 + slack) + slack
    if (x < 0).any() or far.any() or many.any():
        yield f"x, taken back by method and target_sum {target:g}, is not the counts of its totals"


def _check_genes(x: NDArray[Any], genes: NDArray[np.int32], slide_id: str, facts: Facts) -> Iterator[str]:
    pad_id = facts.manifest.pad_id
    real = genes[genes != pad_id]
    if not np.isin(real, facts.gene_ids).all():  # so that no id is larger than those that the tables allow
        yield "genes has ids that genes.parquet does not have"
        return
    if len(np.unique(real)) != len(real):
        yield "genes names a gene twice"
    if facts.manifest.scope == "patch" and (np.diff(real) < 0).any():
        yield "genes is not sorted by id"
    if facts.manifest.values == "counts":
        largest = max(int(facts.gene_ids.max(initial=0)), pad_id)
        measured = unpack_measured(facts.measured.get(slide_id, b""), largest)
        if x[~measured[genes]].any():
            yield "x has counts of a gene that its slide did not measure"
