"""Batch-aware panels: every slide ranks its own genes, and the ranks are joined as scanpy's ``batch_key`` does."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from stpatch.expression.moments import ratio

if TYPE_CHECKING:
    from stpatch.expression.statistics import SlideStatistics

_INT = np.dtype(np.int32)


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """The joined order of genes.

    Attributes
    ----------
    scores
        (genes,) float64, what the panel reports; NaN where no slide has a score.
    chosen
        (genes,) bool, the genes that may be in the panel.
    keys
        Sort keys, each (genes,), ascending; as for `numpy.lexsort` the last is the first to sort by, and NaN goes last.
    """

    scores: NDArray[np.float64]
    chosen: NDArray[np.bool_]
    keys: list[NDArray[np.float64] | NDArray[np.int64]]


class Join(Protocol):
    """Joins the scores of slides, one slide at a time."""

    def add(
        self,
        positions: NDArray[np.int64],
        scores: NDArray[np.float64],
        statistics: SlideStatistics,
        allowed: NDArray[np.bool_],
    ) -> None:
        """Take one slide.

        Parameters
        ----------
        positions
            (genes of the slide,) positions on the corpus' axis of genes.
        scores
            (genes of the slide,) the rule's scores, NaN for none.
        statistics
            The slide's.
        allowed
            (genes of the slide,) bool, whether a gene may be selected.
        """
        ...

    def ranking(self, allowed: NDArray[np.bool_]) -> Ranking:
        """Return the joined order; `allowed` is (genes,) bool on the whole axis."""
        ...


@dataclass(kw_only=True)
class RankJoin:
    """Joins by how many slides have a gene among their top `n`, and by its median rank there.

    A gene that a slide did not measure, or that has no score there (NaN), has no rank there: it neither gains nor
    loses.

    Attributes
    ----------
    n
        Length of a slide's top list.
    rank_first
        Sort by median rank, then by number of slides, instead of the other way round.
    """

    n: int
    rank_first: bool = False
    _positions: list[NDArray[np.int32]] = field(default_factory=list)
    _ranks: list[NDArray[np.int32]] = field(default_factory=list)

    def add(
        self,
        positions: NDArray[np.int64],
        scores: NDArray[np.float64],
        statistics: SlideStatistics,
        allowed: NDArray[np.bool_],
    ) -> None:
        """Rank one slide's genes by falling score, equal scores by name, and keep the top `n`; see `Join.add`."""
        scores = np.where(allowed, scores, np.nan)
        scored = np.flatnonzero(~np.isnan(scores))
        if len(scored) > self.n:
            # only what reaches the n-th score is sorted by name: sorting all names costs more than all the rest
            cut = np.partition(scores[scored], -self.n)[-self.n]
            scored = scored[scores[scored] >= cut]
        by_name = np.array(sorted(scored.tolist(), key=statistics.genes.__getitem__), dtype=np.int64)
        top = by_name[np.argsort(-scores[by_name], kind="stable")][: self.n]
        self._positions.append(positions[top].astype(_INT))
        self._ranks.append(np.arange(len(top), dtype=_INT))

    def ranking(self, allowed: NDArray[np.bool_]) -> Ranking:
        """See `Join.ranking`; the scores are median ranks."""
        n_top, median = self.joined(len(allowed))
        keys: list[NDArray[np.float64] | NDArray[np.int64]] = [-n_top, median] if self.rank_first else [median, -n_top]
        return Ranking(scores=median, chosen=n_top > 0, keys=keys)

    def joined(self, size: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return per gene the number of slides that have it in their top `n`, and its median rank there (NaN: none)."""
        positions = np.concatenate([np.zeros(0, dtype=_INT), *self._positions])
        ranks = np.concatenate([np.zeros(0, dtype=_INT), *self._ranks])
        # one flat list of (gene, rank) instead of a slides x genes table: memory follows the top lists, not the corpus
        order = np.lexsort((ranks, positions))
        ranks = ranks[order]
        n_top = np.bincount(positions, minlength=size)
        start = np.cumsum(n_top) - n_top
        median = np.full(size, np.nan)
        some = n_top > 0
        # the ranks of a gene stand together in rising order, so its median is the middle one, or the middle two's mean
        low, high = start[some] + (n_top[some] - 1) // 2, start[some] + n_top[some] // 2
        median[some] = (ranks[low].astype(np.float64) + ranks[high]) / 2
        return n_top, median


@dataclass(kw_only=True)
class DispersionJoin:
    """Joins by how many slides have a gene among their top `n`, and by the mean of its normalized dispersions.

    Sums grow with the axis of genes as slides bring new ones.
    """

    n: int
    n_top: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    n_scores: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    total: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    def add(
        self,
        positions: NDArray[np.int64],
        scores: NDArray[np.float64],
        statistics: SlideStatistics,
        allowed: NDArray[np.bool_],
    ) -> None:
        """Add one slide's scores; see `Join.add`.

        A measured gene that is not expressed (or may not be selected) counts 0 and is never among the top, because
        scanpy fills the genes that a batch lacks with dispersion 0 before it takes the mean. As in scanpy, every gene
        that reaches the `n`-th highest score is among the top: with ties more than `n`.
        """
        expressed = (statistics.counts.detected > 0) & allowed
        self._grow(int(positions.max(initial=-1)) + 1)
        ranked = np.sort(scores[expressed & ~np.isnan(scores)])[::-1]
        if len(ranked):
            self.n_top[positions] += expressed & (scores >= ranked[min(self.n, len(ranked)) - 1])
        scores = np.where(expressed, scores, 0.0)
        known = ~np.isnan(scores)
        self.n_scores[positions] += known
        self.total[positions] += np.where(known, scores, 0.0)

    def ranking(self, allowed: NDArray[np.bool_]) -> Ranking:
        """See `Join.ranking`; the scores are mean normalized dispersions, NaN where no slide has one."""
        self._grow(len(allowed))
        mean = ratio(self.total, self.n_scores, other=np.nan)
        return Ranking(scores=mean, chosen=allowed, keys=[-mean, -self.n_top])

    def _grow(self, size: int) -> None:
        """Make the sums long enough for `size` genes."""
        missing = max(0, size - len(self.total))
        self.n_top = np.pad(self.n_top, (0, missing))
        self.n_scores = np.pad(self.n_scores, (0, missing))
        self.total = np.pad(self.total, (0, missing))
