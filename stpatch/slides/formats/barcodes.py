"""Joining two lists of barcodes that agree but for quotes, a suffix or a prefix; and words for yes and no.

Tools add ``-1``, strip it, put a sample's name in front, write quotes or dots. The join is by the texts as they are
where these fit; else by the first form in which every barcode of the one side is one barcode of the other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

BASES = "ACGTUNRYSWKMBDHV"
"""Letters of a sequence, with IUPAC's for ambiguous bases."""
ENOUGH = 0.5
"""Share of barcodes that must agree in another form, where none does as it is."""
_SEQUENCE = re.compile(rf"(?<![A-Z])[{BASES}]{{8,}}(?![A-Z])")
_YES = frozenset({"1", "1.0", "true", "t", "yes", "y"})
_NO = frozenset({"0", "0.0", "false", "f", "no", "n"})


@dataclass(frozen=True, kw_only=True)
class Join:
    """(ids,) row of each id among the keys, -1 without one; and the note on a form that was needed, "" for none."""

    rows: NDArray[np.intp]
    note: str = ""


def _bare(text: str) -> str:
    return text.strip().strip("\"'").strip()


def _without_suffix(text: str) -> str:
    return re.sub(r"[-._]\d+$", "", _bare(text))


def _without_prefix(text: str) -> str:
    return re.sub(r"^.*[_:#/|]", "", _bare(text))


def _sequence(text: str) -> str:
    found = _SEQUENCE.findall(text.upper())
    return found[0] if len(found) == 1 else ""


_FORMS: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("quotes or blanks", _bare),
    ("a suffix such as -1", _without_suffix),
    ("a prefix", _without_prefix),
    ("a prefix and a suffix", lambda text: _without_suffix(_without_prefix(text))),
    ("what stands around the sequence", _sequence),
)


def join_barcodes(ids: Iterable[str], keys: Iterable[str]) -> Join:
    """Return the row of each id among the keys.

    Parameters
    ----------
    ids, keys
        Unique texts on either side.

    Notes
    -----
    Another form is taken only where it leaves both sides unique, and matches every id, or at least half of them where
    none matches as it is. So barcodes of joined slides (``-1``, ``-2``) are never mixed up.
    """
    ours, theirs = pd.Index(list(ids), dtype=object), pd.Index(list(keys), dtype=object)
    exact = np.asarray(theirs.get_indexer(ours), np.intp)
    missing = int((exact < 0).sum())
    if not missing or not len(theirs):
        return Join(rows=exact)
    for what, form in _FORMS:
        mine = pd.Index([form(text) for text in ours], dtype=object)
        other = pd.Index([form(text) for text in theirs], dtype=object)
        if not mine.is_unique or not other.is_unique or "" in mine or "" in other:
            continue
        rows = np.asarray(other.get_indexer(mine), np.intp)
        found = int((rows >= 0).sum())
        if found == len(ours) or (missing == len(ours) and found >= ENOUGH * len(ours)):
            first = int(np.argmax(rows >= 0))
            note = f"barcodes agree but for {what} ({ours[first]} and {theirs[rows[first]]}): joined without it"
            return Join(rows=rows, note=note)
    return Join(rows=exact)


def is_flag(text: str) -> bool:
    """Whether a text is a word for yes or no: 0 and 1, TRUE and FALSE, T and F, yes and no, in any case."""
    word = _bare(text).lower()
    return word in _YES or word in _NO


def flags(values: Iterable[Any]) -> NDArray[np.float64]:
    """Return 1.0 for yes, 0.0 for no and NaN for anything else."""
    words = [_bare(str(value)).lower() for value in values]
    return np.array([1.0 if word in _YES else 0.0 if word in _NO else np.nan for word in words], np.float64)
