"""The statistics of all slides on one gene axis, merged while slides pass one at a time."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from stpatch.errors import InputError, MismatchError
from stpatch.expression.moments import CountMoments, ValueMoments, scatter_to_axis
from stpatch.expression.moran import MoranSums
from stpatch.expression.statistics import SlideStatistics

LoadStatistics = Callable[[str], SlideStatistics]


class GeneAxis:
    """Positions of gene names, growing as slides bring new ones."""

    def __init__(self) -> None:
        self._position: dict[str, int] = {}
        self._last: tuple[tuple[str, ...], NDArray[np.int64]] = ((), np.zeros(0, dtype=np.int64))

    def __len__(self) -> int:
        return len(self._position)

    @property
    def names(self) -> tuple[str, ...]:
        """The names in order of position."""
        return tuple(self._position)

    def positions(self, names: tuple[str, ...]) -> NDArray[np.int64]:
        """Return the position of each name; a slide with the gene list of the slide before gets the same answer."""
        last, known = self._last
        if last is not names and last != names:
            position = self._position
            known = np.fromiter(map(position.get, names, itertools.repeat(-1)), np.int64, len(names))
            for i in np.flatnonzero(known < 0):
                known[i] = position.setdefault(names[i], len(position))
            self._last = (names, known)
        return known


@dataclass(frozen=True, kw_only=True)
class PooledStatistics:
    """What all slides together measured; a gene's numbers are over the slides that measured it.

    Attributes
    ----------
    genes
        Vocabulary names, sorted.
    n_slides
        (genes,) int64, slides that measured the gene.
    reach
        (genes,) float64, all counts of all genes in the slides that measured the gene.
    normalization
        The method's name.
    counts, values, scaled, moran
        As in `SlideStatistics`.
    """

    genes: tuple[str, ...]
    n_slides: NDArray[np.int64]
    reach: NDArray[np.float64]
    normalization: str
    counts: CountMoments
    values: ValueMoments
    scaled: ValueMoments | None
    moran: MoranSums | None

    @property
    def size(self) -> int:
        """Number of genes."""
        return len(self.genes)


def pool_statistics(slide_ids: Iterable[str], load_statistics: LoadStatistics) -> PooledStatistics:
    """Merge the statistics of slides, in order of their ids, so that any order of `slide_ids` gives the same bytes.

    Parameters
    ----------
    slide_ids
        At least one.
    load_statistics
        Called once per slide; one slide's statistics are held at a time. Genes of one name are one gene.
    """
    axis = GeneAxis()
    total: PooledStatistics | None = None
    for slide_id in sorted(slide_ids):
        statistics = load_statistics(slide_id)
        positions = axis.positions(statistics.genes)
        part = pool_on_axis(pooled_of(statistics), positions, len(axis))
        if total is None:
            total = part
        else:
            if part.normalization != total.normalization:
                raise MismatchError(
                    "slides were normalized in different ways",
                    where=slide_id,
                    found=part.normalization,
                    expected=total.normalization,
                    hint="run the normalize stage again",
                )
            if total.size < part.size:
                total = pool_on_axis(total, np.arange(total.size), part.size)
            total = _merged(total, part)
    if total is None:
        raise InputError("there are no slides to pool", hint="look at the slides that the earlier stages left")
    names = axis.names
    order = sorted(range(len(names)), key=names.__getitem__)
    rank = np.empty(len(names), dtype=np.int64)
    rank[order] = np.arange(len(names))
    return replace(pool_on_axis(total, rank, len(names)), genes=tuple(names[i] for i in order))


def pooled_of(statistics: SlideStatistics) -> PooledStatistics:
    """Return one slide's statistics as a pool of one, genes in the slide's order."""
    n_genes = len(statistics.genes)
    return PooledStatistics(
        genes=statistics.genes,
        n_slides=np.ones(n_genes, dtype=np.int64),
        reach=np.full(n_genes, statistics.totals.sum()),
        normalization=statistics.normalization.method,
        counts=statistics.counts,
        values=statistics.values,
        scaled=statistics.scaled,
        moran=statistics.moran,
    )


def pool_on_axis(part: PooledStatistics, positions: NDArray[np.int64], size: int) -> PooledStatistics:
    """Return a pool on an axis of `size` genes, its own at `positions`; the others have no spot, and names are gone."""
    if part.size == size and np.array_equal(positions, np.arange(size)):
        return part
    return replace(
        part,
        genes=("",) * size,  # named once at the end
        n_slides=scatter_to_axis(part.n_slides, positions, size),
        reach=scatter_to_axis(part.reach, positions, size),
        counts=part.counts.scatter_to_axis(positions, size),
        values=part.values.scatter_to_axis(positions, size),
        scaled=None if part.scaled is None else part.scaled.scatter_to_axis(positions, size),
        moran=None if part.moran is None else part.moran.scatter_to_axis(positions, size),
    )


def _merged(one: PooledStatistics, two: PooledStatistics) -> PooledStatistics:
    return replace(
        one,
        n_slides=one.n_slides + two.n_slides,
        reach=one.reach + two.reach,
        counts=one.counts.merged(two.counts),
        values=one.values.merged(two.values),
        scaled=None if one.scaled is None or two.scaled is None else one.scaled.merged(two.scaled),
        moran=None if one.moran is None or two.moran is None else one.moran.merged(two.moran),
    )
