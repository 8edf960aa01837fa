"""Every sample of a shard against its row: decoded, written anew, and laid into the image of its slide."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpatch.dataset import content
from stpatch.dataset.access import ShardReader
from stpatch.dataset.checks.mosaic import Mosaic
from stpatch.dataset.entries import ShardEntry
from stpatch.dataset.formats.base import Address, Stored
from stpatch.dataset.manifest import Manifest
from stpatch.dataset.sample import Sample, by_kind
from stpatch.errors import DatasetError
from stpatch.registry import ENCODINGS, FORMATS

Rows = Mapping[str, Any]
CODEC = "numcodecs"
"""What makes the bytes of all encodings of the project; another version may make others of the same array."""


def check_samples(
    reader: ShardReader,
    shard: ShardEntry,
    rows: Rows,
    part: NDArray[np.int64],
    facts: content.Facts,
    mosaic: Mosaic,
) -> Iterator[DatasetError]:
    """Decode a shard's samples and yield where they differ from their rows, or from each other.

    Parameters
    ----------
    rows, part
        Columns of patches.parquet, and which of them are the shard's.
    facts
        Of the dataset.
    mosaic
        Takes every sample that could be decoded.
    """
    layout = reader.layout
    anew = _same_bytes_expected(facts.manifest)
    for index, row in enumerate(part):
        key = rows["key"][row]
        size = (int(rows["height"][row]), int(rows["width"][row])) if layout.variable else None
        told = {name: rows[name][row] for name in rows}
        address = Address(
            shard=shard,
            index=index,
            byte_range=(int(rows["offset"][row]), int(rows["nbytes"][row])),
            key=key,
            size=size,
            checksum=told.get("crc32c"),
        )
        try:
            stored = reader.read(address)
        except DatasetError as problem:
            yield problem
            continue
        except MemoryError:
            yield DatasetError(
                "a sample is too large for this machine's memory", where=address.where, found=layout.shape
            )
            return
        problems = [] if stored.meta is None else content.check_meta(stored.meta, told, facts)
        problems += content.check_arrays(stored.arrays, told, facts)
        if not problems:
            problems += mosaic.add(stored.arrays, told)
        if not problems:
            problems += _check_bytes(reader, address, stored, anew=anew)
        for what in problems:
            yield DatasetError(what, where=f"{shard.path}, {key} (row {row} of patches.parquet)")


def _same_bytes_expected(manifest: Manifest) -> bool:
    """Whether this machine would write the same bytes: the library that encodes is the one that wrote all shards."""
    from importlib.metadata import version

    own = manifest.layout.encoding in ENCODINGS.own() and manifest.layout.format in FORMATS.own()
    return own and manifest.versions.get(CODEC) == version(CODEC)


def _check_bytes(reader: ShardReader, address: Address, stored: Stored, *, anew: bool) -> Iterator[str]:
    """Yield where a sample's fields are not the bytes that writing it anew gives."""
    try:
        fields = reader.fields(address)
    except DatasetError as problem:
        yield problem.what
        return
    if fields is None or stored.meta is None or not anew:
        return
    meta = {name: value for name, value in json.loads(stored.meta).items() if name not in ("key", "shape")}
    sample = Sample(key=address.key, meta=meta, **by_kind(stored.arrays, reader.layout))
    again = FORMATS.get(reader.layout.format).encode(sample, reader.layout)
    different = [name for name in again if fields.get(name) != again[name]]
    if different:
        yield f"{', '.join(different)} are not the bytes that this sample is written as"
