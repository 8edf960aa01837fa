"""Channels of built datasets: panel, slide and patch rules, normalizations, vocabularies, organisms."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import scanpy as sc
from bundles.built import build, poisson_counts, square, write_counts
from bundles.corpus import digests
from corpora import make_slide, panel_of
from scipy import sparse

import stpatch
from stpatch.dataset.reader import Dataset
from stpatch.dataset.sample import Sample
from stpatch.errors import ConfigError, InputError
from stpatch.expression.rules.base import RuleSpec
from stpatch.expression.rules.registry import patch_rule
from stpatch.registry import PANEL_RULES, PATCH_RULES
from stpatch.views.whole import Whole

ROWS, COLUMNS = 8, 10
WHOLE = {"unit": "slide"}


def names(n: int, start: int = 0) -> list[str]:
    return [f"G{i:03d}" for i in range(start, start + n)]


@pytest.fixture(scope="module")
def counts() -> dict[str, np.ndarray]:
    return {name: poisson_counts(ROWS * COLUMNS, 60, seed=seed) for seed, name in enumerate(("one", "two", "three"))}


@pytest.fixture
def folder(tmp_path: Path, counts: dict[str, np.ndarray]) -> Path:
    """Return a folder of three slides that measured the same 60 genes."""
    for name, matrix in counts.items():
        write_counts(tmp_path / f"{name}.h5ad", matrix, array=square(ROWS, COLUMNS))
    return tmp_path


SHEET = [{"slide_id": "one"}, {"slide_id": "two"}, {"slide_id": "three"}]


def open_all(folder: Path, name: str = "out", **options: Any) -> Dataset:
    return stpatch.open(folder / name, "train", **options)


def gene_names(dataset: Dataset, ids: np.ndarray) -> list[str]:
    """Return names from the table alone, ``<pad>`` for the pad."""
    rows = pq.read_table(dataset.folder / "genes.parquet").to_pydict()
    known = dict(zip(rows["gene_id"], rows["name"], strict=True))
    assert dataset.manifest.pad_id not in known
    known[dataset.manifest.pad_id] = "<pad>"
    return [known[number] for number in np.asarray(ids).tolist()]


def window_of(matrix: np.ndarray, sample: Sample, columns: list[int]) -> np.ndarray:
    """Return a sample's (channels, height, width) counts from the slide's own matrix."""
    image = matrix.reshape(ROWS, COLUMNS, -1).transpose(2, 0, 1)
    out = np.zeros((len(columns), *sample.totals.shape), matrix.dtype)
    row, column = sample.meta["row"], sample.meta["col"]
    part = image[columns, row : row + out.shape[1], column : column + out.shape[2]]
    out[:, : part.shape[1], : part.shape[2]] = part
    return out


# -- patch rules ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", PATCH_RULES.own())
def test_patch_rules_draw_from_candidates(folder: Path, counts: dict[str, np.ndarray], method: str) -> None:
    draws = 2 if patch_rule(method).draws else 1
    candidates = {"method": "mean", "n": 20}
    build(folder, SHEET, channels={"method": method, "n": 6, "draws": draws, "candidates": candidates})
    slides = [make_slide(name, matrix, names(60)) for name, matrix in counts.items()]
    allowed = set(panel_of(slides, RuleSpec(method="mean", n=20)).genes)
    dataset = open_all(folder)
    assert len(dataset) == 3 * 6 * draws
    by_window: dict[str, list[tuple[int, ...]]] = {}
    for sample in dataset:
        assert sample.genes is not None
        chosen = gene_names(dataset, sample.genes)
        assert chosen == sorted(set(chosen))
        assert set(chosen) <= allowed
        columns = [int(name[1:]) for name in chosen]
        matrix = counts[sample.meta["slide_id"]]
        np.testing.assert_array_equal(sample.x, window_of(matrix, sample, columns))
        window = sample.key.rsplit("-", 1)[0] if draws > 1 else sample.key
        assert sample.meta.get("draw", 0) == (int(sample.key.rsplit("-", 1)[1]) if draws > 1 else 0)
        by_window.setdefault(window, []).append(tuple(sample.genes.tolist()))
        if method in ("variance", "mean"):
            every = window_of(matrix, sample, list(range(60)))[:, sample.totals > 0]
            values = np.log1p(every * 1e4 / sample.totals[sample.totals > 0])
            scores = values.var(axis=1) if method == "variance" else values.mean(axis=1)
            best = sorted((name for name in allowed), key=lambda name: -scores[int(name[1:])])[:6]
            assert sorted(best) == chosen
    assert all(len(drawn) == draws for drawn in by_window.values())
    if draws > 1:
        assert sum(a != b for a, b in by_window.values()) > len(by_window) * 0.8


def test_too_few_varying_genes_are_filled_and_then_padded(tmp_path: Path) -> None:
    """Ten genes, of which four vary: they are always drawn, others fill up, and padding comes last."""
    matrix = np.ones((64, 10), np.int64) * np.arange(1, 11)
    matrix[:, [1, 4, 6, 9]] = np.random.default_rng(0).integers(0, 50, (64, 4))
    write_counts(tmp_path / "few.h5ad", matrix, array=square(8, 8))
    write_counts(tmp_path / "many.h5ad", poisson_counts(64, 30), array=square(8, 8))
    sheet = [{"slide_id": "few"}, {"slide_id": "many"}]
    for n in (6, 14):
        build(tmp_path, sheet, name=f"n{n}", channels={"n": n}, normalize={"method": "none"})
        dataset = open_all(tmp_path, f"n{n}")
        fills = set()
        for number, sample in enumerate(dataset):
            assert sample.genes is not None
            real = sample.genes[sample.genes != 0]
            assert (np.diff(real) > 0).all()
            assert (sample.genes[len(real) :] == 0).all()
            np.testing.assert_array_equal(dataset.measured(number), sample.genes != 0)
            if sample.meta["slide_id"] == "many":
                assert len(real) == n
                continue
            columns = [int(name[1:]) for name in gene_names(dataset, real)]
            assert {1, 4, 6, 9} <= set(columns)
            assert len(columns) == min(n, 10)
            assert (sample.x[len(real) :] == 0).all()
            fills.add(tuple(columns))
        assert len(fills) == (1 if n == 14 else 4), "what fills differs between windows"


def test_the_samplesheets_order_is_no_part_of_a_build(folder: Path) -> None:
    channels = {"n": 8, "draws": 2}
    shards = {"patches": 5, "mix": 2}
    build(folder, SHEET, channels=channels, shards=shards)
    first = digests(folder / "out")
    shutil.rmtree(folder / "out")
    shutil.rmtree(folder / "out.work")
    build(folder, SHEET[::-1], channels=channels, shards=shards)
    assert digests(folder / "out") == first


def test_a_window_draws_the_same_whatever_else_is_built(folder: Path) -> None:
    """Another slide in the corpus, fewer windows, other shards: nothing of it moves a draw."""
    build(folder, SHEET, name="three")
    crop = {"size": [4, 4], "min_coverage": 0.9}
    build(folder, SHEET[1:2], name="one", crop=crop, shards={"format": "zarr", "patches": 3})
    several, alone = open_all(folder, "three"), open_all(folder, "one")
    assert 0 < len(alone) < 6
    for sample in alone:
        other = several[sample.key]
        np.testing.assert_array_equal(sample.x, other.x)
        assert gene_names(alone, sample.genes) == gene_names(several, other.genes)


# -- panel and slide rules ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", PANEL_RULES.own())
def test_panels_are_the_rules_own(folder: Path, counts: dict[str, np.ndarray], method: str) -> None:
    genes = ["G007", "G001", "G044"] if method == "list" else None
    sheet = SHEET[:2]
    array = square(ROWS, COLUMNS)
    slides = {
        row["slide_id"]: make_slide(
            row["slide_id"], counts[row["slide_id"]], names(60), array=array, xy=array[:, ::-1], geometry="square"
        )
        for row in sheet
    }
    for scope in ("panel", "slide"):
        section = {"scope": scope, "method": method, "n": 9, "genes": genes}
        build(folder, sheet, name=scope, channels=section, crop=WHOLE)
        dataset = open_all(folder, scope)
        rule = RuleSpec(method=method, n=9, genes=tuple(genes or ()), scope=scope)
        for number, sample in enumerate(dataset):
            slide_id = sample.meta["slide_id"]
            used = list(slides.values()) if scope == "panel" else [slides[slide_id]]
            expected = list(panel_of(used, rule).genes)
            assert sample.genes is not None
            assert gene_names(dataset, sample.genes) == expected
            assert dataset.measured(number).all()
            np.testing.assert_array_equal(
                sample.x, window_of(counts[slide_id], sample, [int(name[1:]) for name in expected])
            )
        channel = pq.read_table(dataset.folder / "genes.parquet")["channel"].to_pylist()
        assert sum(at is not None for at in channel) == (len(expected) if scope == "panel" else 0)


def test_slides_of_a_short_list_are_padded(tmp_path: Path) -> None:
    """Scope slide with all genes: slides measured 12 and 30, so the first has 18 channels of nothing."""
    write_counts(tmp_path / "few.h5ad", poisson_counts(36, 12), array=square(6, 6))
    write_counts(tmp_path / "many.h5ad", poisson_counts(36, 30), array=square(6, 6))
    build(
        tmp_path, [{"slide_id": "few"}, {"slide_id": "many"}], channels={"scope": "slide", "method": "all"}, crop=WHOLE
    )
    dataset = open_all(tmp_path)
    for number, sample in enumerate(dataset):
        measured = 12 if sample.meta["slide_id"] == "few" else 30
        assert sample.x.shape == (30, 6, 6)
        assert (sample.genes[measured:] == 0).all()
        np.testing.assert_array_equal(dataset.measured(number), np.arange(30) < measured)


def test_each_slide_has_the_listed_genes_that_it_measured(tmp_path: Path) -> None:
    write_counts(tmp_path / "few.h5ad", poisson_counts(36, 12), array=square(6, 6))
    write_counts(tmp_path / "many.h5ad", poisson_counts(36, 30), array=square(6, 6))
    sheet = [{"slide_id": "few"}, {"slide_id": "many"}]
    listed = {"scope": "slide", "method": "list", "genes": ["G020", "G003", "G001"]}
    build(tmp_path, sheet, channels=listed, crop=WHOLE)
    dataset = open_all(tmp_path)
    assert {sample.meta["slide_id"]: gene_names(dataset, sample.genes) for sample in dataset} == {
        "few": ["G003", "G001", "<pad>"], "many": ["G020", "G003", "G001"],
    }  # fmt: skip
    with pytest.raises(ConfigError, match="no slide measured gene 'G077'"):
        build(tmp_path, sheet, channels={**listed, "genes": ["G077", "G003"]}, crop=WHOLE)


def test_a_slide_that_a_rule_cannot_rank_is_named(tmp_path: Path) -> None:
    write_counts(tmp_path / "dot.h5ad", poisson_counts(1, 12), array=square(1, 1))
    write_counts(tmp_path / "many.h5ad", poisson_counts(36, 12), array=square(6, 6))
    sheet = [{"slide_id": "many"}, {"slide_id": "dot"}]
    build(tmp_path, sheet, name="panel", channels={"scope": "panel", "method": "hvg_seurat"})
    with pytest.raises(InputError, match="chose no gene") as caught:
        build(tmp_path, sheet, channels={"scope": "slide", "method": "hvg_seurat"})
    assert "slide dot" in str(caught.value)


@pytest.mark.parametrize("across", ["pooled", "rank"])
def test_mixed_panels(tmp_path: Path, across: str) -> None:
    """A slide of 30 genes beside one of 400: what a slide did not measure is marked, and is no zero."""
    targeted = [f"G{i:03d}" for i in range(0, 300, 10)]
    matrices = {"targeted": poisson_counts(100, 30, seed=3, mean=6), "whole": poisson_counts(80, 400, seed=4)}
    write_counts(tmp_path / "targeted.h5ad", matrices["targeted"], array=square(10, 10), genes=targeted)
    write_counts(tmp_path / "whole.h5ad", matrices["whole"], array=square(ROWS, COLUMNS))
    sheet = [{"slide_id": "targeted"}, {"slide_id": "whole"}]
    build(tmp_path, sheet, channels={"scope": "panel", "method": "mean", "n": 50, "across_slides": across})
    dataset = open_all(tmp_path)
    panel = gene_names(dataset, dataset.panel)
    own = np.array([name in targeted for name in panel])
    assert 0 < own.sum() < 50
    for number, sample in enumerate(dataset):
        expected = own if sample.meta["slide_id"] == "targeted" else np.ones(50, bool)
        np.testing.assert_array_equal(dataset.measured(number), expected)
        assert (sample.x[~expected] == 0).all()
    table = pq.read_table(tmp_path / "out" / "genes.parquet").to_pandas().set_index("name")
    assert (table["n_slides"] == np.where(table.index.isin(targeted), 2, 1)).all()
    assert table.loc["G001", "n_spots"] == 80
    assert table.loc["G010", "n_spots"] == 180

    build(tmp_path, sheet, name="drawn", channels={"n": 40})
    drawn = open_all(tmp_path, "drawn")
    for number, sample in enumerate(drawn):
        chosen = gene_names(drawn, sample.genes)
        if sample.meta["slide_id"] == "targeted":
            assert chosen == [*sorted(targeted), *["<pad>"] * 10]
        assert dataset.slide_ids == drawn.slide_ids
        assert drawn.measured(number).sum() == (30 if sample.meta["slide_id"] == "targeted" else 40)


def test_a_slide_without_any_gene_of_the_panel_is_refused(tmp_path: Path) -> None:
    write_counts(tmp_path / "a.h5ad", poisson_counts(36, 12), array=square(6, 6))
    write_counts(tmp_path / "b.h5ad", poisson_counts(36, 12), array=square(6, 6), genes=names(12, 500))
    with pytest.raises(InputError, match="measured no gene of the panel"):
        build(
            tmp_path,
            [{"slide_id": "a"}, {"slide_id": "b"}],
            channels={"scope": "panel", "method": "list", "genes": ["G001", "G002"]},
        )


# -- normalizations -------------------------------------------------------------------------------------------------

ALL_GENES = {"scope": "panel", "method": "all"}


def as_anndata(matrix: np.ndarray) -> anndata.AnnData:
    table = pd.DataFrame(index=[str(i) for i in range(len(matrix))])
    return anndata.AnnData(X=sparse.csr_matrix(matrix.astype(np.float64)), obs=table)


def spots_of(sample: Sample) -> np.ndarray:
    """Return a whole slide's sample as (spots, genes), in order of place."""
    return sample.x.reshape(len(sample.x), -1).T


@pytest.mark.parametrize("target_sum", ["slide_median", "corpus_median", 5000])
@pytest.mark.parametrize("values", ["counts", "normalized"])
def test_target_sums_are_scanpys(
    folder: Path, counts: dict[str, np.ndarray], target_sum: str | float, values: str
) -> None:
    counts = {"one": counts["one"], "two": counts["two"] * 3}
    write_counts(folder / "two.h5ad", counts["two"], array=square(ROWS, COLUMNS))
    sections: dict[str, Any] = {"normalize": {"target_sum": target_sum}, "shards": {"values": values}}
    build(folder, SHEET[:2], channels=ALL_GENES, crop=WHOLE, **sections)
    for sample in open_all(folder, values="normalized"):
        slide_id = sample.meta["slide_id"]
        together = ["one", "two"] if target_sum == "corpus_median" else [slide_id]
        slide = as_anndata(np.concatenate([counts[name] for name in together]))
        sc.pp.normalize_total(slide, target_sum=target_sum if target_sum == 5000 else None)
        sc.pp.log1p(slide)
        start = ROWS * COLUMNS * together.index(slide_id)
        expected = slide.X.toarray()[start : start + ROWS * COLUMNS]
        np.testing.assert_allclose(spots_of(sample), expected, rtol=1e-6)


def test_pearson_residuals_are_scanpys(folder: Path, counts: dict[str, np.ndarray]) -> None:
    sections: dict[str, Any] = {"normalize": {"method": "pearson_residuals"}, "shards": {"values": "normalized"}}
    build(folder, SHEET, channels=ALL_GENES, crop=WHOLE, **sections)
    for sample in open_all(folder):
        matrix = counts[sample.meta["slide_id"]]
        slide = as_anndata(matrix)
        with np.errstate(invalid="ignore"):  # it divides by the 0 that is expected of a gene without counts
            sc.experimental.pp.normalize_pearson_residuals(slide, check_values=False)
        counted = matrix.sum(axis=0) > 0
        np.testing.assert_allclose(spots_of(sample)[:, counted], np.asarray(slide.X)[:, counted], rtol=1e-5, atol=1e-6)
        assert (spots_of(sample)[:, ~counted] == 0).all()
    build(folder, SHEET, name="drawn", channels={"n": 9}, **sections)
    whole = {sample.meta["slide_id"]: sample.x for sample in open_all(folder)}
    drawn = open_all(folder, "drawn")
    for sample in drawn:
        row, column = sample.meta["row"], sample.meta["col"]
        columns = [int(name[1:]) for name in gene_names(drawn, sample.genes)]
        part = whole[sample.meta["slide_id"]][columns, row : row + 4, column : column + 4]
        np.testing.assert_array_equal(sample.x[:, : part.shape[1], : part.shape[2]], part)
        assert (sample.x[:, sample.totals == 0] == 0).all()


def test_counts_cannot_give_residuals_back(folder: Path) -> None:
    with pytest.raises(ConfigError, match="needs the whole slide"):
        build(folder, SHEET, normalize={"method": "pearson_residuals"})
    with pytest.raises(ConfigError, match="makes fractions"):
        build(folder, SHEET, grid={"collisions": "mean"})


@pytest.mark.parametrize("method", ["none", "total", "sqrt_total", "log1p_total"])
def test_normalizations_from_counts_and_stored_are_the_same(folder: Path, method: str) -> None:
    for values in ("counts", "normalized"):
        build(folder, SHEET[:1], name=values, normalize={"method": method}, shards={"values": values})
    stored, read = open_all(folder, "normalized"), open_all(folder, "counts", values="normalized")
    for sample in read:
        np.testing.assert_array_equal(sample.genes, stored[sample.key].genes)
        np.testing.assert_array_equal(sample.x, stored[sample.key].x)


def test_half_precision_holds_what_it_can(folder: Path, counts: dict[str, np.ndarray]) -> None:
    half = {"values": "normalized", "dtype": "float16"}
    build(folder, SHEET, channels=ALL_GENES, crop=WHOLE, shards=half)
    for sample in open_all(folder):
        matrix = counts[sample.meta["slide_id"]]
        assert sample.x.dtype == np.float16
        np.testing.assert_allclose(spots_of(sample), np.log1p(matrix * (1e4 / matrix.sum(1, keepdims=True))), rtol=5e-4)
    assert open_all(folder, values="normalized")[0].x.dtype == np.float32
    with pytest.raises(ConfigError, match="larger than float16 holds"):
        build(folder, SHEET, name="large", normalize={"method": "total", "target_sum": 1e7}, shards=half)


# -- vocabularies and organisms -------------------------------------------------------------------------------------


@pytest.mark.parametrize("pad", [25, 5000])
@pytest.mark.parametrize("scope", ["panel", "slide", "patch"])
def test_an_external_vocabulary_of_ids_from_zero(tmp_path: Path, pad: int, scope: str) -> None:
    """As foundation models publish them: ids from 0 in any order, ``<pad>`` anywhere, some genes not in it."""
    write_counts(tmp_path / "few.h5ad", poisson_counts(36, 12), array=square(6, 6))
    write_counts(tmp_path / "many.h5ad", poisson_counts(36, 40), array=square(6, 6))
    order = np.random.default_rng(1).permutation(36)
    free = [number for number in range(80) if number != pad]
    vocabulary = {f"G{gene:03d}": free[i] for i, gene in enumerate(order.tolist())} | {"<pad>": pad, "<cls>": 4000}
    first = next(name for name, number in vocabulary.items() if number == 0)
    vocabulary["G003"], vocabulary[first] = 0, vocabulary["G003"]
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    method = "variance_sampled" if scope == "patch" else "all"
    build(
        tmp_path,
        [{"slide_id": "few"}, {"slide_id": "many"}],
        channels={"scope": scope, "method": method, "n": 30},
        ingest={"genes": {"vocabulary": "vocab.json"}},
    )
    dataset = open_all(tmp_path)
    name_of = {number: name for name, number in vocabulary.items()}
    assert dataset.manifest.pad_id == pad
    assert dataset.vocabulary[pad] == "<pad>"
    for number, name in name_of.items():
        if name.startswith("G"):
            assert dataset.vocabulary[number] == name
    padded = 0
    for number, sample in enumerate(dataset):
        few = sample.meta["slide_id"] == "few"
        channels = [name_of[gene] for gene in sample.genes.tolist()]
        measured = [name != "<pad>" and (not few or int(name[1:]) < 12) for name in channels]
        np.testing.assert_array_equal(dataset.measured(number), measured)
        if few:
            assert "G003" in channels
            assert sum(measured) == 12
            padded += channels.count("<pad>")
        assert (sample.x[~np.array(measured)] == 0).all()
        stored = dataset.genes(number)
        np.testing.assert_array_equal(stored, sample.genes)
    assert (padded > 0) == (scope != "panel")
    shown = Whole(tmp_path / "out")
    assert ["" if name == "<pad>" else name for name in channels] == list(shown.names_of(sample, split="train"))
    shown.close()
    batch = next(dataset.batches(len(dataset)))
    np.testing.assert_array_equal(batch.genes, [dataset.genes(number) for number in range(len(dataset))])
    unmatched = json.loads(pq.read_table(tmp_path / "out" / "slides.parquet")["qc"].to_pylist()[1])["vocabulary"]
    assert unmatched["unmatched"] == 4


def test_genes_of_two_organisms_stay_apart_unless_mapped(tmp_path: Path) -> None:
    """C3 is a gene of human and of mouse; without a map they are two genes, and with one they are what it says."""
    human, mouse = ["C3", "GAPDH", "ACTB", "MYC"], ["C3", "Gapdh", "Actb", "Myc"]
    write_counts(
        tmp_path / "h.h5ad", poisson_counts(36, 4), array=square(6, 6), genes=human,
        ensembl=[f"ENSG{i:011d}" for i in range(4)],
    )  # fmt: skip
    write_counts(tmp_path / "m.h5ad", poisson_counts(36, 4, seed=1), array=square(6, 6), genes=mouse)
    sheet = [{"slide_id": "h"}, {"slide_id": "m", "organism": "mouse"}]
    build(tmp_path, sheet, name="apart", channels=ALL_GENES)
    apart = open_all(tmp_path, "apart")
    table = pq.read_table(tmp_path / "apart" / "genes.parquet").to_pandas()
    assert sorted(table["name"]) == sorted([*(f"human:{name}" for name in human), *(f"mouse:{name}" for name in mouse)])
    assert dict(zip(table["name"], table["organism"], strict=True))["mouse:C3"] == "mouse"
    assert (table["n_slides"] == 1).all()
    for number, sample in enumerate(apart):
        own = "human:" if sample.meta["slide_id"] == "h" else "mouse:"
        expected = [name.startswith(own) for name in gene_names(apart, apart.panel)]
        np.testing.assert_array_equal(apart.measured(number), expected)
    (tmp_path / "orthologs.csv").write_text("from,to\nGapdh,GAPDH\nGAPDH,GAPDH\nC3,C3\n")
    build(tmp_path, sheet, name="mapped", channels=ALL_GENES, ingest={"genes": {"map": "orthologs.csv"}})
    table = pq.read_table(tmp_path / "mapped" / "genes.parquet").to_pandas().set_index("name")
    assert sorted(table.index) == sorted(["C3", "GAPDH", "human:ACTB", "human:MYC", "mouse:Actb", "mouse:Myc"])
    assert table.loc["GAPDH", "n_slides"] == table.loc["C3", "n_slides"] == 2
    assert table.loc["human:MYC", "n_slides"] == 1


def test_a_vocabulary_of_several_organisms(tmp_path: Path) -> None:
    """It may leave the organism out where no gene of two organisms has its name."""
    human, mouse = [f"ENSG{i:011d}" for i in range(4)], [f"ENSMUSG{i:011d}" for i in range(4)]
    for seed, (name, ids) in enumerate((("h", human), ("m", mouse))):
        counts = poisson_counts(36, 4, seed=seed)
        write_counts(tmp_path / f"{name}.h5ad", counts, array=square(6, 6), genes=["C3", "X", "Y", "Z"], ensembl=ids)
    sheet = [{"slide_id": "h"}, {"slide_id": "m"}]

    def built(name: str, vocabulary: dict[str, int], identity: str) -> Dataset:
        (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
        genes = {"identity": identity, "vocabulary": "vocab.json"}
        build(tmp_path, sheet, name=name, channels=ALL_GENES, ingest={"genes": genes})
        return open_all(tmp_path, name)

    bare = {gene: number for number, gene in enumerate([*mouse, *human], 3)}
    dataset = built("ensembl", bare, "ensembl")
    table = pq.read_table(dataset.folder / "genes.parquet").to_pydict()
    assert {name.partition(":")[2]: n for name, n in zip(table["name"], table["gene_id"], strict=True)} == bare
    with pytest.raises(InputError, match="one name for genes of several organisms") as caught:
        built("symbol", {"<pad>": 0, "C3": 1}, "symbol")
    assert "human:C3, mouse:C3" in str(caught.value)
    dataset = built("named", {"<pad>": 0, "human:C3": 1, "mouse:C3": 2}, "symbol")
    assert gene_names(dataset, np.array([1, 2])) == ["human:C3", "mouse:C3"]
