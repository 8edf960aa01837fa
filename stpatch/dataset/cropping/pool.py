"""The slides that a reader has open: their places without counts, and as images with them, a bounded number at once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stpatch.dataset.cropping.rule import ChannelRule
from stpatch.dataset.cropping.stored import ALL_GENES
from stpatch.dataset.entries import ShardEntry
from stpatch.dataset.formats.base import ByteRanges
from stpatch.dataset.formats.slides import SlideFiles
from stpatch.dataset.layout import Layout
from stpatch.dataset.planes import LABEL
from stpatch.errors import DatasetError, InputError
from stpatch.expression.window_channels import ChannelChoice, FixedChannels, PatchChannels
from stpatch.image.labels import label_plane
from stpatch.image.panel import PanelImage, panel_bytes
from stpatch.image.slide_image import SlideImage
from stpatch.image.tiles import coarsened
from stpatch.kernels.formula import Formula
from stpatch.kernels.window import Window

KEPT_PLACES = 32
"""Slides whose spots per pixel are kept, for the listing of windows."""


class Places(NamedTuple):
    """Where a slide's spots lie on the grid that is read.

    Attributes
    ----------
    pixel
        (spots,) int64 flat pixel, -1 for none.
    shape
        (rows, columns).
    """

    pixel: NDArray[np.int64]
    shape: tuple[int, int]

    def spots_per_pixel(self) -> NDArray[np.int32]:
        """Return (rows, columns) int32."""
        on = self.pixel[self.pixel >= 0]
        counts = np.bincount(on, minlength=self.shape[0] * self.shape[1])
        return counts.astype(np.int32).reshape(self.shape)


class SlideLibrary:
    """The stored slides of a split, by row of slides.parquet.

    Parameters
    ----------
    files
        Reads the dataset's files.
    shards
        The slides' entries of the manifest.
    layout
        The dataset's, as stored.
    folder
        The dataset's folder where it is a local one.
    pitch
        Pixels of the grid that is read are so many stored ones wide and high.
    """

    def __init__(
        self, files: ByteRanges, shards: Mapping[int, ShardEntry], *, layout: Layout, folder: Path | None, pitch: int
    ) -> None:
        self._files, self._shards, self._layout, self._folder, self.pitch = files, shards, layout, folder, pitch
        self._kept: OrderedDict[int, NDArray[np.int32]] = OrderedDict()

    @property
    def slides(self) -> list[int]:
        """The slides that are stored, as rows of slides.parquet."""
        return list(self._shards)

    def shard(self, slide: int) -> ShardEntry:
        """Return a slide's entry of the manifest."""
        return self._shards[slide]

    def path(self, slide: int) -> str:
        """Return the file of a slide's counts, from the dataset's folder."""
        return self._shards[slide].path

    def open(self, slide: int) -> SlideFiles:
        """Return a slide's files."""
        return SlideFiles(self._files, self._shards[slide], layout=self._layout, folder=self._folder)

    def places(self, slide: int, files: SlideFiles | None = None) -> Places:
        """Return where a slide's spots lie at the pitch that is read."""
        files = files or self.open(slide)
        pixels, shape = files.read("pixels").astype(np.int64), files.grid_shape
        inside = (pixels[:, 0] < shape[0]) & (pixels[:, 1] < shape[1]) & (pixels.min(axis=1, initial=0) >= 0)
        if not (inside | (pixels == -1).all(axis=1)).all():
            raise DatasetError("a slide's spots lie outside its grid", where=self._shards[slide].path, expected=shape)
        pixel = np.where(inside, pixels[:, 0] * shape[1] + pixels[:, 1], np.int64(-1))
        return Places(*(coarsened(pixel, shape, self.pitch) if self.pitch > 1 else (pixel, shape)))

    def spots_per_pixel(self, slide: int) -> NDArray[np.int32]:
        """Return a slide's (rows, columns) int32 spots of each pixel."""
        kept = self._kept.get(slide)
        if kept is None:
            kept = self._kept[slide] = self.places(slide).spots_per_pixel()
            while len(self._kept) > KEPT_PLACES:
                self._kept.popitem(last=False)
        return kept

    def largest_count(self, slide: int) -> float:
        """Return an upper bound of a pixel's count of one gene: the sum of its spots' largest counts."""
        files = self.open(slide)
        places, largest = self.places(slide, files), files.read("largest").astype(np.float64)
        on = places.pixel >= 0
        return float(np.bincount(places.pixel[on], weights=largest[on]).max(initial=0))

    def labels(self, slide: int, names: tuple[str, ...]) -> dict[str, NDArray[np.int16]]:
        """Return a slide's (rows, columns) label maps."""
        files = self.open(slide)
        places = self.places(slide, files)
        return {name: label_plane(files.read(f"{LABEL}{name}"), places.pixel, shape=places.shape) for name in names}


@dataclass(frozen=True, kw_only=True, eq=False)
class OpenSlide:
    """A slide in memory, ready to be cut.

    Attributes
    ----------
    image
        Its counts.
    gene_ids
        (genes,) int32 vocabulary ids.
    panel
        Its counts of fixed channels, one dense row per pixel, where that takes no more memory than its counts.
    choose
        Returns the channels of a window, its number and draw; one for each thread, as it has buffers.
    labels
        (rows, columns) int16 by label map.
    """

    image: SlideImage
    gene_ids: NDArray[np.int32]
    panel: PanelImage | None
    choose: Callable[[Window, int, int], ChannelChoice]
    labels: Mapping[str, NDArray[np.int16]]

    @property
    def nbytes(self) -> int:
        """Bytes in memory or mapped."""
        maps = sum(plane.nbytes for plane in self.labels.values())
        return self.image.counts_nbytes + self.image.nbytes + (self.panel.nbytes if self.panel else 0) + maps


class SlidePool:
    """Keeps the slides that were used last.

    Parameters
    ----------
    library
        Where they are stored.
    rule
        How channels are chosen.
    recipes
        By row of slides.parquet, how counts become values.
    slide_ids
        By row of slides.parquet.
    slides
        How many are kept at once.
    labels
        Names of the label maps.
    pad_id
        The gene id that stands for no gene.
    """

    def __init__(
        self,
        library: SlideLibrary,
        *,
        rule: ChannelRule,
        recipes: Mapping[int, Formula],
        slide_ids: list[str],
        slides: int,
        labels: tuple[str, ...],
        pad_id: int,
    ) -> None:
        self.library, self._rule, self._recipes, self._slide_ids = library, rule, recipes, slide_ids
        self.slides, self._labels, self._pad_id = slides, labels, pad_id
        self._kept: OrderedDict[int, OpenSlide] = OrderedDict()
        self._local = threading.local()

    def get(self, slide: int) -> OpenSlide:
        """Return a slide; this thread's own where it has buffers."""
        opened = self._kept.get(slide)
        if opened is None:
            opened = self._open(slide)
            kept = OrderedDict(self._kept)  # another thread may be looking through the old one
            kept[slide] = opened
            while len(kept) > self.slides:
                kept.popitem(last=False)
            self._kept = kept
        if self._rule.method is not None:
            return self._of_thread(slide, opened)
        return opened

    @property
    def nbytes(self) -> int:
        """Bytes of the slides that are kept, in memory or mapped."""
        return sum(opened.nbytes for opened in self._kept.values())

    def forget(self) -> None:
        """Let go of all slides."""
        self._kept = OrderedDict()
        self._local = threading.local()

    def _of_thread(self, slide: int, opened: OpenSlide) -> OpenSlide:
        mine: dict[int, tuple[OpenSlide, OpenSlide]] = self._local.__dict__.setdefault("slides", {})
        found = mine.get(slide)
        if found is None or found[0] is not opened:
            for gone in [other for other in mine if other not in self._kept]:
                del mine[gone]
            image = replace(opened.image)
            found = mine[slide] = (opened, replace(opened, image=image, choose=self._chooser(slide, image, opened)))
        return found[1]

    def _chooser(self, slide: int, image: SlideImage, opened: OpenSlide) -> Callable[[Window, int, int], ChannelChoice]:
        rule = PatchChannels(
            self._rule.sampler(opened.gene_ids, self._candidates(slide)),
            image,
            pad_id=self._pad_id,
            gene_ids=opened.gene_ids,
            slide_id=self._slide_ids[slide],
        )
        return lambda window, number, draw: rule.choose(window, number=number, draw=draw)

    def _candidates(self, slide: int) -> NDArray[np.int32] | None:
        if self._rule.candidates is not None or not self._rule.as_stored:
            return self._rule.candidates
        stored = self.library.open(slide).read("channels")
        return None if stored.tolist() == [ALL_GENES] else stored

    def _open(self, slide: int) -> OpenSlide:
        files = self.library.open(slide)
        where = f"slide {self._slide_ids[slide]}"
        places = self.library.places(slide, files)
        gene_ids = files.read("gene_ids").astype(np.int32)
        counts, genes, indptr = files.read("counts"), files.read("genes"), files.read("indptr")
        used = int(indptr[-1]) if len(indptr) else 0
        if not 0 <= used <= len(counts):
            raise DatasetError("a slide's row pointers do not fit its values", where=where, found=used)
        try:
            image = SlideImage.of(
                (counts[:used], genes[:used], indptr),
                n_genes=len(gene_ids),
                totals=files.read("totals"),
                grid_pixel=places.pixel,
                grid_shape=places.shape,
                collisions="sum",
                recipe=self._recipes[slide],
            )
        except InputError as error:
            raise DatasetError(
                error.what, where=where, found=error.found, expected=error.expected,
                hint="fetch the dataset's files again, or build it again",
            ) from error  # fmt: skip
        labels = {
            name: label_plane(files.read(f"{LABEL}{name}"), places.pixel, shape=places.shape) for name in self._labels
        }
        panel, choose = None, _none
        if self._rule.panel is not None or self._rule.by_slide:
            wanted = files.read("channels").astype(np.int32) if self._rule.by_slide else self._rule.panel
            fixed = FixedChannels(np.asarray(wanted), gene_ids).choice
            panel = self._panel(image, fixed.positions, files)
            choose = lambda _window, _number, _draw: fixed  # noqa: E731
        return OpenSlide(image=image, gene_ids=gene_ids, panel=panel, choose=choose, labels=labels)

    def _panel(self, image: SlideImage, genes: NDArray[np.int32], files: SlideFiles) -> PanelImage | None:
        narrow = self.library.pitch == 1 and files.read("largest").max(initial=0) <= np.iinfo(np.uint8).max
        narrow = narrow and int(np.diff(image.arrays.pixel_start).max(initial=0)) <= 1
        dtype = np.dtype(np.uint8) if narrow else image.count_dtype
        if panel_bytes(image, len(genes), dtype) > image.counts_nbytes:
            return None
        panel = PanelImage(image, genes, dtype=dtype)
        panel.fill()
        return panel


def _none(_window: Window, _number: int, _draw: int) -> ChannelChoice:
    raise RuntimeError("a patch rule belongs to a thread: it is asked through the pool, not through the slide alone")
