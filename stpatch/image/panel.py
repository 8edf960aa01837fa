"""A slide's image with fixed channels: one dense row of counts an occupied pixel, so that a window is a transposition.

A row is filled when a window first touches its pixel: what no window needs is never read, and windows that overlap
share the work. Rows are as narrow as the slide's counts allow, since a window's time is mostly the reading of its rows.

Measured gain of the shard stage, in alternating pairs, 512 of 18,000 genes, windows of 16 x 16: with eight windows on a
pixel 19% on a slide like Visium HD (2% of counts stored) and 54% on one like Visium (15%); with two 6%; with tiles, one
window on a pixel, a loss of 11%. So it is made only where windows overlap.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpatch.image.slide_image import SlideImage
from stpatch.kernels.panel_rows import LINE, PanelRows, fill_panel_rows, gather_panel
from stpatch.kernels.window import Window


class PanelImage:
    """A slide reduced to the genes of a panel.

    Parameters
    ----------
    image
        All of the slide's genes; with collisions ``sum`` or ``first``, as counts have no mean.
    genes
        (channels,) int32, the slide's gene of each channel, -1 for none; no gene twice.
    dtype
        Of the rows: one that holds every pixel's count of every gene, as the image's `count_dtype` does.
    """

    def __init__(self, image: SlideImage, genes: NDArray[np.int32], *, dtype: np.dtype[Any] | None = None) -> None:
        if image.collisions == "mean":
            raise ValueError("counts have no mean")
        self._image = image
        self._n_channels = len(genes)
        occupied = np.diff(image.arrays.pixel_start) > 0
        empty = int(np.count_nonzero(occupied))  # the last row: zeros, for every empty pixel
        filled = np.zeros(empty + 1, np.bool_)
        filled[empty] = True
        dtype = image.count_dtype if dtype is None else dtype
        self._panel = PanelRows(
            columns=image.offsets(genes, 1),
            row_of_pixel=np.where(occupied, np.cumsum(occupied) - 1, empty),
            filled=filled,
            rows=np.zeros((empty + 1, _row_length(len(genes), dtype)), dtype),
        )

    @property
    def count_dtype(self) -> np.dtype[Any]:
        """The slide's, whatever the panel."""
        return self._image.count_dtype

    @property
    def nbytes(self) -> int:
        """Bytes of the rows, filled or not."""
        return self._panel.rows.nbytes

    def counts(self, window: Window, *, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Return a window's (channels, height, width) counts; empty pixels are 0.

        Parameters
        ----------
        window
            The window.
        out
            (channels, height, width), C order, of `count_dtype` or wider: overwritten and returned.
        """
        shape = (self._n_channels, window.height, window.width)
        if out is None:
            out = np.empty(shape, self.count_dtype)
        elif out.shape != shape or not np.can_cast(self.count_dtype, out.dtype):
            raise ValueError(f"out is {out.dtype} {out.shape}, needs {self.count_dtype} {shape}")
        gather_panel(self._image.arrays, window, self._panel, out)
        return out

    def fill(self) -> None:
        """Fill the rows of all pixels at once: afterwards windows only read, from any number of threads."""
        rows, columns = self._image.shape
        fill_panel_rows(self._image.arrays, Window(0, 0, rows, columns), self._panel)


def panel_bytes(image: SlideImage, n_channels: int, dtype: np.dtype[Any]) -> int:
    """Return the bytes that a panel's rows of a dtype take, once they are filled."""
    n_rows = int(np.count_nonzero(np.diff(image.arrays.pixel_start))) + 1
    return n_rows * _row_length(n_channels, dtype) * dtype.itemsize


def _row_length(n_channels: int, dtype: np.dtype[Any]) -> int:
    """Return the items of a row: the channels, one to spare, and an odd number of cache lines in all.

    Rows a power of two apart would share a few sets of the cache.
    """
    lines = -(-(n_channels + 1) * dtype.itemsize // LINE) | 1
    return lines * LINE // dtype.itemsize
