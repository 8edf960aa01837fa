"""Shards of the dataset that is extended: taken over byte for byte, but for those of which slides are withdrawn.

They are tasks of the shard stage like any others, so that they run on workers and ranks, leave receipts and resume.
A shard is a second name of the parent's file where the file system has such (a hard link), else a clone that shares its
blocks, else a copy. A shard is written anew, each sample decoded and encoded again, which gives the same bytes under
the same versions of the libraries: where it holds a withdrawn slide, without that slide's samples; and where an earlier
version of the format stored less of a sample than is stored now.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from stpatch.dataset.layout import FORMAT_VERSION, Layout
from stpatch.errors import DatasetError
from stpatch.registry import FORMATS
from stpatch.stages.job import Job, Outcome
from stpatch.stages.parent import Parent
from stpatch.storage import share_file


def taken_over(job: Job) -> dict[str, bool]:
    """Return the tasks of the parent's shards that stay, in their order, each with whether it is written anew."""
    if job.parent is None:
        return {}
    left = job.parent.holders(job.config.slides.withdraw)
    layout = job.parent.manifest.layout
    earlier = not FORMATS.get(layout.format).stores_alike(layout, _current(layout))
    return {task: earlier or task in left for task in job.parent.shards if left.get(task, 1) > 0}


def _current(layout: Layout) -> Layout:
    """Return the parent's layout in the version of the format that is written."""
    return replace(layout, version=FORMAT_VERSION)


def request(job: Job, task: str, *, anew: bool) -> dict[str, Any]:
    """Return what a shard that is taken over depends on: its bytes, and the slides that leave it."""
    _, shard = _parent(job).shards[task]
    return {
        "taken_over": [[file.path, file.bytes, file.sha256] for file in shard.files()],
        "withdraw": sorted(job.config.slides.withdraw) if anew else [],
    }


def run(job: Job, task: str, *, anew: bool) -> Outcome:
    """Take a shard over, or write it anew without the withdrawn slides."""
    parent = _parent(job)
    split, shard = parent.shards[task]
    number = int(task.rpartition("-")[2])
    if anew:
        return _write_anew(job, task, split=split, number=number)
    for file in shard.files():
        _link(parent.folder / file.path, job.output / file.path, nbytes=file.bytes)
    return Outcome(
        outputs=[(job.output / file.path, file.sha256) for file in shard.files()],
        facts={"split": split, "number": number, "record": shard.as_json(), "taken_over": True},
    )


def _parent(job: Job) -> Parent:
    if job.parent is None:
        raise DatasetError("no dataset is extended", hint="set dataset.extends")
    return job.parent


def _link(source: Path, target: Path, *, nbytes: int) -> None:
    """Give a file of the parent a second name, or clone or copy it; never a file of another size."""
    try:
        size = source.stat().st_size
    except FileNotFoundError:
        raise DatasetError(
            "a shard of the dataset that is extended is missing", where=source, hint="copy it again, whole"
        ) from None
    if size != nbytes:
        raise DatasetError(
            "a shard of the dataset that is extended is cut short or damaged",
            where=source,
            found=f"{size} bytes",
            expected=f"{nbytes} bytes",
            hint="stpatch validate says what else is; copy or build that dataset again",
        )
    share_file(source, target)


def _write_anew(job: Job, task: str, *, split: str, number: int) -> Outcome:
    from stpatch.stages.shard import write_rows

    parent = _parent(job)
    layout = _current(parent.manifest.layout)
    written = FORMATS.get(layout.format).write(
        job.output, _others(parent, task, set(job.config.slides.withdraw)), split=split, number=number, layout=layout
    )
    rows_path = write_rows(job, task, written)
    files: list[tuple[Path, str | None]] = [(job.output / item.path, item.sha256) for item in written.entry.files()]
    return Outcome(
        outputs=[*files, (rows_path, None)],
        facts={"split": split, "number": number, "record": written.entry.as_json()},
    )


def _others(parent: Parent, task: str, withdrawn: set[str]) -> Iterator[tuple[str, Mapping[str, bytes]]]:
    """Yield the samples of a shard that stay: their keys, and their fields encoded again."""
    from stpatch.dataset.opening import open_dataset

    split, shard = parent.shards[task]
    layout = _current(parent.manifest.layout)
    format_ = FORMATS.get(layout.format)
    with open_dataset(parent.folder, split, values=parent.manifest.values) as dataset:
        codes, paths = dataset.codes("shard")
        for row in np.flatnonzero(codes == paths.index(shard.path)):
            sample = dataset[int(row)]
            if sample.meta["slide_id"] not in withdrawn:
                stored = sample if layout.genes else replace(sample, genes=None)
                yield sample.key, format_.encode(stored, layout)
