"""The manifest: a dataset's entry point, built from typed parts, written last, read strictly."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal, Self, TypeVar

from stpatch.dataset.layout import DIMS, FileRecord, Layout, ShardRecord
from stpatch.dataset.sample import PAD_GENE
from stpatch.errors import DatasetError
from stpatch.storage import write_json

FORMAT = "stpatch"
VERSION = 1
MANIFEST = "manifest.json"
TABLES = ("genes", "slides", "patches")
SCOPES = ("panel", "slide", "patch")
VALUES = ("counts", "normalized")

_SHA256 = re.compile(r"[0-9a-f]{64}")
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class SplitRecord:
    """A split: its shards in order, and the sum of its patches' n_spots."""

    shards: tuple[ShardRecord, ...]
    spots: int

    @property
    def patches(self) -> int:
        """Number of patches."""
        return sum(shard.patches for shard in self.shards)

    @property
    def bytes(self) -> int:
        """Bytes of all shards."""
        return sum(shard.bytes for shard in self.shards)

    def as_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "patches": self.patches,
            "spots": self.spots,
            "bytes": self.bytes,
            "shards": [shard.as_json() for shard in self.shards],
        }


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What ``manifest.json`` holds.

    Attributes
    ----------
    dataset
        name, version, license, description and seed.
    layout
        Shape, dtype and storage of the samples (``tensor`` and ``shards`` in the file).
    values
        ``counts`` or ``normalized``: what `x` holds.
    normalization
        ``method`` and its numbers. A slide's own target sum is in slides.parquet.
    channels
        ``scope`` (panel, slide or patch), ``n``, ``pad_id``, ``draws`` and the rule.
    grid, crop
        As in the config, resolved.
    labels
        The categories of each label map; a pixel's value is the position in the list.
    splits
        By name, in order.
    tables
        genes, slides and patches.
    files
        Further files whose bytes are fixed: indexes, zarr metadata.
    fingerprint
        Of config and inputs.
    versions
        Of the packages that decide over bytes: those that wrote the shards, several in one text where they differ.
    version_sets
        Where shards were written by different versions: for each set of them how many ``shards``, and ``versions``.
    """

    dataset: Mapping[str, Any]
    layout: Layout
    values: Literal["counts", "normalized"]
    normalization: Mapping[str, Any]
    channels: Mapping[str, Any]
    grid: Mapping[str, Any]
    crop: Mapping[str, Any]
    labels: Mapping[str, Sequence[str]]
    splits: Mapping[str, SplitRecord]
    tables: Mapping[str, FileRecord]
    fingerprint: str
    versions: Mapping[str, str]
    files: Sequence[FileRecord] = field(default_factory=tuple)
    version_sets: Sequence[Mapping[str, Any]] = ()

    @property
    def patches(self) -> int:
        """Number of patches of all splits."""
        return sum(split.patches for split in self.splits.values())

    @property
    def bytes(self) -> int:
        """Bytes of all shards."""
        return sum(split.bytes for split in self.splits.values())

    @property
    def scope(self) -> str:
        """Where the channel list is fixed: panel, slide or patch."""
        return str(self.channels["scope"])

    @property
    def draws(self) -> int:
        """Channel draws per window."""
        return int(self.channels.get("draws", 1))

    @property
    def pad_id(self) -> int:
        """The gene id that stands for no gene: 0, unless a given vocabulary has another."""
        return int(self.channels.get("pad_id", PAD_GENE))

    def as_json(self) -> dict[str, Any]:
        """Return JSON values; `split_order` keeps the splits' order, which sorted JSON keys would lose."""
        layout = self.layout
        return {
            "format": FORMAT,
            "version": VERSION,
            "dataset": dict(self.dataset),
            "tensor": {
                "shape": list(layout.shape),
                "dims": list(DIMS),
                "dtype": layout.dtype,
                "values": self.values,
                "encoding": layout.encoding,
                "variable": layout.variable,
            },
            "shards": {"format": layout.format, "patches": layout.patches, "fields": list(layout.fields)},
            "normalization": dict(self.normalization),
            "channels": dict(self.channels),
            "grid": dict(self.grid),
            "crop": dict(self.crop),
            "labels": {name: list(categories) for name, categories in self.labels.items()},
            "splits": {name: split.as_json() for name, split in self.splits.items()},
            "split_order": list(self.splits),
            "totals": {
                "patches": self.patches,
                "spots": sum(split.spots for split in self.splits.values()),
                "bytes": self.bytes,
                "shards": sum(len(split.shards) for split in self.splits.values()),
            },
            "tables": {name: record.as_json() for name, record in self.tables.items()},
            "files": [record.as_json() for record in self.files],
            "fingerprint": self.fingerprint,
            "versions": dict(self.versions),
            **({"version_sets": [dict(item) for item in self.version_sets]} if self.version_sets else {}),
        }

    def write(self, folder: Path) -> None:
        """Write ``manifest.json``, atomically; checked as a reader would check it."""
        value = self.as_json()
        parse_manifest(value, where=folder / MANIFEST)
        write_json(folder / MANIFEST, value)


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
    root = _Place(value, where, "")
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise DatasetError("not a manifest of stpatch", where=where, expected=f'"format": "{FORMAT}"')
    version = root.number("version")
    if version > VERSION:
        raise DatasetError(
            "the dataset has a newer format than this version of stpatch reads",
            where=where,
            found=f"version {version}",
            expected=f"at most {VERSION}",
            hint="pip install --upgrade stpatch",
        )
    manifest = _parse(root, version)
    _check_totals(root, manifest)
    return manifest


def parse_shard(value: Any, layout: Layout, *, where: object = MANIFEST) -> ShardRecord:
    """Turn the JSON values of `ShardRecord.as_json` into a record again."""
    return _shard(_Place(value, where, ""), layout)


def _parse(root: _Place, version: int) -> Manifest:
    if version < 1:
        raise root.wrong("version", "1")
    tensor, shards, channels = root.part("tensor"), root.part("shards"), root.part("channels")
    channels.choice("scope", SCOPES)
    for name in {"pad_id", "draws"} & set(channels.mapping()):
        channels.number(name)
    root.part("normalization").text("method")
    labels = root.part("labels")
    names = root.texts("split_order")
    splits = root.part("splits")
    if sorted(names) != sorted(splits.mapping()):
        raise root.wrong("split_order", "the names of splits, each once")
    tables = root.part("tables")
    shape = tensor.numbers("shape")
    if len(shape) != 3:
        raise tensor.wrong("shape", "channels, rows, columns")
    encoding: Any = tensor.choice("encoding", ("blosc", "npy"))
    layout = Layout(
        format=shards.choice("format", ("tar", "zarr")),  # type: ignore[arg-type]
        encoding=encoding,
        dtype=tensor.choice("dtype", ("uint16", "uint32", "float32", "float16")),
        shape=(shape[0], shape[1], shape[2]),
        patches=shards.number("patches", least=1),
        labels=tuple(sorted(labels.mapping())),
        genes=channels.value["scope"] != "panel",
        variable=tensor.flag("variable"),
    )
    if tuple(shards.texts("fields")) != layout.fields:
        raise shards.wrong("fields", ", ".join(layout.fields))
    return Manifest(
        dataset=root.part("dataset").mapping(),
        layout=layout,
        values=tensor.choice("values", VALUES),  # type: ignore[arg-type]
        normalization=root.part("normalization").mapping(),
        channels=channels.mapping(),
        grid=root.part("grid").mapping(),
        crop=root.part("crop").mapping(),
        labels={name: tuple(labels.texts(name)) for name in layout.labels},
        splits={name: _split(splits.part(name), layout) for name in names},
        tables={name: _file(tables.part(name)) for name in TABLES},
        files=tuple(_file(part) for part in root.parts("files")),
        fingerprint=root.text("fingerprint"),
        versions={name: root.part("versions").text(name) for name in root.part("versions").mapping()},
        version_sets=tuple(part.mapping() for part in root.parts("version_sets"))
        if "version_sets" in root.value
        else (),
    )


def _split(part: _Place, layout: Layout) -> SplitRecord:
    shards = tuple(_shard(item, layout) for item in part.parts("shards"))
    split = SplitRecord(shards=shards, spots=part.number("spots"))
    for name, total in (("patches", split.patches), ("bytes", split.bytes)):
        if part.number(name) != total:
            raise part.wrong(name, f"{total}, the sum over its shards")
    full = [shard.patches == layout.patches for shard in shards[:-1]]
    if not all(full) or any(not 0 < shard.patches <= layout.patches for shard in shards):
        raise part.wrong("shards", f"{layout.patches} patches a shard, fewer in the last one only")
    return split


def _shard(part: _Place, layout: Layout) -> ShardRecord:
    names = [array.name for array in layout.arrays()][1:] if layout.format == "zarr" else []
    parts = part.part("parts") if names else None
    return ShardRecord(
        patches=part.number("patches"),
        file=_file(part),
        parts={name: _file(parts.part(name)) for name in names} if parts else {},
    )


def _file(part: _Place) -> FileRecord:
    path = part.text("path")
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or "\\" in path or ":" in path or "\0" in path or not pure.parts:
        raise part.wrong("path", "a relative path inside the dataset's folder")
    sha256 = part.text("sha256")
    if _SHA256.fullmatch(sha256) is None:
        raise part.wrong("sha256", "64 hexadecimal digits")
    return FileRecord(path=path, bytes=part.number("bytes"), sha256=sha256)


def _check_totals(root: _Place, manifest: Manifest) -> None:
    totals = root.part("totals")
    for name, total in manifest.as_json()["totals"].items():
        if totals.number(name) != total:
            raise totals.wrong(name, f"{total}, the sum over the splits")
    paths = [file.path for split in manifest.splits.values() for shard in split.shards for file in shard.files()]
    if len(set(paths)) != len(paths):
        raise root.wrong("splits", "every file once", show=False)


@dataclass(frozen=True)
class _Place:
    """A mapping inside the manifest, with the name of its place for messages."""

    value: Any
    where: object
    name: str

    def wrong(self, key: str, expected: str, *, show: bool = True) -> DatasetError:
        found = repr(self.value.get(key))[:80] if show and isinstance(self.value, dict) else None
        return DatasetError(
            "the manifest is damaged", where=f"{self.where}, key {self._full(key)}", found=found, expected=expected
        )

    def part(self, key: str) -> Self:
        return type(self)(self._get(key, dict, "a mapping"), self.where, self._full(key))

    def parts(self, key: str) -> list[Self]:
        items = self._get(key, list, "a list of mappings")
        if not all(isinstance(item, dict) for item in items):
            raise self.wrong(key, "a list of mappings", show=False)
        return [type(self)(item, self.where, f"{self._full(key)}[{i}]") for i, item in enumerate(items)]

    def mapping(self) -> dict[str, Any]:
        return dict(self.value)

    def text(self, key: str) -> str:
        return self._get(key, str, "a text")

    def texts(self, key: str) -> list[str]:
        items = self._get(key, list, "a list of texts")
        if not all(isinstance(item, str) for item in items):
            raise self.wrong(key, "a list of texts")
        return items

    def flag(self, key: str) -> bool:
        return self._get(key, bool, "true or false")

    def number(self, key: str, *, least: int = 0) -> int:
        number = self._get(key, int, "a whole number")
        if isinstance(number, bool) or number < least:
            raise self.wrong(key, f"a whole number of at least {least}")
        return number

    def numbers(self, key: str) -> list[int]:
        items = self._get(key, list, "a list of positive whole numbers")
        if not all(isinstance(item, int) and not isinstance(item, bool) and item > 0 for item in items):
            raise self.wrong(key, "a list of positive whole numbers")
        return items

    def choice(self, key: str, known: Sequence[str]) -> str:
        text = self.text(key)
        if text not in known:
            raise self.wrong(key, f"one of {', '.join(known)}")
        return text

    def _get(self, key: str, kind: type[T], expected: str) -> T:
        value = self.value.get(key) if isinstance(self.value, dict) else None
        if not isinstance(value, kind):
            raise self.wrong(key, expected)
        return value

    def _full(self, key: str) -> str:
        return f"{self.name}.{key}" if self.name else key
