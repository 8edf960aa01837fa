"""Imported by the fork server alone, once, before it forks workers.

A fault here is no fault of the build: what is missing, a worker imports or compiles when it needs it. Nor is it one
that a worker finds the build gone when it begins: whoever stopped the build knows.
"""

from __future__ import annotations

import contextlib
import gc
import signal
import sys
from types import TracebackType

signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C and ends the workers


def _tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Tell of a fault of a worker that has not begun, unless what it shares with the build went with the build."""
    if not isinstance(error, OSError | EOFError):
        sys.__excepthook__(kind, error, trace)


sys.excepthook = _tell

gc.disable()  # what is imported stays, and the collector would look through it again and again
with contextlib.suppress(Exception):
    from stpatch.engine.preload import preload

    preload()
gc.freeze()  # nor shall it write to pages that the workers share
gc.enable()
