"""Samples by the columns of a dataset's tables: what each holds, and which hold given values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stpatch.dataset.tables import codes
from stpatch.errors import DatasetError

if TYPE_CHECKING:
    import pyarrow as pa

SHORT = {"slide": "slide_id"}
"""Short names of columns."""


def column_codes(
    name: str, *, samples: pa.Table, slides: pa.Table, slide_of: NDArray[np.int64]
) -> tuple[NDArray[np.int32], list[Any]]:
    """Return (samples,) positions of each sample's value in the list of a column's different values.

    Parameters
    ----------
    name
        Of a column of either table; ``slide`` is short for ``slide_id``.
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
    column = SHORT.get(name, name)
    if column in samples.column_names:
        return codes(samples[column])
    if column in slides.column_names:
        of_slide, values = codes(slides[column])
        return of_slide[slide_of], values
    raise DatasetError(
        "there is no such column",
        found=name,
        expected=", ".join(dict.fromkeys([*samples.column_names, *slides.column_names])),
    )


def rows_with(
    columns: Mapping[str, Any], *, samples: pa.Table, slides: pa.Table, slide_of: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the numbers of the samples whose columns have the wanted values, ascending.

    Parameters
    ----------
    columns
        By name of a column, a value or a list, tuple, set or array of values.
    samples, slides, slide_of
        As for `column_codes`.
    """
    wanted = np.ones(len(slide_of), dtype=bool)
    for name, value in columns.items():
        allowed = set(value) if isinstance(value, (list, tuple, set, frozenset, np.ndarray)) else {value}
        of_sample, values = column_codes(name, samples=samples, slides=slides, slide_of=slide_of)
        wanted &= np.array([value in allowed for value in values], dtype=bool)[of_sample]
    return np.flatnonzero(wanted)
