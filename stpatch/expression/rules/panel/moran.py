"""Panel rule ``moran``: genes whose values are most alike in neighbouring spots."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stpatch.errors import MismatchError
from stpatch.expression.rules.base import MomentRule
from stpatch.expression.rules.registry import register

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from stpatch.expression.pool import PooledStatistics


@register
class Moran(MomentRule):
    """Moran's I: ``n / W * sum_ij(w_ij z_i z_j) / sum_i(z_i**2)``, z the value minus the mean, W the sum of weights.

    Weights are the neighbours of a slide's lattice (or its 6 nearest spots), each row divided by its sum. Pooled, spots
    of two slides are never neighbours and z is taken from the mean of all slides, so differences between slides count.
    """

    name = "moran"
    source = "Moran 1950, Biometrika 37:17; equals esda.Moran on the same weights"
    needs = frozenset({"neighbours"})

    def of(self, pooled: PooledStatistics) -> NDArray[np.float64]:
        """Return the (genes,) score."""
        if pooled.moran is None:
            raise MismatchError(
                "slide statistics lack the neighbour sums that rule moran needs",
                where="channels.method",
                hint="run the normalize stage again with this rule in the config",
            )
        return pooled.moran.index
