"""Imported by the fork server alone, once, before it forks workers.

What fails here does not fail the build: a worker imports or compiles what is missing when it needs it. A worker that
finds the build gone when it begins is silent, too: whoever stopped the build knows.
"""

from __future__ import annotations

import contextlib
import gc
import signal
import sys
from types import TracebackType

signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C and ends the workers


def _tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print a fault of a worker that has not begun, unless it is that the build has ended meanwhile."""
    if not isinstance(error, OSError | EOFError):
        sys.__excepthook__(kind, error, trace)


sys.excepthook = _tell

gc.disable()  # what is imported stays, and the collector would look through it again and again
with contextlib.suppress(Exception):
    from stpatch.engine.preload import preload

    preload()
gc.freeze()  # nor shall it write to pages that the workers share
gc.enable()
