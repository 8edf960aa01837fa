"""Patch rule ``variance``: the genes that vary most within the patch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stpatch.expression.rules.base import PatchRule
from stpatch.expression.rules.registry import register

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from stpatch.expression.sample import WindowGenes


@register
class Variance(PatchRule):
    """The n largest variances (with n - 1) over the patch's occupied pixels; genes that do not vary are not chosen."""

    name = "variance"
    source = "numpy.var(ddof=1)"

    def choose(self, genes: WindowGenes) -> NDArray[np.int64]:
        """See `PatchRule.choose`."""
        return genes.largest(genes.variance)
