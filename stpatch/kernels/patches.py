"""The loop over a decoded patch of counts that makes its normalized values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpatch.kernels.formula import NONE
from stpatch.kernels.normalization import normalized
from stpatch.kernels.registry import kernel

SMALL = 16
"""Counts below it are looked up by `patch_values`."""


def _value_examples(counts_dtype: np.dtype[Any]) -> Iterator[tuple[Any, ...]]:
    x, table, out = np.zeros((1, 4), counts_dtype), np.zeros((SMALL, 4), np.float32), np.zeros((1, 4), np.float32)
    for index_dtype in (np.uint16, np.uint32):
        yield x, np.ones(4), 2, table, np.zeros((2, 4), index_dtype), out


@kernel(inline=True)
def _value(count: Any, scale: float, method: int) -> Any:
    if method == NONE:
        return np.float32(count) if scale > 0 else np.float32(0)  # an empty pixel's scale is 0
    return np.float32(normalized(float(count), scale, method))


@kernel(examples=_value_examples)
def patch_values(
    x: NDArray[Any],
    scale: NDArray[np.float64],
    method: int,
    table: NDArray[np.float32],
    index: NDArray[Any],
    out: NDArray[np.float32],
) -> None:
    """Write the normalized values of a patch, each computed in float64 and rounded once.

    A loop that branches at every count is wrong too often to be fast, as zeros and counts alternate without a pattern.
    So every value is looked up, zeros too, and what the table lacks is put right afterwards, in the few channels that
    have such a count.

    Parameters
    ----------
    x
        (channels, pixels) counts.
    scale
        (pixels,) target_sum / total, 0 for empty pixels.
    method
        Of `formula.METHODS`.
    table
        (`SMALL`, pixels), scratch.
    index
        (2, pixels) scratch of an unsigned dtype that holds ``SMALL * pixels``: uint16 where it does, as the processor
        then works on twice as many at once.
    out
        (channels, pixels), every value is written.
    """
    channels, pixels = x.shape
    table[0] = np.float32(0)
    for count in range(1, SMALL):
        for pixel in range(pixels):
            table[count, pixel] = _value(count, scale[pixel], method)
    values = table.reshape(-1)
    at, first = index[0], index[1]
    for pixel in range(pixels):
        first[pixel] = pixel
    for channel in range(channels):
        counts, row = x[channel], out[channel]
        most = counts[0]
        # index and look-up are two loops, since the compiler turns the first into vector instructions when it is alone
        for pixel in range(pixels):
            count = counts[pixel]
            most = max(most, count)
            at[pixel] = min(count, SMALL - 1) * pixels + first[pixel]
        if most == 0:
            for pixel in range(pixels):
                row[pixel] = np.float32(0)
            continue
        for pixel in range(pixels):
            row[pixel] = values[np.uintp(at[pixel])]  # unsigned: no test for an index that counts from the end
        if most >= SMALL:
            for pixel in range(pixels):
                if counts[pixel] >= SMALL:
                    row[pixel] = _value(counts[pixel], scale[pixel], method)
