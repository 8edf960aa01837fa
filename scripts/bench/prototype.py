"""The shortest program that cuts patches: a slide in memory, two compiled loops and Blosc, nothing written.

It is the yardstick of a machine: the shard stage reads slides from disk, records, hashes and writes as well, and is to
keep up with it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit
from numcodecs import blosc
from numpy.typing import NDArray
from scipy import sparse

SECONDS = 1.0


@njit(cache=True)
def _sums(values, indices, indptr, spots, total, squares):  # type: ignore[no-untyped-def]
    total[:] = 0
    squares[:] = 0
    for spot in spots:
        for j in range(indptr[spot], indptr[spot + 1]):
            total[indices[j]] += values[j]
            squares[indices[j]] += values[j] * values[j]


@njit(cache=True)
def _scatter(data, indices, indptr, spots, places, channel, out):  # type: ignore[no-untyped-def]
    out[:] = 0
    for i in range(len(spots)):
        for j in range(indptr[spots[i]], indptr[spots[i] + 1]):
            if channel[indices[j]] >= 0:
                out[channel[indices[j]], places[i]] = data[j]


class Prototype:
    """The program, with a slide in memory.

    Parameters
    ----------
    counts
        (spots, genes).
    totals
        (spots,) counts of all genes.
    windows
        Each window's spots and their pixels in it.
    n_channels
        Channels of a patch.
    n_pixels
        Pixels of a patch.
    """

    def __init__(
        self, counts: sparse.csr_matrix, totals: NDArray[np.float64], windows: list[Any], n_channels: int, n_pixels: int
    ) -> None:
        self.counts, self.windows, self.n_channels = counts, windows, n_channels
        self.values = np.log1p(counts.data * np.repeat(1e4 / totals, np.diff(counts.indptr)))
        self.total, self.squares = np.empty(counts.shape[1]), np.empty(counts.shape[1])
        self.out = np.empty((n_channels, n_pixels), np.uint16)
        self.rng = np.random.default_rng(0)

    def patch_rule(self) -> float:
        """Return patches a second with channels drawn for each patch by their variance in it."""
        return self._rate(self.counts, self._drawn)

    def panel(self, genes: NDArray[np.int32]) -> float:
        """Return patches a second with fixed channels, from counts reduced to them beforehand."""
        channel = np.full(self.counts.shape[1], -1)
        channel[genes] = np.arange(len(genes))
        reduced = self.counts.copy()
        reduced.data[channel[reduced.indices] < 0] = 0
        reduced.eliminate_zeros()
        return self._rate(reduced, lambda _: channel)

    def _drawn(self, spots: NDArray[np.int64]) -> NDArray[np.int64]:
        _sums(self.values, self.counts.indices, self.counts.indptr, spots, self.total, self.squares)
        variance = np.maximum(self.squares / len(spots) - (self.total / len(spots)) ** 2, 1e-300)
        keys = self.rng.standard_exponential(len(variance)) / variance
        channel = np.full(len(variance), -1)
        channel[np.sort(np.argpartition(keys, self.n_channels)[: self.n_channels])] = np.arange(self.n_channels)
        return channel

    def _rate(self, counts: sparse.csr_matrix, choose: Callable[[Any], NDArray[np.int64]]) -> float:
        made, begun = -1, 0.0
        while made < 0 or time.thread_time() - begun < SECONDS:
            for spots, places in self.windows:
                _scatter(counts.data, counts.indices, counts.indptr, spots, places, choose(spots), self.out)
                blosc.compress(self.out, b"lz4", 5, blosc.BITSHUFFLE, 0, 2)
                made += 1
                if made == 0:  # the loops are compiled
                    begun = time.thread_time()
        return made / (time.thread_time() - begun)
