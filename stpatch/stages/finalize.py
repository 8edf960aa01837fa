"""Stage finalize, once a corpus: receipts -> tables, indexes, card and, last of all, the manifest."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from stpatch.dataset import versions
from stpatch.dataset.card import CARD, write_card
from stpatch.dataset.entries import FileEntry, ShardEntry, SplitEntry
from stpatch.dataset.layout import Layout
from stpatch.dataset.manifest import MANIFEST, Manifest, parse_shard
from stpatch.dataset.sample import label_name
from stpatch.dataset.sources import dataset_license, sources_of
from stpatch.dataset.tables import CANDIDATE, DIGESTS, GENES, SLIDES, codes, numbers, patch_columns, write_table
from stpatch.registry import FORMATS
from stpatch.stages.channels import Channels, read_channels
from stpatch.stages.job import SLIDE_STAGES, Job, Outcome, file_digest
from stpatch.stages.normalize import normalization_json
from stpatch.stages.plan import ordered_splits, read_plan, shard_tasks
from stpatch.stages.receipts import file_of
from stpatch.stages.reject import crop_settings
from stpatch.stages.rows import gene_rows, patch_rows, slide_rows
from stpatch.stages.shard import dataset_layout
from stpatch.storage import digest, remove_empty_folders, remove_file, remove_temporaries


def request(job: Job, _unit: str) -> dict[str, Any]:
    """Return what the dataset's tables and manifest depend on: its contents, and what made them."""
    return {"contents": contents(job), "versions": [list(item) for item in _notes_on_versions(job)]}


def contents(job: Job) -> dict[str, Any]:
    """Return what the dataset holds, whose digest is the manifest's fingerprint: nothing in it names a folder."""
    dataset = job.config.section("dataset")["dataset"]
    return {
        "shards": {task: job.receipt("shard", task).fingerprint for task in shard_tasks(job)},
        "plan": job.receipt("plan", "corpus").fingerprint,
        "dataset": {name: dataset[name] for name in ("name", "version", "license", "description", "seed")},
        "left_out": sorted(slide_id for slide_id in job.sources if job.failed(slide_id)),
        **({} if job.parent is None else {"extends": job.parent.digest}),
    }


def run(job: Job, unit: str) -> Outcome:
    """Write everything that lies beside the shards."""
    plan, layout, channels = read_plan(job.plan_path), dataset_layout(job), read_channels(job.channels_path)
    remove_file(job.output / MANIFEST)  # a dataset in change has no entry point
    _clear(job)
    patches, slides = patch_rows(job, plan, layout), slide_rows(job, plan, channels)
    splits = _splits(job, patches, layout)
    genes = GENES if channels.candidates is None else GENES | CANDIDATE
    tables = {
        "genes": write_table(job.output, "genes", genes, gene_rows(job, plan, channels, slides["measured"])),
        "slides": write_table(job.output, "slides", SLIDES | DIGESTS, slides),
        "patches": write_table(job.output, "patches", patch_columns(layout, draws=job.config.channels.draws), patches),
    }
    files = [record for name, split in splits.items() for record in _split_files(job, name, split, layout)]
    manifest = Manifest.of(
        dataset=_dataset(job, slides),
        layout=layout,
        values=job.config.shards.values,
        normalization=normalization_json(job.config),
        channels=_channels(job, channels),
        grid=job.config.section("grid")["grid"],
        crop=crop_settings(job),
        labels={label_name(name): known for name, known in job.receipt("plan", unit).facts["labels"].items()},
        splits=splits,
        tables=tables,
        files=tuple(files),
        fingerprint=digest(contents(job)),
        extends=_extends(job),
        **_versions(job, layout),
    )
    manifest = manifest.with_files(write_card(job.output, manifest))
    manifest.write(job.work)  # by this copy a later run knows the dataset as its own, see engine.check_output
    manifest.write(job.output)
    own = ((job.output, CARD), (job.work, MANIFEST), (job.output, MANIFEST))
    written = [(job.output / item.path, item.sha256) for item in (*tables.values(), *files)]
    return Outcome(
        outputs=[*written, *((folder / name, None) for folder, name in own)],
        facts={
            "bytes": manifest.bytes,
            "shards": sum(len(split.shards) for split in splits.values()),
            "notes": manifest.dataset["notes"],
        },
    )


def _clear(job: Job) -> None:
    """Remove what an older plan left: shards that are none any more, their folders, and files of temporary names."""
    for root in job.roots.values():
        remove_temporaries(root)  # first of all: a receipt under a temporary name must not pass for an old one
    tasks = set(shard_tasks(job))
    folder = job.work / "receipts" / "shard"
    for path in folder.glob("[!.]*.json"):
        task = path.name.removesuffix(".json").removesuffix(".failed")
        if task in tasks:
            continue
        receipt = job.book.receipt("shard", task)
        for output in receipt.outputs if receipt else ():
            file_of(output.path, job.roots).unlink(missing_ok=True)
        path.unlink(missing_ok=True)
    known = {file_of(item.path, job.roots) for task in tasks for item in job.receipt("shard", task).outputs}
    # A kill between a shard and its receipt leaves a file that no receipt knows.
    formats = {*FORMATS.own(), job.config.shards.format}  # an older plan may have had another format
    for pattern in sorted(pattern for name in formats for pattern in FORMATS.get(name).shard_patterns):
        for path in job.output.glob(pattern):
            if path.is_file() and path not in known:
                path.unlink()
    remove_empty_folders(job.output)


def _splits(job: Job, patches: Mapping[str, Any], layout: Layout) -> dict[str, SplitEntry]:
    """Return the splits in order, each with its shards by number."""
    shards: dict[str, list[tuple[int, ShardEntry]]] = {}
    for task in shard_tasks(job):
        facts = job.receipt("shard", task).facts
        shards.setdefault(facts["split"], []).append((facts["number"], parse_shard(facts["record"], layout)))
    of_row, names = codes(patches["split"])
    spots = dict(zip(names, np.bincount(of_row, weights=numbers(patches["n_spots"])).tolist(), strict=True))
    return {
        name: SplitEntry.of([shard for _, shard in sorted(shards[name], key=_number)], spots=int(spots[name]))
        for name in ordered_splits(job, shards)
    }


def _number(item: tuple[int, ShardEntry]) -> int:
    return item[0]


def _split_files(job: Job, name: str, split: SplitEntry, layout: Layout) -> list[FileEntry]:
    return FORMATS.get(layout.format).write_split_files(job.output, name=name, split=split, layout=layout)


def _extends(job: Job) -> dict[str, Any] | None:
    """Return the manifest's member about the dataset that is extended: which, what is new, and what went."""
    parent = job.parent
    if parent is None:
        return None
    return {
        "name": parent.manifest.dataset.get("name", ""),
        "version": parent.manifest.dataset.get("version", ""),
        "manifest": parent.digest,
        "added": sorted(read_plan(job.plan_path).slides),
        "withdrawn": {slide_id: parent.keys_of(slide_id) for slide_id in sorted(job.config.slides.withdraw)},
        "withdrawn_before": sorted(parent.withdrawn),
    }


def _dataset(job: Job, rows: Mapping[str, Any]) -> dict[str, Any]:
    section = job.config.dataset
    notes = [] if job.parent is None else list(job.parent.manifest.dataset.get("notes", []))
    notes += job.receipt("plan", "corpus").facts["notes"]
    for slide_id in job.sources:
        failures = (job.book.failure(stage, slide_id) for stage in SLIDE_STAGES)
        if failure := next(filter(None, failures), None):  # one of a later stage is of an earlier run
            notes.append(f"slide {slide_id} was left out: {failure.message.splitlines()[0]}")
    notes += [note for _, note in _notes_on_versions(job)]
    slides = [json.loads(text) for text in rows["metadata"]]
    sources = sources_of(slides)
    return {
        "name": section.name,
        "version": section.version,
        "license": dataset_license(section.license, slides),
        "description": section.description,
        "seed": section.seed,
        "notes": list(dict.fromkeys(notes)),
        **({"sources": sources} if sources else {}),
    }


def _channels(job: Job, channels: Channels) -> dict[str, Any]:
    value: dict[str, Any] = job.config.section("channels")["channels"]
    del value["genes"]
    if value["candidates"] is not None:
        del value["candidates"]["genes"]
    vocabulary = job.config.ingest.genes.vocabulary
    return {
        **value,
        "n": channels.n_channels,
        "fit_on": job.receipt("select", "corpus").facts["fit_on"],
        "pad_id": channels.pad_id,
        "vocabulary": {
            "genes": len(channels.ids),
            "sha256": file_digest(vocabulary),
            "identity": job.config.ingest.genes.identity,
        },
    }


def _versions(job: Job, layout: Layout) -> dict[str, Any]:
    """Return the manifest's members about versions: those that wrote the shards, and the tables' writer.

    Shards stay when a library is upgraded between two builds, so today's versions are not theirs.
    """
    used = set(FORMATS.get(layout.format).libraries)
    unused = {library for name in FORMATS.own() for library in FORMATS.get(name).libraries} - used
    own = []
    for task in shard_tasks(job):
        receipt = job.receipt("shard", task)
        if not receipt.facts.get("taken_over"):
            own.append({name: text for name, text in receipt.software.versions.items() if name not in unused})
    sets = versions.sets_of(job.parent.manifest, len(shard_tasks(job)) - len(own)) if job.parent else {}
    for used_versions in own:
        versions.add(sets, used_versions, 1)
    return versions.manifest_members(sets, tables=job.library_versions([versions.TABLES_WRITER]))


def _notes_on_versions(job: Job) -> list[tuple[str, str]]:
    """Return (stage, note) of the stages whose units were not all done by the same versions."""
    units = {"shard": shard_tasks(job)}
    slides = list(job.receipts("crop"))
    notes = []
    for stage in (*SLIDE_STAGES, "shard"):
        of_library: dict[str, Counter[str]] = {}
        for unit in units.get(stage, slides):
            for name, version in job.receipt(stage, unit).software.versions.items():
                of_library.setdefault(name, Counter())[version] += 1
        mixed = [
            f"{name} {' and '.join(f'{version} ({count})' for version, count in counts.items())}"
            for name, counts in sorted(of_library.items())
            if len(counts) > 1
        ]
        if mixed:
            notes.append((stage, f"stage {stage} was done by different versions: {'; '.join(mixed)}"))
    return notes
