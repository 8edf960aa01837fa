"""The normalized value of one count, compiled: `stpatch.kernels.formula.value_of` with the arithmetic of the loops.

It gives the same bits on every machine: logarithms are written out in plain arithmetic, as a C library's may differ in
the last place between machines, and no operation is fused or reordered.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from stpatch.kernels.formula import NONE, value_of
from stpatch.kernels.registry import kernel

_LN2_HIGH = 6.93147180369123816490e-01  # ln 2 with 32 low bits clear, so that a whole multiple is exact
_LN2_LOW = 1.90821492927058770002e-10
_SQRT_HALF_BITS = 0x3FE6A09E667F3BCD
_MANTISSA = 0x000FFFFFFFFFFFFF


def _bits_of(_context: Any, _x: Any) -> Any:
    """Return the int64 that has the bits of a float64."""

    def code(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(types.int64))

    return types.int64(types.float64), code


def _of_bits(_context: Any, _bits: Any) -> Any:
    """Return the float64 that has the bits of an int64."""

    def code(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(types.float64))

    return types.float64(types.int64), code


bits_of: Any = intrinsic(_bits_of)
of_bits: Any = intrinsic(_of_bits)


@kernel(inline=True)
def log(x: float) -> float:
    """Return the natural logarithm of a positive normal number, within 2 units of the last place.

    With x = 2**exponent * (1 + f) and s = f / (2 + f)::

        log(x) = exponent * ln 2 + 2 atanh(s),   2 atanh(s) = 2 s + 2/3 s**3 + 2/5 s**5 + ...
    """
    # Subtracting the bits of sqrt(1/2) before the exponent is cut off puts 1 + f into [sqrt(1/2), sqrt(2)): around 1,
    # so that no digits cancel where x is just below a power of two.
    offset = bits_of(x) - _SQRT_HALF_BITS
    exponent = float(offset >> 52)
    f = of_bits(_SQRT_HALF_BITS + (offset & _MANTISSA)) - 1.0
    s = f / (2.0 + f)
    z = s * s  # below 0.0295: twelve terms of the series pass the last place
    p = 2.0 / 23.0
    p = p * z + 2.0 / 21.0
    p = p * z + 2.0 / 19.0
    p = p * z + 2.0 / 17.0
    p = p * z + 2.0 / 15.0
    p = p * z + 2.0 / 13.0
    p = p * z + 2.0 / 11.0
    p = p * z + 2.0 / 9.0
    p = p * z + 2.0 / 7.0
    p = p * z + 2.0 / 5.0
    p = p * z + 2.0 / 3.0
    # 2 s = f - s f, so that the largest term is f itself, which is exact; the small ones are added first
    half = 0.5 * f * f
    return float(exponent * _LN2_HIGH - ((half - (s * (half + p * z) + exponent * _LN2_LOW)) - f))


@kernel(inline=True)
def log1p(y: float) -> float:
    """Return log(1 + y) for y >= 0, within 3 units of the last place."""
    u = 1.0 + y
    return log(u) + (y - (u - 1.0)) / u  # what rounding 1 + y lost is put back by the slope, 1 / u


@kernel(inline=True)
def multiply(x: float, scale: float) -> float:
    """Return the product."""
    return x * scale


@kernel(inline=True)
def sqrt(x: float) -> float:
    """Return the square root, which IEEE 754 fixes to the last bit."""
    return math.sqrt(x)


_value_of = kernel(inline=True)(value_of)


@kernel(inline=True)
def normalized(x: float, scale: float, method: int) -> float:
    """Return the normalized value of a count; `scale` is target_sum / total."""
    return float(_value_of(x, scale, method, multiply, log1p, sqrt))


@kernel(inline=True)
def fill_table(scale: float, method: int, table: NDArray[np.float64]) -> None:
    """Write the values of the counts 0, 1, 2, ... of a spot.

    Most counts of a spot are small, and a logarithm takes longer than a look-up.
    """
    for count in range(len(table)):
        table[count] = normalized(float(count), scale, method)


@kernel(inline=True)
def tabled_value(count: Any, scale: float, method: int, table: NDArray[np.float64]) -> float:
    """Return the normalized value of a count, from the table if it is small."""
    if method == NONE:
        return float(count)
    x = np.uintp(count)  # unsigned: one comparison is the whole check of bounds
    return float(table[x]) if x < np.uintp(len(table)) else normalized(float(count), scale, method)
