"""Windows' moments and normalized values, against plain Python."""

from __future__ import annotations

import math

import numpy as np
import pytest
from bundles.images import make_image
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from stpatch.expression.normalize import Normalization, resolve_normalization
from stpatch.image.panel import PanelImage
from stpatch.kernels.window import Window

METHODS = ("none", "total", "log1p_total", "sqrt_total")


def plain_value(x, total, normalization):
    if normalization.method == "none":
        return float(x)
    scaled = float(x) * normalization.target_sum / total if total else 0.0
    return {"total": float, "log1p_total": math.log1p, "sqrt_total": math.sqrt}[normalization.method](scaled)


def plain_values(counts, pixel, shape, window, normalization, collisions):
    """Return (occupied pixels, genes): a pixel's normalized values, in plain Python."""
    row, column, height, width = window
    rows = []
    for r in range(row, row + height):
        for c in range(column, column + width):
            inside = 0 <= r < shape[0] and 0 <= c < shape[1]
            spots = [s for s, p in enumerate(pixel) if inside and p == r * shape[1] + c]
            if not spots:
                continue
            if collisions == "mean":
                each = [[plain_value(x, int(counts[s].sum()), normalization) for x in counts[s]] for s in spots]
                rows.append([sum(values) / len(spots) for values in zip(*each, strict=True)])
            else:
                merged = counts[spots].sum(axis=0, dtype=np.int64)
                rows.append([plain_value(x, int(merged.sum()), normalization) for x in merged])
    return np.array(rows).reshape(len(rows), counts.shape[1])


@st.composite
def cases(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    shape = (draw(st.integers(1, 5)), draw(st.integers(1, 5)))
    n_spots, n_genes = draw(st.integers(0, 25)), draw(st.integers(1, 80))
    counts = (rng.poisson(0.8, (n_spots, n_genes)) * rng.choice([1, 1, 1, 50], (n_spots, n_genes))).astype(np.uint16)
    pixel = rng.integers(-1, shape[0] * shape[1], n_spots)
    window = Window(
        draw(st.integers(-3, 5)), draw(st.integers(-3, 5)), draw(st.integers(1, 6)), draw(st.integers(1, 6))
    )
    normalization = Normalization(method=draw(st.sampled_from(METHODS)), target_sum=draw(st.sampled_from([1e4, 37.5])))
    return counts, pixel, shape, window, normalization, draw(st.sampled_from(["sum", "mean"]))


@given(cases())
@settings(max_examples=200, deadline=None)
def test_moments_equal_the_plain_ones(case):
    counts, pixel, shape, window, normalization, collisions = case
    image = make_image(counts, pixel, shape, collisions, normalization.recipe)
    image.moments(Window(0, 0, *shape))  # buffers of another window leave no trace
    found = image.moments(window)
    values = plain_values(counts, pixel, shape, window, normalization, collisions)
    assert found.n_pixels == len(values) == image.occupied(window).sum()
    if not len(values):
        assert not found.mean.any()
        assert not found.variance.any()
        return
    np.testing.assert_allclose(found.mean, values.mean(axis=0), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(found.variance, values.var(axis=0), rtol=1e-8, atol=1e-18 * values.max() ** 2)


@given(cases())
@settings(max_examples=100, deadline=None)
def test_normalized_windows_equal_the_plain_ones(case):
    counts, pixel, shape, window, normalization, collisions = case
    image = make_image(counts, pixel, shape, collisions, normalization.recipe)
    n_genes = counts.shape[1]
    genes = np.arange(n_genes, dtype=np.int32)
    found = image.values(window, genes)
    assert found.dtype == np.float32
    here = image.occupied(window)
    expected = plain_values(counts, pixel, shape, window, normalization, collisions)
    np.testing.assert_allclose(found[:, here].T, expected, rtol=1e-6)
    assert not found[:, ~here].any()
    if collisions != "mean":
        values = image.values_of(PanelImage(image, genes).counts(window), window, genes)
        np.testing.assert_array_equal(values, found)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("collisions", ["sum", "mean"])
def test_a_constant_gene_has_no_variance_at_all(method, collisions):
    counts = np.zeros((49, 4), dtype=np.uint16)
    counts[:, 0] = 3  # the same count, and the same total, in every spot
    counts[:, 1] = 60000
    recipe = Normalization(method=method, target_sum=1e4).recipe
    image = make_image(counts, np.arange(49), (7, 7), collisions, recipe)
    found = image.moments(Window(0, 0, 7, 7))
    assert found.variance.tolist() == [0, 0, 0, 0]


def test_a_small_spread_on_a_large_mean_keeps_its_digits():
    rng = np.random.default_rng(0)
    counts = np.full((400, 1), 60000, dtype=np.uint16)
    counts[rng.permutation(400)[:3]] += 1
    image = make_image(counts, np.arange(400), (20, 20))
    found = image.moments(Window(0, 0, 20, 20))
    np.testing.assert_allclose(found.variance, 3 / 400 * (1 - 3 / 400), rtol=1e-13)


def test_pearson_residuals_are_measured_densely():
    rng = np.random.default_rng(1)
    counts = rng.poisson(rng.uniform(0.1, 3, 40), (30, 40)).astype(np.uint16)
    pixel = rng.permutation(36)[:30]
    normalization = resolve_normalization(
        "pearson_residuals", counts=sparse.csr_matrix(counts), totals=counts.sum(axis=1).astype(np.float64)
    )
    image = make_image(counts, pixel, (6, 6), recipe=normalization.recipe)
    found = image.moments(Window(-1, 2, 5, 4))
    inside = [s for s, p in enumerate(pixel) if p // 6 < 4 and p % 6 >= 2]
    mu = np.outer(counts.sum(axis=1), counts.sum(axis=0)) / counts.sum()
    values = np.clip((counts - mu) / np.sqrt(mu + mu**2 / 100), -np.sqrt(30), np.sqrt(30))[inside]
    assert found.n_pixels == len(inside)
    np.testing.assert_allclose(found.variance, values.var(axis=0), rtol=1e-4)
    np.testing.assert_allclose(found.mean, values.mean(axis=0), rtol=1e-4, atol=1e-6)


def test_normalized_input_is_taken_as_it_is():
    values = np.array([[0.5, 0], [0.25, 1.5]], dtype=np.float32)
    image = make_image(values, [0, 1], (1, 2))
    found = image.moments(Window(0, 0, 1, 2))
    np.testing.assert_array_equal(found.variance, values.astype(np.float64).var(axis=0))
    with pytest.raises(ValueError, match="normalized already"):
        make_image(values, [0, 1], (1, 2), recipe=Normalization(method="log1p_total", target_sum=1e4).recipe)
