"""A folder as it was downloaded becomes a samplesheet and a config that build; miniatures of public corpora."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from bundles.built import poisson_counts, square, write_counts
from bundles.st import write_st
from bundles.visium import write_visium
from commands import built, stpatch

N = 6


def rows_of(config: Path) -> dict[str, dict[str, str]]:
    with config.with_name(f"{config.stem}.slides.csv").open(newline="") as file:
        return {row["slide_id"]: row for row in csv.DictReader(file)}


def init(folder: Path, where: Path | str) -> dict[str, dict[str, str]]:
    built("init", folder / "c.yaml", "--from", where)
    return rows_of(folder / "c.yaml")


def totals(folder: Path) -> dict[str, int]:
    table = pd.read_parquet(folder / "slides.parquet")
    return {row.slide_id: json.loads(row.qc)["counts_kept"] for row in table.itertuples()}


def splits(folder: Path) -> dict[str, str]:
    table = pd.read_parquet(folder / "slides.parquet")
    return dict(zip(table["slide_id"], table["split"], strict=True))


def build(config: Path, *more: str) -> Path:
    small = ["--set", "crop.size=[4, 4]", "--set", "crop.min_coverage=0", "--set", "channels.n=5", *more]
    built("check", config, "-q", *small)
    built("build", config, "-q", "--workers", "1", *small)
    return config.parent / "out" / config.stem


def hest(root: Path) -> dict[str, int]:
    """Write a HEST-1k download: st/<id>.h5ad and a metadata table whose patients have two slides each."""
    sums, lines = {}, ["id,species,organ,patient,pixel_size_um_estimated"]
    for i in range(N):
        counts = poisson_counts(64, 15, seed=i)
        write_counts(root / "st" / f"TENX{i}.h5ad", counts, array=square(8, 8))
        sums[f"TENX{i}"] = int(counts.sum())
        lines.append(f"TENX{i},Homo sapiens,Breast,P{i // 2},0.27")
    (root / "HEST_v1_1_0.csv").write_text("\n".join([*lines, "TENX99,Mus musculus,Brain,P9,0.5"]) + "\n")
    (root / "wsis").mkdir()
    (root / "wsis" / "TENX0.tif").write_bytes(b"no counts")
    return sums


def test_hest(tmp_path: Path) -> None:
    sums = hest(tmp_path / "hest")
    rows = init(tmp_path, tmp_path / "hest")
    assert set(rows) == set(sums)
    assert {row["organism"] for row in rows.values()} == {"human"}
    assert rows["TENX3"]["patient"] == "P1"
    assert rows["TENX3"]["pixel_size_um_estimated"] == "0.27"
    assert rows["TENX3"]["path"] == "hest/st/TENX3.h5ad"
    out = build(tmp_path / "c.yaml")
    assert totals(out) == sums
    dealt = splits(out)
    assert all(dealt[f"TENX{2 * i}"] == dealt[f"TENX{2 * i + 1}"] for i in range(N // 2))
    assert len(set(dealt.values())) == 3


def test_cellxgene(tmp_path: Path) -> None:
    sums = {}
    for i in range(4):
        counts, name = poisson_counts(64, 30, seed=i), f"0f3c-{i}"
        obs = {
            "donor_id": [f"D{i // 2}"] * 64,
            "organism": ["Homo sapiens"] * 64,
            "cluster": [str(k % 3) for k in range(64)],
        }
        ids = [f"ENSG{k:011d}" for k in range(30)]
        write_counts(tmp_path / "cxg" / f"{name}.h5ad", counts, array=square(8, 8), genes=ids, obs=obs)
        sums[name] = int(counts.sum())
    rows = init(tmp_path, f"{tmp_path}/cxg/*.h5ad")
    assert {row["donor_id"] for row in rows.values()} == {"D0", "D1"}
    assert {row["organism"] for row in rows.values()} == {"human"}
    assert "cluster" not in rows["0f3c-0"]
    out = build(tmp_path / "c.yaml", "--set", "split.fractions={train: 0.5, val: 0.5}")
    assert totals(out) == sums
    dealt = splits(out)
    assert dealt["0f3c-0"] == dealt["0f3c-1"] != dealt["0f3c-2"]


def test_stimage(tmp_path: Path) -> None:
    sums = {}
    for i in range(3):
        counts, root = poisson_counts(64, 15, seed=i), tmp_path / "ST"
        names = [f"s{k}" for k in range(64)]
        for part, frame in (
            ("gene_exp", pd.DataFrame(counts, index=names, columns=[f"G{k}" for k in range(15)])),
            ("coord", pd.DataFrame(square(8, 8) * 40.0, index=names, columns=["yaxis", "xaxis"]).assign(r=12.5)),
        ):
            (root / part).mkdir(parents=True, exist_ok=True)
            ending = "count" if part == "gene_exp" else "coord"
            frame.to_csv(root / part / f"Human_Breast_{i}_{ending}.csv")
        sums[f"Human_Breast_{i}"] = int(counts.sum())
    rows = init(tmp_path, tmp_path / "ST")
    assert rows["Human_Breast_1"]["coordinates"] == "ST/coord/Human_Breast_1_coord.csv"
    assert totals(build(tmp_path / "c.yaml")) == sums


def test_outs_of_a_lab(tmp_path: Path) -> None:
    for i, sample in enumerate(["mouse1_left", "mouse1_right", "mouse2"]):
        write_visium(tmp_path / "runs" / sample / "outs", rows=7, columns=6, seed=i, matrix=["h5", "mex"][i % 2])
    (tmp_path / "runs" / "samples.tsv").write_text("sample\tmouse\nmouse1_left\tm1\nmouse1_right\tm1\nmouse2\tm2\n")
    rows = init(tmp_path, tmp_path / "runs")
    assert {name: (row["path"], row["mouse"]) for name, row in rows.items()} == {
        "mouse1_left": ("runs/mouse1_left", "m1"),
        "mouse1_right": ("runs/mouse1_right", "m1"),
        "mouse2": ("runs/mouse2", "m2"),
    }
    dealt = splits(build(tmp_path / "c.yaml", "--set", "split.fractions={train: 0.5, val: 0.5}"))
    assert dealt["mouse1_left"] == dealt["mouse1_right"] != dealt["mouse2"]


def test_legacy_st_with_labels(tmp_path: Path) -> None:
    for name in ("A1", "B1"):
        write_st(tmp_path / "her2st", name=name, size=(6, 7))
    labels = tmp_path / "her2st" / "ST-pat" / "lbl" / "A1_labeled_coordinates.tsv"
    labels.parent.mkdir(parents=True)
    labels.write_text("x\ty\tlabel\n2.013\t2.987\ttumour\n")
    rows = init(tmp_path, tmp_path / "her2st")
    assert {name: row["labels"] for name, row in rows.items()} == {
        "A1": "her2st/ST-pat/lbl/A1_labeled_coordinates.tsv",
        "B1": "",
    }
    assert "A1" in stpatch("check", tmp_path / "c.yaml", "-q").out


def test_names_that_repeat_take_their_folders(tmp_path: Path) -> None:
    for i, run in enumerate("ab"):
        write_counts(tmp_path / "d" / run / "slide.h5ad", poisson_counts(64, 15, seed=i), array=square(8, 8))
    assert set(init(tmp_path, tmp_path / "d")) == {"a_slide", "b_slide"}


def _nothing(folder: Path) -> str:
    (folder / "d").mkdir()
    return str(folder / "d")


def _images(folder: Path) -> str:
    (folder / "d").mkdir()
    (folder / "d" / "a.tif").write_bytes(b"x")
    return str(folder / "d")


@pytest.mark.parametrize(
    "make", [_nothing, _images, lambda folder: str(folder / "none"), lambda folder: f"{folder}/*.h5ad"]
)
def test_where_no_slide_is_nothing_is_written(tmp_path: Path, make: Any) -> None:
    done = stpatch("init", tmp_path / "c.yaml", "--from", make(tmp_path))
    assert done.code == 2
    assert "--from" in done.err
    assert not list(tmp_path.glob("c.*"))


def test_what_is_there_is_not_written_over(tmp_path: Path) -> None:
    write_counts(tmp_path / "a.h5ad", poisson_counts(64, 15), array=square(8, 8))
    (tmp_path / "c.slides.csv").write_text("mine")
    done = stpatch("init", tmp_path / "c.yaml", "--from", tmp_path / "a.h5ad")
    assert done.code == 2
    assert (tmp_path / "c.slides.csv").read_text() == "mine"
    assert not (tmp_path / "c.yaml").exists()


def test_the_order_of_spots_and_files_is_no_part_of_it(tmp_path: Path) -> None:
    assert np.array_equal(sorted(hest(tmp_path / "hest")), sorted(init(tmp_path, tmp_path / "hest")))
