"""Images of built datasets: units, grids with collisions, edges, splits, label maps."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import zarr
from bundles.built import build, poisson_counts, square, write_counts

import stpatch
from stpatch.dataset.manifest import read_manifest
from stpatch.dataset.reader import Dataset
from stpatch.errors import ConfigError
from stpatch.stages.job import Job

ALL_GENES = {"scope": "panel", "method": "all"}
N_GENES = 12


def splits_of(folder: Path, name: str = "out") -> dict[str, Dataset]:
    return {split: stpatch.open(folder / name, split) for split in read_manifest(folder / name).splits}


def write_slides(folder: Path, shapes: dict[str, tuple[int, int]]) -> dict[str, np.ndarray]:
    """Write full rectangles of spots; return their (genes, rows, columns) counts."""
    images = {}
    for seed, (name, shape) in enumerate(shapes.items()):
        counts = poisson_counts(shape[0] * shape[1], N_GENES, seed=seed)
        write_counts(folder / f"{name}.h5ad", counts, array=square(*shape))
        images[name] = counts.reshape(*shape, N_GENES).transpose(2, 0, 1)
    return images


SHAPES = {"wide": (3, 8), "high": (9, 2), "large": (7, 7)}
SHEET = [{"slide_id": name} for name in SHAPES]


# -- units ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tar", "zarr"])
@pytest.mark.parametrize("values", ["counts", "normalized"])
def test_a_slide_as_one_sample(tmp_path: Path, kind: str, values: str) -> None:
    """A tar holds every slide at its own size; zarr arrays are padded to the largest; the reader gives its own."""
    images = write_slides(tmp_path, SHAPES)
    build(tmp_path, SHEET, channels=ALL_GENES, crop={"unit": "slide"}, shards={"format": kind, "values": values})
    dataset = splits_of(tmp_path)["train"]
    assert read_manifest(tmp_path / "out").layout.shape == (N_GENES, 9, 8)
    assert len(dataset) == 3
    for sample in dataset:
        image = images[sample.meta["slide_id"]]
        totals = image.sum(axis=0)
        expected = image if values == "counts" else np.log1p(image * (1e4 / totals))
        assert sample.x.shape == image.shape
        np.testing.assert_allclose(sample.x, expected, rtol=1e-6)
        np.testing.assert_array_equal(sample.totals, totals)
    batch = next(dataset.batches(3))
    assert batch.x.shape == (3, N_GENES, 9, 8)
    for x, key in zip(batch.x, batch.keys, strict=True):
        own = dataset[key].x
        np.testing.assert_array_equal(x[:, : own.shape[1], : own.shape[2]], own)
        assert x.sum() == pytest.approx(own.sum(), rel=1e-6)
    if kind == "zarr":
        array = zarr.open_group(tmp_path / "out" / "train.zarr", mode="r")["x"]
        assert array.shape == (3, N_GENES, 9, 8)


@pytest.mark.parametrize("kind", ["tar", "zarr"])
def test_a_spot_as_one_sample(tmp_path: Path, kind: str) -> None:
    images = write_slides(tmp_path, SHAPES)
    build(tmp_path, SHEET, channels=ALL_GENES, crop={"unit": "spot"}, shards={"format": kind, "patches": 10})
    dataset = splits_of(tmp_path)["train"]
    assert len(dataset) == sum(rows * columns for rows, columns in SHAPES.values())
    seen = set()
    for sample in dataset:
        place = sample.meta["slide_id"], sample.meta["row"], sample.meta["col"]
        np.testing.assert_array_equal(sample.x[:, 0, 0], images[place[0]][:, place[1], place[2]])
        assert sample.x.shape == (N_GENES, 1, 1)
        seen.add(place)
    assert len(seen) == len(dataset)


def test_draws_of_one_spot_fill_up(tmp_path: Path) -> None:
    """In one pixel no gene varies: all channels are filled at random, and recorded."""
    images = write_slides(tmp_path, {"large": (5, 5)})
    build(tmp_path, [{"slide_id": "large"}], channels={"n": 5}, crop={"unit": "spot"})
    drawn = set()
    for sample in splits_of(tmp_path)["train"]:
        pixel = images["large"][:, sample.meta["row"], sample.meta["col"]]
        np.testing.assert_array_equal(sample.x[:, 0, 0], pixel[sample.genes - 1])
        drawn.add(tuple(sample.genes.tolist()))
    assert len(drawn) > 15


@pytest.mark.parametrize("edge", ["pad", "shift", "drop"])
@pytest.mark.parametrize("method", ["tiles", "random", "centered"])
def test_windows_of_every_method_and_edge(tmp_path: Path, method: str, edge: str) -> None:
    images = write_slides(tmp_path, SHAPES)
    crop = {"method": method, "edge": edge, "size": [4, 3], "stride": [3, 2], "min_spots": 2}
    if edge == "drop":
        del images["wide"], images["high"]  # smaller than a window: no patch, and a note says so
    build(tmp_path, SHEET, channels=ALL_GENES, crop=crop)
    dataset = splits_of(tmp_path)["train"]
    assert {sample.meta["slide_id"] for sample in dataset} == set(images)
    for sample in dataset:
        image, row, column = images[sample.meta["slide_id"]], sample.meta["row"], sample.meta["col"]
        expected = np.zeros((N_GENES, 4, 3))
        for i in range(4):
            for j in range(3):
                if 0 <= row + i < image.shape[1] and 0 <= column + j < image.shape[2]:
                    expected[:, i, j] = image[:, row + i, column + j]
        np.testing.assert_array_equal(sample.x, expected)
        np.testing.assert_array_equal(sample.totals, expected.sum(axis=0))
        assert sample.meta["n_spots"] == (sample.totals > 0).sum() >= 2
    notes = read_manifest(tmp_path / "out").dataset["notes"]
    assert [note for note in notes if "has no patch" in note and "slide" in note][:1] == (
        ["slide wide has no patch: none passes crop.min_coverage and min_spots"] if edge == "drop" else []
    )


# -- collisions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("collisions", ["sum", "mean", "first"])
@pytest.mark.parametrize("scope", ["panel", "patch"])
def test_spots_that_share_a_pixel(tmp_path: Path, collisions: str, scope: str) -> None:
    rng = np.random.default_rng(5)
    counts = poisson_counts(300, N_GENES, seed=5)
    xy = rng.uniform(0, 90, (300, 2))
    write_counts(tmp_path / "cells.h5ad", counts, xy=xy)
    job = build(
        tmp_path,
        [{"slide_id": "cells"}],
        ingest={"um_per_unit": 1.0},
        grid={"method": "um", "pitch_um": 10, "collisions": collisions},
        shards={"values": "normalized" if collisions == "mean" else "counts"},
        channels=ALL_GENES if scope == "panel" else {"n": 6},
    )
    pixels = np.floor((xy - xy.min(axis=0)) / 10).astype(int)
    shape = (pixels.max(axis=0) + 1)[::-1]
    image, totals, spots = np.zeros((N_GENES, *shape)), np.zeros(shape), np.zeros(shape, int)
    for (column, row), spot in zip(pixels, counts, strict=True):
        if collisions == "first" and spots[row, column]:
            continue
        spots[row, column] += 1
        image[:, row, column] += np.log1p(spot * 1e4 / spot.sum()) if collisions == "mean" else spot
        totals[row, column] += spot.sum()
    if collisions == "mean":
        image /= np.maximum(spots, 1)
        totals /= np.maximum(spots, 1)
    dataset = splits_of(tmp_path)["train"]
    kept = 0
    for sample in dataset:
        row, column = sample.meta["row"], sample.meta["col"]
        genes = dataset.panel if scope == "panel" else sample.genes
        part = image[np.asarray(genes) - 1, row : row + 4, column : column + 4]
        np.testing.assert_allclose(sample.x[:, : part.shape[1], : part.shape[2]], part, rtol=1e-6)
        np.testing.assert_allclose(
            sample.totals[: part.shape[1], : part.shape[2]], totals[row : row + 4, column : column + 4], rtol=1e-6
        )
        assert sample.x.sum() == pytest.approx(part.sum(), rel=1e-5)
        kept += sample.meta["n_spots"]
    dropped = 300 - len(np.unique(pixels, axis=0))
    assert dropped > 50
    assert kept == (300 - dropped if collisions == "first" else 300)
    grid = json.loads(pq.read_table(job.output / "slides.parquet")["qc"].to_pylist()[0])["grid"]
    assert grid == {"collisions": dropped, "dropped_spots": dropped if collisions == "first" else 0}
    if collisions == "sum":
        assert totals.sum() == counts.sum() == sum(sample.totals.sum() for sample in dataset)


# -- splits ---------------------------------------------------------------------------------------------------------


def spots_by_split(job: Job) -> dict[str, set[tuple[str, int, int]]]:
    """Return the occupied pixels (slide, row, column) that each split's samples hold."""
    found: dict[str, set[tuple[str, int, int]]] = {}
    for split, dataset in splits_of(job.output.parent, job.output.name).items():
        pixels = found.setdefault(split, set())
        for sample in dataset:
            for i, j in np.argwhere(sample.totals > 0).tolist():
                pixels.add((sample.meta["slide_id"], sample.meta["row"] + i, sample.meta["col"] + j))
    return found


def assert_disjoint(job: Job) -> dict[str, set[tuple[str, int, int]]]:
    found = spots_by_split(job)
    everything = Counter(pixel for pixels in found.values() for pixel in pixels)
    assert max(everything.values()) == 1
    return found


@pytest.mark.parametrize("crop", [{"stride": 2}, {"method": "random", "density": 6}, {"method": "centered"}])
def test_blocks_share_no_spot(tmp_path: Path, crop: dict[str, Any]) -> None:
    write_slides(tmp_path, {"one": (26, 31), "two": (17, 40)})
    split = {"blocks": {"size": 8}, "fractions": {"train": 0.6, "val": 0.2, "test": 0.2}}
    job = build(tmp_path, [{"slide_id": "one"}, {"slide_id": "two"}], crop=crop, split=split)
    found = assert_disjoint(job)
    assert set(found) == {"train", "val", "test"}
    assert all({pixel[0] for pixel in pixels} == {"one", "two"} for pixels in found.values())
    assert pq.read_table(job.output / "slides.parquet")["split"].to_pylist() == [None, None]
    notes = read_manifest(job.output).dataset["notes"]
    assert any("across blocks of different splits" in note for note in notes)


def many(folder: Path, n: int) -> list[dict[str, str]]:
    """Write n small slides of donors with two each, every other donor from the brain."""
    write_slides(folder, {f"s{i:02d}": (4, 4) for i in range(n)})
    return [{"slide_id": f"s{i:02d}", "donor": f"d{i // 2}", "tissue": ("brain", "lung")[i // 2 % 2]} for i in range(n)]


def test_splits_of_slides(tmp_path: Path) -> None:
    sheet = many(tmp_path, 16)
    fact = {row["slide_id"]: row for row in sheet}

    def built(**split: Any) -> dict[str, str]:
        """Build into one folder again and again: only what depends on the split is redone."""
        job = build(tmp_path, sheet, split={"fractions": {"train": 0.5, "val": 0.25, "test": 0.25}, **split})
        found = assert_disjoint(job)
        table = pq.read_table(job.output / "slides.parquet").to_pydict()
        splits = dict(zip(table["slide_id"], table["split"], strict=True))
        assert splits == {pixel[0]: split for split, pixels in found.items() for pixel in pixels}
        return splits

    def groups(splits: dict[str, str], column: str) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for slide_id, split in splits.items():
            found.setdefault(fact[slide_id][column], set()).add(split)
        return found

    by_slide = built()
    assert Counter(by_slide.values()) == {"train": 8, "val": 4, "test": 4}

    by_donor = built(by="donor")
    assert Counter(by_donor.values()) == {"train": 8, "val": 4, "test": 4}
    assert all(len(splits) == 1 for splits in groups(by_donor, "donor").values())

    stratified = built(by="donor", stratify="tissue")
    shares = Counter((fact[slide_id]["tissue"], split) for slide_id, split in stratified.items())
    assert shares == {(t, s): n for t in ("brain", "lung") for s, n in (("train", 4), ("val", 2), ("test", 2))}

    folds = built(by="donor", folds=4)
    assert Counter(folds.values()) == {f"fold{i}": 4 for i in range(4)}
    assert all(len(splits) == 1 for splits in groups(folds, "donor").values())


def test_splits_given_in_the_sheet(tmp_path: Path) -> None:
    sheet = many(tmp_path, 4)
    for row, split, site in zip(sheet, ("val", "train", "train", "extra"), ("a", "a", "b", "b"), strict=True):
        row |= {"split": split, "site": site}
    meant = {"allow_leak": ["donor"]}
    given = assert_disjoint(build(tmp_path, sheet, name="given", split=meant))
    assert {split: {pixel[0] for pixel in pixels} for split, pixels in given.items()} == {
        "train": {"s01", "s02"}, "val": {"s00"}, "extra": {"s03"},
    }  # fmt: skip
    column = assert_disjoint(build(tmp_path, sheet, name="column", split={"column": "site", **meant}))
    assert {split: {pixel[0] for pixel in pixels} for split, pixels in column.items()} == {
        "a": {"s00", "s01"}, "b": {"s02", "s03"},
    }  # fmt: skip
    with pytest.raises(ConfigError, match="different splits"):
        build(tmp_path, sheet, name="spanning", split={"by": "donor"})


# -- labels ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tar", "zarr"])
def test_label_maps_are_aligned_with_the_counts(tmp_path: Path, kind: str) -> None:
    """Rare categories, missing values, a category that one slide has alone, numbers as text: all come back."""
    rng = np.random.default_rng(2)
    truth: dict[str, dict[str, np.ndarray]] = {}
    for seed, name in enumerate(("a", "b")):
        cluster = rng.integers(0, 12, 60).astype(float)
        cluster[rng.random(60) < 0.2] = np.nan
        region = np.array(["tumour", "stroma", "fat", "tumour", "stroma"], object)[rng.integers(0, 5, 60)]
        region[rng.random(60) < 0.3] = None
        region[7] = f"only in {name}"
        truth[name] = {"cluster": cluster.reshape(6, 10), "region": region.reshape(6, 10)}
        write_counts(
            tmp_path / f"{name}.h5ad",
            poisson_counts(60, N_GENES, seed=seed),
            array=square(6, 10),
            obs={"cluster": cluster, "region": region.tolist()},
        )
    build(
        tmp_path,
        [{"slide_id": "a"}, {"slide_id": "b"}],
        ingest={"labels": ["cluster", "region"]},
        shards={"format": kind, "patches": 4},
    )
    dataset = splits_of(tmp_path)["train"]
    assert list(dataset.labels["cluster"]) == [str(i) for i in range(12)]
    assert list(dataset.labels["region"]) == ["fat", "only in a", "only in b", "stroma", "tumour"]
    for sample in dataset:
        own = truth[sample.meta["slide_id"]]
        for name, known in dataset.labels.items():
            plane = sample.labels[name]
            assert plane.dtype == np.int16
            for (i, j), code in np.ndenumerate(plane):
                row, column = sample.meta["row"] + i, sample.meta["col"] + j
                if row >= 6 or column >= 10:
                    assert code == -1
                    continue
                value = own[name][row, column]
                missing = value is None or value != value
                expected = None if missing else str(int(value)) if name == "cluster" else value
                assert (None if code == -1 else known[code]) == expected


def test_categories_that_sort_alike_keep_one_order(tmp_path: Path) -> None:
    """ "1" and "01" are two categories, and a superscript is no number."""
    values = ["1", "01", "²", "x2", "x10", "10"]
    write_counts(tmp_path / "a.h5ad", poisson_counts(36, 4), array=square(6, 6), obs={"zone": values * 6})
    build(tmp_path, [{"slide_id": "a"}], ingest={"labels": ["zone"]})
    dataset = splits_of(tmp_path)["train"]
    assert list(dataset.labels["zone"]) == ["01", "1", "10", "x2", "x10", "²"]
    for sample in dataset:
        for (i, j), code in np.ndenumerate(sample.labels["zone"]):
            if sample.meta["col"] + j < 6:
                assert (code == -1) == (sample.totals[i, j] == 0)


def test_the_label_of_a_pixel_of_several_spots_is_the_most_frequent(tmp_path: Path) -> None:
    xy = np.array([[1, 1], [2, 2], [3, 3], [11, 1], [12, 2], [25, 25]], float)
    labels = ["b", "a", "b", "b", "a", None]
    write_counts(tmp_path / "cells.h5ad", poisson_counts(6, N_GENES), xy=xy, obs={"kind": labels})
    build(
        tmp_path,
        [{"slide_id": "cells"}],
        ingest={"um_per_unit": 1.0, "labels": ["kind"]},
        grid={"method": "um", "pitch_um": 10},
        crop={"unit": "slide"},
    )
    dataset = splits_of(tmp_path)["train"]
    assert dataset[0].labels["kind"].tolist() == [[1, 0, -1], [-1, -1, -1], [-1, -1, -1]]
