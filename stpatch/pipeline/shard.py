"""Stage shard, one task: slides, channels and plan -> one finished shard.

A task goes slide by slide, so that one slide is mapped at a time, and a slide's patches are cut in order of place.
Their encoded samples wait in a spool (in memory, or in a file where they are many) until the shard is written in its
own order.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from stpatch.pipeline.channels import Channels, read_channels
from stpatch.pipeline.cutter import Cutter, open_cutter
from stpatch.pipeline.job import Job, Outcome
from stpatch.pipeline.plan import Plan, read_plan, sample_key, task_digest
from stpatch.shards.layout import Layout
from stpatch.shards.sample import label_name
from stpatch.shards.shard import encode_sample, write_encoded
from stpatch.storage import atomic_file

SPOOL_BYTES = 128 << 20
"""Encoded bytes that a task keeps in memory before it goes on in a file."""


def request(job: Job, task: str) -> dict[str, Any]:
    """Return what a shard depends on: its samples, and the slides, channels and settings that fill them."""
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
    """Cut, encode and write the samples of one shard."""
    plan = read_plan(job.plan_path)
    samples = plan.tasks()[task]
    channels, layout = read_channels(job.channels_path), dataset_layout(job)
    categories = job.receipt("plan", "corpus").facts["labels"]
    first = samples.start
    split, number = plan.splits[plan.split[first]], int(plan.shard[first])
    with tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES, dir=_spool_dir(job)) as spool:
        places = _fill(spool, job, plan, samples, channels=channels, layout=layout, categories=categories)
        record = write_encoded(
            job.output, _in_order(spool, places, keys_of(job, plan, samples)), split=split, number=number, layout=layout
        )
    rows_path = job.rows_path(task)
    ranges = np.array(record.ranges, np.int64).reshape(-1, 2)
    with atomic_file(rows_path) as file:
        np.savez(file, offset=ranges[:, 0], nbytes=ranges[:, 1])
    outputs: list[tuple[Any, str | None]] = [(job.output / item.path, item.sha256) for item in record.files()]
    return Outcome(
        outputs=[*outputs, (rows_path, None)],
        facts={"split": split, "number": number, "record": record.as_json()},
    )


def dataset_layout(job: Job) -> Layout:
    """Return what all shards of the dataset have in common."""
    config, facts = job.config, job.receipt("plan", "corpus").facts
    channels = read_channels(job.channels_path)
    height, width = facts["largest_patch"]
    return Layout(
        format=config.shards.format,
        encoding=config.shards.encoding,
        dtype=facts["dtype"] if config.shards.values == "counts" else config.shards.dtype,
        shape=(channels.n_channels, height, width),
        patches=config.shards.patches,
        labels=tuple(sorted(label_name(name) for name in facts["labels"])),
        genes=config.channels.scope != "panel",
        variable=config.crop.unit == "slide",
    )


def keys_of(job: Job, plan: Plan, samples: slice) -> list[str]:
    """Return the samples' keys, in order."""
    from stpatch.pipeline.crop import read_cut

    keys = [""] * (samples.stop - samples.start)
    draws = job.config.channels.draws
    for slide, places in _by_slide(plan.slide[samples]):
        numbers = read_cut(job.patches_path(plan.slides[slide])).patches.number
        for place in places:
            sample = samples.start + place
            keys[place] = sample_key(
                plan.slides[slide], int(numbers[plan.patch[sample]]), int(plan.draw[sample]), draws=draws
            )
    return keys


Places = list[dict[str, tuple[int, int]]]


def _fill(
    spool: IO[bytes],
    job: Job,
    plan: Plan,
    samples: slice,
    *,
    channels: Channels,
    layout: Layout,
    categories: Mapping[str, list[str]],
) -> Places:
    """Write all encoded samples to the spool; return where each one's parts lie in it."""
    places: Places = [{} for _ in range(samples.stop - samples.start)]
    for slide, members in _by_slide(plan.slide[samples]):
        cutter = open_cutter(job, plan.slides[slide], channels=channels, layout=layout, categories=categories)
        for member in _by_place(cutter, plan, samples.start + members) - samples.start:
            sample = samples.start + member
            encoded = encode_sample(cutter.cut(int(plan.patch[sample]), int(plan.draw[sample])), layout)
            for name, data in encoded.items():
                places[member][name] = (spool.tell(), len(data))
                spool.write(data)
    return places


def _in_order(spool: IO[bytes], places: Places, keys: list[str]) -> Iterator[tuple[str, dict[str, bytes]]]:
    for key, parts in zip(keys, places, strict=True):
        encoded = {}
        for name, (offset, nbytes) in parts.items():
            spool.seek(offset)
            encoded[name] = spool.read(nbytes)
        yield key, encoded


def _by_slide(slides: NDArray[np.int32]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    order = np.argsort(slides, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(slides[order])) + 1):
        yield int(slides[members[0]]), members


def _by_place(cutter: Cutter, plan: Plan, samples: NDArray[np.int64]) -> NDArray[np.int64]:
    """Order a slide's samples by where their patches lie, so that neighbours share what is in the caches."""
    patches = plan.patch[samples]
    order = np.lexsort((plan.draw[samples], cutter.patches.col[patches], cutter.patches.row[patches]))
    return samples[order]


def _spool_dir(job: Job) -> str:
    folder = job.work / "spool"
    folder.mkdir(parents=True, exist_ok=True)
    return str(folder)
