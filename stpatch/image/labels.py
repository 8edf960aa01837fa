"""Label maps: what a pixel is called, from what its spots are called."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

NO_LABEL = -1


def label_plane(codes: NDArray[np.int16], pixel: NDArray[np.int64], *, shape: tuple[int, int]) -> NDArray[np.int16]:
    """Return a (rows, columns) int16 map of category numbers, -1 where a pixel has none.

    A pixel of several spots takes their most frequent category, the first one where two are as frequent.

    Parameters
    ----------
    codes
        (spots,) each spot's category number, -1 for none.
    pixel
        (spots,) each spot's flat pixel, -1 for none.
    shape
        (rows, columns).
    """
    plane = np.full(shape[0] * shape[1], NO_LABEL, np.int16)
    on = (pixel >= 0) & (codes >= 0)
    width = int(codes.max(initial=0)) + 1
    pairs, counts = np.unique(pixel[on] * width + codes[on], return_counts=True)
    order = np.lexsort((-pairs, counts))  # the most frequent last, then the first category
    plane[pairs[order] // width] = (pairs[order] % width).astype(np.int16)
    return plane.reshape(shape)
