"""What a sample's arrays and meta.json must say, given its row and the dataset's tables."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from stpatch.dataset.access import Arrays
from stpatch.dataset.manifest import Manifest
from stpatch.dataset.sample import LABEL, NO_LABEL
from stpatch.dataset.tables import unpack_measured

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
    """

    manifest: Manifest
    gene_ids: NDArray[np.int32]
    measured: Mapping[str, bytes]

    @classmethod
    def of(cls, manifest: Manifest, *, slides: Any, gene_ids: NDArray[np.int32]) -> Self:
        """Take the facts from the manifest and the table of slides."""
        masks = zip(slides["slide_id"].to_pylist(), slides["measured"].to_pylist(), strict=True)
        return cls(manifest=manifest, gene_ids=gene_ids, measured=dict(masks))


def check_meta(data: bytes, row: Mapping[str, Any], facts: Facts) -> list[str]:
    """Return where meta.json differs from the sample's row."""
    try:
        meta = json.loads(data)
    except (ValueError, RecursionError):
        return ["meta.json is no JSON"]
    layout = facts.manifest.layout
    expected = {name: row[name] for name in ("key", "slide_id", "row", "col", "n_spots", "draw") if name in row}
    expected = {name: value if isinstance(value, str) else int(value) for name, value in expected.items()}
    if layout.variable:
        expected["shape"] = [layout.shape[0], int(row["height"]), int(row["width"])]
    if not isinstance(meta, dict):
        return ["meta.json is no mapping"]
    names = sorted({*meta, *expected})
    return [
        f"meta.json and the row disagree on {name}: {meta.get(name)!r} and {expected.get(name)!r}"
        for name in names
        if meta.get(name) != expected.get(name)
    ]


def check_arrays(arrays: Arrays, row: Mapping[str, Any], facts: Facts) -> Iterator[str]:
    """Yield what contradicts itself in a sample, or contradicts its row."""
    x, totals = arrays["x"], arrays["totals"]
    empty = ~(totals > 0)
    if not np.isfinite(totals).all() or (totals < 0).any():
        yield "totals are negative or no numbers"
    occupied = int(totals.size - empty.sum())
    covered = round(float(row["coverage"]) * totals.size)
    if occupied > int(row["n_spots"]) or occupied > covered:  # a spot without counts leaves its pixel's total at 0
        yield f"{occupied} pixels have counts, the row tells of {row['n_spots']} spots and {covered} occupied pixels"
    yield from _check_values(x, totals, empty, facts.manifest.values)
    genes = arrays.get("genes")
    if genes is not None:
        yield from _check_genes(x, genes, str(row["slide_id"]), facts)
    for name, label in arrays.items():
        if name.startswith(LABEL):
            categories = facts.manifest.labels[name.removeprefix(LABEL)]
            if label.size and not (label.min() >= NO_LABEL and label.max() < len(categories)):
                yield f"{name} has values outside of its {len(categories)} categories"


def _check_values(x: NDArray[Any], totals: NDArray[Any], empty: NDArray[np.bool_], values: str) -> Iterator[str]:
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        yield "x holds values that are no numbers"
    if x[:, empty].any():
        yield "x has values where totals say that the pixel is empty"
    if values == "counts":
        sums = x.sum(axis=0, dtype=np.float64)
        if (sums > totals * (1 + FLOAT32_ROUNDING)).any():
            yield "x sums to more than totals"


def _check_genes(x: NDArray[Any], genes: NDArray[np.int32], slide_id: str, facts: Facts) -> Iterator[str]:
    pad_id = facts.manifest.pad_id
    real = genes[genes != pad_id]
    if not np.isin(real, facts.gene_ids).all():
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
