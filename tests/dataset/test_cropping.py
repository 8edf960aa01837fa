"""Datasets of whole slides: what is cut from them is what a build would have stored, bit for bit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from bundles.corpus import digests
from bundles.croppable import build_slides, dense, write_slides
from hypothesis import given, settings
from hypothesis import strategies as st

import stpatch
from stpatch.config_file import parse_config
from stpatch.dataset.cropping.windows import allowed_windows, box_sums, drawn
from stpatch.dataset.order import Order
from stpatch.dataset.validate import verify
from stpatch.errors import ConfigError, DatasetError
from stpatch.seeds import generator

PATCH: dict[str, Any] = {"channels": {"n": 7, "draws": 2}}
PANEL: dict[str, Any] = {"channels": {"scope": "panel", "method": "all"}}
SLIDES: dict[str, Any] = {"shards": {"format": "slides"}}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """The folder of the slides, and the rows of their samplesheet."""
    folder = tmp_path_factory.mktemp("croppable")
    return folder, write_slides(folder)


@pytest.fixture(scope="module")
def by_patch(corpus):
    """A dataset of slides with a patch rule."""
    folder, rows = corpus
    return build_slides(folder, rows, "by_patch", **PATCH, **SLIDES)


@pytest.fixture(scope="module")
def by_panel(corpus):
    """A dataset of slides with a panel."""
    folder, rows = corpus
    return build_slides(folder, rows, "by_panel", **PANEL, **SLIDES)


def assert_same(stored, cut, *, values: bool = True) -> None:
    """Every sample of both datasets is the same, by key."""
    keys = stored.table["key"].to_pylist()
    assert sorted(cut.table["key"].to_pylist()) == sorted(keys)
    assert keys
    for name in ("row", "col", "n_spots", "coverage"):
        at = dict(zip(keys, stored.table[name].to_pylist(), strict=True))
        assert [at[key] for key in cut.table["key"].to_pylist()] == cut.table[name].to_pylist()
    a, b = stored.batch(keys), cut.batch(keys)
    assert a.keys == b.keys
    for name in ("totals", "genes", "measured", *(("x",) if values else ())):
        one, other = getattr(a, name), getattr(b, name)
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    for name in a.labels:
        np.testing.assert_array_equal(a.labels[name], b.labels[name])
    for key in keys[:2]:
        assert stored[key].meta == cut[key].meta
        np.testing.assert_array_equal(stored[key].x, cut[key].x)


CONFIGS: dict[str, dict[str, Any]] = {
    "patch rule": PATCH,
    "ranked patch rule": {"channels": {"method": "variance", "n": 40}},
    "candidates": {"channels": {"n": 5, "candidates": {"method": "hvg_seurat", "n": 12}}},
    "panel": PANEL,
    "slide lists": {"channels": {"scope": "slide", "method": "hvg_seurat", "n": 9}},
    "several spots on a pixel": {**PATCH, "grid": {"method": "fit", "size": 5}, "crop": {"size": [2, 3]}},
    "first spot of a pixel": {**PANEL, "grid": {"method": "fit", "size": 5, "collisions": "first"}},
    "random windows": {**PANEL, "crop": {"method": "random", "size": [3, 5], "min_coverage": 0.3}},
    "centered windows": {**PATCH, "crop": {"method": "centered", "size": [3, 3], "edge": "pad"}},
    "spots": {**PANEL, "crop": {"unit": "spot"}},
    "slides": {**PANEL, "crop": {"unit": "slide"}},
    "raw": {**PATCH, "normalize": {"method": "none"}},
    "mapped": {**PATCH, "shards": {"encoding": "npy"}},
    "sparse": {**PANEL, "shards": {"encoding": "sparse"}},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_cut_is_what_a_build_stores(corpus, name):
    folder, rows = corpus
    config, tag = CONFIGS[name], name.replace(" ", "-")
    stored = build_slides(folder, rows, f"{tag}-tar", **config)
    shards = {**config.get("shards", {}), "format": "slides"}
    cut = build_slides(folder, rows, f"{tag}-slides", **{**config, "shards": shards})
    assert list(verify(cut, deep=True)) == []
    for split in ("train", "val"):
        assert_same(stpatch.open(stored, split), stpatch.open(cut, split))
        assert_same(stpatch.open(stored, split, values="normalized"), stpatch.open(cut, split, values="normalized"))


def test_what_is_asked_for_at_open_is_what_a_build_with_it_stores(corpus, by_patch, by_panel):
    folder, rows = corpus
    crop = {"size": [5, 3], "stride": [2, 2], "min_coverage": 0.5, "edge": "shift"}
    rule = {"method": "random", "n": 4, "draws": 3}
    for number, (asked, built) in enumerate(
        [
            ({"crop": crop}, {**PATCH, "crop": crop}),
            ({"crop": {"method": "random", "density": 3.0}}, {**PATCH, "crop": {"method": "random", "density": 3.0}}),
            ({"crop": {"unit": "spot"}, "channels": rule}, {"crop": {"unit": "spot"}, "channels": rule}),
            ({"channels": rule}, {"channels": rule}),
            ({"crop": {"unit": "slide"}}, {**PATCH, "crop": {"unit": "slide"}}),
        ]
    ):
        stored = build_slides(folder, rows, f"asked-{number}", **built)
        for split in ("train", "val"):
            assert_same(stpatch.open(stored, split), stpatch.open(by_patch, split, fresh=False, **asked))
    # a patch rule on what was built with a panel, and the other way round
    stored = build_slides(folder, rows, "asked-rule", channels=rule)
    assert_same(stpatch.open(stored, "train"), stpatch.open(by_panel, "train", channels=rule))
    names = ["G003", "G020", "G001"]
    stored = build_slides(folder, rows, "asked-list", channels={"scope": "panel", "method": "list", "genes": names})
    assert_same(stpatch.open(stored, "train"), stpatch.open(by_patch, "train", genes=names, channels=None))
    assert_same(stpatch.open(stored, "val"), stpatch.open(by_patch, "val", channels={"genes": names}))


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_window_at_any_pitch_is_that_of_the_dense_grid(corpus, by_patch, data):
    folder, _ = corpus
    pitch = data.draw(st.integers(1, 4), label="pitch")
    size = data.draw(st.tuples(st.integers(1, 7), st.integers(1, 7)), label="size")
    crop = {"method": data.draw(st.sampled_from(["tiles", "random", "centered"]), label="method"), "size": list(size)}
    crop["min_coverage"] = data.draw(st.sampled_from([0.0, 0.4]), label="coverage")
    crop["edge"] = data.draw(st.sampled_from(["pad", "shift", "drop"]), label="edge")
    genes = data.draw(st.none() | st.lists(st.integers(1, 30), min_size=1, max_size=9, unique=True), label="genes")
    fresh = data.draw(st.booleans(), label="fresh")
    epoch = data.draw(st.integers(0, 3), label="epoch")
    dataset = stpatch.open(by_patch, "train", crop=crop, pitch=pitch, genes=genes, fresh=fresh).at_epoch(epoch)
    if not len(dataset):
        return
    numbers = data.draw(st.lists(st.integers(0, len(dataset) - 1), min_size=1, max_size=4), label="numbers")
    batch, names = dataset.batch(numbers), dataset.vocabulary.tolist()
    for place, number in enumerate(numbers):
        sample = dataset[number]
        np.testing.assert_array_equal(sample.x, batch.x[place])
        whole = dense(folder, sample.meta["slide_id"], names)
        padding = [(0, 0)] + [(8 * pitch, 8 * pitch + (-n) % pitch) for n in whole.shape[1:]]
        whole = np.pad(whole, padding)
        coarse = whole.reshape(len(whole), whole.shape[1] // pitch, pitch, whole.shape[2] // pitch, pitch).sum((2, 4))
        top, left = sample.meta["row"] + 8, sample.meta["col"] + 8
        window = coarse[:, top : top + size[0], left : left + size[1]]
        np.testing.assert_array_equal(sample.x, window[sample.genes])
        np.testing.assert_array_equal(sample.totals, window.sum(axis=0))
        if genes is not None:
            assert sample.genes.tolist() == genes
        covered = dataset.table["coverage"][number].as_py()
        # every spot has a count, so that occupied pixels are those with a total
        assert covered == np.float32((sample.totals > 0).mean())
        assert covered >= np.float32(crop["min_coverage"])


def test_normalized_values_of_coarser_pixels(by_patch):
    raw = stpatch.open(by_patch, "train", pitch=2, crop={"size": 3})
    values = stpatch.open(by_patch, "train", pitch=2, crop={"size": 3}, values="normalized").batch([0, 1])
    a = raw.batch([0, 1])
    scale = np.divide(1e4, a.totals, out=np.zeros_like(a.totals), where=a.totals > 0)
    np.testing.assert_allclose(values.x, np.log1p(a.x * scale[:, None]), rtol=1e-6)
    sparse = stpatch.open(by_patch, "train", pitch=2, crop={"size": 3}, values="sparse").batch([0, 1])
    np.testing.assert_array_equal(sparse.dense(), a.x)


def test_fresh_windows_follow_the_tissue_and_differ_from_epoch_to_epoch(by_panel):
    crop = {"method": "random", "size": [3, 3], "min_coverage": 0.6, "density": 4.0}
    dataset = stpatch.open(by_panel, "train", crop=crop)
    assert dataset.fresh
    epochs = [dataset.at_epoch(epoch).table for epoch in range(3)]
    places = []
    for table in epochs:
        rows = [tuple(row[name] for name in ("slide_id", "row", "col")) for row in table.to_pylist()]
        assert min(table["coverage"].to_pylist()) >= np.float32(0.6)
        assert table["slide_id"].to_pylist() == epochs[0]["slide_id"].to_pylist()  # a number keeps its slide
        assert len(set(rows)) == len(rows)  # none twice, as there are enough
        assert len(set(table["key"].to_pylist())) == len(rows)
        places.append(rows)
    assert places[0] != places[1] != places[2] != places[0]
    again = stpatch.open(by_panel, "train", crop=crop).at_epoch(2).table
    assert again.equals(epochs[2])
    assert not stpatch.open(by_panel, "train", crop=crop, seed=5).table.equals(epochs[0])
    fixed = stpatch.open(by_panel, "val", crop=crop)
    assert not fixed.fresh
    assert fixed.at_epoch(3) is fixed
    assert len(stpatch.open(by_panel, "train", crop={**crop, "samples": 11})) == 11


def test_random_channels_are_drawn_anew_in_every_epoch_of_training(by_patch):
    train, val = stpatch.open(by_patch, "train"), stpatch.open(by_patch, "val")
    first, second = train.batch(range(6)), train.at_epoch(1).batch(range(6))
    assert not np.array_equal(first.genes, second.genes)
    np.testing.assert_array_equal(first.totals, second.totals)
    many = stpatch.open(by_patch, "train", channels={"draws": 4}, fresh=False)
    np.testing.assert_array_equal(many.batch([2, 3]).genes, second.genes[:2])  # epoch 1 goes on where epoch 0 ended
    np.testing.assert_array_equal(val.at_epoch(1).batch([0]).genes, val.batch([0]).genes)


def test_subsets_keep_their_numbers(by_patch):
    crop = {"method": "random", "size": 3, "density": 5.0}
    dataset = stpatch.open(by_patch, "train", crop=crop)
    slide = dataset.slide_ids[int(dataset.pools[0][-1])]
    part = dataset.select(slide=slide)
    assert set(part.at_epoch(2).table["slide_id"].to_pylist()) == {slide}
    whole = dataset.at_epoch(2)
    numbers = [whole.number(key) for key in part.at_epoch(2).table["key"].to_pylist()]
    np.testing.assert_array_equal(part.at_epoch(2).batch([0, 1]).x, whole.batch(numbers[:2]).x)
    np.testing.assert_array_equal(dataset[-2:].at_epoch(2).batch([1]).x, whole.batch([len(whole) - 1]).x)


def test_weights_by_a_column_and_by_a_label(by_panel):
    crop = {"method": "random", "size": 3, "samples": 12, "min_coverage": 0}
    column = {"column": "organ", "values": {"lung": 0}}
    drawn_ = stpatch.open(by_panel, "train", crop=crop, weights=column)
    assert len(drawn_) == 12
    assert {drawn_.codes("organ")[1][code] for code in drawn_.codes("organ")[0]} == {"breast"}
    label = {"label": "region", "values": {"tumour": 1}, "other": 0}
    drawn_ = stpatch.open(by_panel, "train", crop=crop, weights=label)
    tumour = drawn_.labels["region"].index("tumour")
    assert (drawn_.batch(range(12)).labels["region"][:, 1, 1] == tumour).all()
    for wrong in (
        {"column": "organ", "label": "region"},
        {"column": "nothing", "values": {}},
        {"label": "nothing", "values": {}},
        {"label": "region", "values": {"nothing": 1}},
        {"label": "region", "values": {"tumour": -1}},
        {"label": "region", "valves": {}},
    ):
        with pytest.raises(ConfigError, match="weights:"):
            stpatch.open(by_panel, "train", crop=crop, weights=wrong)
    with pytest.raises(ConfigError, match="belong to fresh random windows"):
        stpatch.open(by_panel, "val", crop=crop, weights=label)


@settings(deadline=None)
@given(n=st.integers(1, 60), quota=st.integers(0, 150), weighted=st.booleans(), seed=st.integers(0, 5))
def test_none_is_drawn_twice_before_all_have_come(n, quota, weighted, seed):
    weights = np.random.default_rng(seed).integers(0, 3, n).astype(float) if weighted else None
    numbers = drawn(generator(seed, "x"), n, quota, weights=weights)
    there = n if weights is None else int((weights > 0).sum())
    assert len(numbers) == (quota if there else 0)
    counts = np.bincount(numbers, minlength=n)
    if there:
        some = counts if weights is None else counts[weights > 0]
        assert some.max() - some.min() <= 1
    if weights is not None:
        assert not counts[weights == 0].any()


def test_few_of_many_are_drawn_evenly():
    counts = np.bincount(np.concatenate([drawn(generator(seed, "x"), 40, 5) for seed in range(800)]), minlength=40)
    assert (np.abs(counts - 100) < 50).all()  # five standard deviations
    heavy = np.array([9.0] + [1.0] * 39)
    first = [drawn(generator(seed, "x"), 40, 1, weights=heavy)[0] for seed in range(500)]
    assert 60 < first.count(0) < 130  # 9 of 48, 94 expected


@settings(deadline=None)
@given(shape=st.tuples(st.integers(1, 6), st.integers(1, 6)), size=st.tuples(st.integers(1, 8), st.integers(1, 8)))
def test_sums_of_boxes(shape, size):
    values = np.random.default_rng(0).integers(0, 4, shape)
    sums = box_sums(values, size)
    assert sums.shape == (max(shape[0] - size[0], 0) + 1, max(shape[1] - size[1], 0) + 1)
    for row, col in np.ndindex(*sums.shape):
        assert sums[row, col] == values[row : row + size[0], col : col + size[1]].sum()


def test_an_epoch_opens_each_slide_once():
    slides = np.repeat(np.arange(7), [5, 1, 8, 3, 3, 9, 2])
    order = Order(samples=len(slides), batch_size=4, pools=(slides, 2))
    for epoch in range(3):
        sequence = order.epoch(epoch).sequence
        assert sorted(sequence.tolist()) == list(range(len(slides)))
        visited = slides[sequence]
        spans = [np.flatnonzero(visited == slide) for slide in range(7)]
        together = [
            {other for other in range(7) if spans[slide][0] <= spans[other][-1] and spans[other][0] <= spans[slide][-1]}
            for slide in range(7)
        ]
        assert max(map(len, together)) <= 2
    assert not np.array_equal(order.epoch(0).sequence, order.epoch(1).sequence)


@pytest.mark.parametrize(("ranks", "workers"), [(1, 0), (2, 0), (1, 2), (2, 1)])
def test_epochs_are_the_same_over_ranks_workers_and_resumes(by_patch, ranks, workers):
    pytest.importorskip("torch")
    torch_data = pytest.importorskip("stpatch.torch")
    crop = {"method": "random", "size": [3, 4], "density": 3.0}

    def open_(rank: int, of: int) -> Any:
        dataset = stpatch.open(by_patch, "train", crop=crop, values="normalized", pool=1)
        return torch_data.PatchDataset(
            dataset, batch_size=3, seed=4, symmetry="flips", symmetry_check="off", rank=rank, ranks=of
        )

    def contents(batches: list[Any]) -> dict[tuple[int, int], tuple[list[str], bytes]]:
        return {(b.epoch, b.position): (b.keys, b.genes.numpy().tobytes() + b.x.numpy().tobytes()) for b in batches}

    plain = open_(0, 1)
    expected: dict[tuple[int, int], Any] = {}
    for epoch in range(2):
        plain.set_epoch(epoch)
        expected |= contents(list(plain))
    assert len({repr(keys) for keys, _ in expected.values()}) == len(expected)
    found: dict[tuple[int, int], Any] = {}
    states = []
    for rank in range(ranks):
        loader = torch_data.PatchLoader(open_(rank, ranks), num_workers=workers)
        found |= contents(list(loader))
        batches = iter(loader)
        found |= contents([next(batches)])
        states.append(loader.state_dict())
    assert states[0] == states[-1]
    resumed = torch_data.PatchLoader(open_(0, 1))
    resumed.load_state_dict(json.loads(json.dumps(states[0])))
    found |= contents(list(resumed))
    assert {key: found[key] for key in expected} == expected


def test_the_same_bytes_by_ranks_and_again_after_damage(corpus, by_patch, tmp_path):
    from stpatch.engine.graph import STAGES

    _, rows = corpus
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    write_slides(folder)
    again = build_slides(folder, rows, "by_patch", **PATCH, **SLIDES)
    assert digests(again) == digests(by_patch)
    victim = next(again.glob("train.slides/*/counts/c/0"))
    victim.write_bytes(victim.read_bytes()[:-1] + b"x")
    assert [str(problem.what) for problem in verify(again)] != []
    build_slides(folder, rows, "by_patch", **PATCH, **SLIDES)
    assert digests(again) == digests(by_patch)
    assert "shard" in STAGES


def test_plain_zarr_reads_the_arrays(corpus, by_panel):
    folder, _ = corpus
    slide_id = stpatch.open(by_panel, "train")[0].meta["slide_id"]
    group = zarr.open(by_panel / "train.slides" / slide_id.lower(), mode="r")
    indptr, pixels = group["indptr"][:], group["pixels"][:]
    names = stpatch.open(by_panel, "train").vocabulary[group["gene_ids"][:]].tolist()
    whole = np.zeros((len(names), *group.attrs["grid"]), np.int64)
    for spot in range(len(pixels)):
        part = slice(indptr[spot], indptr[spot + 1])
        whole[group["genes"][part], pixels[spot, 0], pixels[spot, 1]] += group["counts"][part]
    np.testing.assert_array_equal(whole, dense(folder, slide_id, names))
    np.testing.assert_array_equal(group["totals"][:], whole[:, pixels[:, 0], pixels[:, 1]].sum(axis=0))


def test_the_card_reads_it_without_stpatch(by_panel):
    card = (by_panel / "README.md").read_text()
    code = card.split("### zarr")[1].split("```python\n")[1].split("```")[0]
    assert "stpatch" not in code
    done = subprocess.run([sys.executable, "-c", code], cwd=by_panel, capture_output=True, text=True, check=True)
    sample = stpatch.open(by_panel, "train")[0]
    assert done.stdout.split()[0] == sample.key
    assert float(done.stdout.split()[-1]) == sample.totals.sum()
    last = card.split("```python\n")[-1].split("```")[0].replace('"n": 64', '"n": 6').replace('"size": 8', '"size": 3')
    done = subprocess.run([sys.executable, "-c", last], cwd=by_panel, capture_output=True, text=True, check=True)
    assert done.stdout.split(maxsplit=1)[1] == "(6, 3, 3)\n"


def test_what_a_spawned_worker_gets(by_patch):
    import pickle

    crop = {"method": "random", "size": 3}
    dataset = stpatch.open(by_patch, "train", crop=crop, pitch=2).at_epoch(3)[1:4]
    other = pickle.loads(pickle.dumps(dataset))
    assert other.table.equals(dataset.table)
    np.testing.assert_array_equal(other.batch([0, 2]).x, dataset.batch([0, 2]).x)


def test_threads_cut_the_same(by_patch):
    from concurrent.futures import ThreadPoolExecutor

    dataset = stpatch.open(by_patch, "train", crop={"size": 3, "stride": 1}, pool=1, fresh=False)
    expected = [dataset.batch([number]).x for number in range(40)]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda number: dataset.batch([number]).x, range(40)))
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_no_more_slides_are_open_than_the_pool_holds(by_patch):
    dataset = stpatch.open(by_patch, "train", crop={"size": 3}, pool=1)
    sizes = set()
    for number in range(len(dataset)):
        dataset.batch([number])
        assert len(dataset._reader.pool._kept) == 1
        sizes.add(dataset.open_bytes)
    assert max(sizes) > 0
    dataset.close()
    assert dataset.open_bytes == 0


def test_requests_that_cannot_be(by_patch, by_panel, corpus, tmp_path):
    for asked, words in [
        ({"crop": {"sise": 3}}, "crop: "),
        ({"crop": {"size": 0}}, "crop: "),
        ({"crop": {"samples": 0, "method": "random"}}, "samples is a whole number"),
        ({"pitch": 0}, "pitch is a whole number"),
        ({"pool": 0}, "pool is a whole number"),
        ({"channels": {"m": 1}}, "unknown key"),
        ({"channels": {"method": "hvg_seurat"}}, "no patch rule"),
        ({"channels": {"n": 0}}, "wrong n"),
        ({"channels": {"method": "variance", "draws": 2}}, "not random"),
        ({"channels": {"genes": []}}, "no genes"),
        ({"channels": {"genes": ["G001"], "n": 1}}, "genes beside a rule"),
        ({"channels": {"n": 2}, "genes": ["G001"]}, "genes beside channels"),
    ]:
        with pytest.raises(ConfigError, match=words):
            stpatch.open(by_patch, "train", **asked)
    with pytest.raises(DatasetError, match="not in the dataset's vocabulary"):
        stpatch.open(by_patch, "train", genes=["nothing"])
    folder, rows = corpus
    stored = build_slides(folder, rows, "stored", **PANEL)
    with pytest.raises(DatasetError, match="cut already"):
        stpatch.open(stored, "train", crop={"size": 3})
    for sections in ({"shards": {"format": "slides", "values": "normalized"}}, {**SLIDES, "split": {"blocks": {}}}):
        with pytest.raises(ConfigError, match=r"shards\.format: slides"):
            parse_config({"dataset": {"output": "o"}, "slides": ["a"], **sections})


def test_damage_is_told(by_patch, tmp_path):
    import shutil

    def damaged(change: Any) -> Path:
        folder = tmp_path / "copy"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(by_patch, folder)
        change(folder, next(path for path in folder.glob("train.slides/*") if path.is_dir()))
        return folder

    def cut_short(_folder: Path, slide: Path) -> None:
        file = slide / "genes" / "c" / "0"
        file.write_bytes(file.read_bytes()[:-9])

    def no_group(_folder: Path, slide: Path) -> None:
        (slide / "zarr.json").write_bytes(b"x" * (slide / "zarr.json").stat().st_size)

    def flipped(_folder: Path, slide: Path) -> None:
        file = slide / "pixels" / "c" / "0" / "0"
        data = bytearray(file.read_bytes())
        data[20] ^= 255
        file.write_bytes(bytes(data))

    for change in (cut_short, no_group, flipped):
        folder = damaged(change)
        assert list(verify(folder))
        dataset = stpatch.open(folder, "train")
        if change is not flipped:
            with pytest.raises(DatasetError):
                dataset.batch(range(len(dataset)))


def test_windows_are_allowed_by_the_config_of_crops():
    from stpatch.config import CropSection

    spots = np.zeros((4, 5), np.int32)
    spots[1, 1] = spots[2, 3] = 2
    assert allowed_windows(spots, CropSection(size=(2, 2), min_coverage=0)).sum() == 8
    assert allowed_windows(spots, CropSection(size=(2, 2), min_coverage=0.5)).sum() == 0
    assert allowed_windows(spots, CropSection(size=(2, 3), min_coverage=0.3)).tolist() == [
        [False, False, False], [False, True, False], [False, False, False],
    ]  # fmt: skip
    assert allowed_windows(spots, CropSection(size=(6, 6), min_coverage=0)).tolist() == [[True]]
    assert not allowed_windows(spots, CropSection(size=(6, 6), min_coverage=0, edge="drop")).any()
    assert not allowed_windows(spots, CropSection(size=(2, 2), min_coverage=0, min_spots=5)).any()
