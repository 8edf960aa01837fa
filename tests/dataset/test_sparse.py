"""Encoding `sparse`: its parts, its bounds, its card's decoder and its zarr codec."""

from __future__ import annotations

import importlib.metadata
import struct

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numcodecs import zstd

from stpatch.config_file import parse_config
from stpatch.dataset.codecs import decode, encode
from stpatch.dataset.codecs.sparse import HEADER, Sparse
from stpatch.dataset.zarr_codec import NAME, SparseCodec
from stpatch.errors import ConfigError, DatasetError
from stpatch.registry import ENCODINGS

SPARSE = ENCODINGS.get("sparse")
assert isinstance(SPARSE, Sparse)
VALUES = [0, 1, 2, 253, 254, 255, 256, 257, 65534, 65535]
LARGE = [65536, 2**24 + 1, 2**31, 2**32 - 1]


@st.composite
def patches(draw, *, least=1):
    """Return counts of any density, with values about the escape and at the dtype's end."""
    dtype = draw(st.sampled_from(["uint16", "uint32"]))
    shape = (draw(st.integers(least, 9)), draw(st.integers(least, 9)), draw(st.integers(least, 9)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    values = VALUES + (LARGE if dtype == "uint32" else [])
    x = rng.choice(np.array(values[draw(st.integers(0, 1)) :], dtype), shape)
    x[rng.random(shape) < draw(st.sampled_from([0.0, 0.5, 0.95, 1.0]))] = 0
    x[:, rng.random(shape[1:]) < draw(st.sampled_from([0.0, 0.5, 1.0]))] = 0
    return x


def example():
    """Return a patch with an empty pixel, an escaped value and one that is just not."""
    x = np.zeros((3, 2, 5), np.uint16)
    x[0, 0] = [1, 0, 254, 255, 7]
    x[2, 1] = [0, 3, 300, 0, 0]
    return x


def frame_of(numbers, content, **changes):
    """Return a frame of a header's numbers and its parts, neither of which need to fit."""
    return HEADER.pack(*(numbers | changes).values()) + zstd.compress(bytes(content), 1, True)


def parts_of(frame):
    names = ("itemsize", "channels", "pixels", "occupied", "nonzero", "escaped")
    return dict(zip(names, HEADER.unpack(frame[:24]), strict=True)), bytearray(zstd.decompress(frame[24:]))


@given(patches(least=0))
@settings(max_examples=150, deadline=None)
def test_what_goes_in_comes_out(x):
    frame = encode(x, "sparse")
    found = decode(frame, "sparse", dtype=x.dtype, shape=x.shape)
    assert (found.dtype, found.flags.writeable) == (x.dtype, True)
    np.testing.assert_array_equal(found, x)
    assert frame == encode(np.asfortranarray(x), "sparse") == encode(x.astype(x.dtype.newbyteorder(">")), "sparse")
    batch = np.full((2, *x.shape), 9, x.dtype)
    SPARSE.decode_into(frame, batch[1])
    np.testing.assert_array_equal(batch[1], x)
    turned = np.full(x.shape[::-1], 9, x.dtype).T
    SPARSE.decode_into(frame, turned)
    np.testing.assert_array_equal(turned, x)
    assert (batch[0] == 9).all()
    index, values = SPARSE.decode_entries(memoryview(frame), dtype=x.dtype, shape=x.shape)
    assert (index.dtype, values.dtype) == (np.int32, x.dtype)
    np.testing.assert_array_equal(index, np.flatnonzero(x))
    np.testing.assert_array_equal(values, x.reshape(-1)[np.flatnonzero(x)])


@given(patches())
@settings(max_examples=60, deadline=None)
def test_the_cards_decoder_needs_numpy_and_zstandard_alone(x):
    imports, lines = SPARSE.snippet("x.sparse", dtype=str(x.dtype), shape=str(x.shape))
    names = {"sample": {"x.sparse": encode(x, "sparse")}}
    exec("\n".join([*imports, *lines]), names)
    assert names["x"].dtype == x.dtype
    np.testing.assert_array_equal(names["x"], x)


def test_the_bytes_are_those_of_the_specification():
    numbers, content = parts_of(encode(example(), "sparse"))
    assert numbers == {"itemsize": 2, "channels": 3, "pixels": 10, "occupied": 6, "nonzero": 6, "escaped": 2}
    # occupied pixels 0, 2, 3, 4, 6, 7: channel 0 has the first four of them, channel 2 the last two
    assert content[:3] == bytes([0b00001111, 0b00000000, 0b00000011])
    assert content[3:9] == bytes([1, 254, 255, 7, 3, 255])
    assert content[9:13] == struct.pack("<2H", 255, 300)
    assert content[13:] == bytes([0b11011101, 0b00000000])


def test_a_leading_axis_of_one_changes_nothing():
    x = example()
    assert encode(x[None], "sparse") == encode(x, "sparse")
    np.testing.assert_array_equal(decode(encode(x, "sparse"), "sparse", dtype="u2", shape=(1, 3, 2, 5))[0], x)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int16", "int32", "uint8", "bool"])
def test_what_is_not_counts_is_refused(dtype):
    with pytest.raises(DatasetError, match=rf"sparse holds counts only(.|\n)*{dtype}(.|\n)*hint: +set shards.values"):
        encode(np.zeros((2, 2, 2), dtype), "sparse")
    with pytest.raises(DatasetError, match="sparse holds counts only"):
        decode(encode(example(), "sparse"), "sparse", dtype=dtype, shape=(3, 2, 5))


def test_wrong_calls_are_refused():
    frame = encode(example(), "sparse")
    with pytest.raises(ValueError, match="needs dtype and shape"):
        decode(frame, "sparse", shape=(3, 2, 5))


def test_the_config_refuses_normalized_values():
    sections = {"dataset": {"output": "o"}, "slides": ["a"]}
    parse_config({**sections, "shards": {"encoding": "sparse"}})
    with pytest.raises(ConfigError, match=r"shards\.encoding: sparse holds counts only; set shards\.values: counts"):
        parse_config({**sections, "shards": {"encoding": "sparse", "values": "normalized"}})


# -- hostile bytes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", range(len(encode(example(), "sparse"))))
def test_every_flipped_bit_is_told(place):
    frame, x = bytearray(encode(example(), "sparse")), example()
    for bit in range(8):
        frame[place] ^= 1 << bit
        with pytest.raises(DatasetError, match=r"train-000000\.tar"):
            decode(bytes(frame), "sparse", dtype=x.dtype, shape=x.shape, where="train-000000.tar")
        frame[place] ^= 1 << bit


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"itemsize": 4}, "holds another array"),
        ({"channels": 4}, "holds another array"),
        ({"pixels": 11}, "holds another array"),
        ({"occupied": 11}, "more than fits"),
        ({"occupied": 2**32 - 1, "nonzero": 2**32 - 1, "escaped": 2**32 - 1}, "more than fits"),
        ({"nonzero": 19}, "more than fits"),
        ({"nonzero": 5}, "another number of bytes"),
        ({"escaped": 7}, "more than fits"),
        ({"escaped": 1}, "another number of bytes"),
        ({"nonzero": 8, "escaped": 1}, "other numbers of occupied pixels"),
        ({"occupied": 7}, "other numbers of occupied pixels"),
    ],
)
def test_a_header_that_lies_is_told(changes, message):
    numbers, content = parts_of(encode(example(), "sparse"))
    with pytest.raises(DatasetError, match=message):
        decode(frame_of(numbers, content, **changes), "sparse", dtype="u2", shape=(3, 2, 5))


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (2, 0b111, "bits beyond its pixels|other numbers"),
        (2, 0b101, "bits beyond its pixels"),
        (3, 255, "other numbers"),
        (5, 254, "other numbers"),
        (13, 0b11011111, "other numbers"),
        (14, 0b100, "other numbers"),
    ],
)
def test_parts_that_contradict_the_header_are_told(place, value, message):
    numbers, content = parts_of(encode(example(), "sparse"))
    content[place] = value
    with pytest.raises(DatasetError, match=message):
        decode(frame_of(numbers, content), "sparse", dtype="u2", shape=(3, 2, 5))


def test_bits_beyond_the_shape_are_told():
    numbers, content = parts_of(encode(example(), "sparse"))
    content[13:] = bytes([0b11011100, 0b00000100])  # as many as before, one of them behind the last pixel
    with pytest.raises(DatasetError, match="bits beyond its pixels"):
        decode(frame_of(numbers, content), "sparse", dtype="u2", shape=(3, 2, 5))


@pytest.mark.parametrize("checksum", [True, False])
@pytest.mark.parametrize("size", [0, 14, 16, 10**6])
def test_a_frame_of_another_size_is_told_before_it_is_unpacked(size, checksum):
    numbers, _ = parts_of(encode(example(), "sparse"))
    frame = HEADER.pack(*numbers.values()) + zstd.compress(bytes(size), 1, checksum)
    with pytest.raises(DatasetError, match="another number of bytes"):
        decode(frame, "sparse", dtype="u2", shape=(3, 2, 5))


@given(patches(), st.data())
@settings(max_examples=200, deadline=None)
def test_whatever_the_parts_hold_nothing_is_written_beside_the_patch(x, data):
    numbers, content = parts_of(encode(x, "sparse"))
    for _ in range(data.draw(st.integers(1, 4))):
        if content:
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    name = data.draw(st.sampled_from(["occupied", "nonzero", "escaped"]))
    numbers[name] = max(0, numbers[name] + data.draw(st.sampled_from([0, 0, 1, -1, 8])))
    frame = frame_of(numbers, content)
    batch = np.full((3, *x.shape), 77, x.dtype)
    try:
        SPARSE.decode_into(frame, batch[1])
        index, values = SPARSE.decode_entries(frame, dtype=x.dtype, shape=x.shape)
    except DatasetError:
        pass
    else:
        dense = np.zeros(x.size, x.dtype)
        assert 0 <= index.min(initial=0) <= index.max(initial=0) < x.size
        dense[index] = values
        np.testing.assert_array_equal(dense.reshape(x.shape), batch[1])
    assert (batch[0] == 77).all()
    assert (batch[2] == 77).all()


# -- zarr -------------------------------------------------------------------------------------------------------------


def test_plain_zarr_writes_the_same_chunks():
    x = np.stack([example(), 2 * example(), 0 * example()])
    store = zarr.storage.MemoryStore()
    array = zarr.create_array(
        store, shape=x.shape, dtype=x.dtype, chunks=(1, *x.shape[1:]), serializer=SparseCodec(), compressors=None,
        fill_value=0,
    )  # fmt: skip
    array[:] = x
    np.testing.assert_array_equal(zarr.open_array(store, mode="r")[:], x)
    assert store._store_dict["c/1/0/0/0"].to_bytes() == encode(x[1], "sparse")


def test_the_codec_in_metadata_has_a_name_and_nothing_else():
    assert SparseCodec().to_dict() == {"name": NAME}
    assert SparseCodec.from_dict({"name": NAME}) == SparseCodec()
    with pytest.raises(ValueError, match=r"[Nn]ame|bytes"):
        SparseCodec.from_dict({"name": "bytes"})
    with pytest.raises(NotImplementedError):
        SparseCodec().compute_encoded_size(1, None)


def test_zarr_finds_the_codec_by_the_entry_point_of_an_installed_stpatch():
    import tomllib
    from pathlib import Path

    import stpatch

    project = tomllib.loads((Path(stpatch.__file__).parents[1] / "pyproject.toml").read_text())["project"]
    value = project["entry-points"]["zarr.codecs"][NAME]
    assert importlib.metadata.EntryPoint(NAME, value, "zarr.codecs").load() is SparseCodec
