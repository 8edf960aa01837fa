"""Compiled loops over the spots of a window, and the arithmetic they share.

Everything here gives the same bits on every machine: logarithms are written out in plain arithmetic (a C library's
may differ in the last place between machines), sums run in a fixed order, and no operation is fused or reordered.
The loops trust their arguments; the classes that call them check.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

NONE, TOTAL, LOG1P_TOTAL, SQRT_TOTAL = 0, 1, 2, 3
METHOD_CODES = {"none": NONE, "total": TOTAL, "log1p_total": LOG1P_TOTAL, "sqrt_total": SQRT_TOTAL}
"""Normalizations that keep zero zero, by the number that the loops know them by."""

SUM, SQUARES = 0, 1
"""Columns of a window's sums."""

SHIFT, SHIFTED_SUM, SHIFTED_SQUARES, ENTRIES = 0, 1, 2, 3
"""Columns of the careful sums: the gene's value in the first pixel, then of value minus shift: sum, squares; number."""

DOUBTFUL = 1e-6
"""Below this squared coefficient of variation, plain sums may have lost the variance: it is measured carefully."""

NEARLY_ONE = 1.0 - 1e-9

SUMMED, AVERAGED = 0, 1
"""What a pixel of several spots holds: the normalized sum of their counts, or the mean of their normalized values."""


_LN2_HIGH = 6.93147180369123816490e-01  # ln 2 with 32 low bits clear, so that a whole multiple is exact
_LN2_LOW = 1.90821492927058770002e-10
_SQRT_HALF_BITS = 0x3FE6A09E667F3BCD
_ONE_BITS = 0x3FF0000000000000
_MANTISSA = 0x000FFFFFFFFFFFFF


@intrinsic
def _bits_of(_context: Any, _x: Any) -> Any:
    def code(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(types.int64))

    return types.int64(types.float64), code


@intrinsic
def _of_bits(_context: Any, _bits: Any) -> Any:
    def code(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(types.float64))

    return types.float64(types.int64), code


@intrinsic
def add_with_square(_context: Any, sums: Any, row: Any, value: Any) -> Any:
    """Add a value and its square to a row of (rows, 2) float64 `sums`, C order: one vector load, add and store."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _add_pairs(context, builder, signature.args[0], arguments[0], arguments[1:2], arguments[2:])
        return context.get_dummy_value()

    return types.none(sums, row, value), code


@intrinsic
def add_four_with_squares(
    _context: Any, sums: Any, row_0: Any, row_1: Any, row_2: Any, row_3: Any, x_0: Any, x_1: Any, x_2: Any, x_3: Any
) -> Any:
    """Add four values to four different rows as `add_with_square` does; no load waits for a store."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _add_pairs(context, builder, signature.args[0], arguments[0], arguments[1:5], arguments[5:])
        return context.get_dummy_value()

    return types.none(sums, row_0, row_1, row_2, row_3, x_0, x_1, x_2, x_3), code


def _add_pairs(context: Any, builder: Any, of_type: Any, sums: Any, rows: Any, values: Any) -> None:
    """Write the code that loads all rows, adds to each (value, value squared), and stores all."""
    pair, number = ir.VectorType(ir.DoubleType(), 2), ir.IntType(32)
    begin = builder.bitcast(context.make_array(of_type)(context, builder, sums).data, pair.as_pointer())
    places = [builder.gep(begin, [row]) for row in rows]
    loaded = [builder.load(place, align=8) for place in places]
    for place, old, value in zip(places, loaded, values, strict=True):
        both = builder.insert_element(ir.Constant(pair, ir.Undefined), value, ir.Constant(number, 0))
        both = builder.insert_element(both, builder.fmul(value, value), ir.Constant(number, 1))
        builder.store(builder.fadd(old, both), place, align=8)


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def log(x: float) -> float:
    """Return the natural logarithm of a positive normal number, within 2 units of the last place."""
    offset = _bits_of(x) - _SQRT_HALF_BITS  # type: ignore[call-arg]
    exponent = float(offset >> 52)
    f = _of_bits(_SQRT_HALF_BITS + (offset & _MANTISSA)) - 1.0  # x = 2**exponent * (1 + f), 1 + f in [sqrt .5, sqrt 2)
    s = f / (2.0 + f)
    z = s * s  # log(1 + f) = 2 atanh(s), z < 0.0295: twelve terms of the series pass the last place
    p = 2.0 / 23.0
    p = p * z + 2.0 / 21.0
    p = p * z + 2.0 / 19.0
    p = p * z + 2.0 / 17.0
    p = p * z + 2.0 / 15.0
    p = p * z + 2.0 / 13.0
    p = p * z + 2.0 / 11.0
    p = p * z + 2.0 / 9.0
    p = p * z + 2.0 / 7.0
    p = p * z + 2.0 / 5.0
    p = p * z + 2.0 / 3.0
    half = 0.5 * f * f
    return exponent * _LN2_HIGH - ((half - (s * (half + p * z) + exponent * _LN2_LOW)) - f)


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def log1p(y: float) -> float:
    """Return log(1 + y) for y >= 0, within 3 units of the last place."""
    u = 1.0 + y
    return log(u) + (y - (u - 1.0)) / u


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def normalized(x: float, scale: float, method: int) -> float:
    """Return the normalized value of a count; `scale` is target_sum / total."""
    if method == LOG1P_TOTAL:
        return log1p(x * scale)
    if method == TOTAL:
        return x * scale
    if method == SQRT_TOTAL:
        return math.sqrt(x * scale)
    return x


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def fill_table(scale, method, table):  # type: ignore[no-untyped-def]
    """Write the values of the counts 0, 1, 2, ... of a spot."""
    for count in range(len(table)):
        table[count] = normalized(float(count), scale, method)


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def tabled_value(count, scale, method, table):  # type: ignore[no-untyped-def]
    """Return the normalized value of a count, from the table if it is small."""
    if method == NONE:
        return np.float64(count)
    x = np.uintp(count)
    return table[x] if x < np.uintp(len(table)) else normalized(np.float64(count), scale, method)


@njit(cache=True, nogil=True, error_model="numpy")
def add_to_sums(data, indices, start, end, scale, method, table, sums):  # type: ignore[no-untyped-def]
    """Add one spot's values to the sums of their genes, each of which it has once.

    `table` holds the values of the spot's small counts.
    """
    j, stop = np.uintp(start), np.uintp(end)  # unsigned, as numba tests every signed place for being negative
    one, two, three, four = np.uintp(1), np.uintp(2), np.uintp(3), np.uintp(4)
    while j + four <= stop:
        add_four_with_squares(  # type: ignore[call-arg]
            sums,
            np.uintp(indices[j]), np.uintp(indices[j + one]), np.uintp(indices[j + two]), np.uintp(indices[j + three]),
            tabled_value(data[j], scale, method, table), tabled_value(data[j + one], scale, method, table),
            tabled_value(data[j + two], scale, method, table), tabled_value(data[j + three], scale, method, table),
        )  # fmt: skip
        j += four
    while j < stop:
        value = tabled_value(data[j], scale, method, table)
        add_with_square(sums, np.uintp(indices[j]), value)  # type: ignore[call-arg]
        j += one


@njit(cache=True, nogil=True, error_model="numpy")
def add_carefully(data, indices, start, end, scale, method, slots, first, careful):  # type: ignore[no-untyped-def]
    """Add one spot's values to the shifted sums of the genes that have a slot; the first spot gives the shifts."""
    for j in range(start, end):
        slot = slots[np.uintp(indices[j])]
        if slot >= 0:
            value = normalized(float(data[j]), scale, method)
            if first:
                careful[slot, SHIFT] = value
            value -= careful[slot, SHIFT]
            careful[slot, SHIFTED_SUM] += value
            careful[slot, SHIFTED_SQUARES] += value * value
            careful[slot, ENTRIES] += 1.0


@njit(cache=True, nogil=True, error_model="numpy")
def merge_spots(  # type: ignore[no-untyped-def]
    data, indices, indptr, totals, rows, target, method, collisions, dense, seen, genes, values
):
    """Merge the spots of one pixel; return the number of genes written to `genes` and `values`.

    `dense` and `seen` are (genes,) scratch, all zero before and after.
    """
    total = 0.0
    for row in rows:
        total += totals[row]
    found = 0
    for row in rows:
        scale = target / totals[row] if totals[row] > 0 else 0.0
        for j in range(indptr[row], indptr[row + 1]):
            gene = np.uintp(indices[j])
            if not seen[gene]:
                seen[gene] = True
                genes[found] = indices[j]
                found += 1
            value = float(data[j])
            dense[gene] += normalized(value, scale, method) if collisions == AVERAGED else value
    scale = target / total if total > 0 else 0.0
    for k in range(found):
        gene = np.uintp(genes[k])
        value = dense[gene]
        values[k] = value / len(rows) if collisions == AVERAGED else normalized(value, scale, method)
        dense[gene] = 0.0
        seen[gene] = False
    return found


@njit(cache=True, nogil=True, error_model="numpy")
def sum_window(  # type: ignore[no-untyped-def]
    data, indices, indptr, totals, pixel_start, pixel_spots, columns, window,
    target, method, collisions, tables, tabled, dense, seen, genes, values, sums, slots, careful,
):  # fmt: skip
    """Fill the window's sums; return its number of occupied pixels.

    `window` is (first row, end row, first column, end column), inside the grid. With an empty `careful`, `sums`
    (genes, 2) are filled; else `careful` (slots, 4), of the genes with a slot.
    `tables` (spots, counts) are the values of a spot's small counts, filled where `tabled` (spots,) says so or now.
    """
    if len(careful):
        careful[:] = 0.0
    else:
        sums[:] = 0.0
    occupied = 0
    for grid_row in range(window[0], window[1]):
        for pixel in range(grid_row * columns + window[2], grid_row * columns + window[3]):
            first, end = pixel_start[pixel], pixel_start[pixel + 1]
            if first == end:
                continue
            occupied += 1
            if end - first == 1:
                spot = pixel_spots[first]
                begin, stop = indptr[spot], indptr[spot + 1]
                scale = target / totals[spot] if totals[spot] > 0 else 0.0
                if len(careful):
                    add_carefully(data, indices, begin, stop, scale, method, slots, occupied == 1, careful)
                else:
                    if not tabled[spot]:
                        fill_table(scale, method, tables[spot])
                        tabled[spot] = True
                    add_to_sums(data, indices, begin, stop, scale, method, tables[spot], sums)
                continue
            found = merge_spots(
                data, indices, indptr, totals, pixel_spots[first:end], target, method, collisions,
                dense, seen, genes, values,
            )  # fmt: skip
            if len(careful):
                add_carefully(values, genes, 0, found, 1.0, NONE, slots, occupied == 1, careful)
            else:
                add_to_sums(values, genes, 0, found, 1.0, NONE, tables[0], sums)
    return occupied


@njit(cache=True, nogil=True, error_model="numpy")
def moments_of_sums(sums, n, mean, variance):  # type: ignore[no-untyped-def]
    """Turn sums into moments over all `n` occupied pixels; return the number of doubtful genes, marked by -1.

    Without branches, and with one division for all genes, so that several genes are done at once.
    """
    share = 1.0 / n
    for gene in range(len(sums)):
        average = sums[gene, SUM] * share
        square = average * average
        spread = sums[gene, SQUARES] * share - square
        mean[gene] = average
        variance[gene] = -1.0 if (spread <= DOUBTFUL * square) & (average != 0.0) else spread
    doubtful = 0
    for gene in range(len(variance)):
        doubtful += variance[gene] < 0.0
    return doubtful


@njit(cache=True, nogil=True, error_model="numpy")
def careful_moments(careful, n, genes, mean, variance):  # type: ignore[no-untyped-def]
    """Replace the moments of doubtful genes by those of their shifted sums."""
    for slot in range(len(careful)):
        shift = careful[slot, SHIFT]
        missing = n - careful[slot, ENTRIES]
        offset = (careful[slot, SHIFTED_SUM] - missing * shift) / n
        squares = careful[slot, SHIFTED_SQUARES] + missing * (shift * shift)
        mean[genes[slot]] = shift + offset
        variance[genes[slot]] = max(squares / n - offset * offset, 0.0)


@njit(cache=True, nogil=True, error_model="numpy")
def average_window(  # type: ignore[no-untyped-def]
    data, indices, indptr, totals, pixel_start, pixel_spots, columns, window, corner, width, target, method,
    channels, out,
):  # fmt: skip
    """Add the mean of the spots' normalized values to `out` (channels + 1, height * width), float64.

    `channels` (genes,) is each gene's plane in `out`, the last one for a gene without a channel.
    """
    for grid_row in range(window[0], window[1]):
        for grid_column in range(window[2], window[3]):
            pixel = grid_row * columns + grid_column
            place = np.uintp((grid_row - corner[0]) * width + grid_column - corner[1])
            share = pixel_start[pixel + 1] - pixel_start[pixel]
            for k in range(pixel_start[pixel], pixel_start[pixel + 1]):
                spot = pixel_spots[k]
                scale = target / totals[spot] if totals[spot] > 0 else 0.0
                for j in range(indptr[spot], indptr[spot + 1]):
                    channel = np.uintp(channels[np.uintp(indices[j])])
                    if channel + 1 < len(out):
                        out[channel, place] += normalized(float(data[j]), scale, method) / share


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def philox(counter_0, counter_1, counter_2, counter_3, key_0, key_1):  # type: ignore[no-untyped-def]
    """Return the four words of Philox4x32-10 (Salmon et al. 2011); all arguments are uint32."""
    half = np.uint64(32)
    for _ in range(10):
        left = np.uint64(counter_0) * np.uint64(0xD2511F53)
        right = np.uint64(counter_2) * np.uint64(0xCD9E8D57)
        counter_0, counter_1 = np.uint32(right >> half) ^ counter_1 ^ key_0, np.uint32(right)
        counter_2, counter_3 = np.uint32(left >> half) ^ counter_3 ^ key_1, np.uint32(left)
        key_0 = np.uint32(key_0 + np.uint32(0x9E3779B9))
        key_1 = np.uint32(key_1 + np.uint32(0xBB67AE85))
    return counter_0, counter_1, counter_2, counter_3


@njit(cache=True, nogil=True, error_model="numpy")
def gene_uniforms(gene_ids, key_words, purpose, out):  # type: ignore[no-untyped-def]
    """Fill `out` with one number in (0, 1) a gene, from its id, the (4,) uint32 words of a key and a purpose alone."""
    key_0, key_1, counter_2, counter_3 = key_words[0], key_words[1], key_words[2], key_words[3]
    for i in range(len(gene_ids)):
        a, b, _, _ = philox(np.uint32(gene_ids[i]), purpose, counter_2, counter_3, key_0, key_1)
        bits = (np.uint64(a) << np.uint64(20)) | (np.uint64(b) & np.uint64(0xFFFFF))
        out[i] = (float(np.int64(bits)) + 0.5) * 2.0**-52


@njit(cache=True, nogil=True, error_model="numpy")
def keys_below(weights, uniforms, bound, keys, places):  # type: ignore[no-untyped-def]
    """Write the keys Exp(1) / weight that are at most `bound`, and their places; return their number.

    The outputs have one to spare. As -log(u) >= 1 - u, most genes are done without their logarithm, in a pass without
    branches; the last digits of the comparison are left to the logarithm. A gene without weight has no key.
    """
    nearly = np.uintp(0)
    for i in range(len(weights)):
        places[nearly] = i
        nearly += np.uintp((1.0 - uniforms[i]) * NEARLY_ONE <= bound * weights[i])
    found = np.uintp(0)
    for k in range(nearly):
        i = places[k]
        key = -log(uniforms[i]) / weights[i]
        keys[found], places[found] = key, i
        found += np.uintp(key <= bound)
    return found
