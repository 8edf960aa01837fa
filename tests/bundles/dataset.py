"""Tiny samples and datasets, written through the project's own writers."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from stpatch.dataset.card import write_card
from stpatch.dataset.entries import SplitEntry, WrittenShard
from stpatch.dataset.layout import Layout
from stpatch.dataset.manifest import Manifest
from stpatch.dataset.sample import Sample
from stpatch.dataset.tables import GENES, SLIDES, pack_measured, patch_columns, write_table
from stpatch.registry import FORMATS

N_GENES = 9
MEASURED = {"s1": 8, "s2": 4}  # each slide measured the genes 1 to this one


def make_layout(**changes) -> Layout:
    values = {
        "format": "tar",
        "encoding": "blosc",
        "dtype": "uint16",
        "shape": (4, 3, 5),
        "patches": 4,
        "labels": ("region",),
        "genes": True,
    }
    return Layout(**{**values, **changes})


def make_sample(number: int, layout: Layout, *, slide_id: str = "s1") -> Sample:
    """Return a sample that is a function of its number and slide alone."""
    rng = np.random.default_rng([number, *slide_id.encode()])
    channels, height, width = layout.shape
    if layout.variable:
        height, width = 1 + number % height, 1 + (number + 1) % width
    plane = (height, width)
    x = rng.poisson(0.7, size=(channels, *plane)).astype(layout.dtype)
    totals = (x.sum(axis=0) + rng.integers(0, 3, plane)).astype(np.float32)
    x[:, totals == 0] = 0
    genes = np.sort(rng.choice(np.arange(1, N_GENES), channels, replace=False)).astype(np.int32)
    genes[-1] = 0 if number % 3 == 0 else genes[-1]
    x[(genes == 0) | (genes > MEASURED.get(slide_id, N_GENES))] = 0
    further = {plane.name: rng.integers(0, 200, plane.shape).astype(plane.dtype) for plane in layout.further}
    labels = {name: rng.integers(-1, 2, plane).astype(np.int16) for name in layout.labels}
    return Sample(
        key=f"{slide_id}-{number:06d}",
        x=x,
        totals=totals,
        genes=genes if layout.genes else None,
        labels=labels,
        further=further,
        meta={"slide_id": slide_id, "row": number, "col": 3 * number, "n_spots": int((totals > 0).sum())},
    )


def write_shard(output: Path, samples: Iterable[Sample], *, split: str, number: int, layout: Layout) -> WrittenShard:
    """Encode samples one at a time while their shard is written."""
    format_ = FORMATS.get(layout.format)
    encoded = ((sample.key, format_.encode(sample, layout)) for sample in samples)
    return format_.write(output, encoded, split=split, number=number, layout=layout)


def write_dataset(folder: Path, *, counts: dict[str, int] | None = None, values: str = "counts", **changes) -> Manifest:
    """Write a whole dataset of two slides; samples alternate between them, `counts` patches a split."""
    counts = {"train": 6, "val": 1} if counts is None else counts
    layout = make_layout(**changes)
    rows: dict[str, list] = {name: [] for name in patch_columns(layout)}
    splits, files = {}, []
    first = 0
    for split, count in counts.items():
        samples = [make_sample(number, layout, slide_id=f"s{1 + number % 2}") for number in range(first, first + count)]
        first += count
        shards = []
        for number, start in enumerate(range(0, count, layout.patches)):
            part = samples[start : start + layout.patches]
            written = write_shard(folder, part, split=split, number=number, layout=layout)
            shards.append(written.entry)
            for index, (sample, (offset, nbytes), checksum) in enumerate(
                zip(part, written.ranges, written.checksums, strict=True)
            ):
                height, width = sample.totals.shape
                values_of_row = {
                    "key": sample.key,
                    "split": split,
                    "shard": written.entry.path,
                    "index": index,
                    "offset": offset,
                    "nbytes": nbytes,
                    **sample.meta,
                    "coverage": sample.meta["n_spots"] / (height * width),
                    "height": height,
                    "width": width,
                    "crc32c": checksum,
                }
                for name, column in rows.items():
                    column.append(values_of_row[name])
        splits[split] = SplitEntry.of(shards, spots=sum(s.meta["n_spots"] for s in samples))
        files += FORMATS.get(layout.format).write_split_files(folder, name=split, split=splits[split], layout=layout)
    manifest = Manifest.of(
        dataset={"name": "tiny", "version": "1.0.0", "license": "CC-BY-4.0", "description": "Two slides.", "seed": 0},
        layout=layout,
        values=values,
        normalization={"method": "log1p_total", "target_sum": "slide_median"},
        channels={"scope": "patch" if layout.genes else "panel", "method": "variance", "n": layout.shape[0]},
        grid={"method": "lattice"},
        crop={"unit": "slide" if layout.variable else "patch"},
        labels={name: ["cancer", "stroma"] for name in layout.labels},
        splits=splits,
        tables={
            "genes": write_table(folder, "genes", GENES, genes_table(layout)),
            "slides": write_table(folder, "slides", SLIDES, slides_table(rows)),
            "patches": write_table(folder, "patches", patch_columns(layout), rows),
        },
        files=files,
        fingerprint="0" * 64,
        versions={"stpatch": "0.1.0"},
    )
    manifest = manifest.with_files(write_card(folder, manifest))
    manifest.write(folder)
    return manifest


def genes_table(layout: Layout) -> dict[str, list]:
    ids = list(range(1, N_GENES + 1))
    channels = layout.shape[0]
    slides = [sum(last >= gene for last in MEASURED.values()) for gene in ids]
    floats = {name: [1e4 * (n > 0) for n in slides] for name, kind in GENES.items() if kind == "float64"}
    floats["sum_squared_counts"] = [1e6 * n for n in slides]
    numbers = {"n_slides": slides, "n_spots": [900 * n for n in slides], "n_detected": [900 * n for n in slides]}
    return {
        "gene_id": ids,
        "name": [f"G{gene}" for gene in ids],
        "ensembl_id": [None, *(f"ENSG{gene:011d}" for gene in ids[1:])],
        "organism": ["human"] * N_GENES,
        "channel": [None if layout.genes or gene > channels else channels - gene for gene in ids],
        **numbers,
        **floats,
    }


def slides_table(rows: dict[str, list]) -> dict[str, list]:
    def splits_of(name: str) -> list[str]:
        return sorted(
            {split for split, slide_id in zip(rows["split"], rows["slide_id"], strict=True) if slide_id == name}
        )

    names = ["s1", "s2"]
    same = {"platform": "st", "organism": "human", "metadata": "{}", "inputs": "[]", "spots": 900}
    same |= {"rows": 400, "cols": 400, "pitch_um": 100.0, "origin_x": 0.0, "origin_y": None, "qc": "{}"}
    return {
        "slide_id": names,
        "split": [splits[0] if len(splits) == 1 else None for splits in map(splits_of, names)],
        "genes": [MEASURED[name] for name in names],
        "patches": [rows["slide_id"].count(name) for name in names],
        "target_sum": [10000.0, 5000.0],
        "measured": [pack_measured(np.arange(1, MEASURED[name] + 1), N_GENES) for name in names],
        **{name: [value, value] for name, value in same.items()},
    }
