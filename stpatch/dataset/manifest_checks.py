"""What the parts of a manifest must say of each other, and the messages where they do not."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from pydantic import ValidationError

from stpatch.dataset.entries import ShardEntry, SplitEntry
from stpatch.dataset.layout import Layout
from stpatch.errors import ConfigError, DatasetError
from stpatch.registry import FORMATS
from stpatch.storage import digest, is_safe_id, key_text

if TYPE_CHECKING:
    from stpatch.dataset.manifest import Manifest

MANIFEST = "manifest.json"
TABLES = ("genes", "slides", "patches")
SEALED_SINCE = 2
"""The first version of the format whose manifest carries its digest and names every file."""
LARGEST_SAMPLE = 1 << 40
"""Bytes of one sample's `x`: what no machine of today holds is a damaged shape."""


def check_manifest(manifest: Manifest, value: Mapping[str, Any], where: object) -> None:
    """Raise `DatasetError` where a manifest is not as it was written, or its parts contradict each other.

    Parameters
    ----------
    manifest, value
        The manifest, and the JSON values that it was made from.
    where
        Its file, for messages.
    """
    _check_digest(manifest, value, where)
    _check_names(manifest, where)
    _check_sums(manifest, where)


def manifest_digest(value: Mapping[str, Any]) -> str:
    """Return the digest of a manifest's JSON values: SHA-256 over canonical JSON without key ``digest``.

    Canonical JSON has sorted keys, no blanks, and texts as UTF-8.
    """
    return digest({key: item for key, item in value.items() if key != "digest"})


def sums_of_splits(splits: Mapping[str, SplitEntry]) -> dict[str, int]:
    """Return the manifest's ``totals``."""
    return {
        "patches": sum(split.patches for split in splits.values()),
        "spots": sum(split.spots for split in splits.values()),
        "bytes": sum(split.bytes for split in splits.values()),
        "shards": sum(len(split.shards) for split in splits.values()),
    }


def _check_digest(manifest: Manifest, value: Mapping[str, Any], where: object) -> None:
    if manifest.version < SEALED_SINCE:
        if "digest" in value:  # so that a later format does not pass for this one
            raise _wrong("digest", value["digest"], f"none in format {manifest.version}", where)
        return
    try:
        expected = manifest_digest(value)
    except (ValueError, RecursionError) as error:  # NaN, or nested too deeply
        raise _wrong("digest", error, "canonical JSON", where) from error
    if manifest.digest != expected:
        raise DatasetError(
            "the manifest is not as it was written",
            where=f"{where}, key digest",
            found=manifest.digest,
            expected=expected,
            hint="fetch manifest.json again; to change it, build again or use stpatch release",
        )


def _check_names(manifest: Manifest, where: object) -> None:
    """Raise `DatasetError` where a name that becomes (part of) a path is not fit for it, or a shape is too large."""
    for name in manifest.splits:
        if not is_safe_id(name):
            raise _wrong("splits", name, "names of letters, digits and _.+-, the first a letter or digit", where)
    names = [*manifest.labels, *(plane.name for plane in manifest.planes)]
    for name in names:
        if name != key_text(name) or not name:
            raise _wrong("labels, planes", name, "names of a-z 0-9 _ -", where)
    paths = [file.path for file in manifest.all_files()]
    if len(set(paths)) != len(paths) or MANIFEST in paths:
        raise _wrong("files", None, f"every file once, and not {MANIFEST}", where)
    tensor = manifest.tensor
    if math.prod(tensor.shape) * np.dtype(tensor.dtype).itemsize > LARGEST_SAMPLE:
        raise _wrong("tensor.shape", tensor.shape, f"a sample of at most {LARGEST_SAMPLE} bytes", where)
    for plane in manifest.planes:
        if len(plane.dims) != len(plane.shape) or math.prod(plane.shape) > LARGEST_SAMPLE:
            raise _wrong(f"planes, {plane.name}", plane.shape, "a length for each of dims, of a size that fits", where)


def _check_sums(manifest: Manifest, where: object) -> None:
    """Raise `DatasetError` where parts of a manifest contradict each other."""
    layout = manifest.layout
    try:
        fields = layout.fields
    except ConfigError as error:  # the package that brings an encoding cannot be imported
        raise DatasetError(
            error.what, where=where, found=error.found, expected=error.expected, hint=error.hint
        ) from error
    if manifest.shards.fields != fields:
        raise _wrong("shards.fields", manifest.shards.fields, ", ".join(fields), where)
    for table in TABLES:
        if table not in manifest.tables:
            raise _wrong(f"tables.{table}", None, "a value", where)
    if sorted(manifest.split_order) != sorted(manifest.splits):
        raise _wrong("split_order", manifest.split_order, "the names of splits, each once", where)
    for name, split in manifest.splits.items():
        sums = SplitEntry.of(split.shards, spots=split.spots)
        for key in ("patches", "bytes"):
            found, expected = getattr(split, key), getattr(sums, key)
            if found != expected:
                raise _wrong(f"splits.{name}.{key}", found, f"{expected}, the sum over its shards", where)
        sizes = [shard.patches for shard in split.shards]
        full = manifest.of_one_corpus  # else the last shard of each part may be short
        short = full and any(size != layout.patches for size in sizes[:-1])
        uneven = short or any(size > layout.patches for size in sizes)
        if uneven and not FORMATS.get(layout.format).whole_slides:
            raise _wrong(
                f"splits.{name}.shards", sizes, f"{layout.patches} patches per shard, fewer in the last one only", where
            )
        for number, shard in enumerate(split.shards):
            if shard.patches > shard.bytes:
                raise _wrong(f"splits.{name}.shards[{number}].patches", shard.patches, "a byte or more for each", where)
            check_parts(shard, layout, f"splits.{name}.shards[{number}].", where)
    for key, expected in sums_of_splits(manifest.splits).items():
        if getattr(manifest.totals, key) != expected:
            raise _wrong(f"totals.{key}", getattr(manifest.totals, key), f"{expected}, the sum over the splits", where)


def check_parts(shard: ShardEntry, layout: Layout, place: str, where: object) -> None:
    """Raise `DatasetError` where a shard lists other parts than its format stores."""
    expected = FORMATS.get(layout.format).part_names(layout)
    if sorted(shard.parts) != sorted(expected):
        found = ", ".join(sorted(shard.parts)) or "none"
        raise _wrong(f"{place}parts", found, ", ".join(sorted(expected)) or "none", where)


_EXPECTED = {
    "missing": "a value",
    "string_type": "a text",
    "int_type": "a whole number",
    "bool_type": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "too_short": "a longer list",
    "too_long": "a shorter list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "greater_than_equal": "a whole number of at least {ge}",
    "less_than_equal": "a whole number of at most {le}",
    "literal_error": "one of {expected}",
}
"""What is expected, in the words of JSON, by pydantic's name of the error."""


def raise_damaged(error: Exception, where: object) -> NoReturn:
    """Raise the first problem of a manifest as a `DatasetError` that names its key."""
    if not isinstance(error, ValidationError):
        raise DatasetError("the manifest cannot be read", where=where, found=error, expected="JSON") from None
    problem = error.errors()[0]
    key = ""
    for part in problem["loc"]:
        key += f"[{part}]" if isinstance(part, int) else f"{'.' if key else ''}{part}"
    kind, context = problem["type"], problem.get("ctx", {})
    text = problem["msg"].removeprefix("Value error, ")
    expected = _EXPECTED.get(kind, text).format_map(context) if kind in _EXPECTED else text
    found = None if kind == "missing" else problem["input"]
    raise _wrong(key, found, expected, where) from None


def _wrong(key: str, found: object, expected: str, where: object) -> DatasetError:
    shown = None if found is None else repr(list(found) if isinstance(found, tuple) else found)[:80]
    return DatasetError("the manifest is damaged", where=f"{where}, key {key}", found=shown, expected=expected)
