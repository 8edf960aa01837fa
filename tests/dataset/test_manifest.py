from __future__ import annotations

import copy
import json

import pytest
from bundles.dataset import write_dataset

from stpatch.dataset.manifest import (
    FORMAT_VERSION,
    MANIFEST,
    manifest_digest,
    parse_manifest,
    parse_shard,
    read_manifest,
)
from stpatch.errors import DatasetError
from stpatch.storage import canonical_json


@pytest.fixture(params=[{}, {"format": "zarr"}, {"genes": False, "variable": True}])
def built(request, tmp_path):
    return write_dataset(tmp_path, **request.param), json.loads((tmp_path / MANIFEST).read_text())


def test_what_is_written_is_read(built, tmp_path):
    manifest, value = built
    again = read_manifest(tmp_path)
    assert canonical_json(again.as_json()) == canonical_json(value)
    assert again.layout == manifest.layout
    assert list(again.splits) == ["train", "val"]
    assert again.patches == 7
    assert value["totals"]["shards"] == 3
    for split in again.splits.values():
        for shard in split.shards:
            assert parse_shard(shard.as_json(), again.layout) == shard


def test_the_file_tells_nothing_of_where_it_was_made(built, tmp_path):
    text = (tmp_path / MANIFEST).read_text()
    assert str(tmp_path) not in text
    assert "time" not in text


def set_at(value, keys, new):
    for key in keys[:-1]:
        value = value[key]
    if new is ...:
        del value[keys[-1]]
    else:
        value[keys[-1]] = new


@pytest.mark.parametrize(
    ("keys", "new", "message"),
    [
        (["format"], "other", "not a manifest of stpatch"),
        (["version"], FORMAT_VERSION + 1, "newer format(.|\n)*pip install"),
        (["version"], 0, "key version"),
        (["version"], True, "key version"),
        (["tensor"], [], "key tensor"),
        (["tensor", "shape"], [4, 3], "key tensor.shape"),
        (["tensor", "shape"], [4, 0, 5], "key tensor.shape"),
        (["tensor", "dtype"], "object", "key tensor.dtype"),
        (["tensor", "encoding"], "zstd", "key tensor.encoding"),
        (["tensor", "values"], ..., "key tensor.values"),
        (["shards", "format"], "hdf5", "key shards.format"),
        (["shards", "fields"], ["x.blosc"], "key shards.fields"),
        (["channels", "scope"], "world", "key channels.scope"),
        (["labels", "region"], [1], "key labels.region"),
        (["split_order"], ["train"], "key split_order"),
        (["splits", "train", "patches"], 5, "key splits.train.patches"),
        (["splits", "train", "bytes"], 5, "key splits.train.bytes"),
        (["splits", "train", "spots"], -5, "key splits.train.spots"),
        (["splits", "train", "shards"], {}, "key splits.train.shards"),
        (["splits", "train", "shards", 0, "path"], "../train.tar", "shards\\[0\\].path"),
        (["splits", "train", "shards", 0, "path"], "/etc/passwd", "shards\\[0\\].path"),
        (["splits", "train", "shards", 0, "path"], "train/train-000001.tar", "every file once"),
        (["splits", "train", "shards", 0, "sha256"], "00", "shards\\[0\\].sha256"),
        (["totals", "patches"], 8, "key totals.patches"),
        (["tables", "genes"], ..., "key tables.genes"),
        (["tables", "genes", "path"], "a/../../b", "key tables.genes.path"),
        (["fingerprint"], None, "key fingerprint"),
        (["tensor", "shape", 0], 2**31, "key tensor.shape(.|\n)*at most 2147483647"),
        (["tensor", "shape"], [2**30, 2**30, 2**30], "key tensor.shape"),
        (["channels", "pad_id"], 2**31, "key channels.pad_id"),
        (["totals", "patches"], 10**300, "key totals.patches"),
        (["splits", "/etc"], {"patches": 0, "spots": 0, "bytes": 0, "shards": []}, "key splits(.|\n)*'/etc'"),
        (["labels", "a/b"], [], "key labels"),
        (["files", 0, "path"], "manifest.json", "key files"),
        (["files", 0, "path"], "train/../../x", "key files"),
    ],
)
def test_a_damaged_manifest_is_told_by_its_key(tmp_path, keys, new, message):
    write_dataset(tmp_path)
    value = json.loads((tmp_path / MANIFEST).read_text())
    damaged = copy.deepcopy(value)
    set_at(damaged, keys, new)
    damaged["digest"] = manifest_digest(damaged)
    (tmp_path / MANIFEST).write_text(json.dumps(damaged))
    with pytest.raises(DatasetError, match=message):
        read_manifest(tmp_path)


def test_any_other_value_is_told_by_the_digest(built, tmp_path):
    _, value = built
    for keys, new in [(["dataset", "name"], "other"), (["totals", "spots"], 1), (["unknown"], 1), (["digest"], ...)]:
        changed = copy.deepcopy(value)
        set_at(changed, keys, new)
        with pytest.raises(DatasetError, match="not as it was written"):
            parse_manifest(changed)


def test_the_digest_is_that_of_the_other_keys(built):
    import hashlib

    _, value = built
    rest = {key: item for key, item in value.items() if key != "digest"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert value["digest"] == hashlib.sha256(text.encode()).hexdigest()


def test_every_file_is_named(built, tmp_path):
    manifest, _ = built
    there = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert {file.path for file in manifest.all_files()} == there - {MANIFEST}


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000])
def test_what_is_no_manifest(tmp_path, data):
    (tmp_path / MANIFEST).write_bytes(data)
    with pytest.raises(DatasetError):
        read_manifest(tmp_path)


def test_any_missing_key_is_a_readable_error(built):
    _, value = built
    for key in value:
        less = {name: part for name, part in value.items() if name != key}
        with pytest.raises(DatasetError):
            parse_manifest(less)
