"""What all workers need, imported and compiled before they are forked, so that they share it."""

from __future__ import annotations

import importlib
import sys

MODULES = (
    "stpatch.engine.workers",
    "stpatch.stages.ingest",
    "stpatch.stages.normalize",
    "stpatch.stages.select",
    "stpatch.stages.crop",
    "stpatch.stages.plan",
    "stpatch.stages.shard",
    "stpatch.stages.cutter",
    "stpatch.stages.finalize",
    "stpatch.slides.canonical",
    "stpatch.slides.labels",
    "stpatch.expression.select",
    "stpatch.expression.statistics",
)


def preload() -> None:
    """Import the stages and load their compiled loops, or compile them."""
    from stpatch.engine.warm import KERNELS, compile_kernels
    from stpatch.slides.readers import registry

    for name in MODULES:
        importlib.import_module(name)
    for platform in registry.own_platforms():
        registry.reader_of(platform)
    compile_kernels(tuple(KERNELS), announce=lambda text: print(text, file=sys.stderr, flush=True))  # noqa: T201
