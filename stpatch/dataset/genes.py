"""The genes of a dataset: names by id, the panel, and samples' channels projected onto given genes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stpatch.dataset.manifest import Manifest
from stpatch.dataset.tables import GENES, numbers, read_table
from stpatch.errors import DatasetError

PAD_NAME = "<pad>"
_NAMED = 5
"""Genes that a message names."""


def read_vocabulary(folder: Path, manifest: Manifest) -> NDArray[np.object_]:
    """Return gene names by gene id; the pad's is ``<pad>``, an id that no slide measured has ``""``."""
    path = folder / manifest.tables["genes"].path
    table = read_table(path, GENES)
    ids, pad_id = numbers(table["gene_id"], where=path), manifest.pad_id
    names = np.full(max(int(ids.max(initial=0)), pad_id) + 1, "", dtype=object)
    names[ids] = table["name"].to_pylist()
    names[pad_id] = PAD_NAME
    return names


def read_panel(folder: Path, manifest: Manifest) -> NDArray[np.int32]:
    """Return (C,) int32 gene ids of the channels of all samples, the pad's where a channel has no gene.

    Raises
    ------
    DatasetError
        The table's channels are not those of the dataset's shape.
    """
    path = folder / manifest.tables["genes"].path
    table = read_table(path, GENES)
    positions = np.array([-1 if at is None else at for at in table["channel"].to_pylist()], dtype=np.int64)
    ids = numbers(table["gene_id"], where=path)[positions >= 0]
    order = positions[positions >= 0]
    channels = manifest.layout.shape[0]
    if len(np.unique(order)) != len(order) or order.max(initial=-1) >= channels:
        raise DatasetError("the panel's channels are damaged", where=path, expected=channels)
    panel = np.full(channels, manifest.pad_id, dtype=np.int32)
    panel[order] = ids
    panel.flags.writeable = False
    return panel


def projected(
    genes: NDArray[np.int32], measured: NDArray[np.bool_], wanted: Sequence[int]
) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """Return (B, W) the wanted genes for each sample, and whether its own channels tell their counts.

    Parameters
    ----------
    genes, measured
        (B, C) the samples' own channels, and whether their slides measured them.
    wanted
        W gene ids.
    """
    ids = np.array(wanted, dtype=np.int32)
    known = np.zeros((len(genes), max(int(genes.max(initial=0)), int(ids.max(initial=0))) + 1), dtype=bool)
    np.put_along_axis(known, genes.astype(np.int64), measured, axis=1)
    return np.broadcast_to(ids, (len(genes), len(ids))), known[:, ids]


def gene_ids(names: Sequence[str | int], vocabulary: NDArray[np.object_], *, where: object) -> list[int]:
    """Return the ids of genes that are given by name or by id.

    Raises
    ------
    DatasetError
        A gene is not in the vocabulary, or is given twice.
    """
    known = {name: number for number, name in enumerate(vocabulary.tolist()) if name not in ("", PAD_NAME)}
    ids = [known.get(name, -1) if isinstance(name, str) else int(name) for name in names]
    there = set(known.values())
    missing = [str(name) for name, at in zip(names, ids, strict=True) if at not in there]
    if missing:
        raise DatasetError(
            f"{len(missing)} of {len(ids)} genes are not in the dataset's vocabulary",
            where=where,
            found=", ".join(missing[:_NAMED]) + (", ..." if len(missing) > _NAMED else ""),
            expected="names or ids of genes.parquet",
        )
    if len(set(ids)) != len(ids):
        twice = sorted({str(vocabulary[at]) for at in ids if ids.count(at) > 1})
        raise DatasetError("a gene is given twice", where=where, found=", ".join(twice[:_NAMED]))
    return ids
