"""Peaks of a process' memory, as Linux tells them: all, anonymous pages, pages of mapped files."""

from __future__ import annotations

import threading
from pathlib import Path

SELF = "/proc/self/status"
PEAKS = {"VmHWM": "peak", "RssAnon": "anonymous", "RssFile": "mapped"}


class MemoryWatch:
    """Looks at a process, in bytes, until it is told to stop or the process is gone."""

    def __init__(self, status: str = SELF, *, every: float = 0.02) -> None:
        self._status = Path(status)
        self._peak = dict.fromkeys(PEAKS.values(), 0)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, args=(every,), daemon=True)
        self._thread.start()

    def stop(self) -> dict[str, int]:
        """Return the peaks."""
        self._over.set()
        self._thread.join()
        self._look()
        return dict(self._peak)

    def _watch(self, every: float) -> None:
        while not self._over.wait(every):
            self._look()

    def _look(self) -> None:
        try:
            lines = self._status.read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            return
        for line in lines:
            name, _, text = line.partition(":")
            if name in PEAKS:
                self._peak[PEAKS[name]] = max(self._peak[PEAKS[name]], int(text.split()[0]) * 1024)


def forget_peak() -> None:
    """Let this process' largest resident memory start anew."""
    Path("/proc/self/clear_refs").write_text("5")
