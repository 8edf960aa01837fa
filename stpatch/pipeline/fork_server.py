"""Imported by the fork server alone, once, before it forks workers.

A fault here is no fault of the build: what is missing, a worker imports or compiles when it needs it.
"""

from __future__ import annotations

import contextlib
import gc
import signal

signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C and ends the workers

gc.disable()  # what is imported stays, and the collector would look through it again and again
with contextlib.suppress(Exception):
    from stpatch.pipeline.preload import preload

    preload()
gc.freeze()  # nor shall it write to pages that the workers share
gc.enable()
