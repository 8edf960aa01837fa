"""Makes an image of 512 genes with spatialdata's rasterize_bins and cuts it into 16 x 16 tiles, from memory."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anndata
import geopandas
import numpy as np
import spatialdata
from scipy import sparse
from slides import GENES, SIDE, pixels_of, report, slide_paths, top_genes
from spatialdata.models import ShapesModel, TableModel

warnings.simplefilter("ignore")


def main() -> None:
    slides = [opened(path) for path in slide_paths(sys.argv[1])]
    what = f"rasterize_bins + tiles, {GENES} genes, dense"
    report((tile for slide in slides for tile in tiles(slide)), what)  # whole slides: their tiles are made together


def opened(path: Path) -> Any:
    """Return a slide as SpatialData, reduced to the genes with most counts."""
    slide = anndata.read_h5ad(path)
    slide = slide[:, top_genes(slide.X)].copy()
    slide.X = sparse.csc_matrix(slide.X)
    slide.obs["pixel_row"], slide.obs["pixel_column"] = pixels_of(slide.obs)
    points = geopandas.GeoDataFrame(geometry=geopandas.points_from_xy(*slide.obsm["spatial"].T), index=slide.obs_names)
    points["radius"] = 1.0
    slide.obs["region"] = "spots"
    slide.obs["region"] = slide.obs["region"].astype("category")
    slide.obs["instance"] = slide.obs_names
    table = TableModel.parse(slide, region="spots", region_key="region", instance_key="instance")
    return spatialdata.SpatialData(shapes={"spots": ShapesModel.parse(points)}, tables={"table": table})


def tiles(slide: Any) -> Iterator[Any]:
    """Yield the tiles of a slide's image."""
    genes = list(slide["table"].var_names)
    image = spatialdata.rasterize_bins(
        slide, "spots", "table", col_key="pixel_column", row_key="pixel_row", value_key=genes
    )
    array = np.asarray(image.data)
    for row in range(0, array.shape[1] - SIDE + 1, SIDE):
        for column in range(0, array.shape[2] - SIDE + 1, SIDE):
            yield array[:, row : row + SIDE, column : column + SIDE].astype(np.uint16)


if __name__ == "__main__":
    main()
