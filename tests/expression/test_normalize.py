"""Normalizations: sparse equals dense, and both equal scanpy."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import scanpy as sc
from corpora import make_slide, read_her2st
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse

from stpatch.errors import ConfigError, InputError
from stpatch.expression import normalize
from stpatch.expression.normalize import (
    Normalization,
    corpus_median,
    normalize_csr,
    resolve_normalization,
    spot_totals,
)
from stpatch.image.values import PatchNormalizer

SPARSE_METHODS = ["none", "total", "log1p_total", "sqrt_total"]
matrices = hnp.arrays(
    np.uint16, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=8), elements=st.integers(0, 65535)
)


def resolved(method, counts, **options):
    return resolve_normalization(method, counts=counts, totals=spot_totals(counts), **options)


def patch_values(x, totals, normalization):
    """Return the (C, H, W) values of a patch's counts, by a normalizer of its own."""
    out = np.full(x.shape, np.nan, dtype=np.float32)
    PatchNormalizer().write(np.ascontiguousarray(x, np.uint32), totals, normalization.recipe, out=out)
    return out


@pytest.mark.parametrize("method", SPARSE_METHODS)
@given(dense=matrices)
def test_patches_equal_the_sparse_slide(method, dense):
    counts = sparse.csr_matrix(dense)
    totals = spot_totals(counts)
    normalization = resolved(method, counts)
    want = normalize_csr(counts, totals, normalization)
    assert want.dtype == np.float64
    # the slide's spots as the pixels of one row: (genes, 1, spots)
    found = patch_values(dense.T[:, None, :], totals.astype(np.float32)[None], normalization)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[:, 0].T, want.toarray(), rtol=1e-6)


@pytest.mark.parametrize("method", [*SPARSE_METHODS, "pearson_residuals"])
def test_patches_one_after_the_other_and_empty_pixels(method):
    rng = np.random.default_rng(0)
    x = rng.poisson(2.0, (3, 5, 4, 6)).astype(np.uint32)
    x[..., 1, 2] = 0
    totals = x.sum(axis=1).astype(np.float32)
    recipe = resolved(method, sparse.csr_matrix(x[0].reshape(5, -1).T)).recipe
    normalizer, out = PatchNormalizer(), np.full(x.shape, np.nan, dtype=np.float32)
    for number in range(3):
        normalizer.write(x[number], totals[number], recipe, out=out[number])
    assert (out[..., 1, 2] == 0).all()
    alone = np.empty(x.shape[1:], np.float32)
    PatchNormalizer().write(x[2], totals[2], recipe, out=alone)
    np.testing.assert_array_equal(out[2], alone)


def test_values_that_are_normalized_already():
    x, totals = np.array([[[0.5, 2.0]]], np.float32), np.array([[0.0, 1.0]], np.float32)
    out = np.empty(x.shape, np.float32)
    PatchNormalizer().write(x, totals, Normalization(method="none").recipe, out=out)
    np.testing.assert_array_equal(out, [[[0.0, 2.0]]])  # an empty pixel holds nothing
    with pytest.raises(ValueError, match="no counts"):
        PatchNormalizer().write(x, totals, Normalization(method="total", target_sum=1.0).recipe, out=out)


@pytest.mark.parametrize("target_sum", [1e4, "slide_median"])
def test_total_equals_scanpy(data_dir, target_sum):
    counts = read_her2st(data_dir, "C1").counts
    adata = ad.AnnData(counts.astype(np.float64))
    sc.pp.normalize_total(adata, target_sum=None if target_sum == "slide_median" else target_sum)
    found = normalize_csr(counts, spot_totals(counts), resolved("total", counts, target_sum=target_sum))
    np.testing.assert_allclose(found.data, adata.X.data, rtol=1e-12)
    sc.pp.log1p(adata)
    found = normalize_csr(counts, spot_totals(counts), resolved("log1p_total", counts, target_sum=target_sum))
    np.testing.assert_allclose(found.data, adata.X.data, rtol=1e-12)


@pytest.mark.parametrize("theta", [100.0, 5.0])
def test_pearson_residuals_equal_scanpy(data_dir, theta):
    counts = read_her2st(data_dir, "C1").counts
    counts = counts[:, np.asarray(counts.sum(axis=0)).ravel() > 0]
    adata = ad.AnnData(counts.astype(np.float64))
    sc.experimental.pp.normalize_pearson_residuals(adata, theta=theta)
    normalization = resolved("pearson_residuals", counts, theta=theta)
    some = np.array([5, 900, 17])
    x = counts[:, some].toarray().T[..., None]  # (genes, spots, 1): the spots as the pixels of a column
    found = patch_values(x, spot_totals(counts)[:, None], normalization.of_genes(some))
    np.testing.assert_allclose(found[..., 0].T, adata.X[:, some], rtol=1e-5, atol=1e-6)


def test_pad_channels_of_residuals_are_zero():
    counts = sparse.csr_matrix(np.array([[1, 2], [3, 0]]))
    normalization = resolved("pearson_residuals", counts).of_genes(np.array([1, -1]))
    x = np.array([[2, 0], [0, 0]])[..., None]
    found = patch_values(x, np.array([3.0, 3.0])[:, None], normalization)
    assert (found[1] == 0).all()
    assert (found[0] != 0).all()


@given(st.lists(hnp.arrays(np.int64, st.integers(0, 9), elements=st.integers(0, 12)), min_size=1, max_size=5))
def test_corpus_median_is_that_of_all_spots(slides):
    joined = np.concatenate(slides)
    joined = joined[joined > 0]
    totals = [slide.astype(np.float64) for slide in slides]
    if len(joined):
        assert corpus_median(totals) == np.median(joined) == corpus_median(totals[::-1])
    else:
        with pytest.raises(InputError, match="median"):
            corpus_median(totals)


def test_blocks_do_not_change_values():
    counts = make_slide("a", np.random.default_rng(0).poisson(1.0, (30, 9))).counts
    normalization = resolved("log1p_total", counts)
    whole = normalize_csr(counts, spot_totals(counts), normalization).data
    for block in (1, 7, 40):
        parts = list(normalize.value_blocks(counts, spot_totals(counts), normalization, block=block))
        assert [start for start, _, _ in parts[1:]] == [stop for _, stop, _ in parts[:-1]]
        np.testing.assert_array_equal(np.concatenate([values for _, _, values in parts]), whole)


def test_wide_counts_and_totals_stay_exact():
    counts = sparse.csr_matrix(np.full((2, 3), 65535, dtype=np.uint16))
    np.testing.assert_array_equal(spot_totals(counts), [196605.0, 196605.0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Normalization(method="log1p_total"), "target_sum"),
        (lambda: Normalization(method="total", target_sum=-1.0), "target_sum"),
        (lambda: Normalization(method="pearson_residuals"), "gene sums"),
        (lambda: Normalization(method="log"), "unknown"),
        (lambda: resolved("total", sparse.csr_matrix(np.ones((1, 1))), target_sum="corpus_median"), "corpus_median"),
    ],
)
def test_refuses(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_a_slide_without_counts_has_no_residuals():
    with pytest.raises(InputError, match="no counts"):
        resolved("pearson_residuals", sparse.csr_matrix((3, 2), dtype=np.uint16))
