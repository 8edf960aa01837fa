"""A dataset, or one of its patches, in words."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stpatch.errors import DatasetError
from stpatch.views.report.facts import slide_facts
from stpatch.views.whole import Whole
from stpatch.views.words import aligned, gene_table, slide_table, split_table


def describe_dataset(folder: Path) -> str:
    """Return what a dataset holds: facts, splits, slides, coverage, genes.

    Raises
    ------
    DatasetError
        There is no dataset, or it is damaged.
    """
    whole = Whole(folder)
    manifest, patches = whole.manifest, whole.patches
    dataset = manifest.dataset
    blocks = [
        f"{dataset['name']} {dataset['version']} ({folder})",
        str(dataset.get("description") or ""),
        summary(whole),
        _facts(whole),
        split_table(patches, whole.splits, {name: split.bytes for name, split in manifest.splits.items()}),
        slide_table(whole.slides, patches),
        _coverage(whole),
        _genes(whole),
    ]
    if manifest.labels:
        labels = [[name, len(categories), _list(list(categories))] for name, categories in manifest.labels.items()]
        blocks.append(aligned(["label", "categories", "names"], labels))
    return "\n\n".join(block for block in blocks if block)


def describe_patch(folder: Path, key: str, *, most: int = 12) -> str:
    """Return what a patch holds: its place, its spots, its strongest channels, and what its slide did not measure.

    Parameters
    ----------
    most
        How many channels to list.

    Raises
    ------
    DatasetError
        There is no such key; the message names the nearest.
    """
    whole = Whole(folder)
    try:
        row = whole.row_of(key)
        sample = whole.sample(key, split=row["split"])
        names = whole.names_of(sample, split=row["split"])
        measured = whole.split(row["split"]).measured(key)
    finally:
        whole.close()
    totals = sample.totals
    occupied = totals > 0
    channels, height, width = sample.x.shape
    real = np.array([bool(name) for name in names])
    unmeasured = [name for name, is_real, known in zip(names, real, measured, strict=True) if is_real and not known]
    counts = f"{totals[occupied].sum():.0f} over all genes" if occupied.any() else "none"
    facts = [
        ["slide", f"{row['slide_id']} (split {row['split']})"],
        ["place", f"row {row['row']}, col {row['col']}; {height} x {width} pixels"],
        ["spots", f"{row['n_spots']} on {occupied.sum()} pixels, {100 * row['coverage']:.0f}% covered"],
        ["counts", counts + (f"; median {np.median(totals[occupied]):.0f} a pixel" if occupied.any() else "")],
        ["channels", f"{channels}: {_many(int(real.sum()), 'gene')}, {_many(int((~real).sum()), 'pad')}"],
        ["unmeasured", _list(unmeasured) if unmeasured else "none: the slide measured every channel's gene"],
        *([f"label {name}", _label(values, whole.manifest.labels[name])] for name, values in sample.labels.items()),
        ["shard", f"{row['shard']}, sample {row['index']}, bytes {row['offset']} to {row['offset'] + row['nbytes']}"],
    ]
    what = "counts" if whole.manifest.values == "counts" else str(whole.manifest.normalization["method"])
    return "\n\n".join([key, _pairs(facts), gene_table(sample.x, names, occupied, what=what, most=most)])


def describe_slide(folder: Path, slide_id: str) -> str:
    """Return what a slide holds: its size, what QC took, its patches by split, notes.

    Raises
    ------
    DatasetError
        There is no such slide; the message names the nearest.
    """
    whole = Whole(folder)
    known = [str(name) for name in whole.slides["slide_id"]]
    if slide_id not in known:
        near = difflib.get_close_matches(slide_id, known, n=1)
        raise DatasetError(
            "there is no such slide",
            where=folder,
            found=slide_id,
            expected="a slide_id of slides.parquet",
            hint=f"did you mean {near[0]!r}?" if near else None,
        )
    own = whole.patches[whole.patches["slide_id"] == slide_id]
    fact = slide_facts(whole.slides[whole.slides["slide_id"] == slide_id], own)[0]
    pitch = "micrometres unknown" if fact.pitch_um is None else f"{fact.pitch_um:.4g} um a pixel"
    facts = [
        ["platform", f"{fact.platform}, {fact.organism}"],
        ["grid", f"{fact.rows} x {fact.cols} pixels, {pitch}"],
        ["spots", f"{fact.spots} on the grid"],
        ["genes", f"{fact.genes} measured"],
        *([name, str(value)] for name, value in fact.metadata.items()),
        *(["note", note] for note in fact.notes),
    ]
    steps = [[step.name, step.spots, step.counts] for step in fact.waterfall()]
    blocks = [slide_id, _pairs(facts), aligned(["step", "spots", "counts"], steps, digits=12) if steps else ""]
    keys = [[split, len(rows), str(rows["key"].iloc[0])] for split, rows in own.groupby("split", sort=False)]
    return "\n\n".join([*(block for block in blocks if block), aligned(["split", "patches", "such as"], keys)])


def describe_shard(folder: Path, shard: str, *, most: int = 20) -> str:
    """Return what a shard holds: its samples in order, the first `most` of them.

    Raises
    ------
    DatasetError
        There is no such shard.
    """
    rows = Whole(folder).rows_of_shard(shard)
    shown = rows.head(most)[["index", "key", "slide_id", "n_spots", "coverage", "nbytes"]]
    table = aligned(["index", "key", "slide", "spots", "coverage", "bytes"], shown.to_numpy(dtype=object).tolist())
    more = f"\n  and {len(rows) - most} more" if len(rows) > most else ""
    slides = rows["slide_id"].nunique()
    head = f"{_many(len(rows), 'sample')} of {_many(slides, 'slide')}, {rows['nbytes'].sum() / 1e6:.2f} MB"
    return "\n\n".join([str(rows["shard"].iloc[0]), f"  {head}", table + more])


def summary(whole: Whole) -> str:
    """Return the dataset in one line."""
    manifest = whole.manifest
    channels, height, width = manifest.layout.shape
    size = f"up to {height} x {width}" if manifest.layout.variable else f"{height} x {width}"
    rule = f"{manifest.channels.get('method', '?')}, one list a {manifest.scope}"
    if manifest.scope == "panel":
        rule = f"{manifest.channels.get('method', '?')}, one list for all"
    n_slides = int(whole.patches["slide_id"].nunique())
    facts = [
        _many(n_slides, "slide"),
        _many(manifest.patches, "patch", "patches"),
        f"{_many(channels, 'channel')} of {size} pixels ({rule})",
        f"{manifest.bytes / 1e6:.2f} MB",
    ]
    return " \u00b7 ".join(facts)


def _many(number: int, one: str, several: str | None = None) -> str:
    return f"{number} {one if number == 1 else several or one + 's'}"


def _facts(whole: Whole) -> str:
    manifest = whole.manifest
    layout = manifest.layout
    stored = f"{manifest.values}, {layout.dtype}, {layout.encoding} in {layout.format} shards of {layout.patches}"
    rows = [
        ["license", str(manifest.dataset.get("license", ""))],
        ["stored", stored],
        ["normalization", _settings(manifest.normalization)],
        ["channels", _settings(manifest.channels)],
        ["grid", _settings(manifest.grid)],
        ["crop", _settings(manifest.crop)],
        ["fingerprint", manifest.fingerprint[:16]],
    ]
    return _pairs(rows)


def _coverage(whole: Whole) -> str:
    coverage = whole.patches["coverage"].to_numpy()
    if not len(coverage):
        return ""
    quartiles = np.percentile(coverage, [0, 25, 50, 75, 100])
    return aligned(
        ["coverage", "least", "quarter", "median", "three quarters", "greatest"],
        [["share of pixels with a spot", *(float(value) for value in quartiles)]],
    )


def _genes(whole: Whole) -> str:
    genes, n_slides = whole.genes, len(whole.slides)
    everywhere = int((genes["n_slides"] == n_slides).sum())
    rows: list[list[object]] = [
        ["in the vocabulary", len(genes)],
        [f"measured by all {n_slides} slides", everywhere],
        ["measured by some", int(((genes["n_slides"] > 0) & (genes["n_slides"] < n_slides)).sum())],
    ]
    if whole.manifest.scope == "panel":
        rows.append(["channels", int(genes["channel"].notna().sum())])
    return aligned(["genes", "number"], rows)


def _settings(section: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_text(value)}" for name, value in section.items() if value is not None)


def _text(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, list | tuple):
        return _list([str(item) for item in value], joint=" x " if len(value) == 2 else ", ")
    if isinstance(value, Mapping):
        return f"({_settings(value)})"
    return str(value)


def _list(names: list[str], *, joint: str = ", ", most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return joint.join(names[:most]) + more


def _label(values: np.ndarray[Any, Any], categories: Any) -> str:
    codes, numbers = np.unique(values[values >= 0], return_counts=True)
    order = np.argsort(-numbers, kind="stable")
    return ", ".join(f"{categories[codes[i]]} {numbers[i]}" for i in order) or "no pixel has one"


def _pairs(rows: list[list[str]]) -> str:
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name.ljust(width)}  {text}" for name, text in rows)
