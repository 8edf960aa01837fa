"""The manifest: a dataset's entry point, a set of typed models, written last and read strictly.

The models are the file: ``stpatch validate --schema`` prints their JSON Schema. Parts that are taken over from the
config (normalization, channels, grid, crop) are mappings whose further keys are kept as they are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, Required, Self

from pydantic import ConfigDict, Field, ValidationError
from typing_extensions import TypedDict

from stpatch.dataset.entries import Count, FileEntry, Part, Positive, Sha256, ShardEntry, SplitEntry, Text
from stpatch.dataset.layout import FORMAT_VERSION, Layout
from stpatch.dataset.planes import DIMS, PAD_GENE, Plane
from stpatch.errors import ConfigError, DatasetError
from stpatch.registry import ENCODINGS, FORMATS
from stpatch.storage import write_json

__all__ = ["MANIFEST", "Manifest", "Sha256", "manifest_schema", "parse_manifest", "parse_shard", "read_manifest"]

FORMAT = "stpatch"
MANIFEST = "manifest.json"
TABLES = ("genes", "slides", "patches")

_OPEN = ConfigDict(extra="allow", allow_inf_nan=False)


class DatasetPart(TypedDict, total=False):
    """What the dataset is called, its seed, and notes on what the build dropped or assumed."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]

    name: Text
    version: Text
    license: Text
    description: Text
    seed: Annotated[int, Field(strict=True)]
    notes: list[Text]


class NormalizationPart(TypedDict, total=False):
    """The method and its numbers; a slide's own target sum is in slides.parquet."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]

    method: Required[Text]


class ChannelsPart(TypedDict, total=False):
    """Which genes are channels: where the list is fixed, by which rule, and the gene id that stands for no gene."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]

    scope: Required[Literal["panel", "slide", "patch"]]
    n: Count
    pad_id: Count
    draws: Count


class TensorPart(Part):
    """Shape and type of `x`."""

    shape: tuple[Positive, Positive, Positive]
    dims: tuple[Text, Text, Text] = DIMS
    dtype: Literal["uint16", "uint32", "float32", "float16"]
    values: Literal["counts", "normalized"]
    encoding: Annotated[Text, ENCODINGS]
    variable: Annotated[bool, Field(strict=True)]


class ShardsPart(Part):
    """How samples are stored: format, samples per shard, and the fields of a sample in order."""

    format: Annotated[Text, FORMATS]
    patches: Positive
    fields: tuple[Text, ...]


class PlanePart(Part):
    """A plane beside those that stpatch makes itself; see the format's specification."""

    name: Text
    kind: Text
    dims: tuple[Text, ...]
    shape: tuple[Positive, ...]
    dtype: Text
    encoding: Annotated[Text, ENCODINGS]
    fill: Annotated[int, Field(strict=True)]


class TotalsPart(Part):
    """Sums over all splits."""

    patches: Count
    spots: Count
    bytes: Count
    shards: Count


class VersionsOfShards(Part):
    """Versions of packages, and how many shards they wrote."""

    shards: Positive
    versions: dict[Text, Text]


class ExtendsPart(Part):
    """The version that this one goes on from, and what changed.

    ``manifest`` is the SHA-256 of that version's ``manifest.json``; ``withdrawn`` holds the keys that went, by slide;
    ``withdrawn_before`` names the slides that went in the versions before.
    """

    name: Text
    version: Text
    manifest: Sha256
    added: tuple[Text, ...] = ()
    withdrawn: dict[Text, tuple[Text, ...]] = Field(default_factory=dict)
    withdrawn_before: tuple[Text, ...] = ()


class MergedPart(Part):
    """A dataset that this one was merged from; ``manifest`` is the SHA-256 of its ``manifest.json``."""

    name: Text
    version: Text
    manifest: Sha256


class Manifest(Part):
    """What ``manifest.json`` holds.

    Attributes
    ----------
    dataset
        name, version, license, description, seed and notes.
    tensor, shards
        Shape, dtype and storage of the samples; `layout` joins them.
    normalization
        ``method`` and its numbers. A slide's own target sum is in slides.parquet.
    channels
        ``scope`` (panel, slide or patch), ``n``, ``pad_id``, ``draws`` and the rule.
    grid, crop
        As in the config, resolved.
    labels
        The categories of each label map; a pixel's value is the position in the list.
    planes
        Further planes; the key is there only where there are some.
    splits
        By name, in order.
    split_order
        The names of the splits in order, which sorted JSON keys would lose.
    totals
        Sums over the splits.
    tables
        genes, slides and patches.
    files
        Further files whose bytes are fixed: indexes, zarr metadata.
    fingerprint
        Of config and inputs.
    versions
        Of the packages that decide the bytes: those that wrote the shards, several in one text where they differ.
    version_sets
        Where shards were written by different versions, for each set of them how many ``shards``, and ``versions``;
        the key is there only then.
    extends
        The version that this one extends; the key is there only then.
    merged
        The datasets that this one was merged from; the key is there only then.
    """

    format: Literal["stpatch"]
    version: Positive
    dataset: DatasetPart
    tensor: TensorPart
    shards: ShardsPart
    normalization: NormalizationPart
    channels: ChannelsPart
    grid: dict[Text, Any]
    crop: dict[Text, Any]
    labels: dict[Text, list[Text]]
    planes: tuple[PlanePart, ...] = ()
    splits: dict[Text, SplitEntry]
    split_order: tuple[Text, ...]
    totals: TotalsPart
    tables: Annotated[dict[Text, FileEntry], Field(json_schema_extra={"required": list(TABLES)})]
    files: tuple[FileEntry, ...]
    fingerprint: Text
    versions: dict[Text, Text]
    version_sets: tuple[VersionsOfShards, ...] = ()
    extends: ExtendsPart | None = None
    merged: tuple[MergedPart, ...] = ()

    @classmethod
    def of(
        cls,
        *,
        dataset: Mapping[str, Any],
        layout: Layout,
        values: str,
        normalization: Mapping[str, Any],
        channels: Mapping[str, Any],
        grid: Mapping[str, Any],
        crop: Mapping[str, Any],
        labels: Mapping[str, Sequence[str]],
        splits: Mapping[str, SplitEntry],
        tables: Mapping[str, FileEntry],
        fingerprint: str,
        versions: Mapping[str, str],
        files: Sequence[FileEntry] = (),
        version_sets: Sequence[Mapping[str, Any]] = (),
        extends: Mapping[str, Any] | None = None,
        merged: Sequence[Mapping[str, Any]] = (),
    ) -> Self:
        """Return the manifest of finished parts; the sums are taken here.

        Raises
        ------
        DatasetError
            A part is not what a manifest may hold.
        """
        value = {
            "format": FORMAT,
            "version": layout.version,
            "dataset": dict(dataset),
            "tensor": {
                "shape": layout.shape,
                "dims": DIMS,
                "dtype": layout.dtype,
                "values": values,
                "encoding": layout.encoding,
                "variable": layout.variable,
            },
            "shards": {"format": layout.format, "patches": layout.patches, "fields": layout.fields},
            "normalization": dict(normalization),
            "channels": dict(channels),
            "grid": dict(grid),
            "crop": dict(crop),
            "labels": {name: list(categories) for name, categories in labels.items()},
            **({"planes": [plane.as_json() for plane in layout.further]} if layout.further else {}),
            "splits": dict(splits),
            "split_order": list(splits),
            "totals": _totals(splits),
            "tables": dict(tables),
            "files": list(files),
            "fingerprint": fingerprint,
            "versions": dict(versions),
            **({"version_sets": list(version_sets)} if version_sets else {}),
            **({"extends": dict(extends)} if extends else {}),
            **({"merged": list(merged)} if merged else {}),
        }
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            _raise_damaged(error, MANIFEST)

    @cached_property
    def layout(self) -> Layout:
        """The shape of the samples and how they are stored."""
        return Layout(
            format=self.shards.format,
            encoding=self.tensor.encoding,
            dtype=self.tensor.dtype,
            shape=self.tensor.shape,
            patches=self.shards.patches,
            labels=tuple(sorted(self.labels)),
            genes=self.scope != "panel",
            variable=self.tensor.variable,
            further=tuple(Plane(**dict(plane)) for plane in self.planes),
            version=self.version,
        )

    @property
    def values(self) -> str:
        """What `x` holds: ``counts`` or ``normalized``."""
        return self.tensor.values

    @property
    def patches(self) -> int:
        """Number of samples of all splits."""
        return self.totals.patches

    @property
    def bytes(self) -> int:
        """Bytes of all shards."""
        return self.totals.bytes

    @property
    def scope(self) -> str:
        """Where the channel list is fixed: panel, slide or patch."""
        return self.channels["scope"]

    @property
    def draws(self) -> int:
        """Channel draws per patch."""
        return self.channels.get("draws", 1)

    @property
    def pad_id(self) -> int:
        """The gene id that stands for no gene: 0, unless a given vocabulary has another."""
        return self.channels.get("pad_id", PAD_GENE)

    def write(self, folder: Path) -> None:
        """Write ``manifest.json``, atomically; checked as a reader would check it."""
        value = self.as_json()
        parse_manifest(value, where=folder / MANIFEST)
        write_json(folder / MANIFEST, value)


def manifest_schema() -> dict[str, Any]:
    """Return the JSON Schema of ``manifest.json``."""
    return Manifest.model_json_schema()


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of the dataset in `folder`.

    Raises
    ------
    DatasetError
        There is none, it is damaged, or a newer version of stpatch wrote it.
    """
    path = folder / MANIFEST
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        what = f"there is no {MANIFEST}" if folder.is_dir() else "there is no such folder"
        raise DatasetError(
            f"not a dataset: {what}",
            where=folder,
            hint="name the folder that stpatch build wrote; an unfinished build has no manifest yet",
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetError("the manifest cannot be read", where=path, found=error, expected="JSON") from error
    return parse_manifest(value, where=path)


def parse_manifest(value: Any, *, where: object = MANIFEST) -> Manifest:
    """Turn JSON values into a `Manifest`; see `read_manifest`."""
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise DatasetError("not a manifest of stpatch", where=where, expected=f'"format": "{FORMAT}"')
    version = value.get("version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise DatasetError(
            "the dataset has a newer format than this version of stpatch reads",
            where=where,
            found=f"version {version}",
            expected=f"at most {FORMAT_VERSION}",
            hint="pip install --upgrade stpatch",
        )
    try:
        manifest = Manifest.model_validate(value)
    except (ValidationError, RecursionError) as error:
        _raise_damaged(error, where)
    _check_sums(manifest, where)
    in_order = {name: manifest.splits[name] for name in manifest.split_order}
    return manifest.model_copy(update={"splits": in_order})


def parse_shard(value: Any, layout: Layout, *, where: object = MANIFEST) -> ShardEntry:
    """Turn the JSON values of `ShardEntry.as_json` into an entry again."""
    try:
        shard = ShardEntry.model_validate(value)
    except ValidationError as error:
        _raise_damaged(error, where)
    _check_parts(shard, layout, "", where)
    return shard


def _totals(splits: Mapping[str, SplitEntry]) -> dict[str, int]:
    return {
        "patches": sum(split.patches for split in splits.values()),
        "spots": sum(split.spots for split in splits.values()),
        "bytes": sum(split.bytes for split in splits.values()),
        "shards": sum(len(split.shards) for split in splits.values()),
    }


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
        full = manifest.extends is None and not manifest.merged  # else the last shard of each part may be short
        short = full and any(size != layout.patches for size in sizes[:-1])
        uneven = short or any(size > layout.patches for size in sizes)
        if uneven and not FORMATS.get(layout.format).whole_slides:
            raise _wrong(
                f"splits.{name}.shards", sizes, f"{layout.patches} patches per shard, fewer in the last one only", where
            )
        for number, shard in enumerate(split.shards):
            _check_parts(shard, layout, f"splits.{name}.shards[{number}].", where)
    for key, expected in _totals(manifest.splits).items():
        if getattr(manifest.totals, key) != expected:
            raise _wrong(f"totals.{key}", getattr(manifest.totals, key), f"{expected}, the sum over the splits", where)
    paths = [file.path for split in manifest.splits.values() for shard in split.shards for file in shard.files()]
    if len(set(paths)) != len(paths):
        raise _wrong("splits", None, "every file once", where)


def _check_parts(shard: ShardEntry, layout: Layout, place: str, where: object) -> None:
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
    "literal_error": "one of {expected}",
}
"""What is expected, in the words of JSON, by pydantic's name of the error."""


def _raise_damaged(error: Exception, where: object) -> NoReturn:
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
