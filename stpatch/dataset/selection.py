"""Samples by the columns of a dataset's tables: what each holds, and which hold given values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stpatch.dataset.rows import Rows
from stpatch.dataset.tables import codes
from stpatch.errors import DatasetError

if TYPE_CHECKING:
    import pyarrow as pa

SHORT = {"slide": "slide_id"}
"""Short names of columns."""
KEY, SPLIT, SHARD = "key", "split", "shard"


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The columns of some samples of a split, from patches.parquet and slides.parquet.

    Attributes
    ----------
    rows
        The split's rows.
    at
        (samples,) row of each sample.
    split
        Name of the split.
    shards
        Paths of the split's shards.
    shard_starts
        (shards,) row of each shard's first sample.
    slides
        One row per slide, metadata as columns.
    slide_of
        (samples,) rows of `slides`.
    """

    rows: Rows
    at: NDArray[np.int64]
    split: str
    shards: Sequence[str]
    shard_starts: NDArray[np.int64]
    slides: pa.Table
    slide_of: NDArray[np.int64]

    def codes(self, name: str) -> tuple[NDArray[np.int32], list[Any]]:
        """Return (samples,) positions of each sample's value in the list of a column's different values, as they come.

        Parameters
        ----------
        name
            Of a column of either table; ``slide`` is short for ``slide_id``.

        Raises
        ------
        DatasetError
            There is no such column.
        """
        column = SHORT.get(name, name)
        if column == KEY:
            return np.arange(len(self.at), dtype=np.int32), self.rows.keys(self.at)
        if column == SPLIT:
            return np.zeros(len(self.at), np.int32), [self.split] if len(self.at) else []
        if column == SHARD:
            return _as_they_come(np.searchsorted(self.shard_starts, self.at, "right") - 1, self.shards)
        if column in self.rows.columns:
            values, of_sample = np.unique(self.rows[column][self.at], return_inverse=True)
            return _as_they_come(of_sample, values.tolist())
        if column in self.slides.column_names:
            of_slide, known = codes(self.slides[column])
            return _as_they_come(of_slide[self.slide_of], known)
        there = [KEY, SPLIT, SHARD, *self.rows.columns, *self.slides.column_names]
        raise DatasetError("there is no such column", found=name, expected=", ".join(dict.fromkeys(there)))

    def samples_with(self, wanted: Mapping[str, Any]) -> NDArray[np.int64]:
        """Return the numbers of the samples whose columns have the wanted values, ascending.

        Parameters
        ----------
        wanted
            By name of a column, a value or a list, tuple, set or array of values.
        """
        chosen = np.ones(len(self.at), dtype=bool)
        for name, value in wanted.items():
            allowed = set(value) if isinstance(value, (list, tuple, set, frozenset, np.ndarray)) else {value}
            of_sample, values = self.codes(name)
            chosen &= np.array([value in allowed for value in values], dtype=bool)[of_sample]
        return np.flatnonzero(chosen)


def _as_they_come(of_sample: NDArray[Any], values: Sequence[Any]) -> tuple[NDArray[np.int32], list[Any]]:
    """Return the values that samples have, by their first sample, and each sample's position in them."""
    first = np.full(len(values), len(of_sample))
    first[of_sample[::-1]] = np.arange(len(of_sample))[::-1]  # the last assignment stays: that of the first sample
    order = np.argsort(first, kind="stable")[: int((first < len(of_sample)).sum())]
    renumbered = np.zeros(len(values), np.int32)
    renumbered[order] = np.arange(len(order))
    return renumbered[of_sample], [values[at] for at in order.tolist()]
