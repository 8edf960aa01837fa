"""A reference for every rule: the published implementation, or plain NumPy where the rule is one formula.

A registered rule without an entry here fails `test_rules` by name. A panel reference takes slides of equal genes and
the given list, and returns the (genes,) scores over all spots, or the names. A patch reference takes the (pixels,
genes) values, the gene ids, n and the parts of the draw's key, and returns the chosen ids.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import anndata as ad
import esda
import numpy as np
import pandas as pd
import scanpy as sc
from expression.plain import plain_uniform
from libpysal.weights import WSP
from numpy.typing import NDArray
from scipy import sparse

from stpatch.expression.moran import neighbour_weights
from stpatch.seeds import key_of

Scores = NDArray[np.float64]
PanelReference = Callable[[Sequence[Any], tuple[str, ...]], Scores | tuple[str, ...]]
PatchReference = Callable[[NDArray[np.float64], NDArray[np.int64], int, tuple[Any, ...]], Sequence[int]]


def counts_of(slides: Sequence[Any]) -> Scores:
    return np.vstack([slide.counts.toarray() for slide in slides]).astype(np.float64)


def values_of(slides: Sequence[Any]) -> Scores:
    counts = counts_of(slides)
    return np.log1p(counts * 1e4 / counts.sum(axis=1, keepdims=True))


def scanpy_scores(slides: Sequence[Any], flavor: str | None) -> Scores:
    """Return what scanpy ranks by; flavor None: Pearson residuals."""
    genes = slides[0].genes.index.astype(str)
    adata = ad.AnnData(sparse.csr_matrix(counts_of(slides)), var=pd.DataFrame(index=genes))
    if flavor is None:
        table = sc.experimental.pp.highly_variable_genes(adata, n_top_genes=10, inplace=False)
        return table["residual_variances"].to_numpy(np.float64)
    if flavor == "seurat_v3":
        table = sc.pp.highly_variable_genes(adata, flavor=flavor, n_top_genes=10, inplace=False)
        return table["variances_norm"].to_numpy(np.float64)
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    table = sc.pp.highly_variable_genes(adata, flavor=flavor, n_top_genes=10, inplace=False)
    return table["dispersions_norm"].to_numpy(np.float64)


def esda_scores(slides: Sequence[Any]) -> Scores:
    weights = sparse.block_diag([neighbour_weights(slide) for slide in slides]).tocsr()
    w = WSP(weights).to_W(silence_warnings=True)
    return np.array([esda.Moran(column, w, transformation="O", permutations=0).I for column in values_of(slides).T])


PANEL_REFERENCES: dict[str, PanelReference] = {
    "hvg_seurat": lambda slides, _: scanpy_scores(slides, "seurat"),
    "hvg_cell_ranger": lambda slides, _: scanpy_scores(slides, "cell_ranger"),
    "hvg_seurat_v3": lambda slides, _: scanpy_scores(slides, "seurat_v3"),
    "pearson_residuals": lambda slides, _: scanpy_scores(slides, None),
    "variance": lambda slides, _: values_of(slides).var(axis=0, ddof=1),
    "cv": lambda slides, _: values_of(slides).std(axis=0, ddof=1) / values_of(slides).mean(axis=0),
    "mean": lambda slides, _: values_of(slides).mean(axis=0),
    "detected": lambda slides, _: np.count_nonzero(counts_of(slides), axis=0).astype(np.float64),
    "moran": lambda slides, _: esda_scores(slides),
    "list": lambda _, genes: genes,
    "all": lambda slides, _: tuple(sorted(slides[0].genes.index)),
}


def largest(scores: NDArray[np.float64], ids: NDArray[np.int64], n: int) -> list[int]:
    return [int(i) for _, i in sorted((-score, i) for score, i in zip(scores, ids, strict=True) if score > 0)[:n]]


def smallest_keys(weights: NDArray[np.float64], ids: NDArray[np.int64], n: int, key: tuple[Any, ...]) -> list[int]:
    number = key_of(*key)
    keys = [(-np.log(plain_uniform(int(i), number, 0)) / w, int(i)) for w, i in zip(weights, ids, strict=True) if w > 0]
    return [i for _, i in sorted(keys)[:n]]


PATCH_REFERENCES: dict[str, PatchReference] = {
    "variance": lambda x, ids, n, _: largest(x.var(axis=0, ddof=1), ids, n),
    "mean": lambda x, ids, n, _: largest(x.mean(axis=0), ids, n),
    "variance_sampled": lambda x, ids, n, key: smallest_keys(x.var(axis=0, ddof=1), ids, n, key),
    "random": lambda _, ids, n, key: sorted(ids.tolist(), key=lambda i: plain_uniform(i, key_of(*key), 0))[:n],
}
