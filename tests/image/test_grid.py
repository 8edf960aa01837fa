from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stpatch.config import GridSection
from stpatch.errors import ConfigError, InputError
from stpatch.image.grid import Grid, make_grid

LATTICE = GridSection()
UM = GridSection(method="um", pitch_um=10)


def grid_of(
    xy=None, array=None, *, geometry="square", um_per_unit=1.0, pitch=None, section=LATTICE, order=None
) -> Grid:
    xy = np.asarray(array if xy is None else xy, dtype=np.float64)
    array = None if array is None else np.asarray(array, dtype=np.int32)
    return make_grid(
        xy=xy,
        array=array,
        geometry=geometry,
        um_per_unit=um_per_unit,
        pitch=pitch,
        section=section,
        order=order,
        where="slide s",
    )


def places(grid: Grid) -> list[tuple[int, int]]:
    return [(pixel // grid.shape[1], pixel % grid.shape[1]) for pixel in grid.pixel.tolist()]


def hex_array(rows: int, cols: int, top: int = 0, left: int = 0) -> np.ndarray:
    row, col = np.meshgrid(np.arange(top, top + rows), np.arange(left, left + cols), indexing="ij")
    array = np.stack([row.ravel(), col.ravel()], axis=1)
    return array[array.sum(axis=1) % 2 == 0].astype(np.int32)


def hex_xy(array: np.ndarray) -> np.ndarray:
    """Return Visium's places, in pitches."""
    return np.stack([array[:, 1] / 2, array[:, 0] * 3**0.5 / 2], axis=1)


point_arrays = hnp.arrays(
    np.float64, st.tuples(st.integers(1, 60), st.just(2)), elements=st.floats(-400, 400, width=32).map(float)
)
index_arrays = hnp.arrays(np.int32, st.tuples(st.integers(1, 60), st.just(2)), elements=st.integers(-40, 200))
sections = st.sampled_from(
    [
        GridSection(method=method, pitch_um=7.5 if method == "um" else None, size=size, collisions=collisions)
        for method, size in (("um", None), ("fit", 9), ("lattice", None))
        for collisions in ("sum", "mean", "first")
    ]
)


# ---- every method ----------------------------------------------------------------------------------------------------


@given(index_arrays, sections, st.integers(0, 2**32 - 1))
def test_no_count_is_lost_and_no_spot_is_on_two_pixels(array, section, seed):
    counts = np.random.default_rng(seed).integers(0, 50, len(array))
    grid = grid_of(array[:, ::-1], array, section=section)
    kept = grid.pixel >= 0
    assert grid.pixel.shape == (len(array),)
    assert grid.pixel.dtype == np.int64
    assert grid.pixel.max() < grid.shape[0] * grid.shape[1]
    image = np.bincount(grid.pixel[kept], counts[kept], minlength=grid.shape[0] * grid.shape[1])
    assert image.sum() == counts[kept].sum()
    assert kept.sum() + grid.n_dropped == len(array)
    spots = grid.spots_per_pixel()
    assert spots.shape == grid.shape
    assert spots.dtype == np.int32
    assert spots.sum() == kept.sum()
    if section.collisions == "first":
        assert spots.max() == 1
        assert grid.n_dropped == grid.n_collisions
    else:
        assert kept.all()
        assert grid.n_collisions == len(array) - (spots > 0).sum()


@given(point_arrays, st.sampled_from(["um", "fit"]), st.randoms(use_true_random=False))
def test_the_order_of_spots_does_not_matter(xy, method, random):
    section = GridSection(method="um", pitch_um=7.5) if method == "um" else GridSection(method="fit", size=12)
    order = list(range(len(xy)))
    random.shuffle(order)
    one, other = grid_of(xy, section=section), grid_of(xy[order], section=section)
    assert one.pixel[order].tolist() == other.pixel.tolist()
    assert (one.shape, one.origin, one.n_collisions) == (other.shape, other.origin, other.n_collisions)


@given(index_arrays, st.integers(-5000, 5000), st.integers(-5000, 5000), st.sampled_from(["um", "fit", "lattice"]))
def test_translation_does_not_matter(array, dx, dy, method):
    section = GridSection(method="um", pitch_um=7.5) if method == "um" else GridSection(method="fit", size=12)
    one = grid_of(array[:, ::-1], array, section=section)
    moved = array + np.array([dy, dx], dtype=np.int32)
    other = grid_of(moved[:, ::-1], moved, section=section)
    assert one.pixel.tolist() == other.pixel.tolist()
    assert (other.origin[0] - one.origin[0], other.origin[1] - one.origin[1]) == pytest.approx((dx, dy))


def test_first_goes_by_the_order_given():
    array = [(0, 0), (0, 1), (0, 0), (0, 1), (0, 1)]
    grid = grid_of(array=array, section=GridSection(collisions="first"), order=np.array([4, 1, 3, 2, 0]))
    assert grid.pixel.tolist() == [-1, -1, 0, -1, 1]
    assert (grid.n_collisions, grid.n_dropped) == (3, 3)


def test_first_keeps_the_first_spot_in_row_order():
    array = [[5, 5], [4, 4], [5, 5], [4, 4], [5, 5]]
    grid = grid_of(array=array, section=GridSection(collisions="first"))
    assert grid.pixel.tolist() == [3, 0, -1, -1, -1]
    assert (grid.n_collisions, grid.n_dropped) == (3, 3)
    assert grid_of(array=array).n_dropped == 0
    assert grid_of(array=array).spots_per_pixel().tolist() == [[2, 0], [0, 3]]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("section", [LATTICE, UM, GridSection(method="fit", size=4)])
def test_coordinates_that_are_not_finite_are_refused_and_counted(bad, section):
    xy = np.zeros((5, 2))
    xy[3, 1] = bad
    with pytest.raises(InputError, match=r"1 of 5 spots(?s:.*)slide s(?s:.*)row 3"):
        grid_of(xy, np.zeros((5, 2)), section=section)


def test_a_slide_without_spots_is_refused():
    with pytest.raises(InputError, match="no spots"):
        grid_of(np.zeros((0, 2)), np.zeros((0, 2)))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"xy": [[0, 0], [1e6, 1e6]], "section": UM}, ["100001 x 100001", "pitch_um 10", "x 0 to 1e+06"]),
        ({"xy": [[0, 0], [1e300, 1e300]], "section": UM}, ["grid.pitch_um"]),
        ({"array": [[-(2**31), 0], [2**31 - 1, 2**31 - 1]]}, ["4294967296 x 2147483648", "rows -2147483648"]),
        ({"xy": [[0, 0], [50_000, 50_000]], "pitch": 1.0}, ["50001 x 50001", "pitch 1"]),
        ({"xy": [[0, 0]], "section": GridSection(method="fit", size=30_000)}, ["30000 x 30000", "grid.size"]),
    ],
)  # fmt: skip
def test_huge_grids_are_refused_with_extent_and_pitch(options, words):
    with pytest.raises(InputError) as caught:
        grid_of(**options)
    assert [word for word in [*words, "slide s"] if word not in str(caught.value)] == []


def test_a_grid_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        grid_of(array=[[0, 0]]).shape = (2, 2)  # type: ignore[misc]


# ---- lattice ---------------------------------------------------------------------------------------------------------


def test_square_indices_are_pixels():
    grid = grid_of(array=[[7, 3], [9, 4], [8, 10]], um_per_unit=0.5, pitch=4.0)
    assert places(grid) == [(0, 0), (2, 1), (1, 7)]
    assert grid.shape == (3, 8)
    assert grid.origin == (3.0, 7.0)
    assert grid.pitch_um == 2.0


@given(st.integers(1, 12), st.integers(2, 20), st.integers(-9, 9), st.integers(-9, 9))
def test_hex_keeps_every_spot_one_a_pixel(rows, cols, top, left):
    array = hex_array(rows, cols, top, left)
    grid = grid_of(array=array, geometry="hex")
    assert grid.n_collisions == 0
    assert grid.spots_per_pixel().sum() == len(array)
    # The array index comes back from pixel, origin and parity.
    for (row, col), (array_row, array_col) in zip(places(grid), array.tolist(), strict=True):
        assert row + grid.origin[1] == array_row
        assert 2 * col + grid.origin[0] + array_row % 2 == array_col


@given(st.integers(-9, 9), st.integers(-9, 9))
def test_hex_position_error_is_what_the_geometry_forces(top, left):
    array = hex_array(9, 14, top, left)
    grid = grid_of(array=array, geometry="hex")
    pixel = np.array(places(grid), dtype=np.float64)
    place = np.stack([pixel[:, 1], pixel[:, 0] * 3**0.5 / 2], axis=1)
    error = hex_xy(array) - place
    error -= (error.max(axis=0) + error.min(axis=0)) / 2
    assert np.abs(error[:, 0]).max() == pytest.approx(0.25)
    assert np.abs(error[:, 1]).max() == pytest.approx(0, abs=1e-9)
    # No map that keeps rows can do better: rows of the two parities lie half a pitch apart, pixels a whole one.
    offsets = {round(x % 1, 6) for x in hex_xy(array)[:, 0]}
    assert offsets == {0.0, 0.5}


def test_hex_neighbours_stay_neighbours():
    array = hex_array(8, 14)
    xy, pixel = hex_xy(array), np.array(places(grid_of(array=array, geometry="hex")))
    near = np.linalg.norm(xy[:, None] - xy[None], axis=2) < 1.01
    steps = np.abs(pixel[:, None] - pixel[None]).max(axis=2)
    assert near.sum(axis=1).max() == 7
    assert steps[near].max() == 1


def test_hex_translation_by_even_rows_does_not_matter():
    array = hex_array(6, 9)
    one = grid_of(array=array, geometry="hex")
    for shift in ([2, 0], [0, 2], [-4, 6]):
        assert grid_of(array=array + np.array(shift), geometry="hex").pixel.tolist() == one.pixel.tolist()


def test_all_positions_of_a_real_visium_slide_fill_its_grid(data_dir):
    table = pd.read_csv(data_dir / "visium_cytassist_mouse" / "spatial" / "tissue_positions.csv")
    array = table[["array_row", "array_col"]].to_numpy()
    xy = table[["pxl_col_in_fullres", "pxl_row_in_fullres"]].to_numpy(dtype=np.float64)
    grid = grid_of(xy, array, geometry="hex", um_per_unit=100 / 21.38, pitch=21.38)
    assert grid.shape == (78, 64)
    assert (grid.spots_per_pixel() == 1).all()
    assert grid.pitch_um == pytest.approx(100)


def test_hex_of_the_other_parity_is_as_good_but_mixed_parity_is_refused():
    array = hex_array(5, 8)
    grid = grid_of(array=array + np.array([0, 1]), geometry="hex")
    assert grid.n_collisions == 0
    array[3, 1] += 1
    with pytest.raises(InputError, match=r"hexagonal lattice(?s:.*)fewer: 1"):
        grid_of(array=array, geometry="hex")


@given(
    st.integers(1, 8),
    st.integers(1, 8),
    st.floats(0.5, 300),
    st.floats(-1000, 1000),
    st.floats(-1000, 1000),
    st.integers(0, 2**32 - 1),
)
def test_float_positions_round_to_the_lattice(rows, cols, pitch, x0, y0, seed):
    index = np.indices((rows, cols)).reshape(2, -1).T
    noise = np.random.default_rng(seed).uniform(-0.1, 0.1, index.shape)
    xy = ((index + noise) * pitch + np.array([y0, x0]))[:, ::-1]
    grid = grid_of(xy, pitch=pitch)
    assert grid.shape == (rows, cols)
    assert places(grid) == [tuple(pair) for pair in index.tolist()]
    assert np.abs(np.array(grid.origin) - (x0, y0)).max() <= 0.11 * pitch
    order = np.random.default_rng(seed).permutation(len(xy))
    again = grid_of(xy[order], pitch=pitch)
    assert (again.origin, again.pixel.tolist()) == (grid.origin, grid.pixel[order].tolist())


@given(st.floats(0.93, 1.07), st.integers(20, 80))
@settings(max_examples=40)
def test_a_roughly_known_pitch_is_enough(factor, side):
    index = np.indices((side, 7)).reshape(2, -1).T
    noise = np.random.default_rng(side).uniform(-0.1, 0.1, index.shape)
    grid = grid_of((index + noise)[:, ::-1] * 50 + 13, pitch=50 * factor)
    assert places(grid) == [tuple(pair) for pair in index.tolist()]


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"xy": [[0, 0], [3, 5]], "pitch": None}, "no array indices and no pitch"),
        ({"xy": [[0, 0], [1, 0], [0.5, 3**0.5 / 2], [1.5, 3**0.5 / 2]], "pitch": 1.0}, "away from its lattice point"),
        ({"xy": [[0, 0], [0.1, 0], [1, 1]], "pitch": 1.0}, "1 spots that round to a lattice point of another spot"),
        ({"xy": np.random.default_rng(0).uniform(0, 50, (400, 2)), "pitch": 2.0}, "away from its lattice point"),
    ],
)
def test_coordinates_on_no_lattice_are_refused_with_the_way_out(options, found):
    with pytest.raises(ConfigError) as caught:
        grid_of(**options, geometry="irregular")
    assert found in str(caught.value)
    assert "grid: {method: um" in str(caught.value)


@pytest.mark.parametrize("section", ["A1", "B1", "C1", "D1"])
def test_adjusted_and_imaged_positions_of_real_arrays_round_to_their_indices(data_dir, section):
    table = pd.read_csv(data_dir / "her2st" / "ST-spotfiles" / f"{section}_selection.tsv", sep="\t")
    expected = grid_of(array=table[["y", "x"]])
    for columns in (["new_x", "new_y"], ["pixel_x", "pixel_y"]):
        xy = table[columns].to_numpy(dtype=np.float64)
        distance = np.linalg.norm(xy[:, None] - xy[None], axis=2)
        np.fill_diagonal(distance, np.inf)
        grid = grid_of(xy, pitch=float(np.median(distance.min(axis=1))))
        assert grid.shape == expected.shape
        assert grid.pixel.tolist() == expected.pixel.tolist()


# ---- um --------------------------------------------------------------------------------------------------------------


@given(point_arrays, st.floats(0.05, 2), st.floats(2, 60), st.sampled_from(["irregular", "square", "hex"]))
def test_um_position_error_is_at_most_half_a_pixel(xy, um_per_unit, pitch_um, geometry):
    section = GridSection(method="um", pitch_um=pitch_um)
    grid = grid_of(xy, geometry=geometry, um_per_unit=um_per_unit, pitch=5.0, section=section)
    centre = (np.array(places(grid))[:, ::-1] + 0.5) * pitch_um / um_per_unit + np.array(grid.origin)
    assert np.abs(xy - centre).max() <= 0.5000001 * pitch_um / um_per_unit
    assert grid.pitch_um == pitch_um
    assert (grid.spots_per_pixel().sum(axis=1)[[0, -1]] > 0).all()
    assert (grid.spots_per_pixel().sum(axis=0)[[0, -1]] > 0).all()


def test_um_float_noise_moves_no_spot_across_an_edge():
    tenths = np.arange(200) / 10  # 0.3 / 0.1 is 2.9999999999999996
    grid = grid_of(np.stack([tenths, tenths], axis=1), None, section=GridSection(method="um", pitch_um=0.1))
    assert places(grid) == [(k, k) for k in range(200)]


def test_um_floors_from_the_least_coordinate():
    grid = grid_of([[3, -2], [22.9, -2], [23.0, 17.99], [13, 38]], geometry="irregular", section=UM)
    assert grid.origin == (3.0, -2.0)
    assert places(grid) == [(0, 0), (0, 1), (1, 2), (4, 1)]


@pytest.mark.parametrize("coarser", [1, 2, 4])
def test_um_bins_a_noisy_lattice_evenly(coarser):
    """Spots in the centres of their areas: no noise moves one over a pixel's edge."""
    index = np.indices((12, 8)).reshape(2, -1).T
    noise = np.random.default_rng(0).uniform(-0.01, 0.01, index.shape)
    xy = ((index + noise) * 7.3)[:, ::-1]
    section = GridSection(method="um", pitch_um=2.0 * coarser)
    grid = grid_of(xy, um_per_unit=2.0 / 7.3, pitch=7.3, section=section)
    assert grid.shape == (12 // coarser, 8 // coarser)
    assert (grid.spots_per_pixel() == coarser**2).all()


def test_um_of_a_hexagonal_slide_is_its_lattice_in_x():
    array = hex_array(6, 16)
    grid = grid_of(
        hex_xy(array) * 137,
        geometry="hex",
        um_per_unit=100 / 137,
        pitch=137,
        section=GridSection(method="um", pitch_um=100),
    )
    assert [col for _, col in places(grid)] == (array[:, 1] // 2).tolist()


def test_um_without_micrometres_is_refused():
    with pytest.raises(ConfigError, match=r"micrometres(?s:.*)ingest.um_per_unit"):
        grid_of([[0, 0]], um_per_unit=None, section=UM)


# ---- fit -------------------------------------------------------------------------------------------------------------


def test_fit_scales_each_axis_on_its_own_and_rounds_half_to_even():
    xy = [[0, 100], [10, 100.5], [5, 102], [2.5, 101], [7.5, 100.2]]
    grid = grid_of(xy, geometry="irregular", section=GridSection(method="fit", size=3))
    assert grid.shape == (3, 3)
    assert places(grid) == [(0, 0), (0, 2), (2, 1), (1, 0), (0, 2)]
    assert grid.n_collisions == 1
    assert grid.pitch_um is None
    assert grid.origin == (0.0, 100.0)


@given(point_arrays, st.integers(2, 200))
def test_fit_position_error_is_at_most_half_a_pixel(xy, size):
    grid = grid_of(xy, geometry="irregular", section=GridSection(method="fit", size=size))
    extent = xy.max(axis=0) - xy.min(axis=0)
    place = np.array(places(grid))[:, ::-1] * extent / (size - 1) + np.array(grid.origin)
    assert (np.abs(xy - place) <= 0.5000001 * extent / (size - 1) + 1e-9).all()


@pytest.mark.parametrize(("xy", "expected"), [([[4, 1], [4, 3]], [(0, 0), (6, 0)]), ([[4, 1]], [(0, 0)])])
def test_fit_of_an_axis_without_extent_is_its_first_pixel(xy, expected):
    grid = grid_of(xy, geometry="irregular", section=GridSection(method="fit", size=7))
    assert grid.shape == (7, 7)
    assert places(grid) == expected
