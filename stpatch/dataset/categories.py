"""The category of each sample by a column of the tables, to balance an epoch by."""

from __future__ import annotations

import json

import numpy as np
from numpy.typing import NDArray

from stpatch.dataset.reader import Dataset
from stpatch.dataset.tables import SLIDES, codes, read_table
from stpatch.errors import ConfigError


def categories(dataset: Dataset, column: str) -> NDArray[np.int32]:
    """Return (samples,) int32 category of each sample of a dataset, from 0.

    Parameters
    ----------
    dataset
        From `stpatch.open`.
    column
        Of patches.parquet, of slides.parquet, or of the samplesheet, looked for in this order. Missing values are a
        category.

    Raises
    ------
    ConfigError
        There is no such column.
    """
    if column in dataset.table.column_names:
        return codes(dataset.table[column].cast("string").fill_null(""))[0]
    slides = read_table(dataset.folder / dataset.manifest.tables["slides"].path, SLIDES)
    ids = slides["slide_id"].to_pylist()
    if column in slides.column_names and column not in ("measured", "metadata", "inputs", "qc"):
        values = slides[column].to_pylist()
    else:
        sheet = [json.loads(text) for text in slides["metadata"].to_pylist()]
        names = sorted({name for row in sheet for name in row})
        if column not in names:
            raise ConfigError(
                "there is no such column to balance by",
                where="balance",
                found=column,
                expected="a column of patches.parquet or slides.parquet, or of the samplesheet: "
                + (", ".join(names) or "which has no further ones"),
            )
        values = [row.get(column) for row in sheet]
    texts = ["" if value is None else str(value) for value in values]
    number = {text: code for code, text in enumerate(dict.fromkeys(texts))}
    of_slide = {slide: number[text] for slide, text in zip(ids, texts, strict=True)}
    used, names = codes(dataset.table["slide_id"])
    return np.array([of_slide[name] for name in names], dtype=np.int32)[used]
