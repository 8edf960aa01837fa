"""Patch rules: which genes become a patch's channels, from the moments of its own window.

A draw depends on the seed, the slide, the patch, the draw's number and the genes' vocabulary ids, and on nothing else:
not on the order of the genes, nor on what was drawn before.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from stpatch.errors import ConfigError
from stpatch.image.moments import Moments
from stpatch.kernels import draw as kernels
from stpatch.seeds import Keys

DRAW, FILL = np.uint32(0), np.uint32(1)
"""Streams of one key: the rule's own draw, and the fill of channels that the rule leaves free."""
MARGIN = 1.5
"""Keys of a patch are made up to so many times the largest that the patch before it took."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PatchRule:
    """A rule that chooses n genes of a slide for one window.

    Attributes
    ----------
    method
        ``variance_sampled``: without replacement, with weights equal to the variances (the n smallest of Exp(1) /
        variance: Efraimidis and Spirakis 2006, in logarithms). ``variance``, ``mean``: the n largest. ``random``: any n
        with the same probability. Ties go to the smaller gene id.
    n
        Channels.
    gene_ids
        (genes,) vocabulary ids (from 1, each once) of the slide's measured genes, in the slide's order.
    candidates
        (genes,) bool: the genes that the rule may choose; None for all.
    seed
        The dataset's.
    """

    method: str
    n: int
    gene_ids: NDArray[np.int32]
    candidates: NDArray[np.bool_] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in ("variance_sampled", "variance", "mean", "random"):
            raise ConfigError(f"unknown patch rule {self.method!r}", where="channels.method")
        if self.candidates is not None and self.candidates.shape != self.gene_ids.shape:
            raise ValueError(f"candidates are {self.candidates.shape}, gene_ids {self.gene_ids.shape}")
        if len(self.gene_ids) and (self._sorted_ids[0] < 1 or np.any(np.diff(self._sorted_ids) == 0)):
            raise ValueError("gene_ids must be positive, each once")

    def choose(self, moments: Moments, *, slide_id: str, number: int, draw: int = 0) -> NDArray[np.int32]:
        """Return (n,) int32 positions of the chosen genes in the slide, by ascending gene id; pads (-1) last.

        Where the rule chooses fewer than n (variances or means of zero), the rest is drawn at random from the other
        candidates, then from the other measured genes; then come pads.

        Parameters
        ----------
        moments
            The window's, over the slide's measured genes.
        slide_id, number, draw
            The patch and its draw.
        """
        if slide_id not in self._keys:
            self._keys[slide_id] = Keys(self.seed, slide_id, "channels")
        key = self._keys[slide_id].words(number, draw)
        taken = self._chosen(moments, key)
        if len(taken) < self.n and len(taken) < len(self.gene_ids):
            taken = self._filled(taken, key)
        out = np.empty(self.n, dtype=np.int32)
        out[: len(taken)] = taken if self._in_order else self._order[taken]
        out[len(taken) :] = -1
        return out

    @cached_property
    def _keys(self) -> dict[str, Keys]:
        return {}

    @cached_property
    def _order(self) -> NDArray[np.int64]:
        return np.argsort(self.gene_ids, kind="stable")

    @cached_property
    def _sorted_ids(self) -> NDArray[np.int32]:
        return np.ascontiguousarray(self.gene_ids[self._order])

    @cached_property
    def _in_order(self) -> bool:
        return bool(np.array_equal(self._order, np.arange(len(self._order))))

    @cached_property
    def _buffers(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
        size = len(self.gene_ids) + 1
        return np.empty(size), np.empty(size), np.empty(size, np.int64)

    @cached_property
    def _bound(self) -> list[float]:
        return [math.inf]

    @cached_property
    def _allowed(self) -> NDArray[np.bool_] | None:
        return None if self.candidates is None else self.candidates[self._order]

    def _chosen(self, moments: Moments, key: NDArray[np.uint32]) -> NDArray[np.int64]:
        """Return the rule's own choice: at most n ascending places among the genes by ascending id."""
        if self.method == "random":
            scores = self._uniforms(self._sorted_ids, key, DRAW)
            if self._allowed is not None:
                scores[~self._allowed] = np.inf
            return _smallest(scores, self.n)
        weights = moments.mean if self.method == "mean" else moments.variance
        weights = weights if self._in_order else weights[self._order]
        if self._allowed is not None:
            weights = np.where(self._allowed, weights, 0.0)
        if self.method == "variance_sampled":
            return self._drawn(weights, self._uniforms(self._sorted_ids, key, DRAW))
        return _smallest(np.where(weights > 0, -weights, np.inf), self.n)

    def _drawn(self, weights: NDArray[np.float64], uniforms: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the ascending places of the n smallest keys.

        Neighbouring patches have n-th keys of about the same size, so only keys up to a little above the last patch's
        are made, and all where these are too few: the bound saves time and decides nothing.
        """
        keys, places = self._buffers[1], self._buffers[2]
        found = kernels.keys_below(weights, uniforms, self._bound[0], keys, places)
        if found < self.n:
            found = kernels.keys_below(weights, uniforms, math.inf, keys, places)
        taken = _smallest(keys[:found], self.n)
        self._bound[0] = MARGIN * keys[taken].max() if len(taken) == self.n else math.inf
        return np.asarray(places[taken])

    def _uniforms(self, gene_ids: NDArray[np.int32], key: NDArray[np.uint32], stream: np.uint32) -> NDArray[np.float64]:
        out = self._buffers[0][: len(gene_ids)]
        kernels.gene_uniforms(gene_ids, key, stream, out)
        return out

    def _filled(self, taken: NDArray[np.int64], key: NDArray[np.uint32]) -> NDArray[np.int64]:
        uniforms = self._uniforms(self._sorted_ids, key, FILL)
        if self._allowed is not None:
            uniforms[~self._allowed] += 1.0
        uniforms[taken] = np.inf
        return np.sort(np.concatenate([taken, _smallest(uniforms, self.n - len(taken))]))


def _smallest(scores: NDArray[np.float64], n: int) -> NDArray[np.int64]:
    """Return the ascending places of the n smallest finite scores, ties to the first."""
    if n < len(scores):
        bound = np.partition(scores, n - 1)[n - 1]
        if np.isfinite(bound):
            chosen = scores <= bound
            spare = int(np.count_nonzero(chosen)) - n
            if spare:
                chosen[np.flatnonzero(scores == bound)[-spare:]] = False
            return np.flatnonzero(chosen)
    return np.flatnonzero(np.isfinite(scores))
