from __future__ import annotations

import io

import numpy as np
import pytest
import zarr
from bundles.dataset import make_layout, make_sample, write_shard
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.storage import MemoryStore

from stpatch.dataset.entries import SplitEntry
from stpatch.dataset.formats.zarr import MISSING, ZarrShard, group_metadata, index_bytes, parse_index, shard_path
from stpatch.dataset.sample import encode_meta
from stpatch.errors import DatasetError
from stpatch.registry import ENCODINGS, FORMATS


def expected(samples, layout):
    """What zarr itself stores for the same samples."""
    store = MemoryStore()
    for path, data in group_metadata(layout, patches=len(samples)).items():
        store._store_dict[path] = zarr.core.buffer.cpu.Buffer.from_bytes(data)
    group = zarr.open_group(store, mode="r+")
    for spec in layout.planes:
        whole = np.full((len(samples), *spec.shape), spec.fill, dtype=spec.dtype)
        for row, sample in enumerate(samples):
            name = spec.name.removeprefix("label_")
            array = sample.labels[name] if name in sample.labels else getattr(sample, spec.name)
            whole[(row, *(slice(0, size) for size in array.shape))] = array
        group[spec.name][:] = whole
    return group


@given(
    count=st.integers(1, 9),
    encoding=st.sampled_from(["blosc", "npy", "sparse"]),
    dtype=st.sampled_from(["uint16", "uint32", "float32", "float16"]),
    variable=st.booleans(),
    genes=st.booleans(),
    labels=st.sampled_from([(), ("region",), ("a", "b")]),
)
@settings(max_examples=25, deadline=None)
def test_plain_zarr_reads_what_zarr_would_have_written(
    tmp_path_factory, count, encoding, dtype, variable, genes, labels
):
    if ENCODINGS.get(encoding).counts_only and dtype.startswith("float"):
        dtype = "uint16"
    layout = make_layout(
        format="zarr", encoding=encoding, dtype=dtype, variable=variable, genes=genes, labels=labels, patches=4
    )
    folder = tmp_path_factory.mktemp("zarr")
    samples = [make_sample(number, layout) for number in range(count)]
    shards = [
        write_shard(folder, samples[start : start + 4], split="train", number=number, layout=layout).entry
        for number, start in enumerate(range(0, count, 4))
    ]
    split = SplitEntry.of(shards, spots=0)
    FORMATS.get("zarr").write_split_files(folder, name="train", split=split, layout=layout)
    group = zarr.open(folder / "train.zarr", mode="r")
    theirs = expected(samples, layout)
    assert sorted(group.array_keys()) == sorted(["meta", *(spec.name for spec in layout.planes)])
    for row, sample in enumerate(samples):
        assert group["meta"].dtype == "uint8"
        assert bytes(group["meta"][row]).rstrip(b"\0") == encode_meta(sample, layout)
    for spec in layout.planes:
        array = group[spec.name]
        assert array.dtype == spec.dtype
        assert array.shape == (count, *spec.shape)
        assert array.shards == (4, *spec.shape)
        np.testing.assert_array_equal(array[:], theirs[spec.name][:])
        np.testing.assert_array_equal(array[count - 1], theirs[spec.name][count - 1])


def test_entry_and_byte_ranges(tmp_path):
    layout = make_layout(format="zarr", encoding="npy")
    samples = [make_sample(number, layout) for number in range(3)]
    written = write_shard(tmp_path, samples, split="val", number=7, layout=layout)
    record = written.entry
    assert record.patches == 3
    assert record.path == "val.zarr/x/c/7/0/0/0"
    assert sorted(record.parts) == ["genes", "label_region", "meta", "totals"]
    assert record.parts["genes"].path == "val.zarr/genes/c/7/0"
    data = (tmp_path / record.path).read_bytes()
    assert len(data) == record.bytes
    for sample, (offset, nbytes) in zip(samples, written.ranges, strict=True):
        assert data[offset : offset + nbytes] == sample.x.astype("<u2").tobytes()
    index = parse_index(data[-index_bytes(4) :], chunks=4)
    assert [tuple(map(int, row)) for row in index[:3]] == list(written.ranges)
    assert (index[3] == MISSING).all()
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {"0"}  # nothing temporary is left


def test_nothing_appears_when_a_sample_fails(tmp_path):
    layout = make_layout(format="zarr")

    def samples():
        yield make_sample(0, layout)
        yield make_sample(1, make_layout(format="zarr", shape=(5, 3, 5)))

    with pytest.raises(DatasetError, match="x does not fit the dataset"):
        write_shard(tmp_path, samples(), split="train", number=0, layout=layout)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_too_many_samples_and_a_damaged_index():
    shard = ZarrShard(io.BytesIO(), chunks=1)
    shard.add(b"a")
    with pytest.raises(DatasetError, match="more samples than its index"):
        shard.add(b"b")
    file = io.BytesIO()
    ZarrShard(file, chunks=2).finish()
    data = bytearray(file.getvalue())
    assert parse_index(bytes(data), chunks=2).shape == (2, 2)
    data[0] ^= 1
    with pytest.raises(DatasetError, match="index is damaged"):
        parse_index(bytes(data), chunks=2)


def test_paths():
    specs = {spec.name: spec for spec in make_layout(format="zarr").planes}
    assert shard_path("train", specs["totals"], 12) == "train.zarr/totals/c/12/0/0"
