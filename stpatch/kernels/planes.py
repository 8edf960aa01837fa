"""The compiled loop that shuffles bits: from 16-bit integers to planes of one bit each, in the order of Blosc."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpatch.kernels.registry import kernel

AT_ONCE = 1024
"""Groups of eight integers between the two passes: they stay in the nearest cache."""


def _planes_examples(_counts: np.dtype[Any]) -> list[tuple[Any, ...]]:
    values, planes = np.empty(0, np.uint64), np.empty((8, 0), np.uint8)
    return [(values, 0, planes)]


@kernel(stage="shard", examples=_planes_examples)
def bit_planes(values: NDArray[np.uint64], shift: int, planes: NDArray[np.uint8]) -> np.uint64:
    """Write the planes of bits `shift` to `shift` + 7; return the high bytes' bits, of all integers together.

    Bit k of byte i of ``planes[b]`` is bit `shift` + b of integer 8 * i + k (Masui et al. 2015, little-endian).

    Parameters
    ----------
    values
        (n / 4,) uint64, which are n uint16; n is a multiple of 8.
    shift
        0 or 8.
    planes
        (8, n / 8) uint8, overwritten.
    """
    of_two, of_four, of_eight = np.uint64(0x00FF00FF00FF00FF), np.uint64(0x0000FFFF0000FFFF), np.uint64(0xFFFFFFFF)
    corner_1, corner_2, corner_4 = np.uint64(0x00AA00AA00AA00AA), np.uint64(0xCCCC0000CCCC), np.uint64(0xF0F0F0F0)
    place_of_bits = np.uint64(shift)
    groups = np.empty(AT_ONCE, np.uint64)
    n_groups = planes.shape[1]
    high = np.uint64(0)
    for start in range(0, n_groups, AT_ONCE):
        found = min(AT_ONCE, n_groups - start)
        pairs = values[2 * start : 2 * (start + found)]
        for i in range(found):
            one, two = pairs[2 * i], pairs[2 * i + 1]
            high |= (one | two) & ~of_two
            one, two = one >> place_of_bits & of_two, two >> place_of_bits & of_two
            one, two = (one | one >> np.uint64(8)) & of_four, (two | two >> np.uint64(8)) & of_four
            one, two = (one | one >> np.uint64(16)) & of_eight, (two | two >> np.uint64(16)) & of_eight
            bits = one | two << np.uint64(32)  # eight bytes: a square of bits, mirrored at its diagonal in three steps
            swap = (bits ^ bits >> np.uint64(7)) & corner_1
            bits ^= swap ^ swap << np.uint64(7)
            swap = (bits ^ bits >> np.uint64(14)) & corner_2
            bits ^= swap ^ swap << np.uint64(14)
            swap = (bits ^ bits >> np.uint64(28)) & corner_4
            groups[i] = bits ^ swap ^ swap << np.uint64(28)
        for plane in range(8):
            out, place = planes[plane, start : start + found], np.uint64(8 * plane)
            for i in range(found):
                out[i] = np.uint8(groups[i] >> place)
    return high
