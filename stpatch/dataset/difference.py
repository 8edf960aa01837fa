"""What is different between two datasets, such as two versions of one: slides, samples, splits, genes and shards."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stpatch.dataset.manifest import Manifest, read_manifest
from stpatch.dataset.tables import GENES, PATCHES, SLIDES, read_table

if TYPE_CHECKING:
    import pyarrow as pa

_LISTED = 8
_CONTRACT = ("tensor", "shards", "normalization", "channels", "grid", "crop", "labels")
_SAMPLE = ("split", "slide_id", "row", "col", "n_spots")
"""Columns by which a sample of one key is the same in both datasets; its bytes are the shards' affair."""


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What became of named things: names of those added, removed and changed, and how many are the same."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    same: int

    @classmethod
    def of(cls, before: Mapping[str, Any], after: Mapping[str, Any]) -> Changes:
        """Compare values by name, in the order of the names."""
        both = [name for name in before if name in after]
        changed = tuple(name for name in both if before[name] != after[name])
        return cls(
            added=tuple(name for name in after if name not in before),
            removed=tuple(name for name in before if name not in after),
            changed=changed,
            same=len(both) - len(changed),
        )

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """What is different between dataset A and dataset B.

    Attributes
    ----------
    contract
        Keys of the manifest that say what a sample is: key -> (A's value, B's).
    slides, samples, genes, shards
        By slide_id, key, vocabulary name and path. A slide has changed where its files or its metadata have, a sample
        where it went to another split or place, a gene where it has another id or channel, a shard where its bytes
        have.
    splits
        Split -> (samples in A, samples in B), 0 where there is none.
    moved
        Slides of both that are in another split: slide_id -> (split in A, split in B).
    """

    contract: Mapping[str, tuple[Any, Any]]
    slides: Changes
    samples: Changes
    genes: Changes
    shards: Changes
    splits: Mapping[str, tuple[int, int]]
    moved: Mapping[str, tuple[str, str]]

    def as_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)

    def text(self) -> str:
        """Return a few lines for people."""
        lines = [f"{key}: {before} -> {after}" for key, (before, after) in self.contract.items()]
        for field in fields(self):
            if isinstance(changes := getattr(self, field.name), Changes):
                lines += _lines(field.name, changes)
        for split, (before, after) in self.splits.items():
            lines.append(
                f"split {split}: {before} -> {after} samples" if before != after else f"split {split}: {after}"
            )
        if self.moved:
            moves = [f"{slide_id} ({before} -> {after})" for slide_id, (before, after) in self.moved.items()]
            lines.append(f"slides in another split: {_some(moves)}")
        return "\n".join(lines)


def difference(first: Path, second: Path) -> Difference:
    """Compare two datasets by their manifests and tables; no shard is read.

    Raises
    ------
    DatasetError
        One of them is no dataset, or is damaged.
    """
    manifests = read_manifest(first), read_manifest(second)
    slides = [_slides(folder) for folder in (first, second)]
    moved = {
        slide_id: (str(row["split"]), str(slides[1][slide_id]["split"]))
        for slide_id, row in slides[0].items()
        if slide_id in slides[1] and row["split"] != slides[1][slide_id]["split"]
    }
    facts = [{slide_id: (row["inputs"], row["metadata"]) for slide_id, row in table.items()} for table in slides]
    names = dict.fromkeys([*manifests[0].splits, *manifests[1].splits])
    return Difference(
        contract=_contract(*manifests),
        slides=Changes.of(*facts),
        samples=_samples(first, second),
        genes=Changes.of(_genes(first), _genes(second)),
        shards=Changes.of(_shards(manifests[0]), _shards(manifests[1])),
        splits={name: (_size(manifests[0], name), _size(manifests[1], name)) for name in names},
        moved=moved,
    )


def _contract(first: Manifest, second: Manifest) -> dict[str, tuple[Any, Any]]:
    found: dict[str, tuple[Any, Any]] = {}
    one, two = first.as_json(), second.as_json()
    for section in _CONTRACT:
        for key in dict.fromkeys([*one[section], *two[section]]):
            values = one[section].get(key), two[section].get(key)
            if values[0] != values[1]:
                found[f"{section}.{key}"] = values
    return found


def _slides(folder: Path) -> dict[str, dict[str, Any]]:
    columns = {name: SLIDES[name] for name in ("slide_id", "split", "metadata", "inputs")}
    rows = read_table(folder / "slides.parquet", columns).to_pylist()
    for row in rows:
        row["inputs"] = sorted((item["name"], item["sha256"]) for item in json.loads(row["inputs"]))
        row["metadata"] = json.loads(row["metadata"])
    return {row["slide_id"]: row for row in rows}


def _genes(folder: Path) -> dict[str, tuple[Any, Any]]:
    columns = {name: GENES[name] for name in ("gene_id", "name", "channel")}
    table = read_table(folder / "genes.parquet", columns).to_pydict()
    return dict(zip(table["name"], zip(table["gene_id"], table["channel"], strict=True), strict=True))


def _shards(manifest: Manifest) -> dict[str, tuple[str, ...]]:
    shards = (shard for split in manifest.splits.values() for shard in split.shards)
    return {shard.path: tuple(file.sha256 for file in shard.files()) for shard in shards}


def _size(manifest: Manifest, split: str) -> int:
    return manifest.splits[split].patches if split in manifest.splits else 0


def _samples(first: Path, second: Path) -> Changes:
    """Compare the samples by key; the tables are joined, as there may be millions."""
    import pyarrow.compute as pc

    columns = {name: PATCHES[name] for name in ("key", *_SAMPLE)}
    one, two = (read_table(folder / "patches.parquet", columns) for folder in (first, second))
    removed = one.join(two.select(["key"]), "key", join_type="left anti")["key"]
    added = two.join(one.select(["key"]), "key", join_type="left anti")["key"]
    both = one.join(two, "key", join_type="inner", right_suffix=" there")
    differs: pa.ChunkedArray | None = None
    for name in _SAMPLE:
        unequal = pc.not_equal(both[name], both[f"{name} there"])
        differs = unequal if differs is None else pc.or_(differs, unequal)
    changed = both["key"].filter(differs)
    return Changes(
        added=tuple(sorted(added.to_pylist())),
        removed=tuple(sorted(removed.to_pylist())),
        changed=tuple(sorted(changed.to_pylist())),
        same=both.num_rows - len(changed),
    )


def _lines(name: str, changes: Changes) -> Iterable[str]:
    yield f"{name}: {len(changes.added)} added, {len(changes.removed)} removed, {len(changes.changed)} changed, " + (
        f"{changes.same} the same"
    )
    for what in ("added", "removed", "changed"):
        if names := getattr(changes, what):
            yield f"  {what}: {_some(names)}"


def _some(names: Sequence[str]) -> str:
    more = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {more} more" if more > 0 else "")
