from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stpatch.slides.axis_fit import fit_axis


@given(st.integers(2, 120), st.floats(0.01, 1000), st.floats(-1000, 1000), st.floats(0.92, 1.08))
def test_spacing_and_place_come_back(n, spacing, start, factor):
    points = np.arange(n) * spacing + start * spacing
    place, fitted = fit_axis(points[::-1].copy(), spacing * factor)
    steps = (points - place) / fitted
    assert np.abs(steps - np.rint(steps)).max() < 0.25
    assert (np.diff(np.rint(steps)) == 1).all()


def test_a_pitch_that_serves_is_kept():
    assert fit_axis(np.arange(10.0), 1.004) == (pytest.approx(-0.018, abs=0.01), 1.004)


def test_one_place_is_its_own_lattice():
    assert fit_axis(np.full(5, 3.5), 2.0) == (3.5, 2.0)
