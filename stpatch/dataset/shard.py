"""One shard, written whole: the entry to the tar and the zarr writers."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from stpatch.dataset.formats.tar import TarShard
from stpatch.dataset.formats.zarr import ZarrShard, encode_arrays, group_metadata
from stpatch.dataset.layout import FileRecord, Layout, ShardRecord, tar_path, zarr_path, zarr_shard_path
from stpatch.dataset.sample import Sample, encode_fields
from stpatch.errors import DatasetError
from stpatch.storage import atomic_file, write_bytes


def encode_sample(sample: Sample, layout: Layout) -> dict[str, bytes]:
    """Return a sample as it lies in a shard: tar members by name, or zarr chunks by array name.

    Raises
    ------
    DatasetError
        The sample does not fit the layout.
    """
    if layout.format == "zarr":
        return encode_arrays(sample, layout)
    _check_fits(sample, layout)
    members = encode_fields(sample, layout.encoding, variable=layout.variable)
    if tuple(members) != layout.fields:
        raise _other_fields(sample, tuple(members), layout.fields)
    return members


def write_encoded(
    output: Path, encoded: Iterable[tuple[str, Mapping[str, bytes]]], *, split: str, number: int, layout: Layout
) -> ShardRecord:
    """Write a shard; its final names appear when it is complete, and never otherwise.

    Parameters
    ----------
    output
        The dataset's folder.
    encoded
        The shard's samples in order: key, and what `encode_sample` made.
    split, number
        Which shard: `number` counts from 0 in its split.
    layout
        The dataset's layout.

    Returns
    -------
    ShardRecord
        With paths from `output`, sizes, SHA-256 and each sample's byte range.

    Raises
    ------
    DatasetError
        There are no samples or too many.
    """
    write = _write_tar if layout.format == "tar" else _write_zarr
    return write(output, encoded, split, number, layout)


def write_zarr_metadata(output: Path, *, split: str, patches: int, layout: Layout) -> list[FileRecord]:
    """Write the ``zarr.json`` files of a split's group; `patches` is the split's number of samples."""
    records = []
    for name, data in group_metadata(layout, patches=patches).items():
        path = f"{zarr_path(split)}/{name}"
        write_bytes(output / path, data)
        records.append(FileRecord(path=path, bytes=len(data), sha256=hashlib.sha256(data).hexdigest()))
    return records


def _write_tar(
    output: Path, encoded: Iterable[tuple[str, Mapping[str, bytes]]], split: str, number: int, layout: Layout
) -> ShardRecord:
    path = tar_path(split, number)
    ranges: list[tuple[int, int]] = []
    with atomic_file(output / path) as file:
        shard = TarShard(file)
        ranges.extend(shard.add(key, members) for key, members in encoded)
        _check_count(len(ranges), layout, path)
        sha256 = shard.finish()
    record = FileRecord(path=path, bytes=shard.size, sha256=sha256)
    return ShardRecord(patches=len(ranges), file=record, parts={}, ranges=tuple(ranges))


def _write_zarr(
    output: Path, encoded: Iterable[tuple[str, Mapping[str, bytes]]], split: str, number: int, layout: Layout
) -> ShardRecord:
    arrays = {array.name: array for array in layout.arrays()}
    paths = {name: zarr_shard_path(split, array, number) for name, array in arrays.items()}
    ranges = []
    with contextlib.ExitStack() as stack:
        shards = {
            name: ZarrShard(stack.enter_context(atomic_file(output / path)), chunks=layout.patches)
            for name, path in paths.items()
        }
        for _, chunks in encoded:
            places = {name: shards[name].add(chunk) for name, chunk in chunks.items()}
            ranges.append(places["x"])
        _check_count(len(ranges), layout, paths["x"])
        sums = {name: shard.finish() for name, shard in shards.items()}
    files = {name: FileRecord(path=paths[name], bytes=shard.size, sha256=sums[name]) for name, shard in shards.items()}
    return ShardRecord(patches=len(ranges), file=files.pop("x"), parts=files, ranges=tuple(ranges))


def _check_fits(sample: Sample, layout: Layout) -> None:
    shape, most = sample.x.shape, layout.shape
    if layout.variable:
        fits = len(shape) == 3 and shape[0] == most[0] and shape[1] <= most[1] and shape[2] <= most[2]
    else:
        fits = shape == most
    if not fits or sample.x.dtype != layout.dtype:
        raise DatasetError(
            "x does not fit the dataset",
            where=sample.key,
            found=f"{shape} {sample.x.dtype}",
            expected=f"{most} {layout.dtype}",
        )


def _check_count(count: int, layout: Layout, path: str) -> None:
    if not 0 < count <= layout.patches:
        raise DatasetError(
            "a shard has no samples or too many", where=path, found=count, expected=f"1 to {layout.patches}"
        )


def _other_fields(sample: Sample, found: tuple[str, ...], expected: tuple[str, ...]) -> DatasetError:
    return DatasetError(
        "a sample has other fields than the dataset",
        where=sample.key,
        found=", ".join(found),
        expected=", ".join(expected),
    )
