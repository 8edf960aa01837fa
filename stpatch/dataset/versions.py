"""The versions that wrote a dataset's shards: one text per library, and sets of them where shards differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from stpatch.dataset.manifest import Manifest
from stpatch.storage import canonical_json

TABLES_WRITER = "pyarrow"
"""Stands among a manifest's versions beside those that wrote the shards."""

Sets = dict[str, tuple[dict[str, str], int]]
"""Versions and the number of shards that they wrote, by the versions' canonical JSON."""


def sets_of(manifest: Manifest, shards: int) -> Sets:
    """Return by what versions a dataset's shards were written, and how many of the `shards` that are left by each.

    Of shards that go, no record says which versions wrote them: they are taken off the most frequent.
    """
    one = [(dict(manifest.versions), manifest.totals.shards)]
    known = [(dict(item.versions), item.shards) for item in manifest.version_sets] or one
    known.sort(key=lambda item: -item[1])
    gone = sum(count for _, count in known) - shards
    sets: Sets = {}
    for versions, count in known:
        left = count - min(gone, count)
        gone -= count - left
        versions.pop(TABLES_WRITER, None)
        add(sets, versions, left)
    return sets


def add(sets: Sets, versions: Mapping[str, str], shards: int) -> None:
    """Count shards that some versions wrote."""
    if shards:
        key = canonical_json(dict(versions))
        sets[key] = (dict(versions), sets.get(key, (versions, 0))[1] + shards)


def manifest_members(sets: Sets, *, tables: Mapping[str, str]) -> dict[str, Any]:
    """Return the manifest's ``versions`` and ``version_sets``; `tables` are the versions that wrote the tables."""
    several = [{"shards": count, "versions": versions} for versions, count in sets.values()] if len(sets) > 1 else []
    versions = {name: ", ".join(found) for name, found in _by_name(item for item, _ in sets.values()).items()}
    return {"versions": {**versions, **tables}, "version_sets": several}


def _by_name(sets: Iterable[Mapping[str, str]]) -> dict[str, list[str]]:
    merged: dict[str, list[str]] = {}
    for versions in sets:
        for name, version in versions.items():
            if version not in merged.setdefault(name, []):
                merged[name].append(version)
    return merged
