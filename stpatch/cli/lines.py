"""Progress where stderr is not a terminal: plain lines with a time, few enough for a log."""

from __future__ import annotations

import sys
import time

INTERVAL = 10.0
"""Seconds between two lines of one stage."""


class LineProgress:
    """Prints ``2026-01-31 12:00:00 shard: 12 of 40 units`` at the start, now and then, and at the end.

    Parameters
    ----------
    name, total, done
        The stage, its units, and how many of them were done before.
    """

    def __init__(self, name: str, total: int, done: int) -> None:
        self._name = name
        self._total = total
        self._done = done
        self._last = time.monotonic()
        if done < total:
            self._print(f"{total - done} of {total} units to do" if done else f"{total} units to do")

    def update(self, n: int) -> None:
        """Move on by `n` units."""
        self._done += n
        now = time.monotonic()
        if self._done >= self._total or now - self._last >= INTERVAL:
            self._last = now
            self._print(f"{self._done} of {self._total} units done")

    def _print(self, text: str) -> None:
        print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {self._name}: {text}", file=sys.stderr, flush=True)  # noqa: T201
