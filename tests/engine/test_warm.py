from __future__ import annotations

import importlib

import pytest

from stpatch.engine.preload import preload
from stpatch.engine.warm import KERNELS, compile_kernels


def state():
    """Return each stage's compiled loops: how many types, how many were not in the cache."""
    kernels = [getattr(importlib.import_module(module), name) for module, name in KERNELS.values()]
    return [(len(kernel.signatures), sum(kernel.stats.cache_misses.values())) for kernel in kernels]


@pytest.mark.parametrize("dtype", ["uint16", "uint32", "float32"])
def test_compiled_kernels_are_those_that_a_slide_needs(dtype):
    stages = tuple(KERNELS)
    compile_kernels(stages, counts_dtype=dtype, announce=lambda _text: None)
    before = state()
    compile_kernels(stages, counts_dtype=dtype, announce=lambda _text: pytest.fail("the kernels are in the cache"))
    assert state() == before


def test_an_empty_cache_is_announced_once(monkeypatch):
    monkeypatch.setattr("stpatch.engine.warm.is_cached", lambda _stage: False)
    said: list[str] = []
    compile_kernels(("ingest", "normalize"), announce=said.append)
    assert len(said) == 1
    assert "once" in said[0]


def test_what_workers_share_can_be_imported():
    preload()
