"""Panel rule ``hvg_seurat_v3``: variance after a variance-stabilizing transform, as scanpy's flavor "seurat_v3"."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stpatch.expression.rules.base import CountRule, RuleSpec
from stpatch.expression.rules.registry import register

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from stpatch.expression.moments import CountMoments
    from stpatch.expression.pool import PooledStatistics
    from stpatch.expression.rank import Join
    from stpatch.expression.rules.base import SlidePass
    from stpatch.slides.slide import Slide


@register
class HvgSeuratV3(CountRule):
    """Variance of ``min((count - mean) / sigma, sqrt(n))``, sigma being what a gene's mean predicts.

    ``log10(sigma**2)`` is a loess (span 0.3, degree 2) of log10 variance on log10 mean over the genes that vary.
    Pooled, sigma is that of the pooled moments; for a gene that only some slides measured, n counts their spots.
    """

    name = "hvg_seurat_v3"
    source = 'Stuart et al. 2019, Cell 177:1888; equals scanpy.pp.highly_variable_genes(flavor="seurat_v3")'

    def score_slide(
        self, _spec: RuleSpec, slide: Slide, _totals: NDArray[np.float64], counts: CountMoments
    ) -> NDArray[np.float64]:
        """See `CountRule.score_slide`."""
        from stpatch.expression.vst import vst_score

        return vst_score(slide.counts, counts, where=slide.slide_id)

    def score(self, _spec: RuleSpec, pooled: PooledStatistics, slides: SlidePass) -> NDArray[np.float64]:
        """See `PanelRule.score`."""
        import numpy as np

        from stpatch.expression.vst import clip_limit, clipped_sums, expected_deviation, standardized_variance

        if pooled.counts.n.max(initial=0) < 2:
            return np.full(pooled.size, np.nan)
        deviation = expected_deviation(pooled.counts, where=f"channels.method: {self.name}")
        limit = clip_limit(pooled.counts, deviation)
        # the limit is fixed by the pooled moments, so sums of clipped counts simply add up over slides
        total, squares = np.zeros(pooled.size), np.zeros(pooled.size)
        for slide, positions in slides():
            sums = clipped_sums(slide.counts, limit[positions])
            total[positions] += sums[0]
            squares[positions] += sums[1]
        return standardized_variance(pooled.counts, deviation, total, squares)

    def join(self, spec: RuleSpec) -> Join:
        """Sort by median rank first, then by the number of slides: scanpy does so for this flavor alone."""
        from stpatch.expression.rank import RankJoin

        return RankJoin(n=spec.n, rank_first=True)
