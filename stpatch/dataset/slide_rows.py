"""The slides of a dataset, as a reader needs them: what they measured, what they are scaled to, their metadata."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stpatch.dataset.tables import SLIDES, read_table
from stpatch.errors import DatasetError

if TYPE_CHECKING:
    import pyarrow as pa

_HIDDEN = ("metadata", "inputs", "qc", "measured")
"""Columns that hold JSON or bits, which `SlideRows.table` leaves out; metadata's keys become columns."""


class SlideRows:
    """Rows of slides.parquet.

    Parameters
    ----------
    path
        The table's file.

    Attributes
    ----------
    ids
        The slide_id of each row.
    target_sums
        (slides,) float64, NaN where the normalization has none.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows = read_table(path, SLIDES)
        self.ids: list[str] = self._rows["slide_id"].to_pylist()
        self.target_sums = np.array(
            [np.nan if target is None else target for target in self._rows["target_sum"].to_pylist()], dtype=np.float64
        )
        packed: list[bytes] = self._rows["measured"].to_pylist()
        if len({len(mask) for mask in packed}) > 1:
            raise DatasetError(
                "the slides' bit masks differ in length", where=path, expected="one bit for each gene id"
            )
        self._masks = np.frombuffer(b"".join(packed), np.uint8).reshape(len(packed), -1)

    def rows_of(self, slide_ids: Sequence[str]) -> NDArray[np.int64]:
        """Return the rows of slides; `DatasetError` where one is unknown."""
        known = {slide_id: number for number, slide_id in enumerate(self.ids)}
        unknown = [slide_id for slide_id in slide_ids if slide_id not in known]
        if unknown:
            raise DatasetError(
                "a patch names an unknown slide",
                where=self._path,
                found=unknown[0],
                hint="fetch the dataset's files again, or build it again",
            )
        return np.array([known[slide_id] for slide_id in slide_ids], dtype=np.int64)

    def measured(self, slides: NDArray[np.int64], genes: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Return (B, C) whether each of the (B,) slides measured its (B, C) genes.

        Raises
        ------
        DatasetError
            A gene id has no bit.
        """
        if genes.size and not 0 <= genes.min() <= genes.max() < 8 * self._masks.shape[1]:
            raise DatasetError(
                "a gene id is not in the vocabulary",
                where=self._path,
                found=int(genes.max() if genes.min() >= 0 else genes.min()),
                expected="an id of genes.parquet",
            )
        bits = self._masks[slides[:, None], genes >> 3] >> (genes & 7).astype(np.uint8)
        measured: NDArray[np.bool_] = (bits & 1).astype(bool)
        return measured

    @property
    def table(self) -> pa.Table:
        """The slides as a table, with the samplesheet's metadata as columns; values that mix kinds become texts."""
        import pyarrow as pa

        table = self._rows.drop_columns([name for name in _HIDDEN if name in self._rows.column_names])
        metadata = [_mapping(text) for text in self._rows["metadata"].to_pylist()]
        for name in dict.fromkeys(key for row in metadata for key in row):
            if name in table.column_names:
                continue
            values = [row.get(name) for row in metadata]
            try:
                column = pa.array(values)
            except (pa.ArrowException, TypeError):
                column = pa.array([None if value is None else str(value) for value in values], pa.string())
            table = table.append_column(name, column)
        return table


def _mapping(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
