"""Panel rule ``detected``: genes that are seen in the most spots."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stpatch.expression.rules.base import MomentRule
from stpatch.expression.rules.registry import register

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from stpatch.expression.pool import PooledStatistics


@register
class Detected(MomentRule):
    """Number of spots with a count above 0: ``sum(count > 0)``; pooled it is a number too, not a share."""

    name = "detected"
    source = "numpy.count_nonzero(axis=0)"
    min_spots = 1

    def of(self, pooled: PooledStatistics) -> NDArray[np.float64]:
        """Return the (genes,) score."""
        import numpy as np

        return pooled.counts.detected.astype(np.float64)
