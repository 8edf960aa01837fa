"""Batch-aware panels: every slide ranks its own genes, and the ranks are joined as scanpy's ``batch_key`` does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from stpatch.expression.moments import ratio

_INT = np.dtype(np.int32)


@dataclass(kw_only=True)
class RankJoin:
    """Collects, per gene, in how many slides it is among the top `n`, and its ranks there.

    A gene that a slide did not measure, or that has no score there (NaN), has no rank there: it neither gains nor
    loses.
    """

    n: int
    positions: list[NDArray[np.int32]] = field(default_factory=list)
    ranks: list[NDArray[np.int32]] = field(default_factory=list)

    def add(self, positions: NDArray[np.int64], scores: NDArray[np.float64], names: Sequence[str]) -> None:
        """Rank one slide's genes by falling score, equal scores by name, and keep the top `n`."""
        scored = np.flatnonzero(~np.isnan(scores))
        if len(scored) > self.n:
            cut = np.partition(scores[scored], -self.n)[-self.n]
            scored = scored[scores[scored] >= cut]
        by_name = np.array(sorted(scored.tolist(), key=names.__getitem__), dtype=np.int64)
        top = by_name[np.argsort(-scores[by_name], kind="stable")][: self.n]
        self.positions.append(positions[top].astype(_INT))
        self.ranks.append(np.arange(len(top), dtype=_INT))

    def joined(self, size: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return per gene the number of slides that have it in their top `n`, and its median rank there (NaN: none)."""
        positions = np.concatenate([np.zeros(0, dtype=_INT), *self.positions])
        ranks = np.concatenate([np.zeros(0, dtype=_INT), *self.ranks])
        order = np.lexsort((ranks, positions))
        ranks = ranks[order]
        n_top = np.bincount(positions, minlength=size)
        start = np.cumsum(n_top) - n_top
        median = np.full(size, np.nan)
        some = n_top > 0
        low, high = start[some] + (n_top[some] - 1) // 2, start[some] + n_top[some] // 2
        median[some] = (ranks[low].astype(np.float64) + ranks[high]) / 2
        return n_top, median


@dataclass(kw_only=True)
class DispersionJoin:
    """Collects, per gene, in how many slides it is among the top `n`, and the sum of its normalized dispersions."""

    n: int
    n_top: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    n_scores: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    total: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    def add(
        self, positions: NDArray[np.int64], scores: NDArray[np.float64], expressed: NDArray[np.bool_], size: int
    ) -> None:
        """Add one slide's scores; a measured gene that is not expressed counts 0 and is never among the top.

        As in scanpy, every expressed gene that reaches the `n`-th highest score is among the top: with ties more than
        `n`.
        """
        self.grow(size)
        ranked = np.sort(scores[expressed & ~np.isnan(scores)])[::-1]
        if len(ranked):
            self.n_top[positions] += expressed & (scores >= ranked[min(self.n, len(ranked)) - 1])
        scores = np.where(expressed, scores, 0.0)
        known = ~np.isnan(scores)
        self.n_scores[positions] += known
        self.total[positions] += np.where(known, scores, 0.0)

    def grow(self, size: int) -> None:
        """Make room for `size` genes."""
        missing = size - len(self.total)
        self.n_top = np.pad(self.n_top, (0, missing))
        self.n_scores = np.pad(self.n_scores, (0, missing))
        self.total = np.pad(self.total, (0, missing))

    def mean(self) -> NDArray[np.float64]:
        """Return the (genes,) mean normalized dispersion over the slides that have one; NaN where none has."""
        return ratio(self.total, self.n_scores, other=np.nan)
