"""One list of problems over every platform: what is wrong with a file is said, what does not matter changes nothing.

Each reader's own faults are in its own test; these are the ones that all layouts share.
"""

from __future__ import annotations

import gzip
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from bundles.every import Bundle, all_bundles, read_bundle, write_bundle
from bundles.merscope import some_counts, write_merscope
from bundles.same import broken_invariant, difference
from bundles.visium import write_visium
from bundles.xenium import write_table

from stpatch.errors import InputError, StpatchError

BUNDLES = all_bundles()
FLAT = [bundle for bundle in BUNDLES if "zarr" not in bundle.name and bundle.platform != "spatialdata"]
TEXT = (".csv", ".tsv", ".txt", ".gem", ".mtx", ".json", ".xenium")
SPARE = {
    "experiment.xenium",
    "lung_fov_positions_file.csv",
    "scalefactors_json.json",
    "vocab.json",
    "A1_selection.tsv",
    "spots_A1.csv",
}
"""Files that some slides do without (the record says so): damaged, they may be refused or left alone."""


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda bundle: bundle.name)
def test_a_vocabulary_without_the_slides_genes_is_an_error(tmp_path: Path, bundle: Bundle) -> None:
    place = write_bundle(bundle, tmp_path)
    raw, slide = read_bundle(bundle, tmp_path, place)
    assert broken_invariant(raw, slide) == ""
    with pytest.raises(InputError, match="no gene of the slide is in the vocabulary"):
        read_bundle(bundle, tmp_path, place, vocabulary={"<pad>": 0, "NO_SUCH_GENE": 1})
    known = slide.genes.index[0]
    assert read_bundle(bundle, tmp_path, place, vocabulary={known: 7})[1].record["vocabulary"]["matched"] == 1


@pytest.mark.parametrize("damage", ["half", "empty", "cut at the last byte", "removed"])
@pytest.mark.parametrize("bundle", FLAT, ids=lambda bundle: bundle.name)
def test_a_damaged_file_is_an_error_of_its_name(tmp_path: Path, bundle: Bundle, damage: str) -> None:
    place = write_bundle(bundle, tmp_path)
    whole = read_bundle(bundle, tmp_path, place)[1]
    for path in files_of(tmp_path):
        content = path.read_bytes()
        if damage == "removed":
            path.unlink()
        else:
            path.write_bytes(content[: {"half": len(content) // 2, "empty": 0}.get(damage, -1)])
        slide, refusal = None, ""
        try:
            slide = read_bundle(bundle, tmp_path, place)[1]
        except StpatchError as error:
            refusal = str(error)
        if slide is None:
            assert str(tmp_path) in refusal
        elif damage == "cut at the last byte":  # a line end
            assert path.suffix in TEXT
            assert difference(whole, slide) == ""
        elif damage == "half":  # a table of fewer rows
            assert path.suffix in TEXT
        else:
            assert path.name.removeprefix("GSM1_") in SPARE
        path.write_bytes(content)


@pytest.mark.parametrize("bundle", FLAT, ids=lambda bundle: bundle.name)
def test_windows_ends_a_byte_order_mark_and_no_last_line_end_change_nothing(tmp_path: Path, bundle: Bundle) -> None:
    place = write_bundle(bundle, tmp_path)
    whole = read_bundle(bundle, tmp_path, place)[1]
    for path in files_of(tmp_path):
        if not path.name.removesuffix(".gz").endswith(TEXT):
            continue
        packed = path.suffix == ".gz"
        text = gzip.decompress(path.read_bytes()) if packed else path.read_bytes()
        text = b"\xef\xbb\xbf" + text.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n").rstrip(b"\r\n")
        path.write_bytes(gzip.compress(text) if packed else text)
    assert difference(whole, read_bundle(bundle, tmp_path, place)[1]) == ""


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda bundle: bundle.name)
def test_files_are_only_read(tmp_path: Path, bundle: Bundle) -> None:
    place = write_bundle(bundle, tmp_path)
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files_of(tmp_path)}
    read_bundle(bundle, tmp_path, place)
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files_of(tmp_path)} == before


@pytest.mark.parametrize("platform", ["visium", "merscope"])
def test_a_matrix_of_zeros_leaves_no_spot(tmp_path: Path, platform: str) -> None:
    if platform == "visium":
        write_visium(tmp_path)
        with h5py.File(tmp_path / "filtered_feature_bc_matrix.h5", "r+") as file:
            file["matrix/data"][:] = 0
    else:
        write_merscope(tmp_path)
        table = some_counts()
        write_table(pd.concat([table[["cell"]], table.drop(columns="cell") * 0], axis=1), tmp_path / "cell_by_gene.csv")
    bundle = next(bundle for bundle in BUNDLES if bundle.platform == platform)
    with pytest.raises(InputError, match="no spot is left after QC"):
        read_bundle(bundle, tmp_path, (".",))


@pytest.mark.parametrize("platform", ["visium", "merscope"])
def test_a_gene_of_two_columns_is_one_gene(tmp_path: Path, platform: str) -> None:
    bundle = next(bundle for bundle in BUNDLES if bundle.platform == platform)
    bundle.write(tmp_path)
    if platform == "visium":
        with h5py.File(tmp_path / "filtered_feature_bc_matrix.h5", "r+") as file:
            file["matrix/features/name"][1] = file["matrix/features/name"][0]
    else:
        table = some_counts()
        columns = ["cell", "PDK4", "PDK4", *table.columns[3:]]
        write_table(table.set_axis(columns, axis=1), tmp_path / "cell_by_gene.csv")
    raw, slide = read_bundle(bundle, tmp_path, (".",))
    assert broken_invariant(raw, slide) == ""
    assert slide.record["genes_merged"] == 1
    first = raw.genes["name"].iloc[0]
    merged = slide.counts[:, slide.genes.index.get_loc(first)].sum()
    assert merged == raw.counts[:, np.flatnonzero(raw.genes["name"] == first)].sum()
