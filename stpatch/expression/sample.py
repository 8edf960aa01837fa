"""Patch rules at work: which genes become a patch's channels, from the moments of its own window.

A draw depends on the seed, the slide, the patch, the draw's number and the genes' names, and on nothing else: not on
their ids or order, so that a corpus that grows keeps its draws, nor on what was drawn before.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from stpatch.expression.rules.base import PatchRule
from stpatch.expression.rules.registry import patch_rule
from stpatch.image.moments import Moments
from stpatch.kernels import draw as kernels
from stpatch.seeds import Keys

DRAW, FILL = np.uint32(0), np.uint32(1)
"""Streams of one key: the rule's own draw, and the fill of channels that the rule leaves free."""
MARGIN = 1.5
"""Keys of a patch are made up to this many times the largest key that the patch before it took."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PatchSampler:
    """Applies a patch rule to the windows of one slide: chooses n of its genes for each.

    Attributes
    ----------
    method
        Name of a registered patch rule. Whatever the rule, ties go to the smaller gene id.
    n
        Channels.
    gene_ids
        (genes,) vocabulary ids (each once) of the slide's measured genes, in the slide's order.
    gene_keys
        (genes,) uint64, `stpatch.seeds.name_keys` of their vocabulary names: what a gene's random number comes from.
    candidates
        (genes,) bool: the genes that the rule may choose; None for all.
    seed
        The dataset's.

    Raises
    ------
    ConfigError
        No patch rule has this name.
    """

    method: str
    n: int
    gene_ids: NDArray[np.int32]
    gene_keys: NDArray[np.uint64]
    candidates: NDArray[np.bool_] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        _ = self.rule  # an unknown name is refused here
        if self.candidates is not None and self.candidates.shape != self.gene_ids.shape:
            raise ValueError(f"candidates are {self.candidates.shape}, gene_ids {self.gene_ids.shape}")
        if self.gene_keys.shape != self.gene_ids.shape:
            raise ValueError(f"gene_keys are {self.gene_keys.shape}, gene_ids {self.gene_ids.shape}")
        if np.any(np.diff(self.gene_ids[self._order]) == 0):
            raise ValueError("gene_ids must be there once each")

    @cached_property
    def rule(self) -> PatchRule:
        """The registered rule."""
        return patch_rule(self.method)

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
        taken = self.rule.choose(WindowGenes(self, moments, key))
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
    def _sorted_keys(self) -> NDArray[np.uint64]:
        return np.ascontiguousarray(self.gene_keys[self._order])

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

    def _weights(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return one number per gene by ascending id, 0 for a gene that is not a candidate."""
        weights = weights if self._in_order else weights[self._order]
        return weights if self._allowed is None else np.where(self._allowed, weights, 0.0)

    def _drawn(self, weights: NDArray[np.float64], uniforms: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the ascending positions of the n smallest keys ``-log(uniform) / weight``.

        Neighbouring patches have n-th keys of about the same size, so only keys up to a little above the last patch's
        are made, and all of them where these are too few: the bound saves time and decides nothing.
        """
        keys, positions = self._buffers[1], self._buffers[2]
        found = kernels.keys_below(weights, uniforms, self._bound[0], keys, positions)
        if found < self.n:
            found = kernels.keys_below(weights, uniforms, math.inf, keys, positions)
        taken = _smallest(keys[:found], self.n)
        self._bound[0] = MARGIN * keys[taken].max() if len(taken) == self.n else math.inf
        return np.asarray(positions[taken])

    def _uniforms(self, key: NDArray[np.uint32], stream: np.uint32) -> NDArray[np.float64]:
        """Return one number in (0, 1) per gene, by ascending gene id."""
        out = self._buffers[0][: len(self.gene_ids)]
        kernels.gene_uniforms(self._sorted_keys, key, stream, out)
        return out

    def _filled(self, taken: NDArray[np.int64], key: NDArray[np.uint32]) -> NDArray[np.int64]:
        """Return `taken` and, drawn at random, as many others as there is room for."""
        uniforms = self._uniforms(key, FILL)
        if self._allowed is not None:
            uniforms[~self._allowed] += 1.0  # uniforms are below 1, so every candidate goes before all others
        uniforms[taken] = np.inf
        return np.sort(np.concatenate([taken, _smallest(uniforms, self.n - len(taken))]))


@dataclass(frozen=True)
class WindowGenes:
    """A window's genes as a patch rule sees them, by ascending gene id.

    Attributes
    ----------
    sampler
        The slide's sampler.
    moments
        The window's, over the slide's measured genes.
    key
        (4,) uint32, the key of this patch and draw.
    """

    sampler: PatchSampler
    moments: Moments
    key: NDArray[np.uint32]

    @property
    def n(self) -> int:
        """Genes to choose."""
        return self.sampler.n

    @property
    def mean(self) -> NDArray[np.float64]:
        """(genes,) mean of the normalized values over the occupied pixels; 0 for a gene that is not a candidate."""
        return self.sampler._weights(self.moments.mean)

    @property
    def variance(self) -> NDArray[np.float64]:
        """(genes,) variance of the same values; 0 for a gene that is not a candidate."""
        return self.sampler._weights(self.moments.variance)

    def largest(self, scores: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the ascending positions of the n largest scores above 0, ties to the smaller gene id."""
        return _smallest(np.where(scores > 0, -scores, np.inf), self.n)

    def draw(self, weights: NDArray[np.float64]) -> NDArray[np.int64]:
        """Draw n genes without replacement, with these weights; genes of weight 0 are never drawn.

        Parameters
        ----------
        weights
            (genes,) float64, 0 or more, such as `variance`.
        """
        sampler = self.sampler
        return sampler._drawn(weights, sampler._uniforms(self.key, DRAW))

    def draw_any(self) -> NDArray[np.int64]:
        """Draw n of the candidates without replacement, all with the same probability."""
        sampler = self.sampler
        keys = sampler._uniforms(self.key, DRAW)
        if sampler._allowed is not None:
            keys[~sampler._allowed] = np.inf
        return _smallest(keys, self.n)


def _smallest(scores: NDArray[np.float64], n: int) -> NDArray[np.int64]:
    """Return the ascending positions of the n smallest finite scores, ties to the first."""
    if n < len(scores):
        bound = np.partition(scores, n - 1)[n - 1]
        if np.isfinite(bound):
            # a partition instead of a sort; of the scores that equal the n-th, the last are left out
            chosen = scores <= bound
            spare = int(np.count_nonzero(chosen)) - n
            if spare:
                chosen[np.flatnonzero(scores == bound)[-spare:]] = False
            return np.flatnonzero(chosen)
    return np.flatnonzero(np.isfinite(scores))
