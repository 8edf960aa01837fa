"""Panel rules that rank by one moment, lists, and everything."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from stpatch.errors import ConfigError
from stpatch.expression.normalize import resolve_normalization, spot_totals
from stpatch.expression.rules import RuleSpec
from stpatch.expression.select import select_panel
from stpatch.expression.statistics import SlideStatistics, slide_statistics
from stpatch.slides.slide import Slide


def make_slide(slide_id, dense, genes):
    counts = sparse.csr_matrix(np.asarray(dense, dtype=np.uint16))
    n = counts.shape[0]
    return Slide(
        slide_id=slide_id, platform="table", organism="human", counts=counts,
        genes=pd.DataFrame({"name": genes, "ensembl_id": ""}, index=pd.Index(genes, name="gene")),
        spot_ids=np.array([f"s{i}" for i in range(n)], dtype=object),
        xy=np.column_stack([np.arange(n), np.zeros(n)]).astype(float), array=None, geometry="irregular",
        um_per_unit=None, pitch=None, labels=pd.DataFrame(index=range(n)), metadata={}, record={},
    )  # fmt: skip


def test_variance(tmp_path):
    rng = np.random.default_rng(0)
    slides = {
        k: make_slide(k, rng.poisson(rng.gamma(1, 1, 20), (30, 20)), [f"g{i:02d}" for i in range(20)]) for k in "ab"
    }
    norm = resolve_normalization("log1p_total", counts=slides["a"].counts, totals=spot_totals(slides["a"].counts))
    for k, s in slides.items():
        slide_statistics(s, normalization=norm).save(tmp_path / f"{k}.npz")

    def run(rule, ids=("b", "a")):
        return select_panel(
            rule,
            slide_ids=ids,
            load_statistics=lambda k: SlideStatistics.load(tmp_path / f"{k}.npz"),
            load_slide=slides.__getitem__,
        )

    both = np.vstack([s.counts.toarray() for s in slides.values()]).astype(float)
    values = np.log1p(both / both.sum(1, keepdims=True) * 1e4)
    want = np.argsort(-values.var(0, ddof=1))[:5]
    assert run(RuleSpec(method="variance", n=5)).genes == tuple(f"g{i:02d}" for i in want)
    assert run(RuleSpec(method="list", genes=("g03", "g01"))).genes == ("g03", "g01")
    assert len(run(RuleSpec(method="all")).genes) == 20
    with pytest.raises(ConfigError, match="g03"):
        run(RuleSpec(method="list", genes=("g3",)))
