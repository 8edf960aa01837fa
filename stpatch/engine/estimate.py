"""What a build will make and need: samples, bytes, memory, tasks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from stpatch.config import WORKERS_FED, Config
from stpatch.engine.corpus_check import early_splits
from stpatch.engine.growth import growth_notes
from stpatch.registry import ENCODINGS, FORMATS
from stpatch.slides.readers.registry import probe_source
from stpatch.slides.source import Probe
from stpatch.stages.channels import read_channels
from stpatch.stages.deal import dealt_slides
from stpatch.stages.job import Job
from stpatch.stages.plan import read_plan, shard_tasks
from stpatch.stages.shard import dataset_layout

GUESSED_GENES = 20000
GUESSED_FILLED = 0.15
"""Share of a slide's counts that are not zero, as on a Visium slide."""
STORED_VALUE = 1.7
"""Bytes of a stored count and its gene number in a whole slide, compressed."""


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """What is to come; `exact` says whether it is the plan or an estimate.

    A slide whose headers do not tell its spots has None for its samples, and is in no sum.
    """

    exact: bool
    samples_by_slide: Mapping[str, int | None]
    samples_by_split: Mapping[str, int | None]
    shape: tuple[int, int, int]
    dtype: str
    tasks: int
    shard_patches: int
    bytes: int
    memory: int
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {**vars(self), "shape": list(self.shape), "array": f"0-{max(self.tasks - 1, 0)}"}

    def text(self) -> str:
        """Return a few lines for people."""
        known = [count for count in self.samples_by_slide.values() if count is not None]
        unknown = len(self.samples_by_slide) - len(known)
        plural = "" if sum(known) == 1 else "s"
        lines = [f"{'plan' if self.exact else 'estimate, from the headers'}: {sum(known)} sample{plural}"]
        if unknown:
            lines[0] += (
                f", not counting {unknown} slide{'s' if unknown > 1 else ''} whose headers do not tell the spots"
            )
        for what, counts in (("slide", self.samples_by_slide), ("split", self.samples_by_split)):
            lines += [
                f"  {what} {name:<24} {'unknown' if count is None else count:>10}" for name, count in counts.items()
            ]
        channels, height, width = self.shape
        lines += [
            f"  sample                         {channels} channels x {height} x {width}, {self.dtype}",
            f"  dataset                        about {human_size(self.bytes)}",
            f"  memory                         about {human_size(self.memory)} per worker",
            f"  tasks                          {self.tasks}; array range 0-{max(self.tasks - 1, 0)}",
            *(f"  {note}" for note in self.notes),
        ]
        return "\n".join([*lines, *self._advice()])

    def _advice(self) -> list[str]:
        """Say where a split has too few shards for readers that deal whole ones."""
        samples = max((count for count in self.samples_by_split.values() if count is not None), default=0)
        shards = math.ceil(samples / self.shard_patches)
        if self.shard_patches == 1 or not 0 < shards < WORKERS_FED:
            return []
        return [
            f"  note: the largest split has {shards} shard{'' if shards == 1 else 's'}, and plain webdataset deals "
            "whole shards to ranks and workers; shards.patches: auto makes more of them (stpatch.torch deals samples)"
        ]


def plan_outlook(job: Job) -> Outlook:
    """Return what the finished plan says."""
    plan, layout = read_plan(job.plan_path), dataset_layout(job)
    by_slide = np.bincount(plan.slide, minlength=len(plan.slides))
    by_split = np.bincount(plan.split, minlength=len(plan.splits))
    spots = [(job.slide_path(slide_id).stat().st_size) for slide_id in plan.slides]
    return Outlook(
        exact=True,
        samples_by_slide=dict(zip(plan.slides, by_slide.tolist(), strict=True)),
        samples_by_split=dict(zip(plan.splits, by_split.tolist(), strict=True)),
        shape=(read_channels(job.channels_path).n_channels, *layout.shape[1:]),
        dtype=layout.dtype,
        tasks=len(shard_tasks(job)),
        shard_patches=layout.patches,
        bytes=_stored_bytes(len(plan.split), layout.shape, layout.dtype, layout.encoding),
        memory=int(1.5 * max(spots, default=0) + 400e6),
        notes=tuple(growth_notes(job, job.parent, dealt_slides(job))) if job.parent else (),
    )


def estimate_outlook(job: Job) -> Outlook:
    """Return an estimate from the headers: spots of a slide are taken to cover a square without gaps."""
    config = job.config
    by_slide: dict[str, int | None] = {}
    probes: dict[str, Probe] = {}
    largest, widest, whole = 0, 1, 0
    for source in job.sources.values():
        probe = probes[source.slide_id] = probe_source(source, config.ingest)
        by_slide[source.slide_id] = None
        if probe.n_spots is not None or config.crop.unit == "slide":
            spots = probe.n_spots or 0
            by_slide[source.slide_id] = _expected_patches(config, spots) * config.channels.draws
            values = spots * (probe.n_genes or GUESSED_GENES)
            largest, whole = max(largest, values), whole + values
            widest = max(widest, math.ceil(math.sqrt(spots)))
    total = sum(count for count in by_slide.values() if count is not None)
    by_split = _by_split(job, by_slide, probes)
    known = [count for count in by_split.values() if count is not None]
    per_shard = config.shards.patches_for(known)
    sizes = {"spot": (1, 1), "slide": (widest, widest), "patch": config.crop.size}
    height, width = sizes[config.crop.unit]
    shape = (config.channels.n, height, width)
    dtype = "uint16" if config.shards.values == "counts" else config.shards.dtype
    tasks = sum(math.ceil(count / per_shard) for count in known)
    stored = _stored_bytes(total, shape, dtype, config.shards.encoding)
    if FORMATS.get(config.shards.format).whole_slides:
        tasks, stored = len(job.sources), int(whole * GUESSED_FILLED * STORED_VALUE)
    return Outlook(
        exact=False,
        samples_by_slide=by_slide,
        samples_by_split=by_split,
        shape=shape,
        dtype=dtype,
        tasks=tasks,
        shard_patches=per_shard,
        bytes=stored,
        memory=int(1.5 * GUESSED_FILLED * 6 * largest + 400e6),
        notes=tuple(growth_notes(job, job.parent, early_splits(job, probes))) if job.parent else (),
    )


def _expected_patches(config: Config, spots: int) -> int:
    crop = config.crop
    if crop.unit == "slide":
        return 1
    if crop.unit == "spot" or crop.method == "centered":
        return spots
    pixels = spots if config.grid.size is None else config.grid.size**2
    if crop.method == "random":
        return math.ceil(crop.density * pixels / (crop.size[0] * crop.size[1]))
    side = math.sqrt(pixels)
    if crop.edge == "drop":
        return math.prod(
            max(int((side - size) // stride) + 1, 0) for size, stride in zip(crop.size, crop.strides, strict=True)
        )
    return math.prod(math.ceil(side / stride) for stride in crop.strides)


def _by_split(job: Job, by_slide: Mapping[str, int | None], probes: Mapping[str, Probe]) -> dict[str, int | None]:
    """Deal the expected patches as the build will; by their shares where blocks are dealt, or organisms not known yet.

    None: a slide of the split does not tell its spots.
    """
    split, known = job.config.split, {slide_id: count or 0 for slide_id, count in by_slide.items()}
    if split.blocks is None and (split_of := early_splits(job, probes)) is not None:
        dealt: dict[str, int | None] = {}
        for slide_id, count in by_slide.items():
            before = dealt.get(split_of[slide_id], 0)
            dealt[split_of[slide_id]] = None if count is None or before is None else before + count
        order = [*split.fractions, *sorted(set(dealt) - set(split.fractions))]
        return {name: dealt[name] for name in order if name in dealt}
    if all(count is None for count in by_slide.values()):
        return dict.fromkeys(split.fractions)
    folds = split.folds or 0
    shares = {f"fold{i}": 1 / folds for i in range(folds)} or split.fractions
    return {name: round(sum(known.values()) * share) for name, share in shares.items()}


def _stored_bytes(samples: int, shape: tuple[int, int, int], dtype: str, encoding: str) -> int:
    values = math.prod(shape)
    each = values * ENCODINGS.get(encoding).bytes_per_value(dtype)
    return int(samples * (each + 4 * shape[1] * shape[2] + 4 * shape[0] + 4096))


def human_size(size: int) -> str:
    """Return a number of bytes as people read it."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size / 1e3:.0f} kB"
