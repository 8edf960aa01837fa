"""Fills a batch patch by patch: bytes, decoded, normalized and in its place while the patch is in the cache.

No other pass over a batch is made. A whole batch is larger than the caches of a processor, so that decoding all of it,
and then normalizing all of it, would fetch it from memory twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpatch.dataset.access import ShardReader
from stpatch.dataset.formats.base import Address, Arrays, Entries
from stpatch.dataset.layout import Layout
from stpatch.dataset.planes import GENES, TOTALS, X
from stpatch.dataset.request import Request
from stpatch.errors import DatasetError
from stpatch.image.values import PatchNormalizer
from stpatch.kernels.formula import METHODS, Formula


class Filler:
    """Reads samples to batches.

    Parameters
    ----------
    reader
        Of the dataset's shards.
    layout
        How samples are stored.
    request
        What is wanted.
    method
        The normalization's name, as the manifest tells it.
    panel
        (C,) gene ids of all samples, where the scope is panel.
    """

    def __init__(
        self, reader: ShardReader, *, layout: Layout, request: Request, method: str, panel: NDArray[np.int32] | None
    ) -> None:
        self._reader = reader
        self._layout = layout
        self._request = request
        self._panel = panel
        self._computes = request.values == "normalized" and np.dtype(layout.dtype).kind == "u"
        if self._computes and method not in METHODS:
            raise DatasetError(
                f"values cannot be normalized by {method} when they are read", where="normalization.method",
                hint="build the dataset with shards.values: normalized",
            )  # fmt: skip
        self._method = METHODS.get(method, 0)
        self._channel_of = None if request.genes is None else _positions(request.genes)

    def fill(self, addresses: Sequence[Address], target_sums: NDArray[np.float64]) -> tuple[Arrays, list[Entries]]:
        """Return the samples' planes stacked, and for sparse values their counts instead of x.

        Parameters
        ----------
        addresses
            (B,) the samples'.
        target_sums
            (B,) what the normalization scales each sample's slide to; NaN where it has none.
        """
        layout, request = self._layout, self._request
        out: Arrays = {}
        for plane in layout.planes:
            if plane.name != X:
                out[plane.name] = np.empty((len(addresses), *plane.shape), plane.dtype)
                if layout.variable:
                    out[plane.name][...] = plane.fill
        nonzeros = []
        if not request.leaves_out_zeros:
            out[X] = self._empty_x(len(addresses))
        scratch = _Scratch(layout)
        direct = request.dtype == layout.dtype and request.genes is None and not self._computes
        for row, address in enumerate(addresses):
            planes = {name: array[row] for name, array in out.items()}
            if address.size is not None:
                shapes = {plane.name: plane.shape_at(address.size) for plane in layout.planes}
                planes = {name: array[_corner(shapes[name])] if name != X else array for name, array in planes.items()}
            shape = layout.planes[0].shape_at(address.size)
            x = planes.pop(X, None)
            if x is None:
                entries = self._reader.read_into(address, planes)
                if entries is not None:
                    nonzeros.append(Entries(self._padded(entries.positions, shape), entries.values))
                continue
            stored = x[_corner(shape)] if direct else scratch.stored(shape)
            self._reader.read_into(address, {X: stored, **planes})
            if not direct:
                self._finish(scratch, stored, planes, float(target_sums[row]), x)
        return out, nonzeros

    def _empty_x(self, n: int) -> NDArray[Any]:
        channels, height, width = self._layout.shape
        dtype = self._request.dtype
        if self._request.genes is not None:
            return np.zeros((n, len(self._request.genes), height, width), dtype)
        if self._layout.variable:
            return np.zeros((n, channels, height, width), dtype)
        return np.empty((n, channels, height, width), dtype)

    def _finish(
        self, scratch: _Scratch, stored: NDArray[Any], planes: Arrays, target_sum: float, x: NDArray[Any]
    ) -> None:
        """Bring a decoded patch to its place in the batch, `x` (C, H, W)."""
        whole = stored.shape == x.shape and self._channel_of is None
        values = stored
        if self._computes:
            into = whole and x.dtype == np.float32
            normalized = x if into else scratch.values(stored.shape)
            formula = Formula(method=self._method, target_sum=1.0 if np.isnan(target_sum) else target_sum)
            scratch.normalizer.write(stored, np.ascontiguousarray(planes[TOTALS]), formula, out=normalized)
            if into:
                return
            values = normalized
        if self._channel_of is None:
            x[_corner(stored.shape)] = values
            return
        genes = planes.get(GENES, self._panel)
        ids = np.empty(0, np.int32) if genes is None else genes
        inside = (ids >= 0) & (ids < len(self._channel_of))
        channels = np.where(inside, self._channel_of[np.where(inside, ids, 0)], -1)
        taken = np.flatnonzero(channels >= 0)
        _, height, width = stored.shape
        x[channels[taken], :height, :width] = values[taken]

    def _padded(self, positions: NDArray[np.int32], shape: tuple[int, ...]) -> NDArray[np.int32]:
        """Return the positions in a patch of the largest shape."""
        if shape == self._layout.shape:
            return positions
        return np.ravel_multi_index(np.unravel_index(positions, shape), self._layout.shape).astype(np.int32)


class _Scratch:
    """Arrays that all patches of a batch go through, so that they stay in the cache."""

    def __init__(self, layout: Layout) -> None:
        size = int(np.prod(layout.shape))
        self._stored = np.empty(size, layout.dtype)
        self._values = np.empty(size, np.float32)
        self.normalizer = PatchNormalizer()

    def stored(self, shape: tuple[int, ...]) -> NDArray[Any]:
        """Return the array that a patch is decoded to."""
        return self._stored[: int(np.prod(shape))].reshape(shape)

    def values(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Return room for a patch's normalized values."""
        return self._values[: int(np.prod(shape))].reshape(shape)


def _positions(genes: tuple[int, ...]) -> NDArray[np.int64]:
    """Return the channel of each gene id, -1 for those that are not wanted."""
    channels = np.full(max(genes, default=0) + 1, -1, np.int64)
    channels[list(genes)] = np.arange(len(genes))
    return channels


def _corner(shape: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(map(slice, shape))
