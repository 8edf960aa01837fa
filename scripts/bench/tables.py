"""Measures how a dataset of many patches opens: `python -m scripts.bench.tables [FOLDER] [--rows 10000000]`.

It makes the tables and the manifest of a dataset whose shards are not there (so regular that a row takes 5 bytes),
opens it twice in fresh processes (the first makes the mapped columns), looks keys up, orders an epoch's first batches,
and lets four workers, forked and spawned, touch rows all over the table.

Memory is told three ways: ``anonymous`` is the process' own; ``mapped`` are pages of files that all processes share and
that the system takes back when it needs them; ``share`` (PSS) counts a page that n processes map as its nth part.

100 million patches, by arithmetic: nothing in opening, in a lookup or in a batch depends on the number of rows, but for
the logarithm of it in a lookup and the manifest's list of shards (24,414 shards of 4,096 patches: 6 MB of JSON, half a
second). The file of columns takes as many bytes per row, so ten times as much on disk, of which a process touches the
pages that it reads; making it takes ten times as long, and 20 bytes of memory per row (2 GB) to sort the hashes once.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROWS = 10_000_000
PER_SHARD = 4096
SLIDES = 1000
WORKERS = 4
BATCH = 32
BLOCK = 1 << 16


def make_tables(folder: Path, rows: int) -> None:
    """Write the tables and the manifest of a dataset of `rows` patches, without its shards."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from stpatch.dataset.entries import FileEntry, ShardEntry, SplitEntry
    from stpatch.dataset.layout import Layout
    from stpatch.dataset.manifest import Manifest
    from stpatch.dataset.tables import GENES, pack_measured, patch_columns, schema, write_table
    from stpatch.dataset.tables import SLIDES as SLIDE_COLUMNS
    from stpatch.storage import sha256_file

    layout = Layout(
        format="tar", encoding="blosc", dtype="uint16", shape=(4, 4, 4), patches=PER_SHARD, labels=(), genes=False
    )
    nbytes = 20_480
    shards = [
        ShardEntry(
            path=f"train/train-{number:06d}.tar",
            bytes=nbytes * count + 1024,
            sha256="0" * 64,
            patches=count,
        )
        for number in range(-(-rows // PER_SHARD))
        for count in [min(PER_SHARD, rows - number * PER_SHARD)]
    ]
    columns = patch_columns(layout)
    path = folder / "patches.parquet"
    folder.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(
        path, schema(columns), version="2.6", compression="zstd", use_dictionary=["split", "shard", "slide_id"],
        store_schema=False, write_page_checksum=True,
    ) as writer:  # fmt: skip
        for start in range(0, rows, BLOCK):
            at = np.arange(start, min(start + BLOCK, rows))
            mixed = (at * 2_654_435_761) % 2**32  # patches of all slides in every shard
            slide = mixed % SLIDES
            values: dict[str, Any] = {
                "key": [f"slide-{s:04d}-{n:08d}" for s, n in zip(slide.tolist(), at.tolist(), strict=True)],
                "split": ["train"] * len(at),
                "shard": [shards[n].path for n in (at // PER_SHARD).tolist()],
                "slide_id": [f"slide-{s:04d}" for s in slide.tolist()],
                "index": at % PER_SHARD,
                "offset": at % PER_SHARD * nbytes,
                "nbytes": np.full(len(at), nbytes),
                "row": mixed % 997,
                "col": mixed % 991,
                "n_spots": mixed % 256 + 1,
                "coverage": (mixed % 256 + 1) / 256,
            }
            values = {name: values.get(name, mixed) for name in columns}
            arrays = [
                pa.array(values[name], type=field.type)
                if isinstance(values[name], list)
                else pa.array(values[name].astype(kind.rstrip("?")))
                for (name, kind), field in zip(columns.items(), schema(columns), strict=True)
            ]
            writer.write_table(pa.table(arrays, schema=schema(columns)))
    record = FileEntry(path=path.name, bytes=path.stat().st_size, sha256=sha256_file(path))
    genes = {name: [0 if kind != "string" else "G"] * 4 for name, kind in GENES.items()}
    genes |= {"gene_id": [1, 2, 3, 4], "name": list("ABCD"), "channel": [0, 1, 2, 3]}
    genes |= {"ensembl_id": [None] * 4, "organism": [None] * 4}
    slides = {
        name: [{"string": "{}", "binary": b""}.get(kind, None if "?" in kind else 1)] * SLIDES
        for name, kind in SLIDE_COLUMNS.items()
    }
    slides |= {"slide_id": [f"slide-{s:04d}" for s in range(SLIDES)]}
    slides |= {"measured": [pack_measured(np.arange(1, 5), 4)] * SLIDES}
    Manifest.of(
        dataset={"name": "many", "version": "1", "license": "CC0-1.0", "description": "", "seed": 0},
        layout=layout,
        values="counts",
        normalization={"method": "log1p_total", "target_sum": 10000.0},
        channels={"scope": "panel", "method": "variance", "n": 4},
        grid={"method": "lattice"},
        crop={"unit": "patch"},
        labels={},
        splits={"train": SplitEntry.of(shards, spots=0)},
        tables={
            "genes": write_table(folder, "genes", GENES, genes),
            "slides": write_table(folder, "slides", SLIDE_COLUMNS, slides),
            "patches": record,
        },
        fingerprint="0" * 64,
        versions={},
    ).write(folder)


def memory() -> dict[str, float]:
    """Return this process' memory in MB."""
    names = {"Anonymous": "anonymous", "Rss": "resident", "Pss": "share"}
    found = {}
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        name, _, text = line.partition(":")
        if name in names:
            found[names[name]] = int(text.split()[0]) / 1024
    found["mapped"] = found["resident"] - found["anonymous"]
    return {name: round(value, 1) for name, value in found.items()}


def look(folder: Path) -> dict[str, Any]:
    """Open a dataset in this process and return what everything took, in seconds and MB."""
    import stpatch
    from stpatch.dataset import reader
    from stpatch.dataset.order import Order

    _ = reader
    before, begun = memory(), time.perf_counter()
    dataset = stpatch.open(folder, "train")
    found: dict[str, Any] = {"open": time.perf_counter() - begun, "imported": before, "opened": memory()}
    random = np.random.default_rng(0).integers(0, len(dataset), 1000)
    keys = dataset._rows.keys(random)
    begun = time.perf_counter()
    assert [dataset.number(key) for key in keys] == random.tolist()
    found["lookup, each"] = (time.perf_counter() - begun) / len(keys)
    begun = time.perf_counter()
    epoch = Order(samples=len(dataset), batch_size=BATCH, seed=0).epoch(0)
    epoch.batch(0)
    found["first batch's order"] = time.perf_counter() - begun
    begun = time.perf_counter()
    for first in range(0, 6400, 64):
        epoch.batches(range(first, first + 64))
    found["order, each batch"] = (time.perf_counter() - begun) / 6400
    begun = time.perf_counter()
    for first in range(0, 64000, BATCH):
        dataset._addresses(epoch.samples(np.arange(first, first + BATCH)))
    found["addresses of 2,000 batches"] = time.perf_counter() - begun
    found["read at random"] = memory()
    begun = time.perf_counter()
    found["select one slide"] = len(dataset.select(slide="slide-0007"))
    found["select"] = time.perf_counter() - begun
    found["after select"] = memory()
    return found


def work(dataset: Any, number: int, found: Any) -> None:
    """Touch rows all over the table as a worker does that reads in random order, then wait for the others."""
    from stpatch.dataset.order import Order

    epoch = Order(samples=len(dataset), batch_size=BATCH, seed=0).epoch(0)
    for group in range(100):
        for numbers, _ in epoch.batches(range(number + group * 64 * WORKERS, (group + 1) * 64 * WORKERS, WORKERS)):
            dataset._addresses(numbers)
    found.put(("ready", memory()))
    time.sleep(5)  # the others' pages are shared with theirs
    found.put(("share", memory()))


def workers(folder: Path, method: str) -> list[dict[str, float]]:
    """Return the memory of each of four workers that map the table together."""
    import stpatch

    context = multiprocessing.get_context(method)
    dataset = stpatch.open(folder, "train")
    found = context.Queue()
    processes = [context.Process(target=work, args=(dataset, number, found)) for number in range(WORKERS)]
    for process in processes:
        process.start()
    told = [found.get() for _ in range(2 * WORKERS)]
    for process in processes:
        process.join()
    return [value for name, value in told if name == "share"]


def main() -> None:
    parser = argparse.ArgumentParser(description="Opening a dataset of many patches.")
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--look", action="store_true", help="look at a folder that is there, in this process")
    arguments = parser.parse_args()
    if arguments.look:
        print(json.dumps(look(arguments.folder)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary) / "many"
        if not (folder / "manifest.json").is_file():
            make_tables(folder, arguments.rows)
        os.environ.setdefault("STPATCH_CACHE", str(Path(temporary) / "cache"))
        command = [sys.executable, "-m", "scripts.bench.tables", "--look", str(folder)]
        for name in ("first", "second"):
            found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
            print(f"{name} time:", json.dumps(found, indent=1))
        for file in Path(os.environ["STPATCH_CACHE"]).glob("tables/*"):
            print(
                f"columns: {file.stat().st_size / 1e6:.0f} MB, {file.stat().st_size / arguments.rows:.0f} bytes a row"
            )
        for method in ("fork", "spawn"):
            print(f"{WORKERS} workers, {method}:", json.dumps(workers(folder, method)))


if __name__ == "__main__":
    main()
