"""Panel rule ``cv``: genes whose values vary most for their mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stpatch.expression.rules.base import MomentRule
from stpatch.expression.rules.registry import register

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from stpatch.expression.pool import PooledStatistics


@register
class CoefficientOfVariation(MomentRule):
    """``sqrt(variance) / mean`` of the normalized values; no score where the mean is not above 0."""

    name = "cv"
    source = "numpy.std(ddof=1) / numpy.mean"
    refuses = frozenset({"pearson_residuals"})
    refusal = "divides by a gene's mean, and Pearson residuals have means of about 0"

    def of(self, pooled: PooledStatistics) -> NDArray[np.float64]:
        """Return the (genes,) score."""
        import numpy as np

        from stpatch.expression.moments import ratio

        values = pooled.values
        return ratio(np.sqrt(values.variance), values.mean, where=values.mean > 0, other=np.nan)
