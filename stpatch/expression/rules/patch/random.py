"""Patch rule ``random``: any genes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stpatch.expression.rules.base import PatchRule
from stpatch.expression.rules.registry import register

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from stpatch.expression.sample import WindowGenes


@register
class Random(PatchRule):
    """n of the candidates without replacement, all with the same probability: the n smallest of uniform keys."""

    name = "random"
    source = "simple random sampling by keys; equals a sort of Philox4x32-10 uniforms"
    draws = True

    def choose(self, genes: WindowGenes) -> NDArray[np.int64]:
        """See `PatchRule.choose`."""
        return genes.draw_any()
