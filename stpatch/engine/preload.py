"""What all workers need, imported and compiled before they are forked, so that they share it."""

from __future__ import annotations

import importlib
import pkgutil
import sys

ROOMS = ("stages", "expression", "image", "kernels", "slides")
"""The rooms whose modules units run in; many are imported only where they are used."""


def preload() -> None:
    """Import what the stages use and every reader, and load the compiled loops, or compile them."""
    from stpatch.engine.graph import STAGES
    from stpatch.kernels.registry import compile_kernels
    from stpatch.slides.readers import registry

    importlib.import_module("stpatch.engine.workers")
    for stage in STAGES.values():
        stage.load()
    for room in ROOMS:
        package = importlib.import_module(f"stpatch.{room}")
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    for platform in registry.MODULES:
        registry.reader_of(platform)
    compile_kernels(tuple(STAGES), announce=lambda text: print(text, file=sys.stderr, flush=True))  # noqa: T201
