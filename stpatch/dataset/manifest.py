"""The manifest: a dataset's entry point, a set of typed models, written last and read strictly.

The models are the file: ``stpatch validate --schema`` prints their JSON Schema. Parts that are taken over from the
config (normalization, channels, grid, crop) are mappings whose further keys are kept as they are.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Required, Self

from pydantic import ConfigDict, Field, ValidationError
from typing_extensions import TypedDict

from stpatch.dataset.entries import Count, FileEntry, Part, Positive, Sha256, ShardEntry, SplitEntry, Text
from stpatch.dataset.layout import FORMAT_VERSION, Layout
from stpatch.dataset.manifest_checks import (
    MANIFEST,
    SEALED_SINCE,
    TABLES,
    check_manifest,
    check_parts,
    manifest_digest,
    raise_damaged,
    sums_of_splits,
)
from stpatch.dataset.planes import DIMS, LARGEST_GENE_ID, PAD_GENE, Plane
from stpatch.errors import DatasetError
from stpatch.registry import ENCODINGS, FORMATS
from stpatch.storage import write_json

__all__ = [
    "FORMAT_VERSION",
    "MANIFEST",
    "SEALED_SINCE",
    "Manifest",
    "Sha256",
    "manifest_digest",
    "manifest_schema",
    "parse_manifest",
    "parse_shard",
    "read_manifest",
]

FORMAT = "stpatch"
LARGEST_MANIFEST = 1 << 29
"""Bytes: a corpus of a million shards takes half of it."""

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
    sources: list[dict[str, Any]]


class NormalizationPart(TypedDict, total=False):
    """The method and its numbers; a slide's own target sum is in slides.parquet."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]

    method: Required[Text]


class ChannelsPart(TypedDict, total=False):
    """Which genes are channels: where the list is fixed, by which rule, and the gene id that stands for no gene."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]

    scope: Required[Literal["panel", "slide", "patch"]]
    n: Count
    pad_id: Annotated[Count, Field(le=LARGEST_GENE_ID)]
    draws: Positive


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
        All further files: indexes, zarr metadata, the card, and what a release adds.
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
    digest
        SHA-256 of the canonical JSON of all other keys; see `manifest_digest`. None in format 1.
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
    digest: Sha256 | None = None

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
            "totals": sums_of_splits(splits),
            "tables": dict(tables),
            "files": list(files),
            "fingerprint": fingerprint,
            "versions": dict(versions),
            **({"version_sets": list(version_sets)} if version_sets else {}),
            **({"extends": dict(extends)} if extends else {}),
            **({"merged": list(merged)} if merged else {}),
        }
        try:
            return cls.model_validate(value).sealed()
        except ValidationError as error:
            raise_damaged(error, MANIFEST)

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
    def of_one_corpus(self) -> bool:
        """Whether the moments of genes.parquet are of this dataset's slides; one that grew keeps its parent's."""
        return self.extends is None and not self.merged

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

    def all_files(self) -> list[FileEntry]:
        """Return every file that the manifest lists: tables, further files, shards."""
        shards = [file for split in self.splits.values() for shard in split.shards for file in shard.files()]
        return [*self.tables.values(), *self.files, *shards]

    def with_files(self, *files: FileEntry) -> Self:
        """Return the manifest with further files, which take the place of those with the same path."""
        new = {file.path for file in files}
        kept = [file for file in self.files if file.path not in new]
        return self.model_copy(update={"files": (*kept, *files)}).sealed()

    def sealed(self) -> Self:
        """Return the manifest with the digest of what it now holds; format 1 has none."""
        if self.version < SEALED_SINCE:
            return self
        return self.model_copy(update={"digest": manifest_digest(self.as_json())})

    def write(self, folder: Path) -> None:
        """Write ``manifest.json``, atomically; checked as a reader would check it."""
        value = self.sealed().as_json()
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
        about = path.stat()
        if not stat.S_ISREG(about.st_mode) or about.st_size > LARGEST_MANIFEST:  # a pipe would be waited for
            raise DatasetError(
                "the manifest is not a file of a sensible size",
                where=path,
                found=f"{about.st_size} bytes",
                expected=f"a regular file of at most {LARGEST_MANIFEST} bytes",
            )
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
        raise_damaged(error, where)
    check_manifest(manifest, value, where)
    in_order = {name: manifest.splits[name] for name in manifest.split_order}
    return manifest.model_copy(update={"splits": in_order})


def parse_shard(value: Any, layout: Layout, *, where: object = MANIFEST) -> ShardEntry:
    """Turn the JSON values of `ShardEntry.as_json` into an entry again."""
    try:
        shard = ShardEntry.model_validate(value)
    except ValidationError as error:
        raise_damaged(error, where)
    check_parts(shard, layout, "", where)
    return shard
