"""Encoding ``npy``: NumPy's own file format, version 1.0."""

from __future__ import annotations

import io
import math
import re
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from stpatch.dataset.codecs.base import Encoding, damaged, little_endian
from stpatch.errors import DatasetError
from stpatch.registry import ENCODINGS

_LONGEST_HEADER = 1024
_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00(?P<length>..)\{'descr': '(?P<dtype>[<|][a-z]\d{1,2})', 'fortran_order': False, "
    rb"'shape': \((?P<shape>(\d{1,18}(, \d{1,18})*,?)?)\), \} *\n",
    re.DOTALL,
)


@ENCODINGS.register
class Npy(Encoding):
    """A NumPy file in a tar member; the plain little-endian values in a zarr chunk, whose metadata tells the rest."""

    name = "npy"
    tells_shape = True
    words = "a NumPy file"

    def encode(self, array: NDArray[Any]) -> bytes:
        """Return an array as the bytes that ``numpy.save`` would write."""
        array = little_endian(array)
        return _header(array.dtype.str, array.shape) + array.tobytes()

    def decode(
        self,
        data: bytes | memoryview,
        *,
        dtype: DTypeLike | None = None,
        shape: tuple[int, ...] | None = None,
        where: object = None,
    ) -> NDArray[Any]:
        """Return the array of a NumPy file; `dtype` and `shape` are checked where they are given."""
        # NumPy's parser would read Python literals, other versions and pickles; only what `encode` writes is accepted.
        header = _HEADER.match(bytes(data[:_LONGEST_HEADER]))
        if header is None or len(header[0]) != 10 + int.from_bytes(header["length"], "little"):
            raise damaged(
                "is not an .npy file of version 1.0, little-endian and in C order", where, bytes(data[:80]), None
            )
        try:
            found_dtype = np.dtype(header["dtype"].decode())
        except TypeError as error:
            raise damaged("has an unknown dtype", where, header["dtype"].decode(), None) from error
        if found_dtype.newbyteorder("<").str != header["dtype"].decode():  # as "|f4", which NumPy takes for "<f4"
            raise damaged("has an unknown dtype", where, header["dtype"].decode(), None)
        found_shape = tuple(int(side) for side in header["shape"].replace(b",", b" ").split())
        if (dtype is not None and found_dtype != np.dtype(dtype)) or (shape is not None and found_shape != shape):
            expected = f"{'' if dtype is None else np.dtype(dtype)} {'' if shape is None else shape}".strip()
            raise damaged("holds another array", where, f"{found_dtype} {found_shape}", expected)
        n_bytes = math.prod(found_shape) * found_dtype.itemsize
        found = len(data) - len(header[0])
        if found != n_bytes:
            raise damaged("has another length than it says", where, f"{found} bytes", f"{n_bytes} bytes")
        return np.frombuffer(data, found_dtype, offset=len(header[0])).reshape(found_shape).copy()

    def decode_into(self, data: bytes | memoryview, out: NDArray[Any], *, where: object = None) -> None:
        """Copy the values, at once where the header is the one that `encode` writes for the array."""
        head = _header(out.dtype.str, out.shape)
        if len(data) == len(head) + out.nbytes and bytes(data[: len(head)]) == head:
            out[...] = np.frombuffer(data, out.dtype, offset=len(head)).reshape(out.shape)
        else:
            out[...] = self.decode(data, dtype=out.dtype, shape=out.shape, where=where)

    def encode_chunk(self, array: NDArray[Any]) -> bytes:
        """Return the values alone."""
        return little_endian(array).tobytes()

    def decode_chunk(
        self, data: bytes, *, dtype: DTypeLike, shape: tuple[int, ...], where: object = None
    ) -> NDArray[Any]:
        """Return the array of plain values."""
        stored = np.dtype(dtype).newbyteorder("<")
        expected = math.prod(shape) * stored.itemsize
        if len(data) != expected:
            raise DatasetError(
                "a chunk has a wrong size", where=where, found=f"{len(data)} bytes", expected=f"{expected} bytes"
            )
        return np.frombuffer(data, dtype=stored).reshape(shape).astype(dtype)

    def zarr_compressors(self, dtype: np.dtype[Any]) -> None:  # noqa: ARG002 - plain values need none of any dtype
        """Return that chunks are plain values."""
        return

    def snippet(self, member: str, *, dtype: str, shape: str) -> tuple[list[str], list[str]]:  # noqa: ARG002
        """Return that webdataset reads it by itself."""
        return [], [f'x = sample["{member}"]']


@lru_cache(maxsize=64)
def _header(dtype: str, shape: tuple[int, ...]) -> bytes:
    # The arrays of a dataset have a few shapes, and NumPy takes longer to write a header than we to copy the values.
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": dtype, "fortran_order": False, "shape": shape})
    return buffer.getvalue()
