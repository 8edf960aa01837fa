"""Format ``zarr``: one Zarr v3 group per split, one array per plane, first axis = sample, sharded on it.

    <split>.zarr/<plane>/c/<shard>/0/...    chunk | chunk | ... | index | CRC-32C of the index
    index                                   (offset, nbytes) per chunk, little-endian uint64

A shard file is the samples' chunks one after the other, then the index and the CRC-32C of the index, as the codec
``sharding_indexed`` lays down. A chunk is one sample's plane, in the bytes that `Encoding.encode_chunk` makes. Array
``meta`` holds each sample's meta.json as bytes, so that a sample itself names its key, slide and place. Shards are put
together from encoded samples without the zarr library, which would decode and encode them once more. Only the metadata
is written by the library, and plain ``zarr.open`` reads it all.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from stpatch.dataset.entries import FileEntry, ShardEntry, SplitEntry, WrittenShard, write_file
from stpatch.dataset.formats.base import (
    Address,
    ByteRanges,
    Entries,
    Range,
    SampleReader,
    ShardFormat,
    Stored,
    check_count,
    check_stored,
    where_of,
)
from stpatch.dataset.layout import Layout
from stpatch.dataset.planes import Plane, X
from stpatch.dataset.sample import Sample, encode_meta, fitting_arrays
from stpatch.dataset.snippets import Snippet, zarr_snippets
from stpatch.errors import DatasetError
from stpatch.registry import ENCODINGS, FORMATS
from stpatch.storage import atomic_file, crc32c

if TYPE_CHECKING:
    from stpatch.dataset.manifest import Manifest

KEPT_INDEXES = 256
"""Shard indexes that a reader keeps."""

MISSING = 2**64 - 1
"""Offset and length of a chunk that is not there, by the codec's definition."""
INDEX_DTYPE = np.dtype("<u8")
META_PLANE = Plane(name="meta", kind="meta", dims=("byte",), shape=(512,), dtype="uint8")
"""meta.json of a sample, padded with zeros: a key of 100 bytes, a slide_id of 128 and some numbers need less."""
META_SINCE = 2
"""The first version of the format that has it."""
CHECKSUM_BYTES = 4


@FORMATS.register
class Zarr(ShardFormat):
    """Samples as rows of sharded arrays."""

    name = "zarr"
    tag = "zarr"
    shard_patterns = ("*.zarr/*/c/**/*",)
    libraries = ("zarr",)
    fixed_shape = True

    def encode(self, sample: Sample, layout: Layout) -> dict[str, bytes]:
        """Return a sample's chunks by plane name, padded to the layout's shape where samples vary."""
        encoding = ENCODINGS.get(layout.encoding)
        arrays = fitting_arrays(sample, layout)
        if layout.version >= META_SINCE:
            arrays[META_PLANE.name] = _meta_array(encode_meta(sample, layout), where=sample.key)
        return {
            plane.name: encoding.encode_chunk(_padded(arrays[plane.name], plane)) for plane in stored_planes(layout)
        }

    def write(
        self,
        output: Path,
        encoded: Iterable[tuple[str, Mapping[str, bytes]]],
        *,
        split: str,
        number: int,
        layout: Layout,
    ) -> WrittenShard:
        """Write one shard file per plane; see `ShardFormat.write`."""
        paths = {plane.name: shard_path(split, plane, number) for plane in stored_planes(layout)}
        ranges, checksums = [], []
        with contextlib.ExitStack() as stack:
            shards = {
                name: ZarrShard(stack.enter_context(atomic_file(output / path)), chunks=layout.patches)
                for name, path in paths.items()
            }
            for _, chunks in encoded:
                byte_ranges = {name: shards[name].add(chunk) for name, chunk in chunks.items()}
                ranges.append(byte_ranges[X])
                checksums.append(crc32c(*(chunks[plane.name] for plane in layout.planes)))
            check_count(len(ranges), layout, paths[X])
            sums = {name: shard.finish() for name, shard in shards.items()}
        files = {
            name: {"path": paths[name], "bytes": shard.size, "sha256": sums[name]} for name, shard in shards.items()
        }
        x = files.pop(X)
        parts = {name: FileEntry.model_validate(file) for name, file in files.items()}
        entry = ShardEntry.model_validate({**x, "patches": len(ranges), "parts": parts})
        return WrittenShard(entry=entry, ranges=tuple(ranges), checksums=tuple(checksums))

    def write_split_files(self, output: Path, *, name: str, split: SplitEntry, layout: Layout) -> list[FileEntry]:
        """Write the ``zarr.json`` files of the split's group.

        A shard has its place on the first axis by its number. In a dataset that grew, shards before the last one may
        be short or missing: the rows that they lack read as fill values, and no row of patches.parquet names them.
        """
        metadata = group_metadata(layout, patches=self._length(split, layout))
        return [write_file(output, f"{self.folder(name)}/{path}", data) for path, data in metadata.items()]

    def check_split(self, folder: Path, *, name: str, split: SplitEntry, layout: Layout) -> Iterator[DatasetError]:
        """Yield where plain zarr would find other arrays or chunks: by the groups' metadata and the shards' indexes."""
        yield from _check_metadata(folder / self.folder(name), layout, patches=self._length(split, layout))
        for shard in split.shards:
            for file in shard.files():
                yield from _check_index(folder / file.path, file, patches=shard.patches, chunks=layout.patches)

    def _length(self, split: SplitEntry, layout: Layout) -> int:
        last = split.shards[-1]
        return self.shard_number(last.path) * layout.patches + last.patches

    def reader(self, files: ByteRanges, layout: Layout) -> ZarrReader:
        """Return a reader of chunks."""
        return ZarrReader(files, layout)

    def part_names(self, layout: Layout) -> list[str]:
        """Return all planes but x, whose file is the shard's own."""
        return [plane.name for plane in stored_planes(layout) if plane.name != X]

    def shard_number(self, path: str) -> int:
        """Return the shard's place on the first axis: ``<split>.zarr/x/c/<number>/0/0/0``."""
        return int(path.split("/")[3])

    def shard_paths(self, split: str, number: int, layout: Layout) -> dict[str, str]:
        """Return the shard file of each array; that of x is the shard's own."""
        return {
            "" if plane.name == X else plane.name: shard_path(split, plane, number) for plane in stored_planes(layout)
        }

    def folder(self, split: str) -> str:
        """Return the split's group."""
        return f"{split}.zarr"

    def field_name(self, plane: Plane) -> str:
        """Return the array's name."""
        return plane.name

    def x_words(self, words: str) -> str:  # noqa: ARG002 - zarr decodes the chunks, whatever they are
        """Return that it is an array."""
        return "array"

    def further_fields(self, layout: Layout) -> list[tuple[str, str]]:
        """Return the array of meta.json."""
        words = f"({META_PLANE.shape[0]},) uint8, meta.json padded with zeros: key, slide_id, row, col, n_spots"
        return [(META_PLANE.name, words)] if layout.version >= META_SINCE else []

    def snippets(self, manifest: Manifest, split: str) -> list[Snippet]:
        """Return how plain zarr and what else knows Zarr v3 read it."""
        shards = manifest.splits[split].shards
        numbered = [self.shard_number(shard.path) for shard in shards] == list(range(len(shards)))
        full = all(shard.patches == manifest.layout.patches for shard in shards[:-1])
        return zarr_snippets(manifest, split, folder=self.folder(split), gaps="no" if numbered and full else "yes")


class ZarrReader(SampleReader):
    """Reads samples of zarr shards: one byte range per plane, that of x from patches.parquet."""

    def __init__(self, files: ByteRanges, layout: Layout) -> None:
        self._files = files
        self._layout = layout
        self._encoding = ENCODINGS.get(layout.encoding)
        self._indexes: dict[str, NDArray[np.uint64]] = {}
        self._names = {plane.name for plane in layout.planes}

    def forget(self) -> None:
        """Let go of the shard indexes."""
        self._indexes = {}

    def checksum(self, address: Address) -> int:
        """Return that of the chunks of all planes."""
        return crc32c(*(self._bytes(plane.name, address)[0] for plane in self._layout.planes))

    def read(self, address: Address) -> Stored:
        """Return one sample; see `SampleReader.read`. In format 1 chunks have no key, so it is not compared."""
        arrays, stored = {}, self._chunks(address, [plane.name for plane in self._layout.planes])
        for plane in self._layout.planes:
            data, where = stored[plane.name]
            array = self._encoding.decode_chunk(data, dtype=plane.dtype, shape=plane.shape, where=where)
            shape = plane.shape_at(address.size)
            arrays[plane.name] = array if address.size is None else array[tuple(map(slice, shape))]
        return Stored(arrays, self._meta(address) if self._layout.version >= META_SINCE else None)

    def _meta(self, address: Address) -> bytes:
        """Return a sample's meta.json, whose key is compared."""
        data, where = self._bytes(META_PLANE.name, address)
        array = self._encoding.decode_chunk(data, dtype=META_PLANE.dtype, shape=META_PLANE.shape, where=where)
        meta = array.tobytes().rstrip(b"\0")
        found = _key_of(meta)
        if found != address.key:
            raise DatasetError("a chunk holds another sample", where=where, found=found, expected=address.key)
        return meta

    def fields(self, address: Address) -> dict[str, bytes]:
        """Return one sample's chunks; see `SampleReader.fields`. That of x is where the shard's index says too."""
        where = address.where
        if self._chunk(address.shard, address.index, where) != address.byte_range:
            raise DatasetError("the row and the shard's index disagree on a sample's bytes", where=where)
        return {plane.name: self._bytes(plane.name, address)[0] for plane in stored_planes(self._layout)}

    def read_into(self, address: Address, out: Mapping[str, NDArray[Any]]) -> Entries | None:
        """Read chunks to arrays; see `SampleReader.read_into`."""
        # Chunks are padded to the largest sample, so that those of smaller ones do not fit; and only an encoding of
        # counts has chunks that are its members.
        if address.size is not None or (X not in out and not self._encoding.counts_only):
            return super().read_into(address, out)
        stored = self._chunks(address, [*out, X])
        for name, array in out.items():
            data, where = stored[name]
            self._encoding.decode_chunk_into(data, array, where=where)
        if X in out:
            return None
        data, where = stored[X]
        x = self._layout.planes[0]
        return Entries(*self._encoding.decode_entries(data, dtype=x.dtype, shape=x.shape, where=where))

    def ranges(self, address: Address) -> list[Range]:
        """Return the ranges of a sample's chunks, for which the shards' indexes are read."""
        found = [Range(address.shard, *address.byte_range)]
        for name, file in address.shard.parts.items():
            if name in self._names:
                found.append(Range(file, *self._chunk(file, address.index, where_of(file, address.key))))
        return found

    def _chunks(self, address: Address, names: Iterable[str]) -> dict[str, tuple[bytes, str]]:
        """Return the chunks of a sample's planes and the words for where they are: all, where they are checked."""
        if address.checksum is None:
            return {name: self._bytes(name, address) for name in dict.fromkeys(names)}
        stored = {plane.name: self._bytes(plane.name, address) for plane in self._layout.planes}
        check_stored(address, *(data for data, _ in stored.values()))
        return stored

    def _bytes(self, name: str, address: Address) -> tuple[bytes, str]:
        """Return the chunk of a sample's plane, and the words for where it is."""
        file = address.shard if name == X else address.shard.parts[name]
        where = f"{where_of(file, address.key)}, {name}"
        offset, nbytes = address.byte_range if name == X else self._chunk(file, address.index, where)
        return self._files.read(file, offset, nbytes, where=where), where

    def shard_index(self, file: FileEntry) -> NDArray[np.uint64]:
        """Return the (patches, 2) offsets and lengths of a shard file."""
        index = self._indexes.get(file.path)
        if index is None:
            size = index_bytes(self._layout.patches)
            data = self._files.read(file, file.bytes - size, size, where=file.path)
            index = parse_index(data, chunks=self._layout.patches, where=file.path)
            # A new dict rather than `clear`: another thread may be reading the old one.
            if len(self._indexes) >= KEPT_INDEXES:
                self._indexes = {}
            self._indexes[file.path] = index
        return index

    def _chunk(self, file: FileEntry, index: int, where: str) -> tuple[int, int]:
        offset, nbytes = self.shard_index(file)[index]
        if offset == MISSING:
            raise DatasetError(
                "a zarr shard lacks a sample", where=where, hint="fetch the dataset's files again, or build it again"
            )
        return int(offset), int(nbytes)


def stored_planes(layout: Layout) -> tuple[Plane, ...]:
    """Return the planes that are arrays of a group: a sample's own, and its meta.json."""
    return (*layout.planes, META_PLANE) if layout.version >= META_SINCE else layout.planes


def shard_path(split: str, plane: Plane, number: int) -> str:
    """Return the path of the shard file `number` of a plane in the dataset."""
    chunk = "/".join(["c", str(number), *("0" for _ in plane.shape)])
    return f"{split}.zarr/{plane.name}/{chunk}"


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
    from zarr.codecs import BytesCodec
    from zarr.storage import MemoryStore

    files: dict[str, Any] = {}
    store = MemoryStore(files)
    group = zarr.create_group(store, zarr_format=3)
    encoding = ENCODINGS.get(layout.encoding)
    for plane in stored_planes(layout):
        group.create_array(
            plane.name,
            shape=(patches, *plane.shape),
            dtype=plane.dtype,
            shards=(layout.patches, *plane.shape),
            chunks=(1, *plane.shape),
            serializer=encoding.zarr_serializer(np.dtype(plane.dtype)) or BytesCodec(endian="little"),
            compressors=encoding.zarr_compressors(np.dtype(plane.dtype)),
            filters=None,
            fill_value=plane.fill,
            dimension_names=("patch", *plane.dims),
        )
    return {path: value.to_bytes() for path, value in sorted(files.items())}


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
        byte_range = (self.size, len(chunk))
        self._index[self._count] = byte_range
        self._count += 1
        self._write(chunk)
        return byte_range

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
    return crc32c(data).to_bytes(CHECKSUM_BYTES, "little")


def _check_metadata(group: Path, layout: Layout, *, patches: int) -> Iterator[DatasetError]:
    """Yield ``zarr.json`` files that zarr reads as something else than the group that the manifest tells of.

    Only metadata is parsed, so that no number in it is used for anything. Other versions of zarr may write it in other
    words, so that it is held against ours as zarr understands both.
    """
    from zarr.core.group import GroupMetadata
    from zarr.core.metadata import ArrayV3Metadata

    for path, data in group_metadata(layout, patches=patches).items():
        try:
            there = (group / path).read_bytes()
            if there == data:
                continue
            kind = ArrayV3Metadata if "/" in path else GroupMetadata
            found, expected = (kind.from_dict(json.loads(text, object_pairs_hook=_once)) for text in (there, data))
            if found.to_dict() == expected.to_dict():
                continue
        except Exception as error:  # noqa: BLE001 - zarr raises what comes, and any of it means that it cannot read it
            yield DatasetError("zarr cannot read a group's metadata", where=group / path, found=error)
        else:
            yield DatasetError(
                "zarr would read another array than the manifest tells of",
                where=group / path,
                expected=data.decode()[:400],
            )


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON mapping; readers disagree on which value counts where a key is there twice."""
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key is there twice")
    return value


def _check_index(path: Path, file: FileEntry, *, patches: int, chunks: int) -> Iterator[DatasetError]:
    """Yield where a shard's index does not tell of one chunk after the other, and of nothing else in the file."""
    size = index_bytes(chunks)
    with path.open("rb") as opened:
        opened.seek(-size, 2)
        try:
            index = parse_index(opened.read(), chunks=chunks, where=path)
        except DatasetError as problem:
            yield problem
            return
    ends = np.cumsum(index[:patches, 1], dtype=np.uint64)
    starts = np.concatenate([np.zeros(1, np.uint64), ends[:-1]])
    if (index[:patches, 0] != starts).any() or int(ends[-1]) + size != file.bytes or (index[patches:] != MISSING).any():
        yield DatasetError("a zarr shard has other chunks than its samples", where=path, hint="build the shard again")


def _meta_array(data: bytes, *, where: object) -> NDArray[np.uint8]:
    """Return meta.json as an array, padded with zeros."""
    if len(data) > META_PLANE.shape[0]:
        raise DatasetError(
            "a sample's meta.json is too long for a zarr shard",
            where=where,
            found=f"{len(data)} bytes",
            expected=f"at most {META_PLANE.shape[0]}",
            hint="shorten the slide_id",
        )
    return np.frombuffer(data.ljust(META_PLANE.shape[0], b"\0"), np.uint8)


def _key_of(meta: bytes) -> object:
    """Return the key in a meta.json, None where there is none."""
    try:
        value = json.loads(meta)
    except (ValueError, RecursionError):
        return None
    return value.get("key") if isinstance(value, dict) else None


def _padded(array: NDArray[Any], plane: Plane) -> NDArray[Any]:
    """Pad an array at its ends to the plane's shape; the same array where it has that shape."""
    if array.shape == plane.shape:
        return array
    out = np.full(plane.shape, plane.fill, dtype=array.dtype)
    out[tuple(map(slice, array.shape))] = array
    return out
