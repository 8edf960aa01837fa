"""Datasets and patches in words."""

from __future__ import annotations

import numpy as np
import pandas as pd

from stpatch.views.words import aligned, gene_table, slide_table, split_table

PATCHES = pd.DataFrame(
    {
        "split": ["train", "train", "val"],
        "slide_id": ["a", "b", "c"],
        "shard": ["train/train-000000.tar"] * 2 + ["val/val-000000.tar"],
        "coverage": [1.0, 0.5, 0.25],
    }
)
SLIDES = pd.DataFrame(
    {"slide_id": ["a", "b", "c", "d"], "platform": ["st"] * 4, "spots": [9, 80, 700, 6], "genes": [5, 5, 5, 5]}
)


def test_numbers_stand_to_the_right() -> None:
    text = aligned(["name", "n", "x"], [["a", 5, 0.5], ["bcd", 1234, None]])
    assert text == "  name     n    x\n  a        5  0.5\n  bcd   1234"


def test_a_table_may_be_empty() -> None:
    assert aligned(["name", "n"], []) == "  name  n"


def test_splits() -> None:
    lines = split_table(PATCHES, ["train", "val", "test"], {"train": 2_000_000}).splitlines()
    assert lines[1].split() == ["train", "2", "2", "1", "2", "0.75", "0.5"]
    assert lines[3].split() == ["test", "0", "0", "0", "0"]


def test_slides() -> None:
    lines = slide_table(SLIDES, PATCHES).splitlines()
    assert lines[1].split() == ["a", "st", "train", "9", "5", "1", "1", "1"]
    assert lines[4].split() == ["d", "st", "none", "6", "5", "0"]
    assert slide_table(SLIDES, PATCHES, most=3).endswith("and 1 more slides")


def test_genes() -> None:
    x = np.zeros((4, 2, 2), dtype=np.uint16)
    x[0] = 1
    x[2] = [[9, 0], [0, 50]]
    occupied = np.array([[True, True], [True, False]])
    lines = gene_table(x, ["A", "B", "C", ""], occupied, what="counts").splitlines()
    assert lines[0].split("  ")[-1] == "pixels with it"
    assert lines[1].split() == ["C", "9", "3", "9", "33%"]
    assert lines[2].split() == ["A", "3", "1", "1", "100%"]
    assert lines[3].split() == ["B", "0", "0", "0", "0%"]
    assert len(lines) == 4
    assert len(gene_table(x, ["A", "B", "C", ""], ~np.ones((2, 2), bool), what="counts").splitlines()) == 1
