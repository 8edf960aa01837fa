"""Samples of a dataset changed and written anew by the project's own writers, as a careful hand would do it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from scripts.fuzz.dataset_mutations import Damage, Random, parquet, pick, reseal
from scripts.fuzz.datasets import Files
from stpatch.dataset.access import ShardReader
from stpatch.dataset.formats.base import Address
from stpatch.dataset.manifest import MANIFEST, parse_manifest
from stpatch.dataset.sample import Sample, by_kind
from stpatch.registry import FORMATS

Arrays = dict[str, Any]
Change = Callable[[list[Arrays], list[dict[str, Any]], list[str], Random], str | None]


def rewrite(files: Files, rng: Random) -> Damage | None:
    """Change one or two samples of a shard; the shard, its rows' byte ranges and all sums are made anew."""
    manifest = parse_manifest(json.loads(files[MANIFEST]))
    split = pick(rng, manifest.splits)
    number = int(rng.integers(len(manifest.splits[split].shards)))
    shard = manifest.splits[split].shards[number]
    table = pq.read_table(pa.BufferReader(files["patches.parquet"]))
    rows = table.to_pylist()
    own = [row for row in rows if row["shard"] == shard.path]
    format_ = FORMATS.get(manifest.layout.format)
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        for file in shard.files():
            (folder / file.path).parent.mkdir(parents=True, exist_ok=True)
            (folder / file.path).write_bytes(files[file.path])
        reader = ShardReader(folder, manifest.layout)
        arrays, metas, keys = [], [], []
        for index, row in enumerate(own):
            address = Address(shard=shard, index=index, byte_range=(row["offset"], row["nbytes"]), key=row["key"])
            stored = reader.read(address)
            arrays.append({name: array.copy() for name, array in stored.arrays.items()})
            metas.append({k: v for k, v in json.loads(stored.meta or b"{}").items() if k != "key"})
            keys.append(row["key"])
        reader.close()
        name, change = pick(rng, CHANGES.items())
        done = change(arrays, metas, keys, rng)
        if done is None:
            return None
        samples = [
            Sample(key=key, meta=meta, **by_kind(planes, manifest.layout))
            for key, meta, planes in zip(keys, metas, arrays, strict=True)
        ]
        encoded = ((sample.key, format_.encode(sample, manifest.layout)) for sample in samples)
        written = format_.write(folder, encoded, split=split, number=number, layout=manifest.layout)
        new = {file.path: (folder / file.path).read_bytes() for file in written.entry.files()}
    for row, (offset, nbytes) in zip(own, written.ranges, strict=True):
        row["offset"], row["nbytes"] = offset, nbytes
    patches = parquet(pa.Table.from_pylist(rows, schema=table.schema), "patches")
    changed = {**files, **new, "patches.parquet": patches}
    return Damage(f"{shard.path}: {done}, written anew", f"sample:{name}", reseal(changed))


def _value(name: str, change: Callable[[Any, Random], Any]) -> Change:
    def apply(arrays: list[Arrays], _metas: Any, keys: list[str], rng: Random) -> str | None:
        number = int(rng.integers(len(arrays)))
        if name not in arrays[number]:
            return None
        array = arrays[number][name]
        flat = array.reshape(-1)
        at = int(rng.integers(flat.size))
        old = flat[at]
        with np.errstate(over="ignore"):
            flat[at] = change(old, rng)
        if flat[at] == old or (old != old):
            return None
        return f"{keys[number]} {name}[{at}] {old} -> {flat[at]}"

    return apply


def _swap_meta(arrays: list[Arrays], metas: list[dict[str, Any]], keys: list[str], rng: Random) -> str | None:
    """Swap what two samples say of themselves, or the samples under their keys."""
    if len(keys) < 2:
        return None
    first, second = (int(number) for number in rng.choice(len(keys), 2, replace=False))
    kind = int(rng.integers(4))
    if kind == 0:
        keys[first], keys[second] = keys[second], keys[first]
        return f"keys {keys[first]} and {keys[second]} swapped"
    if kind == 1:
        name = pick(rng, ["row", "col", "n_spots", "slide_id"])
        if metas[first][name] == metas[second][name]:
            return None
        metas[first][name], metas[second][name] = metas[second][name], metas[first][name]
        return f"{name} of {keys[first]} and {keys[second]} swapped"
    if kind == 2:
        arrays[first], arrays[second] = arrays[second], arrays[first]
        return f"arrays of {keys[first]} and {keys[second]} swapped"
    metas[first], metas[second] = metas[second], metas[first]
    arrays[first], arrays[second] = arrays[second], arrays[first]
    keys[first], keys[second] = keys[second], keys[first]
    return f"samples {keys[first]} and {keys[second]} swapped"


def _meta(_arrays: Any, metas: list[dict[str, Any]], keys: list[str], rng: Random) -> str | None:
    number = int(rng.integers(len(keys)))
    name = pick(rng, [*metas[number], "more"])
    old = metas[number].get(name)
    metas[number][name] = pick(rng, [0, -1, 7, "s1", None, [], True])
    return None if metas[number][name] == old else f"{keys[number]} meta {name} {old!r} -> {metas[number][name]!r}"


CHANGES: dict[str, Change] = {
    "x one more": _value("x", lambda old, _: old + 1),
    "x": _value("x", lambda _, rng: rng.integers(0, 2000)),
    "totals": _value("totals", lambda old, rng: old + rng.integers(-3, 4)),
    "totals odd": _value("totals", lambda _, rng: pick(rng, [0, -1, np.nan, np.inf, 0.5])),
    "genes": _value("genes", lambda _, rng: rng.integers(-2, 23)),
    "label": _value("label_region", lambda old, rng: pick(rng, [-1, 0, 1, 2, -2, old + 1])),
    "swap": _swap_meta,
    "meta": _meta,
}
