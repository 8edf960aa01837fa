"""The rows of a dataset's three tables, from the receipts and, where one is extended, from that dataset's tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stpatch.dataset.layout import Layout
from stpatch.dataset.tables import (
    DIGESTS,
    SLIDES,
    indices,
    numbers,
    pack_measured,
    patch_columns,
    read_table,
    schema,
    unpack_measured,
)
from stpatch.image.crop import Patches
from stpatch.slides.store import read_genes
from stpatch.stages.channels import Channels
from stpatch.stages.crop import read_cut
from stpatch.stages.deal import kept_slides
from stpatch.stages.job import Job
from stpatch.stages.measured import measured_ids
from stpatch.stages.parent import Parent
from stpatch.stages.plan import Plan, ordered_splits, sample_key
from stpatch.stages.receipts import Receipt
from stpatch.stages.taken_over import taken_over
from stpatch.storage import canonical_json

if TYPE_CHECKING:
    import pyarrow as pa

Columns = dict[str, Any]


# -- patches.parquet --------------------------------------------------------------------------------------------------


def patch_rows(job: Job, plan: Plan, layout: Layout) -> Columns:
    """Return the columns of patches.parquet, ordered by split, shard and index."""
    import pyarrow as pa

    wanted = schema(patch_columns(layout, draws=job.config.channels.draws))
    columns = _new_patch_rows(job, plan, layout)
    table = pa.table([pa.array(columns[field.name], field.type) for field in wanted], schema=wanted)
    if job.parent is not None:
        earlier = _taken_over_rows(job, job.parent, wanted)
        table = _in_order(job, pa.concat_tables([earlier, table]))
    return {name: table[name] for name in wanted.names}


def _new_patch_rows(job: Job, plan: Plan, layout: Layout) -> Columns:
    patches = {slide_id: read_cut(job.patches_path(slide_id)).patches for slide_id in plan.slides}
    number, row, col, n_spots, coverage, height, width = (
        _of_samples(plan, patches, name) for name in ("number", "row", "col", "n_spots", "coverage", "height", "width")
    )
    draws = job.config.channels.draws
    slides = [plan.slides[i] for i in plan.slide]
    paths: list[str] = []
    stored = {"offset": np.int64, "nbytes": np.int64, "crc32c": np.uint32}
    of_shards = {name: np.empty(len(slides), dtype) for name, dtype in stored.items()}
    for task, samples in plan.tasks().items():
        record = job.receipt("shard", task).facts["record"]
        paths += [record["path"]] * (samples.stop - samples.start)
        with np.load(job.rows_path(task), allow_pickle=False) as file:
            for name, values in of_shards.items():
                values[samples] = file[name]
    columns: Columns = {
        "key": [
            sample_key(slide_id, int(n), int(draw), draws=draws)
            for slide_id, n, draw in zip(slides, number, plan.draw, strict=True)
        ],
        "split": [plan.splits[i] for i in plan.split],
        "shard": paths,
        "index": plan.index,
        **of_shards,
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
    if not fields:
        return np.zeros(0, np.int32)
    starts = np.cumsum([0, *(len(field) for field in fields)])[:-1]
    return np.asarray(np.concatenate(fields)[starts[plan.slide] + plan.patch])


def _taken_over_rows(job: Job, parent: Parent, wanted: pa.Schema) -> pa.Table:
    """Return the parent's rows but those of withdrawn slides, with the places of samples in shards written anew."""
    import pyarrow as pa
    import pyarrow.compute as pc

    columns = {field.name: str(field.type) for field in wanted}
    table = read_table(parent.folder / "patches.parquet", columns)
    withdrawn = pa.array(job.config.slides.withdraw, pa.string())
    table = table.filter(pc.invert(pc.is_in(table["slide_id"], value_set=withdrawn)))
    anew = [task for task, is_anew in taken_over(job).items() if is_anew]
    if not anew:
        return table.cast(wanted)
    places = {name: numbers(table[name]).copy() for name in ("index", "offset", "nbytes", "crc32c")}
    of_path = {parent.shards[task][1].path: task for task in anew}
    shards = table["shard"].combine_chunks()
    for path, task in of_path.items():
        rows = np.flatnonzero(pc.equal(shards, path).to_numpy(zero_copy_only=False))
        rows = rows[np.argsort(places["index"][rows], kind="stable")]
        with np.load(job.rows_path(task), allow_pickle=False) as file:
            places["index"][rows] = np.arange(len(rows))
            for name in ("offset", "nbytes", "crc32c"):
                places[name][rows] = file[name]
    for name, values in places.items():
        table = table.set_column(table.column_names.index(name), name, pa.array(values))
    return table.cast(wanted)


def _in_order(job: Job, table: pa.Table) -> pa.Table:
    """Order rows by split, shard number and index."""
    from stpatch.dataset.tables import codes
    from stpatch.registry import FORMATS

    of_split, names = codes(table["split"])
    order = ordered_splits(job, names)
    rank = np.array([order.index(name) for name in names], np.int64)
    of_shard, paths = codes(table["shard"])
    format_ = FORMATS.get(job.config.shards.format)
    number = np.array([format_.shard_number(path) for path in paths], np.int64)
    rows = np.lexsort((numbers(table["index"]), number[of_shard], rank[of_split]))
    return table.take(indices(rows))


# -- slides.parquet ---------------------------------------------------------------------------------------------------


def slide_rows(job: Job, plan: Plan, channels: Channels) -> Columns:
    """Return the columns of slides.parquet, slides by name."""
    largest = int(max(channels.ids.max(), channels.pad_id))
    counts = np.bincount(plan.slide, minlength=len(plan.slides))
    rows = []
    for number, slide_id in enumerate(plan.slides):
        listed = read_cut(job.patches_path(slide_id)).gene_ids
        measured = pack_measured(measured_ids(job, slide_id, channels, listed), largest)
        rows.append(_slide_row(job, plan, number, int(counts[number]), measured))
    if job.parent is not None:
        before = int(max(job.parent.genes.ids.max(initial=0), job.parent.manifest.pad_id))
        for slide_id in kept_slides(job):
            row = job.parent.slides[slide_id]
            known = np.flatnonzero(unpack_measured(row["measured"], before))
            rows.append({**row, "measured": pack_measured(known, largest)})
        rows.sort(key=lambda row: str(row["slide_id"]))
    return {name: [row[name] for row in rows] for name in SLIDES | DIGESTS}


def _slide_row(job: Job, plan: Plan, number: int, patches: int, measured: bytes) -> Columns:
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


# -- genes.parquet ----------------------------------------------------------------------------------------------------


def gene_rows(job: Job, plan: Plan, channels: Channels, measured: Sequence[bytes]) -> Columns:
    """Return the columns of genes.parquet; `measured` are the bit masks of all slides."""
    with np.load(job.work / "moments.npz", allow_pickle=False) as file:
        moments = dict(file)
    known = _gene_facts(job, plan, channels)
    channel_of = {} if channels.panel is None else {int(number): i for i, number in enumerate(channels.panel)}
    n_slides = moments["n_slides"]
    if job.parent is not None:
        largest = int(max(channels.ids.max(), channels.pad_id))
        n_slides = np.sum([unpack_measured(mask, largest) for mask in measured], axis=0)[channels.ids]
    columns: Columns = {
        "gene_id": channels.ids,
        "name": list(channels.names),
        "ensembl_id": [known[name][0] or None for name in channels.names],
        "organism": [known[name][1] or None for name in channels.names],
        "channel": [channel_of.get(int(number)) for number in channels.ids],
        "n_slides": n_slides.astype(np.int32),
        "n_spots": moments["n_spots"],
        "n_detected": moments["detected"],
        "sum_counts": moments["count_sum"].astype(np.float64),
        "sum_squared_counts": moments["count_squares"].astype(np.float64),
        "mean_normalized": moments["mean"],
        "var_normalized": moments["variance"],
    }
    if channels.candidates is not None:
        columns["candidate"] = np.isin(channels.ids, channels.candidates)
    return columns


def _gene_facts(job: Job, plan: Plan, channels: Channels) -> dict[str, tuple[str, str]]:
    """Return each gene's (Ensembl id, organism), as the first slide that measured it says."""
    known: dict[str, tuple[str, str]] = {}
    if job.parent is not None:
        genes = job.parent.genes
        known = dict(zip(genes.names, zip(genes.ensembl, genes.organism, strict=True), strict=True))
    wanted = set(channels.names) - known.keys()
    for slide_id in [*plan.slides, *(name for name in job.receipts("normalize") if name not in set(plan.slides))]:
        if not wanted:
            break
        table = read_genes(job.slide_path(slide_id), columns=["ensembl_id", "organism"])
        facts = zip(table["ensembl_id"].tolist(), table["organism"].tolist(), strict=True)
        known = {**dict(zip(channels.names_of(table), facts, strict=True)), **known}
        wanted.difference_update(known)
    return known
