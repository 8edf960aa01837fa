from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numcodecs import blosc

from stpatch.dataset import frame
from stpatch.dataset.frame import encode_frame
from stpatch.kernels.planes import bit_planes

PATCH = 512 * 16 * 16
SIZES = [8, 64, 2048, PATCH // 2, PATCH, 2 * PATCH, 2 * PATCH + 1000 * 8]


def library(array):
    blosc.use_threads = False
    return blosc.compress(array, b"lz4", 5, blosc.BITSHUFFLE, 0, array.dtype.itemsize)


def counts(size, filled, largest, seed):
    """Counts as in a patch: mostly small; one in a hundred is anything up to the largest."""
    rng = np.random.default_rng(seed)
    found = np.minimum(rng.geometric(0.5, size), largest)
    found = np.where(rng.random(size) < 0.01, rng.integers(0, largest, size, endpoint=True), found)
    return (found * (rng.random(size) < filled)).astype(np.uint16)


@given(st.sampled_from(SIZES), st.floats(0, 1), st.sampled_from([1, 255, 256, 65535]), st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_a_frame_is_the_library_s_byte_for_byte(size, filled, largest, seed):
    array = counts(size, filled, largest, seed)
    assert encode_frame(array) == library(array)


@given(st.integers(0, 3000), st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_a_frame_of_any_size_is_the_library_s(size, seed):
    array = counts(size, 0.3, 3, seed)
    assert encode_frame(array) == library(array)


@given(st.sampled_from([PATCH, PATCH + 1000 * 8]), st.integers(0, 64), st.integers(0, 2**32))
@settings(max_examples=25, deadline=None)
def test_a_frame_that_hardly_shrinks_is_the_library_s(size, repeated, seed):
    array = np.random.default_rng(seed).integers(0, 2**16, size).astype(np.uint16)
    array[: repeated * size // 64] = 7
    assert encode_frame(array) == library(array)
    low = array & np.uint16(0xFF)
    assert encode_frame(low) == library(low)


@pytest.mark.parametrize("largest", [255, 300])
@pytest.mark.parametrize("size", SIZES[2:])
def test_usual_patches_are_put_together(size, largest, monkeypatch):
    array = counts(size, 0.2, largest, 0)
    assert (array.max() > 255) == (largest > 255)
    expected = encode_frame(array)
    monkeypatch.setattr(frame, "_by_library", None)
    assert encode_frame(array) == expected


@given(st.integers(1, 40), st.sampled_from([0, 8]), st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_bit_planes_are_those_of_numpy(groups, shift, seed):
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 2**16, groups * 8 * rng.choice([1, 100])).astype(np.uint16)
    planes = np.empty((8, len(values) // 8), np.uint8)
    high = bit_planes(values.view(np.uint64), shift, planes)
    bits = values[:, None] >> (shift + np.arange(8)) & 1
    np.testing.assert_array_equal(planes, np.packbits(bits, axis=0, bitorder="little").T)
    assert bool(high) == bool((values >= 256).any())


def test_whole_slides_are_the_library_s(monkeypatch):
    monkeypatch.setattr(frame, "LARGEST", 2 * PATCH - 2)
    monkeypatch.setattr(frame, "_assembled", None)
    array = counts(PATCH, 0.2, 3, 0)
    assert encode_frame(array) == library(array)
