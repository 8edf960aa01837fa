"""The compiled parser of dense count tables: bytes to the nonzero counts of a block of lines.

A block ends with a line feed, so that no loop needs to look for its end: every field stops at a delimiter or a line
feed. Nearly all fields are a few digits: these are parsed where they are met, and only what is not that plain (signs,
fractions, exponents, quotes, blanks) goes through the slower grammar of `_number`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpatch.kernels.registry import kernel, mapped

SKIPPED, ID = -1, -2
"""Kinds of field: from 0 the number of a count column; -1 left out; -2, -3, ... the first, second, ... id column."""

FINE, TEXT, EMPTY, NEGATIVE, FRACTION, LARGE, RAGGED = range(7)
LARGEST = 2**32 - 1

_LF, _CR, _TAB, _BLANK, _QUOTE = 10, 13, 9, 32, 34
_ZERO, _DOT, _MINUS, _PLUS = 48, 46, 45, 43


@kernel()
def _field(buffer: NDArray[np.uint8], start: int, delimiter: int, blanks: bool) -> tuple[int, int, int]:  # noqa: FBT001
    """Return where the text of the field that begins at `start` begins and ends, and where its terminator stands."""
    p = start
    if buffer[p] == _QUOTE:
        p += 1
        first = p
        while buffer[p] != _QUOTE and buffer[p] != _LF:
            p += 1
        last = p
        if buffer[p] == _QUOTE:
            p += 1
        while not (buffer[p] == delimiter or buffer[p] == _LF or (blanks and buffer[p] == _TAB)):
            p += 1
        return first, last, p
    while not (buffer[p] == delimiter or buffer[p] == _LF or (blanks and buffer[p] == _TAB)):
        p += 1
    first, last = start, p
    while last > first and (buffer[last - 1] == _CR or buffer[last - 1] == _BLANK or buffer[last - 1] == _TAB):
        last -= 1
    while first < last and (buffer[first] == _BLANK or buffer[first] == _TAB):
        first += 1
    return first, last, p


@kernel()
def _exponent(buffer: NDArray[np.uint8], start: int, stop: int) -> tuple[bool, int]:
    """Parse ``e+05``; return whether it is one, and its value."""
    if not (buffer[start] == 101 or buffer[start] == 69):  # e, E
        return False, 0
    p, sign = start + 1, 1
    if p < stop and (buffer[p] == _MINUS or buffer[p] == _PLUS):
        sign = -1 if buffer[p] == _MINUS else 1
        p += 1
    if p == stop or stop - p > 4:
        return False, 0
    exponent = 0
    while p < stop:
        c = int(buffer[p])
        if not _ZERO <= c <= _ZERO + 9:
            return False, 0
        exponent = exponent * 10 + (c - _ZERO)
        p += 1
    return True, sign * exponent


@kernel()
def _number(buffer: NDArray[np.uint8], start: int, stop: int) -> tuple[int, float]:  # noqa: C901 - one grammar
    """Parse a decimal with fraction and exponent (``3.0``, R's ``1e+05``); return an error code and the value."""
    if start == stop:
        return EMPTY, 0.0
    p, sign = start, 1
    if buffer[p] == _MINUS or buffer[p] == _PLUS:
        sign = -1 if buffer[p] == _MINUS else 1
        p += 1
    mantissa, scale, digits, after_dot = 0, 0, 0, False
    while p < stop:
        c = int(buffer[p])
        if _ZERO <= c <= _ZERO + 9:
            digits += 1
            if mantissa < 10**16:
                mantissa = mantissa * 10 + (c - _ZERO)
                scale -= after_dot
            elif not after_dot:
                scale += 1
        elif c == _DOT and not after_dot:
            after_dot = True
        else:
            break
        p += 1
    if digits == 0:
        return TEXT, 0.0
    if p < stop:
        well, exponent = _exponent(buffer, p, stop)
        if not well:
            return TEXT, 0.0
        scale += exponent
    # 3.0, 30e-1: a fraction of zeros is a whole number, so trailing zeros go before the fraction is judged
    while scale < 0 and mantissa % 10 == 0 and mantissa != 0:
        mantissa //= 10
        scale += 1
    if mantissa == 0:
        return FINE, 0.0
    value = float(mantissa) / 10.0 ** (-scale) if scale < 0 else float(mantissa) * 10.0**scale
    if sign < 0:
        return NEGATIVE, value
    if scale < 0:
        return FRACTION, value
    return FINE, value


def _block_examples(_counts: np.dtype[Any]) -> list[tuple[Any, ...]]:
    numbers, ends, spans = np.empty(0, np.int32), np.empty(0, np.int64), np.empty((0, 1, 2), np.int64)
    text = mapped(np.uint8)  # a view of the bytes that were read
    return [(text, _TAB, numbers, False, np.empty(0, np.uint32), numbers, ends, spans)]


@kernel(examples=_block_examples)
def parse_block(  # noqa: C901 - one pass over the bytes
    buffer: NDArray[np.uint8],
    delimiter: int,
    kinds: NDArray[np.int32],
    fractions: bool,  # noqa: FBT001
    data: NDArray[Any],
    indices: NDArray[np.int32],
    row_ends: NDArray[np.int64],
    id_spans: NDArray[np.int64],
) -> tuple[int, int, int, int, int, int, int]:
    """Parse whole lines.

    Parameters
    ----------
    buffer
        (bytes,) lines, the last byte a line end.
    delimiter
        Code of the delimiter; that of the blank means runs of spaces and tabs.
    kinds
        (fields,) what each field is.
    fractions
        Whether values may be fractional.
    data, indices
        (>= fields of the block,) filled with the values that are not zero and their count columns.
    row_ends
        (>= lines,) filled with the number of values up to the end of each row.
    id_spans
        (>= lines, ids, 2) filled with the begin and end of each id in `buffer`.

    Returns
    -------
    rows, values, error, line, field, start, stop
        `error` is `FINE` or the code of what is wrong with the field that `start` and `stop` enclose; `line` counts
        from 0 and counts empty lines.
    """
    blanks = delimiter == _BLANK
    n_fields = len(kinds)
    p, rows, stored, line = 0, 0, 0, 0
    end = len(buffer)
    while p < end:
        if blanks:
            while buffer[p] == _BLANK or buffer[p] == _TAB:
                p += 1
        if buffer[p] == _LF:
            p, line = p + 1, line + 1
            continue
        if buffer[p] == _CR and buffer[p + 1] == _LF:
            p, line = p + 2, line + 1
            continue
        field = 0
        begin = p
        while True:
            if field == n_fields:
                return rows, stored, RAGGED, line, field + 1, begin, p
            kind = kinds[field]
            if kind >= 0:
                start = p  # a plain whole number, at most ten digits: the common case
                value = 0
                digit = int(buffer[p]) - _ZERO
                while 0 <= digit <= 9 and p - start < 10:
                    value = value * 10 + digit
                    p += 1
                    digit = int(buffer[p]) - _ZERO
                if p > start and (buffer[p] == delimiter or buffer[p] == _LF):
                    if value > LARGEST:
                        return rows, stored, LARGE, line, field, start, p
                    if value != 0:
                        data[stored] = value
                        indices[stored] = kind
                        stored += 1
                else:
                    first, last, p = _field(buffer, start, delimiter, blanks)
                    code, number = _number(buffer, first, last)
                    if code == FRACTION and fractions:
                        code = FINE
                    if code == FINE and number > LARGEST and not fractions:
                        code = LARGE
                    if code != FINE:
                        # a line that ends too early ends in an empty field: say that fields are missing
                        if code == EMPTY and field < n_fields - 1 and buffer[p] == _LF:
                            return rows, stored, RAGGED, line, field, begin, p
                        return rows, stored, code, line, field, first, last
                    if number != 0.0:
                        data[stored] = number
                        indices[stored] = kind
                        stored += 1
            else:
                first, last, p = _field(buffer, p, delimiter, blanks)
                if kind <= ID:
                    id_spans[rows, ID - kind, 0] = first
                    id_spans[rows, ID - kind, 1] = last
            field += 1
            if blanks:
                while buffer[p] == _BLANK or buffer[p] == _TAB:
                    p += 1
                if buffer[p] == _CR and buffer[p + 1] == _LF:
                    p += 1
                if buffer[p] == _LF:
                    break
            elif buffer[p] == _LF:
                break
            else:
                p += 1
        p += 1
        if field != n_fields:
            return rows, stored, RAGGED, line, field, begin, p - 1
        row_ends[rows] = stored
        rows, line = rows + 1, line + 1
    return rows, stored, FINE, line, 0, 0, 0
