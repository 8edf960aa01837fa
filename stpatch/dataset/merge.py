"""Datasets of one tensor contract put together into one: shards are linked, tables united, leaks refused.

A shard is taken over as it is unless its samples hold gene ids or label numbers that are others in the whole; then its
samples are read, renumbered and written again. The first dataset's ids and numbers stay, so its shards always do.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stpatch.dataset import versions
from stpatch.dataset.card import write_card
from stpatch.dataset.checksums import read_patches
from stpatch.dataset.entries import FileEntry, ShardEntry, SplitEntry, WrittenShard
from stpatch.dataset.layout import FORMAT_VERSION
from stpatch.dataset.manifest import MANIFEST, Manifest, read_manifest
from stpatch.dataset.opening import open_dataset
from stpatch.dataset.sample import Sample
from stpatch.dataset.tables import (
    CANDIDATE,
    DIGESTS,
    GENES,
    SLIDES,
    pack_measured,
    patch_columns,
    read_table,
    schema,
    unpack_measured,
    write_table,
)
from stpatch.dataset.union import Union, unite
from stpatch.errors import ConfigError, MismatchError, StpatchError, one_or_many
from stpatch.image.groups import spanning_donors
from stpatch.registry import FORMATS
from stpatch.slides.digests import not_allowed, same_sections
from stpatch.storage import digest, key_text, read_json, remove_file, share_file, write_json

if TYPE_CHECKING:
    import pyarrow as pa

MARK = "merging.json"
"""Stands in the output until the manifest does: which datasets are being merged there."""
_LISTED = 6
_CHANNELS = ("scope", "method", "draws", "n")


@dataclass(frozen=True, kw_only=True)
class Merged:
    """What a merge made."""

    output: Path
    manifest: Manifest
    linked: int
    written: int

    def text(self) -> str:
        """Return a line for people."""
        parts = ", ".join(f"{name} {split.patches}" for name, split in self.manifest.splits.items())
        return f"merged: {self.output} ({parts} samples; {self.linked} shards taken over, {self.written} written anew)"


@dataclass(frozen=True)
class _Part:
    """One of the datasets."""

    folder: Path
    manifest: Manifest

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256((self.folder / MANIFEST).read_bytes()).hexdigest()

    @cached_property
    def slides(self) -> list[dict[str, Any]]:
        import pyarrow.parquet as pq

        path = self.folder / "slides.parquet"
        known = {name: kind for name, kind in DIGESTS.items() if name in pq.read_schema(path).names}
        return [{**dict.fromkeys(DIGESTS), **row} for row in read_table(path, SLIDES | known).to_pylist()]

    @cached_property
    def panel(self) -> list[str]:
        table = read_table(self.folder / "genes.parquet", {name: GENES[name] for name in ("name", "channel")})
        pairs = zip(table["channel"].to_pylist(), table["name"].to_pylist(), strict=True)
        return [name for channel, name in sorted(item for item in pairs if item[0] is not None)]

    @property
    def name(self) -> str:
        dataset = self.manifest.dataset
        return f"{dataset.get('name', '')} {dataset.get('version', '')} ({self.folder})"


def merge(
    folders: Sequence[Path],
    output: Path,
    *,
    name: str | None = None,
    version: str = "1.0.0",
    allow_leak: Sequence[str] = (),
    allow_duplicates: Sequence[str] = (),
) -> Merged:
    """Put datasets together.

    Parameters
    ----------
    folders
        Two or more datasets; gene ids and label numbers of the first one stay.
    output
        An empty or new folder, or one where the same merge was stopped.
    name, version
        Of the whole; the first dataset's name where None.
    allow_leak
        Donor-like columns that may span splits.
    allow_duplicates
        Slides that may be there under another id too.

    Raises
    ------
    ConfigError, MismatchError, DatasetError, ProblemsError
        The tensors differ, slides or donors are shared, or the output holds something else.
    """
    parts = [_Part(folder, read_manifest(folder)) for folder in folders]
    if problems := _problems(parts, allow_leak=allow_leak, allow_duplicates=allow_duplicates):
        raise one_or_many(problems)
    _claim(output, digest([part.digest for part in parts]))
    union = unite(folders, [part.manifest for part in parts])
    work = _Work(output, parts, union)
    splits, linked, written = work.take_over()
    manifest = work.finish(splits, name=name, version=version)
    return Merged(output=output, manifest=manifest, linked=linked, written=written)


def _claim(output: Path, merge_digest: str) -> None:
    """Refuse a folder that holds something else; mark it as this merge's."""
    mark = output / MARK
    if output.is_dir() and any(output.iterdir()):
        own = mark.is_file() and read_json(mark).get("merge") == merge_digest
        if not own or (output / MANIFEST).exists():
            raise MismatchError(
                "the output folder is not empty",
                where=output,
                found=", ".join(sorted(path.name for path in output.iterdir())[:_LISTED]),
                expected="an empty folder, or one where a merge of the same datasets was stopped",
                hint="choose another --output, or empty the folder",
            )
    write_json(mark, {"merge": merge_digest})


# -- what stands against it -------------------------------------------------------------------------------------------


def _problems(
    parts: Sequence[_Part], *, allow_leak: Sequence[str], allow_duplicates: Sequence[str]
) -> list[StpatchError]:
    if len(parts) < 2:
        return [ConfigError("there is nothing to merge", found=f"{len(parts)} dataset", expected="at least two")]
    problems: list[StpatchError] = [problem for part in parts[1:] for problem in _contract(parts[0], part)]
    places: dict[str, tuple[str, _Part]] = {}
    for part in parts:
        for row in part.slides:
            other, first = places.setdefault(key_text(row["slide_id"]), (row["slide_id"], part))
            if first is not part:
                problems.append(
                    MismatchError(
                        "a slide is in two of the datasets",
                        where=f"{first.name}; {part.name}",
                        found=other if other == row["slide_id"] else f"{other} and {row['slide_id']}, one sample key",
                        expected="each slide in one dataset",
                        hint="withdraw it from one of them (dataset.extends with slides.withdraw), or rename it there",
                    )
                )
    rows = [row for part in parts for row in part.slides]
    digests = {row["slide_id"]: {kind.removeprefix("digest_"): row[kind] or "" for kind in DIGESTS} for row in rows}
    for ids, why in same_sections(digests):
        if not_allowed(ids, allow_duplicates):
            problems.append(
                MismatchError(
                    "one section is there under several slide ids",
                    where=" and ".join(ids[:_LISTED]),
                    found=f"equal: {why}",
                    expected="each section once",
                    hint=f"withdraw one of them, or allow what is meant: --allow-duplicates {ids[-1]}",
                )
            )
    facts = {row["slide_id"]: {name: str(value) for name, value in json.loads(row["metadata"]).items()} for row in rows}
    spanning = spanning_donors(facts, {row["slide_id"]: row["split"] or "" for row in rows}, allow=allow_leak)
    for column, values in spanning.items():
        found = [f"{value!r} in {' and '.join(splits)}" for value, splits in values.items()]
        problems.append(
            MismatchError(
                f"column {column!r} spans splits of the datasets",
                found="; ".join(found[:_LISTED]) + (f"; and {len(found) - _LISTED} more" if found[_LISTED:] else ""),
                expected="each donor in one split",
                hint=f"build one of them again with other splits, or, where the column names no donors or the leak is "
                f"meant, allow it: --allow-leak {column}",
            )
        )
    return problems


def _contract(first: _Part, other: _Part) -> list[StpatchError]:
    """Return how a dataset's samples differ in kind from the first one's."""
    one, two = _kind(first), _kind(other)
    differing = [key for key in one if one[key] != two[key]]
    if not differing:
        return []
    return [
        MismatchError(
            "the datasets have different tensors",
            where=f"{first.name}; {other.name}",
            found="; ".join(f"{key}: {two[key]}" for key in differing),
            expected="; ".join(f"{key}: {one[key]}" for key in differing),
            hint="build them with one config; only slides, names and splits may differ",
        )
    ]


def _kind(part: _Part) -> dict[str, Any]:
    manifest = part.manifest.as_json()
    sections = {
        f"{section}.{key}": value
        for section in ("tensor", "normalization", "grid", "crop")
        for key, value in manifest[section].items()
    }
    channels = {f"channels.{key}": manifest["channels"].get(key) for key in _CHANNELS}
    shards = {f"shards.{key}": manifest["shards"][key] for key in ("format", "patches")}
    panel = {"panel": ", ".join(part.panel[:_LISTED]) + f" ({digest(part.panel)[:8]})"} if part.panel else {}
    labels = {"labels": ", ".join(sorted(manifest["labels"]))}
    return {**sections, **channels, **shards, **labels, **panel}


# -- the whole --------------------------------------------------------------------------------------------------------


class _Work:
    """Shards, tables and manifest of the whole."""

    def __init__(self, output: Path, parts: Sequence[_Part], union: Union) -> None:
        self.output, self.parts, self.union = output, parts, union
        layout = replace(parts[0].manifest.layout, version=FORMAT_VERSION)
        self.format = FORMATS.get(layout.format)
        self.layout = layout
        self._rows: list[pa.Table] = []

    def take_over(self) -> tuple[dict[str, SplitEntry], int, int]:
        """Link or write all shards; return the splits, and how many shards were linked and written."""
        linked = written = 0
        splits: dict[str, list[ShardEntry]] = {}
        spots: dict[str, int] = {}
        wanted = schema(patch_columns(self.layout, draws=self.parts[0].manifest.draws))
        tables: dict[str, list[pa.Table]] = {}
        for number, part in enumerate(self.parts):
            keeps = self.union.keeps(number, genes=self.layout.genes)
            keeps = keeps and self.format.stores_alike(part.manifest.layout, self.layout)
            columns = {field.name: str(field.type) for field in wanted}
            for split, entry in part.manifest.splits.items():
                rows = read_patches(part.folder, part.manifest, columns, split=split)
                before = splits.setdefault(split, [])
                first = self.format.shard_number(before[-1].path) + 1 if before else 0
                for start, shard in zip(entry.starts, entry.shards, strict=False):
                    to = first + self.format.shard_number(shard.path)
                    of_shard = rows.slice(start, shard.patches)
                    if keeps:
                        new, places = self._link(part, shard, split=split, number=to), None
                        linked += 1
                    else:
                        new, places = self._write(number, shard, start=start, split=split, to=to)
                        written += 1
                    before.append(new)
                    tables.setdefault(split, []).append(_moved(of_shard, new, places).cast(wanted))
                spots[split] = spots.get(split, 0) + entry.spots
        self._rows = [table for split in splits for table in tables.get(split, [])]
        return {name: SplitEntry.of(shards, spots=spots[name]) for name, shards in splits.items()}, linked, written

    def _link(self, part: _Part, shard: ShardEntry, *, split: str, number: int) -> ShardEntry:
        """Take a shard's files over under the names of its new number."""
        paths = self.format.shard_paths(split, number, self.layout)
        for plane, file in {"": shard, **shard.parts}.items():
            share_file(part.folder / file.path, self.output / paths[plane])
        parts = {plane: file.model_copy(update={"path": paths[plane]}) for plane, file in shard.parts.items()}
        return shard.model_copy(update={"path": paths[""], **({"parts": parts} if parts else {})})

    def _write(
        self, number: int, shard: ShardEntry, *, start: int, split: str, to: int
    ) -> tuple[ShardEntry, WrittenShard]:
        """Write a shard's samples again under the common numbers; return the entry, and where its samples are."""
        written = self.format.write(
            self.output,
            self._renumbered(number, split, start, shard.patches),
            split=split,
            number=to,
            layout=self.layout,
        )
        return written.entry, written

    def _renumbered(self, number: int, split: str, start: int, count: int) -> Iterator[tuple[str, Mapping[str, bytes]]]:
        part = self.parts[number]
        with open_dataset(part.folder, split, values=part.manifest.values) as dataset:
            for row in range(start, start + count):
                sample = renumbered(dataset[row], self.union, number, by_id=part.manifest.scope == "patch")
                stored = sample if self.layout.genes else replace(sample, genes=None)
                yield sample.key, self.format.encode(stored, self.layout)

    def finish(self, splits: Mapping[str, SplitEntry], *, name: str | None, version: str) -> Manifest:
        """Write tables, indexes, card and, last of all, the manifest."""
        import pyarrow as pa

        first = self.parts[0].manifest
        rows = pa.concat_tables(self._rows)
        genes = GENES if "candidate" not in self.union.genes else GENES | CANDIDATE
        tables = {
            "genes": write_table(self.output, "genes", genes, self.union.genes),
            "slides": write_table(self.output, "slides", SLIDES | DIGESTS, self._slides()),
            "patches": write_table(
                self.output,
                "patches",
                patch_columns(self.layout, draws=first.draws),
                {column: rows[column] for column in rows.column_names},
            ),
        }
        files: list[FileEntry] = []
        for split, entry in splits.items():
            files += self.format.write_split_files(self.output, name=split, split=entry, layout=self.layout)
        sets: versions.Sets = {}
        for part in self.parts:
            for used, shards in versions.sets_of(part.manifest, part.manifest.totals.shards).values():
                versions.add(sets, used, shards)
        manifest = Manifest.of(
            dataset=self._dataset(name, version),
            layout=self.layout,
            values=first.values,
            normalization=first.normalization,
            channels=self._channels(),
            grid=first.grid,
            crop=first.crop,
            labels=self.union.labels,
            splits=splits,
            tables=tables,
            files=files,
            fingerprint=digest([part.digest for part in self.parts]),
            merged=[
                {
                    "name": part.manifest.dataset.get("name", ""),
                    "version": part.manifest.dataset.get("version", ""),
                    "manifest": part.digest,
                }
                for part in self.parts
            ],
            **versions.manifest_members(sets, tables=_tables_writer()),
        )
        manifest = manifest.with_files(write_card(self.output, manifest))
        remove_file(self.output / MARK)
        manifest.write(self.output)
        return manifest

    def _slides(self) -> dict[str, list[Any]]:
        rows = []
        for part, to in zip(self.parts, self.union.ids, strict=True):
            for row in part.slides:
                known = np.flatnonzero(unpack_measured(row["measured"], len(to) - 1))
                rows.append({**row, "measured": pack_measured(to[known], self.union.largest)})
        rows.sort(key=lambda row: str(row["slide_id"]))
        return {name: [row[name] for row in rows] for name in SLIDES | DIGESTS}

    def _dataset(self, name: str | None, version: str) -> dict[str, Any]:
        sections = [part.manifest.dataset for part in self.parts]
        notes = [note for section in sections for note in section.get("notes", [])]
        if len({section.get("seed", 0) for section in sections}) > 1:
            notes.append("the datasets that were merged have different seeds")
        licenses = dict.fromkeys(section.get("license", "unknown") for section in sections)
        return {
            "name": name or sections[0].get("name", ""),
            "version": version,
            "license": " AND ".join(licenses) if "unknown" not in licenses else "unknown",
            "description": " ".join(dict.fromkeys(section.get("description", "") for section in sections)).strip(),
            "seed": sections[0].get("seed", 0),
            "notes": list(dict.fromkeys(notes)),
        }

    def _channels(self) -> dict[str, Any]:
        first: dict[str, Any] = dict(self.parts[0].manifest.channels)
        fits = dict.fromkeys(str(part.manifest.channels.get("fit_on", "all")) for part in self.parts)
        first["fit_on"] = next(iter(fits)) if len(fits) == 1 else "+".join(fits)
        first["vocabulary"] = {**first["vocabulary"], "genes": len(self.union.genes["name"])}
        return first


def renumbered(sample: Sample, union: Union, number: int, *, by_id: bool) -> Sample:
    """Return a sample under the common gene ids and label numbers.

    Parameters
    ----------
    sample
        Of the dataset `number` of the union.
    by_id
        Whether channels stand by ascending gene id, pads last, as a patch rule leaves them: they are put in order.
    """
    labels = {
        name: np.where(plane >= 0, union.categories[number][name][plane], plane).astype(plane.dtype)
        if len(union.categories[number][name])
        else plane
        for name, plane in sample.labels.items()
    }
    if sample.genes is None:
        return replace(sample, labels=labels)
    genes = union.ids[number][sample.genes]
    x = sample.x
    if by_id:
        order = np.lexsort((genes, genes == union.pad_id))
        genes, x = genes[order], np.ascontiguousarray(x[order])
    return replace(sample, x=x, genes=genes, labels=labels)


def _moved(rows: pa.Table, shard: ShardEntry, written: WrittenShard | None) -> pa.Table:
    """Return a shard's rows under its new path, with its new byte ranges and checksums where it was written."""
    import pyarrow as pa

    columns: dict[str, Any] = {"shard": pa.array([shard.path] * rows.num_rows, pa.string())}
    if written is not None:
        places = np.array(written.ranges, np.int64).reshape(-1, 2)
        columns |= {"offset": pa.array(places[:, 0]), "nbytes": pa.array(places[:, 1])}
        if "crc32c" in rows.column_names:
            columns["crc32c"] = pa.array(np.array(written.checksums, np.uint32))
    for name, values in columns.items():
        rows = rows.set_column(rows.column_names.index(name), name, values)
    return rows


def _tables_writer() -> dict[str, str]:
    import importlib.metadata

    return {versions.TABLES_WRITER: importlib.metadata.version(versions.TABLES_WRITER)}
