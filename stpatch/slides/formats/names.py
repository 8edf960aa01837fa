"""Names of spots and genes: unique, as a raw slide's gene table, and in messages."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stpatch.errors import InputError
from stpatch.slides.slide import GENE_COLUMNS

_ENSEMBL = re.compile(r"ENS[A-Z]*G\d{9,}(\.\d+)?(_PAR_Y)?")
_SHOWN = 20


def listed(names: Iterable[object]) -> str:
    """Return the first names, and how many there are beyond."""
    texts = [str(name) or "(no name)" for name in names]
    return ", ".join(texts[:_SHOWN]) + (f", ... ({len(texts)} in all)" if len(texts) > _SHOWN else "")


def check_unique(ids: NDArray[np.object_], *, what: str, where: object) -> None:
    """Raise `InputError` where one of (n,) ids is given twice; `what` it is the id of: "a barcode", "a cell"."""
    twice = np.flatnonzero(pd.Index(ids, dtype=object).duplicated())
    if len(twice):
        raise InputError(
            f"{what} is given twice",
            where=f"{where}, number {twice[0] + 1}",
            found=f"{ids[twice[0]]!r} ({len(twice)} repeated)",
            expected="unique ids",
            hint="take one of them out, or rename it",
        )


def gene_table(names: Any, ids: Any, types: Any) -> pd.DataFrame:
    """Return a raw slide's gene table."""
    columns = (np.asarray(texts, dtype=object) for texts in (names, ids, types))
    return pd.DataFrame(dict(zip(GENE_COLUMNS, columns, strict=True)))


def gene_frame(names: Sequence[str] | NDArray[np.object_]) -> pd.DataFrame:
    """Return the gene table of genes with one name each: what looks like an Ensembl id is one, all else is a symbol."""
    ensembl = np.array([name if _ENSEMBL.fullmatch(name) else "" for name in names], dtype=object)
    symbols = np.array([name if not known else "" for name, known in zip(names, ensembl, strict=True)], dtype=object)
    return gene_table(symbols, ensembl, np.full(len(symbols), "", dtype=object))
