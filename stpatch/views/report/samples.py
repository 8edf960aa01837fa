"""A few patches of every kind: what the rule draws, how many genes a patch holds, and patches to step through."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stpatch.views.montage import spread
from stpatch.views.patch import PatchPicture, telling_channels
from stpatch.views.report.pixels import Image, scale_image
from stpatch.views.whole import Whole


@dataclass(frozen=True, kw_only=True)
class Looks:
    """What was seen of some patches.

    Attributes
    ----------
    keys, groups
        (patches,) their keys and the group of each: platform and tissue.
    detected
        (patches,) int64, channels with a count.
    counts
        (patches,) float64, counts over all genes.
    drawn
        Group -> {gene id: patches of the group that have it as a channel}.
    """

    keys: tuple[str, ...]
    groups: tuple[str, ...]
    detected: NDArray[np.int64]
    counts: NDArray[np.float64]
    drawn: Mapping[str, Mapping[int, int]]


def spread_rows(patches: pd.DataFrame, most: int) -> pd.DataFrame:
    """Return up to `most` rows, evenly spread over slides first and over each slide then."""
    if len(patches) <= most:
        return patches
    turn = patches.groupby("slide_id", sort=False).cumcount()
    size = patches.groupby("slide_id", sort=False)["key"].transform("size")
    # the k-th of n rows of a slide comes at a place that halves the gaps: 0, 1/2, 1/4, 3/4, ...
    order = pd.Series(_halving((turn / size).to_numpy(dtype=np.float64)), index=patches.index)
    chosen = patches.assign(_order=order).sort_values("_order", kind="stable").head(most).index
    return patches.loc[sorted(chosen)]


def _halving(places: NDArray[np.float64], bits: int = 12) -> NDArray[np.float64]:
    """Return van der Corput's numbers: places of [0, 1) with their binary digits turned round."""
    whole = (places * (1 << bits)).astype(np.int64)
    turned = np.zeros_like(whole)
    for bit in range(bits):
        turned |= ((whole >> bit) & 1) << (bits - 1 - bit)
    return turned / (1 << bits)


def look(whole: Whole, rows: pd.DataFrame, group_of: Mapping[str, str]) -> Looks:
    """Read some patches and note what they hold.

    Parameters
    ----------
    rows
        Rows of the patch table.
    group_of
        The group of each slide.
    """
    keys, groups, detected, counts = [], [], [], []
    drawn: dict[str, dict[int, int]] = {}
    pad = whole.manifest.pad_id
    for row in rows[["key", "split", "slide_id"]].to_dict("records"):
        sample = whole.sample(row["key"], split=row["split"])
        group = group_of[row["slide_id"]]
        keys.append(row["key"])
        groups.append(group)
        detected.append(int((sample.x != 0).any(axis=(1, 2)).sum()))
        counts.append(float(sample.totals.sum()))
        if whole.manifest.scope != "panel" and sample.genes is not None:
            own = drawn.setdefault(group, {})
            for gene in sample.genes.tolist():
                if gene != pad:
                    own[gene] = own.get(gene, 0) + 1
    return Looks(
        keys=tuple(keys),
        groups=tuple(groups),
        detected=np.array(detected, np.int64),
        counts=np.array(counts, np.float64),
        drawn=drawn,
    )


@dataclass(frozen=True, kw_only=True)
class ChannelImage:
    """One channel of a patch."""

    name: str
    image: Image


@dataclass(frozen=True, kw_only=True)
class PatchCard:
    """A patch to step to: its place, its totals and the channels that vary most."""

    key: str
    slide_id: str
    split: str
    note: str
    images: Sequence[ChannelImage]


def patch_card(picture: PatchPicture, *, slide_id: str, channels: int = 7) -> PatchCard:
    """Return a patch's images, its total counts first."""
    on = picture.totals > 0
    totals = np.where(on, np.log10(1 + picture.totals.astype(np.float64)), np.nan)
    images = [ChannelImage(name="total counts (log)", image=scale_image(totals, cmap="magma", most=64))]
    for c in telling_channels(picture, channels).tolist():
        values = np.where(on, picture.x[c].astype(np.float64), np.nan)
        images.append(ChannelImage(name=picture.names[c], image=scale_image(values, cmap="viridis", most=64, floor=0)))
    note = " \u00b7 ".join(picture.note.splitlines())
    return PatchCard(key=picture.key, slide_id=slide_id, split=picture.split, note=note, images=images)


def even(rows: pd.DataFrame, most: int) -> pd.DataFrame:
    """Return up to `most` rows, evenly over the table."""
    return rows.iloc[spread(len(rows), most)]
