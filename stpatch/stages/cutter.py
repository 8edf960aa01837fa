"""One slide's samples: the slide mapped into memory, its grid, its channels, and the patches cut from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stpatch.dataset.layout import Layout
from stpatch.dataset.sample import NO_LABEL, Sample, label_name
from stpatch.errors import ConfigError
from stpatch.expression.normalize import Normalization
from stpatch.expression.sample import PatchSampler
from stpatch.expression.statistics import SlideStatistics
from stpatch.expression.window_channels import ChannelChoice, FixedChannels, PatchChannels
from stpatch.image.crop import Patches
from stpatch.image.grid import Grid
from stpatch.image.labels import label_plane
from stpatch.image.panel import PanelImage, panel_bytes
from stpatch.image.slide_image import SlideImage
from stpatch.kernels.window import Window
from stpatch.slides.store import open_counts, read_labels
from stpatch.stages.channels import Channels
from stpatch.stages.crop import read_cut
from stpatch.stages.job import Job
from stpatch.stages.plan import sample_key
from stpatch.storage import release_pages

Rooms = dict[tuple[int, ...], NDArray[Any]]
"""Memory by shape, for the counts of one patch after the other."""

LEAST_OVERLAP = 3.0
"""Windows that lie on a pixel on average, for a panel's image to be made: with fewer, its rows are not read often
enough to pay for their filling."""
LARGEST_HALF = float(np.finfo(np.float16).max)


@dataclass(frozen=True, kw_only=True)
class Cutter:
    """Cuts the samples of one slide.

    Attributes
    ----------
    image
        The slide, all measured genes.
    panel
        The slide reduced to fixed channels, where windows overlap enough and it takes no more than half of its counts'
        memory.
    rule
        How channels are chosen.
    labels
        Label name -> (rows, columns) int16 over the whole grid.
    """

    slide_id: str
    image: SlideImage
    panel: PanelImage | None
    grid: Grid
    patches: Patches
    rule: FixedChannels | PatchChannels
    layout: Layout
    draws: int
    values: str
    labels: Mapping[str, NDArray[np.int16]] = field(default_factory=dict)

    def cut(self, position: int, draw: int, *, rooms: Rooms | None = None) -> Sample:
        """Return the sample of a patch (its position in the slide's list) and draw.

        With `rooms`, its `x` may lie in memory that the next cut into them overwrites: fresh memory for every patch
        costs more than its counts.
        """
        number = int(self.patches.number[position])
        window = self.window(position)
        if isinstance(self.rule, PatchChannels):
            choice = self.rule.choose(window, number=number, draw=draw)
        else:
            choice = self.rule.choice
        meta: dict[str, Any] = {
            "slide_id": self.slide_id,
            "row": window.row,
            "col": window.col,
            "n_spots": int(self.patches.n_spots[position]),
        }
        if self.draws > 1:
            meta["draw"] = draw
        return Sample(
            key=sample_key(self.slide_id, number, draw, draws=self.draws),
            x=self._values(window, choice, rooms),
            totals=self.image.totals(window),
            genes=choice.ids if self.layout.genes else None,
            labels={name: window.cut(plane, outside=NO_LABEL) for name, plane in self.labels.items()},
            meta=meta,
        )

    @property
    def nbytes(self) -> int:
        """Bytes that the cutter holds in memory, the mapped counts aside."""
        return self.image.nbytes + (0 if self.panel is None else self.panel.nbytes)

    def rest(self) -> None:
        """Give back the mapped counts' memory until the next cut."""
        arrays = self.image.arrays
        release_pages(arrays.data, arrays.indices, arrays.indptr)

    def window(self, position: int) -> Window:
        """Return a patch's window."""
        patches = self.patches
        return Window(
            row=int(patches.row[position]),
            col=int(patches.col[position]),
            height=int(patches.height[position]),
            width=int(patches.width[position]),
        )

    def _values(self, window: Window, choice: ChannelChoice, rooms: Rooms | None) -> NDArray[Any]:
        genes = choice.positions
        if self.values == "counts":
            room = self._room((len(genes) + 1, window.height, window.width), rooms)
            if self.panel is not None:
                return self.panel.counts(window, out=room[: len(genes)])
            return self.image.counts(window, genes, out=room)
        if self.panel is not None:
            values = self.image.values_of(self.panel.counts(window), window, genes)
        else:
            values = self.image.values(window, genes)
        if self.layout.dtype == "float16" and (largest := float(np.abs(values).max(initial=0))) > LARGEST_HALF:
            raise ConfigError(
                "a value is larger than float16 holds",
                where=f"slide {self.slide_id}, patch at row {window.row}, col {window.col}, key shards.dtype",
                found=f"{largest:g}",
                expected=f"at most {LARGEST_HALF:g}",
                hint="set shards.dtype: float32, or a smaller normalize.target_sum",
            )
        return values.astype(self.layout.dtype, copy=False)

    def _room(self, shape: tuple[int, ...], rooms: Rooms | None) -> NDArray[Any]:
        if rooms is None:
            return np.empty(shape, self.layout.dtype)
        if shape not in rooms:
            rooms.clear()  # one at a time: slides as single samples differ in shape
            rooms[shape] = np.empty(shape, self.layout.dtype)
        return rooms[shape]


def open_cutter(
    job: Job, slide_id: str, *, channels: Channels, layout: Layout, categories: Mapping[str, list[str]]
) -> Cutter:
    """Map a slide and prepare its channels and label maps."""
    config, path = job.config, job.slide_path(slide_id)
    view, cut = open_counts(path), read_cut(job.patches_path(slide_id))
    image = SlideImage.of(
        (view.data, view.indices, view.indptr),
        n_genes=len(cut.gene_ids),
        totals=job.totals(slide_id)["totals"],
        grid_pixel=cut.grid.pixel,
        grid_shape=cut.grid.shape,
        collisions=config.grid.collisions,
        recipe=_normalization(job, slide_id).recipe,
    )
    gene_ids = cut.gene_ids
    wanted = channels.panel if channels.slide_panels is None else channels.slide_panels[slide_id]
    rule: FixedChannels | PatchChannels
    panel = None
    if wanted is not None:
        rule = FixedChannels(wanted, gene_ids)
        largest = job.receipt("crop", slide_id).facts["largest_count"]
        panel = _panel(image, rule.choice.positions, largest=largest, overlap=_overlap(cut.patches, cut.grid))
    else:
        rule = _patch_rule(job, slide_id, image, channels, gene_ids)
    return Cutter(
        slide_id=slide_id,
        image=image,
        panel=panel,
        grid=cut.grid,
        patches=cut.patches,
        rule=rule,
        layout=layout,
        draws=config.channels.draws,
        values=config.shards.values,
        labels=label_planes(read_labels(path), cut.grid, categories) if categories else {},
    )


def _panel(image: SlideImage, genes: NDArray[np.int32], *, largest: float, overlap: float) -> PanelImage | None:
    """Return the slide reduced to a panel, if that is worth its time and memory.

    Parameters
    ----------
    largest
        No count of a pixel is above it.
    overlap
        How many windows lie on a pixel on average.
    """
    narrow = image.count_dtype.kind != "f" and largest <= np.iinfo(np.uint8).max
    dtype = np.dtype(np.uint8) if narrow else image.count_dtype
    if image.collisions == "mean" or overlap < LEAST_OVERLAP:
        return None
    if panel_bytes(image, len(genes), dtype) > image.counts_nbytes // 2:
        return None
    return PanelImage(image, genes, dtype=dtype)


def _overlap(patches: Patches, grid: Grid) -> float:
    return float((patches.height.astype(np.int64) * patches.width).sum()) / (grid.shape[0] * grid.shape[1])


def _patch_rule(
    job: Job,
    slide_id: str,
    image: SlideImage,
    channels: Channels,
    gene_ids: NDArray[np.int32],
) -> PatchChannels:
    known = gene_ids[gene_ids >= 0]
    candidates = None if channels.candidates is None else np.isin(known, channels.candidates)
    section = job.config.channels
    rule = PatchSampler(
        method=section.method,
        n=section.n,
        gene_ids=known,
        gene_keys=channels.keys_of(known),
        candidates=candidates,
        seed=job.config.dataset.seed,
    )
    return PatchChannels(rule, image, pad_id=channels.pad_id, gene_ids=gene_ids, slide_id=slide_id)


def _normalization(job: Job, slide_id: str) -> Normalization:
    section = job.config.normalize
    if section.method == "pearson_residuals":
        return SlideStatistics.load(job.statistics_path(slide_id)).normalization
    target_sum = job.receipt("normalize", slide_id).facts["target_sum"]
    return Normalization(method=section.method, target_sum=target_sum, theta=section.theta)


def label_planes(labels: pd.DataFrame, grid: Grid, categories: Mapping[str, list[str]]) -> dict[str, NDArray[np.int16]]:
    """Return each label as a (rows, columns) int16 map of category numbers, -1 where a pixel has none."""
    codes = label_codes(labels, categories, n_spots=len(grid.pixel))
    return {name: label_plane(of_spots, grid.pixel, shape=grid.shape) for name, of_spots in codes.items()}


def label_codes(
    labels: pd.DataFrame, categories: Mapping[str, list[str]], *, n_spots: int
) -> dict[str, NDArray[np.int16]]:
    """Return each spot's category number by label map, -1 where it has none."""
    return {
        label_name(name): pd.Categorical(labels[name].astype(object), categories=known).codes.astype(np.int16)
        if name in labels
        else np.full(n_spots, NO_LABEL, np.int16)
        for name, known in categories.items()
    }
