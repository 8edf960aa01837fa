from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from bundles.st import GENES, counts_of, write_st, write_text

from stpatch.config import IngestSection
from stpatch.errors import InputError
from stpatch.slides.readers.st import StReader
from stpatch.slides.slide import RawSlide
from stpatch.slides.source import Probe, SlideSource

HER2ST = {
    "A1": (346, 15045, 1553744), "A2": (325, 15526, 2617254), "A3": (359, 15517, 2558270),
    "B1": (295, 15109, 1056954), "B2": (270, 15290, 1098676), "B3": (298, 15215, 898866),
    "C1": (176, 15557, 1660052), "C2": (187, 15706, 1926633), "C3": (180, 15821, 2033498),
    "D1": (306, 15661, 2539708), "D2": (303, 15396, 1664473), "D3": (301, 15529, 1962385),
}  # fmt: skip

ASSUMED = (
    "200 um between spots are assumed, as on the first ST arrays: nothing in the files tells it; set pitch_um (as "
    "ingest key or samplesheet column) where the chip has another (DBiT-seq: 10 to 50)"
)


def read(path: Path, coordinates: Path | None = None, **options: object) -> tuple[Probe, RawSlide]:
    source = SlideSource(slide_id="s", path=path, coordinates=coordinates)
    section = IngestSection(**options)
    probe = StReader().probe(source, section)
    assert probe is not None
    return probe, StReader().read(source, section, probe)


@pytest.mark.parametrize("layout", ["her2st", "flat", "bare"])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(("separator", "id_name"), [("x", ""), ("_", "spot")])
def test_variants(tmp_path: Path, layout: str, transposed: bool, separator: str, id_name: str) -> None:
    path = write_st(tmp_path, layout=layout, transposed=transposed, separator=separator, id_name=id_name)
    probe, raw = read(path)
    assert (raw.counts.toarray() == counts_of(20)).all()
    assert probe.n_genes == (None if transposed else len(GENES))
    assert probe.n_spots == (20 if transposed else None)
    assert raw.genes["name"].tolist() == ["ACTB", "", "TP53", "__ambiguous[A+B]", "MT-CO1"]
    assert raw.genes["ensembl_id"][1] == GENES[1]
    assert raw.geometry == "square"
    x, y = np.array([name.split(separator) for name in raw.spot_ids], dtype=float).T
    assert raw.array is not None
    assert (raw.array == np.column_stack([y, x])).all()
    if layout == "bare":
        assert probe.unit == "array"
        assert len(probe.files) == 1
        assert (raw.xy == np.column_stack([x, y])).all()
        assert (raw.pitch, raw.um_per_unit) == (pytest.approx(1), pytest.approx(200))
        assert "no spots table" in raw.notes[0]
    else:
        assert probe.unit == "px"
        assert probe.pitch_um == 200
        np.testing.assert_allclose(raw.xy, np.column_stack([x * 250 + 7, y * 250 + 11]))
        assert (raw.pitch, raw.um_per_unit) == (pytest.approx(250), pytest.approx(0.8))
        assert raw.notes == (ASSUMED,)
    assert raw.spots["in_tissue"].all()


def test_spots_without_a_row_are_outside_tissue_and_placed_by_the_others(tmp_path: Path) -> None:
    _, raw = read(write_st(tmp_path, left_out=3, unselected=2))
    assert raw.spots["in_tissue"].tolist() == [False] * 5 + [True] * 15
    np.testing.assert_allclose(raw.xy[0], [2 * 250 + 7, 3 * 250 + 11])
    assert raw.notes == ("3 spots are not in A1_selection.tsv: outside tissue", ASSUMED)


def test_spots_table_of_a_folder_with_counts_of_its_own_is_left_alone(tmp_path: Path) -> None:
    path = write_st(tmp_path / "one", layout="bare")
    write_st(tmp_path / "two", layout="flat")
    assert len(read(path)[0].files) == 1


def test_adjusted_names_are_rounded_and_kept(tmp_path: Path) -> None:
    _, raw = read(write_st(tmp_path, layout="bare", adjusted=True))
    assert raw.array is not None
    assert raw.array[0].tolist() == [3, 2]
    assert raw.xy[0].tolist() == [2.013, 2.987]
    assert "rounded" in raw.notes[0]


def test_adjusted_names_find_their_spots_table(tmp_path: Path) -> None:
    _, raw = read(write_st(tmp_path, adjusted=True))
    np.testing.assert_allclose(raw.xy[0], [2 * 250 + 7, 3 * 250 + 11])
    assert raw.spots["in_tissue"].all()


def test_adjusted_names_that_round_to_one_index_are_counted(tmp_path: Path) -> None:
    path = write_text(tmp_path / "a.tsv", "\ta\tb\n1.1x1\t1\t2\n0.9x1\t1\t0\n2x1\t0\t1\n2x2\t0\t1\n")
    _, raw = read(path)
    assert "1 spots share the index" in raw.notes[0]


def test_checkerboard_pitch_is_unknown_until_told(tmp_path: Path) -> None:
    path = write_st(tmp_path, checkerboard=True)
    probe, raw = read(path)
    assert probe.pitch_um is None
    assert raw.um_per_unit is None
    assert raw.pitch == pytest.approx(250 * 2**0.5)
    assert "checkerboard" in raw.notes[0]
    _, told = read(path, pitch_um=141.4)
    assert told.um_per_unit == pytest.approx(141.4 / (250 * 2**0.5))
    assert read(path, um_per_unit=0.4)[1].um_per_unit == 0.4


def test_folder_with_one_counts_table(tmp_path: Path) -> None:
    path = write_st(tmp_path, layout="flat")
    assert read(tmp_path)[0].files == (path, tmp_path / "spots_A1.csv")
    write_st(tmp_path, layout="bare", name="B1")
    with pytest.raises(InputError, match=r"several ST counts tables[\s\S]*A1.tsv, B1.tsv"):
        read(tmp_path)


def test_named_spots_table_wins(tmp_path: Path) -> None:
    path = write_st(tmp_path / "a", layout="bare")
    write_st(tmp_path / "b", name="other")
    _, raw = read(path, tmp_path / "b" / "ST-spotfiles" / "other_selection.tsv")
    assert raw.xy[0].tolist() == [507, 761]


def test_spots_table_must_bear_the_slides_name_as_a_word(tmp_path: Path) -> None:
    path = write_st(tmp_path)
    (tmp_path / "ST-spotfiles" / "A1_selection.tsv").rename(tmp_path / "ST-spotfiles" / "A11_selection.tsv")
    assert len(read(path)[0].files) == 1


def test_spots_tables_that_differ_are_an_error(tmp_path: Path) -> None:
    path = write_st(tmp_path)
    spots = tmp_path / "ST-spotfiles" / "A1_selection.tsv"
    text = spots.read_text()
    twin = write_text(tmp_path / "old" / "A1-selection.tsv", text)
    assert read(path)[0].files[1] == spots
    twin.write_text(text.replace("\t1\n", "\t0\n", 1))
    with pytest.raises(InputError, match="several spots tables"):
        read(path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("label.csv", "id,x,y\na,1,2\n"),
        ("cells.tsv", "cell\tA\tB\n1\t2\t3\n"),
        ("names.tsv", "10x10\t10x11\n"),
        ("both.tsv", "\t10x10\t10x11\n10x10\t1\t1\n"),
        ("words.tsv", "\tA\tB\n10x10\tone\ttwo\n"),
        ("empty.tsv", ""),
        ("binary.tsv", "\0\0\0\n\0"),
    ],
)
def test_other_files_are_not_recognized(tmp_path: Path, name: str, content: str) -> None:
    path = write_text(tmp_path / name, content)
    for place in (path, tmp_path):
        assert StReader().probe(SlideSource(slide_id="s", path=place), IngestSection()) is None


def replaced(folder: Path, file: str, old: str, new: str) -> Path:
    path = write_st(folder, layout="flat")
    target = folder / file
    text = target.read_text()
    assert old in text
    target.write_text(text.replace(old, new, 1))
    return path


@pytest.mark.parametrize(
    ("file", "old", "new", "expected"),
    [
        ("spots_A1.csv", "2,3,507,761", "2,3,nan,761", ["not a finite number", "row 2", "pixel_x"]),
        ("spots_A1.csv", "2,3,507,761", "2,3,inf,761", ["not a finite number", "pixel_x"]),
        ("spots_A1.csv", "2,3,507,761", "2,3,507,1e300", ["larger than any slide", "pixel_y"]),
        ("spots_A1.csv", "2,3,507,761", "2,3,left,761", ["not a finite number", "'left'"]),
        ("spots_A1.csv", "2,3,507,761", "2,4,507,761", ["place is given twice"]),
        ("spots_A1.csv", "2,3,507,761", "2,9223372036854775808,507,761", ["far from any array", "row 2"]),
        ("spots_A1.csv", "2,3,507,761", "2,3,507", ["read", "spots_A1.csv"]),
        ("A1.tsv", "2x4", "2x3", ["given twice", "'2x3'"]),
        ("A1.tsv", "2x4", "spot7", ["not named for its place", "row 3", "'spot7'"]),
        ("A1.tsv", "\n2x4\t", "\n2x4\t-", ["negative", "row 3", "ACTB"]),
        ("A1.tsv", "\n2x4\t", "\n2x4\t0.", ["fractional"]),
        ("A1.tsv", "\n2x4\t", "\n2x4\tx", ["not a number", "row 3"]),
        ("A1.tsv", "\n2x4\t", "\n2x4\t1\t", ["number of cells", "row 3"]),
    ],
)
def test_faults_are_named(tmp_path: Path, file: str, old: str, new: str, expected: list[str]) -> None:
    path = replaced(tmp_path, file, old, new)
    with pytest.raises(InputError) as error:
        read(path)
    for words in expected:
        assert words in str(error.value)


def test_spots_table_of_another_slide(tmp_path: Path) -> None:
    path = write_st(tmp_path / "a", layout="bare")
    other = write_text(tmp_path / "b.csv", "x,y,pixel_x,pixel_y\n50,50,1,1\n51,50,2,1\n")
    with pytest.raises(InputError, match="belongs to another slide"):
        read(path, other)
    rng = np.random.default_rng(0)
    rows = [f"{x},{y},{rng.uniform(0, 1000)},{rng.uniform(0, 1000)}" for x in range(2, 7) for y in range(3, 7)]
    other.write_text("\n".join(["x,y,pixel_x,pixel_y", *rows]) + "\n")
    with pytest.raises(InputError, match="do not follow the array"):
        read(path, other)
    other.write_text("10,20\n30,40\n")
    with pytest.raises(InputError, match="no columns x and y"):
        read(path, other)
    with pytest.raises(InputError, match="no such spots table"):
        read(path, tmp_path / "none.csv")


def test_one_spot(tmp_path: Path) -> None:
    _, raw = read(write_st(tmp_path, size=(1, 1)))
    assert raw.counts.shape == (1, len(GENES))
    assert raw.pitch is None
    assert raw.um_per_unit is None


@pytest.mark.parametrize("section", HER2ST)
def test_her2st_totals(data_dir: Path, section: str) -> None:
    path = data_dir / "her2st" / "ST-cnts" / f"{section}.tsv.gz"
    probe, raw = read(path)
    assert (*raw.counts.shape, int(raw.counts.sum(dtype=np.int64))) == HER2ST[section]
    assert probe.files[1].name == f"{section}_selection.tsv"
    assert raw.spots["in_tissue"].all()
    assert raw.um_per_unit is not None
    assert raw.pitch is not None
    assert raw.um_per_unit * raw.pitch == pytest.approx(200)


@pytest.mark.parametrize(("section", "selected"), [("Hippo1", 1098), ("Hippo2", 1184)])
def test_hippocampus_equals_pandas(data_dir: Path, section: str, selected: int) -> None:
    path = data_dir / "st_mouse_hippocampus" / f"{section}.tsv.gz"
    probe, raw = read(path)
    frame = pd.read_csv(path, sep="\t", index_col=0)
    assert raw.counts.shape == frame.shape
    assert (raw.counts.toarray() == frame.to_numpy()).all()
    assert int(raw.spots["in_tissue"].sum()) == selected
    assert raw.genes["ensembl_id"].ne("").all()
    assert probe.pitch_um is None
    assert np.isfinite(raw.xy).all()


def test_breast_layer_is_placed_by_its_names(data_dir: Path) -> None:
    _, raw = read(data_dir / "st_breast_layer1_csv")
    places = np.loadtxt(data_dir / "st_breast_layer1_csv" / "slice1_coor.csv", delimiter=",")
    frame = pd.read_csv(data_dir / "st_breast_layer1_csv" / "slice1.csv", index_col=0)
    assert int(raw.counts.sum(dtype=np.int64)) == int(frame.to_numpy().sum())
    np.testing.assert_allclose(raw.xy, places, atol=1e-9)
    assert len(np.unique(raw.array, axis=0)) == len(places)
