"""What the work dir of a build knows of its slides beyond the dataset: every spot, every gene, the grid itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stpatch.dataset.manifest import MANIFEST, read_manifest
from stpatch.errors import MismatchError
from stpatch.image.grid import Grid
from stpatch.record import read_record
from stpatch.slides.store import open_counts, read_labels, read_places
from stpatch.stages.crop import Cut, read_cut
from stpatch.stages.cutter import label_planes
from stpatch.storage import read_json
from stpatch.views.report.maps import MapsOf, SlideMaps, Wanted
from stpatch.views.report.windows import explain_windows


def work_dir_of(dataset: Path, given: Path | None) -> Path | None:
    """Return the work dir that made a dataset: the one that is given, or the one beside it; None where there is none.

    Raises
    ------
    MismatchError
        The one that is given did not make this dataset.
    """
    work = given or dataset.absolute().with_name(f"{dataset.absolute().name}.work")
    copy = work / MANIFEST
    own = copy.is_file() and read_json(copy) == read_json(dataset / MANIFEST)
    if given is not None and not own:
        raise MismatchError(
            "the work dir is not that of this dataset",
            where=work,
            found="another manifest" if copy.is_file() else f"no {MANIFEST}",
            expected=f"the manifest of {dataset}",
            hint="leave --work-dir out: the report needs the dataset alone",
        )
    return work if own else None


def work_maps(dataset: Path, work: Path) -> MapsOf:
    """Return a function that gives the maps of a slide from the work dir, None where its files are gone."""
    manifest = read_manifest(dataset)
    size = (manifest.layout.shape[1], manifest.layout.shape[2])
    seed = int(manifest.dataset.get("seed", 0))

    def maps_of(slide_id: str, patches: pd.DataFrame, wanted: Wanted) -> SlideMaps | None:
        paths = [work / "patches" / f"{slide_id}.npy", work / "slides" / f"{slide_id}.h5ad"]
        totals_path = work / "slides" / f"{slide_id}.totals.npy"
        if not all(path.is_file() for path in (*paths, totals_path)):
            return None
        cut = read_cut(paths[0])
        totals = read_record(totals_path, what="a slide's totals", stage="ingest")["totals"]
        gene, sums = _gene_map(paths[1], cut, wanted)
        label = None
        if wanted.label:
            categories = {wanted.label: list(manifest.labels[wanted.label])}
            label = next(iter(label_planes(read_labels(paths[1]), cut.grid, categories).values()))
        return SlideMaps(
            totals=_summed(cut.grid, totals),
            gene=gene,
            label=label,
            windows=explain_windows(
                patches,
                crop=manifest.crop,
                shape=cut.grid.shape,
                seed=seed,
                slide_id=slide_id,
                size=size,
                spots_per_pixel=cut.grid.spots_per_pixel(),
            ),
            geometry=str(read_places(paths[1]).geometry),
            complete=True,
            gene_sums=sums,
        )

    return maps_of


def _summed(grid: Grid, values: NDArray[np.float64]) -> NDArray[np.float32]:
    """Add the spots' values up over their pixels."""
    on = grid.pixel >= 0
    flat = np.bincount(grid.pixel[on], weights=values[on], minlength=grid.shape[0] * grid.shape[1])
    return flat.reshape(grid.shape).astype(np.float32)


def _bincount(places: NDArray[Any], weights: NDArray[Any], n: int) -> NDArray[np.float64]:
    return np.bincount(places, weights=weights, minlength=n).astype(np.float64)


def _gene_map(path: Path, cut: Cut, wanted: Wanted) -> tuple[NDArray[np.float32] | None, NDArray[np.float64]]:
    """Return a gene's counts per pixel (None: the slide did not measure it), and the counts of every gene."""
    counts = open_counts(path)
    sums = _bincount(counts.indices, counts.data, len(cut.gene_ids))
    column = np.flatnonzero(cut.gene_ids == wanted.gene_id) if wanted.gene_id is not None else np.empty(0, np.int64)
    if not len(column):
        return None, sums
    places = np.flatnonzero(counts.indices == column[0])
    spots = np.searchsorted(counts.indptr, places, side="right") - 1
    of_spot = _bincount(spots, counts.data[places], len(counts.indptr) - 1)
    return _summed(cut.grid, of_spot), sums
