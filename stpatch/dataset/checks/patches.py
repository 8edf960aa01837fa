"""Rows of patches.parquet against the manifest: keys, order, byte ranges, windows and draws."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpatch.dataset.entries import LONGEST, ShardEntry, SplitEntry
from stpatch.dataset.manifest import MANIFEST, Manifest
from stpatch.dataset.sample import is_key
from stpatch.errors import DatasetError
from stpatch.registry import FORMATS
from stpatch.storage import key_text

AGAIN = "fetch the dataset's files again, or build it again"
_CLOSE = 1e-6
"""Slack of a share that is stored as float32."""
Rows = Mapping[str, Any]


def check_rows(rows: Rows, manifest: Manifest, *, where: Path) -> Iterator[DatasetError]:
    """Yield rows whose key, place or draw cannot be, whatever the shards hold."""
    seen: set[str] = set()
    for row, (key, slide_id) in enumerate(zip(rows["key"], rows["slide_id"], strict=True)):
        if key in seen:
            yield DatasetError("a key is there twice", where=f"{where}, row {row}", found=key, hint=AGAIN)
        elif not is_key(key) or not key.startswith(key_text(slide_id)):
            yield DatasetError(
                "a key is wrong",
                where=f"{where}, row {row}",
                found=key,
                expected=f"{key_text(slide_id)}-..., of a-z 0-9 _ -",
            )
        seen.add(key)
    order = [name for name, _ in itertools.groupby(rows["split"])]
    if order != [name for name in manifest.splits if name in order]:
        yield DatasetError(
            "rows are not in the order of the splits", where=where, found=order[:8], expected=list(manifest.splits)
        )
    yield from _check_crop(rows, manifest, where=where)
    yield from _check_draws(rows, manifest, where=where)


def _check_crop(rows: Rows, manifest: Manifest, *, where: Path) -> Iterator[DatasetError]:
    """Yield where windows are not those that the manifest's crop cuts."""
    crop, layout = manifest.crop, manifest.layout
    unit = crop.get("unit")
    if unit in ("patch", "spot", "slide") and (unit == "slide") != layout.variable:
        yield DatasetError(
            "the manifest contradicts itself on what is cut",
            where=f"{MANIFEST}, key crop.unit",
            found=unit,
            expected="slide where tensor.variable, else patch or spot",
        )
    size = {"spot": [1, 1], "patch": crop.get("size")}.get(str(unit))
    if isinstance(size, list) and tuple(size) != layout.shape[1:]:
        yield DatasetError(
            "the manifest contradicts itself on the size of patches",
            where=f"{MANIFEST}, key crop.size",
            found=size,
            expected=list(layout.shape[1:]),
        )
    if unit != "patch":
        return
    checks = []
    for key, column, slack in (("min_coverage", "coverage", _CLOSE), ("min_spots", "n_spots", 0)):
        if isinstance(crop.get(key), int | float):
            least = crop[key]
            checks.append((column, rows[column] >= least - slack, f"at least {least}, crop.{key} of the manifest"))
    stride = crop.get("stride") or size
    strides = [stride, stride] if isinstance(stride, int) else stride
    tiled = crop.get("method") == "tiles" and crop.get("edge") in ("pad", "drop")
    if (
        tiled
        and isinstance(strides, list)
        and len(strides) == 2
        and all(isinstance(s, int) and 0 < s <= LONGEST for s in strides)
    ):
        fine = (rows["row"] % strides[0] == 0) & (rows["col"] % strides[1] == 0)
        checks.append(("row, col", fine, f"multiples of {strides}, crop.stride of the manifest"))
    for columns, fine, expected in checks:
        if not fine.all():
            row = int(np.flatnonzero(~fine)[0])
            values = ", ".join(str(rows[name][row]) for name in columns.split(", "))
            yield DatasetError(
                f"a row's {columns} is wrong", where=f"{where}, row {row}", found=values, expected=expected
            )


def _check_draws(rows: Rows, manifest: Manifest, *, where: Path) -> Iterator[DatasetError]:
    """Yield patches that do not have every draw once, and one place for all of them."""
    if manifest.draws == 1:
        return
    of_patch: dict[str, list[tuple[int, tuple[Any, ...]]]] = {}
    columns = [
        name for name in ("slide_id", "split", "row", "col", "n_spots", "coverage", "height", "width") if name in rows
    ]
    for row, (key, draw) in enumerate(zip(rows["key"], rows["draw"].tolist(), strict=True)):
        patch, _, number = key.rpartition("-")
        if number != str(draw):
            yield DatasetError("key and draw disagree", where=f"{where}, row {row}", found=draw, expected=number)
        of_patch.setdefault(patch, []).append((draw, tuple(rows[name][row] for name in columns)))
    for patch, draws in of_patch.items():
        if sorted(draw for draw, _ in draws) != list(range(manifest.draws)) or len({place for _, place in draws}) > 1:
            yield DatasetError(
                "a patch's draws are wrong",
                where=f"{where}, {patch}",
                found=sorted(draw for draw, _ in draws),
                expected=f"0 to {manifest.draws - 1}, all of one place and split",
            )


def check_split(
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
    if manifest.layout.variable:
        height, width = manifest.layout.shape[1:]
        fine = (rows["height"][part] > 0) & (rows["height"][part] <= height)
        fine &= (rows["width"][part] > 0) & (rows["width"][part] <= width)
        checks.append(("height, width", fine, f"at most {height}, {width}"))
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
