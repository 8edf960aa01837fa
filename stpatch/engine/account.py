"""The account of a finished build: each slide's line and notes, from the receipts."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from stpatch.stages.channels import Channels, read_channels
from stpatch.stages.crop import read_cut
from stpatch.stages.job import Job
from stpatch.stages.measured import measured_ids
from stpatch.views.build_table import SlideLine, account_text, build_table, note_lines


def slide_account(job: Job) -> str:
    """Return the table of slides and, after it, their notes, one a line; the build must be done."""
    channels = read_channels(job.channels_path)
    lines, notes = [], []
    for slide_id, crop in job.receipts("crop").items():
        record = job.receipt("ingest", slide_id).facts["record"]
        lines.append(
            SlideLine(
                slide_id=slide_id,
                record=record,
                collisions=crop.facts["collisions"],
                dropped_spots=crop.facts["dropped_spots"],
                lacking=_lacking(job, slide_id, channels),
                patches=crop.facts["patches"],
            )
        )
        notes += [(slide_id, note) for note in record["notes"]]
        if lost := crop.facts["dropped_spots"]:
            notes.append((slide_id, f"{lost} spots fell on a taken pixel and were dropped (grid.collisions: first)"))
    return "\n".join([build_table(lines), *(f"note: {note}" for note in note_lines(notes))])


def run_account(job: Job, seconds: Mapping[str, float]) -> str:
    """Return the table at the end of a build: what there is, what was dropped and why, the time, what to do next.

    Parameters
    ----------
    seconds
        How long each stage took in this run.
    """
    records = [job.receipt("ingest", slide_id).facts["record"] for slide_id in job.receipts("crop")]
    lost: dict[str, dict[str, float]] = {}
    for record in records:
        for reason, numbers in record["dropped"].items():
            own = lost.setdefault(reason, {})
            for kind, number in numbers.items():
                own[kind] = own.get(kind, 0) + number
    counts = sum(record["counts_in"] for record in records)
    return account_text(
        rows=[
            ("slides", f"{len(records)}"),
            ("spots", _of(sum(r["spots_kept"] for r in records), sum(r["spots_in"] for r in records))),
            ("counts", _of(sum(record["counts_kept"] for record in records), counts)),
            *((f"dropped: {reason}", _numbers(numbers)) for reason, numbers in lost.items()),
        ],
        seconds=seconds,
        following=[
            f"stpatch report {job.output}",
            f"stpatch inspect {job.output} --png preview.png",
            f"stpatch validate {job.output} --deep",
        ],
    )


def _of(kept: float, before: float) -> str:
    if kept == before:
        return f"{kept:,.0f}, all kept"
    return f"{kept:,.0f} of {before:,.0f} kept ({100 * kept / before if before else 100:.1f}%)"


def _numbers(numbers: Mapping[str, float]) -> str:
    return ", ".join(f"{number:,.0f} {kind}" for kind, number in numbers.items() if number) or "nothing"


def corpus_notes(job: Job) -> list[str]:
    """Return the notes of the corpus' own stages."""
    return [note for stage in ("select", "finalize") for note in job.receipt(stage, "corpus").facts.get("notes", ())]


def _lacking(job: Job, slide_id: str, channels: Channels) -> int:
    """Return how many channels of the slide's samples are genes that it did not measure, or pads."""
    listed = read_cut(job.patches_path(slide_id)).gene_ids
    wanted = channels.channels_of(slide_id)
    if wanted is not None and (channels.panel is not None or channels.slide_panels is not None):
        return int((~np.isin(wanted, measured_ids(job, slide_id, channels, listed))).sum())
    own = listed[listed >= 0] if wanted is None else np.intersect1d(listed, wanted)
    return max(channels.n_channels - len(own), 0)
