"""The genes and label categories of several datasets under one numbering: the first one's stay, the others' follow."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from stpatch.dataset.manifest import Manifest
from stpatch.dataset.tables import CANDIDATE, GENES, read_table
from stpatch.errors import DatasetError

_COUNTS = ("n_slides", "n_spots", "n_detected", "sum_counts", "sum_squared_counts")
"""Columns of genes.parquet that add up."""


@dataclass(frozen=True, kw_only=True)
class Union:
    """What several datasets become together.

    Attributes
    ----------
    genes
        The columns of the common genes.parquet, by ascending id.
    pad_id
        The id that stands for no gene.
    ids
        Per dataset, (largest id + 1,) int32: its gene ids -> the common ones, -1 where it has no such id.
    labels
        Label -> the common categories.
    categories
        Per dataset, label -> (categories,) int16: its numbers -> the common ones.
    """

    genes: Mapping[str, Any]
    pad_id: int
    ids: Sequence[NDArray[np.int32]]
    labels: Mapping[str, list[str]]
    categories: Sequence[Mapping[str, NDArray[np.int16]]]

    @property
    def largest(self) -> int:
        """The largest id there is."""
        return max(int(np.max(self.genes["gene_id"])), self.pad_id)

    def keeps(self, number: int, *, genes: bool) -> bool:
        """Whether a dataset's samples are as they would be written now; `genes`: whether they hold gene ids."""
        ids, categories = self.ids[number], self.categories[number]
        same_ids = not genes or bool(np.all((ids < 0) | (ids == np.arange(len(ids)))))
        return same_ids and all(np.array_equal(to, np.arange(len(to))) for to in categories.values())


def unite(folders: Sequence[Path], manifests: Sequence[Manifest]) -> Union:
    """Give the genes and categories of several datasets common numbers.

    Raises
    ------
    DatasetError
        An external vocabulary's ids contradict each other.
    """
    tables = [_genes(folder) for folder in folders]
    of_vocabulary = any(dict(manifest.channels)["vocabulary"]["sha256"] for manifest in manifests)  # type: ignore[index]
    pad = manifests[0].pad_id
    id_of: dict[str, int] = {}
    for folder, table in zip(folders, tables, strict=True):
        own = dict(zip(table["name"], table["gene_id"], strict=True))
        if of_vocabulary:  # which fixes all ids
            wrong = [name for name, number in own.items() if id_of.setdefault(name, number) != number]
            if wrong or len(set(id_of.values())) != len(id_of):
                raise DatasetError(
                    "the datasets were built with different vocabularies",
                    where=folder,
                    found=", ".join(wrong[:6]) or "one id for two genes",
                    hint="build them with one vocabulary (ingest.genes.vocabulary), or with none",
                )
            continue
        if not id_of:
            id_of.update(own)
            continue
        following = itertools.count(max(pad, *id_of.values()) + 1)
        for name in own:
            if name not in id_of:
                id_of[name] = next(following)
    names = sorted(id_of, key=id_of.__getitem__)
    ids = []
    for table, manifest in zip(tables, manifests, strict=True):
        to = np.full(max(*table["gene_id"], manifest.pad_id) + 1, -1, np.int32)
        to[np.array(table["gene_id"])] = [id_of[name] for name in table["name"]]
        to[manifest.pad_id] = pad
        ids.append(to)
    labels, categories = _categories(manifests)
    return Union(genes=_table(names, id_of, tables), pad_id=pad, ids=ids, labels=labels, categories=categories)


def _genes(folder: Path) -> dict[str, Any]:
    path = folder / "genes.parquet"
    further = {name: kind for name, kind in CANDIDATE.items() if name in pq.read_schema(path).names}
    return dict(read_table(path, GENES | further).to_pydict())


def _table(names: Sequence[str], id_of: Mapping[str, int], tables: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the common table: sums add up, means and variances are those of all spots together."""
    place = {name: row for row, name in enumerate(names)}
    out: dict[str, Any] = {"gene_id": np.array([id_of[name] for name in names], np.int32), "name": list(names)}
    for column in ("ensembl_id", "organism", "channel", *(["candidate"] if "candidate" in tables[0] else [])):
        out[column] = [None] * len(names)
        for table in reversed(tables):  # what the first one says holds
            for name, value in zip(table["name"], table[column], strict=True):
                out[column][place[name]] = value if value is not None else out[column][place[name]]
    for column in _COUNTS:
        out[column] = np.zeros(len(names), np.asarray(tables[0][column]).dtype)
    mean, squares, n_spots = np.zeros(len(names)), np.zeros(len(names)), np.zeros(len(names))
    for table in tables:
        rows = np.array([place[name] for name in table["name"]], np.int64)
        n, of_table = np.asarray(table["n_spots"], np.float64), np.asarray(table["mean_normalized"])
        both = n_spots[rows] + n
        delta = of_table - mean[rows]
        share = np.divide(n, both, out=np.zeros_like(both), where=both > 0)
        # Chan, Golub and LeVeque (1979): sums of squares about the mean of two parts
        squares[rows] += np.asarray(table["var_normalized"]) * np.maximum(n - 1, 0) + delta**2 * n_spots[rows] * share
        mean[rows] += delta * share
        n_spots[rows] = both
        for column in _COUNTS:
            out[column][rows] += np.asarray(table[column])
    out["mean_normalized"] = mean
    out["var_normalized"] = squares / np.maximum(n_spots - 1, 1)
    return out


def _categories(manifests: Sequence[Manifest]) -> tuple[dict[str, list[str]], list[dict[str, NDArray[np.int16]]]]:
    labels: dict[str, list[str]] = {}
    for manifest in manifests:
        for label, known in manifest.labels.items():
            labels.setdefault(label, []).extend(name for name in known if name not in labels.get(label, []))
    maps = [
        {
            label: np.array([labels[label].index(name) for name in known], np.int16)
            for label, known in one.labels.items()
        }
        for one in manifests
    ]
    return labels, maps
