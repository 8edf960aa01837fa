"""A sample: one patch and one draw of its channels, as planes by name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpatch.dataset.layout import META, Layout
from stpatch.dataset.planes import GENES, GENES_KIND, LABEL, LABEL_KIND, NO_LABEL, TOTALS, X
from stpatch.errors import ConfigError, DatasetError
from stpatch.storage import canonical_json, key_text

__all__ = [
    "LABEL",
    "META",
    "NO_LABEL",
    "Sample",
    "by_kind",
    "check_key",
    "encode_meta",
    "field_names",
    "fitting_arrays",
    "is_key",
    "label_name",
]

NAME_LIMIT = 100
"""Bytes of a member name that a USTAR header holds."""

_KEY = re.compile(r"[a-z0-9][a-z0-9_-]*")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One patch, with its channels drawn.

    Attributes
    ----------
    key
        Unique in the dataset; ``[a-z0-9_-]``.
    x
        (C, H, W) in the dataset's dtype: counts or normalized values; rows are y.
    totals
        (H, W) float32, a pixel's count over all genes; 0 marks an empty pixel.
    genes
        (C,) int32 gene ids, the pad's where a channel has no gene; None where one panel holds for the whole dataset.
    measured
        (C,) whether the sample's slide measured each channel's gene; given by a reader alone.
    labels
        (H, W) int16 per label, -1 = none, by label name.
    meta
        slide_id, row, col, n_spots, and draw where there are several.
    further
        Further planes by name.
    """

    key: str
    x: NDArray[Any]
    totals: NDArray[np.float32]
    genes: NDArray[np.int32] | None = None
    measured: NDArray[np.bool_] | None = None
    labels: Mapping[str, NDArray[np.int16]] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)
    further: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return all arrays by plane name."""
        arrays: dict[str, NDArray[Any]] = {X: self.x, TOTALS: self.totals}
        if self.genes is not None:
            arrays[GENES] = self.genes
        arrays.update((f"{LABEL}{name}", label) for name, label in self.labels.items())
        arrays.update(self.further)
        return arrays


def by_kind(arrays: Mapping[str, Any], layout: Layout) -> dict[str, Any]:
    """Return a sample's (or a batch's) arrays as the keywords of `Sample`: x, totals, genes, labels and further."""
    labels = {plane.name.removeprefix(LABEL): arrays[plane.name] for plane in layout.planes if plane.kind == LABEL_KIND}
    genes = next((arrays[plane.name] for plane in layout.planes if plane.kind == GENES_KIND), None)
    further = {plane.name: arrays[plane.name] for plane in layout.further}
    return {"x": arrays[X], "totals": arrays[TOTALS], "genes": genes, "labels": labels, "further": further}


def label_name(column: str) -> str:
    """Return the name of the label map made from a spot-table column: lower case, only ``[a-z0-9_-]``."""
    return key_text(column.strip())


def field_names(encoding: str, *, genes: bool, labels: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the names of a tar sample's members, before the dataset's shape is known."""
    layout = Layout(encoding=encoding, dtype="uint16", shape=(1, 1, 1), patches=1, labels=tuple(labels), genes=genes)
    return layout.fields


def is_key(key: str) -> bool:
    """Whether a text is a sample's key, and leaves room for a member's name behind it."""
    return _KEY.fullmatch(key) is not None and len(key) < NAME_LIMIT


def check_key(key: str, fields: Iterable[str] = (META,)) -> str:
    """Return `key` if it and its member names fit a tar shard and a webdataset key, else raise `ConfigError`."""
    if _KEY.fullmatch(key) is None:
        raise ConfigError(
            "a sample key holds characters that a shard cannot",
            where="slide_id",
            found=repr(key),
            expected="a-z 0-9 _ -, the first a letter or digit",
            hint="rename the slide",
        )
    longest = max(fields, key=len)
    if len(key) + 1 + len(longest) > NAME_LIMIT:
        raise ConfigError(
            "a sample's name is too long for a tar header",
            where="slide_id",
            found=f"{len(key) + 1 + len(longest)} characters: {key}.{longest}",
            expected=f"at most {NAME_LIMIT}",
            hint="shorten the slide_id (or the label's name)",
        )
    return key


def encode_meta(sample: Sample, layout: Layout) -> bytes:
    """Return the bytes of meta.json; where samples vary it tells the shape of x, which no manifest can tell then."""
    meta = {"key": sample.key, **sample.meta}
    if layout.variable:
        meta["shape"] = list(sample.x.shape)
    return canonical_json(meta).encode()


def fitting_arrays(sample: Sample, layout: Layout) -> dict[str, NDArray[Any]]:
    """Return a sample's arrays by plane name, in the planes' order.

    Raises
    ------
    DatasetError
        A plane is missing or too many, or has another shape or dtype than the dataset's planes.
    """
    arrays = sample.arrays()
    names = [plane.name for plane in layout.planes]
    if sorted(arrays) != sorted(names):
        raise DatasetError(
            "a sample has other planes than the dataset",
            where=sample.key,
            found=", ".join(arrays),
            expected=", ".join(names),
        )
    size = _size(sample, layout)
    for plane in layout.planes:
        array, shape = arrays[plane.name], plane.shape_at(size)
        if array.shape != shape or array.dtype != plane.dtype:
            raise DatasetError(
                f"{plane.name} does not fit the dataset",
                where=sample.key,
                found=f"{array.shape} {array.dtype}",
                expected=f"{shape} {plane.dtype}",
            )
    return {name: arrays[name] for name in names}


def _size(sample: Sample, layout: Layout) -> tuple[int, int] | None:
    """Return the (height, width) of x where samples vary, at most the layout's."""
    if not layout.variable or sample.x.ndim != len(layout.shape):
        return None
    height, width = sample.x.shape[1:]
    return min(height, layout.shape[1]), min(width, layout.shape[2])
