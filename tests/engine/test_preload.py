from __future__ import annotations

import sys

from stpatch.engine.preload import preload


def test_what_workers_share_can_be_imported():
    preload()
    for name in ("stages.cutter", "expression.select", "slides.canonical", "image.slide_image", "kernels.window_sums"):
        assert f"stpatch.{name}" in sys.modules
