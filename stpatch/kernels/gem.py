"""The compiled parser of plain GEM text: whole numbers without signs of exponents or quotes, genes in runs of rows.

Text ends with a line feed, so that no loop needs to look for the end inside a row: every field stops at a tab or a
line feed. Whatever is not that plain is left to the general parser, which also says what is wrong with it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpatch.kernels.registry import kernel, mapped

LF = 10
_CR, _TAB, _QUOTE, _MINUS = 13, 9, 34, 45


@kernel()
def whole_number(text: NDArray[np.uint8], start: int) -> tuple[int, int]:
    """Return the whole number at `start` and where its field ends; an end of -1 where it is not a plain number."""
    p = start
    negative = text[p] == _MINUS
    if negative:
        p += 1
    first = p
    number = 0
    while 48 <= text[p] <= 57:
        number = 10 * number + int(text[p]) - 48
        p += 1
    if p == first or p - first > 15:
        return 0, -1
    if text[p] == _CR:
        p += 1
    if text[p] != _TAB and text[p] != LF:
        return 0, -1
    return (-number if negative else number), p


def _lowest_examples(_counts: np.dtype[Any]) -> list[tuple[Any, ...]]:
    return [(mapped(np.uint8), 0, 1, np.empty(2, np.int64))]


@kernel(examples=_lowest_examples)
def lowest(text: NDArray[np.uint8], x: int, y: int, low: NDArray[np.int64]) -> bool:
    """Lower `low` to the smallest numbers of fields `x` and `y`; False at the first that is not a plain number."""
    p = 0
    while p < len(text):
        field = seen = 0
        while text[p] != LF:
            if field in (x, y):
                number, p = whole_number(text, p)
                if p < 0:
                    return False
                axis = 0 if field == x else 1
                low[axis] = min(low[axis], number)
                seen += 1
            while text[p] != _TAB and text[p] != LF:
                p += 1
            if text[p] == _TAB:
                p += 1
                field += 1
        if seen != 2 and field > 0:
            return False
        p += 1
    return True


@kernel()
def same_text(text: NDArray[np.uint8], first: int, stop: int, second: int) -> bool:
    """Whether the text from `first` to `stop` stands at `second` too, where a field ends after it."""
    for i in range(stop - first):
        if text[first + i] != text[second + i]:
            return False
    return bool(text[second + stop - first] == _TAB)


def _parse_rows_examples(_counts: np.dtype[Any]) -> list[tuple[Any, ...]]:
    return [(mapped(np.uint8), np.empty(5, np.int64), 5, np.empty((3, 0), np.int64), np.empty((0, 5), np.int64))]


@kernel(examples=_parse_rows_examples)
def parse_rows(  # noqa: C901 - one grammar
    text: NDArray[np.uint8],
    fields: NDArray[np.int64],
    n_fields: int,
    values: NDArray[np.int64],
    runs: NDArray[np.int64],
) -> tuple[int, int]:
    """Parse rows of plain text.

    Parameters
    ----------
    fields
        Numbers of the fields gene, name, x, y and count.
    n_fields
        In every row.
    values
        (3, rows) x, y and count, written.
    runs
        (runs, 5) of each run of rows of one gene: its first row, where the gene's text begins and ends, and the name's;
        written.

    Returns
    -------
    rows, runs
        -1 rows where a field is quoted or not a number, a row has another number of fields, or runs are many.
    """
    # A gene's rows stand together: its text is compared with the row before, and only a new one is noted.
    gene, name = fields[0], fields[1]
    row = n_runs = p = 0
    while p < len(text):
        if text[p] == LF or (text[p] == _CR and text[p + 1] == LF):
            p += 1 if text[p] == LF else 2
            continue
        new = False
        for field in range(n_fields):
            start = p
            if field == gene or field == name:  # noqa: SIM109 - compiled
                if text[p] == _QUOTE:
                    return -1, 0
                known = field == gene and n_runs > 0 and same_text(text, runs[n_runs - 1, 1], runs[n_runs - 1, 2], p)
                if known:
                    p += runs[n_runs - 1, 2] - runs[n_runs - 1, 1]
                else:
                    while text[p] != _TAB and text[p] != LF:
                        p += 1
                if field == gene and not known:
                    if n_runs == len(runs):
                        return -1, 0
                    new = True
                    runs[n_runs, 0], runs[n_runs, 1], runs[n_runs, 2] = row, start, p
                    n_runs += 1
                if field == name and new:
                    runs[n_runs - 1, 3], runs[n_runs - 1, 4] = start, p
            elif field == fields[2] or field == fields[3] or field == fields[4]:
                number, p = whole_number(text, p)
                if p < 0:
                    return -1, 0
                values[0 if field == fields[2] else 1 if field == fields[3] else 2, row] = number
            else:
                while text[p] != _TAB and text[p] != LF:
                    if text[p] == _QUOTE:
                        return -1, 0
                    p += 1
            if text[p] != (LF if field == n_fields - 1 else _TAB):
                return -1, 0
            p += 1
        row += 1
    return row, n_runs
