"""Panel rule ``pearson_residuals``: variance of analytic Pearson residuals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stpatch.errors import InputError
from stpatch.expression.rules.base import CountRule, RuleSpec
from stpatch.expression.rules.registry import register

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from stpatch.expression.moments import CountMoments, ValueMoments
    from stpatch.expression.pool import PooledStatistics
    from stpatch.expression.rules.base import SlidePass
    from stpatch.slides.slide import Slide


@register
class PearsonResiduals(CountRule):
    """Variance (with n) of ``(count - mu) / sqrt(mu + mu**2 / theta)``, clipped at ``sqrt(n)``.

    mu is the spot's total times the gene's share of all counts. One slide clips at the square root of its own number of
    spots (scanpy 1.11 with several batches clips all of them at the first one's). Pooled, shares and clipping are those
    of the slides that measured the gene.
    """

    name = "pearson_residuals"
    source = "Lause et al. 2021, Genome Biol 22:258; equals scanpy.experimental.pp.highly_variable_genes"

    def score_name(self, spec: RuleSpec) -> str:
        """Return the name with theta: scores of two overdispersions are two things."""
        return f"{self.name}-{spec.theta:g}"

    def score_slide(
        self, spec: RuleSpec, slide: Slide, totals: NDArray[np.float64], counts: CountMoments
    ) -> NDArray[np.float64]:
        """See `CountRule.score_slide`."""
        import numpy as np

        from stpatch.expression.moments import ValueMoments

        grand = totals.sum()
        shares = counts.total / grand if grand else np.zeros(slide.n_genes)
        clip = np.full(slide.n_genes, float(slide.n_spots) ** 0.5)
        return residual_variance(
            ValueMoments.of_residuals(slide.counts, totals, shares=shares, theta=spec.theta, clip=clip)
        )

    def score(self, spec: RuleSpec, pooled: PooledStatistics, slides: SlidePass) -> NDArray[np.float64]:
        """See `PanelRule.score`."""
        import numpy as np

        from stpatch.expression.moments import ValueMoments, ratio
        from stpatch.expression.normalize import spot_totals

        shares = ratio(pooled.counts.total, pooled.reach)
        clip = np.sqrt(pooled.counts.n)
        moments: ValueMoments | None = None
        for slide, positions in slides():
            part = ValueMoments.of_residuals(
                slide.counts,
                spot_totals(slide.counts),
                shares=shares[positions],
                theta=spec.theta,
                clip=clip[positions],
            ).scatter_to_axis(positions, pooled.size)
            moments = part if moments is None else moments.merged(part)
        if moments is None:
            raise InputError(
                "there are no slides to look at",
                where=f"channels.method: {self.name}",
                hint="look at the slides that the earlier stages left",
            )
        return residual_variance(moments)


def residual_variance(moments: ValueMoments) -> NDArray[np.float64]:
    """Return the (genes,) variance with n, as scanpy's residual variance is; 0 without spots."""
    from stpatch.expression.moments import ratio

    return ratio(moments.m2, moments.n)
