"""Frames: one array as bytes, either one Blosc frame or one .npy file."""

from __future__ import annotations

import io
import math
import re
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numcodecs import blosc
from numpy.typing import DTypeLike, NDArray

from stpatch.dataset.frame import HEADER, encode_frame
from stpatch.errors import DatasetError

Encoding = Literal["blosc", "npy"]
_NPY_LONGEST_HEADER = 1024
_NPY_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00(?P<length>..)\{'descr': '(?P<dtype>[<|][a-z]\d{1,2})', 'fortran_order': False, "
    rb"'shape': \((?P<shape>(\d{1,18}(, \d{1,18})*,?)?)\), \} *\n",
    re.DOTALL,
)


def encode(array: NDArray[Any], encoding: Encoding = "blosc") -> bytes:
    """Return an array as a frame.

    Parameters
    ----------
    array
        Of little-endian integers, floats or bools; made contiguous (C order) if it is not.
    encoding
        ``blosc``: one Blosc frame of the bytes alone (LZ4, level 5; bits shuffled for integers, bytes for floats); the
        reader knows dtype and shape. ``npy``: NumPy's format, version 1.0.
    """
    array = _little_endian(np.ascontiguousarray(array))
    if encoding == "npy":
        return _npy_header(array.dtype.str, array.shape) + array.tobytes()
    if encoding != "blosc":
        raise ValueError(f"unknown encoding {encoding!r}, known: blosc, npy")
    return encode_frame(array)


@lru_cache(maxsize=64)
def _npy_header(dtype: str, shape: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": dtype, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def decode(
    frame: bytes | memoryview,
    encoding: Encoding = "blosc",
    *,
    dtype: DTypeLike | None = None,
    shape: tuple[int, ...] | None = None,
    where: object = None,
) -> NDArray[Any]:
    """Return the array of a frame, writable and in C order.

    Parameters
    ----------
    frame
        As `encode` made it.
    encoding
        ``blosc`` or ``npy``.
    dtype, shape
        What the frame must hold; needed for ``blosc``, checked for ``npy`` where given.
    where
        File and key, for the message.

    Raises
    ------
    DatasetError
        The frame is damaged, cut short, too long, or holds another dtype or shape.
    """
    if encoding == "npy":
        return _decode_npy(frame, dtype=dtype, shape=shape, where=where)
    if encoding != "blosc":
        raise ValueError(f"unknown encoding {encoding!r}, known: blosc, npy")
    if dtype is None or shape is None:
        raise ValueError("a blosc frame needs dtype and shape")
    return _decode_blosc(frame, np.dtype(dtype), shape, where)


def _decode_blosc(
    frame: bytes | memoryview, dtype: np.dtype[Any], shape: tuple[int, ...], where: object
) -> NDArray[Any]:
    out = np.empty(shape, dtype=dtype)
    if len(frame) < HEADER:
        raise _damaged("is shorter than its header", where, f"{len(frame)} bytes", f"at least {HEADER}")
    n_bytes = int.from_bytes(frame[4:8], "little")
    frame_bytes = int.from_bytes(frame[12:16], "little")
    if frame_bytes != len(frame):
        raise _damaged("has another length than it says", where, f"{len(frame)} bytes", f"{frame_bytes} bytes")
    if n_bytes != out.nbytes or frame[3] != dtype.itemsize:
        raise _damaged(
            "holds another array",
            where,
            f"{n_bytes} bytes of items of {frame[3]}",
            f"{dtype} {shape}, {out.nbytes} bytes",
        )
    if out.nbytes == 0:
        return out
    try:
        blosc.decompress(bytes(frame), out)
    except (RuntimeError, ValueError) as error:
        raise _damaged("cannot be decompressed", where, error, None) from error
    return out


def _decode_npy(
    frame: bytes | memoryview, *, dtype: DTypeLike | None, shape: tuple[int, ...] | None, where: object
) -> NDArray[Any]:
    # NumPy's own parser would read Python literals, other versions and pickles; only what `encode` writes is accepted.
    header = _NPY_HEADER.match(bytes(frame[:_NPY_LONGEST_HEADER]))
    if header is None or len(header[0]) != 10 + int.from_bytes(header["length"], "little"):
        raise _damaged("is no .npy file of version 1.0, little-endian and in C order", where, bytes(frame[:80]), None)
    try:
        found_dtype = np.dtype(header["dtype"].decode())
    except TypeError as error:
        raise _damaged("has an unknown dtype", where, header["dtype"].decode(), None) from error
    found_shape = tuple(int(side) for side in header["shape"].replace(b",", b" ").split())
    if (dtype is not None and found_dtype != np.dtype(dtype)) or (shape is not None and found_shape != shape):
        expected = f"{'' if dtype is None else np.dtype(dtype)} {'' if shape is None else shape}".strip()
        raise _damaged("holds another array", where, f"{found_dtype} {found_shape}", expected)
    n_bytes = math.prod(found_shape) * found_dtype.itemsize
    if len(frame) - len(header[0]) != n_bytes:
        raise _damaged(
            "has another length than it says", where, f"{len(frame) - len(header[0])} bytes", f"{n_bytes} bytes"
        )
    return np.frombuffer(frame, found_dtype, offset=len(header[0])).reshape(found_shape).copy()


def _little_endian(array: NDArray[Any]) -> NDArray[Any]:
    return array.astype(array.dtype.newbyteorder("<"), copy=False)


def _damaged(what: str, where: object, found: object, expected: object) -> DatasetError:
    return DatasetError(
        f"a frame {what}",
        where=where,
        found=found,
        expected=expected,
        hint="copy the shard again, or build the dataset again",
    )
