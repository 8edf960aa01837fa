"""Columns of cell-by-gene tables that are no genes, on every platform that has such tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from bundles.cosmx import write_cosmx
from bundles.merscope import write_merscope
from scipy import sparse

from stpatch.config import IngestSection
from stpatch.slides.formats.text.not_genes import counted_like_ids, id_like
from stpatch.slides.readers.registry import read_source
from stpatch.slides.slide import RawSlide
from stpatch.slides.source import SlideSource

IDS = ["slide_ID_numeric", "Run_ID", "sample_id", "nCount_RNA", "Unnamed: 0", "index", "version"]
GENES = [
    "IDS",
    "run",
    "IDH1",
    "CELSR1",
    "XIST",
    "RUNX1",
    "SLIDE1",
    "ID3",
    "ID1",
    "TOTAL",
    "AREG",
    "MT-ND1",
    "HLA-DRB1",
    "cell_1",
    "FOVEA",
]


@pytest.mark.parametrize("name", IDS)
def test_names_of_ids_and_facts(name: str) -> None:
    assert id_like([name, name.upper()]) == (name, name.upper())
    assert id_like([name], without=[name]) == ()


@pytest.mark.parametrize("name", GENES)
def test_names_of_genes_and_cells_stay(name: str) -> None:
    assert id_like([name, name.lower()]) == ()


def test_values_tell_ids_from_genes() -> None:
    n = 12
    table = np.column_stack(
        [np.full(n, 3), np.arange(n), np.arange(n) + 5, np.arange(n) % 3 + 1, np.zeros(n), 2 * np.arange(n)]
    )
    counts = sparse.csr_matrix(table.astype(np.uint16))
    assert counted_like_ids(counts).tolist() == [True, True, True, False, False, False]
    assert not counted_like_ids(counts[:9]).any()


def read(path: Path, coordinates: Path | None = None, **options: object) -> RawSlide:
    platform = "table" if coordinates is not None else "auto"
    source = SlideSource(slide_id="s", path=path, platform=platform, coordinates=coordinates)
    return read_source(source, IngestSection(**options))[1]


def add_column(path: Path, name: str, *, at: int, values: list[str]) -> None:
    frame = pd.read_csv(path, dtype=str)
    frame.insert(at, name, values[: len(frame)])
    frame.to_csv(path, index=False)


VALUES = [*("7" * 3), *map(str, range(50, 200))]


@pytest.mark.parametrize("name", IDS)
@pytest.mark.parametrize("values", [VALUES, ["text"] * 100], ids=["numbers", "texts"])
@pytest.mark.parametrize("at", [2, 3])
def test_cosmx(tmp_path: Path, name: str, values: list[str], at: int) -> None:
    expected = read(write_cosmx(tmp_path / "a"))
    folder = write_cosmx(tmp_path / "b")
    add_column(folder / "lung_exprMat_file.csv", name, at=at, values=values)
    raw = read(folder)
    assert (raw.counts != expected.counts).nnz == 0
    assert raw.genes.equals(expected.genes)
    assert any(name in note for note in raw.notes)


@pytest.mark.parametrize("name", [*IDS, ""])
@pytest.mark.parametrize("at", [0, 1, 2])
def test_merscope(tmp_path: Path, name: str, at: int) -> None:
    expected = read(write_merscope(tmp_path / "a"))
    folder = write_merscope(tmp_path / "b")
    add_column(folder / "cell_by_gene.csv", name or "none", at=at, values=VALUES)
    if not name:
        text = (folder / "cell_by_gene.csv").read_text()
        (folder / "cell_by_gene.csv").write_text(text.replace("none", "", 1))
    raw = read(folder)
    assert raw.spot_ids.tolist() == expected.spot_ids.tolist()
    assert (raw.counts != expected.counts).nnz == 0
    assert raw.genes.equals(expected.genes)


def write_tables(folder: Path, *, further: dict[str, list[int]]) -> tuple[Path, Path]:
    cells = [f"c{i}" for i in range(12)]
    counts = pd.DataFrame({"cell": cells, "A": np.arange(12) % 4, **further, "Blank-1": 2, "B": np.arange(12) // 5})
    counts.loc[3, "Blank-1"] = 1
    counts.to_csv(folder / "counts.csv", index=False)
    pd.DataFrame({"cell": cells, "x": np.arange(12) * 3.5, "y": np.arange(12) % 5}).to_csv(
        folder / "xy.csv", index=False
    )
    return folder / "counts.csv", folder / "xy.csv"


@pytest.mark.parametrize(
    "further", [{"sample_id": [4] * 12}, {"odd": [4] * 12}, {"odd": list(range(12))}, {"odd": list(range(7, 19))}]
)
def test_table(tmp_path: Path, further: dict[str, list[int]]) -> None:
    raw = read(*write_tables(tmp_path, further=further))
    assert raw.genes["name"].tolist() == ["A", "Blank-1", "B"]
    (name,) = further
    assert any(name in note for note in raw.notes)


def test_controls_of_a_table_are_not_counted(tmp_path: Path) -> None:
    from stpatch.slides.canonical import canonical_slide

    counts, xy = write_tables(tmp_path, further={})
    source = SlideSource(slide_id="s", path=counts, platform="table", coordinates=xy)
    probe, raw = read_source(source, IngestSection())
    labels = pd.DataFrame(index=pd.RangeIndex(12))
    slide = canonical_slide(raw, source=source, probe=probe, section=IngestSection(), labels=labels)
    assert slide.genes.index.tolist() == ["A", "B"]
    assert slide.record["dropped"]["control"] == {"genes": 1, "counts": 23}
