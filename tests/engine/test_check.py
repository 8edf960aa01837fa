"""What `check` passes, `build` does not refuse: both go by one list."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from bundles.corpus import digests, write_config, write_corpus
from commands import built, stpatch

PEARSON = {"normalize": {"method": "pearson_residuals"}, "shards": {"values": "normalized"}}

BAD: list[tuple[dict[str, dict[str, Any]], list[str]]] = [
    ({"run": {"max_memory": "16 apples"}}, ["key run.max_memory", "'16 apples'", "16GB", "4GiB"]),
    ({"run": {"max_memory": 0}}, ["key run.max_memory", "0"]),
    ({"run": {"max_memory": True}}, ["key run.max_memory", "True"]),
    ({"run": {"max_memory": "-4GB"}}, ["key run.max_memory"]),
    ({"dataset": {"output": "slides.csv"}}, ["a file where a folder should be", "slides.csv"]),
    ({"dataset": {"output": "slides.csv/out", "work_dir": "work"}}, ["a file where a folder should be", "slides.csv"]),
    ({"dataset": {"work_dir": "slides.csv"}}, ["a file where a folder should be", "slides.csv"]),
    ({"dataset": {"output": "visium"}}, ["output folder is not empty", "V1"]),
    ({"dataset": {"output": "other"}}, ["another dataset", "'foreign'"]),
    ({"ingest": {"genes": {"map": "none.csv"}}}, ["none.csv"]),
    ({"ingest": {"genes": {"vocabulary": "none.json"}}}, ["none.json"]),
    ({"ingest": {"labels": ["a b", "a-b"]}}, ["ingest.labels", "label_a"]),
    ({"channels": {"scope": "panel", "method": "list", "genes": "none.txt"}}, ["channels.genes", "none.txt"]),
    ({"channels": {"scope": "panel", "method": "list", "genes": "empty.txt"}}, ["channels.genes", "empty"]),
    ({"channels": {"scope": "panel", "method": "list", "genes": "latin.txt"}}, ["channels.genes", "UTF-8"]),
    ({"channels": {"scope": "panel", "method": "list", "genes": ["GENE1", "GENE1"]}}, ["listed twice", "GENE1"]),
    ({"channels": {"candidates": {"method": "list", "genes": "none.txt"}}}, ["channels.candidates.genes", "none.txt"]),
    ({"channels": {"scope": "panel", "method": "hvg_seurat"}, **PEARSON}, ["hvg_seurat", "pearson_residuals"]),
    ({"channels": {"candidates": {"method": "cv"}}, **PEARSON}, ["rule cv", "Pearson residuals"]),
    ({"channels": {"scope": "panel", "method": "hvg_seurat_v3"}}, ["scikit-misc", "stpatch[hvg]"]),
    ({"split": {"by": "patient"}}, ["split.by", "patient", "donor"]),
    ({"split": {"stratify": "patient"}}, ["split.stratify", "patient"]),
    ({"split": {"column": "patient"}}, ["split.column", "patient"]),
    ({"split": {"column": "half"}}, ["half", "A1", "no value"]),
    ({"split": {"column": "Cohort"}}, ["Cohort", "Train", "lower-case"]),
    ({"split": {"column": "part", "by": "site"}}, ["part", "different splits", "north"]),
    ({"split": {"folds": 9}}, ["split.folds", "4 values of donor"]),
    ({"split": {"blocks": {"size": 3}}}, ["split.blocks.size", "3 x 4"]),
    ({"slides": {"sheet": "none.csv"}}, ["slides.sheet", "none.csv"]),
]  # fmt: skip
SHEET = """slide_id,path,platform,donor,half,Cohort,part,site
V1,visium/V1,visium,d1,a,Train,a,north
V2,visium/V2,visium,d2,a,a,b,north
A1,st/ST-cnts/A1.tsv.gz,st,d3,,a,a,south
H1,h1.h5ad,h5ad,d4,b,b,b,south
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("check")
    write_corpus(folder)
    (folder / "slides.csv").write_text(SHEET)
    (folder / "empty.txt").write_text("\n\n")
    (folder / "latin.txt").write_bytes("GÈNE1\n".encode("latin-1"))
    (folder / "other").mkdir()
    (folder / "other" / "manifest.json").write_text('{"dataset": {"name": "foreign", "version": "1"}}')
    return folder


@pytest.mark.parametrize(("sections", "words"), BAD, ids=[str(sections) for sections, _ in BAD])
def test_check_and_build_refuse_the_same(
    corpus: Path, monkeypatch: pytest.MonkeyPatch, sections: dict[str, dict[str, Any]], words: list[str]
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "skmisc" else real(name))
    config = write_config(corpus, **sections)
    before = digests(corpus)
    checked, done = stpatch("check", config, "-q"), stpatch("build", config, "-q")
    assert checked.code == done.code == 2
    assert checked.err == done.err
    assert all(word in checked.err for word in words), checked.err
    assert digests(corpus) == before, "nothing is written"


@pytest.mark.parametrize("column", ["labels", "coordinates"])
def test_a_file_of_a_slide_that_is_not_there(tmp_path: Path, column: str) -> None:
    config = write_corpus(tmp_path)
    sheet = tmp_path / "slides.csv"
    rows = sheet.read_text().splitlines()
    sheet.write_text("\n".join([f"{rows[0]},{column}", f"{rows[1]},none.csv", *(f"{row}," for row in rows[2:])]) + "\n")
    checked, done = stpatch("check", config, "-q"), stpatch("build", config, "-q")
    assert checked.code == done.code == 2
    assert checked.err == done.err
    assert all(word in done.err for word in ("slide V1", f"column {column}", "none.csv"))


def test_what_check_passes_build_takes(tmp_path: Path) -> None:
    config = write_corpus(tmp_path, run={"max_memory": "4gib", "workers": 1}, split={"by": "platform"})
    built("check", config, "-q")
    built("build", config, "-q")
    built("check", config, "-q")  # its own dataset is not another one
