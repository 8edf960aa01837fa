"""What all workers need, imported and compiled before they are forked, so that they share it."""

from __future__ import annotations

import importlib
import sys

MODULES = (
    "stpatch.pipeline.workers",
    "stpatch.pipeline.ingest",
    "stpatch.pipeline.normalize",
    "stpatch.pipeline.select",
    "stpatch.pipeline.crop",
    "stpatch.pipeline.plan",
    "stpatch.pipeline.shard",
    "stpatch.pipeline.cutter",
    "stpatch.pipeline.finalize",
    "stpatch.slides.canonical",
    "stpatch.slides.labels",
    "stpatch.expression.select",
    "stpatch.expression.statistics",
)


def preload() -> None:
    """Import the stages and load their compiled loops, or compile them."""
    from stpatch.pipeline.warm import KERNELS, compile_kernels
    from stpatch.slides.readers import registry

    for name in MODULES:
        importlib.import_module(name)
    for platform in registry.MODULES:
        registry.reader_of(platform)
    compile_kernels(tuple(KERNELS), announce=lambda text: print(text, file=sys.stderr, flush=True))  # noqa: T201
