from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from bundles.dataset import write_dataset
from hypothesis import given
from hypothesis import strategies as st

import stpatch
from stpatch.dataset import rows
from stpatch.dataset.manifest import read_manifest
from stpatch.dataset.rows import hash_keys, open_rows
from stpatch.dataset.tables import patch_columns, write_table
from stpatch.errors import DatasetError

COUNTS = {"train": 11, "val": 3, "test": 2}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Map tables of any size, from a folder of the test's own."""
    monkeypatch.setattr(rows, "MAPPED_ROWS", 0)
    monkeypatch.setenv("STPATCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tables"


def file_of(cache):
    (file,) = cache.iterdir()
    return file


@pytest.mark.parametrize("kind", [{}, {"variable": True}, {"format": "zarr"}])
def test_mapped_rows_are_those_in_memory(tmp_path, monkeypatch, kind):
    folder = tmp_path / "dataset"
    write_dataset(folder, counts=COUNTS, **kind)
    monkeypatch.setenv("STPATCH_CACHE", str(tmp_path / "cache"))
    for split in COUNTS:
        with monkeypatch.context() as patch:
            plain = stpatch.open(folder, split)
            assert split != "train" or not (tmp_path / "cache").exists()
            patch.setattr(rows, "MAPPED_ROWS", 0)
            mapped = stpatch.open(folder, split)
        assert len(plain) == len(mapped) == COUNTS[split]
        assert sorted(mapped._rows.columns) == sorted(plain._rows.columns)
        for ours, theirs in zip(mapped, plain, strict=True):
            assert ours.key == theirs.key
            assert ours.meta == theirs.meta
            np.testing.assert_array_equal(ours.x, theirs.x)
            assert mapped.number(ours.key) == plain.number(ours.key)
        for column in ("slide", "row", "split", "shard", "key", "platform", "coverage"):
            ours, theirs = mapped.codes(column), plain.codes(column)
            np.testing.assert_array_equal(ours[0], theirs[0])
            assert ours[1] == theirs[1]
        assert mapped.table.equals(plain.table)
        assert mapped.stats() == plain.stats()
        assert [s.key for s in mapped.select(slide="s2")] == [s.key for s in plain.select(slide="s2")]
    assert len(list((tmp_path / "cache" / "tables").iterdir())) == 1


def test_once_mapped_the_table_is_not_read_again(tmp_path, cache):
    folder = tmp_path / "dataset"
    write_dataset(folder, counts=COUNTS)
    keys = [sample.key for sample in stpatch.open(folder, "train")]
    before = file_of(cache).stat()
    copied = tmp_path / "copied"
    shutil.copytree(folder, copied)
    (copied / "patches.parquet").unlink()
    assert [sample.key for sample in stpatch.open(copied, "train")] == keys
    assert file_of(cache).stat() == before


def test_columns_of_another_table_are_never_taken(tmp_path, cache):
    folder = tmp_path / "dataset"
    write_dataset(folder, counts=COUNTS)
    stpatch.open(folder, "train")
    file_of(cache).unlink()
    path = folder / "patches.parquet"
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(DatasetError, match=r"checksum is wrong(.|\n)*patches.parquet"):
        stpatch.open(folder, "train")
    path.unlink()
    with pytest.raises(DatasetError, match="a table is missing"):
        stpatch.open(folder, "train")


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data[: len(data) // 2], lambda _: b"x"])
def test_a_damaged_cache_is_made_again(tmp_path, cache, damage):
    write_dataset(tmp_path / "dataset", counts=COUNTS)
    keys = [sample.key for sample in stpatch.open(tmp_path / "dataset", "train")]
    whole = file_of(cache).read_bytes()
    file_of(cache).write_bytes(damage(whole))
    assert [sample.key for sample in stpatch.open(tmp_path / "dataset", "train")] == keys
    assert file_of(cache).read_bytes() == whole


def test_without_a_cache_it_says_so(tmp_path, cache, monkeypatch):
    write_dataset(tmp_path / "dataset", counts=COUNTS)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("STPATCH_CACHE", str(tmp_path / "file"))
    with pytest.warns(RuntimeWarning, match="STPATCH_CACHE"):
        dataset = stpatch.open(tmp_path / "dataset", "train")
    assert dataset[dataset[3].key].key == dataset[3].key


def test_rows_of_a_split_that_do_not_stand_together(tmp_path, cache):
    manifest = write_dataset(tmp_path, counts=COUNTS)
    columns = patch_columns(manifest.layout)
    table = stpatch.open(tmp_path, "train").table
    values = {name: table[name].to_pylist() for name in columns}
    values["split"][4] = "val"
    entry = write_table(tmp_path / "other", "patches", columns, values)
    with pytest.raises(DatasetError, match=r"do not stand together(.|\n)*train at row 5"):
        open_rows(tmp_path / "other" / entry.path, entry, columns, split="train", rows=16)
    entry = read_manifest(tmp_path).tables["patches"]
    for file in cache.iterdir():
        file.unlink()
    for told in (15, 17):
        with pytest.raises(DatasetError, match="manifest and table disagree"):
            open_rows(tmp_path / entry.path, entry, columns, split="train", rows=told)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_keys_are_found_though_hashes_collide(tmp_path, monkeypatch):
    write_dataset(tmp_path, counts=COUNTS)
    monkeypatch.setattr(rows, "hash_keys", lambda _text, starts: np.zeros(len(starts) - 1, np.uint64))
    dataset = stpatch.open(tmp_path, "train")
    keys = [sample.key for sample in dataset]
    assert [dataset.number(key) for key in keys] == list(range(11))
    assert "s1-999999" not in dataset
    assert "" not in dataset
    assert "ü" not in dataset
    part = dataset.subset([5, 2, 5])
    assert [part.number(keys[n]) for n in (5, 2)] == [0, 1]
    assert keys[0] not in part


@given(st.sets(st.text("abc012-_", min_size=1, max_size=9), min_size=1, max_size=60))
def test_hashes_tell_keys_apart_and_depend_on_nothing_else(keys):
    texts = [key.encode() for key in sorted(keys)]
    starts = np.cumsum([0, *map(len, texts)])
    hashes = hash_keys(np.frombuffer(b"".join(texts), np.uint8), starts)
    assert len(set(hashes.tolist())) == len(texts)
    for text, value in zip(texts, hashes, strict=True):
        assert hash_keys(np.frombuffer(text, np.uint8), np.array([0, len(text)]))[0] == value


def test_the_file_is_the_same_for_the_same_table(tmp_path, cache):
    write_dataset(tmp_path / "dataset", counts=COUNTS)
    stpatch.open(tmp_path / "dataset", "val")
    entry = read_manifest(tmp_path / "dataset").tables["patches"]
    file = file_of(cache)
    first = file.read_bytes()
    assert file.name == f"{entry.sha256}.rows"
    file.unlink()
    stpatch.open(tmp_path / "dataset", "train")
    assert file.read_bytes() == first
    footer = first[: -rows.TAIL.size].decode("latin-1")
    assert json.loads(footer[footer.rindex('{"arrays"') :])["splits"] == {
        "train": [0, 11],
        "val": [11, 14],
        "test": [14, 16],
    }
