"""Whether a dataset is whole: manifest, tables and shards against each other, and deep: every sample against its row.

A problem is a `DatasetError` that is yielded, not raised: a damaged dataset has many, and all of them are told.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpatch.dataset import content
from stpatch.dataset.access import ShardReader
from stpatch.dataset.entries import FileEntry, ShardEntry, SplitEntry
from stpatch.dataset.formats.base import Address
from stpatch.dataset.manifest import MANIFEST, Manifest, read_manifest
from stpatch.dataset.tables import GENES, SLIDES, codes, numbers, patch_columns, read_table
from stpatch.errors import DatasetError
from stpatch.registry import FORMATS
from stpatch.storage import sha256_file

Rows = Mapping[str, Any]
Progress = Callable[[str], None]


def verify(folder: Path, *, deep: bool = False, progress: Progress | None = None) -> Iterator[DatasetError]:
    """Yield every problem of a dataset; none means that it is whole.

    Parameters
    ----------
    folder
        The dataset's folder.
    deep
        Decode every sample too, and hold it against its row and the other tables.
    progress
        Called with the path of each file that has been looked at.
    """
    tell = progress or (lambda _path: None)
    try:
        manifest = read_manifest(folder)
    except DatasetError as problem:
        yield problem
        return
    tell(MANIFEST)
    intact = set()
    for file in [*manifest.tables.values(), *manifest.files]:
        problem_of_file = _check_file(folder, file)
        if problem_of_file is None:
            intact.add(file.path)
        else:
            yield problem_of_file
        tell(file.path)
    for split in manifest.splits.values():
        for shard in split.shards:
            for file in shard.files():
                problem_of_file = _check_file(folder, file)
                if problem_of_file is not None:
                    yield problem_of_file
                tell(file.path)
    yield from _unlisted(folder, manifest)
    if any(manifest.tables[name].path not in intact for name in manifest.tables):
        return  # rows of a damaged table would be problems that the shards do not have
    yield from _check_tables(folder, manifest, deep=deep, tell=tell)


def _check_file(folder: Path, file: FileEntry) -> DatasetError | None:
    """Return the problem of a file's presence, size or checksum."""
    path = folder / file.path
    try:
        size = path.stat().st_size
        if size != file.bytes:
            return DatasetError(
                "a file has a wrong size", where=path, found=f"{size} bytes", expected=f"{file.bytes} bytes"
            )
        sha256 = sha256_file(path)
    except FileNotFoundError:
        return DatasetError("a file is missing", where=path, hint="fetch the dataset's files again, or build it again")
    except OSError as error:
        return DatasetError(
            "a file cannot be read", where=path, found=error, hint="fetch the dataset's files again, or build it again"
        )
    if sha256 != file.sha256:
        return DatasetError("a file's checksum is wrong", where=path, found=sha256, expected=file.sha256)
    return None


def _unlisted(folder: Path, manifest: Manifest) -> Iterator[DatasetError]:
    """Yield shards that the manifest does not know, because a reader that takes whole folders would read them."""
    known = {file.path for file in manifest.files}
    for split in manifest.splits.values():
        known.update(file.path for shard in split.shards for file in shard.files())
    formats = [FORMATS.get(name) for name in {*FORMATS.own(), manifest.layout.format}]
    for name in manifest.splits:
        for top in sorted(folder / format_.folder(name) for format_ in formats):
            for parent, _, files in sorted(os.walk(top)):
                for file in sorted(files):
                    path = (Path(parent) / file).relative_to(folder).as_posix()
                    if path not in known:
                        yield DatasetError("a file is not in the manifest", where=folder / path, hint="remove it")


def _check_tables(folder: Path, manifest: Manifest, *, deep: bool, tell: Progress) -> Iterator[DatasetError]:
    layout = manifest.layout
    columns = patch_columns(layout, draws=manifest.draws)
    paths = {name: folder / record.path for name, record in manifest.tables.items()}
    try:
        patches = read_table(paths["patches"], columns)
        slides = read_table(paths["slides"], SLIDES)
        genes = read_table(paths["genes"], GENES)
        numeric = [name for name, kind in columns.items() if kind != "string"]
        rows: dict[str, Any] = {name: numbers(patches[name], where=paths["patches"]) for name in numeric}
        gene_ids = numbers(genes["gene_id"], where=paths["genes"])
        slide_patches = numbers(slides["patches"], where=paths["slides"])
    except DatasetError as problem:
        yield problem
        return
    if (np.diff(gene_ids) <= 0).any() or (gene_ids < 0).any() or manifest.pad_id in gene_ids:
        yield DatasetError(
            "gene ids are wrong", where=paths["genes"], expected=f"ascending, none negative, none {manifest.pad_id}"
        )
    if manifest.scope == "panel":
        yield from _check_panel(genes["channel"].to_pylist(), layout.shape[0], where=paths["genes"])
    for name in ("key", "split", "shard", "slide_id"):
        rows[name] = patches[name].to_pylist()
    yield from _check_keys(rows["key"], where=paths["patches"])
    split_of, names = codes(patches["split"])
    for unknown in sorted(set(names) - set(manifest.splits)):
        yield DatasetError(
            "a split is not in the manifest",
            where=paths["patches"],
            found=unknown,
            hint="fetch the dataset's files again, or build it again",
        )
    yield from _check_slides(slides, slide_patches, rows["slide_id"], paths)
    facts = content.Facts.of(manifest, slides=slides, gene_ids=gene_ids)
    for name, split in manifest.splits.items():
        chosen = np.flatnonzero(split_of == names.index(name)) if name in names else np.empty(0, np.int64)
        problems = list(_check_split(name, split, rows, chosen, manifest, paths["patches"]))
        yield from problems
        if deep and not problems and FORMATS.get(layout.format).whole_slides:
            from stpatch.dataset.cropping.check import slide_problems

            yield from slide_problems(folder, name, {key: rows[key] for key in columns}, chosen, facts, tell)
        elif deep and not problems:
            reader = ShardReader(folder, layout)
            for start, shard in zip(split.starts, split.shards, strict=False):
                part = chosen[start : start + shard.patches]
                yield from _check_samples(reader, shard, rows, part, facts)
                tell(shard.path)
            reader.close()


def _check_panel(channels: list[int | None], expected: int, *, where: Path) -> Iterator[DatasetError]:
    used = sorted(channel for channel in channels if channel is not None)
    if len(set(used)) != len(used) or (used and not 0 <= used[0] <= used[-1] < expected):
        yield DatasetError(
            "the channels of the panel are wrong",
            where=f"{where}, column channel",
            found=f"{len(used)} channels, {used[0]} to {used[-1]}",
            expected=f"different ones of 0 to {expected - 1}",
        )


def _check_keys(keys: list[str], *, where: Path) -> Iterator[DatasetError]:
    seen: set[str] = set()
    for row, key in enumerate(keys):
        if key in seen:
            yield DatasetError(
                "a key is there twice",
                where=f"{where}, row {row}",
                found=key,
                hint="fetch the dataset's files again, or build it again",
            )
        seen.add(key)


def _check_slides(
    slides: Any, slide_patches: NDArray[Any], used: list[str], paths: Mapping[str, Path]
) -> Iterator[DatasetError]:
    names = slides["slide_id"].to_pylist()
    counted = dict.fromkeys(names, 0)
    if len(counted) != len(names):
        yield DatasetError(
            "a slide is there twice", where=paths["slides"], hint="fetch the dataset's files again, or build it again"
        )
    for row, slide_id in enumerate(used):
        if slide_id not in counted:
            yield DatasetError(
                "a patch names an unknown slide",
                where=f"{paths['patches']}, row {row}",
                found=slide_id,
                hint="fetch the dataset's files again, or build it again",
            )
        else:
            counted[slide_id] += 1
    for slide_id, told in zip(names, slide_patches, strict=True):
        if told != counted[slide_id]:
            yield DatasetError(
                "tables disagree on a slide's patches",
                where=f"{paths['slides']}, slide {slide_id}",
                found=int(told),
                expected=f"{counted[slide_id]}, the rows of {paths['patches'].name}",
            )


def _check_split(
    name: str, split: SplitEntry, rows: Rows, chosen: NDArray[np.int64], manifest: Manifest, path: Path
) -> Iterator[DatasetError]:
    """Yield where a split's rows differ from what the manifest says of its shards."""
    where = f"{path}, split {name}"
    if len(chosen) != split.patches:
        yield DatasetError(
            "manifest and table disagree on a split's patches",
            where=where,
            found=f"{len(chosen)} rows",
            expected=f"{split.patches}, as in {MANIFEST}",
        )
        return
    spots = int(rows["n_spots"][chosen].sum(dtype=np.int64))
    if spots != split.spots:
        yield DatasetError(
            "manifest and table disagree on a split's spots",
            where=where,
            found=spots,
            expected=f"{split.spots}, as in {MANIFEST}",
        )
    start = 0
    for shard in split.shards:
        part = chosen[start : start + shard.patches]
        start += shard.patches
        yield from _check_shard_rows(shard, rows, part, manifest, path=path)


def _check_shard_rows(
    shard: ShardEntry, rows: Rows, part: NDArray[np.int64], manifest: Manifest, *, path: Path
) -> Iterator[DatasetError]:
    offset, nbytes = rows["offset"][part], rows["nbytes"][part]
    ends = offset + nbytes
    coverage = rows["coverage"][part]
    starts = np.concatenate([[0], ends[:-1]])
    inside = (offset >= 0) & (nbytes > 0) & (ends <= shard.bytes) & (offset == starts)
    if FORMATS.get(manifest.layout.format).whole_slides:  # windows have no bytes of their own
        inside = (offset == 0) & (nbytes == 0)
    checks = [
        ("shard", np.array([rows["shard"][row] == shard.path for row in part]), shard.path),
        ("index", rows["index"][part] == np.arange(len(part)), "0, 1, ... in every shard"),
        ("offset, nbytes", inside, "one sample after the other (0, 0 where slides are stored)"),
        ("n_spots", rows["n_spots"][part] >= 0, "no negative number"),
        ("coverage", (coverage >= 0) & (coverage <= 1), "0 to 1"),
    ]
    for column, fine, expected in checks:
        for row in part[~fine]:
            values = ", ".join(str(rows[name][row]) for name in column.split(", "))
            yield DatasetError(
                f"a row's {column} is wrong", where=f"{path}, row {row}", found=values, expected=expected
            )
    expected_bytes = FORMATS.get(manifest.layout.format).shard_bytes(int(ends[-1])) if len(ends) else None
    if expected_bytes not in (None, shard.bytes):
        yield DatasetError(
            "a shard holds more or fewer samples than its rows",
            where=shard.path,
            found=f"{shard.bytes} bytes",
            expected=f"{expected_bytes} bytes",
        )


def _check_samples(
    reader: ShardReader, shard: ShardEntry, rows: Rows, part: NDArray[np.int64], facts: content.Facts
) -> Iterator[DatasetError]:
    """Decode a shard's samples and yield where they differ from their rows."""
    layout = reader.layout
    for index, row in enumerate(part):
        key = rows["key"][row]
        byte_range = (int(rows["offset"][row]), int(rows["nbytes"][row]))
        size = (int(rows["height"][row]), int(rows["width"][row])) if layout.variable else None
        told = {name: rows[name][row] for name in rows}
        if size is not None and not (0 < size[0] <= layout.shape[1] and 0 < size[1] <= layout.shape[2]):
            yield DatasetError("a sample's size is wrong", where=key, found=size, expected=layout.shape[1:])
            continue
        try:
            address = Address(
                shard=shard, index=index, byte_range=byte_range, key=key, size=size, checksum=told.get("crc32c")
            )
            stored = reader.read(address)
        except DatasetError as problem:
            yield problem
            continue
        problems = [] if stored.meta is None else content.check_meta(stored.meta, told, facts)
        for what in [*problems, *content.check_arrays(stored.arrays, told, facts)]:
            yield DatasetError(what, where=f"{shard.path}, {key} (row {row} of patches.parquet)")
