"""Stage finalize, once a corpus: receipts -> tables, indexes, card and, last of all, the manifest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpatch.dataset.card import CARD, write_card
from stpatch.dataset.entries import FileEntry, ShardEntry, SplitEntry
from stpatch.dataset.layout import Layout
from stpatch.dataset.manifest import MANIFEST, Manifest, parse_shard
from stpatch.dataset.sample import label_name
from stpatch.dataset.sources import dataset_license, sources_of
from stpatch.dataset.tables import DIGESTS, GENES, SLIDES, pack_measured, patch_columns, write_table
from stpatch.image.crop import Patches
from stpatch.registry import FORMATS
from stpatch.slides.store import read_genes
from stpatch.stages.channels import Channels, read_channels
from stpatch.stages.crop import read_cut
from stpatch.stages.job import SLIDE_STAGES, Job, Outcome, file_digest
from stpatch.stages.measured import measured_ids
from stpatch.stages.plan import Plan, read_plan, sample_key
from stpatch.stages.receipts import Receipt, file_of
from stpatch.stages.shard import dataset_layout
from stpatch.storage import canonical_json, digest, remove_empty_folders, remove_temporaries


def request(job: Job, _unit: str) -> dict[str, Any]:
    """Return what the dataset's tables and manifest depend on: its contents, and what made them."""
    return {"contents": contents(job), "versions": [list(item) for item in _notes_on_versions(job)]}


def contents(job: Job) -> dict[str, Any]:
    """Return what the dataset holds, whose digest is the manifest's fingerprint: nothing in it names a folder."""
    tasks = read_plan(job.plan_path).tasks()
    dataset = job.config.section("dataset")["dataset"]
    return {
        "shards": {task: job.receipt("shard", task).fingerprint for task in tasks},
        "plan": job.receipt("plan", "corpus").fingerprint,
        "dataset": {name: dataset[name] for name in ("name", "version", "license", "description", "seed")},
        "left_out": sorted(slide_id for slide_id in job.sources if job.failed(slide_id)),
    }


def run(job: Job, unit: str) -> Outcome:
    """Write everything that lies beside the shards."""
    plan, layout, channels = read_plan(job.plan_path), dataset_layout(job), read_channels(job.channels_path)
    _clear(job, plan)
    largest = int(max(channels.ids.max(), channels.pad_id))
    patches: dict[str, Patches] = {}
    measured: dict[str, bytes] = {}
    for slide_id in plan.slides:
        cut = read_cut(job.patches_path(slide_id))
        patches[slide_id] = cut.patches
        measured[slide_id] = pack_measured(measured_ids(job, slide_id, channels, cut.gene_ids), largest)
    columns = _patch_rows(job, plan, patches, layout)
    splits = _splits(job, plan, columns, layout)
    tables = {
        "genes": write_table(job.output, "genes", GENES, _gene_rows(job, plan, channels)),
        "slides": write_table(job.output, "slides", SLIDES | DIGESTS, _slide_rows(job, plan, measured)),
        "patches": write_table(job.output, "patches", patch_columns(layout, draws=job.config.channels.draws), columns),
    }
    files = [record for name, split in splits.items() for record in _split_files(job, name, split, layout)]
    manifest = Manifest.of(
        dataset=_dataset(job, plan),
        layout=layout,
        values=job.config.shards.values,
        normalization=_normalization(job),
        channels=_channels(job, channels),
        grid=job.config.section("grid")["grid"],
        crop=job.config.section("crop")["crop"],
        labels={label_name(name): known for name, known in job.receipt("plan", unit).facts["labels"].items()},
        splits=splits,
        tables=tables,
        files=tuple(files),
        fingerprint=digest(contents(job)),
        **_versions(job, plan, layout),
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


def _clear(job: Job, plan: Plan) -> None:
    """Remove what an older plan left: shards that are none any more, their folders, and files of temporary names."""
    for root in job.roots.values():
        remove_temporaries(root)  # first of all: a receipt under a temporary name must not pass for an old one
    tasks = plan.tasks()
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


def _patch_rows(
    job: Job, plan: Plan, patches: Mapping[str, Patches], layout: Layout
) -> dict[str, NDArray[Any] | list[Any]]:
    """Return the columns of patches.parquet, in the plan's order."""
    number, row, col, n_spots, coverage, height, width = (
        _of_samples(plan, patches, name) for name in ("number", "row", "col", "n_spots", "coverage", "height", "width")
    )
    draws = job.config.channels.draws
    slides = [plan.slides[i] for i in plan.slide]
    paths: list[str] = []
    offset, nbytes = np.empty(len(slides), np.int64), np.empty(len(slides), np.int64)
    for task, samples in plan.tasks().items():
        record = job.receipt("shard", task).facts["record"]
        paths += [record["path"]] * (samples.stop - samples.start)
        with np.load(job.rows_path(task), allow_pickle=False) as file:
            offset[samples], nbytes[samples] = file["offset"], file["nbytes"]
    columns: dict[str, NDArray[Any] | list[Any]] = {
        "key": [
            sample_key(slide_id, int(n), int(draw), draws=draws)
            for slide_id, n, draw in zip(slides, number, plan.draw, strict=True)
        ],
        "split": [plan.splits[i] for i in plan.split],
        "shard": paths,
        "index": plan.index,
        "offset": offset,
        "nbytes": nbytes,
        "slide_id": slides,
        "row": row,
        "col": col,
        "n_spots": n_spots,
        "coverage": coverage,
    }
    if layout.variable:
        columns |= {"height": height, "width": width}
    if draws > 1:
        columns["draw"] = plan.draw.astype(np.int32)
    return columns


def _of_samples(plan: Plan, patches: Mapping[str, Patches], name: str) -> NDArray[Any]:
    """Return one field of the patches for every sample of the plan."""
    fields = [getattr(patches[slide_id], name) for slide_id in plan.slides]
    starts = np.cumsum([0, *(len(field) for field in fields)])[:-1]
    return np.asarray(np.concatenate(fields)[starts[plan.slide] + plan.patch])


def _splits(
    job: Job, plan: Plan, columns: Mapping[str, NDArray[Any] | list[Any]], layout: Layout
) -> dict[str, SplitEntry]:
    shards: dict[str, list[ShardEntry]] = {name: [] for name in plan.splits}
    for task, samples in plan.tasks().items():
        record = parse_shard(job.receipt("shard", task).facts["record"], layout)
        shards[plan.splits[plan.split[samples.start]]].append(record)
    spots = np.bincount(plan.split, weights=np.asarray(columns["n_spots"]), minlength=len(plan.splits))
    return {name: SplitEntry.of(shards[name], spots=int(total)) for name, total in zip(plan.splits, spots, strict=True)}


def _split_files(job: Job, name: str, split: SplitEntry, layout: Layout) -> list[FileEntry]:
    return FORMATS.get(layout.format).write_split_files(job.output, name=name, split=split, layout=layout)


def _gene_rows(job: Job, plan: Plan, channels: Channels) -> dict[str, Sequence[Any] | NDArray[Any]]:
    with np.load(job.work / "moments.npz", allow_pickle=False) as file:
        moments = dict(file)
    known = _gene_facts(job, plan, channels)
    channel_of = {} if channels.panel is None else {int(number): i for i, number in enumerate(channels.panel)}
    return {
        "gene_id": channels.ids,
        "name": list(channels.names),
        "ensembl_id": [known[name][0] or None for name in channels.names],
        "organism": [known[name][1] or None for name in channels.names],
        "channel": [channel_of.get(int(number)) for number in channels.ids],
        "n_slides": moments["n_slides"].astype(np.int32),
        "n_spots": moments["n_spots"],
        "n_detected": moments["detected"],
        "sum_counts": moments["count_sum"].astype(np.float64),
        "sum_squared_counts": moments["count_squares"].astype(np.float64),
        "mean_normalized": moments["mean"],
        "var_normalized": moments["variance"],
    }


def _gene_facts(job: Job, plan: Plan, channels: Channels) -> dict[str, tuple[str, str]]:
    """Return each gene's (Ensembl id, organism), as the first slide that measured it says."""
    known: dict[str, tuple[str, str]] = {}
    wanted = set(channels.names)
    for slide_id in [*plan.slides, *(name for name in job.receipts("normalize") if name not in set(plan.slides))]:
        if not wanted:
            break
        genes = read_genes(job.slide_path(slide_id), columns=["ensembl_id", "organism"])
        facts = zip(genes["ensembl_id"].tolist(), genes["organism"].tolist(), strict=True)
        known = {**dict(zip(channels.names_of(genes), facts, strict=True)), **known}
        wanted.difference_update(known)
    return known


def _slide_rows(job: Job, plan: Plan, measured: Mapping[str, bytes]) -> dict[str, Sequence[Any] | NDArray[Any]]:
    counts = np.bincount(plan.slide, minlength=len(plan.slides))
    rows = [_slide_row(job, plan, i, int(counts[i]), measured[name]) for i, name in enumerate(plan.slides)]
    return {name: [row[name] for row in rows] for name in SLIDES | DIGESTS}


def _slide_row(job: Job, plan: Plan, number: int, patches: int, measured: bytes) -> dict[str, Any]:
    slide_id = plan.slides[number]
    ingest: Receipt = job.receipt("ingest", slide_id)
    facts, crop = ingest.facts, job.receipt("crop", slide_id).facts
    splits = {plan.splits[i] for i in np.unique(plan.split[plan.slide == number])}
    inputs = [{"name": Path(item.path).name, "bytes": item.bytes, "sha256": item.sha256} for item in ingest.inputs]
    grid = {name: crop[name] for name in ("collisions", "dropped_spots")}
    return {
        "slide_id": slide_id,
        "platform": facts["platform"],
        "organism": facts["organism"] or None,
        "split": splits.pop() if len(splits) == 1 else None,
        "metadata": canonical_json(facts["metadata"]),
        "inputs": canonical_json(inputs),
        "spots": facts["spots"],
        "genes": facts["genes"],
        "rows": crop["grid"][0],
        "cols": crop["grid"][1],
        "pitch_um": crop["pitch_um"],
        "origin_x": crop["origin"][0],
        "origin_y": crop["origin"][1],
        "patches": patches,
        "qc": canonical_json({**facts["record"], "grid": grid}),
        "target_sum": job.receipt("normalize", slide_id).facts["target_sum"],
        "measured": measured,
        **{f"digest_{kind}": text or None for kind, text in facts["digests"].items()},
    }


def _dataset(job: Job, plan: Plan) -> dict[str, Any]:
    section = job.config.dataset
    notes = list(job.receipt("plan", "corpus").facts["notes"])
    for slide_id in job.sources:
        failures = (job.book.failure(stage, slide_id) for stage in SLIDE_STAGES)
        if failure := next(filter(None, failures), None):  # one of a later stage is of an earlier run
            notes.append(f"slide {slide_id} was left out: {failure.message.splitlines()[0]}")
    notes += [note for _, note in _notes_on_versions(job)]
    slides = [job.receipt("ingest", slide_id).facts["metadata"] for slide_id in plan.slides]
    sources = sources_of(slides)
    return {
        "name": section.name,
        "version": section.version,
        "license": dataset_license(section.license, slides),
        "description": section.description,
        "seed": section.seed,
        "notes": notes,
        **({"sources": sources} if sources else {}),
    }


def _normalization(job: Job) -> dict[str, Any]:
    value: dict[str, Any] = job.config.section("normalize")["normalize"]
    if value["method"] != "pearson_residuals":
        del value["theta"]
    if value["method"] in ("none", "pearson_residuals"):
        del value["target_sum"]
    return value


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
        "vocabulary": {"genes": len(channels.ids), "sha256": file_digest(vocabulary)},
    }


def _versions(job: Job, plan: Plan, layout: Layout) -> dict[str, Any]:
    """Return the manifest's members about versions: those that wrote the shards, and the tables' writer.

    Shards stay when a library is upgraded between two builds, so today's versions are not theirs.
    """
    used = set(FORMATS.get(layout.format).libraries)
    unused = {library for name in FORMATS.own() for library in FORMATS.get(name).libraries} - used
    sets: dict[str, tuple[dict[str, str], int]] = {}
    for task in plan.tasks():
        versions = {
            name: version
            for name, version in job.receipt("shard", task).software.versions.items()
            if name not in unused
        }
        key = canonical_json(versions)
        sets[key] = (versions, sets.get(key, (versions, 0))[1] + 1)
    merged: dict[str, list[str]] = {}
    for versions, _ in sets.values():
        for name, version in versions.items():
            if version not in merged.setdefault(name, []):
                merged[name].append(version)
    several = [{"shards": count, "versions": versions} for versions, count in sets.values()] if len(sets) > 1 else []
    return {
        "versions": {**{name: ", ".join(found) for name, found in merged.items()}, **job.library_versions(["pyarrow"])},
        "version_sets": several,
    }


def _notes_on_versions(job: Job) -> list[tuple[str, str]]:
    """Return (stage, note) of the stages whose units were not all done by the same versions."""
    units = {"shard": list(read_plan(job.plan_path).tasks())}
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
