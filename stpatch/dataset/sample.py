"""A sample and its fields: one patch as named byte strings in a fixed order, the same for tar and for zarr."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpatch.dataset import codecs as codec
from stpatch.dataset.codecs import Encoding
from stpatch.errors import ConfigError, DatasetError
from stpatch.storage import canonical_json, key_text

LABEL = "label_"
META = "meta.json"
NO_LABEL = -1
PAD_GENE = 0
NAME_LIMIT = 100
"""Bytes of a member name that a USTAR header holds."""

_KEY = re.compile(r"[a-z0-9][a-z0-9_-]*")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One patch.

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
    labels
        (H, W) int16 a label, -1 = none, by label name.
    meta
        slide_id, row, col, n_spots, and draw where there are several.
    """

    key: str
    x: NDArray[Any]
    totals: NDArray[np.float32]
    genes: NDArray[np.int32] | None = None
    labels: Mapping[str, NDArray[np.int16]] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)


def label_name(column: str) -> str:
    """Return the name of the label map made from a spot-table column: lower case, only ``[a-z0-9_-]``."""
    return key_text(column.strip())


def field_names(encoding: Encoding, *, genes: bool, labels: Iterable[str] = ()) -> tuple[str, ...]:
    """Return a sample's fields in their order on disk: x, totals, genes, labels by name, meta."""
    return (
        f"x.{encoding}",
        "totals.npy",
        *(["genes.npy"] if genes else []),
        *(f"{LABEL}{name}.npy" for name in sorted(labels)),
        META,
    )


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


def meta_of(sample: Sample, *, variable: bool = False) -> dict[str, Any]:
    """Return what meta.json holds; `variable` adds the shape of x, which no manifest can tell then."""
    meta = {"key": sample.key, **sample.meta}
    if variable:
        meta["shape"] = list(sample.x.shape)
    return meta


def encode_fields(sample: Sample, encoding: Encoding, *, variable: bool = False) -> dict[str, bytes]:
    """Return the sample's tar members in their order.

    Parameters
    ----------
    sample
        What to encode.
    encoding
        ``blosc``: `x` as one Blosc frame. ``npy``: `x` as a NumPy file. All other arrays are NumPy files.
    variable
        The samples differ in height and width (unit ``slide``): the shape of `x` goes into meta.json.

    Raises
    ------
    DatasetError
        The arrays' shapes or types contradict each other.
    """
    check_sample(sample)
    fields = {f"x.{encoding}": codec.encode(sample.x, encoding), "totals.npy": codec.encode(sample.totals, "npy")}
    if sample.genes is not None:
        fields["genes.npy"] = codec.encode(sample.genes, "npy")
    for name in sorted(sample.labels):
        fields[f"{LABEL}{name}.npy"] = codec.encode(sample.labels[name], "npy")
    fields[META] = canonical_json(meta_of(sample, variable=variable)).encode()
    return fields


def check_sample(sample: Sample) -> None:
    """Raise `DatasetError` where a sample's arrays contradict each other."""
    plane = sample.x.shape[1:]
    if len(plane) != 2:
        raise DatasetError("x is no (C, H, W) array", where=sample.key, found=sample.x.shape)
    planes: list[tuple[str, NDArray[Any], tuple[int, ...], str]] = [("totals", sample.totals, plane, "float32")]
    if sample.genes is not None:
        planes.append(("genes", sample.genes, sample.x.shape[:1], "int32"))
    planes.extend((f"{LABEL}{name}", label, plane, "int16") for name, label in sample.labels.items())
    for name, array, shape, dtype in planes:
        if array.shape != shape or array.dtype != dtype:
            raise DatasetError(
                f"{name} does not fit x",
                where=sample.key,
                found=f"{array.shape} {array.dtype}",
                expected=f"{shape} {dtype}",
            )
