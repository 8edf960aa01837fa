"""Moments: merging slides equals joining them."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from corpora import make_slide, normalized_by
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from stpatch.errors import InputError
from stpatch.expression import moments as module
from stpatch.expression.moments import CountMoments, ValueMoments, slide_moments
from stpatch.expression.normalize import Normalization, normalize_csr, resolve_normalization, spot_totals

LOG1P = Normalization(method="log1p_total", target_sum=1e4)


@st.composite
def corpora(draw):
    """Draw a few count matrices of the same genes."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    scale = draw(st.sampled_from([0.3, 3.0, 3000.0]))
    return [
        sparse.csr_matrix(rng.poisson(scale, (n, 5)).astype(np.uint16))
        for n in draw(st.lists(st.integers(1, 9), min_size=1, max_size=5))
    ]


def values_of(counts, normalization=LOG1P):
    return ValueMoments.of(counts, spot_totals(counts), normalization)


@given(corpora())
def test_counts_merge_exactly(parts):
    joined = CountMoments.of(sparse.vstack(parts).tocsr())
    for order in (parts, parts[::-1]):
        merged = functools.reduce(CountMoments.merged, map(CountMoments.of, order))
        for key, value in vars(joined).items():
            np.testing.assert_array_equal(getattr(merged, key), value)
            assert value.dtype == np.int64
    dense = sparse.vstack(parts).toarray().astype(np.float64)
    np.testing.assert_array_equal(joined.total, dense.sum(axis=0))
    np.testing.assert_array_equal(joined.detected, (dense > 0).sum(axis=0))
    if len(dense) > 1:
        np.testing.assert_allclose(joined.variance, dense.var(axis=0, ddof=1), rtol=1e-12)


@given(corpora(), st.sampled_from(["none", "total", "log1p_total", "sqrt_total"]))
def test_values_merge_as_one_matrix(parts, method):
    normalization = Normalization(method=method, target_sum=None if method == "none" else 1e4)
    whole = sparse.vstack(parts).tocsr()
    dense = normalize_csr(whole, spot_totals(whole), normalization).toarray()
    pieces = [values_of(part, normalization) for part in parts]
    left = functools.reduce(ValueMoments.merged, pieces)
    right = functools.reduce(lambda a, b: b.merged(a), reversed(pieces))
    for merged in (left, right, values_of(whole, normalization)):
        np.testing.assert_array_equal(merged.n, len(dense))
        np.testing.assert_allclose(merged.mean, dense.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(
            merged.m2, ((dense - dense.mean(axis=0)) ** 2).sum(axis=0), rtol=1e-9, atol=1e-12 * (1 + dense.max()) ** 2
        )


@given(corpora(), st.sampled_from(["total", "log1p_total", "sqrt_total"]), st.booleans())
def test_one_pass_gives_what_single_ones_give(parts, method, stored_narrow):
    counts = sparse.vstack(parts).tocsr()
    counts.sort_indices()
    totals, normalization = spot_totals(counts), Normalization(method=method, target_sum=1e4)
    linear = Normalization(method="total", target_sum=1e4)
    dense = counts.toarray().astype(np.int64)
    if stored_narrow:
        counts.indices = counts.indices.astype(np.uint16)
    of_counts, values, scaled = slide_moments(counts, totals, normalization)
    np.testing.assert_array_equal(of_counts.total, dense.sum(axis=0))
    np.testing.assert_array_equal(of_counts.squares, (dense**2).sum(axis=0))
    np.testing.assert_array_equal(of_counts.detected, (dense > 0).sum(axis=0))
    for found, wanted in ((values, normalization), (scaled, linear)):
        plain = normalize_csr(counts, totals, wanted).toarray()
        np.testing.assert_allclose(found.mean, plain.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(found.m2, plain.var(axis=0) * len(plain), rtol=1e-9, atol=1e-20 * plain.max() ** 2)


def test_deviations_are_not_lost_in_a_large_mean():
    rng = np.random.default_rng(0)
    counts = sparse.csr_matrix(np.column_stack([rng.poisson(0.1, 4000), 50_000 + rng.integers(0, 2, 4000)]))
    totals = np.full(4000, 1e4)
    plain = np.log1p(counts.toarray().astype(np.float64))
    _, values, scaled = slide_moments(counts, totals, LOG1P)
    np.testing.assert_allclose(values.m2, ((plain - plain.mean(axis=0)) ** 2).sum(axis=0), rtol=1e-7)
    np.testing.assert_allclose(scaled.m2, counts.toarray().var(axis=0) * 4000, rtol=1e-12)


@given(corpora(), st.sampled_from([100.0, 1.0]))
def test_residuals_stay_sparse_and_right(parts, theta):
    counts = sparse.vstack(parts).tocsr()
    if counts.nnz == 0:
        return
    normalization = resolve_normalization("pearson_residuals", theta=theta, counts=counts, totals=spot_totals(counts))
    dense = counts.toarray().astype(np.float64)
    mu = np.outer(dense.sum(axis=1), dense.sum(axis=0)) / dense.sum()
    with np.errstate(invalid="ignore"):
        want = np.nan_to_num((dense - mu) / np.sqrt(mu + mu**2 / theta)).clip(-(len(dense) ** 0.5), len(dense) ** 0.5)
    found = values_of(counts, normalization)
    np.testing.assert_allclose(found.mean, want.mean(axis=0), atol=1e-10)
    np.testing.assert_allclose(found.m2, want.var(axis=0) * len(dense), atol=1e-9)


def test_a_gene_that_one_slide_measured_has_that_slides_moments():
    one, two = (make_slide(k, np.random.default_rng(i).poisson(3.0, (6 + i, 4))).counts for i, k in enumerate("ab"))
    first = values_of(one).scatter_to_axis(np.array([0, 1, 2, 3]), 6)
    second = values_of(two).scatter_to_axis(np.array([5, 4, 3, 2]), 6)
    merged = first.merged(second)
    np.testing.assert_array_equal(merged.n, [6, 6, 13, 13, 7, 7])
    np.testing.assert_array_equal(merged.mean[:2], values_of(one).mean[:2])
    np.testing.assert_allclose(merged.m2[[5, 4]], values_of(two).m2[:2], rtol=1e-15)


def test_blocks_of_values_do_not_change_counts(monkeypatch):
    counts = make_slide("a", np.random.default_rng(0).poisson(3.0, (40, 7))).counts
    whole, values = CountMoments.of(counts), values_of(counts)
    residual = values_of(counts, normalized_by("pearson_residuals")(make_slide("a", counts)))
    monkeypatch.setattr(module, "BLOCK_VALUES", 11)
    part = CountMoments.of(counts)
    for key, value in vars(whole).items():
        np.testing.assert_array_equal(getattr(part, key), value)
    np.testing.assert_allclose(values_of(counts).m2, values.m2, rtol=1e-12)
    again = values_of(counts, normalized_by("pearson_residuals")(make_slide("a", counts)))
    np.testing.assert_allclose(again.m2, residual.m2, rtol=1e-10)


def test_a_constant_gene_has_no_variance():
    counts = sparse.csr_matrix(np.full((7, 3), 11, dtype=np.uint16))
    for normalization in (LOG1P, Normalization(method="sqrt_total", target_sum=1e4)):
        merged = values_of(counts[:3], normalization).merged(values_of(counts[3:], normalization))
        assert (merged.variance == 0).all()
    assert (CountMoments.of(counts).variance == 0).all()


def test_what_rounding_leaves_of_a_constant_gene_is_no_variance():
    n, mean = np.array([1000, 1000]), np.array([3.3, 3.3])
    left = n * (n * np.finfo(np.float64).eps * mean) ** 2  # as much as sums of n equal values can be off
    found = ValueMoments(n=n, mean=mean, m2=left * [0.5, 2.0]).variance
    assert found[0] == 0
    assert found[1] == pytest.approx(2 * left[1] / 999, rel=1e-12)


def test_large_counts_are_exact_or_refused():
    big = sparse.csr_matrix(np.array([[2_000_000], [2_000_001]], dtype=np.uint32))
    assert CountMoments.of(big).variance[0] == 0.5
    huge = sparse.csr_matrix(np.full((2, 1), 4_000_000_000, dtype=np.uint32))
    with pytest.raises(InputError, match="summed exactly"):
        CountMoments.of(huge)


def test_normalized_input_keeps_float_sums():
    counts = sparse.csr_matrix(np.array([[0.5, 0], [1.5, 2]], dtype=np.float32))
    found = CountMoments.of(counts)
    np.testing.assert_allclose(found.total, [2.0, 2.0])
    np.testing.assert_allclose(found.variance, [0.5, 2.0])


def test_no_spots():
    empty = sparse.csr_matrix((0, 3), dtype=np.uint16)
    found = values_of(empty)
    assert (found.n == 0).all()
    assert (found.variance == 0).all()
    assert (CountMoments.of(empty).mean == 0).all()
