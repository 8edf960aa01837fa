"""What check tells of places and sections, build does; one file serves many rows of the samplesheet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from bundles.h5ad import make_anndata, write_anndata
from bundles.lattices import joined, square_anndata
from commands import built, stpatch

from stpatch.dataset.opening import open_dataset


def write_config(folder: Path, rows: list[dict[str, Any]], **sections: Any) -> Path:
    """Write a samplesheet and a config of small patches over it."""
    pd.DataFrame(rows).to_csv(folder / "slides.csv", index=False)
    config = {
        "dataset": {"output": "out"},
        "slides": {"sheet": "slides.csv"},
        "channels": {"scope": "panel", "method": "all"},
        "crop": {"size": [4, 4], "min_coverage": 0.0, "min_spots": 1},
        "split": {"by": "slide_id", "fractions": {"train": 1.0}},
        "run": {"workers": 1},
        **sections,
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def joined_file(folder: Path) -> Any:
    slides = [make_anndata(rows=6, columns=6, seed=seed) for seed in (0, 1)]
    whole = joined(*slides, column="library_key")
    write_anndata(folder / "all.h5ad", whole)
    return whole


def test_one_file_serves_two_slides(tmp_path: Path) -> None:
    whole = joined_file(tmp_path)
    rows = [{"slide_id": name, "path": "all.h5ad", "select.library_key": name} for name in ("A", "B")]
    config = write_config(tmp_path, rows)
    assert "note: slide B: 36 of 72 rows have library_key = B" in built("check", config).out
    assert "note: slide B: 36 of 72 rows have library_key = B" in built("build", config).err
    slides = pd.read_parquet(tmp_path / "out" / "slides.parquet").set_index("slide_id")
    qc = {name: yaml.safe_load(slides.loc[name, "qc"])["counts_kept"] for name in ("A", "B")}
    assert qc == {"A": int(whole.X[:36].sum()), "B": int(whole.X[36:].sum())}


def test_what_check_refuses_build_refuses_in_the_same_words(tmp_path: Path) -> None:
    joined_file(tmp_path)
    config = write_config(tmp_path, [{"slide_id": "s", "path": "all.h5ad"}])
    checked, done = stpatch("check", config), stpatch("build", config)
    for text in (checked.err, done.err):
        assert "several sections lie over one another" in text
        assert "library_key: A (36 spots), B (36 spots)" in text
    assert (checked.code, done.code) == (2, 2)


@pytest.mark.parametrize(
    ("grid", "message"),
    [({}, "grid.method lattice needs a lattice"), ({"method": "um", "pitch_um": 10.0}, "needs micrometres")],
)
def test_check_tells_of_a_grid_that_the_slide_cannot_have(tmp_path: Path, grid: dict[str, Any], message: str) -> None:
    slide = make_anndata(visium=False)
    slide.obsm["spatial"] = np.random.default_rng(0).random((20, 2)) * 100
    write_anndata(tmp_path / "a.h5ad", slide)
    config = write_config(tmp_path, [{"slide_id": "s", "path": "a.h5ad", "um_per_unit": ""}], grid=grid)
    assert message in stpatch("check", config).err
    assert message in stpatch("build", config).err
    config = write_config(
        tmp_path,
        [{"slide_id": "s", "path": "a.h5ad", "um_per_unit": "0.5"}],
        grid={"method": "um", "pitch_um": 10.0},
    )
    built("check", config)
    built("build", config)


@pytest.mark.parametrize("hexagonal", [True, False])
def test_coordinates_alone_give_one_spot_a_pixel(tmp_path: Path, *, hexagonal: bool) -> None:
    slide = make_anndata(rows=8, columns=8) if hexagonal else square_anndata(8, 8)
    slide.obs = slide.obs.drop(columns=["array_row", "array_col"])
    write_anndata(tmp_path / "a.h5ad", slide)
    config = write_config(tmp_path, [{"slide_id": "s", "path": "a.h5ad", "pitch_um": 100}], crop={"unit": "slide"})
    out = built("check", config).out
    assert f"array indices are from the coordinates: a {'hexagonal' if hexagonal else 'square'} lattice" in out
    built("build", config)
    totals = open_dataset(tmp_path / "out", "train")[0].totals
    assert totals.shape == (8, 8)
    assert (totals > 0).all()
    slides = pd.read_parquet(tmp_path / "out" / "slides.parquet")
    assert yaml.safe_load(slides["qc"][0])["grid"] == {"collisions": 0, "dropped_spots": 0}
    assert slides["pitch_um"][0] == pytest.approx(100)
