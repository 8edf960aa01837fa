"""An encoding and a shard format from outside: plain values, and shards that are their samples' bytes alone."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np

from stpatch.dataset.codecs.base import Encoding
from stpatch.dataset.entries import ShardEntry, WrittenShard
from stpatch.dataset.formats.base import SampleReader, ShardFormat, Stored, check_count, check_stored
from stpatch.dataset.sample import fitting_arrays
from stpatch.dataset.snippets import Snippet
from stpatch.errors import DatasetError
from stpatch.storage import atomic_file, crc32c


class Raw(Encoding):
    """The values alone, little-endian."""

    name = "raw"
    tells_shape = False
    words = "plain little-endian values"

    def encode(self, array):
        return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()

    def decode(self, data, *, dtype=None, shape=None, where=None):
        if len(data) != math.prod(shape) * np.dtype(dtype).itemsize:
            raise DatasetError("a frame has a wrong length", where=where, found=len(data), expected=f"{dtype} {shape}")
        return np.frombuffer(data, np.dtype(dtype).newbyteorder("<")).reshape(shape).astype(dtype)

    def zarr_compressors(self, dtype):
        return None

    def snippet(self, member, *, dtype, shape):
        return ["import numpy"], [f'x = numpy.frombuffer(sample["{member}"], "{dtype}").reshape({shape})']


class _Reader(SampleReader):
    def __init__(self, files: Any, layout: Any) -> None:
        self.files, self.layout, self.raw = files, layout, Raw()

    def read(self, address):
        where = address.where
        data = self.files.read(address.shard, *address.byte_range, where=where)
        check_stored(address, data)
        arrays, at = {}, 0
        for plane in self.layout.planes:
            shape = plane.shape_at(address.size)
            nbytes = math.prod(shape) * np.dtype(plane.dtype).itemsize
            arrays[plane.name] = self.raw.decode(data[at : at + nbytes], dtype=plane.dtype, shape=shape, where=where)
            at += nbytes
        return Stored(arrays, None)


class Folder(ShardFormat):
    """All planes of a sample one after the other, samples one after the other."""

    name = "folder"
    tag = "folder"
    shard_patterns = ("*.samples/*.bin",)

    def encode(self, sample, layout):
        return {name: Raw().encode(array) for name, array in fitting_arrays(sample, layout).items()}

    def write(self, output, encoded, *, split, number, layout):
        path = f"{self.folder(split)}/{number:06d}.bin"
        data, ranges, checksums = b"", [], []
        for _, planes in encoded:
            sample = b"".join(planes.values())
            ranges.append((len(data), len(sample)))
            checksums.append(crc32c(sample))
            data += sample
        check_count(len(ranges), layout, path)
        with atomic_file(output / path) as file:
            file.write(data)
        sha256 = hashlib.sha256(data).hexdigest()
        entry = ShardEntry(path=path, bytes=len(data), sha256=sha256, patches=len(ranges))
        return WrittenShard(entry=entry, ranges=tuple(ranges), checksums=tuple(checksums))

    def write_split_files(self, output, *, name, split, layout):
        return []

    def reader(self, files, layout):
        return _Reader(files, layout)

    def shard_number(self, path):
        return int(path.rpartition("/")[2].removesuffix(".bin"))

    def shard_paths(self, split, number, layout):
        return {"": f"{self.folder(split)}/{number:06d}.bin"}

    def folder(self, split):
        return f"{split}.samples"

    def field_name(self, plane):
        return plane.name

    def x_words(self, words):
        return words

    def snippets(self, manifest, split):
        path = manifest.splits[split].shards[0].path
        return [Snippet("Python", "", [f'print(open("{path}", "rb").read()[:8])'])]
