"""The definition of a normalization that keeps zero zero: compiled for the loops, and called on whole arrays.

This is its one place. It imports no compiler, so that a reader of datasets needs none.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

NONE, TOTAL, LOG1P_TOTAL, SQRT_TOTAL = 0, 1, 2, 3
METHODS = {"none": NONE, "total": TOTAL, "log1p_total": LOG1P_TOTAL, "sqrt_total": SQRT_TOTAL}
"""The config's names of the methods, and the numbers that the loops know them by."""
SCALED_METHODS = tuple(name for name, number in METHODS.items() if number != NONE)
"""The methods that divide by a spot's total."""


class Formula(NamedTuple):
    """A normalization that keeps zero zero.

    Attributes
    ----------
    method
        Of `METHODS`.
    target_sum
        What the counts of a spot are scaled to; of no meaning with ``none``.
    """

    method: int = NONE
    target_sum: float = 1.0


def value_of(
    x: Any,
    scale: Any,
    method: int,
    multiply: Callable[[Any, Any], Any],
    log1p: Callable[[Any], Any],
    sqrt: Callable[[Any], Any],
) -> Any:
    """Return the normalized value of a count: the definition.

    Parameters
    ----------
    x
        Count or counts.
    scale
        ``target_sum / total`` of the spot or spots.
    method
        Of `METHODS`.
    multiply, log1p, sqrt
        The arithmetic: of the loops, on one float64, the same bits on every machine
        (`stpatch.kernels.normalization`); of NumPy, on arrays (`normalize_array`).
    """
    if method == LOG1P_TOTAL:
        return log1p(multiply(x, scale))
    if method == TOTAL:
        return multiply(x, scale)
    if method == SQRT_TOTAL:
        return sqrt(multiply(x, scale))
    return x


def normalize_array(x: NDArray[Any], scale: Any, method: int, *, out: NDArray[Any]) -> None:
    """Write the normalized values of counts to `out`, in its precision; `out` may be `x`.

    Parameters
    ----------
    x
        Counts.
    scale
        ``target_sum / total``, to be broadcast against `x`.
    method
        One that scales.
    out
        Of the shape of `x`, floating.
    """
    if method == NONE:
        raise ValueError("the method none has nothing to compute")
    multiply = partial(np.multiply, out=out, dtype=out.dtype, casting="same_kind")
    value_of(x, scale, method, multiply, partial(np.log1p, out=out), partial(np.sqrt, out=out))


def spot_scale(totals: NDArray[np.floating[Any]], target_sum: float) -> NDArray[np.float64]:
    """Return ``target_sum / totals``, 0 where the total is 0."""
    totals = np.asarray(totals, dtype=np.float64)
    scale = np.zeros_like(totals)
    np.divide(target_sum, totals, out=scale, where=totals > 0)
    return scale
