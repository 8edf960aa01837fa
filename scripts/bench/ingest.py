"""Time and memory of the stage ingest on simulated slides of full size, each in a process of its own.

    python -m scripts.bench.ingest [--cases visium_h5 hd_h5 xenium gem csv] [--folder DIR] [--keep] [--scale 1.0]

A slide is written into DIR (about 5 GB in all at scale 1, one slide at a time), goes through the stage as `stpatch run
ingest` does it, checksums and store included, and is read once more by its reader alone. The bound on memory is twice
the CSR matrix as stored (values and int32 indices) plus 500 MB; the exit code is 1 where a slide passes it.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import yaml

GENES = 18_085
FREE_MB = 500


def write_visium_h5(folder: Path, scale: float) -> Path:
    """4,000 spots x 18,085 genes, 15 % of them counted."""
    spots = int(4_000 * scale)
    columns = max(2, int(spots**0.5))
    place = np.arange(spots)
    row = place // columns
    column = 2 * (place % columns) + row % 2
    barcodes = [f"{_letters(i)}-1" for i in range(spots)]
    _write_tenx(folder / "filtered_feature_bc_matrix.h5", barcodes, genes=GENES, per_spot=GENES * 15 // 100)
    _write_positions(folder / "spatial", barcodes, row, column, x=column * 100.0, y=row * 200 * 3**0.5 / 2)
    return folder


def write_hd_h5(folder: Path, scale: float) -> Path:
    """700,000 bins of 8 um, 300 genes each: 210 million stored values."""
    bins = int(700_000 * scale)
    columns = max(2, int(bins**0.5))
    place = np.arange(bins)
    row, column = place // columns, place % columns
    barcodes = [f"s_008um_{r:05d}_{c:05d}-1" for r, c in zip(row.tolist(), column.tolist(), strict=True)]
    square = folder / "square_008um"
    square.mkdir()
    _write_tenx(square / "filtered_feature_bc_matrix.h5", barcodes, genes=GENES, per_spot=300)
    _write_positions(square / "spatial", barcodes, row, column, x=column * 16.0, y=row * 16.0, parquet=True)
    scales = {"bin_size_um": 8.0, "microns_per_pixel": 0.5}
    (square / "spatial" / "scalefactors_json.json").write_text(json.dumps(scales))
    return square


def write_xenium(folder: Path, scale: float) -> Path:
    """150,000 cells x 400 genes, 25 % of them counted."""
    import pandas as pd

    cells = int(150_000 * scale)
    rng = np.random.default_rng(1)
    barcodes = [f"{_letters(i)[-10:].lower()}-1" for i in range(cells)]
    _write_tenx(folder / "cell_feature_matrix.h5", barcodes, genes=400, per_spot=100)
    table = pd.DataFrame({"cell_id": barcodes, "x_centroid": rng.uniform(0, 8000, cells)})
    table["y_centroid"] = rng.uniform(0, 8000, cells)
    table["cell_area"] = rng.uniform(20, 90, cells)
    table.to_parquet(folder / "cells.parquet", index=False)
    (folder / "experiment.xenium").write_text(json.dumps({"analysis_sw_version": "xenium-3.0.0.15"}))
    return folder


def write_gem(folder: Path, scale: float) -> Path:
    """1 GB of GEM text, genes in runs as the vendor writes them."""
    import pyarrow as pa
    from pyarrow import csv

    path = folder / "chip.gem"
    rng = np.random.default_rng(2)
    with path.open("wb") as file:
        file.write(b"#FileFormat=GEMv0.1\n#BinSize=1\n#OffsetX=0\n#OffsetY=0\ngeneID\tx\ty\tMIDCount\n")
        options = csv.WriteOptions(include_header=False, delimiter="\t", quoting_style="none")
        gene = 0
        while file.tell() < 1e9 * scale:
            lengths = 1 + rng.lognormal(6, 1.5, 500).astype(np.int64)
            names = np.repeat([f"Gene{gene + i:05d}" for i in range(500)], lengths)
            gene += 500
            rows = {"gene": names, "x": rng.integers(0, 20_000, len(names)), "y": rng.integers(0, 20_000, len(names))}
            rows["count"] = 1 + rng.poisson(0.3, len(names))
            csv.write_csv(pa.table(rows), file, options)
    return path


def write_csv(folder: Path, scale: float) -> Path:
    """100,000 cells x 1,000 genes as one dense CSV, 10 % of it not zero."""
    import pandas as pd
    import pyarrow as pa
    from pyarrow import csv

    cells = int(100_000 * scale)
    rng = np.random.default_rng(3)
    names = [f"{i:016d}" for i in range(1, cells + 1)]
    genes = [f"GENE{i}" for i in range(1_000)]
    with (folder / "cell_by_gene.csv").open("wb") as file:
        file.write(",".join(["cell", *genes]).encode() + b"\n")
        for start in range(0, cells, 5_000):
            ids = names[start : start + 5_000]
            counts = rng.poisson(0.105, (len(ids), len(genes)))
            table = pa.table([pa.array(ids), *counts.T], names=["cell", *genes])
            csv.write_csv(table, file, csv.WriteOptions(include_header=False, quoting_style="none"))
    place = {"EntityID": names, "center_x": rng.uniform(0, 8000, cells), "center_y": rng.uniform(0, 8000, cells)}
    pd.DataFrame(place).to_csv(folder / "cell_metadata.csv", index=False)
    return folder


CASES: dict[str, tuple[Callable[[Path, float], Path], dict[str, Any]]] = {
    "visium_h5": (write_visium_h5, {}),
    "hd_h5": (write_hd_h5, {}),
    "xenium": (write_xenium, {}),
    "gem": (write_gem, {"bin_um": 25.0}),
    "csv": (write_csv, {}),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--folder", type=Path, help="where the slides are written; default: a temporary folder")
    parser.add_argument("--keep", action="store_true", help="leave the slides there, and use those that are")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full sizes")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="stpatch-ingest-"))
    names = ("case", "input MB", "stage s", "read s", "read cpu s", "read MB/s", "CSR MB", "peak MB", "bound MB")
    print("  ".join(f"{name:>10}" for name in names), flush=True)
    missed = False
    for case in options.cases:
        row = one_case(case, folder / case, scale=options.scale, keep=options.keep)
        missed |= row["peak MB"] > row["bound MB"]
        print(
            "  ".join(f"{row[n]:>10.1f}" if isinstance(row[n], float) else f"{row[n]:>10}" for n in names), flush=True
        )
    if options.folder is None:
        shutil.rmtree(folder)
    return 1 if missed else 0


def one_case(case: str, folder: Path, *, scale: float, keep: bool) -> dict[str, Any]:
    """Write a slide, ingest it, and read it once more by its reader alone."""
    write, ingest = CASES[case]
    place = folder / "place"
    if not place.is_file():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / "slide").mkdir()
        place.write_text(str(write(folder / "slide", scale)))
    shutil.rmtree(folder / "work", ignore_errors=True)
    config = folder / "config.yaml"
    text = {
        "dataset": {"output": str(folder / "out"), "work_dir": str(folder / "work")},
        "slides": [{"slide_id": case, "path": place.read_text()}],
        "ingest": ingest,
    }
    config.write_text(yaml.safe_dump(text))
    stage, read = _child("stage", config), _child("read", config)
    with h5py.File(folder / "work" / "slides" / f"{case}.h5ad") as file:
        matrix = sum(file["X"][name].nbytes for name in ("data", "indices")) / 1e6
    size = sum(path.stat().st_size for path in (folder / "slide").rglob("*") if path.is_file()) / 1e6
    shutil.rmtree(folder if not keep else folder / "work")
    return {
        "case": case,
        "input MB": size,
        "stage s": stage["seconds"],
        "read s": read["seconds"],
        "read cpu s": read["cpu"],
        "read MB/s": size / read["cpu"],
        "CSR MB": matrix,
        "peak MB": stage["peak"] / 1e6,
        "bound MB": 2 * matrix + FREE_MB,
    }


def _child(what: str, config: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "scripts.bench.ingest", f"--child-{what}", str(config)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def child(what: str, config: Path) -> None:
    """Ingest (or only read) the config's slide, and print seconds, CPU seconds and the peak of memory in bytes."""
    from stpatch.config_file import load_config
    from stpatch.engine.graph import STAGES
    from stpatch.slides.readers.registry import probe_source, read_source
    from stpatch.stages.job import Job

    job = Job(load_config(config))
    (source,) = job.sources.values()
    probe_source(source, job.config.ingest)  # imports the readers
    clock, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    if what == "stage":
        STAGES["ingest"].run(job, source.slide_id)
    else:
        read_source(source, job.config.ingest)
    seconds, after = time.perf_counter() - clock, resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    fields = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    peak = next(int(words[1]) * 1024 for words in fields if words[0] == "VmHWM:")
    print(json.dumps({"seconds": seconds, "cpu": cpu, "peak": peak}))


def _letters(number: int) -> str:
    return "".join("ACGT"[(number >> 2 * k) & 3] for k in range(16)[::-1])


def _write_tenx(path: Path, barcodes: list[str], *, genes: int, per_spot: int) -> None:
    rows = len(barcodes)
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        packed = {"chunks": (80_000,), "compression": "gzip", "compression_opts": 1}
        shape = (rows * per_spot,)
        data = group.create_dataset("data", shape, np.int32, **packed)
        indices = group.create_dataset("indices", shape, np.int64, **packed)
        for start, block in _gene_blocks(rows, genes=genes, per_spot=per_spot):
            indices[start : start + block.size] = block.ravel()
            data[start : start + block.size] = 1 + (block.ravel() * 7919 % 13 == 0) * (block.ravel() % 5)
        group["indptr"] = np.arange(rows + 1) * per_spot
        group["shape"] = np.array([genes, rows])
        group["barcodes"] = np.array(barcodes, "S")
        features = group.create_group("features")
        features["id"] = np.array([f"ENSG{i:011d}" for i in range(genes)], "S")
        features["name"] = np.array([f"GENE{i}" for i in range(genes)], "S")
        features["feature_type"] = np.array(["Gene Expression"] * genes, "S")
        features["genome"] = np.array(["GRCh38"] * genes, "S")


def _gene_blocks(rows: int, *, genes: int, per_spot: int) -> Iterator[tuple[int, np.ndarray[Any, Any]]]:
    """Yield (first stored value, (rows, per_spot) ascending gene numbers), about ten million values at once."""
    rng = np.random.default_rng(0)
    step = max(1, 10_000_000 // per_spot)
    for start in range(0, rows, step):
        shape = (min(step, rows - start), per_spot + 1)
        places = np.cumsum(rng.exponential(size=shape).astype(np.float64), axis=1)
        free = genes - per_spot
        block = (places[:, :-1] / places[:, -1:] * free).astype(np.int64) + np.arange(per_spot)
        yield start * per_spot, block


def _write_positions(
    folder: Path,
    barcodes: list[str],
    row: np.ndarray[Any, Any],
    column: np.ndarray[Any, Any],
    *,
    x: np.ndarray[Any, Any],
    y: np.ndarray[Any, Any],
    parquet: bool = False,
) -> None:
    import pandas as pd

    folder.mkdir()
    table = pd.DataFrame({"barcode": barcodes, "in_tissue": 1, "array_row": row, "array_col": column})
    table["pxl_row_in_fullres"], table["pxl_col_in_fullres"] = y, x
    if parquet:
        table.to_parquet(folder / "tissue_positions.parquet", index=False)
    else:
        table.to_csv(folder / "tissue_positions.csv", index=False)


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1].startswith("--child-"):
        child(sys.argv[1].removeprefix("--child-"), Path(sys.argv[2]))
    else:
        sys.exit(main())
