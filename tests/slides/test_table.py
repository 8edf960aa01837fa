from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from bundles.st import write_text
from bundles.table import CELLS, COUNTS, GENES, XY, write_loom, write_table

from stpatch.config import IngestSection
from stpatch.errors import InputError, StpatchError
from stpatch.slides.formats.places import nearest_distance, square_pitch
from stpatch.slides.labels import attach_labels
from stpatch.slides.readers.table import TableReader
from stpatch.slides.slide import RawSlide
from stpatch.slides.source import Probe, SlideSource


def read(
    path: Path,
    coordinates: Path | None = None,
    *,
    labels: Path | None = None,
    metadata: Mapping[str, str] | None = None,
    table: Mapping[str, str] | None = None,
    **options: object,
) -> tuple[Probe, RawSlide]:
    source = SlideSource(
        slide_id="s",
        path=path,
        platform="table",
        coordinates=coordinates,
        labels=labels,
        metadata=metadata or {},
    )
    section = IngestSection(table=dict(table or {}), **options)
    probe = TableReader().probe(source, section)
    assert probe is not None
    return probe, TableReader().read(source, section, probe)


def check(raw: RawSlide) -> None:
    assert raw.spot_ids.tolist() == list(CELLS)
    assert raw.genes["name"].tolist() == list(GENES)
    assert (raw.counts.toarray() == COUNTS).all()
    assert (raw.xy == XY).all()


@pytest.mark.parametrize("genes_in", ["rows", "columns"])
@pytest.mark.parametrize("delimiter", [",", "\t", " "])
@pytest.mark.parametrize("short", [False, True])
@pytest.mark.parametrize(("ids", "header"), [(True, True), (True, False), (False, True), (False, False)])
def test_variants(tmp_path: Path, genes_in: str, delimiter: str, short: bool, ids: bool, header: bool) -> None:
    counts, places = write_table(tmp_path, genes_in=genes_in, delimiter=delimiter, short=short, ids=ids, header=header)
    _, raw = read(counts, places)
    check(raw)
    assert raw.um_per_unit is None
    assert any("by order" in note for note in raw.notes) == (not ids)


def test_places_without_header_whose_ids_are_numbers_need_keys(tmp_path: Path) -> None:
    counts, places = write_table(tmp_path, header=False)
    places.write_text("\n".join(sorted(places.read_text().splitlines())) + "\n")
    with pytest.raises(InputError, match="not two columns of numbers"):
        read(counts, places)
    check(read(counts, places, table={"id_column": "1", "x_column": "2", "y_column": "3"})[1])


def test_windows_ends_and_byte_order_mark(tmp_path: Path) -> None:
    check(read(*write_table(tmp_path, end="\r\n", bom=True))[1])


def test_several_slides_in_one_table(tmp_path: Path) -> None:
    counts, places = write_table(tmp_path, slides=True)
    keys = {"slide_column": "slide"}
    for metadata in ({"slide": "two"}, {"slide_value": "two"}):
        _, raw = read(counts, places, table=keys, metadata=metadata)
        assert raw.spot_ids.tolist() == list(CELLS[3:])
        assert (raw.counts.toarray() == COUNTS[3:]).all()
        assert raw.notes == ("2 of 5 spots have slide = two",)
    source = SlideSource(slide_id="s", path=counts, platform="table", coordinates=places)
    with pytest.raises(InputError, match=r"is not named[\s\S]*one, two"):
        TableReader().probe(source, IngestSection(table=keys))
    with pytest.raises(InputError, match=r"is not named[\s\S]*one, two"):
        read(counts, places, table=keys)
    with pytest.raises(InputError, match=r"no spot has slide = 'three'[\s\S]*one, two"):
        read(counts, places, table=keys, metadata={"slide": "three"})
    with pytest.raises(InputError, match="no column 'section'"):
        read(counts, places, table={"slide_column": "section", "slide_value": "one"})


def test_slide_column_and_array_indices_from_the_label_table(tmp_path: Path) -> None:
    counts, places = write_table(tmp_path)
    rows = [f"{cell},{i % 2},{2 * i + i % 2},{'n' if i else 'c'},1" for i, cell in enumerate(CELLS)]
    labels = write_text(tmp_path / "meta.csv", "\n".join(["cell_ID,array_row,array_col,list,in_tissue", *rows]) + "\n")
    _, raw = read(counts, places, labels=labels, metadata={"slide_column": "list", "slide_value": "n"})
    assert raw.spot_ids.tolist() == list(CELLS[1:])
    assert raw.geometry == "hex"
    assert raw.array is not None
    assert raw.array.tolist() == [[1, 3], [0, 4], [1, 7], [0, 8]]
    assert raw.spots["in_tissue"].tolist() == [True] * 4
    source = SlideSource(slide_id="s", path=counts, labels=labels)
    assert attach_labels(raw, source, ["list"], labels)["list"].tolist() == ["n"] * 4


def test_coordinates_inside_the_counts_table(tmp_path: Path) -> None:
    rows = [f"{cell},{x},{y}," + ",".join(map(str, row)) for cell, (x, y), row in zip(CELLS, XY, COUNTS, strict=True)]
    path = write_text(tmp_path / "t.csv", "\n".join(["cell,px,py," + ",".join(GENES), *rows]) + "\n")
    check(read(path, table={"x_column": "px", "y_column": "py"})[1])
    with pytest.raises(InputError, match="needs coordinates"):
        read(path)
    with pytest.raises(InputError, match="no column 'qx'"):
        read(path, table={"x_column": "qx", "y_column": "py"})


def test_scale(tmp_path: Path) -> None:
    rows = [f"c{x}_{y},{x * 50},{y * 50}" for x in range(4) for y in range(3)]
    places = write_text(tmp_path / "p.csv", "\n".join(["cell,x,y", *rows]) + "\n")
    counts = write_text(tmp_path / "c.csv", "\n".join(["id,A", *(row.split(",")[0] + ",1" for row in rows)]) + "\n")
    assert (read(counts, places)[1].pitch, read(counts, places)[1].um_per_unit) == (50, None)
    assert read(counts, places, pitch_um=100)[1].um_per_unit == 2
    assert read(counts, places, um_per_unit=3)[1].um_per_unit == 3


def test_pitch_of_adjusted_places_is_not_biased_by_their_jitter() -> None:
    grid = np.stack(np.meshgrid(np.arange(20.0), np.arange(15.0)), axis=-1).reshape(-1, 2) * 7
    jittered = grid + np.random.default_rng(0).normal(0, 0.4, grid.shape)
    near, regular = nearest_distance(jittered)
    assert regular
    assert near is not None
    assert near < 6.8
    assert square_pitch(jittered, near) == pytest.approx(7, rel=0.01)


def test_spots_without_coordinates_are_counted(tmp_path: Path) -> None:
    counts, places = write_table(tmp_path)
    lines = places.read_text().splitlines()
    places.write_text("\n".join(line for line in lines if not line.startswith("x-2")) + "\nnew,1,1\n")
    _, raw = read(counts, places)
    assert raw.spot_ids.tolist() == list(CELLS[:4])
    assert raw.dropped == {"no_coordinates": {"spots": 1, "counts": int(COUNTS[4].sum())}}
    assert raw.notes == ("1 rows of places.txt have no counts",)


@pytest.mark.parametrize(
    ("file", "old", "new", "expected"),
    [
        ("places.txt", "sdimx", "east", ["no columns look like x and y", "cell_ID, east, sdimy", "x_column"]),
        ("places.txt", "cell_ID,sdimx,sdimy", "x,sdimx,sdimy", []),
        ("places.txt", "x-2,4.5", "x-2,nan;", ["not a finite number", "row 2"]),
        ("places.txt", "x-2,4.500000000000000000e+00", "x-2,inf", ["not a finite number", "sdimx"]),
        ("places.txt", "x-1", "x-2", ["given twice", "'x-2'"]),
        ("counts.txt", "x-1", "x-2", ["given twice", "'x-2'"]),
        ("counts.txt", "id,Actb,Gad1,Rnd3", "007,1,0,2", ["no rows", "header"]),
        ("counts.txt", "007,1", "007,-1", ["negative", "row 2", "Actb"]),
        ("counts.txt", "007,1", "007,1.5", ["fractional", "row 2", "Actb"]),
        ("counts.txt", "007,1", "007", ["number of cells", "row 2"]),
    ],
)
def test_faults_are_named(tmp_path: Path, file: str, old: str, new: str, expected: list[str]) -> None:
    counts, places = write_table(tmp_path)
    target = tmp_path / file
    text = target.read_text()
    assert old in text
    target.write_text(text.replace(old, new, 1) if "header" not in expected else "id,Actb\n")
    if not expected:
        check(read(counts, places)[1])
        return
    with pytest.raises(StpatchError) as error:
        read(counts, places)
    for words in expected:
        assert words in str(error.value)


def test_tables_that_do_not_fit(tmp_path: Path) -> None:
    counts, _ = write_table(tmp_path)
    other = write_text(tmp_path / "other.csv", "cell,x,y\nq1,1,2\nq2,3,4\n")
    with pytest.raises(InputError, match=r"fit neither rows nor columns[\s\S]*q1, q2"):
        read(counts, other)
    with pytest.raises(InputError, match="different slides"):
        read(counts, other, table={"genes_in": "columns"})
    other.write_text("1,2\n3,4\n")
    with pytest.raises(InputError, match="fit neither"):
        read(counts, other)
    with pytest.raises(InputError, match="another length"):
        read(counts, other, table={"genes_in": "columns"})
    square = write_text(tmp_path / "square.csv", "id,A,B\nc,1,2\nd,3,4\n")
    with pytest.raises(InputError, match="rows and columns of the counts alike"):
        read(square, other)
    other.write_text("cell,x,y,sdimx,sdimy\nc,1,2,1,2\n")
    with pytest.raises(InputError, match="several pairs"):
        read(square, other)
    with pytest.raises(InputError, match="both or none"):
        read(square, other, table={"x_column": "x"})
    with pytest.raises(InputError, match="no id column 'name'"):
        read(square, other, table={"x_column": "x", "y_column": "y", "id_column": "name"})


def test_paths_and_keys_are_checked_at_the_probe(tmp_path: Path) -> None:
    counts, places = write_table(tmp_path)
    for path, coordinates in ((tmp_path, places), (counts, tmp_path), (counts, tmp_path / "none.csv")):
        with pytest.raises(InputError):
            read(path, coordinates)
    with pytest.raises(StpatchError, match="column genes_in is not valid"):
        read(counts, places, metadata={"genes_in": "diagonal"})


def test_loom(tmp_path: Path) -> None:
    probe, raw = read(write_loom(tmp_path))
    check(raw)
    assert (probe.n_spots, probe.n_genes) == (5, 3)
    assert raw.spots["Region"].tolist() == ["a", "b", "a", "b", "b"]
    assert raw.spots["in_tissue"].tolist() == [True, True, False, True, True]
    assert "1 cells with Valid = 0" in raw.notes[0]


def test_loom_with_a_coordinates_table(tmp_path: Path) -> None:
    _, places = write_table(tmp_path)
    _, raw = read(write_loom(tmp_path, coordinates=False, valid=False), places)
    check(raw)
    assert raw.spots["Region"].tolist() == ["a", "b", "a", "b", "b"]
    with pytest.raises(InputError, match="no columns look like x and y"):
        read(tmp_path / "cells.loom")


def test_faults_of_loom_files(tmp_path: Path) -> None:
    path = write_loom(tmp_path)
    whole = path.read_bytes()

    def changed(key: str, value: object) -> None:
        path.write_bytes(whole)
        with h5py.File(path, "r+") as file:
            del file[key]
            if value is not None:
                file[key] = value

    for key, value, words in (
        ("col_attrs/CellID", None, "name its cells"),
        ("row_attrs/Gene", None, "name its genes"),
        ("col_attrs/X", np.arange(4.0), "another length"),
        ("col_attrs/X", np.array([0, 1, np.nan, 3, 4]), "not a finite number"),
        ("matrix", -COUNTS.T, "negative"),
        ("matrix", COUNTS.T + 0.5, "fractional"),
        ("col_attrs/CellID", np.array(["a"] * 5, dtype="S"), "given twice"),
    ):
        changed(key, value)
        with pytest.raises(InputError, match=words):
            read(path)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError):
        read(path)


REAL = [
    ("visium_mouse_brain_DG_txt/visium_DG_expr.txt.gz", "visium_mouse_brain_DG_txt/visium_DG_locs.txt", " ", "rows"),
    ("merfish_hypothalamus_csv/counts.csv", "merfish_hypothalamus_csv/coords.csv", ",", "rows"),
    ("osmfish_cortex/osmFISH_prep_expression.txt", "osmfish_cortex/osmFISH_prep_cell_coordinates.txt", "\t", "rows"),
    ("st_breast_layer1_csv/slice1.csv", "st_breast_layer1_csv/slice1_coor.csv", ",", "columns"),
    ("seqfish_tiny/TestSetSmall_CellxGene.csv", "seqfish_tiny/TestSetSmall_CellCoordinates.csv", ",", "columns"),
]


@pytest.mark.parametrize(("counts", "coordinates", "delimiter", "genes_in"), REAL)
def test_real_tables_load_without_a_key(
    data_dir: Path, counts: str, coordinates: str, delimiter: str, genes_in: str
) -> None:
    _, raw = read(data_dir / counts, data_dir / coordinates)
    frame = pd.read_csv(data_dir / counts, sep=delimiter, index_col=0)
    matrix = frame.to_numpy().T if genes_in == "rows" else frame.to_numpy()
    assert (raw.counts.toarray() == matrix).all()
    assert len(raw.xy) == len(matrix)
    assert np.ptp(raw.xy, axis=0).min() > 0


def test_real_coordinates_are_joined_by_id(data_dir: Path) -> None:
    folder = data_dir / "osmfish_cortex"
    _, raw = read(folder / "osmFISH_prep_expression.txt", folder / "osmFISH_prep_cell_coordinates.txt")
    places = pd.read_csv(folder / "osmFISH_prep_cell_coordinates.txt", sep="\t", index_col="ID")
    np.testing.assert_array_equal(raw.xy, places.loc[raw.spot_ids].to_numpy())


@pytest.mark.parametrize(("value", "spots"), [("CP", 1340), ("NP", 987)])
def test_prostate_slides_share_a_table(data_dir: Path, value: str, spots: int) -> None:
    folder = data_dir / "visium_prostate_two_slides_txt"
    _, raw = read(
        folder / "expression_matrix.txt.gz",
        folder / "spatial_locs.txt",
        labels=folder / "cell_metadata.txt",
        table={"slide_column": "list_ID"},
        metadata={"list_ID": value},
        pitch_um=100,
    )
    frame = pd.read_csv(folder / "expression_matrix.txt.gz", sep=" ", index_col=0)
    own = frame.loc[:, frame.columns.str.startswith(value)]
    assert raw.counts.shape == (spots, 1255)
    assert (raw.counts.toarray() == own.to_numpy().T).all()
    assert raw.geometry == "hex"
    assert raw.um_per_unit == pytest.approx(100 / 290, rel=0.01)


def test_osmfish_loom(data_dir: Path) -> None:
    path = data_dir / "osmfish_cortex" / "osmFISH_SScortex_mouse_all_cells.loom"
    _, raw = read(path, um_per_unit=0.065)
    with h5py.File(path) as file:
        assert (file["matrix"][:] == raw.counts.toarray().T).all()
        np.testing.assert_array_equal(raw.xy[:, 0], file["col_attrs/X"][:])
    assert int(raw.spots["in_tissue"].sum()) == 4839
