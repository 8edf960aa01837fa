"""Panel rule ``hvg_cell_ranger``: genes that vary more than others of their mean, as scanpy's flavor "cell_ranger"."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stpatch.expression.rules.base import DispersionRule
from stpatch.expression.rules.registry import register

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from stpatch.expression.pool import PooledStatistics


@register
class HvgCellRanger(DispersionRule):
    """Normalized dispersion: ``(variance / mean - median) / MAD`` of the gene's bin.

    Bins lie between the 10th, 15th, ... and 100th percentile of the means. Mean and variance are those
    of the normalized values; MAD is the median absolute deviation over the normal quartile.
    """

    name = "hvg_cell_ranger"
    source = 'Zheng et al. 2017, Nat Commun 8:14049; equals scanpy.pp.highly_variable_genes(flavor="cell_ranger")'

    def of_some(self, pooled: PooledStatistics, some: NDArray[np.int64] | slice) -> NDArray[np.float64]:
        """See `DispersionRule.of_some`."""
        from stpatch.expression.dispersion import cell_ranger_score

        moments = pooled.values
        return cell_ranger_score(moments.mean[some], moments.variance[some])
