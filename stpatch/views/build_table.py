"""What a build did to each slide, in words: what came in and stayed, what was dropped, summed or is missing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stpatch.views.words import aligned

MOST = 40
"""Slides that the table shows; of a larger corpus, those that lost most come first."""


@dataclass(frozen=True, kw_only=True)
class SlideLine:
    """What happened to one slide.

    Attributes
    ----------
    slide_id
        The slide.
    record
        The record of its ingest (`stpatch.slides.slide.Slide.record`).
    collisions, dropped_spots
        Spots that fell on a taken pixel, and those of them that the rule dropped.
    lacking
        Channels that the slide did not measure, or that are pads for want of genes.
    patches
        Its patches, before splits are dealt.
    """

    slide_id: str
    record: Mapping[str, Any] = field(default_factory=dict)
    collisions: int = 0
    dropped_spots: int = 0
    lacking: int = 0
    patches: int = 0

    @property
    def share_kept(self) -> float:
        """Share of the counts that stayed."""
        counts = float(self.record["counts_in"])
        return float(self.record["counts_kept"]) / counts if counts else 1.0


def build_table(lines: Sequence[SlideLine]) -> str:
    """Return a line a slide; columns in which nothing happened on any slide are left out."""
    shown = list(lines)
    if len(lines) > MOST:
        worst = sorted(lines, key=lambda line: (line.share_kept, -line.collisions))[:MOST]
        shown = [line for line in lines if line in worst]
    columns: dict[str, list[object]] = {
        "slide": [line.slide_id for line in shown],
        "spots in": [line.record["spots_in"] for line in shown],
        "kept": [line.record["spots_kept"] for line in shown],
        "counts in": [line.record["counts_in"] for line in shown],
        "counts kept": [line.record["counts_kept"] for line in shown],
        "patches": [line.patches for line in shown],
    }
    sometimes: dict[str, list[object]] = {
        "genes merged": [line.record["genes_merged"] for line in shown],
        "collisions": [line.collisions for line in shown],
        "lost to them": [line.dropped_spots for line in shown],
        "channels lacking": [line.lacking for line in shown],
        "dropped": [dropped_text(line.record["dropped"]) for line in shown],
    }
    columns |= {name: values for name, values in sometimes.items() if any(values)}
    table = aligned(list(columns), list(zip(*columns.values(), strict=True)), digits=12)
    rest = len(lines) - len(shown)
    return table + (f"\n  and {rest} more slides that kept as much or more" if rest else "")


def account_text(*, rows: Sequence[tuple[str, str]], seconds: Mapping[str, float], following: Sequence[str]) -> str:
    """Return the end of a build: facts, the time by stage, and commands to go on with.

    Parameters
    ----------
    rows
        (name, text).
    seconds
        By stage.
    following
        Commands.
    """
    spent = {name: value for name, value in seconds.items() if value >= 0.05}
    times = ", ".join(f"{name} {value:.1f}" for name, value in spent.items())
    all_rows = [*rows, ("seconds", f"{sum(seconds.values()):.1f}" + (f": {times}" if times else ""))]
    width = max(len(name) for name, _ in (*all_rows, ("next", "")))
    lines = [f"  {name.ljust(width)}  {text}" for name, text in all_rows]
    lines += [f"  {('next' if i == 0 else '').ljust(width)}  {command}" for i, command in enumerate(following)]
    return "\n".join(lines)


def dropped_text(dropped: Mapping[str, Mapping[str, Any]]) -> str:
    """Return what was dropped by reason: ``out of tissue: 12 spots, 340 counts; control: 8 genes``."""
    return "; ".join(
        f"{reason}: {', '.join(f'{number} {kind}' for kind, number in numbers.items() if number)}"
        for reason, numbers in dropped.items()
        if any(numbers.values())
    )


def note_lines(notes: Iterable[tuple[str, str]], most: int = 4) -> list[str]:
    """Return the slides' notes, one line for all slides that share one.

    Parameters
    ----------
    notes
        (slide id, note).
    """
    slides_of: dict[str, list[str]] = {}
    for slide_id, note in notes:
        slides_of.setdefault(note, []).append(slide_id)
    lines = []
    for note, slides in slides_of.items():
        more = f" and {len(slides) - most} more" if len(slides) > most else ""
        lines.append(f"slide{'s' if len(slides) > 1 else ''} {', '.join(slides[:most])}{more}: {note}")
    return lines
