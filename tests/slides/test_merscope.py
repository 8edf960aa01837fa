from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from bundles.merscope import GENES, N_CELLS, some_cells, some_counts, some_ids, some_transcripts, write_merscope
from bundles.xenium import write_table

from stpatch.config import IngestSection
from stpatch.errors import InputError
from stpatch.slides.readers.registry import probe_source, reader_of
from stpatch.slides.slide import RawSlide
from stpatch.slides.source import Probe, SlideSource


def read(path: Path, **options: object) -> tuple[Probe, RawSlide]:
    source, section = SlideSource(slide_id="slide", path=path), IngestSection(**options)
    probe = reader_of("merscope").probe(source, section)
    assert probe is not None
    assert all(file.is_file() for file in probe.files)
    return probe, reader_of("merscope").read(source, section, probe)


@pytest.mark.parametrize("id_column", ["EntityID", "", "X", "cell"])
@pytest.mark.parametrize(("prefix", "suffix"), [("", ""), ("HumanOvarian_", ""), ("datasets_", "_S1R1")])
def test_every_variant_gives_the_same_slide(tmp_path: Path, id_column: str, prefix: str, suffix: str) -> None:
    write_merscope(tmp_path, prefix=prefix, suffix=suffix, id_column=id_column, order=[3, 0, 1, 2, 6, 5, 4])
    for path in (tmp_path, tmp_path / f"{prefix}cell_by_gene{suffix}.csv"):
        probe, raw = read(path)
    assert (probe.n_genes, raw.um_per_unit, raw.geometry) == (4, 1.0, "irregular")
    assert raw.spot_ids.tolist() == some_ids()
    np.testing.assert_array_equal(raw.counts.toarray(), some_counts()[GENES])
    np.testing.assert_array_equal(raw.xy, some_cells()[["center_x", "center_y"]])
    np.testing.assert_array_equal(raw.spots["area"], some_cells()["volume"])
    assert probe_source(SlideSource(slide_id="a", path=tmp_path), IngestSection()).platform == "merscope"


@pytest.mark.parametrize(("cells", "options"), [(True, {"bin_um": 10}), (False, {})])
def test_transcripts(tmp_path: Path, cells: bool, options: dict[str, float]) -> None:
    write_merscope(tmp_path, cells=cells, transcripts=True)
    probe, raw = read(tmp_path, **options)
    molecules = some_transcripts()
    bins = molecules.groupby([np.floor(molecules["global_y"] / 10), np.floor(molecules["global_x"] / 10)]).size()
    centres = dict(zip(map(tuple, raw.xy.tolist()), np.asarray(raw.counts.sum(axis=1)).ravel().tolist(), strict=True))
    assert centres == {(10 * column + 5, 10 * row + 5): n for (row, column), n in bins.items()}
    assert (probe.pitch_um, raw.pitch, raw.geometry) == (10, 10, "square")
    assert any("bin_um is not set" in note for note in raw.notes) is (not cells)


def test_cells_go_before_transcripts(tmp_path: Path) -> None:
    assert read(write_merscope(tmp_path, transcripts=True))[1].counts.shape == (N_CELLS, 4)


@pytest.mark.parametrize("newline", ["\r\n", "\n"])
@pytest.mark.parametrize("bom", [True, False])
def test_line_ends_and_byte_order_marks(tmp_path: Path, newline: str, bom: bool) -> None:
    write_merscope(tmp_path, transcripts=True)
    for path in tmp_path.iterdir():
        data = path.read_bytes().replace(b"\n", newline.encode())
        path.write_bytes((b"\xef\xbb\xbf" if bom else b"") + data)
    assert read(tmp_path)[1].counts.sum() == some_counts()[GENES].to_numpy().sum()
    assert read(tmp_path, bin_um=10)[1].counts.sum() == len(some_transcripts())


def _counts(change):
    return lambda folder: write_table(change(some_counts().astype(object)), folder / "cell_by_gene.csv")


def _cells(change):
    return lambda folder: write_table(change(some_cells().astype(object)), folder / "cell_metadata.csv")


def _set(name: str, value: object):
    def change(frame: pd.DataFrame) -> pd.DataFrame:
        frame.loc[3, name] = value
        return frame

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_counts(_set("PDK4", -1)), "negative"),
        (_counts(_set("PDK4", 0.5)), "fractional"),
        (_counts(_set("PDK4", "")), "missing"),
        (_counts(_set("PDK4", "x")), "not a number"),
        (_counts(_set("cell", "2317032900000100000")), "given twice"),
        (_counts(_set("cell", "2.3170329e+18")), "1 of 7 cells of the counts are not"),
        (_counts(lambda t: t.iloc[:0]), "no rows"),
        (_counts(lambda t: t[["cell"]]), "no column of counts"),
        (_cells(_set("center_x", "")), "not a finite number"),
        (_cells(_set("center_y", "inf")), "not a finite number"),
        (_cells(_set("volume", "large")), "not a finite number"),
        (_cells(_set("EntityID", "2317032900000100000")), "given twice"),
        (_cells(_set("EntityID", "")), "no id"),
        (_cells(lambda t: t.drop(columns="center_x")), "no column center_x"),
        (_cells(lambda t: t.drop(columns="EntityID")), "no column of ids"),
        (_cells(lambda t: t.assign(EntityID=range(7))), "no cell of the counts"),
        (_cells(lambda t: t.iloc[:5]), "2 of 7 cells of the counts are not"),
        (lambda folder: (folder / "cell_metadata.csv").unlink(), "incomplete"),
        (lambda folder: (folder / "cell_by_gene.csv").unlink(), "incomplete"),
        (lambda folder: write_merscope(folder, prefix="b_"), "several segmentations"),
    ],
)
def test_problems(tmp_path: Path, change, message: str) -> None:
    change(write_merscope(tmp_path))
    with pytest.raises(InputError, match=message):
        read(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="global_x"), "no column global_x"),
        (lambda t: t.assign(global_x=np.nan), "missing or no number"),
        (lambda t: t.assign(gene=""), "no gene"),
        (lambda t: t.iloc[:0], "no molecule is left"),
    ],
)
def test_transcript_problems(tmp_path: Path, change, message: str) -> None:
    write_table(change(some_transcripts()), write_merscope(tmp_path) / "detected_transcripts.csv")
    with pytest.raises(InputError, match=message):
        read(tmp_path, bin_um=10)


def test_bins_without_transcripts(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no molecule table"):
        read(write_merscope(tmp_path), bin_um=10)


def test_cells_without_counts_and_one_cell(tmp_path: Path) -> None:
    write_merscope(tmp_path)
    write_table(some_counts().iloc[2:3], tmp_path / "cell_by_gene.csv")
    _, raw = read(tmp_path)
    assert raw.counts.shape == (1, 4)
    assert raw.dropped == {"no counts": {"spots": 6, "counts": 0}}
    np.testing.assert_array_equal(raw.xy[0], some_cells()[["center_x", "center_y"]].iloc[2])


@pytest.mark.parametrize("name", ["merscope_vpt_smallset", "merscope_ovarian_tiny"])
def test_real_totals(data_dir: Path, name: str) -> None:
    _, raw = read(data_dir / name)
    (path,) = (data_dir / name).glob("*cell_by_gene.csv")
    frame = pd.read_csv(path, index_col=0, dtype={0: str})
    assert raw.counts.shape == frame.shape
    assert raw.counts.sum(dtype=np.int64) == frame.to_numpy().sum()
    (path,) = (data_dir / name).glob("*cell_metadata.csv")
    cells = pd.read_csv(path, dtype={0: str}).set_index(pd.read_csv(path, dtype=str).columns[0])
    np.testing.assert_allclose(raw.xy, cells.loc[raw.spot_ids, ["center_x", "center_y"]], rtol=1e-12)


def test_real_transcripts(data_dir: Path) -> None:
    frame = pd.read_csv(data_dir / "merscope_ovarian_patch" / "detected_transcripts.csv")
    _, raw = read(data_dir / "merscope_ovarian_patch")
    assert raw.counts.sum() == len(frame) == 15160
    assert raw.counts.shape == (
        len(frame.groupby([frame["global_x"] // 10, frame["global_y"] // 10])),
        frame["gene"].nunique(),
    )
