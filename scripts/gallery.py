"""Draws a gallery: what tissue looks like as stpatch's images, on each layout and at four pitches.

    python -m scripts.gallery OUT [DATASET ...]

Without a dataset, slides are simulated and built. Three slides of each DATASET are drawn: name only data that may be
shown.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from stpatch.config_file import load_config
from stpatch.demo import simulate
from stpatch.engine.graph import STAGES
from stpatch.engine.run import run_stages
from stpatch.engine.work_maps import work_dir_of, work_maps
from stpatch.stages.job import Job
from stpatch.storage import write_bytes
from stpatch.views.look import Choice, slide_panels
from stpatch.views.paint import png
from stpatch.views.panels import Panel, panels_figure, scale_panel
from stpatch.views.preview import pick_slides
from stpatch.views.report.maps import Wanted, maps_from_patches
from stpatch.views.whole import Whole

if TYPE_CHECKING:
    from collections.abc import Iterator

PITCHES = (1, 2, 4, 8)
"""Pixels of the grid that make one of the drawing."""


def main() -> None:
    out, *datasets = map(Path, sys.argv[1:])
    out.mkdir(parents=True, exist_ok=True)
    for dataset in datasets or [_simulated(out / "simulated")]:
        _draw(dataset, out)


def _simulated(folder: Path) -> Path:
    job = Job(load_config(simulate(folder)))
    run_stages(job, tuple(STAGES), progress=_silent)
    return job.output


def _draw(dataset: Path, out: Path) -> None:
    whole = Whole(dataset)
    work = work_dir_of(dataset, None)
    maps_of = None if work is None else work_maps(dataset, work)
    first = whole.patches.drop_duplicates("slide_id").set_index("slide_id")["split"]
    slides = whole.slides[whole.slides["slide_id"].isin(first.index)].assign(split="")
    for slide_id in pick_slides(slides.reset_index(drop=True), 3):
        panels = slide_panels(whole, slide_id, Choice(), maps_of=maps_of)
        _write(out / f"{slide_id}.png", slide_id, panels)
        rows = whole.patches[whole.patches["slide_id"] == slide_id]
        wanted = Wanted(gene_id=None, label="")
        maps = maps_of(slide_id, rows, wanted) if maps_of is not None else None
        totals = (maps or maps_from_patches(whole, slide_id, rows, wanted)).totals
        _write(out / f"{slide_id}-pitches.png", f"{slide_id}: one tissue, four pitches", pitch_panels(totals))
    whole.close()


def pitch_panels(totals: np.ndarray) -> list[Panel]:
    """Return the total counts with pixels once, twice, four and eight times as wide, summed."""
    panels = []
    for factor in PITCHES:
        rows, columns = (-(-side // factor) for side in totals.shape)
        padded = np.zeros((rows * factor, columns * factor))
        padded[: totals.shape[0], : totals.shape[1]] = totals
        summed = padded.reshape(rows, factor, columns, factor).sum(axis=(1, 3))
        image = np.where(summed > 0, summed, np.nan)
        title = "the grid's pixels" if factor == 1 else f"{factor} x {factor} of them"
        panels.append(scale_panel(title, image, cmap="magma", unit="counts", floor=None))
    return panels


def _write(path: Path, title: str, panels: list[Panel]) -> None:
    write_bytes(path, png(panels_figure(title, "", panels)))
    print(path)


@contextmanager
def _silent(_stage: str, _units: int, _done: int) -> Iterator[Any]:
    yield SimpleNamespace(update=lambda _n: None)


if __name__ == "__main__":
    main()
