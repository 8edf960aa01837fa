from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stpatch.config import CropSection
from stpatch.image.crop import Patches, cut_patches, window_sums

grids = hnp.arrays(
    np.int32,
    st.tuples(st.integers(1, 24), st.integers(1, 24)),
    elements=st.sampled_from([0, 0, 1, 1, 2, 7]),
)
sizes = st.tuples(st.integers(1, 9), st.integers(1, 9))
methods = st.sampled_from(["tiles", "random", "centered"])
edges = st.sampled_from(["pad", "shift", "drop"])


def cut(spots, *, seed=0, slide_id="s", **options) -> Patches:
    section = CropSection(**{"min_coverage": 0, **options})
    return cut_patches(np.asarray(spots, dtype=np.int32), section=section, seed=seed, slide_id=slide_id)


def windows(patches: Patches) -> list[tuple[int, int]]:
    return list(zip(patches.row.tolist(), patches.col.tolist(), strict=True))


def inside(spots: np.ndarray, row: int, col: int, size: tuple[int, int]) -> np.ndarray:
    """Return what of a window is on the grid, by plain slices."""
    return spots[max(row, 0) : max(row + size[0], 0), max(col, 0) : max(col + size[1], 0)]


# ---- every method ----------------------------------------------------------------------------------------------------


@given(grids, sizes, methods, edges, st.none() | st.integers(1, 12), st.floats(0, 1), st.none() | st.integers(0, 30))
def test_patches_are_what_they_say(spots, size, method, edge, stride, min_coverage, min_spots):
    options = {"size": size, "method": method, "edge": edge, "stride": stride}
    patches = cut(spots, **options, min_coverage=min_coverage, min_spots=min_spots)
    kinds = {name: getattr(patches, name).dtype.name for name in vars(patches)}
    assert kinds == {
        "number": "int64", "row": "int32", "col": "int32", "height": "int32", "width": "int32", "n_spots": "int32",
        "coverage": "float32",
    }  # fmt: skip
    assert {len(values) for values in vars(patches).values()} == {len(patches)}
    assert (np.diff(patches.number) > 0).all()
    assert len(set(windows(patches))) == len(patches)
    assert (patches.height == size[0]).all()
    assert (patches.width == size[1]).all()
    for (row, col), n_spots, coverage in zip(windows(patches), patches.n_spots, patches.coverage, strict=True):
        window = inside(spots, row, col, size)
        assert n_spots == window.sum()
        assert coverage == np.float32((window > 0).sum() / (size[0] * size[1]))
        assert n_spots >= max(min_spots or 0, 1)
        assert coverage >= min_coverage - 1e-6
    # Filters leave out, and change nothing else.
    whole = cut(spots, **options)
    kept = dict(zip(whole.number.tolist(), windows(whole), strict=True))
    assert all(kept[number] == window for number, window in zip(patches.number.tolist(), windows(patches), strict=True))


@given(grids, sizes, methods, st.none() | st.integers(1, 12))
def test_shift_and_drop_stay_inside_the_grid(spots, size, method, stride):
    last = max(spots.shape[0] - size[0], 0), max(spots.shape[1] - size[1], 0)
    smaller = spots.shape[0] < size[0] or spots.shape[1] < size[1]
    for edge in ("shift", "drop"):
        patches = cut(spots, size=size, method=method, edge=edge, stride=stride)
        assert all(0 <= row <= last[0] and 0 <= col <= last[1] for row, col in windows(patches))
        assert not (smaller and edge == "drop" and len(patches))


@given(grids, sizes, st.none() | st.integers(1, 12))
def test_centered_and_tiles_agree_over_edges(spots, size, stride):
    """Drop keeps the windows of pad that are inside, with their numbers for centered."""
    for method in ("tiles", "centered"):
        padded = cut(spots, size=size, method=method, edge="pad", stride=stride)
        last = np.array(spots.shape) - size
        fits = [window for window in windows(padded) if all(0 <= a <= b for a, b in zip(window, last, strict=True))]
        assert windows(cut(spots, size=size, method=method, edge="drop", stride=stride)) == fits


def test_windows_without_spots_are_never_kept():
    spots = np.zeros((8, 8))
    spots[0, 0] = 1
    assert windows(cut(spots, size=(4, 4), min_spots=0)) == [(0, 0)]
    assert len(cut(np.zeros((8, 8)), size=(4, 4))) == 0


def test_min_coverage_counts_pixels_and_min_spots_counts_spots():
    spots = np.zeros((10, 20))
    spots[0, :7] = 3
    spots[0, 10:16] = 5
    assert windows(cut(spots, size=(10, 10), min_coverage=0.07)) == [(0, 0)]
    assert windows(cut(spots, size=(10, 10), min_spots=22)) == [(0, 10)]
    assert windows(cut(spots, size=(10, 10), min_coverage=0.07, min_spots=22)) == []


def test_coverage_at_the_threshold_stays_for_every_share():
    for pixels in range(1, 101):
        spots = np.zeros(100)
        spots[:pixels] = 1
        assert len(cut(spots.reshape(10, 10), size=(10, 10), min_coverage=pixels / 100)) == 1
        if pixels < 100:
            assert len(cut(spots.reshape(10, 10), size=(10, 10), min_coverage=(pixels + 1) / 100)) == 0


def test_tissue_in_several_pieces_gives_patches_of_each():
    spots = np.zeros((40, 40))
    spots[2:10, 2:10] = 1
    spots[30:38, 25:33] = 1
    patches = cut(spots, size=(8, 8))
    assert patches.n_spots.sum() == 128
    assert {row >= 20 for row in patches.row.tolist()} == {True, False}


# ---- tiles -----------------------------------------------------------------------------------------------------------


@given(grids, sizes)
def test_tiles_with_stride_of_the_size_cover_every_spot_once(spots, size):
    patches = cut(spots, size=size)
    assert patches.n_spots.sum() == spots.sum()
    seen = np.zeros_like(spots)
    for row, col in windows(patches):
        inside(seen, row, col, size)[...] += 1
    assert seen.max() <= 1
    assert (seen[spots > 0] == 1).all()


@given(grids, sizes, st.integers(1, 9), st.integers(1, 9))
def test_tiles_of_a_smaller_stride_miss_no_spot(spots, size, row_stride, col_stride):
    stride = (min(row_stride, size[0]), min(col_stride, size[1]))
    for edge in ("pad", "shift"):
        seen = np.zeros_like(spots)
        for row, col in windows(cut(spots, size=size, stride=stride, edge=edge)):
            inside(seen, row, col, size)[...] += 1
        assert (seen[spots > 0] >= 1).all()


@pytest.mark.parametrize(
    ("n", "size", "stride", "pad", "shift", "drop"),
    [
        (10, 4, 4, [0, 4, 8], [0, 4, 6], [0, 4]),
        (8, 4, 4, [0, 4], [0, 4], [0, 4]),
        (9, 4, 3, [0, 3, 6], [0, 3, 5], [0, 3]),
        (10, 4, 2, [0, 2, 4, 6], [0, 2, 4, 6], [0, 2, 4, 6]),
        (10, 2, 7, [0, 7], [0, 7], [0, 7]),
        (9, 4, 8, [0, 8], [0, 5], [0]),
        (4, 4, 4, [0], [0], [0]),
        (3, 4, 4, [0], [0], []),
        (1, 4, 1, [0], [0], []),
    ],
)
def test_edges_of_tiles(n, size, stride, pad, shift, drop):
    for edge, expected in (("pad", pad), ("shift", shift), ("drop", drop)):
        rows = cut(np.ones((n, 1)), size=(size, 1), stride=(stride, 1), edge=edge)
        cols = cut(np.ones((1, n)), size=(1, size), stride=(1, stride), edge=edge)
        assert windows(rows) == [(at, 0) for at in expected]
        assert windows(cols) == [(0, at) for at in expected]


def test_numbers_of_tiles_count_before_filters():
    spots = np.ones((4, 6))
    spots[:2, 2:4] = 0
    patches = cut(spots, size=(2, 2))
    assert patches.number.tolist() == [0, 2, 3, 4, 5]
    assert windows(patches) == [(0, 0), (0, 4), (2, 0), (2, 2), (2, 4)]


# ---- random ----------------------------------------------------------------------------------------------------------


def test_the_number_of_random_windows_is_density_times_area():
    assert cut(np.ones((100, 90)), size=(8, 7), method="random", density=1).number.max() == -(-9000 // 56) - 1
    assert len(cut(np.ones((500, 500)), size=(8, 8), method="random", density=0.00001)) == 1


@given(grids, sizes, st.floats(0.1, 2), st.floats(1, 3))
def test_a_random_window_does_not_depend_on_how_many_there_are(spots, size, density, factor):
    few = cut(spots, size=size, method="random", density=density)
    many = cut(spots, size=size, method="random", density=density * factor)
    assert windows(many)[: len(few)] == windows(few)
    assert many.number[: len(few)].tolist() == few.number.tolist()


def test_random_windows_are_even_and_reach_the_last_row_and_column():
    patches = cut(np.ones((70, 71)), size=(20, 20), method="random", density=2000)
    # 51 x 52 origins, and so many draws that each comes up.
    assert len(patches) == 51 * 52
    rows = np.bincount(cut(np.ones((20000, 1)), size=(2, 1), method="random", density=1).row // 2000)
    assert len(rows) == 10
    assert np.abs(rows / rows.sum() - 0.1).max() < 0.01


def test_random_windows_move_with_seed_and_slide_and_nothing_else():
    options = {"size": (4, 4), "method": "random"}
    spots = np.ones((50, 50))
    one = windows(cut(spots, **options))
    assert windows(cut(spots * 3, **options)) == one
    assert windows(cut(spots, **options, seed=1)) != one
    assert windows(cut(spots, **options, slide_id="t")) != one
    assert one[:3] == [(3, 39), (31, 41), (5, 39)]


@pytest.mark.parametrize(("edge", "expected"), [("pad", [(0, 0)]), ("shift", [(0, 0)]), ("drop", [])])
def test_random_windows_of_a_slide_smaller_than_a_patch(edge, expected):
    assert windows(cut(np.ones((5, 5)), size=(9, 9), method="random", density=20, edge=edge)) == expected


# ---- centered --------------------------------------------------------------------------------------------------------


@given(grids, sizes)
def test_centered_windows_have_their_spot_in_the_middle(spots, size):
    patches = cut(spots, size=size, method="centered")
    centres = [(row + size[0] // 2, col + size[1] // 2) for row, col in windows(patches)]
    assert centres == [tuple(pixel) for pixel in np.argwhere(spots).tolist()]
    assert patches.number.tolist() == list(range(len(patches)))


def test_shifted_centered_windows_that_coincide_stay_once():
    patches = cut(np.ones((4, 4)), size=(3, 3), method="centered", edge="shift")
    assert windows(patches) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert patches.number.tolist() == [0, 2, 8, 10]


def test_a_centered_window_larger_than_the_slide():
    spots = np.ones((2, 2))
    options = {"size": (5, 5), "method": "centered"}
    assert windows(cut(spots, **options)) == [(-2, -2), (-2, -1), (-1, -2), (-1, -1)]
    assert windows(cut(spots, **options, edge="shift")) == [(0, 0)]
    assert windows(cut(spots, **options, edge="drop")) == []


# ---- units -----------------------------------------------------------------------------------------------------------


@given(grids)
def test_unit_spot_is_every_occupied_pixel_and_unit_slide_the_grid(spots):
    patches = cut(spots, unit="spot", min_coverage=0.9, min_spots=100)
    assert windows(patches) == [tuple(pixel) for pixel in np.argwhere(spots).tolist()]
    assert patches.n_spots.sum() == spots.sum()
    assert (patches.coverage == 1).all()
    assert {*patches.height.tolist(), *patches.width.tolist()} <= {1}
    slide = cut(spots, unit="slide", min_coverage=1, min_spots=10**6)
    if spots.any():
        assert windows(slide) == [(0, 0)]
        assert (slide.height[0], slide.width[0], slide.n_spots[0]) == (*spots.shape, spots.sum())
        assert slide.coverage[0] == np.float32((spots > 0).mean())


def test_a_patch_as_large_as_the_slide_is_the_slide():
    spots = np.ones((6, 9))
    for method in ("tiles", "random"):
        for edge in ("pad", "shift", "drop"):
            assert windows(cut(spots, size=(6, 9), method=method, edge=edge)) == [(0, 0)]


# ---- plumbing --------------------------------------------------------------------------------------------------------


def test_window_sums_beyond_32_bits():
    values = np.full((4, 4), 2**30, dtype=np.int32)
    origin = np.array([0, -1, 3, 9])
    assert window_sums(values, origin, origin, (4, 4)).tolist() == [2**34, 9 * 2**30, 2**30, 0]


def test_take_by_mask_and_by_position():
    patches = cut(np.ones((4, 4)), size=(2, 2))
    assert patches.take(np.array([False, True, False, True])).number.tolist() == [1, 3]
    assert windows(patches.take(np.array([2, 0]))) == [(2, 0), (0, 0)]


def test_a_large_slide_has_a_patch_for_every_spot():
    assert len(cut(np.ones((840, 840), dtype=np.int32), method="centered")) == 840 * 840
