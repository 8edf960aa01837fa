"""The HVG rules against scanpy: same genes, same order, where scanpy is determinate.

scanpy ranks with an unstable sort, so genes of equal score have no order there. Its reference run is given a stable
sort and genes sorted by name, which makes ties go by name, as they do here.
"""

from __future__ import annotations

import functools

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from corpora import make_slide, panel_of, read_her2st
from scipy import sparse

from stpatch.expression.rules.base import RuleSpec

pytestmark = [
    pytest.mark.filterwarnings("ignore:`n_top_genes` > number of normalized dispersions:UserWarning"),
    pytest.mark.filterwarnings("ignore:invalid value encountered in log:RuntimeWarning"),
]
METHODS = ["hvg_seurat", "hvg_cell_ranger", "hvg_seurat_v3", "pearson_residuals"]
CLOSE = 1e-9
SCORES = {"hvg_seurat_v3": "variances_norm", "pearson_residuals": "residual_variances"}


def reference(slides, method, n, *, batches, log=True):
    """Return scanpy's table for the joined slides (equal genes)."""
    genes = slides[0].genes.index
    counts = sparse.vstack([s.counts for s in slides]).tocsr().astype(np.float64)
    obs = pd.DataFrame({"slide": pd.Categorical(np.repeat([s.slide_id for s in slides], [s.n_spots for s in slides]))})
    obs.index = obs.index.astype(str)
    adata = ad.AnnData(counts, obs=obs, var=pd.DataFrame(index=genes.astype(str)))
    key = "slide" if batches else None
    if method == "hvg_seurat_v3":
        return sc.pp.highly_variable_genes(adata, flavor="seurat_v3", n_top_genes=n, batch_key=key, inplace=False)
    if method == "pearson_residuals":
        return sc.experimental.pp.highly_variable_genes(adata, n_top_genes=n, batch_key=key, inplace=False)
    if log:
        sc.pp.normalize_total(adata, target_sum=1e4)
        sc.pp.log1p(adata)
    flavor = method.removeprefix("hvg_")
    return sc.pp.highly_variable_genes(adata, flavor=flavor, n_top_genes=n, batch_key=key, inplace=False)


def assert_single(panel, table, method, n):
    """The panel is scanpy's order by score, ties by name; a gene without a score is in neither."""
    scores = table[SCORES.get(method, "dispersions_norm")].astype(np.float64).dropna()
    want = scores.sort_index().sort_values(ascending=False, kind="stable")[:n]
    np.testing.assert_allclose(panel.scores, want, rtol=CLOSE, atol=1e-12)
    if list(panel.genes) != list(want.index):
        # equal scores but for rounding may change places, and only those
        assert len(set(panel.genes)) == len(want)
        np.testing.assert_allclose(panel.scores, scores[list(panel.genes)], rtol=CLOSE, atol=1e-12)
    if (
        method in ("hvg_seurat", "hvg_cell_ranger")
        and n < len(scores)
        and want.iloc[-1] > scores.drop(want.index).max()
    ):
        assert set(panel.genes) == set(table.index[table["highly_variable"]])


def ordered_batches(table, method, n):
    """Return scanpy's order for several batches, ties by name."""
    table = table.sort_index()
    if method == "hvg_seurat_v3":
        keys, up = ["highly_variable_rank", "highly_variable_nbatches"], [True, False]
    elif method == "pearson_residuals":
        keys, up = ["highly_variable_nbatches", "highly_variable_rank"], [False, True]
    else:
        keys, up = ["highly_variable_nbatches", "dispersions_norm"], [False, False]
    return list(table.sort_values(keys, ascending=up, na_position="last").index[:n])


def read_h5ad(data_dir):
    adata = ad.read_h5ad(data_dir / "h5ad" / "st_breast_layer2.h5ad")
    adata = adata[:, adata.var_names.argsort()].copy()
    return make_slide("layer2", adata.X, list(adata.var_names), xy=adata.obsm["spatial"])


def random_slide(seed, n_spots=60, n_genes=300, slide_id="a"):
    """Counts with empty, constant and duplicated genes."""
    rng = np.random.default_rng(seed)
    rates = np.random.default_rng(7).lognormal(0, 1.5, n_genes) * rng.lognormal(0, 0.3, n_genes)
    counts = rng.poisson(rates * rng.gamma(2, 0.5, (n_spots, n_genes)))
    counts[:, :4] = 0
    counts[:, 10] = 3
    counts[:, 20:24] = counts[:, [24]]  # ties
    return make_slide(slide_id, counts)


@pytest.fixture(scope="module")
def sections(data_dir):
    slides = [read_her2st(data_dir, name) for name in ("A1", "B1", "C1")]
    shared = sorted(set.intersection(*(set(s.genes.index) for s in slides)))
    return [
        make_slide(s.slide_id, s.counts[:, s.genes.index.get_indexer(shared)], shared, array=s.array, geometry="square")
        for s in slides
    ]


@pytest.fixture
def _stable(monkeypatch):
    monkeypatch.setattr(np, "argsort", functools.partial(np.argsort, kind="stable"))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["A1", "h5ad"])
def test_one_real_slide(sections, data_dir, method, name):
    slide = sections[0] if name == "A1" else read_h5ad(data_dir)
    panel = panel_of([slide], RuleSpec(method=method, n=2000, scope="slide"))
    assert_single(panel, reference([slide], method, 2000, batches=False), method, 2000)


@pytest.mark.parametrize("method", METHODS)
def test_pooled_real_slides_are_one_matrix(sections, method):
    panel = panel_of(sections, RuleSpec(method=method, n=2000))
    assert_single(panel, reference(sections, method, 2000, batches=False), method, 2000)


@pytest.mark.usefixtures("_stable")
@pytest.mark.parametrize("method", METHODS)
def test_rank_real_slides_is_batch_key(sections, method):
    slides = sections
    if method == "pearson_residuals":  # scanpy clips every batch at the first one's sqrt(n): compare at equal sizes
        n = min(s.n_spots for s in slides)
        slides = [make_slide(s.slide_id, s.counts[:n], list(s.genes.index)) for s in slides]
    panel = panel_of(slides, RuleSpec(method=method, n=2000, across_slides="rank"))
    table = reference(slides, method, 2000, batches=True)
    assert list(panel.genes) == ordered_batches(table, method, 2000)


@pytest.mark.usefixtures("_stable")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("n", [1, 50, 290, 1000])
def test_random_slides_with_ties_constant_and_empty_genes(method, seed, n):
    slides = [random_slide(seed + 10 * i, slide_id=f"s{i}") for i in range(3)]
    one = panel_of(slides[:1], RuleSpec(method=method, n=n, scope="slide"))
    assert_single(one, reference(slides[:1], method, n, batches=False), method, n)
    pooled = panel_of(slides, RuleSpec(method=method, n=n))
    assert_single(pooled, reference(slides, method, n, batches=False), method, n)
    ranked = panel_of(slides, RuleSpec(method=method, n=n, across_slides="rank"))
    assert list(ranked.genes) == ordered_batches(reference(slides, method, n, batches=True), method, n)


@pytest.mark.parametrize("method", METHODS)
def test_a_one_spot_slide_ranks_nothing(method):
    """scanpy cannot look at it at all: it raises or dies."""
    slides = [random_slide(1, slide_id="a"), random_slide(2, slide_id="b")]
    lone = random_slide(3, n_spots=1, slide_id="lone")
    rule = RuleSpec(method=method, n=40, across_slides="rank")
    assert panel_of([*slides, lone], rule).genes == panel_of(slides, rule).genes
    assert len(panel_of([*slides, lone], RuleSpec(method=method, n=40)).genes) == 40
    alone = panel_of([lone], RuleSpec(method=method, n=40, scope="slide")).genes
    assert method == "pearson_residuals" or alone == ()
