from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numcodecs import Blosc, blosc

from stpatch.dataset.codecs import decode, encode
from stpatch.errors import ConfigError, DatasetError
from stpatch.registry import ENCODINGS

DTYPES = ["uint16", "uint32", "int16", "int32", "float32", "float16", "float64"]
KINDS = [
    (name, dtype) for name in ENCODINGS.own() for dtype in (DTYPES[:2] if ENCODINGS.get(name).counts_only else DTYPES)
]


@given(
    st.sampled_from(KINDS),
    st.lists(st.integers(0, 7), min_size=1, max_size=4),
    st.integers(0, 2**32),
)
@settings(max_examples=150, deadline=None)
def test_what_goes_in_comes_out(kind, shape, seed):
    encoding, dtype = kind
    rng = np.random.default_rng(seed)
    array = (rng.poisson(0.5, shape) * rng.integers(1, 900)).astype(dtype)
    frame = encode(array, encoding)
    found = decode(frame, encoding, dtype=dtype, shape=tuple(shape))
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)
    assert found.flags.writeable
    assert (
        frame
        == encode(np.asfortranarray(array), encoding)
        == encode(array.astype(array.dtype.newbyteorder(">")), encoding)
    )


def test_a_blosc_frame_is_what_numcodecs_reads_and_writes():
    x = np.random.default_rng(0).poisson(0.3, (64, 16, 16)).astype(np.uint16)
    frame = encode(x)
    assert frame == Blosc("lz4", 5, Blosc.BITSHUFFLE).encode(x)
    np.testing.assert_array_equal(np.frombuffer(blosc.decompress(frame), np.uint16).reshape(x.shape), x)
    values = np.log1p(x, dtype=np.float32)
    assert encode(values) == Blosc("lz4", 5, Blosc.SHUFFLE).encode(values)


def test_frames_do_not_depend_on_threads():
    x = np.random.default_rng(0).poisson(0.3, (2048, 32, 32)).astype(np.uint16)
    frame = encode(x)
    with ThreadPoolExecutor(3) as pool:
        assert set(pool.map(lambda _: encode(x), range(12))) == {frame}
    before = blosc.set_nthreads(4)
    try:
        assert encode(x) == frame
    finally:
        blosc.set_nthreads(before)


def test_an_npy_frame_is_version_1_and_numpy_reads_it():
    totals = np.arange(6, dtype=np.float32).reshape(2, 3)
    frame = encode(totals, "npy")
    assert frame[:8] == b"\x93NUMPY\x01\x00"
    np.testing.assert_array_equal(np.load(io.BytesIO(frame), allow_pickle=False), totals)


@given(st.binary(max_size=60), st.sampled_from(ENCODINGS.own()))
@settings(max_examples=300, deadline=None)
def test_noise_is_refused(noise, encoding):
    with pytest.raises(DatasetError):
        decode(noise, encoding, dtype=np.uint16, shape=(4, 2, 2))


@given(st.integers(0, 10**6), st.integers(0, 255), st.sampled_from(ENCODINGS.own()))
@settings(max_examples=300, deadline=None)
def test_a_damaged_frame_is_refused_or_gives_the_right_shape(place, value, encoding):
    x = np.random.default_rng(0).poisson(2, (8, 4, 4)).astype(np.uint16)
    frame = bytearray(encode(x, encoding))
    frame[place % len(frame)] = value
    try:
        found = decode(bytes(frame), encoding, dtype=x.dtype, shape=x.shape, where="train-000000.tar, key a-000001")
    except DatasetError as error:
        assert "train-000000.tar" in str(error)  # noqa: PT017 - either outcome is right
    else:
        assert (found.dtype, found.shape) == (x.dtype, x.shape)


@pytest.mark.parametrize("encoding", ENCODINGS.own())
def test_short_long_and_other_frames_are_refused(encoding):
    x = np.arange(32, dtype=np.uint16).reshape(2, 4, 4)
    frame = encode(x, encoding)
    for bad in (frame[:-1], frame + b"x", frame[:10], b""):
        with pytest.raises(DatasetError):
            decode(bad, encoding, dtype=x.dtype, shape=x.shape)
    for dtype, shape in ((np.uint32, (2, 4, 4)), (np.uint16, (2, 4, 5))):
        with pytest.raises(DatasetError, match="holds another array"):
            decode(frame, encoding, dtype=dtype, shape=shape)


def test_pickled_objects_are_refused():
    buffer = io.BytesIO()
    np.save(buffer, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(DatasetError, match=r"not an .npy file"):
        decode(buffer.getvalue(), "npy")


def test_wrong_calls_are_refused():
    with pytest.raises(ConfigError, match="unknown encoding 'zstd'"):
        encode(np.zeros(1), "zstd")
    with pytest.raises(ConfigError, match=r"did you mean 'blosc'\?"):
        decode(b"", "blosk")
    with pytest.raises(ValueError, match="needs dtype"):
        decode(b"", "blosc")
