"""Encoding ``sparse``: the counts that are not zero, and bitmaps of where they stand, in one Zstandard frame.

    header   six little-endian uint32: bytes per value, channels, pixels, occupied, nonzero, escaped
    frame    nonzero bits | values | escaped values | occupied bits        (Zstandard, with a checksum)

The pixels are the last two axes of the array, the channels all axes before them. A pixel is occupied if any of its
channels has a count. There is a bit for every (channel, occupied pixel), in C order, 1 = not zero; a byte for every
1, 255 = an escaped value, which stands in the next part with all its bytes; and a bit for every pixel, 1 = occupied.
Bits are little-endian, and each part begins at a whole byte.
"""

from __future__ import annotations

import math
import struct
from typing import Any, NamedTuple

import numpy as np
from numcodecs import zstd
from numpy.typing import DTypeLike, NDArray

from stpatch.dataset.codecs.base import Encoding, damaged, little_endian
from stpatch.errors import DatasetError
from stpatch.registry import ENCODINGS

LEVEL = 1
"""Of Zstandard: level 3 takes up to half as long again, and saves less than a hundredth."""
HEADER = struct.Struct("<6I")
LITTLE_WORD = np.dtype("<u8")
DTYPES = (np.dtype(np.uint16), np.dtype(np.uint32))
"""What counts are; arrays of other dtypes have no counts, and their zarr chunks are those of `OTHERS`."""
OTHERS = "blosc"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
ZSTD_CHECKSUM = 4
"""The flag of a frame that ends in a checksum; the two bits above it are 0."""
LARGEST_SIZE = 2**31 - 1
"""Values of an array: their flat index is an int32."""


@ENCODINGS.register
class Sparse(Encoding):
    """Bitmaps and one byte per non-zero count.

    Most counts of a patch are zero and nearly all others fit a byte. The checksum of the Zstandard frame and the
    numbers in the header, which the parts must agree with, tell a damaged patch from an intact one.
    """

    name = "sparse"
    tells_shape = False
    counts_only = True
    words = "the counts that are not zero, in one Zstandard frame behind six numbers (see Reading)"

    def encode(self, array: NDArray[Any]) -> bytes:
        """Return an array of counts as header and frame; `DatasetError` where it does not hold counts."""
        from stpatch.kernels.sparse import ESCAPE, gather

        if array.dtype.newbyteorder("=") not in DTYPES:
            raise _no_counts(array.dtype)
        if array.size > LARGEST_SIZE:
            raise DatasetError(
                "an array is too large for encoding sparse", found=f"{array.size} values",
                expected=f"at most {LARGEST_SIZE}", hint="choose smaller patches, or another shards.encoding",
            )  # fmt: skip
        x = np.ascontiguousarray(array, array.dtype.newbyteorder("=")).reshape(_sides(array.shape))
        union = np.bitwise_or.reduce(x, axis=0)  # not below the largest value of each pixel
        pixels = np.flatnonzero(union)
        n_bits = len(x) * len(pixels)
        bits, small = np.empty(-(-n_bits // 8), np.uint8), np.empty(n_bits + 1, np.uint8)
        nonzero = gather(x, pixels, bits, small)
        escaped = x[x >= ESCAPE] if union.max(initial=0) >= ESCAPE else np.empty(0, x.dtype)
        parts = (
            bits,
            small[:nonzero],
            little_endian(escaped).view(np.uint8),
            np.packbits(union != 0, bitorder="little"),
        )
        header = HEADER.pack(x.itemsize, *x.shape, len(pixels), nonzero, len(escaped))
        content = np.concatenate(parts)
        if content.size == 0:
            return header
        return header + bytes(zstd.compress(content, LEVEL, True))  # noqa: FBT003 - the checksum; it takes no keywords

    def decode(
        self,
        data: bytes | memoryview,
        *,
        dtype: DTypeLike | None = None,
        shape: tuple[int, ...] | None = None,
        where: object = None,
    ) -> NDArray[Any]:
        """Return the array; `dtype` and `shape` are needed."""
        if dtype is None or shape is None:
            raise ValueError("a sparse frame needs dtype and shape")
        from stpatch.kernels.sparse import scatter

        parts = _unpack(data, np.dtype(dtype).newbyteorder("="), shape, where)  # before anything of the shape's size
        out = np.empty(shape, np.dtype(dtype).newbyteorder("="))
        scatter(*parts, out.reshape(_sides(shape)))
        return out

    def decode_into(self, data: bytes | memoryview, out: NDArray[Any], *, where: object = None) -> None:
        """Fill an array with a patch, zeros included.

        Parameters
        ----------
        data
            As `encode` made it, or anything else.
        out
            Of the patch's shape and dtype; a patch that is not in C order goes by way of another array.
        where
            File and key, for the message.

        Raises
        ------
        DatasetError
            As `decode`. `out` is unchanged then.
        """
        from stpatch.kernels.sparse import scatter

        if not (out.flags.c_contiguous and out.dtype.isnative):
            out[...] = self.decode(data, dtype=out.dtype.newbyteorder("="), shape=out.shape, where=where)
            return
        scatter(*_unpack(data, out.dtype, out.shape, where), out.reshape(_sides(out.shape)))

    def decode_entries(
        self, data: bytes | memoryview, *, dtype: DTypeLike, shape: tuple[int, ...], where: object = None
    ) -> tuple[NDArray[np.int32], NDArray[Any]]:
        """Return the values that are not zero and where they stand, without the array.

        Returns
        -------
        index
            (n,) int32 positions in the flattened array, ascending.
        values
            (n,) of `dtype`.

        Raises
        ------
        DatasetError
            As `decode`.
        """
        from stpatch.kernels.sparse import entries

        parts = _unpack(data, np.dtype(dtype).newbyteorder("="), shape, where)
        index = np.empty(len(parts.small), np.int32)
        values = np.empty(len(parts.small), dtype)
        entries(*parts, _sides(shape)[1], index, values)
        return index, values

    # -- zarr: counts have a codec of their own; totals, gene ids and labels are no counts ----------------------------

    def encode_chunk(self, array: NDArray[Any]) -> bytes:
        """Return counts as `encode` does, and any other plane as encoding `OTHERS` stores it."""
        if array.dtype not in DTYPES:
            return ENCODINGS.get(OTHERS).encode_chunk(array)
        return self.encode(array)

    def decode_chunk(
        self, data: bytes, *, dtype: DTypeLike, shape: tuple[int, ...], where: object = None
    ) -> NDArray[Any]:
        """Return the array of a chunk."""
        if np.dtype(dtype) not in DTYPES:
            return ENCODINGS.get(OTHERS).decode_chunk(data, dtype=dtype, shape=shape, where=where)
        return self.decode(data, dtype=dtype, shape=shape, where=where)

    def decode_chunk_into(self, data: bytes, out: NDArray[Any], *, where: object = None) -> None:
        """Fill an array with a chunk."""
        encoding = self if out.dtype in DTYPES else ENCODINGS.get(OTHERS)
        encoding.decode_into(data, out, where=where)

    def zarr_compressors(self, dtype: np.dtype[Any]) -> list[Any] | None:
        """Return no compressors for counts, and those of `OTHERS` for any other plane."""
        return None if dtype in DTYPES else ENCODINGS.get(OTHERS).zarr_compressors(dtype)

    def zarr_serializer(self, dtype: np.dtype[Any]) -> Any:
        """Return stpatch's codec for counts."""
        if dtype not in DTYPES:
            return None
        from stpatch.dataset.zarr_codec import SparseCodec

        return SparseCodec()

    def bytes_per_value(self, dtype: DTypeLike) -> float:  # noqa: ARG002 - the same whatever an escaped value takes
        """Return a middle of legacy ST, Visium and HD-like counts (0.15, 0.11 and 0.10)."""
        return 0.12

    def snippet(self, member: str, *, dtype: str, shape: str) -> tuple[list[str], list[str]]:
        """Return how NumPy and numcodecs read it."""
        return ["import numpy", "from numcodecs import zstd"], [
            f'frame = sample["{member}"]',
            'size, c, p, occupied, nonzero, escaped = numpy.frombuffer(frame[:24], "<u4").tolist()',
            'parts = numpy.frombuffer(zstd.decompress(frame[24:]), "u1")',
            "ends = numpy.cumsum([(c * occupied + 7) // 8, nonzero, escaped * size])",
            "bits, small, large, pixels = numpy.split(parts, ends)",
            f'values, mask = small.astype("{dtype}"), numpy.zeros((c, p), bool)',
            'values[small == 255] = large.view(f"<u{size}")',
            'bits = numpy.unpackbits(bits, count=c * occupied, bitorder="little").reshape(c, occupied)',
            'mask[:, numpy.unpackbits(pixels, count=p, bitorder="little") > 0] = bits',
            f'x = numpy.zeros((c, p), "{dtype}")',
            "x[mask] = values",
            f"x = x.reshape({shape})",
        ]


class _Parts(NamedTuple):
    """A patch's parts as the loops of `stpatch.kernels.sparse` take them."""

    words: NDArray[np.uint64]
    small: NDArray[np.uint8]
    escaped: NDArray[Any]
    pixels: NDArray[np.int64]


def _sides(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return the channels and pixels of an array: the last two axes are pixels, so that a leading 1 changes nothing."""
    return math.prod(shape[:-2]), math.prod(shape[-2:])


def _unpack(data: bytes | memoryview, dtype: np.dtype[Any], shape: tuple[int, ...], where: object) -> _Parts:
    """Return a frame's parts, which agree with the header, with each other, and with dtype and shape.

    Whatever is allocated is bounded by the shape, as every number is held against the one before it; and the compiled
    loops stay within their arrays, as there are as many of everything as they count on.
    """
    from stpatch.kernels.sparse import ESCAPE, count_bits

    if dtype not in DTYPES:
        raise _no_counts(dtype, where=where)
    if len(data) < HEADER.size:
        raise damaged("is shorter than its header", where, f"{len(data)} bytes", f"at least {HEADER.size}")
    itemsize, channels, n_pixels, n_occupied, nonzero, n_escaped = HEADER.unpack_from(data)
    if (itemsize, channels, n_pixels) != (dtype.itemsize, *_sides(shape)) or channels * n_pixels > LARGEST_SIZE:
        found = f"{channels} channels, {n_pixels} pixels of {itemsize} bytes"
        raise damaged("holds another array", where, found, f"{dtype} {shape}")
    n_bits = channels * n_occupied
    if n_occupied > n_pixels or not n_escaped <= nonzero <= n_bits:
        found = f"{n_occupied} pixels, {nonzero} values, {n_escaped} escaped"
        raise damaged("says that it holds more than fits", where, found, f"{dtype} {shape}")
    at_small = -(-n_bits // 8)
    at_escaped = at_small + nonzero
    at_occupied = at_escaped + n_escaped * itemsize
    content = np.empty(at_occupied - (-n_pixels // 8), np.uint8)
    _decompress(bytes(data[HEADER.size :]), content, where)
    words = np.zeros(-(-n_bits // 64), LITTLE_WORD)  # whole words, whatever the number of bits
    words.view(np.uint8)[:at_small] = content[:at_small]
    words = words.astype(np.uint64, copy=False)
    small = content[at_small:at_escaped]
    pixels = np.flatnonzero(np.unpackbits(content[at_occupied:], bitorder="little"))
    counted = (len(pixels), int(count_bits(words)), int(np.count_nonzero(small == ESCAPE)))
    if counted != (n_occupied, nonzero, n_escaped):
        raise damaged(
            "holds other numbers of occupied pixels, values and escaped values than it says", where, counted,
            (n_occupied, nonzero, n_escaped),
        )  # fmt: skip
    if (n_occupied and pixels[-1] >= n_pixels) or (n_bits % 64 and int(words[-1]) >> n_bits % 64):
        raise damaged("has bits beyond its pixels", where, None, f"{n_bits} and {n_pixels} bits")
    if n_escaped:  # a copy, since they lie at any byte
        escaped = content[at_escaped:at_occupied].view(dtype.newbyteorder("<")).astype(dtype)
    else:
        escaped = np.empty(0, dtype)
    return _Parts(words, small, escaped, pixels)


def _decompress(frame: bytes, content: NDArray[np.uint8], where: object) -> None:
    """Fill `content` with what a Zstandard frame holds: exactly as many bytes."""
    if content.size == 0:
        if frame:
            raise damaged("has another length than it says", where, f"{len(frame)} bytes", "0 bytes")
        return
    # The decoder bounds what it writes, but would leave the end of `content` as it was where a frame holds less.
    found = _frame_bytes(frame)
    if found != content.size:
        raise damaged("holds another number of bytes than it says", where, found, content.size)
    try:
        zstd.decompress(frame, content)
    except (RuntimeError, ValueError) as error:
        raise damaged("cannot be decompressed", where, error, None) from error


def _frame_bytes(frame: bytes) -> int | None:
    """Return the content size of a Zstandard frame with a checksum (RFC 8878, 3.1.1.1); None: it is not one."""
    if not frame.startswith(ZSTD_MAGIC) or len(frame) < len(ZSTD_MAGIC) + 1 or frame[4] & 0x1C != ZSTD_CHECKSUM:
        return None
    single = frame[4] >> 5 & 1  # one segment: no byte for the window, and at least one for the length
    width = (single, 2, 4, 8)[frame[4] >> 6]
    at = 6 - single + (0, 1, 2, 4)[frame[4] & 3]  # behind the id of a dictionary
    return int.from_bytes(frame[at : at + width], "little") + (256 if width == 2 else 0)


def _no_counts(dtype: np.dtype[Any], *, where: object = "shards.encoding: sparse") -> DatasetError:
    return DatasetError(
        "encoding sparse holds counts only", where=where, found=dtype, expected="uint16 or uint32",
        hint="set shards.values: counts, or another shards.encoding",
    )  # fmt: skip
