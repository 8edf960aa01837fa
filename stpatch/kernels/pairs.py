"""Sums of values next to sums of their squares, updated together by one vector load, add and store.

The loops that add values up spend their time on these updates: a gene's two sums lie side by side in memory, and LLVM
does not join them by itself. Each lane does what the plain code would, so the bits are the same.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic


def _add_with_square(_context: Any, sums: Any, row: Any, value: Any) -> Any:
    """Add a value and its square to a row of (rows, 2) float64 `sums`, C order."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _add_pairs(context, builder, signature.args[0], arguments[0], arguments[1:2], arguments[2:])
        return context.get_dummy_value()

    return types.none(sums, row, value), code


def _add_four_with_squares(_context: Any, sums: Any, rows: Any, values: Any) -> Any:
    """Add four values to four different rows as `add_with_square` does, both tuples of four; no load waits for a store.

    The caller makes sure that the rows differ, as all four are loaded before any is stored.
    """

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        rows, values = (
            [builder.extract_value(arguments[place], i) for i in range(signature.args[place].count)] for place in (1, 2)
        )
        _add_pairs(context, builder, signature.args[0], arguments[0], rows, values)
        return context.get_dummy_value()

    return types.none(sums, rows, values), code


def _add_pairs(context: Any, builder: Any, of_type: Any, sums: Any, rows: Any, values: Any) -> None:
    """Write the code that loads all rows, adds to each (value, value squared), and stores all."""
    pair, number = ir.VectorType(ir.DoubleType(), 2), ir.IntType(32)
    begin = builder.bitcast(context.make_array(of_type)(context, builder, sums).data, pair.as_pointer())
    places = [builder.gep(begin, [row]) for row in rows]
    # NumPy aligns float64 to 8 bytes: a load that trusted 16 would fault on some arrays
    loaded = [builder.load(place, align=8) for place in places]
    for place, old, value in zip(places, loaded, values, strict=True):
        both = builder.insert_element(ir.Constant(pair, ir.Undefined), value, ir.Constant(number, 0))
        both = builder.insert_element(both, builder.fmul(value, value), ir.Constant(number, 1))
        builder.store(builder.fadd(old, both), place, align=8)


add_with_square: Any = intrinsic(_add_with_square)
add_four_with_squares: Any = intrinsic(_add_four_with_squares)
