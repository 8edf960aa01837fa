from __future__ import annotations

import pytest

from stpatch.expression import kernels
from stpatch.pipeline.warm import compile_kernels


@pytest.mark.parametrize("dtype", ["uint16", "uint32", "float32"])
def test_compiled_kernels_are_those_that_a_slide_needs(dtype):
    compile_kernels(counts_dtypes=(dtype,), announce=lambda _text: None)
    before = sum(kernels.sum_window.stats.cache_misses.values()), len(kernels.sum_window.signatures)
    compile_kernels(counts_dtypes=(dtype,), announce=lambda _text: pytest.fail("the kernels are in the cache"))
    assert (sum(kernels.sum_window.stats.cache_misses.values()), len(kernels.sum_window.signatures)) == before


def test_an_empty_cache_is_announced(tmp_path, monkeypatch):
    monkeypatch.setattr("stpatch.pipeline.warm.cache_folder", lambda: tmp_path)
    said: list[str] = []
    compile_kernels(announce=said.append)
    assert len(said) == 1
    assert "once" in said[0]
