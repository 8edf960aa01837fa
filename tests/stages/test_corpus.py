"""What a corpus must not do in silence: leak, repeat itself, let held-out slides choose, take absence for zero."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from bundles.built import build, make_job, poisson_counts, square, write_counts, write_sheet
from commands import built, stpatch
from scipy import sparse

from stpatch.errors import ConfigError, InputError
from stpatch.slides.store import read_slide
from stpatch.stages.deal import fit_slides

SPLIT = {"by": "slide_id", "fractions": {"train": 0.5, "val": 0.5}}


def slides(folder: Path, n: int = 4, *, genes: int = 12, mean: float = 2.0) -> list[dict[str, str]]:
    for i in range(n):
        write_counts(folder / f"s{i}.h5ad", poisson_counts(64, genes, seed=i, mean=mean), array=square(8, 8))
    return [{"slide_id": f"s{i}"} for i in range(n)]


def genes_of(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "out" / "genes.parquet").set_index("name")


def slide_table(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "out" / "slides.parquet").set_index("slide_id")


def measured(folder: Path) -> pd.DataFrame:
    """Return (slides, genes) which genes count as measured."""
    genes, table = genes_of(folder), slide_table(folder)
    masks = {
        slide_id: np.unpackbits(np.frombuffer(mask, np.uint8), bitorder="little")[genes["gene_id"]].astype(bool)
        for slide_id, mask in table["measured"].items()
    }
    return pd.DataFrame(masks, index=genes.index).T


# -- duplicates -----------------------------------------------------------------------------------------------------


def _renamed(folder: Path, counts: Any) -> None:
    write_counts(folder / "b.h5ad", counts, array=square(8, 8))


def _shuffled(folder: Path, counts: Any) -> None:
    order = np.random.default_rng(1).permutation(64)
    write_counts(folder / "b.h5ad", counts[order], array=square(8, 8)[order])


def _by_id(folder: Path, counts: Any) -> None:
    write_counts(folder / "b.h5ad", counts, array=square(8, 8), genes=[f"ENSG{i:011d}" for i in range(50)])


def _as_table(folder: Path, counts: Any) -> None:
    names = [f"{x}x{y}" for y, x in square(8, 8).tolist()]
    pd.DataFrame(counts, index=names, columns=[f"G{i:03d}" for i in range(50)]).to_csv(folder / "b.tsv", sep="\t")


def _rotated(folder: Path, counts: Any) -> None:
    write_counts(folder / "b.h5ad", counts, array=square(8, 8)[:, ::-1])


@pytest.mark.parametrize("copy", [_renamed, _shuffled, _by_id, _as_table, _rotated])
def test_one_section_under_two_ids_is_refused(tmp_path: Path, copy: Any) -> None:
    counts = poisson_counts(64, 50)
    write_counts(tmp_path / "a.h5ad", counts, array=square(8, 8))
    copy(tmp_path, counts)
    path = "b.tsv" if copy is _as_table else "b.h5ad"
    rows = [{"slide_id": "a"}, {"slide_id": "b", "path": path}]
    with pytest.raises(ConfigError, match=r"one section(?s:.*)a and b(?s:.*)allow_duplicates"):
        build(tmp_path, rows)
    build(tmp_path, rows, dataset={"allow_duplicates": ["b"]})
    table = slide_table(tmp_path)
    assert len(set(table["digest_spots"])) == 1
    assert table["digest_spots"].str.len().eq(64).all()


@pytest.mark.parametrize("how", ["same path", "copied file"])
def test_check_finds_the_same_file_twice(tmp_path: Path, how: str) -> None:
    rows = slides(tmp_path, 2)
    if how == "same path":
        rows.append({"slide_id": "again", "path": "./s0.h5ad"})
    else:
        shutil.copy(tmp_path / "s0.h5ad", tmp_path / "other.h5ad")
        rows.append({"slide_id": "again", "path": "other.h5ad"})
    done = check(tmp_path, rows)
    assert done.code == 2
    assert "one section" in done.err
    assert "s0 and again" in done.err
    assert check(tmp_path, rows, dataset={"allow_duplicates": ["again"]}).code == 0


def check(folder: Path, rows: list[dict[str, str]], **sections: Any) -> Any:
    return stpatch("check", config_of(folder, rows, **sections), "-q")


def config_of(folder: Path, rows: list[dict[str, str]], **sections: Any) -> Path:
    write_sheet(folder, rows)
    value: dict[str, Any] = {
        "dataset": {"output": "out"},
        "slides": {"sheet": "slides.csv"},
        "channels": {"n": 5},
        "crop": {"size": [4, 4], "min_coverage": 0},
        "run": {"workers": 1},
    }
    for name, section in sections.items():
        value[name] = {**value.get(name, {}), **section}
    (folder / "c.yaml").write_text(json.dumps(value))
    return folder / "c.yaml"


# -- splits ---------------------------------------------------------------------------------------------------------


def test_check_and_build_refuse_a_donor_in_two_splits_before_any_work(tmp_path: Path) -> None:
    rows = [{**row, "Patient_ID": "p", "split": "train" if i else "test"} for i, row in enumerate(slides(tmp_path, 2))]
    config = config_of(tmp_path, rows)
    for command in ("check", "build"):
        done = stpatch(command, config, "-q")
        assert done.code == 2
        assert "Patient_ID" in done.err
        assert not (tmp_path / "out.work" / "receipts").exists()
    assert stpatch("build", config, "-q", "--set", "split.allow_leak=[patient_id]").code == 0


def test_an_estimate_deals_as_the_build(tmp_path: Path) -> None:
    rows = [{**row, "donor": "ab"[i % 2]} for i, row in enumerate(slides(tmp_path, 6))]
    config = config_of(tmp_path, rows, split={"fractions": {"train": 0.5, "val": 0.5}})
    estimate = json.loads(built("plan", config, "--estimate", "--json", "-q").out)["samples_by_split"]
    plan = json.loads(built("plan", config, "--json", "-q").out)["samples_by_split"]
    assert estimate == plan == {"train": 12, "val": 12}


# -- what a split may know ------------------------------------------------------------------------------------------


def test_held_out_slides_choose_nothing(tmp_path: Path) -> None:
    rows = slides(tmp_path)
    channels = {"scope": "panel", "method": "variance", "n": 4}
    job = build(tmp_path, rows, split=SPLIT, channels=channels)
    fit, fit_on = fit_slides(job)
    assert fit_on == "train"
    assert len(fit) == 2
    table = genes_of(tmp_path)
    counts = np.vstack([read_slide(job.slide_path(name)).counts.toarray() for name in fit])
    np.testing.assert_array_equal(table["sum_counts"], counts.sum(axis=0))
    assert table["n_spots"].eq(128).all()
    assert table["n_slides"].eq(4).all()
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["channels"]["fit_on"] == "train"
    assert "slides of split train alone" in (tmp_path / "out" / "README.md").read_text()
    held_out = next(row["slide_id"] for row in rows if row["slide_id"] not in fit)
    panel = table["channel"].fillna(-1).to_dict()
    write_counts(tmp_path / f"{held_out}.h5ad", poisson_counts(64, 12, seed=9)[:, ::-1] * 50, array=square(8, 8))
    build(tmp_path, rows, split=SPLIT, channels=channels)
    assert genes_of(tmp_path)["channel"].fillna(-1).to_dict() == panel


@pytest.mark.parametrize(
    ("fit_on", "split", "n_fit", "recorded"),
    [
        ("all", SPLIT, 4, "all"),
        (["val"], SPLIT, 2, "val"),
        (["train", "val"], SPLIT, 4, "all"),
        ("auto", {"fractions": {"a": 0.5, "b": 0.5}}, 4, "all"),
        ("auto", {"folds": 2}, 4, "all"),
        ("auto", {"blocks": {"size": 4}}, 4, "all"),
    ],
)
def test_which_slides_choose(tmp_path: Path, fit_on: Any, split: Any, n_fit: int, recorded: str) -> None:
    job = build(tmp_path, slides(tmp_path), split=split, channels={"fit_on": fit_on})
    fit, word = fit_slides(job)
    assert (len(fit), word) == (n_fit, recorded)
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["channels"]["fit_on"] == recorded


@pytest.mark.parametrize(
    ("fit_on", "split", "words"),
    [
        (["test"], SPLIT, "no slide is in split 'test'"),
        ([], SPLIT, "no split is named"),
        (["train"], {"blocks": {"size": 4}}, "spatial blocks"),
    ],
)
def test_splits_that_cannot_choose_are_refused(tmp_path: Path, fit_on: Any, split: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build(tmp_path, slides(tmp_path), split=split, channels={"fit_on": fit_on})


def test_a_corpus_median_is_the_choosing_slides(tmp_path: Path) -> None:
    job = build(tmp_path, slides(tmp_path), split=SPLIT, normalize={"target_sum": "corpus_median"})
    fit, _ = fit_slides(job)
    totals = np.concatenate([job.totals(name)["totals"] for name in fit])
    assert slide_table(tmp_path)["target_sum"].unique().tolist() == [np.median(totals)]


def test_a_gene_of_held_out_slides_alone_keeps_its_place(tmp_path: Path) -> None:
    rows = slides(tmp_path)
    fit, _ = fit_slides(build(tmp_path, rows, split=SPLIT))
    held_out = next(row["slide_id"] for row in rows if row["slide_id"] not in fit)
    names = [*(f"G{i:03d}" for i in range(11)), "NEW"]
    write_counts(tmp_path / f"{held_out}.h5ad", poisson_counts(64, 12, seed=7), array=square(8, 8), genes=names)
    channels = {"scope": "panel", "method": "all"}
    build(tmp_path, rows, split=SPLIT, channels=channels)
    table = genes_of(tmp_path)
    assert table.loc["NEW", ["n_slides", "n_spots", "n_detected"]].tolist() == [1, 0, 0]
    assert table["channel"].notna().all()


# -- absent, unmeasured, filtered -----------------------------------------------------------------------------------


def write_table(folder: Path, name: str, counts: Any, genes: list[str]) -> dict[str, str]:
    """Write a legacy ST table of the genes that have a count, as its makers do."""
    spots = [f"{x}x{y}" for y, x in square(8, 8).tolist()]
    frame = pd.DataFrame(counts, index=spots, columns=genes)
    frame.loc[:, frame.sum() > 0].to_csv(folder / f"{name}.tsv", sep="\t")
    return {"slide_id": name, "path": f"{name}.tsv", "platform": "st"}


@pytest.mark.parametrize(("absent", "zeros"), [("auto", True), ("zero", True), ("unmeasured", False)])
def test_a_gene_that_a_detected_only_table_lacks_is_a_zero(tmp_path: Path, absent: str, zeros: bool) -> None:
    names = [f"G{i}" for i in range(10)]
    one, two = poisson_counts(64, 10, seed=1) + 1, poisson_counts(64, 10, seed=2) + 1
    two[:, 3] = 0
    rows = [write_table(tmp_path, "a", one, names), write_table(tmp_path, "b", two, names)]
    build(tmp_path, rows, ingest={"genes": {"absent": absent}}, channels={"scope": "panel", "method": "all"})
    assert measured(tmp_path).loc["b", "G3"] == zeros
    assert measured(tmp_path).loc["a"].all()
    row = genes_of(tmp_path).loc["G3"]
    assert row["n_spots"] == (128 if zeros else 64)
    assert row["sum_counts"] == one[:, 3].sum()
    whole = np.vstack([one, two])
    values = np.log1p(whole * (10000 / whole.sum(axis=1, keepdims=True)))[:, 3][: None if zeros else 64]
    assert row["mean_normalized"] == pytest.approx(values.mean())
    assert row["var_normalized"] == pytest.approx(values.var(ddof=1))


@pytest.mark.parametrize(
    "method",
    [
        "hvg_seurat",
        "hvg_cell_ranger",
        "hvg_seurat_v3",
        "pearson_residuals",
        "variance",
        "cv",
        "mean",
        "detected",
        "moran",
    ],
)
def test_panels_of_absent_zeros_are_those_of_written_zeros(tmp_path: Path, method: str) -> None:
    names = [f"G{i:02d}" for i in range(40)]
    counts = [poisson_counts(64, 40, seed=i) + (np.arange(40) % 3 == 0) for i in (1, 2)]
    counts[1][:, 3] = 0
    channels = {"scope": "panel", "method": method, "n": 12}
    panels = []
    for folder in (tmp_path / "absent", tmp_path / "written"):
        folder.mkdir()
        rows = []
        for name, matrix in zip("ab", counts, strict=True):
            rows.append(write_table(folder, name, matrix, names))
            if folder.name == "written":
                spots = [f"{x}x{y}" for y, x in square(8, 8).tolist()]
                pd.DataFrame(matrix, index=spots, columns=names).to_csv(folder / f"{name}.tsv", sep="\t")
        build(folder, rows, channels=channels)
        panels.append(genes_of(folder)["channel"].fillna(-1).to_dict())
    assert panels[0] == panels[1]


@pytest.mark.parametrize("platform", ["h5ad", "full list"])
def test_absence_elsewhere_says_nothing(tmp_path: Path, platform: str) -> None:
    names = [f"G{i}" for i in range(10)]
    rows = [write_table(tmp_path, "a", poisson_counts(64, 10, seed=1) + 1, names)]
    counts = poisson_counts(64, 9, seed=2) + 1
    if platform == "h5ad":
        write_counts(tmp_path / "b.h5ad", counts, array=square(8, 8), genes=names[:9])
        rows.append({"slide_id": "b"})
    else:
        counts[:, 4:7] = 0
        spots = [f"{x}x{y}" for y, x in square(8, 8).tolist()]
        pd.DataFrame(counts, index=spots, columns=names[:9]).to_csv(tmp_path / "b.tsv", sep="\t")
        rows.append({"slide_id": "b", "path": "b.tsv", "platform": "st"})
    build(tmp_path, rows)
    assert not measured(tmp_path).loc["b", "G9"]


def test_rare_genes_are_those_of_the_corpus(tmp_path: Path) -> None:
    one, two = poisson_counts(64, 10, seed=1) + 1, poisson_counts(64, 10, seed=2) + 1
    one[:, 5], two[:, 5] = np.arange(64) < 40, np.arange(64) < 3
    one[:, 6], two[:, 6] = np.arange(64) < 2, np.arange(64) < 2
    for name, counts in zip("ab", (one, two), strict=True):
        write_counts(tmp_path / f"{name}.h5ad", counts, array=square(8, 8))
    job = build(tmp_path, [{"slide_id": "a"}, {"slide_id": "b"}], ingest={"qc": {"min_spots_per_gene": 5}})
    table = genes_of(tmp_path)
    assert "G006" not in table.index
    assert table.loc["G005", ["n_spots", "n_detected", "sum_counts"]].tolist() == [128, 43, 43]
    assert measured(tmp_path).loc["b", "G005"]
    assert job.totals("b")["totals"].sum() == two.sum()  # a filter of genes does not change what a spot counted
    with pytest.raises(InputError, match="no gene is left after QC"):
        build(tmp_path, [{"slide_id": "a"}, {"slide_id": "b"}], ingest={"qc": {"min_spots_per_gene": 500}})


# -- panels ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["panel", "slide", "patch"])
@pytest.mark.parametrize("across", ["pooled", "rank"])
@pytest.mark.parametrize("method", ["cv", "variance", "hvg_seurat"])
def test_genes_of_few_spots_are_no_channels(tmp_path: Path, scope: str, across: str, method: str) -> None:
    for i, name in enumerate("ab"):
        counts = poisson_counts(64, 30, seed=i, mean=4.0) + 1
        counts[:, 10:] = 0
        counts[np.arange(20) * 3, np.arange(10, 30)] = 30 + np.arange(20)
        write_counts(tmp_path / f"{name}.h5ad", counts, array=square(8, 8))
    rule = {"method": method, "n": 8}
    channels = {**rule, "scope": scope} if scope != "patch" else {"candidates": rule, "n": 5}
    rows = [{"slide_id": "a"}, {"slide_id": "b"}]

    def chosen(least: float) -> set[int]:
        job = build(tmp_path, rows, channels={**channels, "across_slides": across, "min_detected": least})
        value = json.loads(job.channels_path.read_text())
        by_slide = [gene for panel in (value["slide_panels"] or {}).values() for gene in panel]
        ids = value["panel"] or value["candidates"] or by_slide
        return {i - 1 for i in ids if i}

    assert all(gene < 10 for gene in chosen(0.1))
    if method == "cv":
        assert any(gene >= 10 for gene in chosen(0.0))


def test_min_detected_without_a_panel_rule_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="min_detected"):
        make_job(tmp_path, slides(tmp_path, 1), channels={"min_detected": 0.1})


# -- what is told ---------------------------------------------------------------------------------------------------


def test_a_build_ends_with_a_table_and_its_notes(tmp_path: Path) -> None:
    counts = poisson_counts(64, 12)
    counts[:3] = 0
    names = [*(f"ENSG00000000001.{i}" for i in (1, 2)), *(f"G{i}" for i in range(2, 12))]
    write_counts(tmp_path / "a.h5ad", counts, array=square(8, 8), genes=names)
    config = config_of(tmp_path, [{"slide_id": "a"}], channels={"n": 20}, ingest={"qc": {"max_mito": 0.5}})
    lines = built("build", config, "-q").err.splitlines()
    row = next(line for line in lines if line.split()[:1] == ["a"])
    assert row.split()[:4] == ["a", "64", "61", str(counts.sum())]
    assert "min_counts: 3 spots" in row
    assert "genes merged" in lines[0]
    assert "channels lacking" in lines[0]
    notes = [line for line in lines if line.startswith("note: ")]
    first = lines.index(notes[0])
    assert lines[first : first + len(notes)] == notes  # together, after the table; the account ends the words
    assert any("slide a: max_mito is set" in note for note in notes)
    assert any("split val" in note for note in notes)


CHECKS: dict[str, tuple[dict[str, Any], dict[str, str], int, str]] = {
    "an organism with a slip": ({}, {"organism": "hunan"}, 2, "did you mean 'human'"),
    "an organism that ids contradict": ({}, {"organism": "mouse"}, 2, "contradicts its gene names"),
    "an id too long for a tar": ({}, {"slide_id": "s" * 100}, 2, "too long for a tar header"),
    "a sample of terabytes": ({"crop": {"size": [100000, 100000]}}, {}, 2, "too large"),
    "a column that allow_leak lacks": ({"split": {"allow_leak": ["donor"]}}, {}, 2, "split.allow_leak"),
    "a slide that allow_duplicates lacks": ({"dataset": {"allow_duplicates": ["x"]}}, {}, 2, "no such slide"),
    "splits that get no slide": ({}, {}, 0, "split val gets no slide"),
    "channels above genes": ({"channels": {"n": 500}}, {}, 0, "channels.n is 500"),
    "max_mito that finds nothing": ({"ingest": {"qc": {"max_mito": 0.2}}}, {}, 0, "no gene of the slide is known"),
    "blocks that part no donors": ({"split": {"blocks": {"size": 4}}}, {}, 0, "spatial blocks keep spots apart"),
}


@pytest.mark.parametrize("kind", CHECKS)
def test_check_tells_what_the_build_would_do(tmp_path: Path, kind: str) -> None:
    sections, row, code, words = CHECKS[kind]
    slide_id = row.get("slide_id", "a")
    ids = [f"ENSG{i:011d}" for i in range(12)]
    write_counts(tmp_path / f"{slide_id}.h5ad", poisson_counts(64, 12), array=square(8, 8), ensembl=ids)
    done = check(tmp_path, [{"slide_id": slide_id, **row}], **sections)
    assert done.code == code, done.err
    assert words in done.out + done.err


@pytest.mark.parametrize("output", ["slide/out", "slide", "slide/spatial/new"])
def test_an_output_inside_an_input_is_refused(tmp_path: Path, output: str) -> None:
    from bundles.visium import write_visium

    write_visium(tmp_path / "slide")
    done = check(tmp_path, [{"slide_id": "a", "path": "slide"}], dataset={"output": output})
    assert done.code == 2
    assert "in an input folder" in done.err


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ([f"GENE{i}" for i in range(12)], False),
        ([f"ENSG{i:011d}" for i in range(12)], True),
        ([f"OTHER{i}" for i in range(12)], True),
        (["GENE0", *(f"OTHER{i}" for i in range(11))], True),
        (["GENE0", "GENE1", *(f"OTHER{i}" for i in range(10))], False),
        ([f"GRCh38_GENE{i}" for i in range(12)], False),
    ],
)
def test_slides_that_share_few_genes_are_told(tmp_path: Path, names: list[str], told: bool) -> None:
    write_counts(tmp_path / "a.h5ad", poisson_counts(64, 12), array=square(8, 8), genes=[f"GENE{i}" for i in range(12)])
    write_counts(tmp_path / "b.h5ad", poisson_counts(64, 12, seed=1), array=square(8, 8), genes=names)
    done = check(tmp_path, [{"slide_id": "a"}, {"slide_id": "b"}])
    assert done.code == 0, done.err
    assert ("shares" in done.out) == told


def test_ids_and_symbols_are_one_corpus_with_a_reference(tmp_path: Path) -> None:
    ids = [f"ENSG{i:011d}" for i in range(12)]
    lines = ["ensembl_id,symbol", *(f"{text}.2,GENE{i}" for i, text in enumerate(ids))]
    (tmp_path / "ref.csv").write_text("\n".join(lines) + "\n")
    write_counts(tmp_path / "a.h5ad", poisson_counts(64, 12), array=square(8, 8), genes=[f"GENE{i}" for i in range(12)])
    write_counts(tmp_path / "b.h5ad", poisson_counts(64, 12, seed=1), array=square(8, 8), genes=[f"{i}.7" for i in ids])
    rows = [{"slide_id": "a"}, {"slide_id": "b"}]
    job = build(tmp_path, rows, ingest={"genes": {"reference": str(tmp_path / "ref.csv")}})
    assert genes_of(tmp_path)["n_slides"].tolist() == [2] * 12
    assert job.receipt("ingest", "b").facts["record"]["reference"] == {"id": 12, "unknown_genes": []}
    assert sparse.issparse(read_slide(job.slide_path("b")).counts)
