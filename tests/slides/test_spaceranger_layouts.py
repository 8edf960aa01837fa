"""Space Ranger slides as they lie after a download: names, folders, dialects and barcodes of other writers."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from bundles.visium import write_visium
from bundles.visium_hd import write_square

from stpatch.config import IngestSection
from stpatch.errors import InputError
from stpatch.slides.formats.barcodes import flags, is_flag, join_barcodes
from stpatch.slides.readers.registry import probe_source, read_source
from stpatch.slides.slide import RawSlide
from stpatch.slides.source import SlideSource


def read(path: Path, coordinates: Path | None = None, **options: object) -> RawSlide:
    source = SlideSource(slide_id="s", path=path, coordinates=coordinates)
    return read_source(source, IngestSection(**options))[1]


def plain(folder: Path) -> RawSlide:
    return read(write_visium(folder / "plain"))


def same(raw: RawSlide, other: RawSlide) -> bool:
    assert (raw.counts != other.counts).nnz == 0
    assert (raw.xy == other.xy).all()
    assert raw.genes.equals(other.genes)
    return bool(raw.spots.equals(other.spots))


def packed(path: Path) -> None:
    path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes(), mtime=0))
    path.unlink()


def flat(folder: Path, prefix: str, *, zipped: bool) -> Path:
    outs = write_visium(folder)
    for item in [*(outs / "spatial").iterdir(), outs / "filtered_feature_bc_matrix.h5"]:
        new = item.rename(outs / f"{prefix}{item.name}")
        if zipped and new.suffix != ".h5":
            packed(new)
    (outs / "spatial").rmdir()
    return outs


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("prefix", ["", "GSM1_S1_", "GSM1.", "A-", "a_filtered_b_"])
def test_everything_flat_in_one_folder(tmp_path: Path, prefix: str, zipped: bool) -> None:
    outs = flat(tmp_path / "a", prefix, zipped=zipped)
    assert same(read(outs), plain(tmp_path))
    assert same(read(outs / f"{prefix}filtered_feature_bc_matrix.h5"), plain(tmp_path))


@pytest.mark.parametrize("prefix", ["GSM1_", "x.", "S-1_"])
@pytest.mark.parametrize("folder", ["spatial", "{}spatial"])
def test_prefixed_names_in_spatial(tmp_path: Path, prefix: str, folder: str) -> None:
    outs = write_visium(tmp_path / "a")
    for item in list((outs / "spatial").iterdir()):
        item.rename(item.with_name(f"{prefix}{item.name}"))
    (outs / "filtered_feature_bc_matrix.h5").rename(outs / f"{prefix}filtered_feature_bc_matrix.h5")
    (outs / "spatial").rename(outs / folder.format(prefix))
    assert same(read(outs), plain(tmp_path))


def test_samples_of_one_folder_are_kept_apart(tmp_path: Path) -> None:
    outs = flat(tmp_path / "a", "GSM1_", zipped=False)
    for item in list(write_visium(tmp_path / "b", seed=5).rglob("*")):
        if item.is_file():
            item.rename(outs / f"GSM2_{item.name}")
    with pytest.raises(InputError, match=r"several matrices[\s\S]*GSM1_filtered\w*.h5, GSM2_filtered") as caught:
        read(outs)
    assert "its own row of the samplesheet" in str(caught.value)
    assert same(read(outs / "GSM1_filtered_feature_bc_matrix.h5"), plain(tmp_path))
    other = read(write_visium(tmp_path / "plain2", seed=5))
    assert same(read(outs / "GSM2_filtered_feature_bc_matrix.h5"), other)
    for item in outs.glob("GSM2_tissue*"):
        item.rename(outs / f"GSM3_{item.name}")
    with pytest.raises(InputError, match=r"several positions tables[\s\S]*'GSM2_'"):
        read(outs / "GSM2_filtered_feature_bc_matrix.h5")


@pytest.mark.parametrize("zipped", [False, True])
def test_a_flat_mex_with_a_prefix(tmp_path: Path, zipped: bool) -> None:
    outs = write_visium(tmp_path / "a", matrix="mex")
    for item in [*(outs / "filtered_feature_bc_matrix").iterdir(), *(outs / "spatial").iterdir()]:
        new = item.rename(outs / f"GSM1_{item.name}")
        if not zipped and new.suffix == ".gz":
            new.with_suffix("").write_bytes(gzip.decompress(new.read_bytes()))
            new.unlink()
    assert same(read(outs), plain(tmp_path))
    end = ".gz" if zipped else ""
    assert same(read(outs / f"GSM1_matrix.mtx{end}"), plain(tmp_path))


@pytest.mark.parametrize("name", ["SCPCL1_filtered", "SCPCL1_unfiltered"])
def test_the_folders_of_a_portal(tmp_path: Path, name: str) -> None:
    outs = write_visium(tmp_path / "SCPCL1", matrix="mex")
    (outs / "filtered_feature_bc_matrix").rename(outs / name)
    (outs / "spatial").rename(outs / "SCPCL1_spatial")
    assert same(read(outs), plain(tmp_path))
    assert same(read(outs / name), plain(tmp_path))


def test_positions_named_in_the_samplesheet(tmp_path: Path) -> None:
    outs = write_visium(tmp_path / "a")
    elsewhere = (outs / "spatial" / "tissue_positions.csv").rename(tmp_path / "places.csv")
    assert same(read(outs, elsewhere), plain(tmp_path))
    with pytest.raises(InputError, match="no such table of positions"):
        read(outs, tmp_path / "none.csv")


def test_a_packed_matrix_is_named_with_its_command(tmp_path: Path) -> None:
    outs = write_visium(tmp_path / "a")
    packed(outs / "filtered_feature_bc_matrix.h5")
    with pytest.raises(InputError, match=r"the matrix is packed[\s\S]*gunzip -k filtered_feature_bc_matrix.h5.gz"):
        read(outs)


WORDS = [("TRUE", "FALSE"), ("True", "False"), ("T", "F"), ("yes", "no"), ("1.0", "0.0"), ('"1"', '"0"'), ("1", "0")]


@pytest.mark.parametrize(("yes", "no"), WORDS)
@pytest.mark.parametrize("header", [True, False])
def test_words_for_in_tissue(tmp_path: Path, yes: str, no: str, header: bool) -> None:
    outs = write_visium(tmp_path / "a")
    table = pd.read_csv(outs / "spatial" / "tissue_positions.csv")
    table["in_tissue"] = [(yes if flag else no).strip('"') for flag in table["in_tissue"]]
    table.to_csv(outs / "spatial" / "tissue_positions.csv", index=False, header=header, quoting=1 if '"' in yes else 0)
    assert same(read(outs), plain(tmp_path))


def test_other_words_are_refused(tmp_path: Path) -> None:
    outs = write_visium(tmp_path / "a")
    table = pd.read_csv(outs / "spatial" / "tissue_positions.csv")
    table["in_tissue"] = "tumour"
    table.to_csv(outs / "spatial" / "tissue_positions.csv", index=False)
    with pytest.raises(InputError, match="in_tissue is no"):
        read(outs)
    assert not is_flag("tumour")
    assert np.isnan(flags(["maybe"])).all()


@pytest.mark.parametrize("names", [{}, {"array_row": "row", "array_col": "col", "in_tissue": "tissue"}])
def test_positions_that_r_wrote(tmp_path: Path, names: dict[str, str]) -> None:
    outs = write_visium(tmp_path / "a")
    path = outs / "spatial" / "tissue_positions.csv"
    table = pd.read_csv(path).rename(
        columns={**names, "pxl_row_in_fullres": "imagerow", "pxl_col_in_fullres": "imagecol"}
    )
    table.index = pd.Index(range(1, len(table) + 1))
    table.to_csv(path, quoting=2)
    assert same(read(outs), plain(tmp_path))
    table.set_index("barcode").to_csv(path, quoting=2, index_label="")
    assert same(read(outs), plain(tmp_path))


def each(change: Callable[[str], str], *, of: str) -> Callable[[Path], None]:
    def apply(outs: Path) -> None:
        if of == "positions":
            path = outs / "spatial" / "tissue_positions.csv"
            table = pd.read_csv(path)
            table["barcode"] = table["barcode"].map(change)
            table.to_csv(path, index=False)
            return
        path = outs / "filtered_feature_bc_matrix" / "barcodes.tsv.gz"
        lines = gzip.decompress(path.read_bytes()).decode().split()
        path.write_bytes(gzip.compress("".join(f"{change(line)}\n" for line in lines).encode(), mtime=0))

    return apply


FORMS: dict[str, Callable[[str], str]] = {
    "no suffix": lambda text: text.removesuffix("-1"),
    "other suffix": lambda text: text.replace("-1", "-2"),
    "dot": lambda text: text.replace("-", "."),
    "sample in front": lambda text: f"S1_{text}",
    "sample in front, no suffix": lambda text: f"GSM1:{text.removesuffix('-1')}",
    "sample behind": lambda text: f"{text}_S1",
    "double quotes": lambda text: f'"{text}"',
}


@pytest.mark.parametrize("of", ["positions", "matrix"])
@pytest.mark.parametrize("form", FORMS)
def test_barcodes_that_agree_but_for_a_form_are_joined_and_noted(tmp_path: Path, form: str, of: str) -> None:
    outs = write_visium(tmp_path / "a", matrix="mex")
    each(FORMS[form], of=of)(outs)
    raw = read(outs)
    assert (raw.xy == plain(tmp_path).xy).all()
    if "quotes" not in form:
        assert any("barcodes agree but for" in note for note in raw.notes)


def test_barcodes_of_joined_slides_are_never_mixed_up() -> None:
    ids = ["ACGTACGTAA-1", "ACGTACGTAA-2"]
    assert join_barcodes(ids, ["ACGTACGTAA-3", "CCGTACGTAA-3"]).rows.tolist() == [-1, -1]
    assert join_barcodes(["ACGTACGTAA", "TTTTACGTAA"], ["ACGTACGTAA-1", "TTTTACGTAA-2"]).rows.tolist() == [0, 1]
    assert join_barcodes(["ACGTACGTAA"], ["ACGTACGTAA-1", "ACGTACGTAA-2"]).rows.tolist() == [-1]
    assert join_barcodes(["GGGGACGTAA"], ["ACGTACGTAA-1"]).note == ""


DIALECTS: dict[str, Callable[[str], str]] = {
    "two blanks": lambda text: text.replace(" ", "  "),
    "tabs": lambda text: text.replace(" ", "\t"),
    "leading blanks": lambda text: f"  {text}",
    "trailing blank": lambda text: f"{text} ",
    "aligned": lambda text: "{:>8}{:>8}{:>6}".format(*text.split()),
}


@pytest.mark.parametrize("kind", ["integer", "unsigned-integer", "real"])
@pytest.mark.parametrize("dialect", [*DIALECTS, "plain"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_matrix_market_dialects(tmp_path: Path, dialect: str, kind: str, newline: str) -> None:
    outs = write_visium(tmp_path / "a", matrix="mex")
    path = outs / "filtered_feature_bc_matrix" / "matrix.mtx.gz"
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    lines[0] = lines[0].replace("integer", kind)
    lines[3:] = [DIALECTS.get(dialect, str)(line) for line in lines[3:]]
    path.write_bytes(gzip.compress(newline.join([*lines, ""]).encode(), mtime=0))
    assert same(read(outs), plain(tmp_path))


@pytest.mark.parametrize("change", ["cut", "more", "beyond"])
def test_a_loose_matrix_is_checked_as_a_plain_one(tmp_path: Path, change: str) -> None:
    outs = write_visium(tmp_path / "a", matrix="mex")
    path = outs / "filtered_feature_bc_matrix" / "matrix.mtx.gz"
    lines = [line.replace(" ", "  ") for line in gzip.decompress(path.read_bytes()).decode().splitlines()]
    lines = {"cut": lines[:-1], "more": [*lines, lines[-1]], "beyond": [*lines[:-1], "999  1  1"]}[change]
    path.write_bytes(gzip.compress("\n".join([*lines, ""]).encode(), mtime=0))
    with pytest.raises(InputError, match=r"fewer entries|more entries|outside the matrix"):
        read(outs)


def test_several_counts_per_entry_are_named(tmp_path: Path) -> None:
    outs = write_visium(tmp_path / "a", matrix="mex")
    path = outs / "filtered_feature_bc_matrix" / "matrix.mtx.gz"
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    lines[3:] = [f"{line} 0 0" for line in lines[3:]]
    path.write_bytes(gzip.compress("\n".join([*lines, ""]).encode(), mtime=0))
    with pytest.raises(InputError, match="several counts per entry: a Seq-Scope or NovaScope matrix"):
        probe_source(SlideSource(slide_id="s", path=outs), IngestSection())


def quoted(line: str, *, delimiter: str) -> str:
    return delimiter.join(f'"{field}"' for field in line.split("\t"))


@pytest.mark.parametrize("delimiter", ["\t", " ", ","])
@pytest.mark.parametrize("extra", ["plain", "header", "numbered"])
def test_names_that_r_quoted(tmp_path: Path, delimiter: str, extra: str) -> None:
    outs = write_visium(tmp_path / "a", matrix="mex")
    for name in ("barcodes", "features"):
        path = outs / "filtered_feature_bc_matrix" / f"{name}.tsv.gz"
        rows = gzip.decompress(path.read_bytes()).decode().splitlines()
        if extra == "numbered":
            rows = [f"{i + 1}\t{row}" for i, row in enumerate(rows)]
        text = [quoted(row, delimiter=delimiter) for row in rows]
        if extra != "plain":
            text.insert(0, quoted("V1" if name == "features" else "x", delimiter=delimiter))
        path.write_bytes(gzip.compress("\n".join([*text, ""]).encode(), mtime=0))
    assert same(read(outs), plain(tmp_path))


@pytest.mark.parametrize(
    "name", ["binned_outputs", "Visium_HD_Mouse_binned_outputs", "outs/binned_outputs", "outs/X_binned_outputs"]
)
def test_bins_under_a_prefix(tmp_path: Path, name: str) -> None:
    square = write_square(tmp_path / "a" / name / "square_008um", bin_um=8)
    expected = read(square)
    assert same(read(tmp_path / "a"), expected)
    assert same(read(square / "filtered_feature_bc_matrix.h5"), expected)


@pytest.mark.parametrize("inside", ["segmented_outputs", "outs/segmented_outputs", "X_segmented_outputs"])
def test_segmented_cells_are_named(tmp_path: Path, inside: str) -> None:
    (tmp_path / inside).mkdir(parents=True)
    (tmp_path / inside / "filtered_feature_cell_matrix.h5").write_bytes(b"x")
    with pytest.raises(InputError, match=r"segmented outputs of Space Ranger 4[\s\S]*binned_outputs"):
        read(tmp_path)


def test_packed_scale_factors_of_bins(tmp_path: Path) -> None:
    square = write_square(tmp_path / "square_002um")
    expected = read(square)
    packed(square / "spatial" / "scalefactors_json.json")
    assert read(square).um_per_unit == expected.um_per_unit
    assert json.loads(gzip.decompress((square / "spatial" / "scalefactors_json.json.gz").read_bytes()))
