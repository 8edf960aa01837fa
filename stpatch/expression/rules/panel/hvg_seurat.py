"""Panel rule ``hvg_seurat``: genes that vary more than others of their mean, as scanpy's flavor "seurat"."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stpatch.expression.rules.base import DispersionRule
from stpatch.expression.rules.registry import register

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from stpatch.expression.pool import PooledStatistics


@register
class HvgSeurat(DispersionRule):
    """Normalized dispersion: ``log(variance / mean)``, standardized within 20 bins of equal width of ``log1p(mean)``.

    Mean and variance are those of the values before logarithm or square root (of the raw counts with normalization
    ``none``), as scanpy takes the logarithm back.
    """

    name = "hvg_seurat"
    source = 'Satija et al. 2015, Nat Biotechnol 33:495; equals scanpy.pp.highly_variable_genes(flavor="seurat")'

    def of_some(self, pooled: PooledStatistics, some: NDArray[np.int64] | slice) -> NDArray[np.float64]:
        """See `DispersionRule.of_some`."""
        from stpatch.expression.dispersion import seurat_score

        moments = pooled.counts if pooled.scaled is None else pooled.scaled
        return seurat_score(moments.mean[some], moments.variance[some])
