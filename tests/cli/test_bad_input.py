"""Bad input: one readable message with file and key, the right exit code, and nothing half-written."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles.corpus import write_config, write_corpus
from bundles.h5ad import make_anndata, write_anndata
from commands import built, stpatch


def edit(path: Path, change: Callable[[str], str]) -> None:
    """Change a text file, packed or not."""
    packed = path.suffix == ".gz"
    data = path.read_bytes()
    text = change((gzip.decompress(data) if packed else data).decode())
    path.write_bytes(gzip.compress(text.encode(), mtime=0) if packed else text.encode())


def cell(text: str, *, row: int = 3, column: int = 2) -> Callable[[str], str]:
    """Return a change that puts a text in one cell of a TSV."""

    def change(table: str) -> str:
        rows = [line.split("\t") for line in table.splitlines()]
        rows[row][column] = text
        return "\n".join("\t".join(cells) for cells in rows) + "\n"

    return change


def misspelled(folder: Path) -> None:
    edit(folder / "config.yaml", lambda text: text.replace("size:", "sise:"))


def one_id_twice(folder: Path) -> None:
    edit(folder / "slides.csv", lambda text: text.replace("V2,", "V1,"))


def unsafe_id(folder: Path) -> None:
    edit(folder / "slides.csv", lambda text: text.replace("V2,", "../../V2,"))


def no_sheet(folder: Path) -> None:
    (folder / "slides.csv").unlink()


def no_such_column(folder: Path) -> None:
    write_config(folder, split={"by": "patient"})


def gene_nobody_measured(folder: Path) -> None:
    write_config(folder, channels={"scope": "panel", "method": "list", "genes": ["GENE1", "GEEN2"]})


def no_gene_list(folder: Path) -> None:
    write_config(folder, channels={"scope": "panel", "method": "list", "genes": "none.txt"})


def no_patch_left(folder: Path) -> None:
    write_config(folder, crop={"min_spots": 1000})


def too_little_tissue(folder: Path) -> None:
    write_config(folder, crop={"min_spots": 1, "min_coverage": 1.0}, grid={"method": "fit", "size": 40})


def far_too_fine(folder: Path) -> None:
    write_config(folder, grid={"method": "um", "pitch_um": 1e-9})


REQUESTS = [
    (misspelled, ["config.yaml, key crop.sise", "did you mean 'size'?"]),
    (one_id_twice, ["slides.csv row 2", "slides.csv row 3", "two slides have one slide_id"]),
    (unsafe_id, ["slides.csv row 3", "'../../V2'"]),
    (no_sheet, ["slides.sheet", "slides.csv"]),
    (no_such_column, ["split.by", "patient", "donor"]),
    (gene_nobody_measured, ["channels.genes", "GEEN2", "'GENE2'"]),
    (no_gene_list, ["channels.genes", "none.txt"]),
    (far_too_fine, ["pixels", "grid.pitch_um"]),
    (no_patch_left, ["no patch is left", "min_spots"]),
    (too_little_tissue, ["no patch is left", "crop.min_coverage"]),
]


@pytest.mark.parametrize("on_error", ["stop", "skip"])
@pytest.mark.parametrize(("spoil", "words"), REQUESTS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_wrong_request_ends_with_2(
    tmp_path: Path, spoil: Callable[[Path], None], words: list[str], on_error: str
) -> None:
    write_corpus(tmp_path)
    spoil(tmp_path)
    done = stpatch("build", tmp_path / "config.yaml", "-q", "--set", f"run.on_error={on_error}")
    assert done.code == 2, done.err
    assert done.err.startswith("error: ")
    assert all(word in done.err for word in words), done.err
    assert not (tmp_path / "out").exists()


def gone(folder: Path) -> None:
    (folder / "h1.h5ad").unlink()


def counts_gone(folder: Path) -> None:
    (folder / "visium" / "V1" / "filtered_feature_bc_matrix.h5").unlink()


def positions_gone(folder: Path) -> None:
    (folder / "visium" / "V1" / "spatial" / "tissue_positions.csv").unlink()


def text_cell(folder: Path) -> None:
    edit(folder / "st" / "ST-cnts" / "A1.tsv.gz", cell("many"))


def fraction(folder: Path) -> None:
    edit(folder / "st" / "ST-cnts" / "A1.tsv.gz", cell("1.5"))


def negative(folder: Path) -> None:
    edit(folder / "st" / "ST-cnts" / "A1.tsv.gz", cell("-3"))


def cut_off(folder: Path) -> None:
    path = folder / "st" / "ST-cnts" / "A1.tsv.gz"
    path.write_bytes(path.read_bytes()[:-20])


def no_hdf5(folder: Path) -> None:
    (folder / "h1.h5ad").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))


def nan_coordinate(folder: Path) -> None:
    slide = make_anndata(rows=5, columns=7)
    slide.obsm["spatial"][3, 1] = np.nan
    write_anndata(folder / "h1.h5ad", slide)


def nan_pixel(folder: Path) -> None:
    path = folder / "visium" / "V1" / "spatial" / "tissue_positions.csv"
    rows = path.read_text().splitlines()
    cells = rows[3].split(",")
    rows[3] = ",".join([*cells[:4], "nan", cells[5]])
    path.write_text("\n".join(rows) + "\n")


def normalized(folder: Path) -> None:
    slide = make_anndata(rows=5, columns=7)
    slide.X = slide.X.astype(np.float32).log1p()
    write_anndata(folder / "h1.h5ad", slide)


def other_platform(folder: Path) -> None:
    edit(folder / "slides.csv", lambda text: text.replace("h1.h5ad,h5ad", "h1.h5ad,visium"))


def no_gene_of_the_panel(folder: Path) -> None:
    write_config(folder, channels={"scope": "panel", "method": "list", "genes": ["GENE1", "GENE2"]})


SLIDES = [
    (gone, "H1", ["h1.h5ad", "no such file"]),
    (counts_gone, "V1", ["V1", "filtered_feature_bc_matrix"]),
    (positions_gone, "V1", ["V1", "tissue_positions"]),
    (text_cell, "A1", ["A1.tsv.gz", "many"]),
    (fraction, "A1", ["A1.tsv.gz", "1.5"]),
    (negative, "A1", ["A1.tsv.gz", "-3"]),
    (cut_off, "A1", ["A1.tsv.gz"]),
    (no_hdf5, "H1", ["h1.h5ad"]),
    (nan_coordinate, "H1", ["h1.h5ad", "nan"]),
    (nan_pixel, "V1", ["tissue_positions.csv", "nan"]),
    (normalized, "H1", ["h1.h5ad", "normalized"]),
    (other_platform, "H1", ["h1.h5ad", "visium"]),
    (no_gene_of_the_panel, "A1", ["A1", "no gene of the panel", "GENE1"]),
]


@pytest.mark.parametrize(("spoil", "slide_id", "words"), SLIDES, ids=lambda value: getattr(value, "__name__", ""))
def test_a_bad_slide_stops_or_is_skipped(
    tmp_path: Path, spoil: Callable[[Path], None], slide_id: str, words: list[str]
) -> None:
    write_corpus(tmp_path)
    spoil(tmp_path)
    config = tmp_path / "config.yaml"
    stopped = stpatch("build", config, "-q")
    assert stopped.code == 2, stopped.err
    assert stopped.err.startswith("error: ")
    assert all(word in stopped.err for word in words), stopped.err
    assert not (tmp_path / "out").exists()

    skipped = stpatch("build", config, "-q", "--set", "run.on_error=skip")
    assert skipped.code == 1, skipped.err
    assert f" {slide_id}]" in skipped.err
    assert skipped.err.count(" 1 unit failed") == 1
    assert all(word in skipped.err for word in words), skipped.err
    built("validate", tmp_path / "out", "--deep")
    assert slide_id not in (tmp_path / "out" / "index" / "train.json").read_text()


def test_every_slide_is_bad(tmp_path: Path) -> None:
    write_corpus(tmp_path, slides={"sheet": "slides.csv"}, run={"on_error": "skip", "workers": 1})
    edit(tmp_path / "slides.csv", lambda text: text.replace("visium/", "no/").replace("st/", "no/").replace("h1", "no"))
    done = stpatch("build", tmp_path / "config.yaml", "-q")
    assert done.code == 2
    assert "5 problems found" in done.err
    assert done.err.count("no such file") == 4
    assert "all have failed" in done.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("values", [{"dataset": {"output": "out/\0x"}}, {"slides": {"sheet": "a\0b"}}])
def test_paths_with_nul(tmp_path: Path, values: dict[str, Any]) -> None:
    write_corpus(tmp_path)
    done = stpatch("build", write_config(tmp_path, **values), "-q")
    assert done.code == 2
    assert "config.yaml" in done.err


@pytest.mark.parametrize("on_error", ["stop", "skip"])
def test_a_patch_that_no_memory_holds(tmp_path: Path, on_error: str) -> None:
    write_corpus(tmp_path)
    config = write_config(tmp_path, crop={"size": [10**6, 10**6]}, run={"on_error": on_error, "workers": 1})
    done = stpatch("build", config, "-q")
    assert done.code == 1
    assert "not enough memory" in done.err
    assert "crop.size" in done.err
    assert not list((tmp_path / "out").rglob("*"))


def test_an_output_that_cannot_be_made(tmp_path: Path) -> None:
    write_corpus(tmp_path)
    (tmp_path / "file").write_text("mine")
    done = stpatch("build", write_config(tmp_path, dataset={"output": "file/out", "work_dir": "work"}), "-q")
    assert done.code in (1, 2)
    assert str(tmp_path / "file") in done.err
