"""Stage shard, one task: slides, channels and plan -> one finished shard.

A task goes slide by slide, so that one slide is mapped at a time, and a slide's patches are cut in order of place.
Their encoded samples wait in a spool (in memory, or in a file where they are many) until the shard is written in its
own order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stpatch.dataset.entries import WrittenShard
from stpatch.dataset.layout import Layout
from stpatch.dataset.sample import Sample, label_name
from stpatch.registry import FORMATS
from stpatch.stages import taken_over
from stpatch.stages.channels import Channels, read_channels
from stpatch.stages.job import Job, Outcome
from stpatch.stages.plan import Plan, read_plan, task_digest
from stpatch.stages.spool import Spool
from stpatch.storage import atomic_file, digest

if TYPE_CHECKING:
    from stpatch.stages.cutter import Cutter, Rooms

KEPT_BYTES, KEPT_SLIDES = 64 << 20, 16
"""Slides that a worker keeps ready from one task to the next: their memory, mapped counts aside, and their number."""

_kept: dict[str, Cutter] = {}


def request(job: Job, task: str) -> dict[str, Any]:
    """Return what a shard depends on: its samples, and the slides, channels and settings that fill them."""
    over = taken_over.taken_over(job)
    if task in over:
        return taken_over.request(job, task, anew=over[task])
    plan = read_plan(job.plan_path)
    samples = plan.tasks()[task]
    slides = [plan.slides[i] for i in np.unique(plan.slide[samples])]
    facts = job.receipt("plan", "corpus").facts
    shards = job.config.section("shards")["shards"]
    return {
        "samples": task_digest(plan, samples),
        "crop": {slide_id: job.receipt("crop", slide_id).fingerprint for slide_id in slides},
        "normalize": {slide_id: job.receipt("normalize", slide_id).fingerprint for slide_id in slides},
        "select": job.receipt("select", "corpus").fingerprint,
        "draws": job.config.channels.draws,
        "shards": {name: shards[name] for name in ("format", "values", "dtype", "encoding", "patches")},
        "facts": {name: facts[name] for name in ("dtype", "labels", "largest_patch")},
    }


def run(job: Job, task: str) -> Outcome:
    """Cut, encode and write the samples of one shard, or take it over from the dataset that is extended."""
    over = taken_over.taken_over(job)
    if task in over:
        return taken_over.run(job, task, anew=over[task])
    plan = read_plan(job.plan_path)
    samples = plan.tasks()[task]
    channels, layout = read_channels(job.channels_path), dataset_layout(job)
    categories = job.receipt("plan", "corpus").facts["labels"]
    first = samples.start
    split, number = plan.splits[plan.split[first]], int(plan.shard[first])
    format_ = FORMATS.get(layout.format)
    if format_.whole_slides:
        from stpatch.stages.whole_slide import stored_slide

        slide = stored_slide(job, plan.slides[plan.slide[first]], channels=channels, categories=categories)
        windows = samples.stop - samples.start
        written = format_.write_slide(job.output, slide, split=split, windows=windows, layout=layout)
    else:
        with Spool(job.work / "spool") as spool:
            cuts = _cut(job, plan, samples, channels=channels, layout=layout, categories=categories)
            for place, sample in cuts:
                spool.put(place, sample.key, format_.encode(sample, layout))
            written = format_.write(job.output, spool.in_order(), split=split, number=number, layout=layout)
    rows_path = write_rows(job, task, written)
    outputs: list[tuple[Any, str | None]] = [(job.output / item.path, item.sha256) for item in written.entry.files()]
    return Outcome(
        outputs=[*outputs, (rows_path, None)],
        facts={"split": split, "number": number, "record": written.entry.as_json()},
    )


def write_rows(job: Job, task: str, written: WrittenShard) -> Path:
    """Store what patches.parquet says of a shard's samples, in their order; return the file."""
    path = job.rows_path(task)
    ranges = np.array(written.ranges, np.int64).reshape(-1, 2)
    with atomic_file(path) as file:
        np.savez(file, offset=ranges[:, 0], nbytes=ranges[:, 1], crc32c=np.array(written.checksums, np.uint32))
    return path


def dataset_layout(job: Job) -> Layout:
    """Return what all shards of the dataset have in common."""
    config, facts = job.config, job.receipt("plan", "corpus").facts
    channels = read_channels(job.channels_path)
    height, width = facts["largest_patch"]
    return Layout(
        format=config.shards.format,
        encoding=config.shards.encoding,
        dtype=facts["dtype"] if config.shards.values == "counts" else config.shards.dtype,
        shape=(channels.n_channels, *_largest(job, height, width)),
        patches=facts["shard_patches"],
        labels=tuple(sorted(label_name(name) for name in facts["labels"])),
        genes=config.channels.scope != "panel",
        variable=config.crop.unit == "slide",
    )


def _largest(job: Job, height: int, width: int) -> tuple[int, int]:
    """Return the size of the largest sample, those of the dataset that is extended among them."""
    if job.parent is None:
        return height, width
    before = job.parent.manifest.tensor.shape[1:]
    return max(height, before[0]), max(width, before[1])


def _cut(
    job: Job,
    plan: Plan,
    samples: slice,
    *,
    channels: Channels,
    layout: Layout,
    categories: Mapping[str, list[str]],
) -> Iterator[tuple[int, Sample]]:
    """Yield all samples of a task and their places in the shard, slide by slide; each is overwritten by the next."""
    rooms: Rooms = {}
    for slide, members in _by_slide(plan.slide[samples]):
        cutter = _cutter(job, plan.slides[slide], channels=channels, layout=layout, categories=categories)
        for sample in _by_place(cutter, plan, samples.start + members):
            patch, draw = int(plan.patch[sample]), int(plan.draw[sample])
            yield int(sample) - samples.start, cutter.cut(patch, draw, rooms=rooms)


def _cutter(
    job: Job, slide_id: str, *, channels: Channels, layout: Layout, categories: Mapping[str, list[str]]
) -> Cutter:
    """Return a slide's cutter, as an earlier task of this process left it or a new one.

    Those used last are kept, as far as `KEPT_BYTES` go, without the pages of their counts.
    """
    from stpatch.stages.cutter import open_cutter

    of_slide = [job.receipt(stage, slide_id).fingerprint for stage in ("ingest", "normalize", "crop")]
    state = [*of_slide, job.receipt("select", "corpus").fingerprint, repr(layout), job.config.model_dump(mode="json")]
    key = digest([str(job.work), slide_id, *state, {name: list(known) for name, known in categories.items()}])
    cutter = _kept.pop(key, None)
    if _kept:
        _kept[next(reversed(_kept))].rest()  # the one used last; the others rest
    while len(_kept) >= KEPT_SLIDES or sum(other.nbytes for other in _kept.values()) > KEPT_BYTES:
        del _kept[next(iter(_kept))]
    if cutter is None:
        cutter = open_cutter(job, slide_id, channels=channels, layout=layout, categories=categories)
    _kept[key] = cutter
    return cutter


def _by_slide(slides: NDArray[np.int32]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    order = np.argsort(slides, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(slides[order])) + 1):
        yield int(slides[members[0]]), members


def _by_place(cutter: Cutter, plan: Plan, samples: NDArray[np.int64]) -> NDArray[np.int64]:
    """Order a slide's samples by where their patches lie, so that neighbours share what is in the caches."""
    patches = plan.patch[samples]
    order = np.lexsort((plan.draw[samples], cutter.patches.col[patches], cutter.patches.row[patches]))
    return samples[order]
