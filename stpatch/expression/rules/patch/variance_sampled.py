"""Patch rule ``variance_sampled``: genes drawn by how much they vary within the patch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stpatch.expression.rules.base import PatchRule
from stpatch.expression.rules.registry import register

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from stpatch.expression.sample import WindowGenes


@register
class VarianceSampled(PatchRule):
    """n genes without replacement with weights equal to the variances over the patch's occupied pixels.

    The n smallest of ``-log(u) / variance`` with u uniform in (0, 1): the exponential form of Efraimidis and Spirakis'
    keys ``u ** (1 / w)``, which neither under- nor overflows. Genes of variance 0 are never drawn.
    """

    name = "variance_sampled"
    source = "Efraimidis and Spirakis 2006, Inf Process Lett 97:181"
    draws = True

    def choose(self, genes: WindowGenes) -> NDArray[np.int64]:
        """See `PatchRule.choose`."""
        return genes.draw(genes.variance)
