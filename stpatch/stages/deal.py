"""Which split a slide is in, and what the splits may know: dealt from the samplesheet, before any statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from stpatch.errors import ConfigError, StpatchError
from stpatch.image.split import assign_splits
from stpatch.slides.digests import not_allowed, same_sections
from stpatch.stages.job import Job

TRAIN = "train"
"""The split whose slides the statistics come from where the config does not say (``channels.fit_on: auto``)."""
_LISTED = 6


def sheet_facts(job: Job, slide_id: str, *, platform: str, organism: str) -> dict[str, str]:
    """Return what the split rules may look at: the samplesheet's columns of a slide, its platform and organism."""
    source = job.sources[slide_id]
    known = {"slide_id": slide_id, "platform": platform, "organism": organism, **source.metadata}
    return {**known, "split": source.split} if job.gives_splits else known


def ingested_facts(job: Job, slide_id: str) -> dict[str, str]:
    """Return `sheet_facts` of a slide whose ingest is done."""
    facts = job.receipt("ingest", slide_id).facts
    return sheet_facts(job, slide_id, platform=facts["platform"], organism=facts["organism"])


def deal(job: Job, facts: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Return the split of each slide, "" for all where blocks inside the slides are dealt.

    The slides of a dataset that is extended have their say in it, and keep their splits.

    Parameters
    ----------
    facts
        `sheet_facts` by slide id.

    Raises
    ------
    ConfigError
        See `stpatch.image.split.assign_splits`.
    """
    if not facts:
        return {}
    earlier = {slide_id: job.parent.facts(slide_id) for slide_id in kept_slides(job)} if job.parent else {}
    rows = {slide_id: dict(row) for slide_id, row in {**earlier, **facts}.items()}
    split_of = assign_splits(
        pd.DataFrame.from_dict(rows, orient="index").fillna(""),
        section=job.config.split,
        seed=job.config.dataset.seed,
        known={slide_id: split for slide_id, split in job.parent.split_of.items() if slide_id in earlier}
        if job.parent
        else None,
    )
    return {slide_id: split_of[slide_id] for slide_id in facts}


def kept_slides(job: Job) -> list[str]:
    """Return the slides of the dataset that is extended which stay, in its order."""
    withdrawn = set(job.config.slides.withdraw)
    return [slide_id for slide_id in (job.parent.slides if job.parent else ()) if slide_id not in withdrawn]


def dealt_slides(job: Job) -> dict[str, str]:
    """Return the split of each slide that was ingested; neither statistics nor patches have a say in it."""
    return deal(job, {slide_id: ingested_facts(job, slide_id) for slide_id in job.receipts("ingest")})


def fit_slides(job: Job) -> tuple[list[str], str]:
    """Return the slides whose statistics choose genes and channels, and from what they are: splits, or ``all``.

    ``channels.fit_on: auto`` takes the slides of split train where one is dealt, so that no panel, no candidate and no
    moment comes from a held-out slide; else all of them. Spatial blocks deal parts of slides, and a slide's statistics
    are those of the whole: there, all slides are taken.

    Raises
    ------
    ConfigError
        A split that no slide is in, or splits by name where blocks are dealt.
    """
    slides, fit_on = list(job.receipts("ingest")), job.config.channels.fit_on
    if job.parent is not None:  # what was chosen stays; nothing is chosen anew
        return slides, str(job.parent.manifest.channels.get("fit_on", "all"))
    if fit_on == "all":
        return slides, "all"
    if job.config.split.blocks is not None:
        if fit_on == "auto":
            return slides, "all"
        raise ConfigError(
            "splits of spatial blocks cannot tell whose statistics to take: every slide is in several of them",
            where="key channels.fit_on",
            found=", ".join(fit_on),
            expected="fit_on: all (or auto) where split.blocks is set",
            hint="hold out whole slides (split.by) where held-out counts must not choose the genes",
        )
    split_of = dealt_slides(job)
    wanted = [TRAIN] if fit_on == "auto" else fit_on
    present = set(split_of.values())
    unknown = [name for name in wanted if name not in present]
    if fit_on == "auto" and unknown:
        return slides, "all"
    if unknown or not wanted:
        raise ConfigError(
            f"no slide is in split {unknown[0]!r}" if unknown else "no split is named",
            where="key channels.fit_on",
            found=", ".join(wanted) or "an empty list",
            expected=f"all, or some of {', '.join(sorted(name for name in present if name))}",
            hint="set channels.fit_on: all, or name splits that slides are dealt to",
        )
    fit = [slide_id for slide_id in slides if split_of[slide_id] in wanted]
    return fit, "all" if len(fit) == len(slides) else "+".join(wanted)


def separation_notes(job: Job) -> list[str]:
    """Return what the splits do not keep apart although they look as if they did, one sentence each."""
    if job.config.split.blocks is None:
        return []
    fit = "; genes, channels and moments are chosen on all slides" if job.config.channels.fit_on != "all" else ""
    return [
        "spatial blocks keep spots apart, not slides: every split has patches of the same slides and donors, and a "
        f"slide's normalization and statistics are those of the whole slide{fit}"
    ]


def require_no_duplicates(job: Job) -> None:
    """Refuse one section under two ids.

    Raises
    ------
    ConfigError
        Slides whose counts are the same (`stpatch.slides.digests`) and that ``dataset.allow_duplicates`` does not list.
    """
    digests = {slide_id: receipt.facts["digests"] for slide_id, receipt in job.receipts("ingest").items()}
    if job.parent is not None:
        digests |= {slide_id: job.parent.digests(slide_id) for slide_id in kept_slides(job)}
    new = set(job.sources)
    error = duplicates_error(job, [(ids, why) for ids, why in same_sections(digests) if new.intersection(ids)])
    if error is not None:
        raise error


def duplicates_error(job: Job, sets: Sequence[tuple[tuple[str, ...], str]]) -> StpatchError | None:
    """Return the error for sets of slides that are one, each with what agrees; None where all are allowed."""
    wrong = [(ids, why) for ids, why in sets if not_allowed(ids, job.config.dataset.allow_duplicates)]
    if not wrong:
        return None
    found = [f"{' and '.join(ids[:_LISTED])} (equal: {why})" for ids, why in wrong]
    more = f"; and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
    spare = sorted({slide_id for ids, _ in wrong for slide_id in ids[1:]})
    places = [
        f"slide {slide_id}: {job.sources[slide_id].path if slide_id in job.sources else job.config.dataset.extends}"
        for slide_id in wrong[0][0][:_LISTED]
    ]
    return ConfigError(
        "one section is given under several slide ids",
        where="; ".join(places),
        found="; ".join(found[:_LISTED]) + more,
        expected="each section once: copies weigh double, and may lie in two splits",
        hint="take out all but one of them, or allow what is meant: dataset.allow_duplicates: "
        f"[{', '.join(spare[:_LISTED])}{', ...' if len(spare) > _LISTED else ''}]",
    )
