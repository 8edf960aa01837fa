"""What one unit of a stage needs: memory and time, for the jobs of a scheduler.

Memory is what the stages are built to stay below: a worker's own, and a multiple of the largest slide. Times are rough
and on the safe side; a job that meets its limit is queued again and goes on, so that a low guess costs no result.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from stpatch.engine.estimate import estimate_outlook, plan_outlook
from stpatch.engine.memory import WORKER_BYTES
from stpatch.errors import StpatchError
from stpatch.stages.job import Job

INGESTING, READING = 8, 1.5
"""How many times the largest input file a worker holds that ingests, and how many times the largest stored slide after:
compressed matrices grow, and a canonical slide is made beside the raw one."""
START_SECONDS = 10.0
"""A process: Python, its libraries, compiled loops from the cache, the look at what is done."""
INPUT_RATE, SLIDE_RATE = 2e6, 10e6
"""Bytes per second, on a slow file system, of a vendor's file that is ingested and of a stored slide."""
VALUE_RATE = 2e7
"""Values (channels x rows x columns) per second that are cut and encoded."""
RECEIPT_SECONDS = 0.02
"""What a reduce needs per unit that it goes through."""
SAMPLE_BYTES = 400
"""What plan and finalize hold per sample."""


@dataclass(frozen=True, kw_only=True)
class Need:
    """Bytes of memory and seconds of time of one unit."""

    memory: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What the units of every stage need, and how many tasks the shard stage has or will have.

    Attributes
    ----------
    by_stage
        Of the largest unit of each stage.
    tasks
        Exact where the plan stands, else an estimate from the headers.
    """

    by_stage: dict[str, Need]
    tasks: int


def job_needs(job: Job, *, planned: bool) -> Needs:
    """Return what a job's units need: from the plan where it stands, else from the headers of the slides.

    Raises
    ------
    StpatchError
        A slide's headers cannot be read, with ``run.on_error: stop``.
    """
    largest_input = _largest_input(job)
    tasks, samples, values, memory = _planned(job) if planned else _estimated(job)
    slide = max(_largest_stored(job), int((memory - WORKER_BYTES) / READING), 0)
    reading = Need(memory=int(WORKER_BYTES + READING * slide), seconds=START_SECONDS + slide / SLIDE_RATE)
    per_task = min(samples, job.config.shards.patches_for([samples]))
    slides = len(job.sources)
    reduce = RECEIPT_SECONDS * slides
    corpus = Need(
        memory=int(2 * WORKER_BYTES + SAMPLE_BYTES * samples + READING * slide),
        seconds=START_SECONDS + reduce + slide / SLIDE_RATE + samples / 1e5,
    )
    by_stage = {
        "ingest": Need(
            memory=WORKER_BYTES + INGESTING * largest_input, seconds=START_SECONDS + largest_input / INPUT_RATE
        ),
        "normalize": reading,
        "select": corpus,
        "crop": reading,
        "plan": corpus,
        "shard": Need(
            memory=reading.memory, seconds=START_SECONDS + reduce + slide / SLIDE_RATE + per_task * values / VALUE_RATE
        ),
        "finalize": Need(memory=corpus.memory, seconds=corpus.seconds + RECEIPT_SECONDS * tasks),
    }
    return Needs(by_stage=by_stage, tasks=tasks)


def _planned(job: Job) -> tuple[int, int, int, int]:
    outlook = plan_outlook(job)
    samples = sum(count or 0 for count in outlook.samples_by_slide.values())
    return outlook.tasks, samples, math.prod(outlook.shape), outlook.memory


def _estimated(job: Job) -> tuple[int, int, int, int]:
    """Return tasks, samples, values per sample and memory; a slide that tells nothing counts as one shard."""
    try:
        outlook = estimate_outlook(job)
    except StpatchError:
        if job.config.run.on_error == "stop":
            raise
        # The slide will fail in its own task and be left out; any width and any size serve until the plan is known.
        slides, values = len(job.sources), math.prod((job.config.channels.n, *job.config.crop.size))
        return slides, slides * job.config.shards.most_patches, values, WORKER_BYTES
    known = [count for count in outlook.samples_by_slide.values() if count is not None]
    unknown = len(outlook.samples_by_slide) - len(known)
    samples = sum(known) + unknown * job.config.shards.most_patches
    return max(outlook.tasks + unknown, 1), samples, math.prod(outlook.shape), outlook.memory


def unit_memory(job: Job, stage: str) -> int:
    """Return the bytes that a unit of a stage needs at most, from the files that are there when the stage begins."""
    if stage == "ingest":
        return WORKER_BYTES + INGESTING * _largest_input(job)
    return int(WORKER_BYTES + READING * _largest_stored(job))


def _largest_input(job: Job) -> int:
    return max((_size(source.path) for source in job.sources.values()), default=0)


def _largest_stored(job: Job) -> int:
    return max((path.stat().st_size for path in (job.work / "slides").glob("*.h5ad")), default=0)


def _size(path: Path) -> int:
    """Return a file's size, or that of the largest file of a folder."""
    if path.is_dir():
        return max((item.stat().st_size for item in path.rglob("*") if item.is_file()), default=0)
    return path.stat().st_size if path.is_file() else 0
