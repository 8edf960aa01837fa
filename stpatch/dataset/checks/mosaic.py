"""What all samples together say of a slide and of the genes, against their rows in the tables.

Patches of one slide are pieces of one image. Where they overlap, and in all draws of one patch, totals and labels must
be the same. Where they cover the slide (as many pixels with counts as spots), the sums over the pieces are the slide's:
its median total, the digest of its spots. Where no pixel is covered twice, sums of a channel are bounded by the sums of
its gene, and equal to them where the slides are covered and the panel is one for all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpatch.dataset.formats.base import Arrays
from stpatch.dataset.manifest import Manifest
from stpatch.dataset.planes import GENES, LABEL_KIND, NO_LABEL, TOTALS, X
from stpatch.slides.digests import section_digests

LARGEST_IMAGE = 1 << 25
"""Pixels of a slide that are kept, as float32; what is larger is not put together."""
_ROUNDING = 1e-6


class Mosaic:
    """Collects samples, and says what is wrong with the whole.

    A slide's image is let go of with its last sample, so that those of one mixing group are there at a time.

    Parameters
    ----------
    manifest
        The manifest.
    slides
        Rows of slides.parquet by slide_id.
    panel
        (C,) gene ids of the channels where the scope is panel; else None.
    largest
        The largest gene id, the pad's included.
    """

    def __init__(
        self,
        manifest: Manifest,
        *,
        slides: Mapping[str, Mapping[str, Any]],
        panel: NDArray[np.int32] | None,
        largest: int,
    ) -> None:
        self._manifest = manifest
        self._slides = slides
        self._panel = panel
        self._images: dict[str, dict[str, NDArray[Any]]] = {}
        self._left = {slide_id: int(slide["patches"]) for slide_id, slide in slides.items()}
        self._pieces = dict.fromkeys(slides, 0)
        self._names = [TOTALS, *(plane.name for plane in manifest.layout.planes if plane.kind == LABEL_KIND)]
        self._sums = np.zeros((3, largest + 1)) if manifest.values == "counts" else None
        fit_on = str(manifest.channels.get("fit_on", "all"))
        self._fit = {slide_id for slide_id, slide in slides.items() if fit_on in ("all", slide["split"])}
        # Whether every slide that chooses is shown whole, and whether none of its pixels is shown twice.
        self._all_whole = fit_on == "all" or all(slide["split"] is not None for slide in slides.values())
        self._all_once = True

    def add(self, arrays: Arrays, row: Mapping[str, Any]) -> Iterator[str]:
        """Lay a sample over what is there; yield where the two differ, and what is wrong with a slide at its last."""
        slide_id = str(row["slide_id"])
        slide = self._slides[slide_id]
        images = self._images.setdefault(slide_id, {})
        if slide["rows"] * slide["cols"] <= LARGEST_IMAGE:
            for name in self._names:
                array = arrays[name]
                if name not in images:
                    nothing = np.nan if array.dtype.kind == "f" else NO_LABEL - 1
                    images[name] = np.full((slide["rows"], slide["cols"]), nothing, array.dtype)
                yield from _lay(images[name], array, int(row["row"]), int(row["col"]), name)
        if int(row.get("draw", 0)) == 0:
            self._pieces[slide_id] += int((arrays[TOTALS] > 0).sum())
            if self._sums is not None and slide_id in self._fit:
                self._add_sums(arrays, self._sums)
        self._left[slide_id] -= 1
        if not self._left[slide_id]:
            yield from self._close(slide)

    def finish(self, genes: Mapping[str, NDArray[Any]]) -> Iterator[tuple[str, str]]:
        """Yield (table and row, what is wrong) of genes, when all samples are there.

        Parameters
        ----------
        genes
            Columns of genes.parquet: gene_id, n_detected, sum_counts, sum_squared_counts.
        """
        if self._sums is None or not self._all_once:
            return
        left_out = any("left out" in note for note in self._manifest.dataset.get("notes", []))
        shown = all(self._slides[slide_id]["patches"] > 0 for slide_id in self._fit)
        ids = genes["gene_id"]
        exact = np.zeros(len(ids), bool)
        if self._panel is not None and self._all_whole and shown and not left_out:
            exact = np.isin(ids, self._panel)
        for name, sums in zip(("n_detected", "sum_counts", "sum_squared_counts"), self._sums, strict=True):
            found, told = sums[ids], genes[name].astype(np.float64)
            wrong = found > told * (1 + _ROUNDING)
            wrong |= exact & (np.abs(found - told) > _ROUNDING * np.maximum(told, 1))
            if wrong.any():
                row = int(np.flatnonzero(wrong)[0])
                yield f"genes.parquet, row {row}", f"{name} is {told[row]:g}, the samples have {found[row]:g}"

    def _add_sums(self, arrays: Arrays, sums: NDArray[np.float64]) -> None:
        x = arrays[X].reshape(len(arrays[X]), -1).astype(np.float64)
        genes = self._panel if self._panel is not None else arrays[GENES]
        for out, values in zip(sums, (x > 0, x, x * x), strict=True):
            np.add.at(out, genes, values.sum(axis=1))

    def _close(self, slide: Mapping[str, Any]) -> Iterator[str]:
        """Yield what is wrong with a slide whose samples are all there."""
        image = self._images.pop(slide["slide_id"]).get(TOTALS)
        counted = -1 if image is None else int((image > 0).sum())
        whole = counted == slide["spots"]  # every spot is shown, one on each pixel, all with counts
        if slide["slide_id"] in self._fit:
            self._all_whole &= whole
            self._all_once &= counted == self._pieces[slide["slide_id"]]
        if counted > slide["spots"]:
            yield f"{counted} pixels of the slide have counts, but slides.parquet tells of {slide['spots']} spots"
        elif image is not None and whole:
            yield from _of_whole(slide, image[image > 0].astype(np.float64), self._manifest)


def _lay(image: NDArray[Any], piece: NDArray[Any], row: int, col: int, name: str) -> Iterator[str]:
    """Write a piece into an image; yield where it differs from what is there, or lies beside it and is not empty."""
    top, left = max(row, 0), max(col, 0)
    bottom, right = min(row + piece.shape[0], image.shape[0]), min(col + piece.shape[1], image.shape[1])
    inner = piece[top - row : max(bottom - row, 0), left - col : max(right - col, 0)]
    empty = 0 if piece.dtype.kind == "f" else NO_LABEL
    if (piece != empty).sum() != (inner != empty).sum():
        yield f"{name} has values beside the slide's grid"
    there = image[top:bottom, left:right]
    seen = ~np.isnan(there) if image.dtype.kind == "f" else there >= NO_LABEL
    if there.shape == inner.shape:
        if (there[seen] != inner[seen]).any():
            yield f"{name} differs from that of another sample of the same place"
        there[...] = inner


def _of_whole(slide: Mapping[str, Any], totals: NDArray[np.float64], manifest: Manifest) -> Iterator[str]:
    """Yield where what follows from all totals of a slide is not what its row says."""
    target = slide["target_sum"]
    if manifest.normalization.get("target_sum") == "slide_median" and target is not None:
        median = float(np.median(totals))
        if not math.isclose(median, target, rel_tol=_ROUNDING):
            yield f"target_sum of slides.parquet is {target:g}, the median of the samples' totals is {median:g}"
    told = slide.get("digest_spots")
    exact = (totals < 2**24).all() and (totals == np.round(totals)).all()  # float32 holds them as they were
    if told and exact:
        found = section_digests(names=[], gene_sums=np.empty(0), spot_sums=totals).spots
        if found != told:
            yield "digest_spots of slides.parquet is not that of the samples' totals"
