"""Format ``slides``: whole slides, one Zarr v3 group each, from which a reader cuts patches of any size and channels.

    <split>.slides/<slide>/zarr.json           the group: slide_id, grid, and its arrays' shapes as attributes
    <split>.slides/<slide>/<array>/zarr.json   an array of one shard
    <split>.slides/<slide>/<array>/c/0...      chunk | chunk | ... | index | CRC-32C of the index
    <split>.slides/<slide>.parquet             spot ids and coordinates

A slide is a shard: it is written at once, and what it holds does not depend on the windows that are cut from it. Their
list is patches.parquet, as for the other formats, without byte ranges.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from stpatch.dataset.codecs.base import Encoding
from stpatch.dataset.cropping.stored import SPOTS, StoredSlide, array_names
from stpatch.dataset.entries import FileEntry, ShardEntry, SplitEntry, WrittenShard, write_file
from stpatch.dataset.formats.base import ByteRanges, SampleReader, ShardFormat
from stpatch.dataset.formats.zarr import ZarrShard
from stpatch.dataset.layout import Layout
from stpatch.dataset.planes import Plane
from stpatch.dataset.sample import Sample
from stpatch.dataset.snippets import Snippet
from stpatch.dataset.tables import write_table
from stpatch.errors import DatasetError
from stpatch.registry import ENCODINGS, FORMATS
from stpatch.storage import atomic_file, key_text

if TYPE_CHECKING:
    from stpatch.config import Config
    from stpatch.dataset.manifest import Manifest

CHUNK = 1 << 18
"""Rows of a chunk: a window touches one to a few, and a chunk is large enough to be worth a request."""
LARGEST_CHUNK = 1 << 24
"""Rows of a chunk that a reader still believes in."""
GROUP, TABLE, COUNTS = "zarr.json", "spots", "counts"
"""Names of parts: the group's metadata, the table of spots, and the array whose file stands for the slide."""
_PLAIN = "blosc"
"""The encoding of arrays where the dataset's own is one for patches of counts."""


@FORMATS.register
class Slides(ShardFormat):
    """Whole slides; samples are cut when they are read."""

    name = "slides"
    tag = "zarr"
    shard_patterns = ("*.slides/**/*",)
    libraries = ("zarr",)
    whole_slides = True

    def write_slide(
        self, output: Path, slide: StoredSlide, *, split: str, windows: int, layout: Layout
    ) -> WrittenShard:
        """Write one slide's group; see `ShardFormat.write_slide`."""
        folder = f"{self.folder(split)}/{key_text(slide.slide_id)}"
        encoding = array_encoding(layout)
        arrays = {name: array if len(array) else np.zeros(1, array.dtype) for name, array in slide.arrays().items()}
        names = array_names(layout.labels)
        if tuple(arrays) != names:
            raise DatasetError(
                "a slide has other arrays than the dataset", where=slide.slide_id, found=list(arrays), expected=names
            )
        parts = {name: _write_array(output, f"{folder}/{name}", array, encoding) for name, array in arrays.items()}
        for path, data in _metadata(slide, arrays, encoding).items():
            parts[path] = write_file(output, f"{folder}/{path}", data)
        name = key_text(slide.slide_id)
        table = write_table(output / self.folder(split), name, SPOTS, slide.spots)
        parts[TABLE] = table.model_copy(update={"path": f"{self.folder(split)}/{table.path}"})
        first = parts.pop(COUNTS)
        entry = ShardEntry(path=first.path, bytes=first.bytes, sha256=first.sha256, patches=windows, parts=parts)
        return WrittenShard(entry=entry, ranges=((0, 0),) * windows, checksums=(0,) * windows)

    def refusal(self, config: Config) -> str | None:
        """Refuse what whole slides of counts cannot be: normalized, divided among splits, or extended."""
        if config.shards.values != "counts":
            return (
                f"shards.format: {self.name} holds counts only; set shards.values: counts (they are normalized when "
                "read) or another shards.format"
            )
        if config.dataset.extends is not None:
            return (
                f"shards.format: {self.name} cannot extend an earlier dataset yet; leave dataset.extends out or choose "
                "another shards.format"
            )
        if config.split.blocks is not None:
            return (
                f"shards.format: {self.name} stores whole slides, so a slide is of one split; leave split.blocks out "
                "or choose another shards.format"
            )
        return None

    def encode(self, sample: Sample, layout: Layout) -> NoReturn:  # noqa: ARG002 - there are no stored samples
        """Raise: there are no stored samples."""
        raise _no_samples(sample.key)

    def write(
        self,
        output: Path,
        encoded: Iterable[tuple[str, Mapping[str, bytes]]],  # noqa: ARG002 - there are no stored samples
        *,
        split: str,
        number: int,  # noqa: ARG002
        layout: Layout,  # noqa: ARG002
    ) -> NoReturn:
        """Raise: there are no stored samples."""
        raise _no_samples(output / self.folder(split))

    def write_split_files(self, output: Path, *, name: str, split: SplitEntry, layout: Layout) -> list[FileEntry]:  # noqa: ARG002
        """Return none: all files are those of slides."""
        return []

    def reader(self, files: ByteRanges, layout: Layout) -> SampleReader:  # noqa: ARG002 - there are no stored samples
        """Raise: samples are cut by `stpatch.dataset.cropping`."""
        raise _no_samples(None)

    def part_names(self, layout: Layout) -> list[str]:
        """Return the files of a slide but for its counts."""
        names = array_names(layout.labels)
        return [*names[1:], GROUP, *(f"{name}/{GROUP}" for name in names), TABLE]

    def shard_number(self, path: str) -> NoReturn:
        """Raise: slides are found by their names, so datasets of them are neither merged nor extended yet."""
        raise _not_numbered(path)

    def shard_paths(self, split: str, number: int, layout: Layout) -> NoReturn:  # noqa: ARG002
        """Raise; see `shard_number`."""
        raise _not_numbered(self.folder(split))

    def folder(self, split: str) -> str:
        """Return the folder of the split's slides."""
        return f"{split}.slides"

    def field_name(self, plane: Plane) -> str:
        """Return the plane's name."""
        return plane.name

    def x_words(self, words: str) -> str:  # noqa: ARG002 - x is not stored
        """Return how it comes about."""
        return "cut from the slide's `counts` when it is read"

    def further_reading(self, manifest: Manifest, split: str) -> list[str]:
        """Return how others cut the slides in their own way."""
        height, width = manifest.layout.shape[1:]
        return [
            "## Cropping",
            "",
            f"The dataset holds whole slides. patches.parquet lists the windows of {height} x {width} pixels that it "
            "was made with; others are cut when they are read, with nothing built again:",
            "",
            "```python",
            "import stpatch",
            "",
            'crop = {"method": "random", "size": 8, "min_coverage": 0.3}  # or "tiles" with a "stride"',
            'rule = {"method": "variance_sampled", "n": 64}  # or {"genes": ["GENE", ...]}',
            f'dataset = stpatch.open(".", "{split}", crop=crop, channels=rule, pitch=2, seed=0, fresh=True)',
            "print(dataset.at_epoch(1).table.num_rows, dataset.at_epoch(1)[0].x.shape)",
            "```",
            "",
            "Sample i of epoch e under a seed is the same window with the same channels on every machine. To say in a "
            "paper what was trained on, name the dataset's fingerprint and these keys; `dataset.at_epoch(e).table` "
            "lists the windows. `stpatch convert` writes shards, `.h5ad` files or SpatialData stores.",
            "",
        ]

    def snippets(self, manifest: Manifest, split: str) -> list[Snippet]:
        """Return how plain zarr reads the first window's counts of all genes."""
        height, width = manifest.layout.shape[1:]
        rows = f'pyarrow.parquet.read_table("patches.parquet", filters=[("split", "==", "{split}")]).to_pylist()'
        size = ['height, width = row["height"], row["width"]'] if manifest.layout.variable else []
        lines = [
            "import numpy",
            "import pyarrow.parquet",
            "import zarr",
            "",
            f"row = {rows}[0]",
            f"height, width = {height}, {width}",
            *size,
            'slide = zarr.open(row["shard"].removesuffix("/counts/c/0"), mode="r")',
            'indptr, genes, counts = slide["indptr"][:], slide["genes"][:], slide["counts"][:]',
            'pixel = slide["pixels"][:] - [row["row"], row["col"]]',
            "inside = ((pixel >= 0) & (pixel < [height, width])).all(axis=1)",
            'totals, x = numpy.zeros((height, width)), numpy.zeros((slide["gene_ids"].size, height, width), int)',
            'numpy.add.at(totals, tuple(pixel[inside].T), slide["totals"][:][inside])',
            "for spot in numpy.flatnonzero(inside):",
            "    part = slice(indptr[spot], indptr[spot + 1])",
            "    x[(genes[part], *pixel[spot])] += counts[part]  # axis 0: the genes of gene_ids",
            'print(row["key"], x.shape, totals.sum())',
        ]
        return [Snippet("zarr", "A window's counts of all genes, from the slide that it lies on:", lines)]


class SlideFiles:
    """The files of one stored slide.

    Parameters
    ----------
    files
        Reads the dataset's files.
    shard
        The slide's entry of the manifest.
    layout
        The dataset's.
    folder
        The dataset's folder where it is a local one, so that arrays of plain values are mapped instead of read.
    """

    def __init__(self, files: ByteRanges, shard: ShardEntry, *, layout: Layout, folder: Path | None = None) -> None:
        import json

        self._files, self._shard, self._folder = files, shard, folder
        self._encoding = array_encoding(layout)
        group = shard.parts[GROUP]
        try:
            value = json.loads(files.read(group, 0, group.bytes, where=group.path))["attributes"]
            self._arrays = {
                str(name): (tuple(map(int, item["shape"])), np.dtype(str(item["dtype"])), int(item["chunk"]))
                for name, item in value["arrays"].items()
            }
            self.slide_id = str(value["slide_id"])
            self.grid_shape = (int(value["grid"][0]), int(value["grid"][1]))
            self.facts: dict[str, Any] = dict(value["facts"])
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise _damaged("a slide's group cannot be read", group.path, error) from error
        if any(not 1 <= chunk <= LARGEST_CHUNK for _, _, chunk in self._arrays.values()):
            raise _damaged("a slide's chunks are of no possible size", group.path, self._arrays)

    def read(self, name: str) -> NDArray[Any]:
        """Return an array; mapped and read-only where that is possible.

        Raises
        ------
        DatasetError
            A file is missing or damaged.
        """
        shape, dtype, chunk = self._arrays[name]
        entry = self._shard if name == COUNTS else self._shard.parts[name]
        chunks = -(-shape[0] // chunk)
        plain = self._encoding.zarr_compressors(dtype) is None and self._encoding.zarr_serializer(dtype) is None
        if plain and self._folder is not None and entry.bytes >= int(np.prod(shape)) * dtype.itemsize:
            with contextlib.suppress(OSError, ValueError):
                return np.memmap(self._folder / entry.path, dtype=dtype, mode="r", shape=shape)  # chunks follow on
        from stpatch.dataset.formats.zarr import index_bytes, parse_index

        size = index_bytes(chunks)
        data = self._files.read(entry, 0, entry.bytes, where=entry.path)
        index = parse_index(data[-size:], chunks=chunks, where=entry.path)
        out = np.empty((chunks * chunk, *shape[1:]), dtype)
        for number, (offset, nbytes) in enumerate(index.tolist()):
            part = data[offset : offset + nbytes]
            rows = out[number * chunk : (number + 1) * chunk]
            self._encoding.decode_chunk_into(part, rows, where=f"{entry.path}, chunk {number}")
        return out[: shape[0]]

    def spots(self) -> Any:
        """Return spots.parquet as a pyarrow table."""
        import io

        import pyarrow as pa
        import pyarrow.parquet as pq

        entry = self._shard.parts[TABLE]
        data = self._files.read(entry, 0, entry.bytes, where=entry.path)
        try:
            return pq.read_table(io.BytesIO(data), columns=list(SPOTS))
        except (pa.ArrowException, OSError, ValueError) as error:
            raise _damaged("a slide's spots cannot be read", entry.path, error) from error


def array_encoding(layout: Layout) -> Encoding:
    """Return the encoding of a slide's arrays: the dataset's, unless that is one for patches of counts alone."""
    encoding = ENCODINGS.get(layout.encoding)
    return ENCODINGS.get(_PLAIN) if encoding.counts_only else encoding


def _chunk_rows(array: NDArray[Any]) -> int:
    return min(len(array), CHUNK)


def _write_array(output: Path, folder: str, array: NDArray[Any], encoding: Encoding) -> FileEntry:
    path = "/".join([folder, "c", *("0" for _ in array.shape)])
    chunk = _chunk_rows(array)
    count = -(-len(array) // chunk)
    with atomic_file(output / path) as file:
        shard = ZarrShard(file, chunks=count)
        for start in range(0, count * chunk, chunk):
            part = array[start : start + chunk]
            if len(part) < chunk:
                part = np.concatenate([part, np.zeros((chunk - len(part), *array.shape[1:]), array.dtype)])
            shard.add(encoding.encode_chunk(part))
        sha256 = shard.finish()
    return FileEntry(path=path, bytes=shard.size, sha256=sha256)


def _metadata(slide: StoredSlide, arrays: Mapping[str, NDArray[Any]], encoding: Encoding) -> dict[str, bytes]:
    """Return the ``zarr.json`` files of a slide's group, by path inside the group."""
    import zarr
    from zarr.codecs import BytesCodec
    from zarr.storage import MemoryStore

    attributes = {
        "slide_id": slide.slide_id,
        "grid": list(slide.grid_shape),
        "facts": dict(slide.facts),
        "arrays": {
            name: {"shape": list(array.shape), "dtype": array.dtype.name, "chunk": _chunk_rows(array)}
            for name, array in arrays.items()
        },
    }
    files: dict[str, Any] = {}
    group = zarr.create_group(MemoryStore(files), zarr_format=3, attributes=attributes)
    for name, array in arrays.items():
        chunk = _chunk_rows(array)
        rest = array.shape[1:]
        group.create_array(
            name,
            shape=array.shape,
            dtype=array.dtype,
            shards=(-(-len(array) // chunk) * chunk, *rest),
            chunks=(chunk, *rest),
            serializer=encoding.zarr_serializer(array.dtype) or BytesCodec(endian="little"),
            compressors=encoding.zarr_compressors(array.dtype),
            filters=None,
            fill_value=0,
        )
    return {path: value.to_bytes() for path, value in sorted(files.items())}


def _not_numbered(where: object) -> DatasetError:
    return DatasetError(
        "datasets of whole slides cannot be merged or extended yet",
        where=where,
        hint="build all slides together, or stpatch convert them to shards first",
    )


def _no_samples(where: object) -> DatasetError:
    return DatasetError("a dataset of slides stores no samples: they are cut when they are read", where=where)


def _damaged(what: str, where: object, error: object) -> DatasetError:
    return DatasetError(what, where=where, found=error, hint="fetch the dataset's files again, or build it again")
