"""Damage to a dataset: single files, coherent edits whose sums are made anew, and what does not belong there.

A mutation takes the files of a whole dataset and a generator of random numbers, and returns what it did and the files
that it leaves. A value is bytes, or a `Link` or a `Special` in a file's place. `reseal` makes sizes, checksums, sums
and digest of the manifest agree with the files again, as somebody would who edits with care.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from scripts.fuzz.datasets import Files
from stpatch.dataset.manifest import MANIFEST, manifest_digest
from stpatch.dataset.tables import write_arrow
from stpatch.storage import canonical_json

Random = np.random.Generator


@dataclass(frozen=True)
class Link:
    """A symbolic link in a file's place."""

    target: str


@dataclass(frozen=True)
class Special:
    """Something else than a file: ``fifo`` or ``folder``."""

    kind: str


Tree = dict[str, Any]
"""Bytes, `Link` or `Special` by path."""


@dataclass(frozen=True)
class Damage:
    """What was done: a phrase, the place that it hit (for the reasons), and the files."""

    what: str
    place: str
    files: Tree


Mutation = Callable[[Files, Random], Damage | None]
ODD = (
    0,
    -1,
    1,
    2,
    2**31 - 1,
    2**31,
    2**53,
    10**30,
    1e300,
    -0.5,
    "",
    "x",
    "../x",
    "/etc",
    None,
    True,
    [],
    {},
    [0],
    {"a": 1},
)


def pick(rng: Random, items: Any) -> Any:
    """Return one of some items."""
    items = list(items)
    return items[int(rng.integers(len(items)))]


def reseal(files: Tree) -> Tree:
    """Return files whose manifest tells their sizes, checksums, sums and its own digest."""
    manifest = json.loads(files[MANIFEST])
    for file in _entries(manifest):
        data = files.get(str(file.get("path")))
        if isinstance(data, bytes):
            file["bytes"], file["sha256"] = len(data), hashlib.sha256(data).hexdigest()
    for split in manifest["splits"].values():
        split["bytes"] = sum(file["bytes"] for shard in split["shards"] for file in _files_of(shard))
        split["patches"] = sum(shard["patches"] for shard in split["shards"])
    splits = manifest["splits"].values()
    manifest["totals"] = {name: sum(split[name] for split in splits) for name in ("bytes", "patches", "spots")}
    manifest["totals"]["shards"] = sum(len(split["shards"]) for split in splits)
    return {**files, MANIFEST: _manifest_bytes(manifest)}


def _manifest_bytes(manifest: dict[str, Any]) -> bytes:
    manifest["digest"] = manifest_digest(manifest)
    return (canonical_json(manifest, indent=1) + "\n").encode()


def _files_of(shard: dict[str, Any]) -> list[dict[str, Any]]:
    return [shard, *shard.get("parts", {}).values()]


def _entries(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    shards = [shard for split in manifest["splits"].values() for shard in split["shards"]]
    return [*manifest["tables"].values(), *manifest["files"], *(file for shard in shards for file in _files_of(shard))]


# -- single files --------------------------------------------------------------------------------------------------


def flip(files: Files, rng: Random) -> Damage | None:
    """Flip one bit of a file."""
    return _flipped(files, rng, pick(rng, files))


def flip_manifest(files: Files, rng: Random) -> Damage | None:
    """Flip one bit of the manifest."""
    return _flipped(files, rng, MANIFEST)


def flip_resealed(files: Files, rng: Random) -> Damage | None:
    """Flip one bit of a file, and make the sums anew."""
    damage = _flipped(files, rng, pick(rng, sorted(set(files) - {MANIFEST})))
    return Damage(f"{damage.what}, resealed", damage.place, reseal(damage.files))


def _flipped(files: Files, rng: Random, path: str) -> Damage:
    data = bytearray(files[path])
    at, bit = int(rng.integers(len(data))), int(rng.integers(8))
    data[at] ^= 1 << bit
    return Damage(f"bit {bit} of byte {at} of {path} flipped", f"{path}:bytes", {**files, path: bytes(data)})


def truncate(files: Files, rng: Random) -> Damage | None:
    """Cut a file."""
    path = pick(rng, files)
    end = int(rng.integers(len(files[path])))
    return Damage(f"{path} cut at {end}", f"{path}:bytes", {**files, path: files[path][:end]})


def truncate_resealed(files: Files, rng: Random) -> Damage | None:
    """Cut or lengthen a file, and make the sums anew."""
    path = pick(rng, sorted(set(files) - {MANIFEST}))
    data = files[path]
    end = int(rng.integers(1, len(data)))
    new = pick(rng, [data[:end], data[:end] + data[end - 1 :], data + bytes(int(rng.integers(1, 600))), data * 2])
    return Damage(f"{path} has {len(new)} bytes, resealed", f"{path}:bytes", reseal({**files, path: new}))


def swap(files: Files, rng: Random) -> Damage | None:
    """Swap two files."""
    first, second = (str(path) for path in rng.choice(sorted(files), 2, replace=False))
    if files[first] == files[second]:
        return None
    new = {**files, first: files[second], second: files[first]}
    return Damage(f"{first} and {second} swapped", f"{first}:swap", new)


def swap_resealed(files: Files, rng: Random) -> Damage | None:
    """Swap two files, and make the sums anew."""
    first, second = (str(path) for path in rng.choice(sorted(set(files) - {MANIFEST}), 2, replace=False))
    if files[first] == files[second]:
        return None
    new = {**files, first: files[second], second: files[first]}
    return Damage(f"{first} and {second} swapped, resealed", f"{first}:swap", reseal(new))


def delete(files: Files, rng: Random) -> Damage | None:
    """Remove a file."""
    path = pick(rng, files)
    return Damage(f"{path} removed", f"{path}:file", {name: data for name, data in files.items() if name != path})


def replace_file(files: Files, rng: Random) -> Damage | None:
    """Put a link, a pipe or a folder in a file's place."""
    path = pick(rng, files)
    new = pick(
        rng, [Link("/etc/passwd"), Link("/dev/zero"), Link("nowhere"), Link("."), Special("fifo"), Special("folder")]
    )
    return Damage(f"{path} is {new}", f"{path}:file", {**files, path: new})


def link_to_same(files: Files, rng: Random) -> Damage | None:
    """Replace a file by a link to the same bytes elsewhere."""
    path = pick(rng, files)
    return Damage(f"{path} is a link to its bytes", f"{path}:file", {**files, path: Link(f"@outside/{path}")})


def add_file(files: Files, rng: Random) -> Damage | None:
    """Add a file, a link or a pipe."""
    folder = pick(rng, ["", *sorted({path.rpartition("/")[0] for path in files})])
    name = pick(
        rng, ["x.tar", "train-000099.tar", "notes.txt", "LICENSE", ".tmp-1-x", "zarr.json", "c", "9", "genes.csv"]
    )
    path = f"{folder}/{name}".lstrip("/")
    if any(f"{name}/".startswith(f"{path}/") for name in files) or (not folder and name.startswith(".")):
        return None
    new = pick(rng, [b"", b"x", pick(rng, files.values()), Link("/etc/passwd"), Special("fifo")])
    return Damage(f"{path} added", f"{path}:added", {**files, path: new})


# -- the manifest --------------------------------------------------------------------------------------------------


def edit_manifest(files: Files, rng: Random) -> Damage | None:
    """Change, remove or swap a value of the manifest, and make its digest anew; sums stay as they are."""
    manifest = json.loads(files[MANIFEST])
    del manifest["digest"]
    path, what = _edit_json(manifest, rng)
    try:
        data = _manifest_bytes(manifest)
    except ValueError:
        return None
    if data == files[MANIFEST]:
        return None
    return Damage(f"manifest: {path} {what}, resealed", f"{MANIFEST}:{path}", {**files, MANIFEST: data})


def _edit_json(value: Any, rng: Random) -> tuple[str, str]:
    """Edit a random leaf of JSON values in place."""
    parents = list(_leaves(value, ""))
    path, parent, key = pick(rng, parents)
    old = parent[key]
    kind = int(rng.integers(5))
    if kind == 0 and isinstance(parent, dict):
        del parent[key]
        return path, "removed"
    if kind == 1 and isinstance(parent, list) and len(parent) > 1:
        rng.shuffle(parent)
        return path, "list shuffled"
    if isinstance(old, bool):
        parent[key] = not old
    elif isinstance(old, int | float):
        parent[key] = pick(rng, [old + 1, old - 1, old * 2, *ODD])
    elif isinstance(old, str):
        parent[key] = pick(rng, [old[1:], old + "x", old.upper(), *ODD])
    else:
        parent[key] = pick(rng, ODD)
    return path, f"{old!r} -> {parent[key]!r}"[:100]


def _leaves(value: Any, path: str) -> Any:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        place = f"{path}.{key}".lstrip(".")
        yield place, value, key
        yield from _leaves(item, place)


def edit_json_file(files: Files, rng: Random) -> Damage | None:
    """Change a value of an index or a ``zarr.json``, or put something absurd in its place."""
    paths = [path for path in files if path.endswith(".json") and path != MANIFEST]
    path = pick(rng, paths)
    if int(rng.integers(6)) == 0:
        new = pick(rng, [b"", b"{}", b"[]", b"null", b"[" * 5000, files[path] + b"{}", b'{"zarr_format": 3}'])
        return Damage(f"{path} is {new[:20]!r}, resealed", f"{path}:json", reseal({**files, path: new}))
    value = json.loads(files[path])
    place, what = _edit_json(value, rng)
    data = json.dumps(value, indent=1).encode()
    if value == json.loads(files[path]):
        return None
    return Damage(f"{path}: {place} {what}, resealed", f"{path}:json", reseal({**files, path: data}))


# -- the tables ----------------------------------------------------------------------------------------------------


def edit_table(files: Files, rng: Random) -> Damage | None:
    """Change or swap cells of a table, or remove, repeat or swap rows, and make the sums anew."""
    name = pick(rng, ["genes", "slides", "patches", "patches"])
    path = f"{name}.parquet"
    table = pq.read_table(pa.BufferReader(files[path]))
    rows, column = table.to_pylist(), pick(rng, table.column_names)
    kind = int(rng.integers(6))
    first, second = int(rng.integers(len(rows))), int(rng.integers(len(rows)))
    place = f"{path}:{column}"
    if kind <= 1:
        old = rows[first][column]
        rows[first][column] = _other(old, table.schema.field(column).type, rng)
        what = f"row {first} {column} {old!r} -> {rows[first][column]!r}"[:160]
    elif kind == 2:
        rows[first][column], rows[second][column] = rows[second][column], rows[first][column]
        what = f"{column} of rows {first} and {second} swapped"
    elif kind == 3:
        rows[first], rows[second], place = rows[second], rows[first], f"{path}:rows"
        what = f"rows {first} and {second} swapped"
    else:
        place = f"{path}:rows"
        rows = rows[:first] + rows[first + 1 :] if kind == 4 else [*rows, rows[first]]
        what = f"row {first} {'removed' if kind == 4 else 'repeated'}"
    if rows == table.to_pylist():
        return None
    try:
        data = parquet(pa.Table.from_pylist(rows, schema=table.schema), name)
    except (pa.ArrowException, OverflowError):
        return None
    return Damage(f"{path}: {what}, resealed", place, reseal({**files, path: data}))


def _other(value: Any, kind: pa.DataType, rng: Random) -> Any:
    if pa.types.is_integer(kind):
        return pick(rng, [(value or 0) + 1, (value or 0) - 1, 0, -1, 2**31 - 1, (value or 0) * 2 + 3])
    if pa.types.is_floating(kind):
        old = value or 0.0
        return pick(rng, [old + 1, old * 1.5 + 0.1, old * 1.001 + 1e-3, 0.0, -1.0, float("nan"), float("inf"), 1e300])
    if pa.types.is_binary(kind):
        return pick(
            rng,
            [
                b"",
                value[:-1],
                value + b"\0",
                bytes(len(value)),
                b"\xff" * len(value),
                bytes([value[0] ^ 4]) + value[1:],
            ],
        )
    return pick(rng, ["", "x", "/etc", "../x", f"{value}x", str(value).upper(), "train", "[]", "{}", "a" * 300, None])


def parquet(table: pa.Table, name: str) -> bytes:
    """Return a table as the project itself writes it."""
    sink = io.BytesIO()
    write_arrow(table, sink, name)
    return sink.getvalue()


# -- samples -------------------------------------------------------------------------------------------------------


def edit_sample(files: Files, rng: Random) -> Damage | None:
    """Change the arrays or the meta of a sample and write its shard anew, with rows, sums and digest that fit."""
    from scripts.fuzz.rewriting import rewrite

    return rewrite(files, rng)


MUTATIONS: dict[str, tuple[Mutation, int]] = {
    "flip": (flip, 6),
    "flip the manifest": (flip_manifest, 6),
    "flip, resealed": (flip_resealed, 8),
    "truncate": (truncate, 2),
    "truncate, resealed": (truncate_resealed, 4),
    "swap files": (swap, 2),
    "swap files, resealed": (swap_resealed, 3),
    "delete": (delete, 1),
    "replace": (replace_file, 2),
    "link to the same bytes": (link_to_same, 1),
    "add": (add_file, 3),
    "edit the manifest": (edit_manifest, 10),
    "edit JSON": (edit_json_file, 6),
    "edit a table": (edit_table, 14),
    "edit a sample": (edit_sample, 10),
}
"""By name, with its weight."""
