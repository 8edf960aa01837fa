"""Datasets behind URLs: the same samples, few requests, and patience with stores that fail now and then."""

from __future__ import annotations

import pickle
import shutil
import threading
from collections import Counter

import numpy as np
import pytest
from bundles.dataset import write_dataset

import stpatch
from stpatch import remote
from stpatch.errors import DatasetError, MissingExtraError, RemoteError

fsspec = pytest.importorskip("fsspec", reason="extra remote is not installed")
from fsspec.implementations.memory import MemoryFileSystem  # noqa: E402

KINDS = [{}, {"format": "zarr"}, {"variable": True}, {"genes": False}, {"encoding": "sparse"}]


class Counted(MemoryFileSystem):
    """A store in memory that counts requests and fails on demand."""

    protocol = "counted"
    store = {}  # noqa: RUF012 - of the class, as MemoryFileSystem's
    pseudo_dirs = [""]  # noqa: RUF012
    asked: list[tuple[str, int | None, int | None]] = []  # noqa: RUF012
    faults: list[Exception | int] = []  # noqa: RUF012
    lock = threading.Lock()

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.replace("counted://", "memory://"))

    def cat_file(self, path, start=None, end=None, **more):
        with self.lock:
            self.asked.append((self._strip_protocol(path), start, end))
            fault = self.faults.pop(0) if self.faults else None
        if isinstance(fault, Exception):
            raise fault
        data = super().cat_file(path, start, end, **more)
        return data if fault is None else data[:fault]


@pytest.fixture
def store(tmp_path, monkeypatch):
    fsspec.register_implementation("counted", Counted, clobber=True)
    monkeypatch.setenv("STPATCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "PAUSES", (0.0, 0.0, 0.0))
    for things in (Counted.store, Counted.asked, Counted.faults):
        things.clear()
    yield Counted(skip_instance_cache=True)
    Counted.store.clear()


def put(store, folder, place="/bucket/data"):
    for file in folder.rglob("*"):
        if file.is_file():
            store.pipe_file(f"{place}/{file.relative_to(folder).as_posix()}", file.read_bytes())
    store.asked.clear()
    return f"counted://{place.lstrip('/')}"


@pytest.mark.parametrize("scheme", ["memory", "file", "counted"])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_samples_are_those_of_the_folder(tmp_path, store, kind, scheme):
    folder = tmp_path / "data"
    write_dataset(folder, counts={"train": 11, "val": 2}, **kind)
    url = folder.as_uri()
    if scheme == "memory":
        url = "memory://test-remote"
        fsspec.filesystem("memory").put(str(folder), "/test-remote", recursive=True)
    elif scheme == "counted":
        url = put(store, folder)
    for values in ("counts", "normalized", "sparse"):
        ours, theirs = stpatch.open(url, "train", values=values), stpatch.open(folder, "train", values=values)
        assert ours.place == url
        for one, other in zip(ours.batches(2, shuffle=True), theirs.batches(2, shuffle=True), strict=True):
            assert one.keys == other.keys
            for name in ("x", "positions", "counts", "totals", "genes", "measured"):
                if hasattr(one, name):
                    np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        assert ours["s2-000005"].meta == theirs["s2-000005"].meta
        assert ours.select(slide="s1").table.equals(theirs.select(slide="s1").table)
    assert ours.vocabulary.tolist() == theirs.vocabulary.tolist()
    if scheme == "memory":
        fsspec.filesystem("memory").rm("/test-remote", recursive=True)


def test_the_first_batch_of_a_thousand_shards_takes_few_requests(tmp_path, store):
    folder = tmp_path / "data"
    write_dataset(folder, counts={"train": 2000}, patches=2, genes=False)
    url = put(store, folder)
    dataset = stpatch.open(url, "train")
    asked = Counter(path.removeprefix("/bucket/data/") for path, _, _ in store.asked)
    assert asked == {"manifest.json": 1, "genes.parquet": 1, "slides.parquet": 1, "patches.parquet": 1}
    store.asked.clear()
    dataset.batch([0, 1])
    assert [path for path, _, _ in store.asked] == ["/bucket/data/train/train-000000.tar"]
    store.asked.clear()
    again = stpatch.open(url, "train")  # the tables are kept
    again.batch([0, 1])
    assert [path.rsplit("/", 1)[1] for path, _, _ in store.asked] == ["manifest.json", "train-000000.tar"]


def test_neighbours_are_one_request_and_the_next_batches_come_ahead(tmp_path, store):
    folder = tmp_path / "data"
    write_dataset(folder, counts={"train": 40}, patches=20)
    dataset = stpatch.open(put(store, folder), "train")
    store.asked.clear()
    batches = dataset.batches(2)
    next(batches)
    next(batches)
    dataset.batch([2, 3, 4])  # on its way already
    dataset._reader._files._executor().shutdown(wait=True)
    assert 2 <= len(store.asked) <= 3  # the first batch, the next four, the four after them
    dataset.close()
    store.asked.clear()
    assert sum(len(batch.keys) for batch in dataset.batches(2)) == 40
    assert len(store.asked) <= 8
    assert sum(stop - start for _, start, stop in store.asked) <= sum(
        shard.bytes for shard in dataset.manifest.splits["train"].shards
    )


@pytest.mark.parametrize(
    "faults",
    [
        [ConnectionResetError("peer")],
        [OSError(16, "503 Slow Down"), OSError(16, "503 Slow Down")],
        [10],
        [0, TimeoutError(), 3],
        [RuntimeError("a class of the file system's own")],
    ],
    ids=str,
)
def test_what_passes_is_tried_again(tmp_path, store, faults):
    folder = tmp_path / "data"
    write_dataset(folder)
    url = put(store, folder)
    expected = stpatch.open(folder, "train").batch([1, 2]).x
    for late in (False, True):
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
        if not late:
            store.faults += [fault for fault in faults if isinstance(fault, Exception)]
        dataset = stpatch.open(url, "train")
        if late:
            store.faults += faults
        np.testing.assert_array_equal(dataset.batch([1, 2]).x, expected)
        assert not store.faults


def test_what_goes_on_failing_is_a_fault_of_the_store(tmp_path, store):
    folder = tmp_path / "data"
    write_dataset(folder)
    url = put(store, folder)
    dataset = stpatch.open(url, "train")
    store.faults += [ConnectionResetError("peer")] * 4
    with pytest.raises(RemoteError, match=r"train-000000.tar(.|\n)*ConnectionResetError: peer(.|\n)*4 times") as told:
        dataset.batch([0])
    assert told.value.exit_code == 1
    assert isinstance(told.value, OSError)
    assert len(dataset.batch([0]).keys) == 1  # and later it works
    store.faults.append(PermissionError("denied"))
    with pytest.raises(RemoteError, match=r"PermissionError(.|\n)*what may be done"):
        dataset.batch([1])
    assert not store.faults


def test_what_is_not_there(tmp_path, store):
    folder = tmp_path / "data"
    write_dataset(folder)
    url = put(store, folder)
    with pytest.raises(DatasetError, match=r"not a dataset(.|\n)*counted://nowhere"):
        stpatch.open("counted://nowhere", "train")
    dataset = stpatch.open(url, "train")
    store.rm_file("/bucket/data/train/train-000000.tar")
    with pytest.raises(DatasetError, match=r"a shard is missing(.|\n)*counted://bucket/data/train/train-000000.tar"):
        dataset.batch([0])
    store.pipe_file("/bucket/data/slides.parquet", b"x" * dataset.manifest.tables["slides"].bytes)
    shutil.rmtree(tmp_path / "cache")
    with pytest.raises(DatasetError, match=r"checksum is wrong(.|\n)*counted://bucket/data/slides.parquet"):
        stpatch.open(url, "train")
    with pytest.raises(RemoteError, match="does not know"):
        stpatch.open("nosuch://bucket/data", "train")


def test_a_missing_package_is_told(monkeypatch):
    def missing(_url):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.core.url_to_fs", missing)
    with pytest.raises(MissingExtraError, match=r"s3:// URLs(.|\n)*'s3fs'(.|\n)*stpatch\[remote\]"):
        stpatch.open("s3://bucket/data", "train")


@pytest.mark.parametrize("format_", ["tar", "zarr"])
def test_whole_shards_are_kept_where_that_is_wanted(tmp_path, store, format_):
    folder, cache = tmp_path / "data", tmp_path / "shards"
    write_dataset(folder, format=format_)
    url = put(store, folder)
    expected = [batch.x for batch in stpatch.open(folder, "train").batches(3)]
    for first in (True, False):
        dataset = stpatch.open(url, "train", cache=cache)
        store.asked.clear()
        for batch, x in zip(dataset.batches(3), expected, strict=True):
            np.testing.assert_array_equal(batch.x, x)
        assert bool(store.asked) is first
    copied = stpatch.open(folder, "train", cache=tmp_path / "of a folder")
    np.testing.assert_array_equal(copied.batch([0, 1, 2]).x, expected[0])
    shard = dataset.manifest.splits["train"].shards[0]
    (cache / dataset.folder.name / shard.path).unlink()
    data = bytearray(store.cat_file(f"/bucket/data/{shard.path}"))
    data[40] ^= 1
    store.pipe_file(f"/bucket/data/{shard.path}", bytes(data))
    dataset = stpatch.open(url, "train", cache=cache)
    with pytest.raises(RemoteError, match=r"not the one that is wanted"):
        dataset.batch([0])
    assert not (cache / dataset.folder.name / shard.path).exists()


def test_it_goes_to_another_process(tmp_path, store):
    folder = tmp_path / "data"
    write_dataset(folder)
    dataset = stpatch.open(put(store, folder), "train").subset([3, 1])
    dataset.batch([0])
    there = pickle.loads(pickle.dumps(dataset))
    np.testing.assert_array_equal(there.batch([0, 1]).x, dataset.batch([0, 1]).x)
    dataset._reader._files._threads = (-1, None)  # as a fork finds it
    np.testing.assert_array_equal(dataset.batch([0, 1]).x, there.batch([0, 1]).x)


def test_without_a_cache_tables_are_fetched_and_it_is_said(tmp_path, store, monkeypatch):
    folder = tmp_path / "data"
    write_dataset(folder)
    url = put(store, folder)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("STPATCH_CACHE", str(tmp_path / "file"))
    with pytest.warns(RuntimeWarning, match="STPATCH_CACHE"):
        dataset = stpatch.open(url, "train")
    assert len(dataset.batch([0]).keys) == 1
    dataset._home._temporary.cleanup()
