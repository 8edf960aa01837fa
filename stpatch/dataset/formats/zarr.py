"""Zarr v3 shards: each array's shard file is put together from encoded samples, without the zarr library's detour.

A shard file is the samples' chunks one after the other, then an index of (offset, length) pairs and the CRC-32C of the
index, as the codec ``sharding_indexed`` lays down. A chunk is one sample, and its frame is what `codec.encode` makes.
Only the metadata is written by the zarr library, and plain ``zarr.open`` reads it all.
"""

from __future__ import annotations

import hashlib
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from stpatch.dataset import codecs as codec
from stpatch.dataset.codecs import Encoding
from stpatch.dataset.layout import ArraySpec, Layout
from stpatch.dataset.sample import LABEL, Sample, check_sample
from stpatch.errors import DatasetError

MISSING = 2**64 - 1
INDEX_DTYPE = np.dtype("<u8")
CHECKSUM_BYTES = 4


def group_metadata(layout: Layout, *, patches: int) -> dict[str, bytes]:
    """Return the ``zarr.json`` files of a split's group, by path inside the group.

    Parameters
    ----------
    layout
        Arrays, shard size and encoding.
    patches
        Samples of the split: the length of every array's first axis.
    """
    import zarr
    from zarr.codecs import BloscCodec, BytesCodec
    from zarr.storage import MemoryStore

    files: dict[str, Any] = {}
    store = MemoryStore(files)
    group = zarr.create_group(store, zarr_format=3)
    for array in layout.arrays():
        dtype = np.dtype(array.dtype)
        shuffle = "bitshuffle" if dtype.kind in "ui" else "shuffle"
        blosc = BloscCodec(cname="lz4", clevel=5, shuffle=shuffle, typesize=dtype.itemsize)  # type: ignore[arg-type]
        group.create_array(
            array.name,
            shape=(patches, *array.shape),
            dtype=array.dtype,
            shards=(layout.patches, *array.shape),
            chunks=(1, *array.shape),
            serializer=BytesCodec(endian="little"),
            compressors=[blosc] if layout.encoding == "blosc" else None,
            filters=None,
            fill_value=array.fill,
            dimension_names=("patch", *array.dims),
        )
    return {path: value.to_bytes() for path, value in sorted(files.items())}


def encode_arrays(sample: Sample, layout: Layout) -> dict[str, bytes]:
    """Return the sample's chunks by array name, padded to the layout's shape where samples vary.

    Raises
    ------
    DatasetError
        The sample does not have the layout's arrays, shapes or types.
    """
    check_sample(sample)
    given: dict[str, NDArray[Any] | None] = {"x": sample.x, "totals": sample.totals, "genes": sample.genes}
    given.update({f"{LABEL}{name}": label for name, label in sample.labels.items()})
    chunks = {}
    for spec in layout.arrays():
        array = given.get(spec.name)
        if array is not None and layout.variable:
            array = _padded(array, spec)
        if array is None or array.shape != spec.shape or array.dtype != spec.dtype:
            raise DatasetError(
                f"{spec.name} does not fit the dataset",
                where=sample.key,
                found="nothing" if array is None else f"{array.shape} {array.dtype}",
                expected=f"{spec.shape} {spec.dtype}",
            )
        chunks[spec.name] = encode_chunk(array, layout.encoding)
    return chunks


def encode_chunk(array: NDArray[Any], encoding: Encoding) -> bytes:
    """Return an array's inner chunk: a Blosc frame, or with ``npy`` the plain little-endian values."""
    if encoding == "blosc":
        return codec.encode(array, "blosc")
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).tobytes()


class ZarrShard:
    """Writes the chunks of one array's shard to a binary file.

    Parameters
    ----------
    file
        Open for writing at its start; stays open.
    chunks
        Chunks of a full shard: the number of entries in its index.
    """

    def __init__(self, file: BinaryIO, *, chunks: int) -> None:
        self._file = file
        self._sha256 = hashlib.sha256()
        self._index = np.full((chunks, 2), MISSING, dtype=INDEX_DTYPE)
        self._count = 0
        self.size = 0

    def add(self, chunk: bytes) -> tuple[int, int]:
        """Append the next sample's chunk; return its (offset, nbytes)."""
        if self._count >= len(self._index):
            raise DatasetError("a shard has more samples than its index", found=self._count + 1)
        place = (self.size, len(chunk))
        self._index[self._count] = place
        self._count += 1
        self._write(chunk)
        return place

    def finish(self) -> str:
        """Write the index and its checksum; return the SHA-256 (hex) of the whole file."""
        index = self._index.tobytes()
        self._write(index + _crc32c(index))
        return self._sha256.hexdigest()

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._sha256.update(data)
        self.size += len(data)


def index_bytes(chunks: int) -> int:
    """Return the size of a shard's index with its checksum."""
    return chunks * 2 * INDEX_DTYPE.itemsize + CHECKSUM_BYTES


def parse_index(data: bytes, *, chunks: int, where: object = None) -> NDArray[np.uint64]:
    """Return the (chunks, 2) offsets and lengths in the last `index_bytes` of a shard file.

    Raises
    ------
    DatasetError
        The size or the checksum is wrong.
    """
    index = data[:-CHECKSUM_BYTES]
    if len(data) != index_bytes(chunks) or _crc32c(index) != data[-CHECKSUM_BYTES:]:
        raise DatasetError("a zarr shard's index is damaged", where=where, hint="copy or build the shard again")
    return np.frombuffer(index, dtype=INDEX_DTYPE).reshape(chunks, 2)


def _crc32c(data: bytes) -> bytes:
    import google_crc32c

    return int(google_crc32c.value(data)).to_bytes(CHECKSUM_BYTES, "little")


def _padded(array: NDArray[Any], spec: ArraySpec) -> NDArray[Any]:
    """Pad an array at its ends to the layout's shape; one that is larger is returned as it is."""
    if array.ndim != len(spec.shape) or any(have > most for have, most in zip(array.shape, spec.shape, strict=True)):
        return array
    out = np.full(spec.shape, spec.fill, dtype=array.dtype)
    out[tuple(slice(0, have) for have in array.shape)] = array
    return out
