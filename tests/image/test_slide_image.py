from __future__ import annotations

import numpy as np
import pytest
from bundles.images import cases, make_image, plain_gather
from hypothesis import given, settings
from scipy import sparse

from stpatch.errors import InputError
from stpatch.image.slide_image import SlideImage
from stpatch.kernels.window import Window


@given(cases())
@settings(max_examples=150, deadline=None)
def test_gather_equals_the_plain_loop(case):
    counts, pixel, shape, window, genes = case
    image = make_image(counts, pixel, shape)
    expected = plain_gather(counts, pixel, shape, window, genes)
    found = image.counts(window, genes)
    assert found.dtype == image.count_dtype
    np.testing.assert_array_equal(found, expected)
    room = np.full((len(genes) + 1, window.height, window.width), 7, dtype=np.uint32)
    found = image.counts(window, genes, out=room)
    assert np.shares_memory(found, room)
    np.testing.assert_array_equal(found, expected)


@given(cases())
@settings(max_examples=80, deadline=None)
def test_totals_are_sums_over_all_genes(case):
    counts, pixel, shape, window, *_ = case
    genes = np.arange(counts.shape[1], dtype=np.int32)
    expected = plain_gather(counts, pixel, shape, window, genes).sum(axis=0)
    found = make_image(counts, pixel, shape).totals(window)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)


def test_tiles_lose_no_count():
    rng = np.random.default_rng(0)
    counts = rng.poisson(1.0, (60, 5)).astype(np.uint16)
    image = make_image(counts, rng.integers(0, 70, 60), (7, 10))
    genes = np.arange(5, dtype=np.int32)
    tiles = [image.counts(Window(r, c, 3, 4), genes) for r in range(0, 7, 3) for c in range(0, 10, 4)]
    np.testing.assert_array_equal(sum(t.astype(np.int64).sum(axis=(1, 2)) for t in tiles), counts.sum(axis=0))


def test_totals_of_mean_collisions_are_means():
    counts = np.array([[2, 0], [4, 2], [1, 1]], dtype=np.uint16)
    image = make_image(counts, [1, 1, 0], (1, 2), "mean")
    np.testing.assert_array_equal(image.totals(Window(0, 0, 1, 2)), [[2, 4]])


def test_count_dtype_grows_only_where_collisions_pass_it():
    big = np.array([[40000, 1], [30000, 0], [3, 65535]], dtype=np.uint16)
    assert make_image(big, [0, 1, 2], (1, 3)).count_dtype == np.uint16
    assert make_image(big, [0, 1, 1], (1, 3)).count_dtype == np.uint16  # other genes: no sum passes
    crowded = make_image(big, [0, 0, 2], (1, 3))
    assert crowded.count_dtype == np.uint32
    first = np.array([0], dtype=np.int32)
    assert crowded.counts(Window(0, 0, 1, 1), first).item() == 70000
    with pytest.raises(ValueError, match="needs uint32"):
        crowded.counts(Window(0, 0, 1, 1), first, out=np.zeros((2, 1, 1), np.uint16))


def test_normalized_input_stays_float():
    image = make_image(np.array([[0.5, 0], [0.25, 1.5]], dtype=np.float32), [0, 1], (1, 2))
    found = image.counts(Window(0, 0, 1, 2), np.array([0, 1], dtype=np.int32))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[:, 0], [[0.5, 0.25], [0, 1.5]])


def test_memory_maps_are_read_not_copied(tmp_path):
    counts = sparse.csr_matrix(np.array([[1, 0, 2], [0, 3, 0]], dtype=np.uint16))
    for name, array in (("data", counts.data), ("indices", counts.indices.astype(np.int32))):
        np.save(tmp_path / f"{name}.npy", array)
    mapped = {name: np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in ("data", "indices")}
    image = SlideImage.of(
        (mapped["data"], mapped["indices"], counts.indptr.astype(np.int64)), n_genes=3, totals=np.array([3.0, 3.0]),
        grid_pixel=np.array([0, 1]), grid_shape=(1, 2), collisions="sum",
    )  # fmt: skip
    assert np.shares_memory(image.arrays.data, mapped["data"])
    found = image.counts(Window(0, 0, 1, 2), np.arange(3, dtype=np.int32))
    np.testing.assert_array_equal(found[:, 0], [[1, 0], [0, 3], [2, 0]])


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"totals": np.zeros(3)}, "different lengths"),
        ({"grid_pixel": np.array([0, 9])}, "outside its grid"),
        ({"grid_pixel": np.array([-2, 0])}, "outside its grid"),
        ({"indptr": np.array([0, 3, 2])}, "row pointers"),
        ({"indptr": np.array([0, 1, 9])}, "row pointers"),
        ({"data": np.zeros(3, np.uint16)}, "different lengths"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(change, match):
    arrays = {
        "data": np.array([1, 2], dtype=np.uint16),
        "indices": np.array([0, 1], dtype=np.int32),
        "indptr": np.array([0, 1, 2]),
        "totals": np.array([1.0, 2.0]),
        "grid_pixel": np.array([0, 1]),
    }
    arrays |= change
    counts = tuple(arrays.pop(name) for name in ("data", "indices", "indptr"))
    with pytest.raises(InputError, match=match):
        SlideImage.of(counts, **arrays, n_genes=2, grid_shape=(1, 2), collisions="sum")


@pytest.mark.parametrize("bad", [3, -1])
def test_a_gene_out_of_bounds_is_refused_before_any_loop(bad):
    with pytest.raises(InputError, match="genes that it does not have"):
        SlideImage.of(
            (np.ones(2, np.uint16), np.array([0, bad], dtype=np.int32), np.array([0, 1, 2])),
            n_genes=3, totals=np.ones(2), grid_pixel=np.array([0, 1]), grid_shape=(1, 2), collisions="sum",
        )  # fmt: skip


@pytest.mark.parametrize("gene", [2, -2])
def test_a_channel_of_no_gene_of_the_slide_is_refused(gene):
    image = make_image(np.eye(2, dtype=np.uint16), [0, 1], (1, 2))
    with pytest.raises(ValueError, match="not one of the slide's 2"):
        image.counts(Window(0, 0, 1, 1), np.array([0, gene], dtype=np.int32))


def test_offsets_grow_only_where_they_must():
    image = make_image(np.eye(3, dtype=np.uint16), [0, 1, 2], (1, 3))
    genes = np.array([2, -1, 0], dtype=np.int32)
    offsets = image.offsets(genes, 10)
    assert (offsets.dtype, offsets.tolist()) == (np.int32, [20, 30, 0])
    offsets = image.offsets(genes, 2**30)
    assert (offsets.dtype, offsets.tolist()) == (np.int64, [2**31, 3 * 2**30, 0])
