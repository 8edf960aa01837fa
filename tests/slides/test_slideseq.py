from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from bundles.slideseq import BARCODES, write_slideseq
from bundles.st import write_text

from stpatch.config import IngestSection
from stpatch.errors import InputError
from stpatch.slides.readers.slideseq import SlideSeqReader
from stpatch.slides.slide import RawSlide
from stpatch.slides.source import Probe, SlideSource


def read(path: Path, coordinates: Path | None = None, **options: object) -> tuple[Probe, RawSlide]:
    source, section = SlideSource(slide_id="s", path=path, coordinates=coordinates), IngestSection(**options)
    probe = SlideSeqReader().probe(source, section)
    assert probe is not None
    return probe, SlideSeqReader().read(source, section, probe)


@pytest.mark.parametrize("layout", ["mapped", "puck", "bare"])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_variants(tmp_path: Path, layout: str, suffix: str) -> None:
    folder = write_slideseq(tmp_path, layout=layout, suffix=suffix)
    probe, raw = read(folder)
    assert probe.n_spots == 4
    assert raw.spot_ids.tolist() == list(BARCODES)
    assert (raw.counts.toarray() == np.random.default_rng(1).poisson(1.0, (3, 4)).T + 1).all()
    assert raw.genes["name"].tolist() == ["Actb", "Sntg1", "Gad1"]
    assert raw.xy.tolist() == [[100.5 * i, 7.25 * i] for i in range(4)]
    assert raw.um_per_unit == 0.65
    assert "0.65" in raw.notes[0]
    assert (read(probe.files[0])[1].counts != raw.counts).nnz == 0


def test_um_per_pixel_comes_from_the_config(tmp_path: Path) -> None:
    _, raw = read(write_slideseq(tmp_path), um_per_unit=0.5, pitch_um=10)
    assert (raw.um_per_unit, raw.pitch, raw.notes) == (0.5, 20, ())


def test_beads_without_location_are_counted(tmp_path: Path) -> None:
    _, raw = read(write_slideseq(tmp_path, lost=1))
    assert raw.counts.shape == (3, 3)
    assert raw.dropped["no_coordinates"]["spots"] == 1
    full = np.random.default_rng(1).poisson(1.0, (3, 4)) + 1
    assert raw.dropped["no_coordinates"]["counts"] == full[:, 0].sum()


def test_locations_of_another_puck(tmp_path: Path) -> None:
    folder = write_slideseq(tmp_path)
    other = write_text(tmp_path / "other" / "b.csv", "barcodes,xcoord,ycoord\nGGGGGGGGGGGGGG,1,2\n")
    with pytest.raises(InputError, match="different pucks"):
        read(folder, other)


@pytest.mark.parametrize(
    ("file", "old", "new", "expected"),
    [
        ("BeadLocationsForR.csv", "barcodes", "Barcodes", []),
        ("BeadLocationsForR.csv", "xcoord", "column", ["no table of bead locations"]),
        ("BeadLocationsForR.csv", "100.5", "nan", ["not a finite number", "row 4", "xcoord"]),
        ("BeadLocationsForR.csv", "TTGGACGTTTCAAT", "ACGTACGTACGTAC", ["given twice"]),
        ("MappedDGEForR.csv", '"TTGGACGTTTCAAT"', '"ACGTACGTACGTAC"', ["given twice"]),
        ("MappedDGEForR.csv", '"Sntg1",', '"Sntg1",-', ["negative", "row 3"]),
        ("MappedDGEForR.csv", '"Sntg1",', '"Sntg1",1,', ["number of cells", "row 3"]),
    ],
)
def test_faults_are_named(tmp_path: Path, file: str, old: str, new: str, expected: list[str]) -> None:
    target = write_slideseq(tmp_path) / file
    text = target.read_bytes().decode()
    assert old in text
    target.write_bytes(text.replace(old, new, 1).encode())
    if not expected:
        read(tmp_path)
        return
    with pytest.raises(InputError) as error:
        read(tmp_path)
    for words in expected:
        assert words in str(error.value)


def test_two_tables_in_a_folder(tmp_path: Path) -> None:
    write_slideseq(tmp_path)
    write_slideseq(tmp_path, layout="puck")
    with pytest.raises(InputError, match="several tables of genes by beads"):
        read(tmp_path)


def test_visium_barcodes_are_not_beads(tmp_path: Path) -> None:
    path = write_text(tmp_path / "t.txt", "AAAGGGATGTAGCAAG-1 AAATGGCATGTCTTGT-1\nGna12 1 2\n")
    assert SlideSeqReader().probe(SlideSource(slide_id="s", path=path), IngestSection()) is None


def test_real_puck_equals_pandas(data_dir: Path) -> None:
    _, raw = read(data_dir / "slideseq_mini")
    frame = pd.read_csv(data_dir / "slideseq_mini" / "MappedDGEForR.csv", index_col=0)
    places = pd.read_csv(data_dir / "slideseq_mini" / "BeadLocationsForR.csv", index_col=0)
    assert (raw.counts.toarray() == frame.to_numpy().T).all()
    np.testing.assert_array_equal(raw.xy, places.loc[raw.spot_ids].to_numpy())
