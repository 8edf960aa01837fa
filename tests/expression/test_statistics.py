"""Slide statistics survive their file."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from corpora import make_slide, normalized_by, panel_of, statistics_of

from stpatch.errors import DatasetError, InputError
from stpatch.expression.pool import pool_statistics
from stpatch.expression.rules.base import RuleSpec
from stpatch.expression.statistics import SlideStatistics

RNG = np.random.default_rng(0)
COUNTS = RNG.poisson(RNG.lognormal(0, 1.5, 80), (40, 80))
NAMES = [f"gène {i} \n,\x00'" for i in range(80)]


@pytest.mark.parametrize("method", ["none", "total", "log1p_total", "sqrt_total", "pearson_residuals"])
@pytest.mark.parametrize("rule", ["moran", "hvg_seurat_v3", "pearson_residuals", "variance"])
def test_round_trip(tmp_path, method, rule):
    spec = RuleSpec(method=rule, across_slides="rank")
    want = statistics_of([make_slide("a", COUNTS, NAMES)], spec, normalized_by(method))["a"]
    want.save(tmp_path / "a.npy")
    found = SlideStatistics.load(tmp_path / "a.npy")
    assert (found.slide_id, found.genes) == ("a", tuple(NAMES))
    assert found.normalization == want.normalization
    np.testing.assert_array_equal(found.totals, want.totals)
    if want.normalization.gene_sums is not None:
        np.testing.assert_array_equal(found.normalization.gene_sums, want.normalization.gene_sums)
    for part in ("counts", "values", "scaled"):
        assert (getattr(found, part) is None) == (getattr(want, part) is None)
        for key, value in vars(getattr(want, part) or object.__new__(type("Nothing", (), {}))).items():
            np.testing.assert_array_equal(getattr(getattr(found, part), key), value)
    assert set(found.scores) == set(want.scores) == ({spec.score_key} if "slide_scores" in spec.rule.needs else set())
    for key, value in want.scores.items():
        np.testing.assert_array_equal(found.scores[key], value)
    assert (found.moran is not None) == (rule == "moran")
    if found.moran is not None:
        np.testing.assert_array_equal(found.moran.index, want.moran.index)


@pytest.mark.parametrize("content", [b"", b"no record", b"\x93NUMPY\x01\x00v\x00{"])
def test_a_damaged_file_is_named(tmp_path, content):
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(DatasetError, match=r"a\.npy"):
        SlideStatistics.load(tmp_path / "a.npy")


def test_a_cut_file_is_named(tmp_path):
    statistics_of([make_slide("a", COUNTS)], RuleSpec(method="mean"))["a"].save(tmp_path / "a.npy")
    whole = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DatasetError, match="cannot be read"):
        SlideStatistics.load(tmp_path / "a.npy")


def test_a_flipped_bit_is_found_by_the_checksum(tmp_path):
    path = tmp_path / "a.npy"
    statistics_of([make_slide("a", COUNTS)], RuleSpec(method="mean"))["a"].save(path)
    whole = path.read_bytes()
    sha256 = hashlib.sha256(whole).hexdigest()
    assert SlideStatistics.load(path, sha256=sha256).n_spots == len(COUNTS)
    path.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    with pytest.raises(DatasetError, match=r"cannot be read(.|\n)*checksum"):
        SlideStatistics.load(path, sha256=sha256)


def test_equal_statistics_give_equal_bytes(tmp_path):
    for name in "ab":
        statistics_of([make_slide("s", COUNTS)], RuleSpec(method="moran"))["s"].save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_another_format_version_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("stpatch.expression.statistics.FORMAT", 99)
    statistics_of([make_slide("a", COUNTS)], RuleSpec(method="mean"))["a"].save(tmp_path / "a.npy")
    monkeypatch.undo()
    with pytest.raises(DatasetError, match="format version"):
        SlideStatistics.load(tmp_path / "a.npy")


@pytest.mark.parametrize("rule", ["hvg_seurat_v3", "pearson_residuals"])
@pytest.mark.parametrize("across", ["pooled", "rank"])
def test_rules_of_counts_refuse_normalized_input(rule, across):
    slide = make_slide("a", COUNTS.astype(np.float32) / 2)
    with pytest.raises(InputError, match="raw counts"):
        panel_of([slide], RuleSpec(method=rule, across_slides=across), normalized_by("none"))


def test_the_trend_needs_genes():
    slide = make_slide("few", RNG.poisson(3.0, (30, 4)))
    with pytest.raises(InputError, match=r"few(.|\n)*4 genes"):
        panel_of([slide], RuleSpec(method="hvg_seurat_v3", across_slides="rank"))
    alike = make_slide("alike", np.tile(RNG.poisson(3.0, (30, 1)), 40))
    with pytest.raises(InputError, match="trend"):
        panel_of([alike], RuleSpec(method="hvg_seurat_v3"))


def test_the_pool_counts_only_slides_that_measured_a_gene():
    one = make_slide("one", [[1, 2], [0, 4]], ["b", "a"])
    two = make_slide("two", [[5, 7]], ["c", "a"])
    statistics = statistics_of([one, two], RuleSpec(method="mean"))
    pooled = pool_statistics(["two", "one"], statistics.__getitem__)
    assert pooled.genes == ("a", "b", "c")
    np.testing.assert_array_equal(pooled.n_slides, [2, 1, 1])
    np.testing.assert_array_equal(pooled.counts.n, [3, 2, 1])
    np.testing.assert_array_equal(pooled.counts.total, [13, 1, 5])
    np.testing.assert_array_equal(pooled.reach, [19, 7, 12])
