"""Logarithms of the loops, and the one definition in its two forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stpatch.kernels import formula
from stpatch.kernels.normalization import fill_table, log, log1p, normalized, tabled_value


@given(st.floats(1e-300, 1e300), st.floats(0, 1e15))
@settings(max_examples=500, deadline=None)
def test_logarithms_are_right_to_the_last_places(x, y):
    assert log(x) == pytest.approx(math.log(x), rel=5e-16, abs=1e-18)
    assert log1p(y) == pytest.approx(math.log1p(y), rel=7e-16, abs=1e-300)


@given(st.integers(0, 2**32 - 1), st.floats(1e-6, 1e6), st.sampled_from(sorted(formula.METHODS)))
@settings(max_examples=200, deadline=None)
def test_loops_and_arrays_have_one_definition(count, scale, name):
    method = formula.METHODS[name]
    found = normalized(float(count), scale, method)
    if name == "none":
        assert found == count
        return
    array = np.array([float(count)])
    formula.normalize_array(array, scale, method, out=array)
    assert found == pytest.approx(array[0], rel=1e-15)


def test_what_scales_has_nothing_to_do_for_none():
    with pytest.raises(ValueError, match="nothing to compute"):
        formula.normalize_array(np.ones(1), 1.0, formula.NONE, out=np.empty(1))


@pytest.mark.parametrize("name", sorted(formula.METHODS))
def test_the_table_holds_what_is_computed(name):
    method, table = formula.METHODS[name], np.empty(5)
    fill_table(0.37, method, table)
    for count in (0, 1, 4, 5, 70000):
        assert tabled_value(count, 0.37, method, table) == normalized(float(count), 0.37, method)


def test_an_empty_spot_has_no_scale():
    assert formula.spot_scale(np.array([0.0, 4.0]), 2.0).tolist() == [0.0, 0.5]
