"""Windows as files that viewers open: QuPath, Xenium Explorer, napari, and what reads GeoJSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpatch.errors import DatasetError
from stpatch.views.paint import split_colours


@dataclass(frozen=True, kw_only=True)
class PlacedWindows:
    """A slide's windows in the coordinates of its files.

    Attributes
    ----------
    slide_id
        The slide.
    keys, splits
        (windows,) each.
    corners
        (windows, 4, 2) float64: x and y of the corners, in order around the window.
    um_per_unit
        Micrometres per unit, None where unknown.
    """

    slide_id: str
    keys: Sequence[str]
    splits: Sequence[str]
    corners: NDArray[np.float64]
    um_per_unit: float | None


def geojson(windows: PlacedWindows) -> bytes:
    """Return a FeatureCollection: an annotation per window, named by its key, classified by its split.

    QuPath takes it as it is; `geopandas.read_file` and SpatialData's ``ShapesModel.parse`` read it too.
    """
    colours = split_colours(list(windows.splits))
    features: list[dict[str, Any]] = []
    for key, split, ring in zip(windows.keys, windows.splits, _rings(windows.corners), strict=True):
        colour = [int(colours[split][at : at + 2], 16) for at in (1, 3, 5)]
        features.append(
            {
                "type": "Feature",
                "geometry": {"type": "Polygon", "coordinates": [ring]},
                "properties": {
                    "objectType": "annotation",
                    "name": key,
                    "classification": {"name": split, "color": colour},
                    "isLocked": True,
                    "slide_id": windows.slide_id,
                    "split": split,
                },
            }
        )
    return json.dumps({"type": "FeatureCollection", "features": features}, separators=(",", ":")).encode()


def xenium_selections(windows: PlacedWindows) -> bytes:
    """Return selections as Xenium Explorer writes and reads them: corners in micrometres, a name per window.

    Raises
    ------
    DatasetError
        Nothing tells the slide's micrometres.
    """
    if windows.um_per_unit is None:
        raise DatasetError(
            "Xenium Explorer needs micrometres, and nothing tells those of the slide",
            where=f"slide {windows.slide_id}",
            hint="set ingest.um_per_unit or pitch_um and build again, or export GeoJSON",
        )
    text = io.StringIO()
    text.write(f"#Selection names: {len(windows.keys)} windows of slide {windows.slide_id}\n#Units: micrometres\n")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["Selection", "X", "Y"])
    for key, ring in zip(windows.keys, _rings(windows.corners * windows.um_per_unit), strict=True):
        writer.writerows([key, x, y] for x, y in ring)
    return text.getvalue().encode()


def napari_shapes(windows: PlacedWindows) -> bytes:
    """Return shapes as napari reads them: axis 0 is y, axis 1 is x; ``index`` counts windows in the dataset's order."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["index", "shape-type", "vertex-index", "axis-0", "axis-1"])
    for number, ring in enumerate(_rings(windows.corners)):
        writer.writerows([number, "polygon", at, y, x] for at, (x, y) in enumerate(ring[:-1]))
    return text.getvalue().encode()


WRITERS: dict[str, tuple[Callable[[PlacedWindows], bytes], str]] = {
    "geojson": (geojson, ".geojson"),
    "xenium": (xenium_selections, ".xenium.csv"),
    "napari": (napari_shapes, ".napari.csv"),
}
"""What writes windows, and how its files end."""


def _rings(corners: NDArray[np.float64]) -> list[list[list[float]]]:
    """Return closed rings; a thousandth of a unit is less than a pixel of any image."""
    closed = np.concatenate([corners, corners[:, :1]], axis=1)
    rings: list[list[list[float]]] = np.round(closed, 3).tolist()
    return rings
