"""Fills a batch patch by patch: bytes, decoded, normalized and in its place while the patch is in the cache.

No other pass over a batch is made. A whole batch is larger than the caches of a processor, so that decoding all of it,
and then normalizing all of it, would fetch it from memory twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpatch.dataset.access import ShardReader
from stpatch.dataset.entries import ShardEntry
from stpatch.dataset.formats.base import Entries
from stpatch.dataset.layout import Layout
from stpatch.dataset.planes import GENES, TOTALS, X
from stpatch.dataset.request import Request
from stpatch.errors import DatasetError
from stpatch.image.values import PatchNormalizer
from stpatch.kernels.formula import METHODS, Formula
from stpatch.registry import ENCODINGS

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a sample is.

    Attributes
    ----------
    shard, index, byte_range
        As `formats.base.SampleReader.read` takes them.
    key
        The sample's.
    size
        (height, width) where samples vary.
    target_sum
        What the normalization scales its slide to; NaN where it has none.
    """

    shard: ShardEntry
    index: int
    byte_range: tuple[int, int]
    key: str
    size: tuple[int, int] | None
    target_sum: float


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
        self._stores_no_zeros = request.leaves_out_zeros and ENCODINGS.get(layout.encoding).counts_only
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

    def fill(
        self, places: Sequence[Place], *, pool: ThreadPoolExecutor | None, threads: int
    ) -> tuple[Arrays, list[Entries]]:
        """Return the samples' planes stacked, and for sparse values their counts instead of x.

        Parameters
        ----------
        places
            The samples.
        pool, threads
            Fill that many parts of the batch at the same time; without a pool, here.
        """
        n = len(places)
        out: Arrays = {}
        for plane in self._layout.planes:
            if plane.name == X:
                continue
            out[plane.name] = np.empty((n, *plane.shape), plane.dtype)
            if self._layout.variable:
                out[plane.name][...] = plane.fill
        if not self._request.leaves_out_zeros:
            out[X] = self._empty_x(n)
        nonzeros: list[Entries | None] = [None] * n
        parts = np.array_split(np.arange(n), max(1, min(threads, n)))
        if pool is None or len(parts) == 1:
            self._fill_rows(places, range(n), out, nonzeros)
        else:
            jobs = [pool.submit(self._fill_rows, places, part.tolist(), out, nonzeros) for part in parts]
            for job in jobs:
                job.result()
        return out, [found for found in nonzeros if found is not None]

    def _empty_x(self, n: int) -> NDArray[Any]:
        channels, height, width = self._layout.shape
        dtype = self._request.dtype
        if self._request.genes is not None:
            return np.zeros((n, len(self._request.genes), height, width), dtype)
        if self._layout.variable:
            return np.zeros((n, channels, height, width), dtype)
        return np.empty((n, channels, height, width), dtype)

    def _fill_rows(
        self, places: Sequence[Place], rows: Sequence[int], out: Arrays, nonzeros: list[Entries | None]
    ) -> None:
        layout, request = self._layout, self._request
        scratch = _Scratch(layout)
        plain = request.dtype == layout.dtype and request.genes is None and not request.leaves_out_zeros
        direct = plain and not self._computes
        for row in rows:
            place = places[row]
            planes = {name: array[row] for name, array in out.items() if name != X}
            if place.size is not None:
                shapes = {plane.name: plane.shape_at(place.size) for plane in layout.planes}
                planes = {name: array[_corner(shapes[name])] for name, array in planes.items()}
                shape = shapes[X]
            else:
                shape = layout.shape
            stored = out[X][row] if direct else scratch.stored(shape)
            if direct and place.size is not None:
                stored = stored[_corner(shape)]
            entries = self._reader.read_into(
                place.shard,
                planes if self._stores_no_zeros else {X: stored, **planes},
                index=place.index,
                byte_range=place.byte_range,
                key=place.key,
                size=place.size,
            )
            if entries is not None:
                nonzeros[row] = Entries(self._padded(entries.positions, shape), entries.values)
            elif request.leaves_out_zeros:
                nonzeros[row] = self._nonzeros(scratch, shape)
            elif not direct:
                self._finish(scratch, stored, planes, place, out[X][row])

    def _finish(
        self, scratch: _Scratch, stored: NDArray[Any], planes: Mapping[str, NDArray[Any]], place: Place, x: NDArray[Any]
    ) -> None:
        """Bring a decoded patch to its place in the batch, `x` (C, H, W)."""
        whole = stored.shape == x.shape and self._channel_of is None
        values = stored
        if self._computes:
            into = whole and x.dtype == np.float32
            normalized = x if into else scratch.values(stored.shape)
            target = 1.0 if np.isnan(place.target_sum) else place.target_sum
            formula = Formula(method=self._method, target_sum=target)
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

    def _nonzeros(self, scratch: _Scratch, shape: tuple[int, ...]) -> Entries:
        from stpatch.kernels.patches import patch_nonzeros

        size = int(np.prod(shape))
        positions, counts = scratch.nonzeros()
        words, lanes = scratch.words(size)
        found = patch_nonzeros(words, lanes, positions, counts)
        return Entries(self._padded(positions[:found].copy(), shape), counts[:found].copy())

    def _padded(self, positions: NDArray[np.int32], shape: tuple[int, ...]) -> NDArray[np.int32]:
        """Return the positions in a patch of the largest shape."""
        if shape == self._layout.shape:
            return positions
        return np.ravel_multi_index(np.unravel_index(positions, shape), self._layout.shape).astype(np.int32)


class _Scratch:
    """Arrays that one thread uses for all patches of its part of a batch, so that they stay in the cache."""

    def __init__(self, layout: Layout) -> None:
        self._dtype = np.dtype(layout.dtype)
        self._size = int(np.prod(layout.shape))
        # whole words, since kernels look at eight bytes at a time
        self._words = np.zeros(-(-self._size * self._dtype.itemsize // 8), np.uint64)
        self._values: NDArray[np.float32] | None = None
        self.normalizer = PatchNormalizer()
        self._found: tuple[NDArray[np.int32], NDArray[Any]] | None = None

    def stored(self, shape: tuple[int, ...]) -> NDArray[Any]:
        """Return the array that a patch is decoded to."""
        size = int(np.prod(shape))
        flat = self._words.view(self._dtype)
        flat[size : size + 8] = 0  # what a larger patch left behind in the last word
        return flat[:size].reshape(shape)

    def words(self, size: int) -> tuple[NDArray[np.uint64], int]:
        """Return the decoded patch as words, and how many counts each holds."""
        lanes = 8 // self._dtype.itemsize
        return self._words[: -(-size // lanes)], lanes

    def values(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Return room for a patch's normalized values."""
        if self._values is None:
            self._values = np.empty(self._size, np.float32)
        return self._values[: int(np.prod(shape))].reshape(shape)

    def nonzeros(self) -> tuple[NDArray[np.int32], NDArray[Any]]:
        """Return room for the positions and values of all counts."""
        if self._found is None:
            self._found = np.empty(self._size, np.int32), np.empty(self._size, self._dtype)
        return self._found


def _positions(genes: tuple[int, ...]) -> NDArray[np.int64]:
    """Return the channel of each gene id, -1 for those that are not wanted."""
    channels = np.full(max(genes, default=0) + 1, -1, np.int64)
    channels[list(genes)] = np.arange(len(genes))
    return channels


def _corner(shape: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(map(slice, shape))
