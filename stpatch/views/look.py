"""What `inspect` draws: the panels of a patch, of a slide and of a shard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stpatch.errors import DatasetError
from stpatch.views.montage import spread
from stpatch.views.panels import Panel, scale_panel
from stpatch.views.patch import PatchPicture, telling_channels
from stpatch.views.preview import patch_picture
from stpatch.views.report.maps import MapsOf, SlideMaps, Wanted, maps_from_patches
from stpatch.views.report.pixels import category_colours
from stpatch.views.report.windows import KEPT
from stpatch.views.whole import Whole


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What to draw beside the total counts.

    Attributes
    ----------
    genes
        Names or Ensembl ids; () = the strongest channels of a patch, or the gene that varies most on a slide.
    label
        Name of a label; "" = the first there is.
    n
        How many of the strongest channels.
    """

    genes: tuple[str, ...] = ()
    label: str = ""
    n: int = 8


def patch_panels(whole: Whole, key: str, choice: Choice, *, maps_of: MapsOf | None = None) -> list[Panel]:
    """Return a patch as its total counts, its mask, its labels, its place in its slide, and some channels.

    Raises
    ------
    DatasetError
        There is no such key, gene, channel or label.
    """
    picture, row = patch_picture(whole, key), whole.row_of(key)
    sample = whole.sample(key, split=row["split"])
    pitch = _pitch(whole, str(row["slide_id"]))
    on = picture.totals > 0
    panels = [
        _totals("total counts", picture.totals, pitch_um=pitch),
        Panel(title="mask", image=np.where(on, 0.0, 1.0), colours=("#4a4f57", "#eef0f2"), names=("spot", "no spot")),
    ]
    for name in [choice.label] if choice.label else list(whole.manifest.labels)[:1]:
        if name not in sample.labels:
            raise _no_label(whole, name)
        panels.append(_label(name, sample.labels[name], whole.manifest.labels[name]))
    panels.append(_place(whole, row, picture, maps_of))
    return panels + channel_panels(picture, _chosen(whole, picture, sample.genes, choice), unit=_unit(whole))


def channel_panels(picture: PatchPicture, channels: Sequence[int], *, unit: str) -> list[Panel]:
    """Return some channels of a patch."""
    on = picture.totals > 0
    return [
        scale_panel(picture.names[c], np.where(on, picture.x[c].astype(np.float64), np.nan), unit=unit)
        for c in channels
    ]


def slide_panels(whole: Whole, slide_id: str, choice: Choice, *, maps_of: MapsOf | None = None) -> list[Panel]:
    """Return a slide as its total counts, some genes, its labels, and its windows.

    Raises
    ------
    DatasetError
        There is no such slide, gene or label.
    """
    if slide_id not in set(whole.slides["slide_id"]):
        raise DatasetError(
            "there is no such slide", where=whole.folder, found=slide_id, expected="a slide_id of slides.parquet"
        )
    if choice.label and choice.label not in whole.manifest.labels:
        raise _no_label(whole, choice.label)
    label = choice.label or next(iter(whole.manifest.labels), "")
    names = choice.genes or _most_varying(whole)
    pitch = _pitch(whole, slide_id)
    panels: list[Panel] = []
    for name in names or ("",):
        maps = _maps(whole, slide_id, Wanted(gene_id=whole.gene_id(name) if name else None, label=label), maps_of)
        on = maps.totals > 0
        if not panels:
            panels.append(_totals("total counts", maps.totals, pitch_um=pitch))
        if maps.gene is not None:
            gene = np.where(on, maps.gene.astype(np.float64), np.nan)
            panels.append(scale_panel(name, gene, unit="counts", pitch_um=pitch))
        elif choice.genes:
            panels.append(
                Panel(title=f"{name}: not measured", image=np.full(maps.totals.shape, np.nan), cmap="viridis")
            )
    if maps.label is not None:
        panels.append(_label(label, maps.label, whole.manifest.labels[label]))
    kept = [tuple(box) for box, why in zip(maps.windows.boxes.tolist(), maps.windows.why, strict=True) if why == KEPT]
    boxes = kept if maps.windows.boxes.size and maps.windows.boxes[:, 2].max() > 1 else []
    ground = np.where(on, 0.0, np.nan)
    panels.append(
        Panel(title=f"{len(kept)} windows", image=ground, colours=("#b3bac3",), names=("spot",), boxes=tuple(boxes))
    )
    return panels


def shard_panels(whole: Whole, shard: str, *, most: int = 40) -> list[Panel]:
    """Return the total counts of some of a shard's samples, evenly spread.

    Parameters
    ----------
    shard
        As patches.parquet has it, or the file's name.

    Raises
    ------
    DatasetError
        There is no such shard.
    """
    rows = whole.rows_of_shard(shard)
    panels = []
    for key, split in rows.iloc[spread(len(rows), most)][["key", "split"]].itertuples(index=False):
        panels.append(_totals(str(key), whole.sample(str(key), split=str(split)).totals))
    return panels


def _totals(title: str, totals: NDArray[np.float32], *, pitch_um: float | None = None) -> Panel:
    image = np.where(totals > 0, totals.astype(np.float64), np.nan)
    return scale_panel(title, image, cmap="magma", unit="counts", floor=None, pitch_um=pitch_um)


def _label(name: str, codes: NDArray[np.int16], categories: Sequence[str]) -> Panel:
    there, numbers = np.unique(codes[codes >= 0], return_counts=True)
    order = there[np.argsort(-numbers, kind="stable")]
    colours = category_colours(np.bincount(codes[codes >= 0].astype(np.int64), minlength=len(categories)))
    image = np.full(codes.shape, np.nan)
    for place, code in enumerate(order.tolist()):
        image[codes == code] = place
    return Panel(
        title=f"label {name}",
        image=image,
        colours=tuple(colours[code] for code in order.tolist()) or ("#b3bac3",),
        names=tuple(categories[code] for code in order.tolist()) or ("none",),
    )


def _place(whole: Whole, row: object, picture: PatchPicture, maps_of: MapsOf | None) -> Panel:
    place: dict[str, object] = dict(row)  # type: ignore[call-overload]
    slide_id = str(place["slide_id"])
    maps = _maps(whole, slide_id, Wanted(gene_id=None, label=""), maps_of)
    height, width = picture.totals.shape
    box = (int(str(place["row"])), int(str(place["col"])), height, width)
    image = np.where(maps.totals > 0, maps.totals.astype(np.float64), np.nan)
    return scale_panel(
        f"place in {slide_id}", image, cmap="magma", unit="counts", floor=None, boxes=[box],
        pitch_um=_pitch(whole, slide_id),
    )  # fmt: skip


def _maps(whole: Whole, slide_id: str, wanted: Wanted, maps_of: MapsOf | None) -> SlideMaps:
    patches = whole.patches[whole.patches["slide_id"] == slide_id]
    maps = maps_of(slide_id, patches, wanted) if maps_of is not None else None
    return maps or maps_from_patches(whole, slide_id, patches, wanted)


def _chosen(whole: Whole, picture: PatchPicture, genes: NDArray[np.int32] | None, choice: Choice) -> list[int]:
    if not choice.genes:
        return [int(c) for c in telling_channels(picture, choice.n)]
    chosen = []
    for name in choice.genes:
        channel = np.flatnonzero(np.asarray(genes) == whole.gene_id(name))
        if not len(channel):
            held = [picture.names[c] for c in telling_channels(picture, 5)]
            raise DatasetError(
                "the patch does not have this gene among its channels",
                where=picture.key,
                found=name,
                expected=f"one of its {len(picture.names)} channels, such as {', '.join(held)}",
                hint="with channels.scope: patch every patch has genes of its own; --slide draws any gene of the slide",
            )
        chosen.append(int(channel[0]))
    return chosen


def _most_varying(whole: Whole) -> tuple[str, ...]:
    genes = whole.genes
    usable = genes[genes["n_slides"] == genes["n_slides"].max()]
    return (str(usable.loc[usable["var_normalized"].fillna(0).idxmax(), "name"]),) if len(usable) else ()


def _pitch(whole: Whole, slide_id: str) -> float | None:
    pitch = whole.slides.loc[whole.slides["slide_id"] == slide_id, "pitch_um"].iloc[0]
    return None if pitch is None or pd.isna(pitch) else float(pitch)


def _unit(whole: Whole) -> str:
    method = str(whole.manifest.normalization["method"])
    return "counts" if method == "none" else method


def _no_label(whole: Whole, name: str) -> DatasetError:
    return DatasetError(
        "the dataset has no such label",
        where=whole.folder,
        found=name,
        expected=", ".join(whole.manifest.labels) or "a dataset with labels (ingest.labels)",
    )
