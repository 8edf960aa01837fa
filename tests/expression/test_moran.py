"""Moran's I against esda with the same weights, and merged over slides."""

from __future__ import annotations

import numpy as np
import pytest
from corpora import make_slide, normalized_by, panel_of, read_her2st, statistics_of
from scipy import sparse

from stpatch.errors import MismatchError
from stpatch.expression.moran import MoranSums, neighbour_weights
from stpatch.expression.normalize import normalize_csr
from stpatch.expression.pool import pool_statistics
from stpatch.expression.rules.base import RuleSpec
from stpatch.expression.select import select_panel
from stpatch.image.values import PatchNormalizer

RULE = RuleSpec(method="moran", n=5)


def esda_index(weights, values):
    """Return Moran's I of each column from esda, over `weights` (rows add up to 1)."""
    esda = pytest.importorskip("esda")
    from libpysal.weights import WSP

    w = WSP(weights).to_W(silence_warnings=True)
    return np.array([esda.Moran(values[:, i], w, transformation="O", permutations=0).I for i in range(values.shape[1])])


def lattice_slide(geometry, seed=0, n_genes=12, slide_id="a", gap=0.2):
    rng = np.random.default_rng(seed)
    row, column = np.mgrid[:9, :8].reshape(2, -1)
    array = np.column_stack([row, 2 * column + row % 2 if geometry == "hex" else column])
    array = array[rng.random(len(array)) > gap]
    smooth = np.sin(array / 3).sum(axis=1, keepdims=True) + 2.5
    counts = rng.poisson(smooth * rng.gamma(2, 1, n_genes))
    counts[:, 1] = 0
    counts[:, 2] = rng.poisson(3, len(array))
    return make_slide(slide_id, counts, xy=array[:, ::-1], array=array, geometry=geometry)


def dense_values(slide, normalization):
    totals = np.asarray(slide.counts.sum(axis=1)).ravel().astype(float)
    if normalization.keeps_zeros:
        return normalize_csr(slide.counts, totals, normalization).toarray()
    counts = np.ascontiguousarray(slide.counts.toarray().T[..., None], np.uint32)
    full = np.empty(counts.shape, np.float32)
    PatchNormalizer().write(counts, totals[:, None], normalization.recipe, out=full)
    return full[..., 0].T.astype(np.float64)


@pytest.mark.filterwarnings("ignore:invalid value encountered")
@pytest.mark.parametrize("method", ["log1p_total", "none", "pearson_residuals"])
@pytest.mark.parametrize("geometry", ["square", "hex", "irregular"])
def test_equals_esda(geometry, method):
    slide = lattice_slide(geometry)
    found = statistics_of([slide], RULE, normalized_by(method))["a"]
    want = esda_index(neighbour_weights(slide), dense_values(slide, found.normalization))
    varies = np.arange(slide.n_genes) != 1
    np.testing.assert_allclose(found.moran.index[varies], want[varies], rtol=1e-5 if method[0] == "p" else 1e-9)
    assert np.isnan(found.moran.index[1])


@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_equals_esda_on_a_real_slide(data_dir):
    whole = read_her2st(data_dir, "C1")
    slide = make_slide(
        "C1", whole.counts[:, :200], list(whole.genes.index[:200]), array=whole.array, xy=whole.xy, geometry="square"
    )
    found = statistics_of([slide], RULE)["C1"]
    want = esda_index(neighbour_weights(slide), dense_values(slide, found.normalization))
    np.testing.assert_allclose(found.moran.index, want, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize(("geometry", "inner"), [("square", 4), ("hex", 6)])
def test_lattice_neighbours(geometry, inner):
    slide = lattice_slide(geometry, gap=0.0)
    weights = neighbour_weights(slide)
    number = np.diff(weights.indptr)
    assert number.max() == inner
    assert (number == inner).sum() == (7 * 6)
    np.testing.assert_allclose(weights.sum(axis=1), 1.0)
    links = weights > 0
    assert (links != links.T).nnz == 0
    # neighbours are the nearest spots, hexagon rows being sqrt(3) half-columns apart
    place = slide.array * [np.sqrt(3) if geometry == "hex" else 1.0, 1.0]
    a, b = weights.nonzero()
    np.testing.assert_allclose(np.linalg.norm(place[a] - place[b], axis=1), 2.0 if geometry == "hex" else 1.0)


def test_irregular_neighbours_of_spots_in_one_place():
    xy = np.zeros((20, 2))
    xy[15:] = np.arange(10).reshape(5, 2) + 5
    weights = neighbour_weights(make_slide("a", np.ones((20, 2), dtype=int), xy=xy))
    assert (np.diff(weights.indptr) == 6).all()
    assert not weights.diagonal().any()


@pytest.mark.parametrize("array", [[[0, 0]], [[0, 0], [5, 5]]])
def test_spots_without_neighbours_have_no_index(array):
    slide = make_slide("a", np.arange(2 * len(array)).reshape(-1, 2) + 1, array=array, geometry="square")
    assert np.isnan(statistics_of([slide], RULE)["a"].moran.index).all()
    lone = make_slide("b", np.ones((1, 2), dtype=int))
    assert np.isnan(statistics_of([lone], RULE)["b"].moran.index).all()


@pytest.mark.parametrize("method", ["log1p_total", "none"])
def test_pooled_slides_are_one_matrix_with_apart_graphs(method):
    slides = [lattice_slide("square", seed, slide_id=f"s{seed}") for seed in range(3)]
    statistics = statistics_of(slides, RULE, normalized_by(method))
    pooled = pool_statistics(statistics, statistics.__getitem__)
    weights = sparse.block_diag([neighbour_weights(s) for s in slides]).tocsr()
    values = np.vstack([dense_values(s, statistics[s.slide_id].normalization) for s in slides])
    z = values - values.mean(axis=0)
    with np.errstate(invalid="ignore"):
        want = len(z) / weights.sum() * (z * (weights @ z)).sum(axis=0) / (z * z).sum(axis=0)
    np.testing.assert_allclose(pooled.moran.index, want, rtol=1e-9)


def test_blocks_of_spots_do_not_change_the_sums(monkeypatch):
    slide = lattice_slide("hex")
    whole = statistics_of([slide], RULE)["a"].moran
    monkeypatch.setattr("stpatch.expression.moran.BLOCK_VALUES", 50)
    for method in ("log1p_total", "pearson_residuals"):
        part = statistics_of([slide], RULE, normalized_by(method))["a"].moran
        assert isinstance(part, MoranSums)
        if method == "log1p_total":
            np.testing.assert_allclose(part.cross, whole.cross, rtol=1e-9, atol=1e-9)


def test_ranks_the_smooth_genes_first_and_says_when_the_sums_lack():
    slides = [lattice_slide("square", seed, slide_id=f"s{seed}") for seed in range(3)]
    for across in ("pooled", "rank"):
        panel = panel_of(slides, RuleSpec(method="moran", n=8, across_slides=across), normalized_by("none"))
        assert "g0002" not in panel.genes
        assert "g0001" not in panel.genes
    statistics = statistics_of(slides, RuleSpec(method="mean"))
    with pytest.raises(MismatchError, match="normalize stage"):
        select_panel(RULE, slide_ids=list(statistics), load_statistics=statistics.__getitem__, load_slide=None)
