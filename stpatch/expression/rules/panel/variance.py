"""Panel rule ``variance``: genes whose normalized values vary most."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stpatch.expression.rules.base import MomentRule
from stpatch.expression.rules.registry import register

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from stpatch.expression.pool import PooledStatistics


@register
class Variance(MomentRule):
    """Sample variance of the normalized values: ``sum((x - mean)**2) / (n - 1)``, as ``numpy.var(x, ddof=1)``."""

    name = "variance"
    source = "numpy.var(ddof=1)"

    def of(self, pooled: PooledStatistics) -> NDArray[np.float64]:
        """Return the (genes,) score."""
        return pooled.values.variance
