"""Stage plan, once per corpus: every sample gets its split, its shard and its position in it.

What is in a shard is fixed here, by seed and slides, never by rank, workers or restarts. The slides of a split are cut
into groups of ``shards.mix``; samples are shuffled within their group; the groups follow one another, and every
``shards.patches`` samples make a shard, which is one task (`ShardsSection.patches_for` where it is ``auto``). So a
shard is a fair sample of its group, only the last shard of a split is short, and a tar shard holds the same samples as
the zarr shard of the same number.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpatch.dataset.sample import check_key, field_names, label_name
from stpatch.errors import ConfigError, DatasetError, InputError, StpatchError
from stpatch.image.blocks import assign_blocks
from stpatch.registry import FORMATS
from stpatch.seeds import generator, permutation
from stpatch.slides.labels import natural_key
from stpatch.stages.crop import Cut, read_cut
from stpatch.stages.deal import dealt_slides, ingested_facts, require_no_duplicates, separation_notes
from stpatch.stages.job import Job, Outcome
from stpatch.stages.receipts import Receipt
from stpatch.stages.taken_over import taken_over
from stpatch.storage import atomic_file, digest, key_text


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All samples, ordered by split, shard and index.

    Attributes
    ----------
    slides, splits
        Names that the numbers below stand for.
    split, shard, index
        (samples,) number of the split, number of the shard in the split, position in the shard.
    slide, patch, draw
        (samples,) number of the slide, position in the slide's list of patches, number of the channel draw.
    """

    slides: Sequence[str]
    splits: Sequence[str]
    split: NDArray[np.int16]
    shard: NDArray[np.int32]
    index: NDArray[np.int32]
    slide: NDArray[np.int32]
    patch: NDArray[np.int32]
    draw: NDArray[np.int16]

    def tasks(self) -> dict[str, slice]:
        """Return the tasks (one per shard, named ``train-000000``) and their samples, in order."""
        return self._tasks

    @cached_property
    def _tasks(self) -> dict[str, slice]:  # every task's request asks for all of them
        if not len(self.split):
            return {}
        starts = np.flatnonzero(np.r_[True, (np.diff(self.split) != 0) | (np.diff(self.shard) != 0)])
        stops = np.r_[starts[1:], len(self.split)]
        return {
            task_name(self.splits[self.split[start]], self.shard[start]): slice(int(start), int(stop))
            for start, stop in zip(starts, stops, strict=True)
        }


def shard_tasks(job: Job) -> list[str]:
    """Return all tasks of the shard stage: the shards that are taken over, then those of the plan."""
    return [*taken_over(job), *read_plan(job.plan_path).tasks()]


def task_name(split: str, shard: int) -> str:
    """Return the name of a shard's task."""
    return f"{split}-{shard:06d}"


def sample_key(slide_id: str, number: int, draw: int, *, draws: int) -> str:
    """Return a sample's key: slide, patch number, and the draw where there are several."""
    return f"{key_text(slide_id)}-{number:06d}" + (f"-{draw}" if draws > 1 else "")


def request(job: Job, _unit: str) -> dict[str, Any]:
    """Return what the plan depends on."""
    shards = job.config.shards
    cropped = job.receipts("crop")
    return {
        "crop": {slide_id: receipt.fingerprint for slide_id, receipt in cropped.items()},
        "sheet": {slide_id: ingested_facts(job, slide_id) for slide_id in job.receipts("ingest")},
        **job.config.section("split"),
        "draws": job.config.channels.draws,
        "patches": shards.patches,
        "mix": shards.mix,
        **({"whole_slides": True} if FORMATS.get(shards.format).whole_slides else {}),
        "seed": job.config.dataset.seed,
        "allow_duplicates": job.config.dataset.allow_duplicates,
        **({} if job.parent is None else {"parent": job.parent.digest, "withdraw": sorted(job.config.slides.withdraw)}),
    }


def run(job: Job, _unit: str) -> Outcome:
    """Deal the patches to splits and shards."""
    cropped = job.receipts("crop")
    check_names(job, {slide_id: receipt.facts["patches"] for slide_id, receipt in cropped.items()})
    _check_labels(job, cropped)
    require_no_duplicates(job)
    dealt = split_patches(job, cropped)
    over = taken_over(job)
    names, draws = split_names(job, dealt), job.config.channels.draws
    sizes = [draws * sum(int((splits == name).sum()) for splits in dealt.values()) for name in names]
    # a dataset that grows keeps its parent's shards, so that its own have their size
    per_shard = job.parent.manifest.shards.patches if job.parent else job.config.shards.patches_for(sizes)
    whole_slides = FORMATS.get(job.config.shards.format).whole_slides
    plan = (slide_plan if whole_slides else make_plan)(
        dealt,
        splits=names,
        draws=draws,
        patches=per_shard,
        mix=job.config.shards.mix,
        seed=job.config.dataset.seed,
        first=job.parent.next_shards() if job.parent else None,
    )
    if not len(plan.split) and not over:
        raise _no_patch(job, cropped)
    _write(job.plan_path, plan)
    counts = np.bincount(plan.split, minlength=len(plan.splits))
    facts = {
        "samples": {name: int(count) for name, count in zip(plan.splits, counts, strict=True)},
        "tasks": len(plan.tasks()) + len(over),
        "shard_patches": per_shard,
        "notes": _notes(job, dealt, plan),
        "dtype": counts_dtype(job, cropped),
        "labels": label_categories(job, [job.receipt("ingest", slide_id) for slide_id in cropped]),
        "largest_patch": _largest_patch(job, cropped),
        "taken_over": {"shards": len(over), "written_anew": sum(over.values())},
    }
    return Outcome(outputs=[(job.plan_path, None)], facts=facts)


def _no_patch(job: Job, cropped: Mapping[str, Receipt], most: int = 4) -> StpatchError:
    """Return the error of an empty plan, with the numbers that show why it is empty."""
    crop = job.config.crop
    patches = sum(receipt.facts["patches"] for receipt in cropped.values())
    grids = [
        f"{slide_id} {receipt.facts['grid'][0]} x {receipt.facts['grid'][1]} pixels with "
        f"{job.receipt('ingest', slide_id).facts['spots']} spots"
        for slide_id, receipt in list(cropped.items())[:most]
    ]
    if patches:
        found = f"{patches} patches before the split, none in a split"
    else:
        found = "; ".join(grids) + (f"; and {len(cropped) - most} more" if len(cropped) > most else "")
    limits = [] if crop.min_spots is None else [f"{crop.min_spots} spots (crop.min_spots)"]
    limits += [f"{crop.min_coverage:.0%} of pixels with a spot (crop.min_coverage)"] if crop.min_coverage else []
    least = " and ".join(limits) or "one spot"
    return StpatchError(
        "no patch is left",
        where=f"{len(cropped)} slide{'s' if len(cropped) > 1 else ''}",
        found=found,
        expected=f"patches of {crop.size[0]} x {crop.size[1]} pixels with at least {least}",
        hint="see crop (size, min_coverage, min_spots, edge), grid (method, pitch_um) and split",
    )


def check_names(job: Job, patches: Mapping[str, int]) -> None:
    """Refuse slide ids that are too long for a shard, and labels whose maps would have one name.

    Parameters
    ----------
    patches
        Slide id -> number of patches, 0 where it is not known yet.
    """
    names: dict[str, str] = {}
    for label in job.config.ingest.labels:
        other = names.setdefault(label_name(label), label)
        if other != label:
            raise ConfigError(
                "two labels give one label map",
                where="key ingest.labels",
                found=f"{other!r} and {label!r}, both label_{label_name(label)}",
                hint="rename one of the columns",
            )
    draws = job.config.channels.draws
    fields = field_names(job.config.shards.encoding, genes=True, labels=names)
    for slide_id, count in patches.items():
        check_key(sample_key(slide_id, max(count, 10**6) - 1, draws - 1, draws=draws), fields)


def _check_labels(job: Job, slide_ids: Iterable[str]) -> None:
    """Refuse a label that no ingested slide has."""
    ingested = [job.receipt("ingest", slide_id).facts for slide_id in slide_ids]
    for label in job.config.ingest.labels:
        if ingested and job.parent is None and not any(facts["labels"].get(label) for facts in ingested):
            notes = (
                note for facts in ingested for note in facts["record"]["notes"] if note.startswith(f"label {label}:")
            )
            raise ConfigError(
                f"no slide has a label {label!r}",
                where="key ingest.labels",
                found=next(notes, None),
                hint="name a column of the slides' spot tables or label files, or take it out",
            )


def _notes(job: Job, dealt: Mapping[str, NDArray[np.object_]], plan: Plan) -> list[str]:
    """Return what the user should know of the plan, one sentence each."""
    notes = []
    outside = sum(int((splits == "").sum()) for splits in dealt.values())
    if outside:
        notes.append(f"{outside} patches lie across blocks of different splits and are in none")
    if job.config.split.folds is None and job.config.split.column is None:
        bare = [name for name, share in job.config.split.fractions.items() if share > 0 and name not in plan.splits]
        notes += [
            f"split {name} has no patch: too few groups (or blocks) to deal, or none of its own has one"
            for name in bare
        ]
    empty = [slide_id for slide_id, splits in dealt.items() if not len(splits)]
    notes += [f"slide {slide_id} has no patch: none passes crop.min_coverage and min_spots" for slide_id in empty]
    return notes + separation_notes(job)


def split_patches(job: Job, cropped: Mapping[str, Receipt]) -> dict[str, NDArray[np.object_]]:
    """Return the split of each patch of each slide ("" = in none)."""
    if job.config.split.blocks is not None:
        return {slide_id: _block_splits(job, slide_id, read_cut(job.patches_path(slide_id))) for slide_id in cropped}
    by_slide = dealt_slides(job)
    return {
        slide_id: np.full(receipt.facts["patches"], by_slide[slide_id], dtype=object)
        for slide_id, receipt in cropped.items()
    }


def split_names(job: Job, dealt: Mapping[str, NDArray[np.object_]]) -> list[str]:
    """Return the splits that have patches: those of ``split.fractions`` in their order, then others by name."""
    return ordered_splits(job, {str(name) for splits in dealt.values() for name in set(splits.tolist()) if name})


def ordered_splits(job: Job, names: Iterable[str]) -> list[str]:
    """Return splits in order: those of ``split.fractions`` as they stand there, then others by name."""
    present = set(names)
    first = [name for name in job.config.split.fractions if name in present]
    return first + sorted(present - set(first))


def make_plan(
    dealt: Mapping[str, NDArray[np.object_]],
    *,
    splits: Sequence[str],
    draws: int,
    patches: int,
    mix: int,
    seed: int,
    first: Mapping[str, int] | None = None,
) -> Plan:
    """Order the samples of every split and cut the order into shards.

    Parameters
    ----------
    dealt
        Slide id -> (patches,) split names, "" for none.
    splits
        The splits, in order.
    draws, patches, mix, seed
        ``channels.draws``, ``shards.patches``, ``shards.mix``, ``dataset.seed``.
    first
        Number of each split's first shard, 0 where it has none before.
    """
    slides = sorted(dealt)
    parts: list[tuple[NDArray[np.int64], ...]] = []
    for number, split in enumerate(splits):
        slide, patch, draw = _split_order(dealt, slides, split, draws=draws, mix=mix, seed=seed)
        position = np.arange(len(slide))
        shard = position // patches + (first or {}).get(split, 0)
        parts.append((np.full(len(slide), number), shard, position % patches, slide, patch, draw))
    empty = tuple(np.zeros(0, np.int64) for _ in range(6))
    split_of, shard, index, slide, patch, draw = (
        np.concatenate(arrays) for arrays in zip(*(parts or [empty]), strict=True)
    )
    return Plan(
        slides=slides,
        splits=list(splits),
        split=split_of.astype(np.int16),
        shard=shard.astype(np.int32),
        index=index.astype(np.int32),
        slide=slide.astype(np.int32),
        patch=patch.astype(np.int32),
        draw=draw.astype(np.int16),
    )


def slide_plan(
    dealt: Mapping[str, NDArray[np.object_]],
    *,
    splits: Sequence[str],
    draws: int,
    patches: int,  # noqa: ARG001 - a shard is a slide
    mix: int,  # noqa: ARG001
    seed: int,  # noqa: ARG001
    first: Mapping[str, int] | None = None,
) -> Plan:
    """Make every slide of a split a shard, in order of the slides' ids; its patches and draws in their order.

    Parameters are those of `make_plan`.
    """
    slides = sorted(dealt)
    parts: list[tuple[NDArray[np.int64], ...]] = [tuple(np.zeros(0, np.int64) for _ in range(6))]
    for number, split in enumerate(splits):
        members = [i for i, slide_id in enumerate(slides) if (dealt[slide_id] == split).any()]
        for shard, i in enumerate(members, (first or {}).get(split, 0)):
            patch, draw = np.divmod(np.arange(len(dealt[slides[i]]) * draws), draws)
            same = (np.full(len(patch), value, np.int64) for value in (number, shard, i))
            split_of, shard_of, slide_of = same
            parts.append((split_of, shard_of, np.arange(len(patch)), slide_of, patch, draw))
    split_of, shard_of, index, slide_of, patch, draw = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return Plan(
        slides=slides,
        splits=list(splits),
        split=split_of.astype(np.int16),
        shard=shard_of.astype(np.int32),
        index=index.astype(np.int32),
        slide=slide_of.astype(np.int32),
        patch=patch.astype(np.int32),
        draw=draw.astype(np.int16),
    )


def _split_order(
    dealt: Mapping[str, NDArray[np.object_]], slides: Sequence[str], split: str, *, draws: int, mix: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    members = [i for i, slide_id in enumerate(slides) if (dealt[slide_id] == split).any()]
    members = [members[i] for i in permutation(generator(seed, "plan", split, "slides"), len(members))]
    orders = []
    for group, start in enumerate(range(0, len(members), mix)):
        slide, patch = [], []
        for i in sorted(members[start : start + mix]):  # by name: a group is shuffled from one known order
            own = np.flatnonzero(dealt[slides[i]] == split)
            slide.append(np.full(len(own), i))
            patch.append(own)
        n_patches = sum(len(own) for own in patch)
        shuffled = permutation(generator(seed, "plan", split, group), n_patches * draws)
        patches = shuffled // draws  # a sample is a patch and a draw; draws of one patch are shuffled like any others
        orders.append((np.concatenate(slide)[patches], np.concatenate(patch)[patches], shuffled % draws))
    if not orders:
        nothing = np.zeros(0, np.int64)
        return nothing, nothing, nothing
    slide_of, patch_of, draw_of = (np.concatenate(arrays) for arrays in zip(*orders, strict=True))
    return slide_of, patch_of, draw_of


def counts_dtype(job: Job, cropped: Mapping[str, Receipt]) -> str:
    """Return the dtype that holds every pixel's count: uint16, or uint32 where a count needs it.

    Raises
    ------
    InputError
        The dataset that is extended has uint16, and a new slide may have a larger count.
    """
    largest = {slide_id: receipt.facts["largest_count"] for slide_id, receipt in cropped.items()}
    large = [slide_id for slide_id, count in largest.items() if count >= 2**16]
    if job.parent is None or job.config.shards.values != "counts":
        return "uint32" if large else "uint16"
    dtype = job.parent.manifest.tensor.dtype
    if dtype == "uint16" and large:
        raise InputError(
            "a count is larger than the dataset that is extended can hold",
            where=f"slide {large[0]}, key dataset.extends",
            found=f"up to {largest[large[0]]:g} in a pixel, and x of {dtype}",
            expected=f"at most {2**16 - 1}",
            hint="leave the slide out, or build a dataset without dataset.extends",
        )
    return dtype


def _largest_patch(job: Job, cropped: Mapping[str, Receipt]) -> list[int]:
    """Return the largest (height, width); a zarr dataset that is extended has room for no larger one."""
    sizes = {slide_id: receipt.facts["largest_patch"] for slide_id, receipt in cropped.items()}
    if job.parent is None:
        return [int(side) for side in np.max(list(sizes.values()), axis=0)]
    before = job.parent.manifest.tensor.shape[1:]
    fixed = FORMATS.get(job.config.shards.format).fixed_shape
    for slide_id, size in sizes.items():
        if fixed and any(side > most for side, most in zip(size, before, strict=True)):
            raise InputError(
                "a sample is larger than the arrays of the dataset that is extended",
                where=f"slide {slide_id}, key dataset.extends",
                found=f"{size[0]} x {size[1]} pixels",
                expected=f"at most {before[0]} x {before[1]}",
                hint="leave the slide out, or build a dataset without dataset.extends (format tar holds any size)",
            )
    return [int(side) for side in np.max([before, *sizes.values()], axis=0)]


def label_categories(job: Job, ingested: Sequence[Receipt]) -> dict[str, list[str]]:
    """Return each label's categories over all slides, in natural order; new ones after those of an earlier version."""
    merged: dict[str, set[str]] = {}
    for receipt in ingested:
        for name, categories in receipt.facts["labels"].items():
            merged.setdefault(name, set()).update(categories)
    known: dict[str, list[str]] = {}
    if job.parent is not None:
        names = {label_name(name): name for name in job.config.ingest.labels}
        known = {names[name]: list(categories) for name, categories in job.parent.manifest.labels.items()}
    return {
        name: known.get(name, []) + sorted(merged.get(name, set()) - set(known.get(name, [])), key=natural_key)
        for name in sorted({*merged, *known})
    }


def _block_splits(job: Job, slide_id: str, cut: Cut) -> NDArray[np.object_]:
    return assign_blocks(
        cut.patches,
        grid_shape=cut.grid.shape,
        section=job.config.split,
        seed=job.config.dataset.seed,
        slide_id=slide_id,
        spots_per_pixel=cut.grid.spots_per_pixel(),
    )


def _write(path: Path, plan: Plan) -> None:
    with atomic_file(path) as file:
        np.savez(
            file,
            slides=np.array(plan.slides, dtype=str),
            splits=np.array(plan.splits, dtype=str),
            **{name: getattr(plan, name) for name in ("split", "shard", "index", "slide", "patch", "draw")},
        )


def read_plan(path: Path) -> Plan:
    """Read the stored plan; the same file is read once a process."""
    stat = path.stat()
    return _read_plan(path, stat.st_mtime_ns, stat.st_ino)


@lru_cache(maxsize=2)
def _read_plan(path: Path, _mtime_ns: int, _inode: int) -> Plan:
    try:
        with np.load(path, allow_pickle=False) as file:
            fields = dict(file)
    except (ValueError, EOFError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise DatasetError(
            "the plan cannot be read", where=path, found=error, hint="run the plan stage again"
        ) from error
    return Plan(slides=fields.pop("slides").tolist(), splits=fields.pop("splits").tolist(), **fields)


def task_digest(plan: Plan, samples: slice) -> str:
    """Return a digest of a task's samples: their slides, patches and draws, in order."""
    slides = [plan.slides[i] for i in plan.slide[samples]]
    return digest([slides, plan.patch[samples].tolist(), plan.draw[samples].tolist()])
