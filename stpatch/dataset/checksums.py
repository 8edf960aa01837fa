"""The rows of patches.parquet with the samples' checksums, worked out for datasets of format 1, which have none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stpatch.dataset.access import ShardReader
from stpatch.dataset.formats.base import Address
from stpatch.dataset.manifest import Manifest
from stpatch.dataset.tables import CHECKSUM, CHECKSUMS_SINCE, codes, numbers, read_table

if TYPE_CHECKING:
    import pyarrow as pa

(_NAME,) = CHECKSUM


def read_patches(folder: Path, manifest: Manifest, columns: Mapping[str, str], *, split: str | None = None) -> pa.Table:
    """Read rows of patches.parquet, those of one split where `split` is given.

    Where `columns` ask for checksums and the dataset has none, every sample's bytes are read, once.

    Raises
    ------
    DatasetError
        The table or a shard is missing or damaged.
    """
    path = folder / manifest.tables["patches"].path
    if _NAME not in columns or manifest.layout.version >= CHECKSUMS_SINCE:
        return read_table(path, columns, split=split)
    import pyarrow as pa

    table = read_table(path, {name: kind for name, kind in columns.items() if name != _NAME}, split=split)
    reader = ShardReader(folder, manifest.layout)
    found = np.fromiter((reader.checksum(address) for address in _addresses(table, manifest)), np.uint32, len(table))
    reader.close()
    return table.add_column(list(columns).index(_NAME), _NAME, pa.array(found))


def _addresses(table: pa.Table, manifest: Manifest) -> Iterator[Address]:
    shards = {shard.path: shard for split in manifest.splits.values() for shard in split.shards}
    of_row, paths = codes(table["shard"])
    places = (numbers(table[name]).tolist() for name in ("index", "offset", "nbytes"))
    for shard, key, index, offset, nbytes in zip(of_row.tolist(), table["key"].to_pylist(), *places, strict=True):
        yield Address(shard=shards[paths[shard]], index=index, byte_range=(offset, nbytes), key=key)
