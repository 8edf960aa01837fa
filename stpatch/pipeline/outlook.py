"""What a build will make and need: patches, bytes, memory, tasks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from stpatch.config import Config
from stpatch.pipeline.channels import read_channels
from stpatch.pipeline.job import Job
from stpatch.pipeline.plan import read_plan
from stpatch.pipeline.shard import dataset_layout
from stpatch.slides.readers.registry import probe_source

BYTES_PER_VALUE = 0.25
"""Stored bytes a value of x, a middle of Visium-like and HD-like counts in Blosc (0.36 and 0.13)."""
GUESSED_GENES = 20000


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """What is to come; `exact` says whether it is the plan or an estimate."""

    exact: bool
    patches_by_slide: Mapping[str, int]
    patches_by_split: Mapping[str, int]
    shape: tuple[int, int, int]
    dtype: str
    tasks: int
    bytes: int
    memory: int

    def as_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {**vars(self), "shape": list(self.shape), "array": f"0-{max(self.tasks - 1, 0)}"}

    def text(self) -> str:
        """Return a few lines for people."""
        total = sum(self.patches_by_slide.values())
        lines = [f"{'plan' if self.exact else 'estimate, from the headers'}: {total} samples"]
        lines += [f"  slide {slide_id:<24} {count:>10}" for slide_id, count in self.patches_by_slide.items()]
        lines += [f"  split {name:<24} {count:>10}" for name, count in self.patches_by_split.items()]
        channels, height, width = self.shape
        lines += [
            f"  sample                         {channels} channels x {height} x {width}, {self.dtype}",
            f"  dataset                        about {_human(self.bytes)}",
            f"  memory                         about {_human(self.memory)} a worker",
            f"  tasks                          {self.tasks}; array range 0-{max(self.tasks - 1, 0)}",
        ]
        return "\n".join(lines)


def plan_outlook(job: Job) -> Outlook:
    """Return what the finished plan says."""
    plan, layout = read_plan(job.plan_path), dataset_layout(job)
    by_slide = np.bincount(plan.slide, minlength=len(plan.slides))
    by_split = np.bincount(plan.split, minlength=len(plan.splits))
    spots = [(job.slide_path(slide_id).stat().st_size) for slide_id in plan.slides]
    return Outlook(
        exact=True,
        patches_by_slide=dict(zip(plan.slides, by_slide.tolist(), strict=True)),
        patches_by_split=dict(zip(plan.splits, by_split.tolist(), strict=True)),
        shape=(read_channels(job.channels_path).n_channels, *layout.shape[1:]),
        dtype=layout.dtype,
        tasks=len(plan.tasks()),
        bytes=_stored_bytes(len(plan.split), layout.shape, layout.dtype, layout.encoding),
        memory=int(1.5 * max(spots) + 400e6),
    )


def estimate_outlook(job: Job) -> Outlook:
    """Return an estimate from the headers: spots of a slide are taken to cover a square without gaps."""
    config = job.config
    by_slide, largest = {}, 0
    for source in job.sources.values():
        probe = probe_source(source, config.ingest)
        spots = probe.n_spots or 0
        by_slide[source.slide_id] = _expected_patches(config, spots) * config.channels.draws
        largest = max(largest, spots * (probe.n_genes or GUESSED_GENES))
    total = sum(by_slide.values())
    fractions = config.split.fractions
    height, width = (1, 1) if config.crop.unit == "spot" else config.crop.size
    shape = (config.channels.n, height, width)
    dtype = "uint16" if config.shards.values == "counts" else config.shards.dtype
    return Outlook(
        exact=False,
        patches_by_slide=by_slide,
        patches_by_split={name: round(total * share) for name, share in fractions.items()},
        shape=shape,
        dtype=dtype,
        tasks=sum(math.ceil(round(total * share) / config.shards.patches) for share in fractions.values()),
        bytes=_stored_bytes(total, shape, dtype, config.shards.encoding),
        memory=int(1.5 * 0.15 * 6 * largest + 400e6),
    )


def _expected_patches(config: Config, spots: int) -> int:
    crop = config.crop
    if crop.unit == "slide":
        return 1
    if crop.unit == "spot" or crop.method == "centered":
        return spots
    if crop.method == "random":
        return math.ceil(crop.density * spots / (crop.size[0] * crop.size[1]))
    return math.ceil(spots / (crop.strides[0] * crop.strides[1]))


def _stored_bytes(samples: int, shape: tuple[int, int, int], dtype: str, encoding: str) -> int:
    values = math.prod(shape)
    each = values * (np.dtype(dtype).itemsize if encoding == "npy" else BYTES_PER_VALUE)
    return int(samples * (each + 4 * shape[1] * shape[2] + 4 * shape[0] + 4096))


def _human(size: int) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size / 1e3:.0f} kB"
