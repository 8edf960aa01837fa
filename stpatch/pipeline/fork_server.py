"""Imported by the fork server alone, once, before it forks workers.

A fault here is no fault of the build: what is missing, a worker imports or compiles when it needs it.
"""

from __future__ import annotations

import contextlib
import signal

signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C and ends the workers

with contextlib.suppress(Exception):
    from stpatch.pipeline.preload import preload

    preload()
