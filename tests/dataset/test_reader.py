from __future__ import annotations

import multiprocessing
import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest
from bundles.dataset import genes_table, make_sample, write_dataset

import stpatch
from stpatch.dataset import tables
from stpatch.dataset.reader import PAD_NAME
from stpatch.dataset.tables import GENES, write_table
from stpatch.errors import DatasetError

KINDS = [
    {"format": format_, "encoding": encoding, **more}
    for format_ in ("tar", "zarr")
    for encoding in ("blosc", "npy", "sparse")
    for more in ({}, {"genes": False}, {"variable": True}, {"labels": ()})
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind.values())))
def test_samples_come_back(tmp_path, kind):
    manifest = write_dataset(tmp_path, **kind)
    with stpatch.open(tmp_path, split="train") as dataset:
        assert len(dataset) == 6
        for number, sample in enumerate(dataset):
            made = make_sample(number, manifest.layout, slide_id=f"s{1 + number % 2}")
            assert sample.key == made.key
            assert sample.meta == made.meta
            assert sample.x.dtype == "uint16"
            np.testing.assert_array_equal(sample.x, made.x)
            np.testing.assert_array_equal(sample.totals, made.totals)
            np.testing.assert_array_equal(sample.genes, [4, 3, 2, 1] if made.genes is None else made.genes)
            assert list(sample.labels) == list(made.labels)
            for name, label in made.labels.items():
                np.testing.assert_array_equal(sample.labels[name], label)
        assert dataset[-1].key == dataset[5].key == dataset["s2-000005"].key
        assert dataset[np.int64(2)].key == "s1-000002"
        assert "s1-000002" in dataset
        assert "s1-000009" not in dataset


def test_what_is_not_there(tmp_path):
    write_dataset(tmp_path)
    dataset = stpatch.open(tmp_path, "val")
    with pytest.raises(IndexError, match="number 1 of 1"):
        dataset[1]
    with pytest.raises(IndexError):
        dataset[-2]
    with pytest.raises(KeyError):
        dataset["s1-000000"]  # of split train
    with pytest.raises(TypeError):
        dataset[0.5]
    with pytest.raises(DatasetError, match=r"name the split(.|\n)*train or val"):
        stpatch.open(tmp_path)
    with pytest.raises(DatasetError, match="no such split"):
        stpatch.open(tmp_path, "test")
    with pytest.raises(DatasetError, match="not a dataset"):
        stpatch.open(tmp_path / "nowhere", "test")


def test_the_only_split_needs_no_name(tmp_path):
    write_dataset(tmp_path, counts={"all": 2})
    assert stpatch.open(str(tmp_path)).split == "all"


@pytest.mark.parametrize("kind", [{}, {"format": "zarr"}, {"variable": True}, {"genes": False}])
def test_batches_and_normalization(tmp_path, kind):
    write_dataset(tmp_path, **kind)
    raw = stpatch.open(tmp_path, "train")
    dataset = stpatch.open(tmp_path, "train", values="normalized")
    batches = list(dataset.batches(4))
    assert [len(batch.keys) for batch in batches] == [4, 2]
    assert [len(batch.keys) for batch in dataset.batches(4, drop_last=True)] == [4]
    assert np.concatenate([batch.numbers for batch in batches]).tolist() == list(range(6))
    for batch in batches:
        assert batch.x.dtype == np.float32
        assert batch.x.shape == (len(batch.keys), 4, 3, 5)
        for row, number in enumerate(batch.numbers):
            sample, one = raw[number], dataset[number]
            target = 5000.0 if number % 2 else 10000.0
            totals = np.maximum(sample.totals.astype(np.float64), 1)  # where the total is 0, so are the counts
            expected = np.log1p(sample.x * (target / totals)).astype(np.float32)
            place = tuple(slice(size) for size in sample.x.shape)
            np.testing.assert_array_equal(one.x, expected)
            np.testing.assert_array_equal(batch.x[row][place], expected)
            assert batch.x[row].sum() == pytest.approx(expected.sum(), rel=1e-5)  # padding is zero
            np.testing.assert_array_equal(batch.genes[row], one.genes)
            assert batch.keys[row] == one.key
    with pytest.raises(ValueError, match="at least one"):
        dataset.batches(0)


def test_stored_normalized_values_are_returned_as_float32(tmp_path):
    write_dataset(tmp_path, values="normalized", dtype="float16")
    dataset = stpatch.open(tmp_path, "train", values="normalized")
    assert dataset[0].x.dtype == np.float32
    np.testing.assert_array_equal(dataset[0].x, stpatch.open(tmp_path, "train")[0].x)


def test_genes_and_what_a_slide_measured(tmp_path):
    write_dataset(tmp_path)
    dataset = stpatch.open(tmp_path, "train")
    assert dataset.panel is None
    assert dataset.vocabulary[0] == PAD_NAME
    assert dataset.vocabulary[9] == "G9"
    for number in range(len(dataset)):
        genes = dataset.genes(number)
        top = 4 if number % 2 else 8
        np.testing.assert_array_equal(dataset.measured(number), (genes > 0) & (genes <= top))
    assert dataset.labels == {"region": ["cancer", "stroma"]}
    assert "train: 6 x (4, 3, 5) counts" in repr(dataset)
    assert dataset.table.num_rows == 6


def test_a_given_vocabulary_may_have_gaps_and_another_pad(tmp_path):
    manifest = write_dataset(tmp_path, genes=False)
    values = genes_table(manifest.layout)
    values["gene_id"] = [0, 3, 5, 6, 7, 8, 9, 11, 20]
    values["channel"] = [0, None, 3, None, 1, *[None] * 4]
    record = write_table(tmp_path, "genes", GENES, values)
    channels = {**manifest.channels, "pad_id": 2}
    changed = {"channels": channels, "tables": {**manifest.tables, "genes": record}}
    manifest.model_copy(update=changed).write(tmp_path)
    dataset = stpatch.open(tmp_path, "train")
    assert dataset[0].genes.tolist() == [0, 7, 2, 5]
    assert dataset.vocabulary[[0, 1, 2, 3, 20]].tolist() == ["G1", "", PAD_NAME, "G2", "G9"]


def _sum_of(dataset, number):
    return int(dataset[number].x.sum())


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("format_", ["tar", "zarr"])
def test_threads_and_processes(tmp_path, format_):
    write_dataset(tmp_path, format=format_)
    dataset = stpatch.open(tmp_path, "train")
    expected = [_sum_of(dataset, number) for number in range(6)]
    tasks = [(dataset, number % 6) for number in range(120)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda task: _sum_of(*task), tasks)) == expected * 20
    copy = pickle.loads(pickle.dumps(dataset))
    assert [_sum_of(copy, number) for number in range(6)] == expected
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.starmap(_sum_of, tasks[:12]) == expected * 2


def test_many_files_do_not_stay_open(tmp_path, monkeypatch):
    monkeypatch.setattr("stpatch.dataset.access.OPEN_FILES", 2)
    monkeypatch.setattr("stpatch.dataset.formats.zarr.KEPT_INDEXES", 2)
    for format_ in ("tar", "zarr"):
        write_dataset(tmp_path / format_, format=format_, patches=1)
        dataset = stpatch.open(tmp_path / format_, "train")
        assert len({sample.key for sample in dataset}) == 6
        assert len(dataset._reader._files) <= 2


@pytest.mark.parametrize("format_", ["tar", "zarr"])
def test_damage_is_told_when_read(tmp_path, format_):
    manifest = write_dataset(tmp_path, format=format_)
    path = tmp_path / manifest.splits["train"].shards[0].path
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    with pytest.raises(DatasetError, match="cut short"):
        stpatch.open(tmp_path, "train")[3]
    path.write_bytes(whole[1:] + b"\0")
    with pytest.raises(DatasetError):
        stpatch.open(tmp_path, "train")[3]
    path.unlink()
    with pytest.raises(DatasetError, match="a shard is missing"):
        stpatch.open(tmp_path, "train")[3]
    (tmp_path / "patches.parquet").write_bytes(b"PAR1")
    with pytest.raises(DatasetError, match="table cannot be read"):
        stpatch.open(tmp_path, "train")


def test_an_empty_split_and_a_moved_folder(tmp_path):
    write_dataset(tmp_path / "a", counts={"train": 2, "test": 0})
    shutil.move(tmp_path / "a", tmp_path / "b")
    assert len(stpatch.open(tmp_path / "b", "test")) == 0
    assert list(stpatch.open(tmp_path / "b", "test").batches(3)) == []
    assert len(stpatch.open(tmp_path / "b", "train")) == 2


def test_importing_stpatch_is_light():
    code = "import sys, stpatch; print({'numpy', 'pyarrow', 'zarr', 'scipy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_reading_loads_nothing_of_the_building(tmp_path):
    write_dataset(tmp_path)
    code = (
        "import sys, stpatch; stpatch.open(sys.argv[1], 'train')[0]; "
        "print({'anndata', 'h5py', 'zarr', 'pandas', 'numba'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


READS = [
    {"encoding": "sparse"},
    {"encoding": "sparse", "format": "zarr"},
    {"encoding": "sparse", "variable": True},
    {},
    {"format": "zarr"},
    {"encoding": "npy"},
    {"variable": True},
    {"genes": False},
    {"dtype": "uint32"},
]


@pytest.mark.parametrize("kind", READS, ids=str)
def test_sparse_batches_hold_the_counts(tmp_path, kind):
    write_dataset(tmp_path, **kind)
    dense, sparse = stpatch.open(tmp_path, "train").batch(range(6)), stpatch.open(tmp_path, "train", values="sparse")
    batch = sparse.batch(range(6))
    assert isinstance(batch, stpatch.SparseBatch)
    np.testing.assert_array_equal(batch.dense(), dense.x)
    assert (batch.counts > 0).all()
    assert batch.counts.dtype == dense.x.dtype
    assert batch.target_sums.tolist() == [10000.0, 5000.0] * 3
    for name in ("totals", "genes", "measured", "slides"):
        np.testing.assert_array_equal(getattr(batch, name), getattr(dense, name))
    for number in range(6):
        at = slice(*batch.indptr[number : number + 2])
        assert (np.diff(batch.positions[at]) > 0).all()
        np.testing.assert_array_equal(sparse[number].x, stpatch.open(tmp_path, "train")[number].x)


@pytest.mark.parametrize("kind", READS, ids=str)
@pytest.mark.parametrize("values", ["counts", "normalized"])
def test_samples_are_projected_onto_given_genes(tmp_path, kind, values):
    write_dataset(tmp_path, **kind)
    plain = stpatch.open(tmp_path, "train", values=values)
    wanted = ["G9", 2, "G5"]
    batch = stpatch.open(tmp_path, "train", values=values, genes=wanted).batch(range(6))
    assert batch.x.shape == (6, 3, 3, 5)
    assert batch.genes.tolist() == [[9, 2, 5]] * 6
    seen = 0
    for number in range(6):
        sample = plain[number]
        place = tuple(slice(size) for size in sample.x.shape[1:])
        for at, gene in enumerate((9, 2, 5)):
            channel = np.flatnonzero(sample.genes == gene)
            known = len(channel) == 1 and sample.measured[channel[0]]
            assert batch.measured[number, at] == known
            expected = sample.x[channel[0]] if len(channel) else np.zeros(sample.x.shape[1:])
            np.testing.assert_array_equal(batch.x[number, at][place], expected)
            seen += int(batch.x[number, at].sum() > 0)
    assert seen
    sample = stpatch.open(tmp_path, "train", genes=wanted)[0]
    assert sample.genes.tolist() == [9, 2, 5]


def test_what_cannot_be_read_so(tmp_path):
    write_dataset(tmp_path)
    for options, words in (
        ({"values": "logs"}, "unknown values"),
        ({"values": "sparse", "dtype": "float32"}, "sparse batches hold"),
        ({"values": "sparse", "genes": ["G1"]}, "sparse batches hold"),
        ({"dtype": "float16"}, "counts do not fit float16"),
        ({"values": "normalized", "dtype": "float64"}, "cannot have this dtype"),
        ({"genes": ["G1", "G77", 99, 0]}, r"3 of 4 genes(.|\n)*G77, 99, 0"),
        ({"genes": ["G1", 1]}, "given twice"),
    ):
        with pytest.raises(DatasetError, match=words):
            stpatch.open(tmp_path, "train", **options)


def test_a_dataset_of_normalized_values_has_no_counts(tmp_path):
    write_dataset(tmp_path, values="normalized", dtype="float32")
    for values in ("counts", "sparse"):
        with pytest.raises(DatasetError, match="has no counts"):
            stpatch.open(tmp_path, "train", values=values)


def test_half_precision_is_the_rounded_single(tmp_path):
    write_dataset(tmp_path)
    single, half = (stpatch.open(tmp_path, "train", values="normalized", dtype=t) for t in ("float32", "float16"))
    assert half.batch([0]).x.dtype == np.float16
    np.testing.assert_array_equal(half.batch(range(6)).x, single.batch(range(6)).x.astype(np.float16))
    assert stpatch.open(tmp_path, "train", dtype="float32")[0].x.dtype == np.float32


def test_slices_and_selections(tmp_path):
    write_dataset(tmp_path)
    dataset = stpatch.open(tmp_path, "train")
    assert [sample.key for sample in dataset[1:5:2]] == ["s2-000001", "s2-000003"]
    second = dataset.select(slide="s2")
    assert [sample.meta["slide_id"] for sample in second] == ["s2"] * 3
    assert second["s2-000003"].key == second[1].key == "s2-000003"
    assert "s1-000000" not in second
    np.testing.assert_array_equal(second[1].x, dataset["s2-000003"].x)
    np.testing.assert_array_equal(second.batch([2]).measured[0], dataset.measured("s2-000005"))
    assert second.table.num_rows == 3
    assert [sample.key for sample in second.select(row=[1, 5])] == ["s2-000001", "s2-000005"]
    assert len(dataset.select(slide={"s1", "s2"}, split="val")) == 0
    again = pickle.loads(pickle.dumps(second[1:]))
    assert [sample.key for sample in again] == ["s2-000003", "s2-000005"]
    with pytest.raises(DatasetError, match=r"no such column(.|\n)*coverage"):
        dataset.select(tissue="breast")
    assert dataset.slides["slide_id"].to_pylist() == dataset.slide_ids
    assert dataset.stats()["samples_by_slide"] == {"s1": 3, "s2": 3}
    assert second.stats()["samples"] == 3


def test_shuffled_epochs_hold_every_sample_once(tmp_path):
    write_dataset(tmp_path)
    dataset = stpatch.open(tmp_path, "train")

    def order(**options):
        return [key for batch in dataset.batches(4, shuffle=True, **options) for key in batch.keys]

    assert sorted(order()) == sorted(sample.key for sample in dataset)
    assert order(seed=1, epoch=2) == order(seed=1, epoch=2)
    assert len({tuple(order(epoch=epoch)) for epoch in range(4)}) > 1


def test_a_header_of_another_sample_is_told(tmp_path):
    write_dataset(tmp_path, encoding="npy")
    dataset = stpatch.open(tmp_path, "train", verify=False)
    path = tmp_path / "train/train-000000.tar"
    data = bytearray(path.read_bytes())
    data[data.index(b"s1-000000")] = ord("t")
    path.write_bytes(data)
    with pytest.raises(DatasetError, match="header is damaged"):
        dataset.batch([0])
    np.testing.assert_array_equal(dataset.batch([1]).x[0], dataset[1].x)


def test_the_values_of_a_column_by_sample(tmp_path):
    write_dataset(tmp_path)
    dataset = stpatch.open(tmp_path, "train")
    for column, codes, values in (
        ("slide_id", [0, 1, 0, 1, 0, 1], ["s1", "s2"]),
        ("target_sum", [0, 1, 0, 1, 0, 1], [10000.0, 5000.0]),
        ("row", [0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5]),
    ):
        found = dataset.codes(column)
        assert (found[0].tolist(), found[1]) == (codes, values)
    assert dataset[2:4].codes("slide")[0].tolist() == [0, 1]
    with pytest.raises(DatasetError, match=r"no such column(.|\n)*tissue"):
        dataset.codes("tissue")


def test_a_missing_value_is_a_value_of_its_own():
    column = pa.chunked_array([["a", None], [None, "b", "a"]])
    codes, values = tables.codes(column)
    assert [values[code] for code in codes] == ["a", None, None, "b", "a"]
    assert len(values) == 3
