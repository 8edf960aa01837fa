"""The gallery's own part: one tissue at four pitches holds the same counts."""

from __future__ import annotations

import numpy as np

from scripts.gallery import pitch_panels


def test_coarser_pixels_hold_the_same_counts() -> None:
    totals = np.random.default_rng(0).poisson(3, (13, 9)).astype(np.float32)
    panels = pitch_panels(totals)
    assert [panel.image.shape for panel in panels] == [(13, 9), (7, 5), (4, 3), (2, 2)]
    assert {float(np.nansum(panel.image)) for panel in panels} == {float(totals.sum())}
