"""Public peers on the same slides, each in an environment of its own; skipped, with the reason, where they do not run.

Each peer's script gets a folder of .h5ad slides and prints one JSON line: samples and seconds.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

INSTALL_SECONDS, RUN_SECONDS = 600, 300

SPATIALDATA = """
import json, sys, time, warnings
warnings.simplefilter("ignore")
import anndata, numpy as np, spatialdata, scipy.sparse as sp
from pathlib import Path
from shapely.geometry import Point
import geopandas
path = sorted(Path(sys.argv[1]).glob("*.h5ad"))[0]
slide = anndata.read_h5ad(path)
genes = np.argsort(np.asarray(slide.X.sum(axis=0)).ravel())[-512:]
slide = slide[:, genes].copy()
slide.X = sp.csc_matrix(slide.X)
points = geopandas.GeoDataFrame(geometry=[Point(*p) for p in slide.obsm["spatial"]], index=slide.obs_names)
points["radius"] = 1.0
slide.obs["region"] = "spots"
slide.obs["region"] = slide.obs["region"].astype("category")
slide.obs["instance"] = slide.obs_names
from spatialdata.models import ShapesModel, TableModel
table = TableModel.parse(slide, region="spots", region_key="region", instance_key="instance")
data = spatialdata.SpatialData(shapes={"spots": ShapesModel.parse(points)}, tables={"table": table})
begun = time.perf_counter()
image = spatialdata.rasterize_bins(data, "spots", "table", col_key="array_col", row_key="array_row")
array = image.data if hasattr(image, "data") else image
channels, rows, columns = array.shape
made = 0
for row in range(0, rows - 15, 16):
    for column in range(0, columns - 15, 16):
        np.asarray(array[:, row : row + 16, column : column + 16])
        made += 1
print(json.dumps({"samples": made, "seconds": time.perf_counter() - begun, "what": "rasterize_bins, tiles, 512 genes"}))
"""

SCDATASET = """
import json, sys, time, warnings
warnings.simplefilter("ignore")
import anndata, numpy as np
from pathlib import Path
from scdataset import scDataset, BlockShuffling
path = sorted(Path(sys.argv[1]).glob("*.h5ad"))[0]
slide = anndata.read_h5ad(path, backed="r")
class Rows:
    def __len__(self): return slide.shape[0]
    def __getitem__(self, index): return slide.X[np.sort(index)]
begun = time.perf_counter()
made = 0
for batch in scDataset(Rows(), BlockShuffling(block_size=16), batch_size=256, fetch_factor=8):
    made += 1
    batch.toarray()
    if time.perf_counter() - begun > 20:
        break
what = "batches of 256 spots, all genes, no windows"
print(json.dumps({"samples": made, "seconds": time.perf_counter() - begun, "what": what}))
"""

PEERS = {
    "spatialdata": (["spatialdata", "geopandas"], SPATIALDATA),
    "scdataset": (["scdataset", "anndata"], SCDATASET),
}


def measure_peers(cache: Path, slides: Path) -> dict[str, dict[str, Any]]:
    """Install and run every peer; a row a peer, with `samples/s` or the reason why there is none."""
    return {name: _measure(cache, name, packages, script, slides) for name, (packages, script) in PEERS.items()}


def _measure(cache: Path, name: str, packages: list[str], script: str, slides: Path) -> dict[str, Any]:
    folder = cache / f"peer-{name}"
    python = folder / "bin" / "python"
    try:
        if not (folder / "installed").exists():
            subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, capture_output=True, timeout=120)
            install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages]
            subprocess.run(install, check=True, capture_output=True, text=True, timeout=INSTALL_SECONDS)
            (folder / "installed").touch()
        version = _output([str(python), "-c", f"import importlib.metadata as m; print(m.version({packages[0]!r}))"])
        found = json.loads(_output([str(python), "-c", script, str(slides)]).splitlines()[-1])
    except subprocess.TimeoutExpired as error:
        return {"skipped": f"took longer than {error.timeout:.0f} s"}
    except subprocess.CalledProcessError as error:
        lines = (error.stderr or "").strip().splitlines() or ["no message"]
        return {"skipped": lines[-1][:200]}
    return {"version": version, "samples/s": found["samples"] / found["seconds"], "what": found["what"]}


def _output(command: list[str]) -> str:
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=RUN_SECONDS)
    return done.stdout.strip()
