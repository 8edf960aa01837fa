from __future__ import annotations

import numpy as np
import pytest
from bundles.lattices import disc, square_array, square_xy, turned
from bundles.visium import hex_array, hex_xy
from hypothesis import given, settings
from hypothesis import strategies as st

from stpatch.slides.formats.tenx.lattice import is_hexagonal
from stpatch.slides.lattice_fit import find_lattice


def neighbours(array: np.ndarray, offsets: list[tuple[int, int]]) -> set[tuple[int, int]]:
    """Return the pairs of rows that are neighbours on an array."""
    row_of = {tuple(place): row for row, place in enumerate(array.tolist())}
    return {
        (row, row_of[place[0] + down, place[1] + right])
        for place, row in row_of.items()
        for down, right in offsets
        if (place[0] + down, place[1] + right) in row_of
    }


HEX = [(0, 2), (0, -2), (1, 1), (1, -1), (-1, 1), (-1, -1)]
SQUARE = [(0, 1), (0, -1), (1, 0), (-1, 0)]


@given(
    hexagonal=st.booleans(),
    degrees=st.floats(-180, 180),
    pitch=st.floats(0.01, 1e4),
    jitter=st.sampled_from([0.0, 0.02, 0.04]),
    share=st.sampled_from([0.5, 0.3]),
    seed=st.integers(0, 100),
)
@settings(max_examples=60, deadline=None)
def test_spots_of_a_lattice_keep_their_neighbours(
    *, hexagonal: bool, degrees: float, pitch: float, jitter: float, share: float, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    array = hex_array(14, 11) if hexagonal else square_array(14, 12)
    xy = hex_xy(array) / 200 if hexagonal else square_xy(array, step=1.0)
    keep = disc(array, share=share) & (generator.random(len(array)) < 0.9)
    array, xy = array[keep], xy[keep]
    order = generator.permutation(len(xy))
    xy = (turned(xy, degrees) + generator.normal(0, jitter, xy.shape)) * pitch + generator.normal(0, 1e4, 2)
    fit = find_lattice(xy[order])
    assert fit is not None
    assert fit.geometry == ("hex" if hexagonal else "square")
    assert fit.pitch == pytest.approx(pitch, rel=0.02)
    assert fit.array.min(axis=0)[0] == 0
    assert fit.array.min() in (0, 1)
    if hexagonal:
        assert is_hexagonal(fit.array)
    offsets = HEX if hexagonal else SQUARE
    assert neighbours(fit.array, offsets) == neighbours(array[order], offsets)
    assert len(np.unique(fit.array, axis=0)) == len(xy)


@pytest.mark.parametrize("degrees", [-40, -10, 0, 10, 40])
def test_the_angle_and_the_origin_say_where_places_lie(degrees: float) -> None:
    xy = turned(square_xy(square_array(9, 7), step=5.0), degrees) + np.array([50, -70])
    fit = find_lattice(xy)
    assert fit is not None
    assert fit.angle == pytest.approx(degrees)
    unit = turned(np.array([[1.0, 0.0], [0.0, 1.0]]), degrees) * fit.pitch
    np.testing.assert_allclose(fit.array[:, ::-1] @ unit + fit.origin, xy)
    assert fit.farthest == pytest.approx(0, abs=1e-9)


def test_a_hexagonal_lattice_of_visium_has_its_indices_and_its_origin() -> None:
    array = hex_array(8, 6)
    fit = find_lattice(hex_xy(array))
    assert fit is not None
    np.testing.assert_array_equal(fit.array, array)
    np.testing.assert_allclose(fit.origin, [50, 50])
    fit = find_lattice(hex_xy(array)[6:])  # the first row is odd
    assert fit is not None
    assert is_hexagonal(fit.array)
    assert fit.array[0].tolist() == [0, 2]
    np.testing.assert_allclose(fit.origin, [-50, 50 + 100 * 3**0.5])


def test_a_hexagonal_lattice_turned_by_a_quarter_has_its_rows_along_y() -> None:
    fit = find_lattice(turned(hex_xy(hex_array(8, 6)), 90))
    assert fit is not None
    assert fit.angle == pytest.approx(90)
    assert np.ptp(fit.array[:, 0]) == 7


@pytest.mark.parametrize("n", [3, 9, 20, 100, 2000])
def test_spots_anywhere_are_on_no_lattice(n: int) -> None:
    for seed in range(20):
        assert find_lattice(np.random.default_rng(seed).random((n, 2))) is None


@pytest.mark.parametrize(
    "xy",
    [
        np.zeros((20, 2)),
        np.column_stack([np.arange(20.0), np.zeros(20)]),
        np.vstack([square_xy(square_array(5, 5)), square_xy(square_array(5, 5))]),
        np.vstack([square_xy(square_array(5, 5)), square_xy(square_array(5, 5)) + 9]),
        square_xy(square_array(12, 12)) * [1, 1.5],
    ],
    ids=["one place", "one line", "twice", "two lattices", "stretched"],
)
def test_what_is_no_lattice_of_one_spot_a_place(xy: np.ndarray) -> None:
    assert find_lattice(xy) is None
