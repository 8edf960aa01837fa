"""What the tables say of each slide, as typed values."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

_TISSUE = re.compile(r"(tissue|organ|anatom)", re.IGNORECASE)
_UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of the waterfall: what came in, what a reason took, what stayed."""

    name: str
    kind: str
    spots: int | None
    counts: float | None


@dataclass(frozen=True, kw_only=True)
class SlideFacts:
    """One slide as the tables have it; None where they say nothing.

    Attributes
    ----------
    metadata, record, inputs
        The samplesheet's columns, the record of its ingest, and its input files.
    tissue
        The value of the column that names one.
    splits
        The splits that hold its patches.
    coverage
        Median over its patches.
    """

    slide_id: str
    platform: str
    organism: str
    tissue: str
    splits: tuple[str, ...]
    rows: int
    cols: int
    pitch_um: float | None
    spots: int
    genes: int
    patches: int
    coverage: float | None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    record: Mapping[str, Any] = field(default_factory=dict)
    inputs: Sequence[Mapping[str, Any]] = ()

    def number(self, name: str) -> Any:
        """Return a number of the record, None where it has none."""
        return self.record.get(name)

    @property
    def group(self) -> str:
        """Platform and tissue, for what is compared between them."""
        return self.platform if self.tissue == _UNKNOWN else f"{self.platform}, {self.tissue}"

    @property
    def collisions(self) -> int:
        """Spots that fell on a taken pixel."""
        return int(self.record.get("grid", {}).get("collisions", 0))

    @property
    def lost_spots(self) -> int:
        """Spots that a collision dropped."""
        return int(self.record.get("grid", {}).get("dropped_spots", 0))

    @property
    def depth(self) -> float | None:
        """Counts per spot that stayed."""
        counts, spots = self.record.get("counts_kept"), self.record.get("spots_kept")
        return float(counts) / int(spots) if counts is not None and spots else None

    @property
    def share_kept(self) -> float | None:
        """Share of the counts that stayed."""
        before, after = self.record.get("counts_in"), self.record.get("counts_kept")
        return float(after) / float(before) if before and after is not None else None

    @property
    def notes(self) -> list[str]:
        """What ingest noted."""
        return [str(note) for note in self.record.get("notes", ())]

    @property
    def dropped(self) -> Mapping[str, Mapping[str, Any]]:
        """What was dropped by reason: spots, genes, counts."""
        found: Mapping[str, Mapping[str, Any]] = self.record.get("dropped", {})
        return {reason: numbers for reason, numbers in found.items() if any(numbers.values())}

    def waterfall(self) -> list[Step]:
        """Return counts and spots from what came in to what stayed, a step per reason."""
        if "counts_in" not in self.record:
            return []
        steps = [Step(name="in", kind="in", spots=self.number("spots_in"), counts=self.number("counts_in"))]
        for reason, numbers in self.dropped.items():
            steps.append(Step(name=reason, kind="lost", spots=numbers.get("spots", 0), counts=numbers.get("counts", 0)))
        return [
            *steps,
            Step(name="kept", kind="kept", spots=self.number("spots_kept"), counts=self.number("counts_kept")),
        ]

    def gene_steps(self) -> list[tuple[str, int]]:
        """Return what became of the genes: listed, dropped by reason, merged, measured."""
        if "genes_in" not in self.record:
            return [("measured", self.genes)]
        lost = [(f"dropped: {name}", int(numbers["genes"])) for name, numbers in self.dropped.items()
                if numbers.get("genes")]  # fmt: skip
        merged = int(self.record.get("genes_merged", 0))
        further = [("rows merged into a gene of the same name", merged)] if merged else []
        return [("in the files", int(self.record["genes_in"])), *lost, *further, ("measured", self.genes)]

    def worth(self) -> int:
        """Return how many things of a slide somebody should look at."""
        lost = self.share_kept is not None and self.share_kept < 0.9
        return (
            2 * lost + bool(self.collisions) + min(len(self.notes), 3) + bool(self.lost_spots) + 2 * (self.patches == 0)
        )


def slide_facts(slides: pd.DataFrame, patches: pd.DataFrame) -> list[SlideFacts]:
    """Return the facts of all slides, in the table's order."""
    grouped = patches.groupby("slide_id", sort=False)
    median = grouped["coverage"].median().to_dict()
    splits: dict[str, dict[str, None]] = {}
    for name, split in zip(patches["slide_id"], patches["split"], strict=True):
        splits.setdefault(str(name), {})[str(split)] = None
    facts = []
    for row in slides.to_dict("records"):
        slide_id = str(row["slide_id"])
        metadata = _mapping(row["metadata"])
        pitch = row["pitch_um"]
        facts.append(
            SlideFacts(
                slide_id=slide_id,
                platform=str(row["platform"]),
                organism=str(row["organism"]) if pd.notna(row["organism"]) else _UNKNOWN,
                tissue=tissue_of(metadata),
                splits=tuple(splits.get(slide_id, ())),
                rows=int(row["rows"]),
                cols=int(row["cols"]),
                pitch_um=None if pitch is None or pd.isna(pitch) else float(pitch),
                spots=int(row["spots"]),
                genes=int(row["genes"]),
                patches=int(row["patches"]),
                coverage=float(median[slide_id]) if slide_id in median else None,
                metadata=metadata,
                record=_mapping(row["qc"]),
                inputs=[item for item in _parsed(row["inputs"], []) if isinstance(item, dict)],
            )
        )
    return facts


def tissue_of(metadata: Mapping[str, Any]) -> str:
    """Return the value of the first column whose name speaks of tissue."""
    return next((str(value) for name, value in metadata.items() if _TISSUE.search(name) and str(value)), _UNKNOWN)


def _mapping(text: str) -> dict[str, Any]:
    value = _parsed(text, {})
    return value if isinstance(value, dict) else {}


def _parsed(text: str, otherwise: Any) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return otherwise
