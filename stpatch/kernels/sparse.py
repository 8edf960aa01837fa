"""Patches of counts as bits and bytes, and back; the layout of the parts is that of `stpatch.dataset.codecs.sparse`.

A patch is (channels, pixels) counts. Only its occupied pixels, those with a count in any channel, take part::

    pixels     0 1 2 3 4 5      occupied: 1 0 1 1 0 0       (one bit per pixel)
    channel 0  2 . . 1 . .      non-zero: 1 0 1   values 2 1
    channel 1  . . 7 . . .                0 1 0          7  (one bit per channel and occupied pixel, one byte per 1)

Bit i is bit ``i % 8`` of byte ``i // 8``, or bit ``i % 64`` of a word. The loops that read go from one set bit to the
next by counting trailing zeros, since most bits are zero. Their indices are unsigned: the compiler would otherwise ask
at every one whether it counts from the end.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from stpatch.kernels.registry import kernel

ESCAPE = 255
"""The byte of a value that it cannot hold: the value itself stands among the escaped ones."""

_DTYPES = ((np.uint16, np.uint16), (np.uint32, np.uint32), (np.uint16, np.float32), (np.uint32, np.float32))
"""Of escaped values, and of the arrays that patches are read into."""


def _lowest(_context: Any, word: Any) -> Any:
    """Return the number of the lowest set bit of a uint64 that is not 0."""

    def code(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))  # 1: undefined for 0, which saves a branch

    return types.uint64(word), code


def _ones(_context: Any, word: Any) -> Any:
    """Return the number of set bits of a uint64."""

    def code(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.uint64(word), code


lowest: Any = intrinsic(_lowest)
ones: Any = intrinsic(_ones)


@kernel(examples=lambda _: [(np.empty(0, np.uint64),)])
def count_bits(words: NDArray[np.uint64]) -> int:
    """Return the number of set bits."""
    count = np.uint64(0)
    for word in words:
        count += ones(word)
    return int(count)


def _scatter_examples(_dtype: np.dtype[Any]) -> list[tuple[Any, ...]]:
    return [
        (
            np.empty(0, np.uint64),
            np.empty(0, np.uint8),
            np.empty(0, stored),
            np.empty(0, np.int64),
            np.empty((0, 0), out),
        )
        for stored, out in _DTYPES
    ]


@kernel(examples=_scatter_examples)
def scatter(
    words: NDArray[np.uint64],
    small: NDArray[np.uint8],
    escaped: NDArray[Any],
    pixels: NDArray[np.int64],
    out: NDArray[Any],
) -> None:
    """Write a patch's values to a dense array, zeros included.

    Parameters
    ----------
    words
        Bitmap of (channel, occupied pixel): ``channels * len(pixels)`` bits, then zeros.
    small
        One byte per set bit.
    escaped
        One value per byte of `small` that is `ESCAPE`.
    pixels
        (occupied,) numbers of the occupied pixels.
    out
        (channels, pixels) of any dtype that holds the values.
    """
    out[:] = 0
    n_occupied = np.uint64(len(pixels))
    value, escape, one = np.uint64(0), np.uint64(0), np.uint64(1)
    # The channel of a bit is its number // occupied; bits ascend, so that it is counted up rather than divided.
    channel, first, after = np.uint64(0), np.uint64(0), n_occupied
    for at in range(len(words)):
        word = words[at]
        begin = np.uint64(64) * np.uint64(at)
        while word:
            bit = begin + lowest(word)
            word &= word - one
            while bit >= after:
                channel, first, after = channel + one, after, after + n_occupied
            pixel = np.uint64(pixels[bit - first])
            if small[value] == ESCAPE:
                out[channel, pixel] = escaped[escape]
                escape += one
            else:
                out[channel, pixel] = small[value]
            value += one


def _entry_examples(_dtype: np.dtype[Any]) -> list[tuple[Any, ...]]:
    parts = (np.empty(0, np.uint64), np.empty(0, np.uint8))
    return [
        (*parts, np.empty(0, stored), np.empty(0, np.int64), 0, np.empty(0, np.int32), np.empty(0, out))
        for stored, out in _DTYPES
    ]


@kernel(examples=_entry_examples)
def entries(
    words: NDArray[np.uint64],
    small: NDArray[np.uint8],
    escaped: NDArray[Any],
    pixels: NDArray[np.int64],
    n_pixels: int,
    index: NDArray[np.int32],
    values: NDArray[Any],
) -> None:
    """Write where a patch's values stand, and the values.

    Parameters
    ----------
    words, small, escaped, pixels
        As in `scatter`.
    n_pixels
        All pixels of a channel.
    index
        (len(small),) filled with ``channel * n_pixels + pixel``, ascending where `pixels` ascends.
    values
        (len(small),) of any dtype that holds the values.
    """
    n_occupied, row_length = np.uint64(len(pixels)), np.uint64(n_pixels)
    value, escape, one = np.uint64(0), np.uint64(0), np.uint64(1)
    row, first, after = np.uint64(0), np.uint64(0), n_occupied  # as in `scatter`
    for at in range(len(words)):
        word = words[at]
        begin = np.uint64(64) * np.uint64(at)
        while word:
            bit = begin + lowest(word)
            word &= word - one
            while bit >= after:
                row, first, after = row + row_length, after, after + n_occupied
            index[value] = row + np.uint64(pixels[bit - first])
            if small[value] == ESCAPE:
                values[value] = escaped[escape]
                escape += one
            else:
                values[value] = small[value]
            value += one


def _gather_examples(_dtype: np.dtype[Any]) -> list[tuple[Any, ...]]:
    return [
        (np.empty((0, 0), dtype), np.empty(0, np.int64), np.empty(0, np.uint8), np.empty(0, np.uint8))
        for dtype in (np.uint16, np.uint32)
    ]


@kernel(examples=_gather_examples)
def gather(x: NDArray[Any], pixels: NDArray[np.int64], bits: NDArray[np.uint8], small: NDArray[np.uint8]) -> int:
    """Write the bitmap and the bytes of a patch; return how many values are not zero.

    Parameters
    ----------
    x
        (channels, all pixels) uint16 or uint32.
    pixels
        (occupied,) numbers of the occupied pixels.
    bits
        (ceil(channels * occupied / 8),) filled.
    small
        (channels * occupied + 1,) filled up to the number that is returned; `ESCAPE` stands for that and more.
    """
    at, bit, bits_here, found = 0, 0, 0, 0
    for channel in range(x.shape[0]):
        for place in range(len(pixels)):
            value = np.uint32(x[channel, pixels[place]])
            # Written whatever it is, and written over where it was zero: counts are too irregular to guess a branch.
            small[found] = min(value, np.uint32(ESCAPE))
            there = value != 0
            found += there
            bits_here |= there << bit
            bit += 1
            if bit == 8:
                bits[at] = bits_here
                bit, bits_here, at = 0, 0, at + 1
    if bit:
        bits[at] = bits_here
    return found
