"""Simulated slides with spatial domains, written as three vendors would write them.

They are small, need no download and look like tissue, so that the whole way from raw files to patches can be tried
and tested anywhere. Nothing in them is measured.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stpatch.demo.counts import simulate_counts
from stpatch.demo.genes import symbols
from stpatch.demo.tissue import make_tissue
from stpatch.demo.vendors import SimulatedSlide, write_h5ad, write_labels, write_st, write_visium
from stpatch.presets import preset_text
from stpatch.seeds import generator
from stpatch.storage import write_bytes

SHEET_COLUMNS = ("slide_id", "path", "coordinates", "labels", "organism", "tissue", "donor")
H5AD_PITCH_UM = 50.0


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What the slides of one vendor layout are like.

    Attributes
    ----------
    name
        Layout, and stem of the slide ids.
    anatomy
        Key of `stpatch.demo.genes.MARKERS`.
    shape
        Rows and places a row of the array at full size.
    depth
        Median count of a spot.
    """

    name: str
    anatomy: str
    shape: tuple[int, int]
    depth: float


KINDS = (
    Kind(name="visium", anatomy="cortex", shape=(78, 64), depth=5000),
    Kind(name="st", anatomy="breast", shape=(35, 33), depth=4000),
    Kind(name="array", anatomy="lymph node", shape=(64, 64), depth=3000),
)


def simulate(folder: Path, *, seed: int = 0, slides_per_layout: int = 2, size: float = 1.0) -> Path:
    """Write simulated slides, their samplesheet and a config that builds them.

    Every slide lacks one gene in twelve, each layout others, as platforms and annotations do.

    Parameters
    ----------
    folder
        Where to: ``slides/``, ``slides.csv`` and ``demo.yaml`` are written below it. Written again with the same
        arguments, they hold the same bytes.
    seed
        Of everything random.
    slides_per_layout
        How many slides of each of the three layouts.
    size
        Side of the arrays in parts of the full ones (78 x 64, 35 x 33 and 64 x 64 spots).

    Returns
    -------
    Path
        The config, ``folder/demo.yaml``.
    """
    rows = []
    donor = 0
    for kind in KINDS:
        for number in range(1, slides_per_layout + 1):
            donor += 1
            slide = _simulate_slide(kind, number, seed=seed, size=size)
            paths = _WRITERS[kind.name](folder / "slides" / kind.name, slide)
            places = {name: path.relative_to(folder).as_posix() for name, path in paths.items()}
            rows.append({"slide_id": slide.slide_id, **places, "tissue": kind.anatomy, "donor": f"donor-{donor}"})
    sheet = io.StringIO()
    writer = csv.DictWriter(sheet, SHEET_COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({"organism": "human", **row} for row in rows)
    write_bytes(folder / "slides.csv", sheet.getvalue().encode())
    config = folder / "demo.yaml"
    write_bytes(config, preset_text("demo").encode())
    return config


def _simulate_slide(kind: Kind, number: int, *, seed: int, size: float) -> SimulatedSlide:
    rng = generator(seed, "demo", kind.name, number)
    array, places = _array(kind, size=size)
    tissue = make_tissue(rng, places, anatomy=kind.anatomy)
    genes = _measured(kind, seed=seed)
    counts = simulate_counts(rng, tissue, places, anatomy=kind.anatomy, genes=genes, depth=kind.depth)
    domain = [tissue.names[k] for k in tissue.domain[tissue.inside]]
    return SimulatedSlide(
        slide_id=f"{kind.name}-{number}", array=array, inside=tissue.inside, counts=counts, genes=genes, domain=domain
    )


def _array(kind: Kind, *, size: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return (array_row, array_col) of all places, and their (x, y) in the unit square."""
    rows, columns = (max(4, round(side * size)) for side in kind.shape)
    row, col = (part.ravel() for part in np.indices((rows, columns)))
    if kind.name == "visium":  # hexagonal: odd rows lie half a step to the right
        col = 2 * col + row % 2
        x, y = col / 2, row * np.sqrt(3) / 2
    else:
        x, y = col.astype(float), row.astype(float)
    places = np.column_stack([(x + 0.5) / (x.max() + 1), (y + 0.5) / (y.max() + 1)])
    first = 1 if kind.name == "st" else 0  # ST arrays count from 1
    return np.column_stack([row + first, col + first]).astype(np.int64), places


def _measured(kind: Kind, *, seed: int) -> list[str]:
    """Return the genes that a layout's slides measure: all but a twelfth, drawn for the layout."""
    names = symbols()
    missing = generator(seed, "demo", kind.name, "genes").random(len(names)) < 1 / 12
    return [name for name, gone in zip(names, missing, strict=True) if not gone]


def _visium(folder: Path, slide: SimulatedSlide) -> dict[str, Path]:
    path, ids = write_visium(folder, slide)
    return {"path": path, "labels": _labelled(folder, slide, ids)}


def _st(folder: Path, slide: SimulatedSlide) -> dict[str, Path]:
    path, selection, ids = write_st(folder, slide)
    return {"path": path, "coordinates": selection, "labels": _labelled(folder, slide, ids)}


def _h5ad(folder: Path, slide: SimulatedSlide) -> dict[str, Path]:
    path, ids = write_h5ad(folder, slide, pitch_um=H5AD_PITCH_UM)
    return {"path": path, "labels": _labelled(folder, slide, ids)}


def _labelled(folder: Path, slide: SimulatedSlide, ids: list[str]) -> Path:
    path = folder / f"{slide.slide_id}-domains.csv"
    write_labels(path, ids, slide.domain)
    return path


_WRITERS: dict[str, Callable[[Path, SimulatedSlide], dict[str, Path]]] = {"visium": _visium, "st": _st, "array": _h5ad}
