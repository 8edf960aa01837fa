"""No flipped bit of a shard gives other numbers."""

from __future__ import annotations

import contextlib
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from bundles.dataset import write_dataset

import stpatch
from stpatch.dataset.validate import verify
from stpatch.errors import DatasetError

EARLIER = Path(__file__).parents[1] / "earlier"
KINDS = [{"format": name, "encoding": encoding} for name in ("tar", "zarr") for encoding in ("blosc", "npy", "sparse")]


def flip(path: Path, place: int, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1 << bit]))


def stored_ranges(dataset, number):
    """Return the files and ranges that hold a sample, but not what its format adds for other readers."""
    address = dataset._addresses(np.array([number]))[0]
    yield address.shard, *address.byte_range
    for name, part in address.shard.parts.items():
        if name in {plane.name for plane in dataset.manifest.layout.planes}:
            yield part, *dataset._reader._reader._chunk(part, address.index, "")


@pytest.mark.parametrize("values", ["counts", "normalized", "sparse"])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(kind.values()))
def test_every_flipped_bit_of_a_sample_is_told(tmp_path, kind, values):
    write_dataset(tmp_path, counts={"train": 3}, **kind)
    dataset = stpatch.open(tmp_path, values=values)
    assert dataset.verified
    flips = 0
    for number in (0, 2):
        key = dataset.batch([number]).keys[0]
        for file, offset, nbytes in stored_ranges(dataset, number):
            for place in range(offset, offset + nbytes, 5 if kind["format"] == "tar" else 1):
                flip(tmp_path / file.path, place, place % 8)
                with pytest.raises(DatasetError, match=r"not as it was written(.|\n)*CRC-32C(.|\n)*hint") as told:
                    dataset.batch([number])
                assert key in str(told.value)
                assert str(tmp_path / dataset.manifest.splits["train"].shards[0].path) in str(told.value)
                flip(tmp_path / file.path, place, place % 8)
                flips += 1
        dataset.batch([number])
    assert flips > 100


@pytest.mark.parametrize("kind", KINDS[:2] + KINDS[3:5], ids=lambda kind: "-".join(kind.values()))
def test_without_checksums_some_give_other_numbers(tmp_path, kind):
    """What verification is there for: if this fails, the encoding has come to notice by itself."""
    write_dataset(tmp_path, counts={"train": 1}, **kind)
    dataset = stpatch.open(tmp_path, verify=False)
    whole = dataset.batch([0]).x
    silent = 0
    file, offset, nbytes = next(stored_ranges(dataset, 0))
    for place in range(offset, offset + nbytes):
        flip(tmp_path / file.path, place, 0)
        with contextlib.suppress(DatasetError):
            silent += not np.array_equal(dataset.batch([0]).x, whole)
        flip(tmp_path / file.path, place, 0)
    assert silent
    assert "not verified" in repr(dataset)


@pytest.mark.parametrize("format_", ["tar", "zarr"])
def test_validate_always_looks(tmp_path, format_):
    manifest = write_dataset(tmp_path, counts={"train": 2}, format=format_, encoding="npy")
    assert not list(verify(tmp_path, deep=True))
    dataset = stpatch.open(tmp_path)
    file, offset, nbytes = next(stored_ranges(dataset, 1))
    flip(tmp_path / file.path, offset + nbytes // 2, 3)
    problems = list(verify(tmp_path, deep=True))
    assert any("not as it was written" in problem.what and "s2-000001" in str(problem.where) for problem in problems)
    assert manifest.version == 2


def test_a_worker_checks_as_its_parent_does(tmp_path):
    write_dataset(tmp_path, counts={"train": 2})
    for wanted in (True, False):
        there = pickle.loads(pickle.dumps(stpatch.open(tmp_path, verify=wanted)))
        assert there.verified is wanted


@pytest.mark.parametrize("name", ["tar", "zarr"])
def test_format_1_is_read_and_says_that_nothing_is_checked(tmp_path, name):
    with zipfile.ZipFile(EARLIER / f"format-1-{name}.zip") as archive:
        archive.extractall(tmp_path)
    (path,) = tmp_path.rglob("manifest.json")
    dataset = stpatch.open(path.parent, "train")
    assert not dataset.verified
    assert "not verified" in repr(dataset)
    assert len(dataset.batch(range(len(dataset))).keys) == len(dataset)
    with pytest.raises(DatasetError, match=r"no checksums(.|\n)*format 1(.|\n)*validate"):
        stpatch.open(path.parent, "train", verify=True)
    assert "crc32c" not in dataset.table.column_names
