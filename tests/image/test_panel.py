from __future__ import annotations

import numpy as np
import pytest
from bundles.images import cases, make_image, plain_gather
from hypothesis import given, settings
from hypothesis import strategies as st

from stpatch.image.panel import PanelImage, panel_bytes
from stpatch.kernels.panel_rows import LINE
from stpatch.kernels.window import Window


@given(cases(), st.integers(0, 2**32))
@settings(max_examples=150, deadline=None)
def test_windows_in_any_order_equal_the_plain_loop(case, seed):
    counts, pixel, shape, window, genes = case
    image = make_image(counts, pixel, shape)
    panel = PanelImage(image, genes)
    rng = np.random.default_rng(seed)
    others = [Window(*rng.integers(-4, 7, 2).tolist(), *rng.integers(1, 20, 2).tolist()) for _ in range(3)]
    for place in (window, *others, window):
        expected = plain_gather(counts, pixel, shape, place, genes)
        found = panel.counts(place)
        assert found.dtype == image.count_dtype
        np.testing.assert_array_equal(found, expected)
        out = np.full(expected.shape, 7, dtype=np.uint32)
        assert panel.counts(place, out=out) is out
        np.testing.assert_array_equal(out, expected)


def test_rows_are_filled_only_where_windows_touch_them():
    image = make_image(np.full((4, 3), 7, dtype=np.uint16), [0, 1, 2, 3], (2, 2))
    panel = PanelImage(image, np.array([1, 2], dtype=np.int32))
    panel.counts(Window(0, 1, 1, 1))
    image.arrays.data.setflags(write=True)
    image.arrays.data[:] = 9
    np.testing.assert_array_equal(panel.counts(Window(0, 0, 2, 2))[0], [[9, 7], [9, 9]])


def test_the_count_dtype_is_the_slides_whatever_the_panel():
    crowded = make_image(np.array([[40000, 1], [30000, 0]], dtype=np.uint16), [0, 0], (1, 1))
    panel = PanelImage(crowded, np.array([1], dtype=np.int32))
    assert panel.count_dtype == np.uint32
    with pytest.raises(ValueError, match="needs uint32"):
        panel.counts(Window(0, 0, 1, 1), out=np.zeros((1, 1, 1), np.uint16))


@given(cases())
@settings(max_examples=60, deadline=None)
def test_narrow_rows_hold_the_same_counts(case):
    counts, pixel, shape, window, genes = case
    image = make_image(counts % 10, pixel, shape)
    panel = PanelImage(image, genes, dtype=np.dtype(np.uint8))  # at most 20 spots a pixel
    found = panel.counts(window)
    assert found.dtype == image.count_dtype
    np.testing.assert_array_equal(found, plain_gather(counts % 10, pixel, shape, window, genes))


def test_means_have_no_panel():
    with pytest.raises(ValueError, match="no mean"):
        PanelImage(make_image(np.eye(2, dtype=np.uint16), [0, 0], (1, 1), "mean"), np.array([0], dtype=np.int32))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("n_channels", [1, 31, 32, 512, 513])
def test_the_bytes_are_told_beforehand_and_rows_are_an_odd_number_of_lines(n_channels, dtype):
    image = make_image(np.ones((3, 600), dtype=np.uint16), [0, 1, 5], (2, 3))
    found = PanelImage(image, np.arange(n_channels, dtype=np.int32), dtype=np.dtype(dtype)).nbytes
    assert found == panel_bytes(image, n_channels, np.dtype(dtype))
    assert found // 4 % (2 * LINE) == LINE
    assert found >= 4 * np.dtype(dtype).itemsize * (n_channels + 1)
