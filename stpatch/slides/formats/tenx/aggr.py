"""What ``spaceranger aggr`` joins: several runs in one matrix, told apart by their barcodes' suffixes."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stpatch.errors import InputError
from stpatch.slides.formats.text.lines import open_text

POSITIONS = "aggr_tissue_positions.csv"
LIBRARIES = "aggregation.csv"


def aggr_positions(outs: Path) -> Path | None:
    """Return the joined positions of an aggr folder, beside its matrix or in ``spatial``; None where there are none."""
    return next((path for path in (outs / POSITIONS, outs / "spatial" / POSITIONS) if path.is_file()), None)


def aggr_libraries(outs: Path) -> Path | None:
    """Return the table of the runs that an aggr folder joins, None where it is none."""
    path = outs / LIBRARIES
    return path if path.is_file() else None


def library_column(table: Path, suffixes: NDArray[np.object_]) -> pd.Series | None:
    """Return each barcode's ``library_id``: the first row of ``aggregation.csv`` is suffix 1.

    None where the table has no such column.

    Raises
    ------
    InputError
        A suffix is beyond the table.
    """
    with open_text(table) as file:
        rows = list(csv.reader(file))
    names = [name.strip() for name in rows[0]] if rows else []
    column = next((names.index(name) for name in ("library_id", "sample_id") if name in names), None)
    if column is None:
        return None
    libraries = {str(number): row[column] for number, row in enumerate(rows[1:], start=1) if len(row) > column}
    unknown = sorted({str(suffix) for suffix in suffixes} - set(libraries))
    if unknown:
        raise InputError(
            "barcodes have a suffix that aggregation.csv has no row for",
            where=table,
            found=f"suffix {', '.join(unknown[:5])}",
            expected=f"1 to {len(libraries)}",
        )
    return pd.Series([libraries[str(suffix)] for suffix in suffixes], dtype=object)
