from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from stpatch.errors import InputError
from stpatch.image.patch import SlideImage


def make_image(counts: Any, pixel: Any, shape: tuple[int, int], collisions: str = "sum") -> SlideImage:
    matrix = sparse.csr_matrix(counts)
    matrix.sort_indices()
    totals = np.asarray(matrix.sum(axis=1), dtype=np.float64).ravel()
    return SlideImage.of(
        data=matrix.data,
        indices=matrix.indices.astype(np.int32),
        indptr=matrix.indptr.astype(np.int64),
        totals=totals,
        grid_pixel=np.asarray(pixel, dtype=np.int64),
        grid_shape=shape,
        collisions=collisions,
    )


def plain_gather(counts, pixel, shape, window, channel_of_gene, n_channels):
    row, column, height, width = window
    out = np.zeros((n_channels, height, width), dtype=np.int64)
    for spot, place in enumerate(pixel):
        r, c = place // shape[1] - row, place % shape[1] - column
        if place < 0 or not (0 <= r < height and 0 <= c < width):
            continue
        for gene, channel in enumerate(channel_of_gene):
            if channel >= 0:
                out[channel, r, c] += int(counts[spot, gene])
    return out


@st.composite
def cases(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    shape = (draw(st.integers(1, 6)), draw(st.integers(1, 6)))
    n_spots, n_genes = draw(st.integers(0, 20)), draw(st.integers(1, 9))
    dtype = draw(st.sampled_from([np.uint16, np.uint32]))
    counts = (rng.poisson(0.6, (n_spots, n_genes)) * rng.choice([1, 1, 1, 40], (n_spots, n_genes))).astype(dtype)
    pixel = rng.integers(-1, shape[0] * shape[1], n_spots)
    window = (draw(st.integers(-4, 7)), draw(st.integers(-4, 7)), draw(st.integers(1, 6)), draw(st.integers(1, 6)))
    n_channels = draw(st.integers(1, 6))
    channel_of_gene = np.full(n_genes, -1, dtype=np.int32)
    chosen = rng.permutation(n_genes)[:n_channels]
    channel_of_gene[chosen] = rng.permutation(n_channels)[: len(chosen)]
    return counts, pixel, shape, window, channel_of_gene, n_channels


@given(cases())
@settings(max_examples=150, deadline=None)
def test_gather_equals_the_plain_loop(case):
    counts, pixel, shape, window, channel_of_gene, n_channels = case
    image = make_image(counts, pixel, shape)
    expected = plain_gather(counts, pixel, shape, window, channel_of_gene, n_channels)
    found = image.gather(*window, channel_of_gene, n_channels)
    assert found.dtype == image.count_dtype
    np.testing.assert_array_equal(found, expected)
    out = np.full(expected.shape, 7, dtype=np.uint32)
    assert image.gather(*window, channel_of_gene, n_channels, out=out) is out
    np.testing.assert_array_equal(out, expected)
    panel = image.with_panel(channel_of_gene, n_channels)
    np.testing.assert_array_equal(panel.gather(*window), expected)
    assert panel.count_dtype == image.count_dtype


@given(cases())
@settings(max_examples=80, deadline=None)
def test_totals_are_sums_over_all_genes(case):
    counts, pixel, shape, window, *_ = case
    genes = np.zeros(counts.shape[1], dtype=np.int32)
    expected = plain_gather(counts, pixel, shape, window, genes, 1)[0]
    found = make_image(counts, pixel, shape).totals(*window)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)


def test_tiles_lose_no_count():
    rng = np.random.default_rng(0)
    counts = rng.poisson(1.0, (60, 5)).astype(np.uint16)
    image = make_image(counts, rng.integers(0, 70, 60), (7, 10))
    genes = np.arange(5, dtype=np.int32)
    tiles = [image.gather(r, c, 3, 4, genes, 5) for r in range(0, 7, 3) for c in range(0, 10, 4)]
    np.testing.assert_array_equal(sum(t.astype(np.int64).sum(axis=(1, 2)) for t in tiles), counts.sum(axis=0))


def test_totals_of_mean_collisions_are_means():
    counts = np.array([[2, 0], [4, 2], [1, 1]], dtype=np.uint16)
    image = make_image(counts, [1, 1, 0], (1, 2), "mean")
    np.testing.assert_array_equal(image.totals(0, 0, 1, 2), [[2, 4]])


def test_count_dtype_grows_only_where_collisions_pass_it():
    big = np.array([[40000, 1], [30000, 0], [3, 65535]], dtype=np.uint16)
    assert make_image(big, [0, 1, 2], (1, 3)).count_dtype == np.uint16
    assert make_image(big, [0, 1, 1], (1, 3)).count_dtype == np.uint16  # other genes: no sum passes
    crowded = make_image(big, [0, 0, 2], (1, 3))
    assert crowded.count_dtype == np.uint32
    assert crowded.gather(0, 0, 1, 1, np.array([0, -1], dtype=np.int32), 1).item() == 70000
    panel = crowded.with_panel(np.array([-1, 0], dtype=np.int32), 1)
    assert panel.count_dtype == np.uint32  # the slide's, whatever the panel, so that all patches agree
    with pytest.raises(ValueError, match="needs uint32"):
        crowded.gather(0, 0, 1, 1, np.array([0, -1], dtype=np.int32), 1, out=np.zeros((1, 1, 1), np.uint16))


def test_normalized_input_stays_float():
    image = make_image(np.array([[0.5, 0], [0.25, 1.5]], dtype=np.float32), [0, 1], (1, 2))
    found = image.gather(0, 0, 1, 2, np.array([0, 1], dtype=np.int32), 2)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[:, 0], [[0.5, 0.25], [0, 1.5]])


def test_memory_maps_are_read_not_copied(tmp_path):
    counts = sparse.csr_matrix(np.array([[1, 0, 2], [0, 3, 0]], dtype=np.uint16))
    for name, array in (("data", counts.data), ("indices", counts.indices.astype(np.int32))):
        np.save(tmp_path / f"{name}.npy", array)
    mapped = {name: np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in ("data", "indices")}
    image = SlideImage.of(
        **mapped, indptr=counts.indptr.astype(np.int64), totals=np.array([3.0, 3.0]),
        grid_pixel=np.array([0, 1]), grid_shape=(1, 2), collisions="sum",
    )  # fmt: skip
    assert np.shares_memory(image.data, mapped["data"])
    np.testing.assert_array_equal(
        image.gather(0, 0, 1, 2, np.arange(3, dtype=np.int32), 3)[:, 0], [[1, 0], [0, 3], [2, 0]]
    )


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
    with pytest.raises(InputError, match=match):
        SlideImage.of(**{**arrays, **change}, grid_shape=(1, 2), collisions="sum")


@pytest.mark.parametrize("bad", [5, -1])
def test_a_gene_out_of_bounds_is_refused_before_any_loop(bad):
    image = SlideImage.of(
        data=np.ones(2, np.uint16), indices=np.array([0, bad], dtype=np.int32), indptr=np.array([0, 1, 2]),
        totals=np.ones(2), grid_pixel=np.array([0, 1]), grid_shape=(1, 2), collisions="sum",
    )  # fmt: skip
    for call in (image.gather, image.with_panel):
        window = (0, 0, 1, 2) if call == image.gather else ()
        with pytest.raises(InputError, match="genes that it has not"):
            call(*window, np.zeros(3, dtype=np.int32), 1)


def test_wrong_calls_are_refused():
    image = make_image(np.eye(2, dtype=np.uint16), [0, 1], (1, 2))
    genes = np.arange(2, dtype=np.int32)
    with pytest.raises(ValueError, match="give channel_of_gene"):
        image.gather(0, 0, 1, 1)
    with pytest.raises(ValueError, match="below 1"):
        image.gather(0, 0, 1, 1, genes, 1)
    with pytest.raises(ValueError, match="give channel_of_gene"):
        image.with_panel(genes, 2).gather(0, 0, 1, 1, genes, 2)
