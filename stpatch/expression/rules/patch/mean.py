"""Patch rule ``mean``: the genes of the highest mean within the patch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stpatch.expression.rules.base import PatchRule
from stpatch.expression.rules.registry import register

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from stpatch.expression.sample import WindowGenes


@register
class Mean(PatchRule):
    """The n largest means over the patch's occupied pixels; genes without a count are not chosen."""

    name = "mean"
    source = "numpy.mean"

    def choose(self, genes: WindowGenes) -> NDArray[np.int64]:
        """See `PatchRule.choose`."""
        return genes.largest(genes.mean)
