"""Panel rule ``mean``: genes of the highest mean normalized value."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stpatch.expression.rules.base import MomentRule
from stpatch.expression.rules.registry import register

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from stpatch.expression.pool import PooledStatistics


@register
class Mean(MomentRule):
    """Mean of the normalized values: ``sum(x) / n``, as ``numpy.mean``; one spot is enough to rank by it."""

    name = "mean"
    source = "numpy.mean"
    min_spots = 1

    def of(self, pooled: PooledStatistics) -> NDArray[np.float64]:
        """Return the (genes,) score."""
        return pooled.values.mean
