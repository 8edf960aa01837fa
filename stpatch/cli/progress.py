"""Progress of a build: a bar per stage with what it made, a line per unit if asked, a log, and each stage's time."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stpatch.cli.options import bar

if TYPE_CHECKING:
    from stpatch.engine.finished import Finished
    from stpatch.stages.job import Job

_EVERY = 0.5
"""Seconds between two looks at what was finished."""


class BuildProgress:
    """Makes the progress of stages, as `stpatch.engine.run.run_stages` wants it.

    Parameters
    ----------
    job
        Whose units are run.
    quiet, verbose
        No bars; a line per finished unit.
    log
        A file that gets a line with the time for every stage and unit.

    Attributes
    ----------
    seconds
        By stage, how long it took in this run.
    """

    def __init__(self, job: Job, *, quiet: bool = False, verbose: bool = False, log: Path | None = None) -> None:
        self.seconds: dict[str, float] = {}
        self._job = job
        self._quiet = quiet
        self._verbose = verbose
        self._log = log

    def __call__(self, name: str, total: int, done: int) -> AbstractContextManager[Any]:
        """Return the progress of one stage."""
        return self._stage(name, total, done)

    @contextmanager
    def _stage(self, name: str, total: int, done: int) -> Iterator[Any]:
        from stpatch.engine.finished import Finished

        begin = time.perf_counter()
        self._write(f"{name}: {total - done} of {total} units to do")
        with bar(name, total, done, quiet=self._quiet) as shown:
            stage = _StageBar(self, Finished(self._job, name), shown)
            try:
                yield stage
            finally:
                stage.look()
                self.seconds[name] = time.perf_counter() - begin
                self._write(f"{name}: {stage.done} units done in {self.seconds[name]:.1f} s")

    def tell(self, line: str) -> None:
        """Say that a unit is finished."""
        self._write(line)
        if self._verbose:
            from tqdm import tqdm

            tqdm.write(line, file=sys.stderr)

    @property
    def watches(self) -> bool:
        """Whether anybody wants to know more than the number of units."""
        return self._verbose or self._log is not None or (not self._quiet and sys.stderr.isatty())

    def _write(self, line: str) -> None:
        if self._log is not None:
            self._log.parent.mkdir(parents=True, exist_ok=True)
            with self._log.open("a", encoding="utf-8") as file:
                file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")


class _StageBar:
    """One stage's bar: moves on, and says now and then what was made."""

    def __init__(self, progress: BuildProgress, finished: Finished, shown: Any) -> None:
        self.done = 0
        self._progress = progress
        self._finished = finished
        self._shown = shown
        self._begin = self._last = time.perf_counter()

    def update(self, n: int) -> None:
        self.done += n
        self._shown.update(n)
        if time.perf_counter() - self._last >= _EVERY:
            self.look()

    def look(self) -> None:
        if not self._progress.watches:
            return
        self._last = time.perf_counter()
        for receipt in self._finished.look():
            size = sum(output.bytes for output in receipt.outputs)
            self._progress.tell(f"{receipt.stage}: {receipt.unit}, {size / 1e6:.2f} MB")
        if hasattr(self._shown, "set_postfix_str"):
            self._shown.set_postfix_str(tally_text(self._finished, self._last - self._begin))


def tally_text(finished: Finished, seconds: float) -> str:
    """Return what a stage made so far: ``412 patches/s, 31 MB, last A1``."""
    tally = finished.tally
    parts = []
    if tally.patches and seconds > 0:
        parts.append(f"{tally.patches / seconds:.0f} patches/s")
    if tally.bytes:
        parts.append(f"{tally.bytes / 1e6:.1f} MB")
    if tally.last and tally.last != "corpus":
        parts.append(f"last {tally.last}")
    return ", ".join(parts)
