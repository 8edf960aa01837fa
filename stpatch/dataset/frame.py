"""Blosc frames: the library's, or for patches of 16-bit counts the same bytes, put together from their parts.

That takes 0.6 of the time: the library shuffles the bits of both bytes of a count and compresses both, though a count
seldom needs the second. A frame (c-blosc 1.21) is its header, the offsets of its blocks, and each block's LZ4 streams
after their lengths: the bit planes of the low bytes, then those of the high bytes, or both in one where the last block
is shorter than the others. Whatever is not exactly so is left to the library, which also says how long the blocks of an
array are.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numcodecs import blosc, lz4
from numpy.typing import NDArray

LEVEL = 5
ACCELERATION = 10 - LEVEL
"""What Blosc asks of LZ4 at a level."""

LARGEST = 16 << 20
"""Bytes of an array; larger ones are whole slides, each of a size of its own, and their frames the library's."""

HEADER = 16
_FLAGS, _BLOCK, _LENGTH = 2, slice(8, 12), slice(12, 16)
_BITSHUFFLED_LZ4 = 0x24
"""Flags of a frame whose bits are shuffled, whose blocks are split by bytes, and which LZ4 has compressed."""


@dataclass(frozen=True, kw_only=True)
class _Form:
    """What the frames of all arrays of one size have in common.

    Attributes
    ----------
    header
        The header before the frame's length.
    nbytes, block
        Bytes of the array, and of a block; the last block has what is left.
    zeros
        The LZ4 stream of half a block of zeros.
    """

    header: bytes
    nbytes: int
    block: int
    zeros: memoryview


def encode_frame(array: NDArray[Any]) -> bytes:
    """Return a C-ordered, little-endian array as a Blosc frame: LZ4, bits shuffled for integers, bytes for floats.

    The bytes are those of ``numcodecs.blosc.compress`` at level 5, without threads.
    """
    if array.dtype == np.uint16 and array.nbytes <= LARGEST and sys.byteorder == "little":
        form = _form_of(array.nbytes)
        frame = None if form is None else _assembled(array.reshape(-1), form)
        if frame is not None:
            return frame
    return _by_library(array)


def _by_library(array: NDArray[Any]) -> bytes:
    # Blosc's own threads write blocks in the order in which they finish, so that a frame of several blocks would differ
    # from run to run, and they would fight the workers for the cores: they are switched off for the process.
    blosc.use_threads = False
    shuffle = blosc.SHUFFLE if array.dtype.kind == "f" else blosc.BITSHUFFLE
    return bytes(blosc.compress(array, b"lz4", LEVEL, shuffle, 0, array.dtype.itemsize))


@lru_cache(maxsize=16)
def _form_of(nbytes: int) -> _Form | None:
    """Return the form of the frames of uint16 arrays of a size, if it is the known one: by a frame of zeros."""
    zeros = np.zeros(nbytes // 2, np.uint16)
    frame = _by_library(zeros)
    block = int.from_bytes(frame[_BLOCK], "little")
    if frame[_FLAGS] != _BITSHUFFLED_LZ4 or block % 16 or nbytes % 16:
        return None
    half = _stream(np.zeros(block // 2, np.uint8))
    form = _Form(header=frame[: _LENGTH.start], nbytes=nbytes, block=block, zeros=half)
    return form if _assembled(zeros, form) == frame else None


def _assembled(values: NDArray[np.uint16], form: _Form) -> bytes | None:
    """Return the frame of flat values; None where Blosc may store a stream as it is, rather than lengthened."""
    starts: list[int] = []
    parts: list[bytes | memoryview] = []
    size = HEADER + 4 * -(-form.nbytes // form.block)
    for start in range(0, form.nbytes, form.block):
        block = values[start // 2 : (start + form.block) // 2].view(np.uint64)
        streams = _streams(block, form.zeros if block.nbytes == form.block else None)
        if max(map(len, streams)) > _longest(block.nbytes // len(streams)):
            return None
        starts.append(size)
        for stream in streams:
            parts += (_int32(len(stream)), stream)
            size += 4 + len(stream)
    return b"".join((form.header, _int32(size), *map(_int32, starts), *parts))


def _streams(block: NDArray[np.uint64], zeros: memoryview | None) -> list[memoryview]:
    """Return a block's two streams, `zeros` for high bytes that are; without `zeros` its one stream."""
    from stpatch.kernels.planes import bit_planes

    planes = np.empty((8 if zeros is not None else 16, block.nbytes // 16), np.uint8)
    any_high = bit_planes(block, 0, planes[:8])
    if zeros is None:
        bit_planes(block, 8, planes[8:])
        return [_stream(planes)]
    low = _stream(planes)
    if not any_high:
        return [low, zeros]
    bit_planes(block, 8, planes)
    return [low, _stream(planes)]


def _longest(nbytes: int) -> int:
    """Return the length up to which LZ4 gives the same stream whatever room it has; it estimates, up to 1 in 255."""
    return nbytes - nbytes // 128 - 64


def _stream(planes: NDArray[np.uint8]) -> memoryview:
    """Return the LZ4 stream of bytes, without the length that numcodecs writes before it."""
    return memoryview(lz4.compress(planes, ACCELERATION))[4:]


def _int32(number: int) -> bytes:
    return number.to_bytes(4, "little")
