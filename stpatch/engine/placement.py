"""Where the pixels of a slide's grid lie in the coordinates of its files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stpatch.errors import DatasetError
from stpatch.slides.store import read_places
from stpatch.stages.crop import read_cut
from stpatch.views.whole import Whole
from stpatch.views.windows_file import PlacedWindows


@dataclass(frozen=True, kw_only=True)
class Placement:
    """An affine map from the grid to coordinates.

    Attributes
    ----------
    matrix
        (2, 3) float64: ``(x, y) = matrix @ (col, row, 1)``; (0, 0) is the corner of the first pixel and (0.5, 0.5) its
        centre. x and y are in coordinate units: those of the vendor's files, mostly pixels of the full-resolution
        image.
    um_per_unit
        Micrometres per coordinate unit, None where unknown.
    residual
        Largest distance of a spot from its pixel's centre, in pixels of the grid.
    """

    matrix: NDArray[np.float64]
    um_per_unit: float | None
    residual: float

    def corners(self, boxes: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return (windows, 4, 2) the corners of windows, in order around them.

        Parameters
        ----------
        boxes
            (windows, 4): row, col, height, width.
        """
        row, col, height, width = boxes.astype(np.float64).T
        columns = np.stack([col, col + width, col + width, col], axis=1)
        rows = np.stack([row, row, row + height, row + height], axis=1)
        points = np.stack([columns, rows, np.ones_like(rows)], axis=-1)
        return np.asarray(points @ self.matrix.T)


def place_grid(work: Path, slide_id: str) -> Placement:
    """Return how a slide's grid lies, by least squares over all of its spots.

    Spots of a lattice are the centres of their pixels; those of a ``um`` grid lie anywhere in them, evenly. Either way
    their mean place is the pixel's centre, and a slide has thousands.

    Raises
    ------
    DatasetError
        The work dir does not have the slide any more, or its spots lie on one line.
    """
    cut_path, slide_path = work / "patches" / f"{slide_id}.npy", work / "slides" / f"{slide_id}.h5ad"
    if not (cut_path.is_file() and slide_path.is_file()):
        raise DatasetError(
            "the work dir does not have the slide's spots",
            where=work,
            found=f"no {cut_path.name} or no {slide_path.name}",
            hint="build again: the ingest and crop stages make them",
        )
    grid, places = read_cut(cut_path).grid, read_places(slide_path)
    on = grid.pixel >= 0
    row, col = np.divmod(grid.pixel[on], grid.shape[1])
    centres = np.column_stack([col + 0.5, row + 0.5, np.ones(len(row))])
    if np.linalg.matrix_rank(centres) < 3:
        raise DatasetError(
            "a slide whose pixels lie on one line has no place to draw windows at",
            where=slide_path,
            found=f"a grid of {grid.shape[0]} x {grid.shape[1]}",
        )
    xy = places.xy[on]
    solution, *_ = np.linalg.lstsq(centres, xy, rcond=None)
    matrix = np.asarray(solution.T, dtype=np.float64)
    scale = np.sqrt(abs(np.linalg.det(matrix[:, :2])))
    residual = float(np.hypot(*(xy - centres @ solution).T).max() / scale) if scale > 0 else 0.0
    return Placement(matrix=matrix, um_per_unit=places.um_per_unit, residual=residual)


def placed_windows(dataset: Path, work: Path | None, slide_id: str) -> PlacedWindows:
    """Return a slide's windows in the coordinates of its files.

    Raises
    ------
    DatasetError
        There is no such slide or no work dir, or the slide has no patch.
    """
    if work is None:
        raise DatasetError(
            "where windows lie in the slide's files is known to the work dir alone, and there is none",
            where=dataset,
            hint="name the build's work dir (--work-dir), or build again",
        )
    whole = Whole(dataset)
    patches = whole.patches[whole.patches["slide_id"] == slide_id].drop_duplicates(["row", "col"])
    if patches.empty:
        known = slide_id in set(whole.slides["slide_id"])
        raise DatasetError(
            "the slide has no patch" if known else "there is no such slide",
            where=dataset,
            found=slide_id,
            expected="a slide_id of slides.parquet",
        )
    size = whole.manifest.layout.shape[1:]
    boxes = np.column_stack(
        [
            patches["row"],
            patches["col"],
            patches["height"] if "height" in patches else np.full(len(patches), size[0]),
            patches["width"] if "width" in patches else np.full(len(patches), size[1]),
        ]
    ).astype(np.int64)
    placement = place_grid(work, slide_id)
    return PlacedWindows(
        slide_id=slide_id,
        keys=[str(key) for key in patches["key"]],
        splits=[str(split) for split in patches["split"]],
        corners=placement.corners(boxes),
        um_per_unit=placement.um_per_unit,
    )
