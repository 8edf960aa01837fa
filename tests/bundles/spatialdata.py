"""Tiny SpatialData stores, made through the library."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from bundles.h5ad import make_anndata


def write_spatialdata(
    path: Path,
    *,
    tables: tuple[str, ...] = ("table",),
    regions: tuple[str, ...] = ("cells",),
    coordinates: str = "obsm",
    zarr_format: int = 3,
    visium: bool = False,
) -> Path:
    """Write a store; `coordinates`: ``obsm``, ``circles`` or ``polygons``; rows go to the regions in turn."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import spatialdata
        from spatialdata.models import TableModel

        elements: dict[str, Any] = {}
        for seed, name in enumerate(tables):
            slide = make_anndata(seed=seed, visium=visium)
            xy = np.asarray(slide.obsm["spatial"])
            slide.obs["cell"] = np.arange(len(slide)) + 100
            slide.obs["place"] = pd.Categorical([regions[i % len(regions)] for i in range(len(slide))])
            if coordinates != "obsm":
                del slide.obsm["spatial"]
                for region in regions:
                    rows = np.flatnonzero((slide.obs["place"] == region).to_numpy())[::-1]
                    elements[region] = _shapes(xy[rows], slide.obs["cell"].to_numpy()[rows], kind=coordinates)
            elements[name] = TableModel.parse(
                slide,
                region=list(regions) if len(regions) > 1 else regions[0],
                region_key="place",
                instance_key="cell",
            )
        store = spatialdata.SpatialData.init_from_elements(elements)
        options = {}
        if zarr_format == 2:
            from spatialdata._io.format import SpatialDataContainerFormatV01

            options = {"sdata_formats": SpatialDataContainerFormatV01()}
        store.write(path, **options)
    return path


def _shapes(xy: np.ndarray, index: np.ndarray, *, kind: str) -> Any:
    import geopandas
    from shapely import Point, box
    from spatialdata.models import ShapesModel

    if kind == "circles":
        frame = geopandas.GeoDataFrame({"geometry": [Point(*point) for point in xy], "radius": 3.0}, index=index)
    else:
        squares = [box(x - 2, y - 2, x + 2, y + 2) for x, y in xy]
        frame = geopandas.GeoDataFrame({"geometry": squares}, index=index)
    return ShapesModel.parse(frame)
