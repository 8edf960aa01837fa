"""What the units that have just been finished made, for people who wait."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from stpatch.stages.job import Job
from stpatch.stages.receipts import Receipt


@dataclass
class Tally:
    """What units made so far: patches, bytes of their outputs, and the last unit's name."""

    units: int = 0
    patches: int = 0
    bytes: int = 0
    last: str = ""

    def add(self, receipt: Receipt) -> None:
        """Count one more unit."""
        self.units += 1
        record = receipt.facts.get("record")
        patches = receipt.facts.get("patches", record.get("patches", 0) if isinstance(record, dict) else 0)
        self.patches += patches if isinstance(patches, int) else 0
        self.bytes += sum(output.bytes for output in receipt.outputs)
        self.last = receipt.unit


class Finished:
    """Looks for receipts that were written since it was made; the units' work is not asked for anything.

    Parameters
    ----------
    job, stage
        Whose receipts.
    """

    def __init__(self, job: Job, stage: str) -> None:
        self._job = job
        self._folder = Path(job.book.folder) / stage
        self._stage = stage
        self._seen = self._marks()
        self.tally = Tally()

    def look(self) -> list[Receipt]:
        """Return the receipts that are new since the last look."""
        now = self._marks()
        new = [unit for unit, mark in now.items() if self._seen.get(unit) != mark]
        self._seen = now
        found = [receipt for unit in new if (receipt := self._job.book.receipt(self._stage, unit)) is not None]
        for receipt in found:
            self.tally.add(receipt)
        return found

    def _marks(self) -> dict[str, tuple[int, int]]:
        """Return by unit what changes when its receipt is written anew, oldest first."""
        marks: dict[str, tuple[int, int]] = {}
        try:
            with os.scandir(self._folder) as entries:
                for entry in entries:
                    if entry.name.endswith(".json") and not entry.name.endswith(".failed.json"):
                        stat = entry.stat()
                        marks[entry.name.removesuffix(".json")] = (stat.st_mtime_ns, stat.st_ino)
        except OSError:  # there is no receipt yet, or one went while it was looked at
            return marks
        return dict(sorted(marks.items(), key=lambda item: item[1]))
