"""The channels of a slide's windows: a fixed list of genes, or what a patch rule chooses in each window."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stpatch.expression.sample import PatchSampler
from stpatch.image.moments import Moments
from stpatch.image.slide_image import SlideImage
from stpatch.kernels.window import Window


@dataclass(frozen=True, kw_only=True)
class ChannelChoice:
    """The channels of one sample.

    Attributes
    ----------
    positions
        (C,) int32 position in the slide's genes, -1 where the slide did not measure the channel (or it is padding).
    ids
        (C,) int32 gene ids.
    """

    positions: NDArray[np.int32]
    ids: NDArray[np.int32]


class FixedChannels:
    """The panel, or the slide's own list: the same channels for every patch.

    Parameters
    ----------
    wanted
        (C,) int32 gene ids of the channels.
    gene_ids
        (genes,) int32 vocabulary id of each of the slide's genes, -1 for a gene outside the vocabulary.
    """

    def __init__(self, wanted: NDArray[np.int32], gene_ids: NDArray[np.int32]) -> None:
        known = np.flatnonzero(gene_ids >= 0)
        known = known[np.argsort(gene_ids[known], kind="stable")]
        place = np.minimum(np.searchsorted(gene_ids[known], wanted), max(len(known) - 1, 0))
        found = np.isin(wanted, gene_ids[known])
        positions = np.full(len(wanted), -1, np.int32)
        positions[found] = known[place[found]]
        self.choice = ChannelChoice(positions=positions, ids=wanted)


class PatchChannels:
    """A patch rule: the channels of each patch are chosen by what lies in it.

    Parameters
    ----------
    rule
        Over the slide's genes that are in the vocabulary.
    image
        The slide, all measured genes.
    pad_id
        The gene id that stands for no gene.
    gene_ids
        As for `FixedChannels`.
    slide_id
        The slide, by which draws are keyed.
    """

    def __init__(
        self, rule: PatchSampler, image: SlideImage, *, pad_id: int, gene_ids: NDArray[np.int32], slide_id: str
    ) -> None:
        self.rule, self.image, self.pad_id = rule, image, pad_id
        self.gene_ids, self.slide_id = gene_ids, slide_id
        self.known = np.flatnonzero(gene_ids >= 0).astype(np.int32)
        self._window: Window | None = None
        self._moments: Moments | None = None

    def choose(self, window: Window, *, number: int, draw: int) -> ChannelChoice:
        """Return the patch's channels, by ascending gene id, padding last."""
        chosen = self.rule.choose(self._measured(window), slide_id=self.slide_id, number=number, draw=draw)
        positions = self.known[chosen]
        ids = self.gene_ids[positions]
        if chosen[-1] < 0:  # pads come last
            pads = chosen < 0
            positions[pads], ids[pads] = -1, self.pad_id
        return ChannelChoice(positions=positions, ids=ids)

    def _measured(self, window: Window) -> Moments:
        """Return the moments of the window's known genes; the draws of one window measure it once."""
        if self._moments is None or window != self._window:
            moments = self.image.moments(window)
            # genes outside the vocabulary are never channels
            self._moments = moments if len(self.known) == len(self.gene_ids) else moments.of_genes(self.known)
            self._window = window
        return self._moments
