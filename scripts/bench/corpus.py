"""The simulated corpora as .h5ad files, with their samplesheets."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

SPACING = {"hex": (100.0, 100.0 * 3**0.5 / 2), "square": (8.0, 8.0)}
"""Units between the columns and between the rows of a lattice, in `obsm["spatial"]`."""


@dataclass(frozen=True, kw_only=True)
class SlideSpec:
    """One simulated slide: `lattice` is ``hex`` (Visium) or ``square`` (Visium HD), `filled` the share of non-zeros."""

    name: str
    spots: int
    genes: int = 18_000
    filled: float = 0.15
    lattice: str = "hex"
    seed: int = 0

    @property
    def columns(self) -> int:
        """Spots in a row; the slide is about square."""
        return int(np.ceil(self.spots**0.5))


VISIUM = tuple(SlideSpec(name=f"visium{i}", spots=4_000, filled=0.15, seed=i) for i in range(4))
HD = (SlideSpec(name="hd0", spots=120_000, filled=0.02, lattice="square", seed=100),)


def write_slides(folder: Path, specs: tuple[SlideSpec, ...]) -> Path:
    """Write slides that are not there yet, and their samplesheet; return the sheet."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = ["slide_id,path,donor"]
    for spec in specs:
        path = folder / f"{spec.name}.h5ad"
        if not path.exists():
            write_slide(path, spec)
        rows.append(f"{spec.name},{path.name},{spec.name}")
    sheet = folder / "slides.csv"
    sheet.write_text("\n".join(rows) + "\n")
    return sheet


def first_rows(sheet: Path, count: int) -> Path:
    """Write a samplesheet of the first slides of another, beside it."""
    few = sheet.with_name(f"first{count}.csv")
    few.write_text("\n".join(sheet.read_text().splitlines()[: count + 1]) + "\n")
    return few


def slide_ids(sheet: Path) -> list[str]:
    """Return the slides of a samplesheet."""
    return [line.split(",")[0] for line in sheet.read_text().splitlines()[1:]]


def write_slide(path: Path, spec: SlideSpec) -> None:
    """Write one slide as AnnData: raw counts in X (CSR), obsm spatial, obs array_row and array_col."""
    import anndata
    import pandas as pd

    from scripts.bench.simulate import simulate_counts

    counts = simulate_counts(
        spots=spec.spots, genes=spec.genes, columns=spec.columns, filled=spec.filled, seed=spec.seed
    )
    place = np.arange(spec.spots)
    row, column = place // spec.columns, place % spec.columns
    across, down = SPACING[spec.lattice]
    if spec.lattice == "hex":
        column = 2 * column + row % 2  # two array columns a spot, every other row between them
        across /= 2
    xy = np.column_stack([column * across, row * down])
    obs = pd.DataFrame({"array_row": row, "array_col": column, "in_tissue": 1}, index=[f"s{i}" for i in place])
    var = pd.DataFrame(index=[f"GENE{i:05d}" for i in range(spec.genes)])
    slide = anndata.AnnData(X=counts, obs=obs, var=var)
    slide.obsm["spatial"] = xy
    temporary = path.with_suffix(".part")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        slide.write_h5ad(temporary)
    temporary.replace(path)


def resized(spec: SlideSpec, **changes: Any) -> SlideSpec:
    """Return the spec with other numbers and a name that tells them."""
    text = "-".join(f"{name}{value}" for name, value in changes.items())
    return replace(spec, name=f"{spec.name}-{text}".replace(".", "_"), **changes)
