"""Rows of slides.parquet: what a slide says of itself, and what its patches say of it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpatch.dataset.manifest import Manifest
from stpatch.errors import DatasetError
from stpatch.storage import is_safe_id

_AGAIN = "fetch the dataset's files again, or build it again"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SCALED = ("total", "log1p_total", "sqrt_total")
Rows = Mapping[str, Any]


def check_slides(
    slides: list[dict[str, Any]], rows: Rows, manifest: Manifest, *, where: Path
) -> Iterator[DatasetError]:
    """Yield what contradicts itself in the table, or contradicts the rows of patches.parquet and the manifest.

    Parameters
    ----------
    slides
        The rows of slides.parquet.
    rows
        Columns of patches.parquet.
    """
    names = [slide["slide_id"] for slide in slides]
    if len(set(names)) != len(names):
        yield DatasetError("a slide is there twice", where=where, hint=_AGAIN)
    known = set(names)
    of_slide: dict[str, list[int]] = {name: [] for name in names}
    for row, slide_id in enumerate(rows["slide_id"]):
        if slide_id not in known:
            yield DatasetError(
                "a patch names an unknown slide", where=f"patches.parquet, row {row}", found=slide_id, hint=_AGAIN
            )
        else:
            of_slide[slide_id].append(row)
    for slide in slides:
        at = np.array(of_slide[slide["slide_id"]], np.int64)
        for what, found, expected in (*_of_row(slide, manifest), *_of_patches(slide, at, rows, manifest)):
            yield DatasetError(what, where=f"{where}, slide {slide['slide_id']}", found=found, expected=expected)


Told = tuple[str, object, object]
"""What is wrong, found and expected."""


def _of_row(slide: Mapping[str, Any], manifest: Manifest) -> Iterator[Told]:
    if not is_safe_id(str(slide["slide_id"])):
        yield "a slide_id is not fit for a file name", slide["slide_id"], "letters, digits and _.+-"
    for column in ("metadata", "qc"):
        if not isinstance(_json(slide[column]), dict):
            yield f"column {column} is not JSON", slide[column][:80], "a mapping"
    inputs = _json(slide["inputs"])
    if not isinstance(inputs, list) or not all(map(_is_input, inputs)):
        yield "column inputs is not JSON", slide["inputs"][:80], "a list of files with name, bytes and sha256"
    for column in ("spots", "genes", "rows", "cols", "patches"):
        if slide[column] < (1 if column in ("rows", "cols") else 0):
            yield f"a slide's {column} is wrong", slide[column], "a positive number"
    for column in ("pitch_um", "origin_x", "origin_y", "target_sum"):
        value = slide[column]
        if value is not None and (not math.isfinite(value) or (value <= 0 and not column.startswith("origin"))):
            yield f"a slide's {column} is wrong", value, "a number" + (" above 0" if value <= 0 else "")
    for column in ("digest_matrix", "digest_genes", "digest_spots"):
        if slide.get(column) is not None and _SHA256.fullmatch(slide[column]) is None:
            yield f"a slide's {column} is wrong", slide[column], "64 hexadecimal digits"
    if not slide["platform"]:
        yield "a slide has no platform", None, "the reader's name"
    yield from _of_normalization(slide, manifest)


def _of_normalization(slide: Mapping[str, Any], manifest: Manifest) -> Iterator[Told]:
    target, told = slide["target_sum"], manifest.normalization.get("target_sum")
    scaled = manifest.normalization["method"] in _SCALED
    if scaled and target is None:
        yield "a slide has no target_sum", None, f"a number, for {manifest.normalization['method']}"
    if scaled and isinstance(told, int | float) and not isinstance(told, bool) and target not in (None, told):
        yield "manifest and table disagree on target_sum", target, f"{told}, as in the manifest"
    grid = manifest.grid
    told = grid.get("pitch_um")
    if grid.get("method") == "um" and isinstance(told, int | float) and slide["pitch_um"] != told:
        yield "manifest and table disagree on a slide's pitch", slide["pitch_um"], f"{told}, as in the manifest"


def _of_patches(slide: Mapping[str, Any], at: NDArray[np.int64], rows: Rows, manifest: Manifest) -> Iterator[Told]:
    if slide["patches"] != len(at):
        yield "tables disagree on a slide's patches", slide["patches"], f"{len(at)}, the rows of patches.parquet"
    splits = sorted({rows["split"][row] for row in at})
    expected = splits[0] if len(splits) == 1 else None
    if slide["split"] != expected:
        yield "tables disagree on a slide's split", slide["split"], f"{expected}, as its patches are in {splits}"
    if not len(at):
        return
    most = int(rows["n_spots"][at].max())
    if most > slide["spots"]:
        yield "a patch has more spots than its slide", most, f"at most {slide['spots']}"
    height, width = manifest.layout.shape[1:]
    heights = rows["height"][at] if "height" in rows else height
    widths = rows["width"][at] if "width" in rows else width
    top, left = rows["row"][at].astype(np.int64), rows["col"][at].astype(np.int64)
    inside = (top < slide["rows"]) & (left < slide["cols"]) & (top + heights > 0) & (left + widths > 0)
    if not inside.all():
        row = at[~inside][0]
        yield (
            "a patch lies beside its slide's grid",
            f"row {row} of patches.parquet",
            f"{slide['rows']} x {slide['cols']}",
        )


def check_masks(
    slides: list[dict[str, Any]], gene_ids: NDArray[np.int32], pad_id: int, *, where: Path
) -> Iterator[DatasetError]:
    """Yield where bit masks of measured genes differ in length, or name unknown genes."""
    expected = (max(int(gene_ids.max(initial=0)), pad_id) + 8) // 8
    known = np.zeros(8 * expected, bool)
    known[gene_ids] = True
    for slide in slides:
        mask = np.frombuffer(slide["measured"], np.uint8)
        if len(mask) != expected:
            found: object = f"{len(mask)} bytes"
            wanted: object = f"{expected} bytes, a bit for each gene id"
        else:
            bits = np.unpackbits(mask, bitorder="little").astype(bool)
            if not (bits & ~known).any():
                continue
            found, wanted = f"{int((bits & ~known).sum())} unknown ids", "ids of genes.parquet"
        where_slide = f"{where}, slide {slide['slide_id']}, column measured"
        yield DatasetError("a slide's measured genes are wrong", where=where_slide, found=found, expected=wanted)


def _is_input(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("name"), str)
        and isinstance(value.get("bytes"), int)
        and value["bytes"] >= 0
        and isinstance(value.get("sha256"), str)
        and _SHA256.fullmatch(value["sha256"]) is not None
    )


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
