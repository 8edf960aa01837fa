"""Each hot kernel against what a careful user of NumPy and SciPy writes, on the same windows."""

from __future__ import annotations

import hashlib
import io
import tarfile
import warnings
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from scripts.bench.corpus import slide_ids
from scripts.bench.limits import best, measure_limits
from scripts.bench.prototype import Prototype
from scripts.bench.stages import folders_of, measure_stage, sheet_of

WINDOWS = 40
TARGET = 1e4

Pair = tuple[Callable[[int], Any], Callable[[int], Any]]
"""A kernel and its plain version, both of a window's number."""
COMPARED = ("moments", "gather", "gather, panel")
"""Kernels whose plain versions give the same numbers, which is checked before anything is timed."""


class Opened:
    """A planned build's first slide, opened as the shard stage does it, and windows in that stage's order."""

    def __init__(self, config: Path) -> None:
        from stpatch.config_file import load_config
        from stpatch.slides.store import open_counts
        from stpatch.stages.channels import read_channels
        from stpatch.stages.cutter import open_cutter
        from stpatch.stages.job import Job
        from stpatch.stages.shard import dataset_layout

        self.job = Job(load_config(config))
        self.slide_id = slide_ids(sheet_of(config))[0]
        self.layout = dataset_layout(self.job)
        channels = read_channels(self.job.channels_path)
        self.cutter = open_cutter(self.job, self.slide_id, channels=channels, layout=self.layout, categories={})
        patches = self.cutter.patches
        order = np.lexsort((patches.col, patches.row))
        self.positions = [int(i) for i in order[:: max(1, len(order) // WINDOWS)][:WINDOWS]]
        self.windows = [self.cutter.window(position) for position in self.positions]
        self.view = open_counts(self.job.slide_path(self.slide_id))
        self.spots = [spots_of(self.cutter.image, window) for window in self.windows]

    @cached_property
    def counts(self) -> sparse.csr_matrix:
        """The slide's counts as SciPy holds them after reading: in memory, both index arrays int32."""
        from stpatch.stages.crop import read_cut

        view, n_genes = self.view, len(read_cut(self.job.patches_path(self.slide_id)).gene_ids)
        parts = (np.array(view.data), view.indices.astype(np.int32), view.indptr.astype(np.int32))
        return sparse.csr_matrix(parts, shape=(len(view.indptr) - 1, n_genes))

    @property
    def window_bytes(self) -> float:
        """Mean bytes of stored counts in a window: a value and an index each."""
        stored = self.view.data.dtype.itemsize + self.view.indices.dtype.itemsize
        lengths = np.diff(self.view.indptr)
        return float(np.mean([lengths[spots].sum() for spots, _ in self.spots])) * stored

    def samples(self) -> list[Any]:
        """Return the windows' samples."""
        return [self.cutter.cut(position, 0) for position in self.positions]


def measure_kernels(patch_config: Path, panel_config: Path, machine: dict[str, float]) -> dict[str, Any]:
    """Return microseconds of each kernel, ours and plain, and for both rules the limits and a prototype's patches/s.

    Parameters
    ----------
    patch_config, panel_config
        Planned builds of one corpus.
    machine
        As `measure_machine` found it.
    """
    of_patch, of_panel = Opened(patch_config), Opened(panel_config)
    samples, panel_samples = of_patch.samples(), of_panel.samples()
    pairs = {
        **rule_pairs(of_patch),
        "gather, panel": panel_pair(of_panel),
        "encode": encode_pair(samples),
        "tar": tar_pair(of_patch, samples),
    }
    kernels = {}
    if pairs["encode"][0](0) != pairs["encode"][1](0):
        raise RuntimeError("our frame differs from the library's")
    for name, (ours, plain) in pairs.items():
        if name in COMPARED:
            np.testing.assert_allclose(ours(0).ravel(), plain(0).ravel(), rtol=1e-6, atol=1e-9, err_msg=name)
        kernels[name] = {
            "ours us": _each(ours, 5),
            "plain us": _each(plain, 2),
        }
    kernels["normalize, a slide"] = slide_moments(of_patch)
    kernels["ingest, a slide"] = ingest(patch_config)
    yardstick = Prototype(
        of_patch.counts, of_patch.cutter.image.spot_totals, of_patch.spots, *_channels_and_pixels(samples[0])
    )
    return {
        "kernels": kernels,
        "prototype": {"patch": yardstick.patch_rule(), "panel": yardstick.panel(of_panel.cutter.rule.choice.positions)},
        "frame bytes": frame_bytes(samples),
        "limits": {
            "patch": measure_limits(machine, [sample.x for sample in samples], of_patch.window_bytes),
            "panel": measure_limits(
                machine, [sample.x for sample in panel_samples], reduced_bytes(of_panel, panel_samples)
            ),
        },
    }


def reduced_bytes(opened: Opened, samples: list[Any]) -> float:
    """Return the mean bytes of the panel's stored counts in a window."""
    stored = opened.view.data.dtype.itemsize + opened.view.indices.dtype.itemsize
    return float(np.mean([np.count_nonzero(sample.x) for sample in samples])) * stored


def rule_pairs(opened: Opened) -> dict[str, Pair]:
    """Return the steps of the per-patch rule: moments of a window, the draw, the chosen genes' counts."""
    cutter, windows, spots, counts = opened.cutter, opened.windows, opened.spots, opened.counts
    image, rule, n_genes = cutter.image, cutter.rule, counts.shape[1]
    scales = TARGET / image.spot_totals
    choices = [rule.choose(window, number=i, draw=0) for i, window in enumerate(windows)]
    channels = len(choices[0].positions)
    room = np.empty((channels + 1, *windows[0][2:]), opened.layout.dtype)  # one for all, as in the stage

    def plain_moments(i: int) -> Any:
        rows = spots[i][0]
        part = counts[rows].astype(np.float64)
        values = np.log1p(part.data * np.repeat(scales[rows], np.diff(part.indptr)))
        sums = np.bincount(part.indices, values, n_genes) / len(rows)
        return np.bincount(part.indices, values * values, n_genes) / len(rows) - sums * sums

    variances = [plain_moments(i) for i in range(len(windows))]

    def plain_draw(i: int) -> Any:
        weights = np.maximum(variances[i], 0)
        return np.sort(np.random.default_rng(i).choice(n_genes, channels, replace=False, p=weights / weights.sum()))

    def plain_gather(i: int) -> Any:
        rows, places = spots[i]
        out = np.zeros((channels, windows[i][2] * windows[i][3]), np.uint16)
        out[:, places] = counts[rows][:, np.maximum(choices[i].positions, 0)].toarray().T
        return out

    measured = rule.moments.measure(*windows[0])
    return {
        "moments": (lambda i: rule.moments.measure(*windows[i]).variance, plain_moments),
        "draw": (lambda i: rule.rule.choose(measured, slide_id="a", number=i), plain_draw),
        "gather": (lambda i: image.gather(*windows[i], choices[i].positions, room=room), plain_gather),
    }


def panel_pair(opened: Opened) -> Pair:
    """Return the gather of a panel's genes from a slide that was reduced to them once, beforehand in both versions."""
    cutter, windows, spots = opened.cutter, opened.windows, opened.spots
    positions = cutter.rule.choice.positions
    reduced = opened.counts[:, np.maximum(positions, 0)]

    def plain(i: int) -> Any:
        rows, places = spots[i]
        out = np.zeros((len(positions), windows[i][2] * windows[i][3]), np.uint16)
        out[:, places] = reduced[rows].toarray().T
        return out

    room = np.empty((len(positions), *windows[0][2:]), opened.layout.dtype)
    return lambda i: cutter.panel.gather(*windows[i], out=room), plain


def encode_pair(samples: list[Any]) -> Pair:
    """Return our frame and the library's, whose bytes are the same."""
    from numcodecs import Blosc, blosc

    from stpatch.dataset.codecs import encode

    codec = Blosc("lz4", 5, Blosc.BITSHUFFLE)
    blosc.use_threads = False
    return lambda i: encode(samples[i].x), lambda i: codec.encode(samples[i].x)


def frame_bytes(samples: list[Any]) -> dict[str, float]:
    """Return the mean bytes of a frame, and of one by the default codec of numcodecs: Blosc, LZ4, bytes shuffled."""
    from numcodecs import Blosc

    from stpatch.dataset.codecs import encode

    sizes = {"ours": lambda x: len(encode(x)), "plain": lambda x: len(Blosc().encode(x))}
    return {name: float(np.mean([size(sample.x) for sample in samples])) for name, size in sizes.items()}


def tar_pair(opened: Opened, samples: list[Any]) -> Pair:
    """Return the writing of a sample's members, with the SHA-256 of what is written."""
    from stpatch.dataset.formats.tar import TarShard
    from stpatch.registry import FORMATS

    members = [FORMATS.get("tar").encode(sample, opened.layout) for sample in samples]

    def plain(i: int) -> Any:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for name, data in members[i].items():
                info = tarfile.TarInfo(f"{samples[i].key}.{name}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        return hashlib.sha256(buffer.getvalue()).hexdigest()

    def ours(i: int) -> Any:
        shard = TarShard(io.BytesIO())
        shard.add(samples[i].key, members[i])
        return shard.finish()

    return ours, plain


def slide_moments(opened: Opened) -> dict[str, float]:
    """Time the stage normalize's pass over a slide: moments of counts and of normalized values."""
    from stpatch.expression.statistics import slide_statistics
    from stpatch.slides.store import read_slide

    slide = read_slide(opened.job.slide_path(opened.slide_id))
    counts, totals = opened.counts, opened.cutter.image.spot_totals

    def plain() -> Any:
        values = counts.astype(np.float64)
        values.data *= np.repeat(TARGET / totals, np.diff(values.indptr))
        np.log1p(values.data, out=values.data)
        raw = counts.astype(np.float64)
        return [(part.sum(axis=0), part.power(2).sum(axis=0), part.getnnz(axis=0)) for part in (raw, values)]

    normalization = opened.cutter.normalization
    return {
        "ours us": best(lambda: slide_statistics(slide, normalization=normalization), 2) * 1e6,
        "plain us": best(plain, 1) * 1e6,
    }


def ingest(config: Path) -> dict[str, float]:
    """Time the stage ingest, checksums included, against reading, summing and writing with anndata."""
    import anndata

    sheet = sheet_of(config)
    path = sheet.with_name(f"{slide_ids(sheet)[0]}.h5ad")
    target = folders_of(config)[1] / "plain.h5ad"
    run = measure_stage(config, "ingest")

    def plain() -> None:
        slide = anndata.read_h5ad(path)
        slide.obs["totals"] = np.asarray(slide.X.sum(axis=1)).ravel()
        slide.var["totals"] = np.asarray(slide.X.sum(axis=0)).ravel()
        slide[slide.obs["totals"] > 0].copy().write_h5ad(target)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seconds = best(plain, 2)
    target.unlink()
    return {"ours us": run["seconds"] / run["units"] * 1e6, "plain us": seconds * 1e6}


def spots_of(image: Any, window: tuple[int, int, int, int]) -> tuple[Any, Any]:
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


def _channels_and_pixels(sample: Any) -> tuple[int, int]:
    return sample.x.shape[0], sample.totals.size


def _each(call: Callable[[int], object], repeats: int) -> float:
    return best(lambda: [call(i) for i in range(WINDOWS)], repeats) / WINDOWS * 1e6
