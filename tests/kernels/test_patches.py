from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stpatch.image.values import PatchNormalizer
from stpatch.kernels.formula import METHODS, Formula

COUNTS = st.one_of(st.integers(0, 20), st.sampled_from([0, 15, 16, 17, 255, 65535]))


@settings(max_examples=60, deadline=None)
@given(
    counts=st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 5)).flatmap(
        lambda shape: arrays(np.uint16, shape, elements=COUNTS)
    ),
    method=st.sampled_from(sorted(METHODS)),
    wide=st.booleans(),
)
def test_values_are_computed_in_double_precision_and_rounded_once(counts: np.ndarray, method: str, wide: bool) -> None:
    counts = counts.astype(np.uint32) if wide else counts
    totals = counts.sum(axis=0, dtype=np.float64).astype(np.float32)
    out = np.full(counts.shape, np.nan, np.float32)
    PatchNormalizer().write(counts, totals, Formula(method=METHODS[method], target_sum=1e4), out=out)
    shares = np.divide(counts * 1e4, totals, out=np.zeros(counts.shape), where=totals > 0)
    expected = {"none": counts * 1.0, "total": shares, "log1p_total": np.log1p(shares), "sqrt_total": np.sqrt(shares)}
    np.testing.assert_array_max_ulp(out, expected[method].astype(np.float32), maxulp=1)


@pytest.mark.parametrize("pixels", [(70, 70), (16, 16)])
def test_large_patches_and_one_normalizer_for_several(pixels: tuple[int, int]) -> None:
    normalizer = PatchNormalizer()
    for shape in ((3, *pixels), (2, 4, 4), (3, *pixels)):
        counts = np.random.default_rng(1).integers(0, 40, shape).astype(np.uint16)
        totals = counts.sum(axis=0).astype(np.float32)
        out = np.empty(shape, np.float32)
        normalizer.write(counts, totals, Formula(method=METHODS["log1p_total"], target_sum=1e4), out=out)
        expected = np.log1p(counts * (1e4 / np.maximum(totals.astype(np.float64), 1)))
        np.testing.assert_array_max_ulp(out, expected.astype(np.float32), maxulp=1)
