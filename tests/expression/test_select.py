"""Panel rules: one moment, lists, ranks, slides that measured different genes, and what is refused."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from corpora import make_slide, normalized_by, panel_of, statistics_of
from hypothesis import given, settings
from hypothesis import strategies as st

from stpatch.errors import ConfigError, InputError, MismatchError, ProblemsError
from stpatch.expression.pool import pool_statistics
from stpatch.expression.rules.base import RuleSpec
from stpatch.expression.rules.registry import panel_rule
from stpatch.expression.select import select_panel
from stpatch.registry import PANEL_RULES

SIMPLE = ["variance", "cv", "mean", "detected"]
SCORED = [name for name in PANEL_RULES.own() if panel_rule(name).scored]


def slides_of(seed=0, sizes=(30, 20, 25), n_genes=60):
    """Slides of the same genes, with ties and an empty gene."""
    rng = np.random.default_rng(seed)
    rates = rng.lognormal(0, 1.2, n_genes)
    slides = []
    for i, n_spots in enumerate(sizes):
        counts = rng.poisson(rates * rng.gamma(2, 0.5, (n_spots, n_genes)))
        counts[:, 3] = 0
        counts[:, 7] = counts[:, 5]
        slides.append(make_slide(f"s{i}", counts))
    return slides


def values_of(slides):
    counts = np.vstack([s.counts.toarray() for s in slides]).astype(np.float64)
    totals = counts.sum(axis=1, keepdims=True)
    return counts, np.log1p(counts * np.divide(1e4, totals, out=np.zeros_like(totals), where=totals > 0))


def simple_reference(slides, method):
    counts, values = values_of(slides)
    with np.errstate(invalid="ignore"):
        return {
            "variance": values.var(axis=0, ddof=1),
            "cv": values.std(axis=0, ddof=1) / values.mean(axis=0),
            "mean": values.mean(axis=0),
            "detected": (counts > 0).sum(axis=0),
        }[method]


def by_score(scores, n):
    """Return gene names by falling score, ties by name, no NaN."""
    order = sorted(np.flatnonzero(~np.isnan(scores)), key=lambda i: (-round(float(scores[i]), 9), i))
    return [f"g{i:04d}" for i in order[:n]]


@pytest.mark.parametrize("method", SIMPLE)
@pytest.mark.parametrize("n", [1, 25, 500])
def test_pooled_moments_are_those_of_one_matrix(method, n):
    slides = slides_of()
    panel = panel_of(slides, RuleSpec(method=method, n=n))
    want = simple_reference(slides, method)
    assert list(panel.genes) == by_score(want, n)
    np.testing.assert_allclose(panel.scores, [want[int(g[1:])] for g in panel.genes], rtol=1e-12)


@pytest.mark.parametrize("method", SIMPLE)
def test_scope_slide_is_the_rule_of_one_slide(method):
    for slide in slides_of():
        for across in ("pooled", "rank"):
            rule = RuleSpec(method=method, n=10, scope="slide", across_slides=across)
            assert list(panel_of([slide], rule).genes) == by_score(simple_reference([slide], method), 10)


@pytest.mark.parametrize("method", SIMPLE)
def test_rank_is_number_of_slides_then_median_rank(method):
    slides = slides_of()
    n = 12
    ranks = {}
    for slide in slides:
        for rank, gene in enumerate(by_score(simple_reference([slide], method), n)):
            ranks.setdefault(gene, []).append(rank)
    want = sorted(ranks, key=lambda gene: (-len(ranks[gene]), np.median(ranks[gene]), gene))[:n]
    panel = panel_of(slides, RuleSpec(method=method, n=n, across_slides="rank"))
    assert list(panel.genes) == want
    np.testing.assert_array_equal(panel.scores, [np.median(ranks[gene]) for gene in want])


@pytest.mark.parametrize("method", SCORED)
@pytest.mark.parametrize("across", ["pooled", "rank"])
def test_any_order_of_slides_gives_the_same_bytes(method, across):
    slides = slides_of()
    rule = RuleSpec(method=method, n=20, across_slides=across)
    panels = [panel_of(order, rule) for order in itertools.permutations(slides)]
    assert len({(panel.genes, panel.scores.tobytes()) for panel in panels}) == 1
    assert len(panels[0].genes) == 20


@settings(max_examples=30, deadline=None)
@given(st.data())
@pytest.mark.parametrize("across", ["pooled", "rank"])
def test_order_of_genes_within_slides_does_not_matter(across, data):
    slides = slides_of(data.draw(st.integers(0, 99)))
    shuffled = []
    for slide in slides:
        order = np.array(data.draw(st.permutations(range(slide.n_genes))))
        names = [slide.genes.index[i] for i in order]
        shuffled.append(make_slide(slide.slide_id, slide.counts[:, order], names, xy=slide.xy))
    for method in ("variance", "hvg_seurat", "detected", "pearson_residuals"):
        rule = RuleSpec(method=method, n=15, across_slides=across)
        assert panel_of(shuffled, rule).genes == panel_of(slides, rule).genes


@pytest.mark.parametrize("method", SCORED)
@pytest.mark.parametrize("across", ["pooled", "rank"])
def test_slides_that_measured_different_genes(method, across):
    """A gene that no other slide measured competes with that slide's numbers alone."""
    slides = slides_of()
    small = make_slide("xenium", slides[0].counts[:, 20:45], [f"g{i:04d}" for i in range(20, 43)] + ["only", "zero"])
    panel = panel_of([*slides, small], RuleSpec(method=method, n=1000, across_slides=across))
    assert "only" in panel.genes
    assert len(set(panel.genes)) == len(panel.genes) <= 62
    lone = panel_of([small], RuleSpec(method=method, n=1000, across_slides=across))
    assert set(lone.genes) <= set(small.genes.index)


@pytest.mark.parametrize("method", ["hvg_seurat_v3", "pearson_residuals"])
def test_pooled_genes_of_one_slide_are_scored_over_its_spots(method):
    """Slides with no gene in common pool to each slide's own scores, where the score is a gene's alone."""
    slides = slides_of(sizes=(30, 30))
    other = make_slide("other", slides[1].counts, [f"h{i:04d}" for i in range(60)])
    panel = panel_of([slides[0], other], RuleSpec(method=method, n=200))
    found = dict(zip(panel.genes, panel.scores, strict=True))
    if method == "pearson_residuals":
        for slide in (slides[0], other):
            alone = panel_of([slide], RuleSpec(method=method, n=200))
            for gene, score in zip(alone.genes, alone.scores, strict=True):
                assert found[gene] == pytest.approx(score, rel=1e-9)
    assert len(found) == 120


@pytest.mark.parametrize("method", [*SCORED, "all"])
@pytest.mark.parametrize("across", ["pooled", "rank"])
def test_genes_that_may_not_be_selected_still_count(method, across):
    """The selectable genes keep their order; in ranks each slide's top n are the selectable ones."""
    slides = slides_of()
    among = {f"g{i:04d}" for i in range(1, 60, 3)}
    few, many = RuleSpec(method=method, n=6, across_slides=across), RuleSpec(method=method, n=60, across_slides=across)
    statistics = statistics_of(slides, few)
    options = {
        "slide_ids": list(statistics),
        "load_statistics": statistics.__getitem__,
        "load_slide": {s.slide_id: s for s in slides}.__getitem__,
    }
    found = select_panel(few, among=among, **options).genes
    assert set(found) <= among
    assert len(found) == (20 if method == "all" else 6)
    if across == "pooled":
        assert found == tuple(gene for gene in select_panel(many, **options).genes if gene in among)[: len(found)]


def test_all_is_the_sorted_vocabulary_and_list_is_as_given():
    slides = slides_of()
    assert panel_of(slides, RuleSpec(method="all", n=1)).genes == tuple(f"g{i:04d}" for i in range(60))
    chosen = ("g0030", "g0002", "g0003")
    for across in ("pooled", "rank"):
        panel = panel_of(slides, RuleSpec(method="list", n=1, genes=chosen, across_slides=across))
        assert panel.genes == chosen
        assert np.isnan(panel.scores).all()


def test_a_listed_gene_that_no_slide_measured_is_an_error_with_the_nearest():
    slides = [make_slide("a", np.ones((2, 3), dtype=int), ["EPCAM", "ERBB2", "ERBB3"])]
    with pytest.raises(ConfigError, match=r"'ERBB22'(.|\n)*'ERBB2'"):
        panel_of(slides, RuleSpec(method="list", genes=("EPCAM", "ERBB22")))
    with pytest.raises(ConfigError, match="take it off the list"):
        panel_of(slides, RuleSpec(method="list", genes=("XYZ",)))
    with pytest.raises(ConfigError, match="listed twice"):
        panel_of(slides, RuleSpec(method="list", genes=("EPCAM", "EPCAM")))
    with pytest.raises(ProblemsError) as caught:
        panel_of(slides, RuleSpec(method="list", genes=("one", "two", "EPCAM", "EPCAM")))
    assert len(caught.value.problems) == 3


def test_a_list_of_another_organism_is_a_short_error():
    names = tuple(f"Mouse{i}" for i in range(400))
    with pytest.raises(ProblemsError, match="400 of the 400 listed genes") as caught:
        panel_of(slides_of(), RuleSpec(method="list", genes=names))
    assert len(caught.value.problems) == 11


def test_case_alone_is_not_enough_but_is_named():
    slides = [make_slide("a", np.ones((2, 1), dtype=int), ["ERBB2"])]
    with pytest.raises(ConfigError, match="did you mean 'ERBB2'"):
        panel_of(slides, RuleSpec(method="list", genes=("Erbb2",)))


@pytest.mark.parametrize("method", [name for name in SCORED if panel_rule(name).refuses])
@pytest.mark.parametrize("across", ["pooled", "rank"])
def test_ratios_to_the_mean_refuse_pearson_residuals(method, across):
    with pytest.raises(ConfigError, match="Pearson"):
        panel_of(slides_of(), RuleSpec(method=method, across_slides=across), normalized_by("pearson_residuals"))


@pytest.mark.parametrize("method", [name for name in SCORED if not panel_rule(name).refuses])
def test_the_other_rules_take_pearson_residuals(method):
    panel = panel_of(slides_of(), RuleSpec(method=method, n=10), normalized_by("pearson_residuals"))
    assert len(panel.genes) == 10


def test_statistics_without_the_rules_scores_are_refused():
    statistics = statistics_of(slides_of(), RuleSpec(method="mean"))
    rule = RuleSpec(method="hvg_seurat_v3", across_slides="rank")
    with pytest.raises(MismatchError, match="normalize stage"):
        select_panel(rule, slide_ids=list(statistics), load_statistics=statistics.__getitem__, load_slide=None)


def test_slides_normalized_in_different_ways_are_refused():
    one, two = slides_of(sizes=(9, 9))
    rule = RuleSpec(method="mean")
    mixed = statistics_of([one], rule) | statistics_of([two], rule, normalized_by("total"))
    with pytest.raises(MismatchError, match="different ways"):
        pool_statistics(mixed, mixed.__getitem__)


def test_a_slide_rule_takes_one_slide():
    with pytest.raises(ConfigError, match="one slide"):
        panel_of(slides_of(), RuleSpec(method="mean", scope="slide"))


@pytest.mark.parametrize("method", ["hvg_seurat_v3", "pearson_residuals"])
def test_a_slides_own_scores_are_those_of_the_pool_of_one(method):
    slide = slides_of()[0]
    own = panel_of([slide], RuleSpec(method=method, n=25, scope="slide"))
    pool = panel_of([slide], RuleSpec(method=method, n=25))
    assert own.genes == pool.genes
    np.testing.assert_allclose(own.scores, pool.scores, rtol=1e-12)


def test_no_slides():
    with pytest.raises(InputError, match="no slides"):
        select_panel(RuleSpec(method="mean"), slide_ids=[], load_statistics=None, load_slide=None)


@pytest.mark.parametrize("options", [{"method": "hvg"}, {"method": "mean", "n": 0}])
def test_a_wrong_rule_is_refused(options):
    with pytest.raises(ConfigError):
        RuleSpec(**options)


def test_empty_slides_have_no_panel_but_no_fault_either():
    slides = [make_slide("a", np.zeros((5, 30), dtype=int)), make_slide("b", np.zeros((3, 30), dtype=int))]
    for method, across in itertools.product(SCORED, ("pooled", "rank")):
        panel = panel_of(slides, RuleSpec(method=method, n=4, across_slides=across))
        assert len(panel.genes) <= 4
