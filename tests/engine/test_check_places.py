"""What `check` tells of a slide's places, features and joins is what `build` finds."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import yaml
from bundles.cosmx import write_cosmx
from bundles.h5ad import make_anndata, write_anndata
from bundles.merscope import write_merscope
from bundles.slideseq import write_slideseq
from bundles.spatialdata import write_spatialdata
from bundles.st import write_text
from bundles.table import CELLS, COUNTS, GENES, write_loom, write_table
from bundles.visium import write_visium
from bundles.xenium import write_xenium
from commands import built, stpatch

Row = dict[str, Any]
SCATTERED = np.array([[0.0, 0.0], [1.3, 7.1], [5.9, 2.2], [8.8, 9.7], [4.4, 5.3]])
LATTICE = np.array([[0.0, 0.0], [100.0, 0.0], [0.0, 100.0], [100.0, 100.0], [200.0, 100.0]])


def cells(write: Callable[[Path], Path]) -> Callable[[Path], Row]:
    def layout(folder: Path) -> Row:
        folder.mkdir(parents=True, exist_ok=True)
        return {"path": write(folder)}

    return layout


def inside(folder: Path, xy: np.ndarray = SCATTERED) -> Row:
    """Write a counts table that has the coordinates as columns."""
    rows = [f"{cell},{x},{y}," + ",".join(map(str, row)) for cell, (x, y), row in zip(CELLS, xy, COUNTS, strict=True)]
    table = write_text(folder / "t.csv", "\n".join([f"cell,x,y,{','.join(GENES)}", *rows]) + "\n")
    return {"path": table, "platform": "table", "x_column": "x", "y_column": "y"}


def beside(folder: Path, *, genes_in: str = "columns") -> Row:
    counts, places = write_table(folder, genes_in=genes_in)
    rows = [f"{cell},{x},{y}" for cell, (x, y) in zip(CELLS, SCATTERED, strict=True)]
    write_text(places, "\n".join(["cell_ID,sdimx,sdimy", *rows]) + "\n")
    return {"path": counts, "coordinates": places, "platform": "table"}


def labelled(folder: Path) -> Row:
    """Write two slides on one lattice; only the table of labels tells which spot is whose."""
    row = beside(folder)
    owner = [f"{cell},{'a' if i < 4 else 'b'}" for i, cell in enumerate(CELLS)]
    labels = write_text(folder / "labels.csv", "\n".join(["id,slide", *owner]) + "\n")
    return {**row, "labels": labels, "slide_column": "slide", "slide_value": "a"}


def loom(folder: Path) -> Row:
    return placed_loom(folder, SCATTERED)


def shapes(folder: Path, *, kind: str = "circles") -> Row:
    return {"path": write_spatialdata(folder / "s.zarr", coordinates=kind, visium=False)}


def config(folder: Path, *rows: Row, **sections: dict[str, Any]) -> Path:
    """Write samplesheet and config; paths are told from the folder."""
    names = list(dict.fromkeys(["slide_id", *(name for row in rows for name in row)]))
    lines = [",".join(names)]
    lines += [",".join(str({"slide_id": f"s{i}", **row}.get(name, "")) for name in names) for i, row in enumerate(rows)]
    write_text(folder / "slides.csv", "\n".join(lines) + "\n")
    value = {
        "dataset": {"name": "t", "output": "out"},
        "slides": {"sheet": "slides.csv"},
        "channels": {"scope": "panel", "method": "all"},
        "crop": {"size": [2, 2], "min_coverage": 0, "min_spots": 1},
        "split": {"by": "slide_id", "fractions": {"train": 1.0}},
        "run": {"workers": 1},
        **sections,
    }
    path = folder / "c.yaml"
    path.write_text(yaml.safe_dump(value))
    return path


LAYOUTS: dict[str, Callable[[Path], Row]] = {
    "cosmx": cells(write_cosmx),
    "merscope": cells(write_merscope),
    "xenium": cells(write_xenium),
    "slideseq": cells(write_slideseq),
    "table with x and y inside": inside,
    "two tables": beside,
    "two tables, genes in rows": lambda folder: beside(folder, genes_in="rows"),
    "slide column in the labels": labelled,
    "loom": loom,
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_cells_without_a_lattice_are_refused_by_check(tmp_path: Path, name: str) -> None:
    path = config(tmp_path, LAYOUTS[name](tmp_path / "in"))
    checked, done = stpatch("check", path, "-q"), stpatch("build", path, "-q")
    assert checked.code == done.code == 2
    assert "grid.method lattice needs a lattice" in checked.err
    assert "grid.method lattice needs a lattice" in done.err


@pytest.mark.parametrize("name", LAYOUTS)
def test_on_another_grid_check_passes_what_build_takes(tmp_path: Path, name: str) -> None:
    path = config(tmp_path, LAYOUTS[name](tmp_path / "in"), grid={"method": "fit", "size": 4})
    built("check", path, "-q")
    built("build", path, "-q")


@pytest.mark.parametrize("kind", ["circles", "polygons"])
def test_shapes_alone_have_a_lattice(tmp_path: Path, kind: str) -> None:
    path = config(tmp_path, shapes(tmp_path / "in", kind=kind))
    checked = built("check", path, "-q")
    assert "centroids of shapes/cells" in checked.out
    assert re.search(r"a hexagonal lattice of pitch \d+", checked.out)
    built("build", path, "-q")


def test_sections_that_overlap_in_shapes_are_told_by_check(tmp_path: Path) -> None:
    store = write_spatialdata(tmp_path / "s.zarr", coordinates="circles", visium=False, regions=("a", "b"))
    path = config(tmp_path, {"path": store})
    checked, done = stpatch("check", path, "-q"), stpatch("build", path, "-q")
    assert checked.code == done.code == 2
    assert "several regions" in checked.err


def placed_loom(folder: Path, xy: np.ndarray) -> Row:
    path = write_loom(folder, valid=False)
    with h5py.File(path, "r+") as file:
        for name, values in zip("XY", xy.T, strict=True):
            file[f"col_attrs/{name}"][:] = values
    return {"path": path}


@pytest.mark.parametrize("write", [inside, placed_loom])
def test_places_beside_the_counts_in_one_file(tmp_path: Path, write: Callable[[Path, np.ndarray], Row]) -> None:
    path = config(tmp_path, write(tmp_path / "twice", LATTICE[[0, 1, 2, 0, 1]]))
    checked, done = stpatch("check", path, "-q"), stpatch("build", path, "-q")
    assert checked.code == done.code == 2
    assert "spots share places" in checked.err
    assert checked.err == done.err
    path = config(tmp_path, write(tmp_path / "few", LATTICE), dataset={"name": "t", "output": "few-out"})
    built("check", path, "-q")  # five spots are too few for a lattice of any angle, and round to a square one
    built("build", path, "-q")


@pytest.mark.parametrize(("jitter", "sound"), [(0.2, True), (0.4, False)])
def test_spots_about_a_square_lattice(tmp_path: Path, jitter: float, *, sound: bool) -> None:
    slide = make_anndata(rows=5, columns=8, visium=False)
    row, column = np.divmod(np.arange(len(slide)), 8)
    noise = np.random.default_rng(5).uniform(-jitter, jitter, (len(slide), 2))
    slide.obsm["spatial"] = (np.column_stack([column, row]) + noise) * 100.0
    path = config(tmp_path, {"path": write_anndata(tmp_path / "a.h5ad", slide)})
    checked, done = stpatch("check", path, "-q"), stpatch("build", path, "-q")
    assert (checked.code == 0) == (done.code == 0) == sound


def test_a_column_of_slides_in_a_table_of_molecules_is_refused(tmp_path: Path) -> None:
    table = write_text(tmp_path / "m.csv", "x,y,gene,section\n1,1,A,one\n2,2,B,two\n")
    path = config(tmp_path, {"path": table, "platform": "table", "slide_column": "section"})
    checked, done = stpatch("check", path, "-q"), stpatch("build", path, "-q")
    assert checked.code == done.code == 2
    assert "rows of a table of molecules cannot be picked" in checked.err
    assert checked.err == done.err


def test_unknown_feature_types_are_told_by_check(tmp_path: Path) -> None:
    slide = make_anndata()
    slide.var["feature_types"] = ["Gene Expression"] * 6 + ["marker", "marker"]
    path = config(tmp_path, {"path": write_anndata(tmp_path / "a.h5ad", slide)})
    note = "note: slide s0: feature types that are not known are taken for genes: marker (2)"
    assert note in built("check", path, "-q").out
    assert note in built("build", path, "-q").err


def test_unknown_feature_types_of_a_mex_are_told_by_check(tmp_path: Path) -> None:
    folder = write_visium(tmp_path / "v", matrix="mex")
    features = next((folder / "filtered_feature_bc_matrix").glob("features.tsv*"))
    import gzip

    opened = gzip.open if features.suffix == ".gz" else open
    with opened(features, "rt") as file:
        lines = file.read().splitlines()
    lines[0] = "\t".join([*lines[0].split("\t")[:2], "marker"])
    with opened(features, "wt") as file:
        file.write("\n".join(lines) + "\n")
    path = config(tmp_path, {"path": folder})
    assert "feature types that are not known are taken for genes: marker (1)" in built("check", path, "-q").out


def test_barcodes_of_beads_that_are_joined_are_told_by_check(tmp_path: Path) -> None:
    folder = write_slideseq(tmp_path / "puck", layout="puck")
    table = folder / "Puck.digital_expression.txt"
    lines = table.read_text().splitlines()
    lines[0] = "\t".join([lines[0].split("\t")[0], *(f"{code}-1" for code in lines[0].split("\t")[1:])])
    table.write_text("\n".join(lines) + "\n")
    path = config(tmp_path, {"path": folder}, grid={"method": "fit", "size": 4})
    checked = built("check", path, "-q")
    assert "joined without it" in checked.out
    assert "um per pixel is the platform's usual 0.65, not measured" in checked.out
    assert "joined without it" in built("build", path, "-q").err


def test_the_matrix_that_is_taken_is_told_by_check(tmp_path: Path) -> None:
    slide = make_anndata(matrix="layers")
    slide.layers["count"] = slide.layers.pop("counts")
    path = config(tmp_path, {"path": write_anndata(tmp_path / "a.h5ad", slide)})
    note = "note: slide s0: counts are from layers/count, by its name; ingest.layer names another"
    assert note in built("check", path, "-q").out
    assert note in built("build", path, "-q").err


def test_a_slide_in_a_folder_below_is_told_by_check(tmp_path: Path) -> None:
    write_visium(tmp_path / "given" / "one")
    path = config(tmp_path, {"path": tmp_path / "given"})
    note = "note: slide s0: the slide is in one of the folder that was given"
    assert note in built("check", path, "-q").out
    assert note in built("build", path, "-q").err


def test_columns_that_are_no_genes_are_told_by_check(tmp_path: Path) -> None:
    table = write_merscope(tmp_path / "in") / "cell_by_gene.csv"
    lines = table.read_text().splitlines()
    lines = [f"{lines[0]},slide_id", *(f"{line},3" for line in lines[1:])]
    table.write_text("\n".join(lines) + "\n")
    path = config(tmp_path, {"path": tmp_path / "in"}, grid={"method": "fit", "size": 4})
    assert "are not genes: slide_id" in built("check", path, "-q").out
