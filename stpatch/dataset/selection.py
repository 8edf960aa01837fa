"""Which samples have given values in the columns of a dataset's tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stpatch.errors import DatasetError

if TYPE_CHECKING:
    import pyarrow as pa

SHORT = {"slide": "slide_id"}
"""Short names of columns."""


def rows_with(
    columns: Mapping[str, Any], *, samples: pa.Table, slides: pa.Table, slide_of: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the numbers of the samples whose columns have the wanted values, ascending.

    Parameters
    ----------
    columns
        By name of a column of either table, a value or a list, tuple, set or array of values.
    samples
        One row per sample.
    slides
        One row per slide, metadata as columns.
    slide_of
        (samples,) rows of `slides`.

    Raises
    ------
    DatasetError
        There is no such column.
    """
    wanted = np.ones(len(slide_of), dtype=bool)
    for name, value in columns.items():
        column = SHORT.get(name, name)
        allowed = set(value) if isinstance(value, (list, tuple, set, frozenset, np.ndarray)) else {value}
        if column in slides.column_names:  # first: a slide's values are few, its samples' many
            wanted &= _held(slides, column, allowed)[slide_of]
        elif column in samples.column_names:
            wanted &= _held(samples, column, allowed)
        else:
            raise DatasetError(
                "there is no such column",
                where="select",
                found=name,
                expected=", ".join(dict.fromkeys([*samples.column_names, *slides.column_names])),
            )
    return np.flatnonzero(wanted)


def _held(table: pa.Table, column: str, allowed: set[Any]) -> NDArray[np.bool_]:
    return np.array([value in allowed for value in table[column].to_pylist()], dtype=bool)
