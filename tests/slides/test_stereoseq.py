from __future__ import annotations

import gzip
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from bundles.stereoseq import some_dnbs, write_gef, write_gem

from stpatch.config import IngestSection
from stpatch.errors import InputError
from stpatch.slides.formats.hdf5 import gef as gef_module
from stpatch.slides.formats.molecules import table as molecule_table
from stpatch.slides.readers.registry import probe_source, reader_of
from stpatch.slides.slide import RawSlide
from stpatch.slides.source import Probe, SlideSource


def read(path: Path, **options: object) -> tuple[Probe, RawSlide]:
    source, section = SlideSource(slide_id="slide", path=path), IngestSection(**options)
    probe = reader_of("stereoseq").probe(source, section)
    assert probe is not None
    return probe, reader_of("stereoseq").read(source, section, probe)


def expected(dnbs: pd.DataFrame, side: int) -> dict[tuple[str, int, int], int]:
    row, column = ((dnbs[axis] - dnbs[axis].min()) // side for axis in ("y", "x"))
    return dnbs.groupby([dnbs["name"], row.rename("row"), column.rename("column")])["count"].sum().to_dict()


def found(raw: RawSlide) -> dict[tuple[str, int, int], int]:
    assert raw.array is not None
    matrix = raw.counts.tocoo()
    places = raw.array[matrix.row].tolist()
    names = raw.genes["name"].where(raw.genes["name"] != "", raw.genes["ensembl_id"]).to_numpy()[matrix.col]
    return {(name, *place): value for name, place, value in zip(names, places, matrix.data.tolist(), strict=True)}


GEMS = [
    {},
    {"count": "MIDCounts"},
    {"count": "UMICount", "extra": True},
    {"names": True},
    {"comments": ()},
    {"newline": "\r\n"},
    {"bom": True},
    {"bom": True, "comments": ()},
]


@pytest.mark.parametrize("name", ["a.gem", "a.gem.gz", "a.tsv", "a.tsv.gz"])
@pytest.mark.parametrize("variant", GEMS, ids=[" ".join(map(str, v)) or "plain" for v in GEMS])
def test_every_gem_variant_gives_the_same_slide(tmp_path: Path, name: str, variant: dict[str, object]) -> None:
    write_gem(tmp_path / name, **variant)
    for path in (tmp_path, tmp_path / name):
        probe, raw = read(path)
        assert found(raw) == expected(some_dnbs(), 50)
    assert (probe.um_per_unit, probe.pitch_um, raw.um_per_unit, raw.pitch, raw.geometry) == (0.5, 25, 0.5, 50, "square")
    assert any("9603" in note and "12601" in note for note in raw.notes)
    assert any("bin_um is not set" in note for note in raw.notes)
    if variant.get("names"):
        assert raw.genes["ensembl_id"].str.startswith("ENSMUSG").all()


@pytest.mark.parametrize("bin_um", [0.5, 1.0, 7.5, 500.0])
def test_bins(tmp_path: Path, bin_um: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(molecule_table, "CSV_BLOCK", 256)
    monkeypatch.setattr(gef_module, "ROWS", 7)
    for path in (write_gem(tmp_path / "a.gem", names=True), write_gef(tmp_path / "a.gef")):
        _, raw = read(path, bin_um=bin_um)
        assert found(raw) == expected(some_dnbs(), round(bin_um * 2))
        assert raw.pitch == bin_um * 2
        np.testing.assert_allclose(raw.xy, (raw.array[:, ::-1] + 0.5) * raw.pitch + (9603, 12601))


def test_gene_names_and_genes_in_many_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dnbs = some_dnbs().sample(frac=1, random_state=0, ignore_index=True)
    monkeypatch.setattr(molecule_table, "CSV_BLOCK", 256)
    _, raw = read(write_gem(tmp_path / "a.gem", dnbs=dnbs, names=True))
    assert found(raw) == expected(dnbs, 50)


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: [*lines[:5], *sorted(lines[5:], key=lambda line: line[::-1]), ""],
        lambda lines: [*lines[:5], *lines[5:60], "", *lines[60:], "", ""],
        lambda lines: [*lines[:-1], '"' + lines[-1].replace("\t", '"\t', 1)],
        lambda lines: ["\t".join(line.split("\t")[::-1]) if "\t" in line else line for line in lines],
    ],
    ids=["genes in no order", "empty lines", "a quoted field", "columns in another order"],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_plain_and_other_rows_give_the_same_slide(tmp_path: Path, change, newline: str) -> None:
    path = write_gem(tmp_path / "a.gem", names=True)
    lines = path.read_text().rstrip("\n").split("\n")
    path.write_bytes(newline.join(change(lines)).encode())
    _, raw = read(path)
    assert found(raw) == expected(some_dnbs(), 50)
    assert sorted(zip(raw.genes["ensembl_id"], raw.genes["name"], strict=True)) == sorted(
        some_dnbs()[["gene", "name"]].drop_duplicates().itertuples(index=False, name=None)
    )


@pytest.mark.parametrize("names", [True, False])
def test_gef(tmp_path: Path, names: bool) -> None:
    probe, raw = read(write_gef(tmp_path / "a.gef", bins=(1, 50), names=names))
    assert found(raw) == expected(some_dnbs(), 50)
    assert (probe.n_genes, probe.version) == (7, "4")
    assert probe_source(SlideSource(slide_id="a", path=tmp_path), IngestSection()).platform == "stereoseq"


@pytest.mark.parametrize("as_numbers", [True, False])
def test_gef_of_coarse_bins(tmp_path: Path, as_numbers: bool) -> None:
    path = write_gef(tmp_path / "a.gef", bins=(10, 50), as_numbers=as_numbers)
    dnbs = some_dnbs()
    dnbs = dnbs.assign(x=dnbs["x"] // 50 * 50, y=dnbs["y"] // 50 * 50)
    _, raw = read(path, bin_um=50)
    assert found(raw) == expected(dnbs, 100)
    with pytest.raises(InputError, match="do not divide"):
        read(path, bin_um=2)


def test_resolution_of_the_gef_and_of_the_user(tmp_path: Path) -> None:
    path = write_gef(tmp_path / "a.gef", resolution=715)
    with pytest.raises(InputError, match="whole number of DNBs"):
        read(path, bin_um=25)
    assert read(path, bin_um=7.15)[1].pitch == 10
    assert read(path, um_per_unit=0.5)[1].um_per_unit == 0.5
    assert read(write_gef(tmp_path / "b" / "b.gef", resolution=None))[1].um_per_unit == 0.5


def test_wide_counts(tmp_path: Path) -> None:
    dnbs = some_dnbs().assign(count=70_000)
    _, raw = read(write_gem(tmp_path / "a.gem", dnbs=dnbs))
    assert raw.counts.dtype == np.uint32
    assert found(raw) == expected(dnbs, 50)


def test_one_dnb_and_negative_coordinates(tmp_path: Path) -> None:
    _, raw = read(write_gem(tmp_path / "a.gem", dnbs=some_dnbs().iloc[:1]))
    assert raw.counts.shape == (1, 1)
    dnbs = some_dnbs(corner=(-77, -3))
    assert found(read(write_gem(tmp_path / "a.gem", dnbs=dnbs))[1]) == expected(dnbs, 50)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("geneID\tx\tMIDCount\nA\t1\t1\n", "misses a column"),
        ("geneID\tx\ty\nA\t1\t1\n", "misses a column"),
        ("geneID\tx\ty\tMIDCount\n", "no rows|cannot be read"),
        ("geneID\tx\tx\ty\tMIDCount\nA\t1\t1\t1\t1\n", "given twice"),
        ("geneID\tx\ty\tMIDCount\nA\t1.5\t1\t1\n", "cannot be read"),
        ("geneID\tx\ty\tMIDCount\nA\tnan\t1\t1\n", "missing or no number"),
        ("geneID\tx\ty\tMIDCount\nA\tinf\t1\t1\n", "cannot be read"),
        ("geneID\tx\ty\tMIDCount\nA\t1\t1\t-1\n", "negative"),
        ("geneID\tx\ty\tMIDCount\nA\t1\t1\t0.5\n", "cannot be read"),
        ("geneID\tx\ty\tMIDCount\nA\t1\t1\t0\n", "no molecule"),
        ("geneID\tx\ty\tMIDCount\nA\t1\t1\n", "cannot be read"),
        ("geneID\tx\ty\tMIDCount\n\t1\t1\t1\n", "no gene"),
        ("geneID\tx\ty\tMIDCount\nA\t1\t1\t1\nA\t99000000000\t1\t1\n", "too far out"),
        ("#BinSize=x\ngeneID\tx\ty\tMIDCount\nA\t1\t1\t1\n", "BinSize"),
        ("#BinSize=50\ngeneID\tx\ty\tMIDCount\nA\t1\t1\t1\n", "not multiples"),
        ("#BinSize=20\ngeneID\tx\ty\tMIDCount\nA\t20\t40\t1\n", "do not divide"),
    ],
)
def test_gem_problems(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.gem"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read(path)


def test_truncated_gzip(tmp_path: Path) -> None:
    path = write_gem(tmp_path / "a.gem.gz")
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(InputError, match=r"cut short|cannot be read"):
        read(path)
    path.write_bytes(gzip.compress(b"x")[:5])
    with pytest.raises(InputError, match="cannot be read"):
        read(path)


def _gene(column: str, value: int):
    def change(file: h5py.File) -> None:
        table = file["geneExp/bin1/gene"][:]
        table[column][0] = value
        file["geneExp/bin1/gene"][:] = table

    return change


def _no_fields(file: h5py.File) -> None:
    del file["geneExp/bin1/expression"]
    file["geneExp/bin1/expression"] = np.zeros(3, [("x", "<i4"), ("count", "<i4")])


def _fractions(file: h5py.File) -> None:
    old = file["geneExp/bin1/expression"][:]
    del file["geneExp/bin1/expression"]
    file["geneExp/bin1/expression"] = old.astype([("x", "<f4"), ("y", "<i4"), ("count", "<i4")])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_gene("offset", 1), "whole pieces"),
        (_gene("count", 1), "whole pieces"),
        (_no_fields, "misses the field y"),
        (_fractions, "not a whole number"),
        (lambda file: file["geneExp/bin1"].pop("gene"), "'gene'"),
        (lambda file: file["geneExp"].pop("bin1"), "holds no bins"),
        (lambda file: file.move("geneExp", "cellBin"), "holds cells"),
    ],
)
def test_gef_problems(tmp_path: Path, change, message: str) -> None:
    path = write_gef(tmp_path / "a.gef")
    with h5py.File(path, "a") as file:
        change(file)
    with pytest.raises(InputError, match=message):
        read(path)


def test_gef_cut_in_half(tmp_path: Path) -> None:
    path = write_gef(tmp_path / "a.gef")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError):
        read(path)


def test_other_files_are_not_recognized(tmp_path: Path) -> None:
    reader, options = reader_of("stereoseq"), IngestSection()
    (tmp_path / "counts.tsv").write_text("\tA\tB\n1x2\t1\t2\n")
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path, tmp_path / "counts.tsv", tmp_path / "b.txt"):
        assert reader.probe(SlideSource(slide_id="a", path=path), options) is None
    write_gem(tmp_path / "a.gem")
    write_gem(tmp_path / "b.gem")
    with pytest.raises(InputError, match="several Stereo-seq files"):
        reader.probe(SlideSource(slide_id="a", path=tmp_path), options)


def test_real_totals(data_dir: Path) -> None:
    _, raw = read(data_dir / "stereoseq_mini")
    (path,) = (data_dir / "stereoseq_mini").glob("*.gem.gz")
    frame = pd.read_csv(path, sep="\t")
    assert raw.counts.sum(dtype=np.int64) == frame["MIDCounts"].sum() == 131002
    assert raw.counts.shape == (36, frame["geneID"].nunique())
    dnbs = frame.rename(columns={"geneID": "name", "MIDCounts": "count"})
    assert found(raw) == expected(dnbs, 50)
