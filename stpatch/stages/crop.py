"""Stage crop, one slide: the pixel grid and the list of patches."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpatch.errors import InputError
from stpatch.image.crop import Patches, cut_patches
from stpatch.image.grid import Grid, make_grid
from stpatch.record import read_record, write_record
from stpatch.slides.store import read_genes, read_places
from stpatch.stages.channels import read_channels
from stpatch.stages.job import Job, Outcome
from stpatch.stages.normalize import ingest_fingerprint
from stpatch.stages.reject import crop_settings, rejected, without_rejected

PATCH_FIELDS = ("number", "row", "col", "height", "width", "n_spots", "coverage")


@dataclass(frozen=True, kw_only=True)
class Cut:
    """What the crop stage made of one slide.

    Attributes
    ----------
    grid, patches
        The pixel grid, and the patches cut from it.
    gene_ids
        (genes,) int32 vocabulary id of each of the slide's genes, -1 for a gene outside the vocabulary.
    """

    grid: Grid
    patches: Patches
    gene_ids: NDArray[np.int32]


def request(job: Job, slide_id: str) -> dict[str, Any]:
    """Return what the slide's patches depend on."""
    return {
        "ingest": ingest_fingerprint(job, slide_id),
        "select": job.receipt("select", "corpus").fingerprint,
        **job.config.section("grid"),
        "crop": crop_settings(job, slide_id),
        "seed": job.config.dataset.seed,
    }


def run(job: Job, slide_id: str) -> Outcome:
    """Lay the grid, cut the patches, and see that the slide measured something of the channels."""
    path = job.slide_path(slide_id)
    where = f"slide {slide_id}, {job.sources[slide_id].path}"
    gene_ids = _gene_ids(job, slide_id, where)
    spots = read_places(path)
    grid = make_grid(
        xy=spots.xy,
        array=spots.array,
        geometry=spots.geometry,
        um_per_unit=spots.um_per_unit,
        pitch=spots.pitch,
        section=job.config.grid,
        order=spots.file_row,
        where=where,
    )
    cut = partial(cut_patches, grid.spots_per_pixel(), seed=job.config.dataset.seed, slide_id=slide_id)
    patches = without_rejected(cut, section=job.config.crop, numbers=rejected(job).get(slide_id, ()), where=where)
    out = job.patches_path(slide_id)
    write_cut(out, Cut(grid=grid, patches=patches, gene_ids=gene_ids))
    facts = {
        "grid": list(grid.shape),
        "origin": list(grid.origin),
        "pitch_um": grid.pitch_um,
        "collisions": grid.n_collisions,
        "dropped_spots": grid.n_dropped,
        "patches": len(patches.number),
        "largest_count": _largest_count(job, slide_id, grid),
        "largest_patch": [int(patches.height.max(initial=0)), int(patches.width.max(initial=0))],
    }
    return Outcome(outputs=[(out, None)], facts=facts)


def write_cut(path: Path, cut: Cut) -> None:
    """Write grid and patches as one file of named arrays."""
    grid = cut.grid
    arrays = {
        "shape": np.array(grid.shape, np.int64),
        "pixel": grid.pixel,
        "origin": np.array(grid.origin, np.float64),
        "pitch_um": np.array(np.nan if grid.pitch_um is None else grid.pitch_um),
        "collisions": np.array([grid.n_collisions, grid.n_dropped], np.int64),
        "gene_ids": cut.gene_ids,
    }
    write_record(path, arrays | {name: getattr(cut.patches, name) for name in PATCH_FIELDS})


def read_cut(path: Path) -> Cut:
    """Read what `write_cut` wrote."""
    fields = read_record(path, what="a slide's patches", stage="crop")
    pitch = float(fields["pitch_um"])
    grid = Grid(
        shape=(int(fields["shape"][0]), int(fields["shape"][1])),
        pixel=fields["pixel"],
        origin=(float(fields["origin"][0]), float(fields["origin"][1])),
        pitch_um=None if np.isnan(pitch) else pitch,
        n_collisions=int(fields["collisions"][0]),
        n_dropped=int(fields["collisions"][1]),
    )
    patches = Patches(**{name: fields[name] for name in PATCH_FIELDS})
    return Cut(grid=grid, patches=patches, gene_ids=fields["gene_ids"])


def _gene_ids(job: Job, slide_id: str, where: str) -> NDArray[np.int32]:
    """Return the ids of the slide's genes, of which a fixed list of channels must hold some."""
    channels = read_channels(job.channels_path)
    wanted = channels.channels_of(slide_id)
    names = channels.names_of(read_genes(job.slide_path(slide_id), columns=["organism"]))
    measured = channels.ids_of(names)
    if wanted is not None and not np.isin(measured[measured >= 0], wanted).any():
        raise InputError(
            "the slide measured no gene of the panel",
            where=where,
            found=f"{len(names)} genes, such as {', '.join(names[:5])}",
            expected=f"some of {len(wanted)} channels, such as {', '.join(channels.name_of(i) for i in wanted[:5])}",
            hint="see channels (scope, method, genes) and ingest.genes (identity, map), or leave the slide out",
        )
    return measured


def _largest_count(job: Job, slide_id: str, grid: Grid) -> float:
    """Return an upper bound of a pixel's count of one gene: the sum of its spots' largest counts."""
    largest = job.totals(slide_id)["largest"]
    on = grid.pixel >= 0
    if grid.n_collisions == 0 or job.config.grid.collisions == "first":
        return float(largest[on].max(initial=0))
    pixels, pixel_of_spot = np.unique(grid.pixel[on], return_inverse=True)
    return float(np.bincount(pixel_of_spot, weights=largest[on], minlength=len(pixels)).max(initial=0))
