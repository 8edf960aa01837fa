"""Two rules as another package would bring them: one for panels, one for patches."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stpatch.expression.pool import PooledStatistics
from stpatch.expression.rules.base import MomentRule, PatchRule
from stpatch.expression.sample import WindowGenes


class Widest(MomentRule):
    """Share of the spots that have the gene: ``detected / n``, 0 where no spot was measured."""

    name = "widest"
    source = "numpy.count_nonzero / n"
    min_spots = 1

    def of(self, pooled: PooledStatistics) -> NDArray[np.float64]:
        """Return the (genes,) score."""
        return pooled.counts.detected / np.maximum(pooled.counts.n, 1)


class Fano(PatchRule):
    """The n largest ratios of variance to mean over the patch's occupied pixels."""

    name = "fano"
    source = "Fano 1947, Phys Rev 72:26"

    def choose(self, genes: WindowGenes) -> NDArray[np.int64]:
        """See `PatchRule.choose`."""
        mean = genes.mean
        return genes.largest(np.divide(genes.variance, mean, out=np.zeros_like(mean), where=mean > 0))
