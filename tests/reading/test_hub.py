"""Hugging Face datasets reads every config that the card names, streaming and not."""

from __future__ import annotations

import numpy as np
import pytest
import yaml
from bundles.dataset import make_sample, write_dataset
from bundles.hub import keep_to_itself

from stpatch.registry import ENCODINGS, FORMATS

KINDS = [
    (format_, encoding, variable)
    for format_ in FORMATS.own()
    if not FORMATS.get(format_).whole_slides  # which the writers of single samples do not write
    for encoding in ENCODINGS.own()
    for variable in (False, True)
]


@pytest.mark.parametrize("streaming", [True, False], ids=["streaming", "whole"])
@pytest.mark.parametrize(("format_", "encoding", "variable"), KINDS)
def test_every_config_of_the_card_loads(format_, encoding, variable, streaming, tmp_path, monkeypatch):
    datasets = keep_to_itself(tmp_path / "cache", monkeypatch)
    folder = tmp_path / "tiny"
    manifest = write_dataset(folder, format=format_, encoding=encoding, variable=variable)
    front = yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])
    named = {config["config_name"]: config["data_files"] for config in front["configs"]}
    assert set(datasets.get_dataset_config_names(str(folder))) == set(named)
    for name, files in named.items():
        loaded = datasets.load_dataset(str(folder), name, streaming=streaming)
        assert set(loaded) == {part["split"] for part in files}
        rows = {split: list(part) for split, part in loaded.items()}
        if name == "default":
            assert {split: len(part) for split, part in rows.items()} == {"train": 6, "val": 1}
            check_samples(rows["train"], manifest)
        else:
            assert len(rows[name]) == {"patches": 7, "slides": 2, "genes": 9}[name]


def check_samples(rows, manifest):
    x, totals, genes = manifest.layout.planes[:3]
    for number, row in enumerate(rows):
        made = make_sample(number, manifest.layout, slide_id=f"s{1 + number % 2}")
        assert row["__key__"] == made.key
        np.testing.assert_array_equal(np.asarray(row[totals.member], totals.dtype), made.totals)
        np.testing.assert_array_equal(np.asarray(row[genes.member], genes.dtype), made.genes)
        encoding = ENCODINGS.get(x.encoding)
        stored = row[x.member]
        array = (
            np.asarray(stored, x.dtype)
            if encoding.tells_shape
            else encoding.decode(stored, dtype=x.dtype, shape=made.x.shape)
        )
        np.testing.assert_array_equal(array, made.x)
        assert row["meta.json"]["n_spots"] == made.meta["n_spots"]


def test_tables_of_a_dataset_of_archives_load(tmp_path, monkeypatch):
    datasets = keep_to_itself(tmp_path / "cache", monkeypatch)
    write_dataset(tmp_path)
    for table, rows in {"patches": 7, "slides": 2, "genes": 9}.items():
        loaded = datasets.load_dataset("parquet", data_files=str(tmp_path / f"{table}.parquet"), split="train")
        assert loaded.num_rows == rows
