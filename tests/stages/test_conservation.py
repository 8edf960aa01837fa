"""Nothing is lost: the patches of real slides hold every count of their in-tissue spots, once."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import numcodecs.blosc
import numpy as np
import pandas as pd
import pytest
import yaml
from commands import built

SECTIONS = ("A1", "B2", "D1")
SETTINGS: dict[str, Any] = {
    "channels": {"scope": "panel", "method": "all"},
    "crop": {"size": [16, 16], "method": "tiles", "min_coverage": 0, "edge": "pad"},
    "shards": {"values": "counts", "patches": 4},
    "run": {"workers": 1},
}


def input_table(data_dir: Path, section: str) -> pd.DataFrame:
    """Return (spots, genes) counts of the selected spots, by pandas alone."""
    folder = data_dir / "her2st"
    with gzip.open(folder / "ST-cnts" / f"{section}.tsv.gz") as file:
        counts = pd.read_csv(file, sep="\t", index_col=0)
    spots = pd.read_csv(folder / "ST-spotfiles" / f"{section}_selection.tsv", sep="\t")
    chosen = spots[spots["selected"] == 1]
    names = {f"{x}x{y}" for x, y in zip(chosen["x"], chosen["y"], strict=True)}
    return counts[[name in names for name in counts.index]]


def sums_of(dataset: Path) -> tuple[Counter[str], Counter[str], Counter[str]]:
    """Return sums of x, of totals, and of n_spots by slide; read with tarfile, NumPy and numcodecs alone."""
    manifest = json.loads((dataset / "manifest.json").read_text())
    shape, dtype = manifest["tensor"]["shape"], manifest["tensor"]["dtype"]
    counts, totals, spots = Counter[str](), Counter[str](), Counter[str]()
    for path in sorted(dataset.rglob("*.tar")):
        members: dict[str, dict[str, bytes]] = {}
        with tarfile.open(path) as tar:
            for member in tar:
                key, _, field = member.name.partition(".")
                file = tar.extractfile(member)
                assert file is not None
                members.setdefault(key, {})[field] = file.read()
        for parts in members.values():
            meta = json.loads(parts["meta.json"])
            x = np.frombuffer(numcodecs.blosc.decompress(parts["x.blosc"]), dtype).reshape(shape)
            counts[meta["slide_id"]] += int(x.sum(dtype=np.int64))
            pixels = np.load(io.BytesIO(parts["totals.npy"]))
            totals[meta["slide_id"]] += int(pixels.sum(dtype=np.float64))
            np.testing.assert_array_equal(x.sum(axis=0, dtype=np.int64), pixels)
            spots[meta["slide_id"]] += meta["n_spots"]
    return counts, totals, spots


def test_patches_hold_every_count_once(data_dir: Path, tmp_path: Path) -> None:
    entries = [
        {"slide_id": section, "path": str(data_dir / "her2st" / "ST-cnts" / f"{section}.tsv.gz")}
        for section in SECTIONS
    ]
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"dataset": {"output": "out"}, "slides": entries, **SETTINGS}))
    built("build", config, "-q")
    counts, totals, spots = sums_of(tmp_path / "out")
    assert set(counts) == set(SECTIONS)
    slides = pd.read_parquet(tmp_path / "out" / "slides.parquet").set_index("slide_id")
    for section in SECTIONS:
        table = input_table(data_dir, section)
        empty = int((table.sum(axis=1) == 0).sum())
        total = int(table.to_numpy().sum())
        assert counts[section] == totals[section] == total
        assert spots[section] == len(table) - empty == slides.loc[section, "spots"]
        record = json.loads(slides.loc[section, "qc"])
        assert record["counts_kept"] == total


@pytest.mark.parametrize("collisions", ["sum", "first"])
def test_collisions_lose_nothing_or_say_what(data_dir: Path, tmp_path: Path, collisions: str) -> None:
    path = data_dir / "her2st" / "ST-cnts" / "C1.tsv.gz"
    settings = {**SETTINGS, "grid": {"method": "fit", "size": 12, "collisions": collisions}}
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"dataset": {"output": "out"}, "slides": [str(path)], **settings}))
    built("build", config, "-q")
    counts, _, spots = sums_of(tmp_path / "out")
    table = input_table(data_dir, "C1")
    (row,) = pd.read_parquet(tmp_path / "out" / "slides.parquet").to_dict("records")
    grid = json.loads(row["qc"])["grid"]
    assert grid["collisions"] > 0
    if collisions == "sum":
        assert counts["C1"] == int(table.to_numpy().sum())
        assert spots["C1"] == len(table)
    else:
        assert spots["C1"] == len(table) - grid["dropped_spots"]
        assert counts["C1"] < int(table.to_numpy().sum())


def test_smaller_tiles_hold_every_count_too(data_dir: Path, tmp_path: Path) -> None:
    path = data_dir / "her2st" / "ST-cnts" / "C2.tsv.gz"
    settings = {**SETTINGS, "crop": {**SETTINGS["crop"], "size": [8, 8], "stride": 8}}
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"dataset": {"output": "out"}, "slides": [str(path)], **settings}))
    built("build", config, "-q")
    small, _, _ = sums_of(tmp_path / "out")
    assert small["C2"] == int(input_table(data_dir, "C2").to_numpy().sum())
