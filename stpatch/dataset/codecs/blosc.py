"""Encoding ``blosc``: the array's bytes as one Blosc frame, LZ4 at level 5."""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np
from numcodecs import blosc
from numpy.typing import DTypeLike, NDArray

from stpatch.dataset.codecs.base import Encoding, damaged, little_endian
from stpatch.registry import ENCODINGS

LEVEL = 5
HEADER = 16
"""Bytes of a frame's header: version, flags, bytes per item, then three little-endian uint32: bytes, block, frame."""

LENGTHS = struct.Struct("<3I")
"""The header's last twelve bytes: bytes, bytes of a block, bytes of the frame."""


@ENCODINGS.register
class Blosc(Encoding):
    """One Blosc frame of the bytes alone: bits are shuffled for integers, bytes for floats.

    Counts are small integers, so that most of their bits are the same: with its bits shuffled, a plane of zeros is a
    run that LZ4 stores in a few bytes. The bits of floats' mantissas are noise, and shuffling them gains nothing.
    """

    name = "blosc"
    tells_shape = False
    words = "one Blosc frame (`numcodecs.blosc.decompress`)"

    def encode(self, array: NDArray[Any]) -> bytes:
        """Return an array as a frame."""
        array = little_endian(array)
        # Blosc's own threads write blocks in the order in which they finish, so that a frame of several blocks would
        # differ from run to run, and they would fight the workers for the cores: they are off for the whole process.
        blosc.use_threads = False
        shuffle = blosc.SHUFFLE if array.dtype.kind == "f" else blosc.BITSHUFFLE
        return bytes(blosc.compress(array, b"lz4", LEVEL, shuffle, 0, array.dtype.itemsize))

    def decode(
        self,
        data: bytes | memoryview,
        *,
        dtype: DTypeLike | None = None,
        shape: tuple[int, ...] | None = None,
        where: object = None,
    ) -> NDArray[Any]:
        """Return the array of a frame; `dtype` and `shape` are needed."""
        if dtype is None or shape is None:
            raise ValueError("a blosc frame needs dtype and shape")
        _check_lengths(data, np.dtype(dtype), shape, where)  # before as much is allocated as the caller believes in
        out = np.empty(shape, dtype=dtype)
        self.decode_into(data, out, where=where)
        return out

    def decode_into(self, data: bytes | memoryview, out: NDArray[Any], *, where: object = None) -> None:
        """Decompress straight into `out`; by way of another array where `out` is not in C order."""
        if not (out.flags.c_contiguous and out.dtype.isnative):
            out[...] = self.decode(data, dtype=out.dtype.newbyteorder("="), shape=out.shape, where=where)
            return
        _check_lengths(data, out.dtype, out.shape, where)
        if out.nbytes == 0:
            return
        blosc.use_threads = False
        try:
            blosc.decompress(bytes(data), out)
        except (RuntimeError, ValueError) as error:
            raise damaged("cannot be decompressed", where, error, None) from error

    def decode_chunk_into(self, data: bytes, out: NDArray[Any], *, where: object = None) -> None:
        """Decompress a chunk, which is a frame."""
        self.decode_into(data, out, where=where)

    def zarr_compressors(self, dtype: np.dtype[Any]) -> list[Any]:
        """Return zarr's Blosc codec with the settings of `encode`."""
        from zarr.codecs import BloscCodec

        shuffle = "bitshuffle" if dtype.kind in "ui" else "shuffle"
        return [BloscCodec(cname="lz4", clevel=LEVEL, shuffle=shuffle, typesize=dtype.itemsize)]  # type: ignore[arg-type]

    def bytes_per_value(self, dtype: DTypeLike) -> float:  # noqa: ARG002 - sparse counts take the same whatever they are
        """Return a middle of Visium-like and HD-like counts (0.36 and 0.13)."""
        return 0.25

    def snippet(self, member: str, *, dtype: str, shape: str) -> tuple[list[str], list[str]]:
        """Return how NumPy and numcodecs read it."""
        return ["import numpy", "from numcodecs import blosc"], [
            f'x = numpy.frombuffer(blosc.decompress(sample["{member}"]), "{dtype}")',
            f"x = x.reshape({shape})",
        ]


def _check_lengths(data: bytes | memoryview, dtype: np.dtype[Any], shape: tuple[int, ...], where: object) -> None:
    """Raise `DatasetError` unless a frame's header tells its own length, and that of an array.

    The decoder trusts the header's lengths, so they are compared with what is here before it reads or writes.
    """
    if len(data) < HEADER:
        raise damaged("is shorter than its header", where, f"{len(data)} bytes", f"at least {HEADER}")
    n_bytes, _, frame_bytes = LENGTHS.unpack_from(data, 4)
    if frame_bytes != len(data):
        raise damaged("has another length than it says", where, f"{len(data)} bytes", f"{frame_bytes} bytes")
    expected = math.prod(shape) * dtype.itemsize
    if n_bytes != expected or data[3] != dtype.itemsize:
        raise damaged(
            "holds another array",
            where,
            f"{n_bytes} bytes of items of {data[3]}",
            f"{dtype} {shape}, {expected} bytes",
        )
