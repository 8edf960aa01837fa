"""What growth costs and keeps: a corpus of simulated slides, then one more, then twenty, then one taken out.

    python -m scripts.growing [--slides 200] [--folder DIR]

For every version it prints the time of the build, how many of the parent's ids, splits, samples and shards stayed, and
the time of a build of the new slides alone. Exit code 1 where anything moved.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from scipy import sparse

from stpatch.config_file import parse_config
from stpatch.dataset.manifest import read_manifest
from stpatch.dataset.opening import open_dataset
from stpatch.dataset.validate import verify
from stpatch.engine.graph import STAGES
from stpatch.engine.run import run_stages
from stpatch.stages.job import Job

GENES, SIDE = 2000, 48


def write_slide(folder: Path, number: int) -> dict[str, str]:
    """Write a simulated slide of `SIDE` x `SIDE` spots; each third one has genes that the others lack."""
    path = folder / f"s{number:04d}.h5ad"
    row = {"slide_id": path.stem, "path": str(path), "donor": f"d{number // 2}"}
    if path.exists():
        return row
    rng = np.random.default_rng(number)
    rows, columns = np.divmod(np.arange(SIDE * SIDE), SIDE)
    counts = rng.poisson(rng.gamma(0.3, 1.0, GENES) * rng.gamma(2.0, 0.3, (SIDE * SIDE, 1))).astype(np.float32)
    first = number % 3 * 50
    table = anndata.AnnData(
        X=sparse.csr_matrix(counts),
        obs=pd.DataFrame({"array_row": rows, "array_col": columns}, index=[f"p{i}" for i in range(len(rows))]),
        var=pd.DataFrame(index=[f"G{i:05d}" for i in range(first, first + GENES)]),
        obsm={"spatial": np.stack([columns, rows], axis=1).astype(np.float64)},
    )
    table.write_h5ad(path)
    return row


def build(folder: Path, rows: list[dict[str, str]], **dataset: Any) -> tuple[Path, float]:
    """Build a version of the slides; return the dataset and the seconds it took."""
    slides: dict[str, Any] = {"withdraw": dataset.pop("withdraw", [])}
    if rows:
        sheet = folder / f"{dataset['output']}.csv"
        with sheet.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        slides["sheet"] = sheet.name
    value = {
        "dataset": {"name": "grown", "version": dataset["output"], **dataset},
        "slides": slides,
        "channels": {"n": 64},
        "crop": {"size": [16, 16], "stride": 8},
        "shards": {"patches": 128},
    }
    job = Job(parse_config(value, base=folder))
    begun = time.perf_counter()
    run_stages(job, tuple(STAGES), progress=_silent)
    return job.output, time.perf_counter() - begun


def _silent(_stage: str, _units: int, _done: int) -> Any:
    from contextlib import nullcontext
    from types import SimpleNamespace

    return nullcontext(SimpleNamespace(update=lambda _n: None))


def kept(parent: Path, child: Path, *, gone: frozenset[str] = frozenset()) -> tuple[str, bool]:
    """Return in words how much of a parent is the same in a child, slides that went aside, and whether all is."""
    genes = [_pairs(folder, "genes", "name", "gene_id") for folder in (parent, child)]
    splits = [_pairs(folder, "slides", "slide_id", "split") for folder in (parent, child)]
    slides = {name: split for name, split in splits[0].items() if name not in gone}
    old, new = _samples(parent, gone), _samples(child, frozenset())
    shards = [
        {shard.path: shard.sha256 for split in read_manifest(folder).splits.values() for shard in split.shards}
        for folder in (parent, child)
    ]
    counts = {
        "gene ids": (sum(genes[1].get(name) == number for name, number in genes[0].items()), len(genes[0])),
        "splits": (sum(splits[1].get(name) == split for name, split in slides.items()), len(slides)),
        "samples": (sum(new.get(key) == value for key, value in old.items()), len(old)),
        "shards": (sum(shards[1].get(path) == sha256 for path, sha256 in shards[0].items()), len(shards[0])),
    }
    whole = all(same == total for name, (same, total) in counts.items() if name != "shards")
    return ", ".join(f"{same} of {total} {name}" for name, (same, total) in counts.items()), whole


def _pairs(folder: Path, table: str, key: str, value: str) -> dict[str, Any]:
    columns = pq.read_table(folder / f"{table}.parquet", columns=[key, value])
    return dict(zip(columns[key].to_pylist(), columns[value].to_pylist(), strict=True))


def _samples(folder: Path, gone: frozenset[str]) -> dict[str, tuple[str, int]]:
    found = {}
    for split in read_manifest(folder).splits:
        with open_dataset(folder, split) as dataset:
            for sample in dataset:
                if sample.meta["slide_id"] not in gone:
                    genes = sample.genes.tobytes() if sample.genes is not None else b""
                    found[sample.key] = (split, hash((sample.x.tobytes(), genes, sample.totals.tobytes())))
    return found


def main() -> int:
    """Run all versions; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slides", type=int, default=200)
    parser.add_argument("--folder", type=Path, help="Where to work; a temporary folder if left out.")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="growing-"))
    folder.mkdir(parents=True, exist_ok=True)
    n = options.slides
    rows = [write_slide(folder, number) for number in range(n + 21)]
    first, seconds = build(folder, rows[:n], output="v1")
    print(f"v1: {n} slides, {seconds:.1f} s")
    whole = True
    versions = [
        ("v2", rows[: n + 1], first, []),
        ("v3", rows[: n + 21], "v2", []),
        ("v4", [], "v3", [rows[3]["slide_id"]]),
    ]
    before = n
    for name, listed, parent, withdraw in versions:
        parent_folder = folder / str(parent)
        child, seconds = build(folder, listed, output=name, extends=str(parent_folder), withdraw=withdraw)
        words, same = kept(parent_folder, child, gone=frozenset(withdraw))
        problems = list(verify(child, deep=True))
        line = f"{name}: {seconds:.1f} s; {words} stayed; {len(problems)} problems found by validate --deep"
        if len(listed) > before:
            _, alone = build(folder, listed[before:], output=f"{name}-alone")
            line += f"; the {len(listed) - before} new slides alone: {alone:.1f} s"
        print(line)
        whole = whole and same and not problems
        before = max(before, len(listed))
    if options.folder is None:
        shutil.rmtree(folder)
    return 0 if whole else 1


if __name__ == "__main__":
    sys.exit(main())
