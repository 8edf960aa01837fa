"""Each hot kernel against plain NumPy and SciPy doing the same on the same windows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from scripts.bench.limits import best


class Window:
    """One slide opened as the shard stage does it, and some of its windows in the stage's order."""

    def __init__(self, config: Path, slide_id: str, count: int) -> None:
        from stpatch.config_file import load_config
        from stpatch.pipeline.channels import read_channels
        from stpatch.pipeline.cutter import open_cutter
        from stpatch.pipeline.job import Job
        from stpatch.pipeline.shard import dataset_layout

        job = Job(load_config(config))
        channels = read_channels(job.channels_path)
        self.cutter = open_cutter(job, slide_id, channels=channels, layout=dataset_layout(job), categories={})
        patches = self.cutter.patches
        order = np.lexsort((patches.col, patches.row))
        self.positions = [int(i) for i in order[:: max(1, len(order) // count)][:count]]
        self.windows = [self.cutter.window(position) for position in self.positions]


def measure_baselines(config: Path, slide_id: str, *, count: int = 40) -> tuple[dict[str, dict[str, float]], list[Any]]:
    """Return microseconds a patch of each kernel, ours and plain, and the patches that came out."""
    opened = Window(config, slide_id, count)
    cutter, windows = opened.cutter, opened.windows
    image, rule = cutter.image, cutter.rule
    n_genes = len(rule.gene_ids)
    counts = sparse.csr_matrix((len(image.indptr) - 1, n_genes), dtype=image.data.dtype)
    counts.data, counts.indices, counts.indptr = image.data, image.indices, image.indptr
    rows = [_rows(image, window) for window in windows]
    totals = image.spot_totals
    choices = [rule.choose(window, number=i, draw=0) for i, window in enumerate(windows)]
    luts = [_lut(choice.positions, n_genes) for choice in choices]
    numbers = range(len(windows))
    channels = len(choices[0].positions)

    def plain_moments(i: int) -> Any:
        part = counts[rows[i][0]].astype(np.float64)
        part.data *= np.repeat(1e4 / totals[rows[i][0]], np.diff(part.indptr))
        np.log1p(part.data, out=part.data)
        mean = np.asarray(part.mean(axis=0)).ravel()
        part.data **= 2
        return np.asarray(part.mean(axis=0)).ravel() - mean**2

    variances = [plain_moments(i) for i in numbers]

    def plain_draw(i: int) -> Any:
        weights = np.maximum(variances[i], 0)
        return np.sort(np.random.default_rng(i).choice(n_genes, channels, replace=False, p=weights / weights.sum()))

    def plain_gather(i: int) -> Any:
        spots, places = rows[i]
        out = np.zeros((channels, windows[i][2] * windows[i][3]), np.uint16)
        out[:, places] = counts[spots][:, np.maximum(choices[i].positions, 0)].toarray().T
        return out

    measured = [rule.moments.measure(*windows[0])]
    pairs = {
        "moments": (lambda i: rule.moments.measure(*windows[i]), plain_moments),
        "draw": (lambda i: rule.rule.choose(measured[0], slide_id="a", number=i), plain_draw),
        "gather": (lambda i: image.gather(*windows[i], luts[i], channels), plain_gather),
    }
    found = {}
    for name, (ours, plain) in pairs.items():
        ours(0)
        found[name] = {
            "ours us": best(lambda call=ours: [call(i) for i in numbers], 5) / len(numbers) * 1e6,
            "plain us": best(lambda call=plain: [call(i) for i in numbers], 2) / len(numbers) * 1e6,
        }
    return found, [image.gather(*windows[i], luts[i], channels) for i in numbers]


def _rows(image: Any, window: tuple[int, int, int, int]) -> tuple[Any, Any]:
    """Return a window's spots and their pixels in it."""
    spots, places = [], []
    inside = image.window(*window)
    for row in range(inside.row, inside.end_row):
        for column in range(inside.col, inside.end_col):
            pixel = row * image.shape[1] + column
            for spot in image.pixel_spots[image.pixel_start[pixel] : image.pixel_start[pixel + 1]]:
                spots.append(spot)
                places.append((row - window[0]) * window[3] + column - window[1])
    return np.array(spots), np.array(places)


def _lut(positions: Any, n_genes: int) -> Any:
    from stpatch.pipeline.cutter import channel_of_gene

    return channel_of_gene(positions, n_genes)
