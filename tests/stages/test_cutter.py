"""How a slide is prepared for cutting."""

from __future__ import annotations

import numpy as np
import pytest
from bundles.images import make_image

from stpatch.image.panel import panel_bytes
from stpatch.kernels.window import Window
from stpatch.stages.cutter import _panel

GENES = np.arange(60, dtype=np.int32)


@pytest.mark.parametrize(("largest", "dtype"), [(255, np.uint8), (256, np.uint16), (65535, np.uint16)])
def test_a_panel_is_as_narrow_as_the_largest_count_allows(largest: int, dtype: type) -> None:
    counts = np.ones((4, 600), np.uint16)
    counts[2, 3] = largest
    image = make_image(counts, [0, 1, 2, 3], (2, 2))
    panel = _panel(image, GENES, largest=largest)
    assert panel is not None
    assert panel.nbytes == panel_bytes(image, len(GENES), np.dtype(dtype))
    assert panel.counts(Window(0, 0, 2, 2))[3].tolist() == [[1, 1], [largest, 1]]


def test_a_panel_takes_no_more_than_half_of_the_counts_memory() -> None:
    sparse = np.zeros((40, 600), np.uint16)
    sparse[:, :5] = 1
    assert _panel(make_image(sparse, range(40), (5, 8)), GENES, largest=1) is None


def test_means_and_values_keep_their_dtype() -> None:
    counts = np.ones((4, 600), np.uint16)
    assert _panel(make_image(counts, [0, 1, 2, 3], (2, 2), "mean"), GENES, largest=1) is None
    values = make_image(np.full((4, 600), 0.5, np.float32), [0, 1, 2, 3], (2, 2))
    panel = _panel(values, GENES, largest=0.5)
    assert panel is not None
    assert panel.counts(Window(0, 0, 2, 2)).dtype == np.float32
