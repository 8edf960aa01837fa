"""The page: everything that the report shows, put together and rendered."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stpatch.dataset.manifest import Manifest
from stpatch.errors import DatasetError, MissingExtraError
from stpatch.views.build_table import note_lines
from stpatch.views.describe import summary
from stpatch.views.preview import patch_picture, pick_slides
from stpatch.views.report import charts
from stpatch.views.report.audit import audit_splits
from stpatch.views.report.cards import slide_card
from stpatch.views.report.facts import SlideFacts, slide_facts
from stpatch.views.report.maps import MapsOf, SlideMaps, Wanted, maps_from_patches
from stpatch.views.report.pixels import category_colours
from stpatch.views.report.samples import Looks, PatchCard, even, look, patch_card, spread_rows
from stpatch.views.report.text import FILTERS
from stpatch.views.whole import Whole

_FOLDER = Path(__file__).parent
_OPEN = 3
"""Slides whose details are open from the start; the others open by a click."""
_GENES_SHOWN = 30
_PIXELS = 6_000_000
"""Pixels of all maps together: where many large slides are shown, each is drawn smaller."""
_MIDDLE_POINTS = 1500
_CURVES = 6
"""Slides with a saturation curve of their own."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the report shows.

    Attributes
    ----------
    slides
        How many slides are shown in detail; the table has all.
    patches
        How many patches there are to step through.
    looks
        How many patches are read for the distributions.
    gene, label
        What the maps show; "" = the gene that varies most, and the first label.
    """

    slides: int = 24
    patches: int = 18
    looks: int = 300
    gene: str = ""
    label: str = ""


def report(
    folder: Path,
    *,
    options: Options | None = None,
    maps_of: MapsOf | None = None,
    rebuild: Sequence[str] = (),
    settings: str = "",
) -> str:
    """Return the report of a dataset as one HTML page that loads nothing.

    Parameters
    ----------
    folder
        The dataset's folder.
    options
        What to show.
    maps_of
        Where more is known of a slide than its patches hold, as in a work dir.
    rebuild
        The commands that make the dataset again.
    settings
        The config, as text, where it is known.

    Raises
    ------
    DatasetError
        There is no dataset, it is damaged, or it has no such gene or label.
    MissingExtraError
        Jinja2 or matplotlib is not installed.
    """
    page = _environment().get_template("page.html.j2")
    options = options or Options()
    whole = Whole(folder)
    try:
        context = _context(whole, options, maps_of)
    finally:
        whole.close()
    text: str = page.render(
        **context,
        rebuild=list(rebuild),
        settings=settings,
        style=(_FOLDER / "page.css").read_text(encoding="utf-8"),
        script=(_FOLDER / "page.js").read_text(encoding="utf-8"),
    )
    return text


def _environment() -> Any:
    try:
        import jinja2
    except ImportError as error:
        raise MissingExtraError.of("report", needs="jinja2", purpose="a report") from error
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,  # names of slides and genes are whatever a samplesheet says
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(FILTERS)
    return environment


def _context(whole: Whole, options: Options, maps_of: MapsOf | None) -> dict[str, Any]:
    manifest, patches = whole.manifest, whole.patches
    facts = slide_facts(whole.slides, patches)
    wanted, gene_name = _wanted(whole, options)
    by_slide = dict(list(patches.groupby("slide_id", sort=False)))
    shown = _chosen(facts, options.slides)
    most = int(np.clip(np.sqrt(_PIXELS / max(4 * len(shown), 1)), 96, 320))
    seen: list[tuple[SlideFacts, SlideMaps]] = []
    saturation: dict[str, Any] = {"all slides": charts.saturation(whole.genes["sum_counts"].to_numpy(dtype=np.float64))}
    for fact in shown:
        own = by_slide.get(fact.slide_id, patches.iloc[:0])
        maps = maps_of(fact.slide_id, own, wanted) if maps_of is not None else None
        maps = maps or maps_from_patches(whole, fact.slide_id, own, wanted)
        if maps.gene_sums is not None and len(saturation) <= _CURVES:
            saturation[fact.slide_id] = charts.saturation(maps.gene_sums)
        seen.append((fact, maps))
    categories = _categories(manifest.labels.get(wanted.label, ()), [maps for _, maps in seen])
    cards = [
        slide_card(
            fact, maps, gene=gene_name, label=wanted.label, categories=categories, splits=whole.splits, most=most,
            crop=manifest.crop, is_open=number < _OPEN,
        )
        for number, (fact, maps) in enumerate(seen)
    ]  # fmt: skip
    group_of = {fact.slide_id: fact.group for fact in facts}
    looks = look(whole, spread_rows(patches, options.looks), group_of)
    metadata = [fact.metadata for fact in facts]
    splits_of = {fact.slide_id: fact.splits for fact in facts}
    return {
        "manifest": manifest,
        "summary": summary(whole),
        "facts": facts,
        "cards": cards,
        "notes": notes_of(manifest.dataset, facts),
        "splits": _split_rows(whole, facts),
        "crosses": [
            cross
            for what in ("platform", "organism", "tissue")
            if (cross := _cross(whole.splits, facts, patches, what)) is not None
        ],
        "audit": audit_splits(whole.slides_with_digests, metadata, splits_of),
        "charts": _charts(whole, facts, looks, saturation),
        "looks": looks,
        "frequency": _frequency(whole, looks, group_of),
        "panel": _panel(whole),
        "steps": _patch_cards(whole, options.patches),
        "totals": _totals(facts, manifest),
        "gene": gene_name,
        "label": wanted.label,
        "many": len(facts) > len(cards),
        "first_split": next((name for name, split in manifest.splits.items() if split.patches), ""),
    }


def _categories(names: Sequence[str], maps: Sequence[SlideMaps]) -> list[tuple[str, str]]:
    """Return each category's name and colour, the same on all slides."""
    numbers = np.zeros(len(names), np.int64)
    for one in maps:
        if one.label is not None:
            numbers += np.bincount(one.label[one.label >= 0], minlength=len(names))
    return list(zip(names, category_colours(numbers), strict=True))


def _wanted(whole: Whole, options: Options) -> tuple[Wanted, str]:
    """Return what the maps show, and the gene's name."""
    genes, labels = whole.genes, whole.manifest.labels
    if options.label and options.label not in labels:
        raise DatasetError(
            "the dataset has no such label",
            where=whole.folder,
            found=options.label,
            expected=", ".join(labels) or "a dataset with labels (ingest.labels)",
        )
    label = options.label or next(iter(labels), "")
    if options.gene:
        gene_id = whole.gene_id(options.gene)
        return Wanted(gene_id=gene_id, label=label), options.gene
    usable = genes[genes["channel"].notna()] if whole.manifest.scope == "panel" else genes
    usable = usable[usable["n_slides"] == usable["n_slides"].max()]
    if usable.empty:
        return Wanted(gene_id=None, label=label), ""
    best = usable.loc[usable["var_normalized"].fillna(0).idxmax()]
    return Wanted(gene_id=int(best["gene_id"]), label=label), str(best["name"])


def _chosen(facts: Sequence[SlideFacts], most: int) -> list[SlideFacts]:
    """Return the slides to show in detail: all, or those most worth a look and as many spread over splits."""
    if len(facts) <= most:
        return list(facts)
    worst = sorted(facts, key=lambda fact: -fact.worth())[: most // 3]
    taken = {fact.slide_id for fact in worst if fact.worth() > 0}
    table = pd.DataFrame(
        {
            "slide_id": [fact.slide_id for fact in facts],
            "split": ["+".join(fact.splits) for fact in facts],
            "platform": [fact.group for fact in facts],
        }
    )
    rest = table[~table["slide_id"].isin(taken)].reset_index(drop=True)
    taken |= set(pick_slides(rest, most - len(taken)))
    return [fact for fact in facts if fact.slide_id in taken]


def notes_of(dataset: Mapping[str, Any], facts: Sequence[SlideFacts]) -> list[str]:
    """Return the dataset's notes and the slides', one for all slides whose notes differ by numbers alone."""
    own = [str(note) for note in dataset.get("notes", ())]
    shapes: dict[str, str] = {}
    texts: dict[str, set[str]] = {}
    pairs: list[tuple[str, str]] = []
    for fact in facts:
        for note in fact.notes:
            shape = re.sub(r"\d[\d.,]*", "#", note.replace(fact.slide_id, "*"))
            pairs.append((fact.slide_id, shapes.setdefault(shape, note)))
            texts.setdefault(shapes[shape], set()).add(note)
    pairs = [(slide_id, f"such as: {note}" if len(texts[note]) > 1 else note) for slide_id, note in pairs]
    return own + note_lines(pairs)


def _split_rows(whole: Whole, facts: Sequence[SlideFacts]) -> list[dict[str, Any]]:
    rows = []
    for name, split in whole.manifest.splits.items():
        own = whole.patches[whole.patches["split"] == name]
        rows.append(
            {
                "name": name,
                "slides": sum(name in fact.splits for fact in facts),
                "patches": split.patches,
                "spots": split.spots,
                "shards": len(split.shards),
                "bytes": split.bytes,
                "coverage": float(own["coverage"].median()) if len(own) else None,
            }
        )
    return rows


def _cross(
    splits: Sequence[str], facts: Sequence[SlideFacts], patches: pd.DataFrame, what: str
) -> dict[str, Any] | None:
    """Return patches by split and by a fact of the slides; None where all slides share one value."""
    value_of = {fact.slide_id: str(getattr(fact, what)) for fact in facts}
    values = list(dict.fromkeys(value_of.values()))
    if len(values) < 2:
        return None
    numbers = patches.assign(value=patches["slide_id"].map(value_of)).groupby(["value", "split"]).size().to_dict()
    rows = [(value, [int(numbers.get((value, split), 0)) for split in splits]) for value in values]
    rows.sort(key=lambda row: -sum(row[1]))
    return {"what": what, "rows": rows[:40], "more": max(len(rows) - 40, 0)}


def _charts(whole: Whole, facts: Sequence[SlideFacts], looks: Looks, saturation: Mapping[str, Any]) -> list[Any]:
    patches = whole.patches
    by_split = {name: patches.loc[patches["split"] == name] for name in whole.splits}
    platforms = sorted({fact.platform for fact in facts})  # one order, and so one colour each, on all charts
    depth: dict[str, list[float]] = {name: [] for name in platforms}
    for fact in facts:
        if fact.depth is not None:
            depth[fact.platform].append(fact.depth)
    detected: dict[str, list[float]] = {name: [] for name in platforms}
    seen: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in platforms}
    platform_of = {fact.group: fact.platform for fact in facts}
    for group, number, counts in zip(looks.groups, looks.detected.tolist(), looks.counts.tolist(), strict=True):
        detected[platform_of[group]].append(number)
        x, y = seen[platform_of[group]]
        if counts > 0 and len(x) < _MIDDLE_POINTS:
            x.append(counts)
            y.append(number)
    n_looks = len(looks.keys)
    stored = "a count" if whole.manifest.values == "counts" else "a value"
    drawn = [
        (
            "Coverage",
            "How much of a patch is tissue.",
            charts.histogram(
                {name: rows["coverage"].to_numpy() for name, rows in by_split.items()},
                label="share of pixels with a spot", what="patches",
            ),
        ),
        (
            "Spots per patch",
            "What a patch is made of.",
            charts.histogram(
                {name: rows["n_spots"].to_numpy() for name, rows in by_split.items()}, label="spots", what="patches"
            ),
        ),
        (
            "Depth",
            "Counts per spot that stayed after QC, one value per slide.",
            charts.histogram(
                {name: np.array(values) for name, values in depth.items()},
                label="counts per spot (log)", what="slides", log=True, bins=20,
            ),
        ),
        (
            "Genes per patch",
            f"Channels with {stored} in the patch, of {whole.manifest.layout.shape[0]}; {n_looks:,} patches read.",
            charts.histogram(
                {name: np.array(values) for name, values in detected.items()}, label="channels", what="patches"
            ),
        ),
        (
            "Counts and genes",
            "Where the points still rise, deeper sequencing would show more genes.",
            charts.points(seen, label="counts in the patch (log)", what="channels with a count", log=True),
        ),
        (
            "Saturation",
            "Genes that would be seen with a share of the counts; flat at the right means saturated.",
            charts.curves(saturation, label="share of the counts (log)", what="genes seen", log=True),
        ),
    ]  # fmt: skip
    return [(title, text, svg) for title, text, svg in drawn if svg is not None]


def _frequency(whole: Whole, looks: Looks, group_of: Mapping[str, str]) -> dict[str, Any] | None:
    """Return how often the rule took each of the genes that it took most, by platform and tissue.

    The share is None where no slide of a group measured the gene: that is not a zero.
    """
    if not looks.drawn:
        return None
    groups = list(looks.drawn)[:8]
    measured = _measured_by(whole, group_of)
    sizes = {group: looks.groups.count(group) for group in groups}
    genes: dict[int, float] = {}
    for group in groups:
        for gene, number in looks.drawn[group].items():
            genes[gene] = max(genes.get(gene, 0.0), number / sizes[group])
    top = sorted(genes, key=lambda gene: (-genes[gene], gene))[:_GENES_SHOWN]
    names = whole.gene_names
    rows = [
        (
            names.get(gene, str(gene)),
            [looks.drawn[group].get(gene, 0) / sizes[group] if measured[group][gene] else None for group in groups],
        )
        for gene in top
    ]
    return {"groups": groups, "sizes": sizes, "rows": rows, "genes": len(genes)}


def _measured_by(whole: Whole, group_of: Mapping[str, str]) -> dict[str, NDArray[np.bool_]]:
    """Return by group (largest gene id + 1,) whether any of its slides measured a gene."""
    found: dict[str, NDArray[np.bool_]] = {}
    for slide_id, packed in zip(whole.slides["slide_id"], whole.slides["measured"], strict=True):
        mask = np.unpackbits(np.frombuffer(packed, np.uint8), bitorder="little").astype(bool)
        group = group_of[str(slide_id)]
        found[group] = found[group] | mask if group in found else mask
    return found


def _panel(whole: Whole) -> list[dict[str, Any]]:
    """Return the first channels of a fixed panel with what genes.parquet says of them."""
    if whole.manifest.scope != "panel":
        return []
    genes = whole.genes[whole.genes["channel"].notna()].sort_values("channel").head(_GENES_SHOWN)
    return [
        {
            "name": row["name"],
            "mean": float(row["mean_normalized"]),
            "variance": float(row["var_normalized"]),
            "detected": row["n_detected"] / row["n_spots"] if row["n_spots"] else 0.0,
            "slides": int(row["n_slides"]),
        }
        for row in genes.to_dict("records")
    ]


def _patch_cards(whole: Whole, most: int) -> list[PatchCard]:
    chosen = even(spread_rows(whole.patches, 4 * most), most)
    pairs = zip(chosen["key"], chosen["slide_id"], strict=True)
    return [patch_card(patch_picture(whole, str(key)), slide_id=str(slide_id)) for key, slide_id in pairs]


def _totals(facts: Sequence[SlideFacts], manifest: Manifest) -> dict[str, Any]:
    def total(name: str) -> float | None:
        values = [fact.number(name) for fact in facts]
        return sum(values) if values and all(value is not None for value in values) else None

    return {
        "slides": len(facts),
        "patches": manifest.patches,
        "spots": sum(fact.spots for fact in facts),
        "bytes": manifest.bytes,
        "shards": manifest.totals.shards,
        "counts_in": total("counts_in"),
        "counts_kept": total("counts_kept"),
        "spots_in": total("spots_in"),
        "spots_kept": total("spots_kept"),
    }
