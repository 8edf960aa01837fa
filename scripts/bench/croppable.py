"""Croppable slides beside stored patches, the shard stage, and random crops of a dense array.

Rates are of one processor's time, each way in turn with the others, so that a busy machine slows all of them. Bytes are
those of whole datasets, beside the slides' own files: also of real slides, where `STPATCH_DATA` names their folder.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from scripts.bench.corpus import SlideSpec, resized, write_slides
from scripts.bench.stages import run_child, write_config

BATCH, SAMPLES, REPEATS = 32, 256, 5
SIZE, CHANNELS = 16, 512
VISIUM = SlideSpec(name="crop-visium", spots=4_000, filled=0.15, seed=0)
HD = SlideSpec(name="crop-hd", spots=120_000, filled=0.02, lattice="square", seed=100)
REAL = {
    "CytAssist, mouse": ("visium_cytassist_mouse", {"platform": "visium"}),
    "her2st A1": ("her2st/ST-cnts/A1.tsv.gz", {"platform": "st"}),
    "ST hippocampus": ("st_mouse_hippocampus/Hippo1.tsv.gz", {"platform": "st"}),
}
"""Real slides: their path from the folder of real slides, and what reads them."""


def measure_croppable(folder: Path, *, quick: bool) -> dict[str, Any]:
    """Return rates by kind and rule, growth with the slide and the patch, and bytes."""
    specs = {"visium": VISIUM, "hd": resized(HD, spots=20_000) if quick else HD}
    found: dict[str, Any] = {"rates": {}, "growth": {}, "bytes": {}}
    for kind, spec in specs.items():
        sheet = write_slides(folder / "slides" / spec.name, (spec,))
        for rule in ("panel", "patch"):
            found["rates"][f"{kind}-{rule}"] = measure_rates(folder, f"{kind}-{rule}", sheet, rule=rule, density=8)
        found["bytes"][f"{kind}-like, simulated"] = measure_bytes(folder, sheet, sheet.with_name(f"{spec.name}.h5ad"))
    for spots in (1_000, 10_000) if quick else (1_000, 10_000, 100_000, 700_000):
        spec = resized(HD, spots=spots)
        sheet = write_slides(folder / "slides" / spec.name, (spec,))
        density = max(0.5, min(8, 200_000 / spots))
        found["growth"][f"{spots:,} spots"] = measure_rates(folder, "growth", sheet, rule="patch", density=density)
    sheet = write_slides(folder / "slides" / VISIUM.name, (VISIUM,))
    dataset = str(folder / "visium-patch-slides")
    for size in (8, 32) if quick else (8, 16, 32, 64):
        found["growth"][f"patches of {size} x {size}"] = child("rates", dataset, size)
    for overlap in (1, 2, 4):
        found["growth"][f"stride size / {overlap}"] = child("overlap", dataset, overlap)
    for workers in (1, 2):
        found["growth"][f"{workers} worker{'s' * (workers > 1)}"] = child("workers", dataset, workers)
    data = os.environ.get("STPATCH_DATA")
    for name, (path, ingest) in REAL.items() if data else ():
        raw = Path(str(data)) / path
        sheet = folder / f"{name.split()[0].strip(',')}.csv"
        sheet.write_text(f"slide_id,path\nreal,{raw}\n")
        found["bytes"][name] = measure_bytes(folder, sheet, None, ingest=ingest)
    return found


def child(*words: Any) -> dict[str, Any]:
    """Return what one of this module's ways to measure prints in a process of its own."""
    import json

    value: dict[str, Any] = json.loads(run_child("croppable", *map(str, words))[-1])
    return value


def built(folder: Path, name: str, sheet: Path, *, rule: str, **sections: Any) -> Path:
    """Build a dataset, and return its config."""
    config = write_config(folder, name, sheet, rule=rule, **sections)
    run_child("croppable", "build", str(config))
    return config


def measure_rates(folder: Path, name: str, sheet: Path, *, rule: str, density: float) -> dict[str, Any]:
    """Return microseconds per patch of every way to get the same patches."""
    crop = {"method": "random", "density": density, "size": [SIZE, SIZE]}
    built(folder, f"{name}-shards", sheet, rule=rule, crop=crop, shards={"patches": 64})
    built(folder, f"{name}-slides", sheet, rule=rule, crop=crop, shards={"format": "slides"})
    return child("rates", folder / f"{name}-slides", SIZE, folder / f"{name}-shards")


def measure_bytes(
    folder: Path, sheet: Path, raw: Path | None, *, ingest: dict[str, Any] | None = None
) -> dict[str, float]:
    """Return MB of a slide: as .h5ad, as a dataset of slides, and as shards of several crops and draws."""
    sections: dict[str, Any] = {"ingest": ingest or {}, "crop": {"method": "tiles", "size": [SIZE, SIZE]}}
    found: dict[str, float] = {}
    config = built(folder, "bytes-slides", sheet, rule="patch", **sections, shards={"format": "slides"})
    dataset = folder / "bytes-slides"
    found["slides"] = size_of(dataset)
    if raw is None:
        from stpatch.stages.convert import to_slides

        out = folder / "bytes-raw"
        _remove(out)
        raw = to_slides(dataset, out, kind="h5ad")[0]
    found[".h5ad"] = raw.stat().st_size / 1e6
    found[".h5ad, gzip"] = compressed_h5ad(raw, folder / "bytes.h5ad")
    for name, crop, draws in (
        ("shards, stride = size", {}, 1),
        ("shards, stride = size / 4", {"stride": SIZE // 4}, 1),
        ("shards, 8 draws", {}, 8),
    ):
        both = {**sections, "crop": {**sections["crop"], **crop}, "channels": {"draws": draws}}
        built(folder, "bytes-shards", sheet, rule="patch", **both)
        found[name] = size_of(folder / "bytes-shards")
    for name in ("bytes-slides", "bytes-shards"):
        _remove(folder / name)
        _remove(folder / f"{name}.work")
    config.unlink()
    return found


def compressed_h5ad(raw: Path, path: Path) -> float:
    """Return the MB of a slide as AnnData writes it with gzip."""
    import anndata

    slide = anndata.read_h5ad(raw)
    slide.X = slide.X.astype(np.float32)
    slide.write_h5ad(path, compression="gzip")
    size = path.stat().st_size / 1e6
    path.unlink()
    return size


def size_of(folder: Path) -> float:
    """Return the MB of all files of a dataset."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def in_turn(ways: dict[str, Callable[[], object]], count: int) -> dict[str, float]:
    """Return microseconds of processor time per patch of each way; the first round is not counted."""
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(REPEATS + 1):
        for name, run in ways.items():
            begun = time.process_time()
            run()
            spent[name].append((time.process_time() - begun) / count * 1e6)
    return {name: median(times[1:]) for name, times in spent.items()}


def read(dataset: Any, order: Any) -> None:
    """Read some samples in batches."""
    for start in range(0, len(order), BATCH):
        dataset.batch(order[start : start + BATCH])


def rates(slides: Path, size: int, shards: Path | None) -> dict[str, Any]:
    """Return what reading takes: cut from slides, from shards, by the shard stage's code, and from a dense array."""
    import stpatch

    asked: dict[str, Any] = {} if shards is not None else {"crop": {"method": "random", "size": size}}
    ways: dict[str, Callable[[], object]] = {}
    begun = time.process_time()
    cut: Any = stpatch.open(slides, "train", fresh=False, **asked)
    cut.batch([0])
    opened = time.process_time() - begun
    count = min(len(cut), SAMPLES if size <= SIZE else SAMPLES // 8)
    order = np.random.default_rng(0).permutation(len(cut))[:count]
    for values in ("counts", "normalized"):
        dataset = stpatch.open(slides, "train", values=values, fresh=False, **asked)
        ways[f"slides, {values}"] = lambda dataset=dataset: read(dataset, order)
        if shards is not None:
            stored = stpatch.open(shards, "train", values=values)
            ways[f"shards, {values}"] = lambda stored=stored: read(stored, order)
    if shards is not None:
        ways["shard stage"] = shard_stage(shards, count)
        if cut.panel is not None and (dense := dense_crops(cut, count)) is not None:
            ways["dense array, counts"] = dense
    return {
        "us": in_turn(ways, count),
        "samples": count,
        "open s": opened,
        "open MB": cut.open_bytes / 1e6,
    }


def shard_stage(shards: Path, count: int) -> Callable[[], object]:
    """Return the shard stage's cutting and encoding of so many patches, in its own order."""
    from scripts.bench.baselines import Opened
    from stpatch.registry import FORMATS

    opened = Opened(shards.with_name(f"{shards.name}.yaml"))
    format_ = FORMATS.get(opened.layout.format)
    patches = opened.cutter.patches
    chosen = np.sort(np.random.default_rng(0).permutation(len(patches))[:count])
    chosen = chosen[np.lexsort((patches.col[chosen], patches.row[chosen]))]
    rooms: dict[Any, Any] = {}

    def run() -> None:
        for position in chosen.tolist():
            format_.encode(opened.cutter.cut(position, 0, rooms=rooms), opened.layout)

    return run


def dense_crops(dataset: Any, count: int, *, most: float = 4e9) -> Callable[[], object] | None:
    """Return random crops of a dense (channels, rows, columns) array, stacked; None where it would be too large."""
    slide = dataset.at_epoch(0).library.slides[0]
    rows, columns = dataset.library.places(slide).shape
    if len(dataset.panel) * rows * columns * 2 > most:
        return None
    source = np.random.default_rng(0)
    array = source.poisson(0.5, (len(dataset.panel), rows, columns)).astype(np.uint16)
    places = [(int(source.integers(rows - SIZE)), int(source.integers(columns - SIZE))) for _ in range(count)]

    def run() -> None:
        for start in range(0, count, BATCH):
            np.stack([array[:, r : r + SIZE, c : c + SIZE] for r, c in places[start : start + BATCH]])

    return run


def overlap(slides: Path, factor: int) -> dict[str, Any]:
    """Return what windows take that overlap by so much along each axis."""
    import stpatch

    dataset = stpatch.open(slides, "train", crop={"method": "tiles", "stride": SIZE // factor}, fresh=False)
    order = np.random.default_rng(0).permutation(len(dataset))[:SAMPLES]
    return {"us": in_turn({"slides, counts": lambda: read(dataset, order)}, len(order)), "samples": len(dataset)}


def workers(slides: Path, count: int) -> dict[str, Any]:
    """Return seconds of an epoch by torch workers, and how long each batch was waited for."""
    from torch.utils.data import DataLoader

    import stpatch
    from stpatch.torch import PatchDataset

    dataset = stpatch.open(slides, "train", crop={"method": "random", "samples": 512}, values="normalized")
    data = PatchDataset(dataset, batch_size=BATCH, seed=0)
    loader: Any = DataLoader(data, batch_size=None, num_workers=count, persistent_workers=True)
    seconds = []
    for epoch in range(3):
        data.set_epoch(epoch)
        begun = time.perf_counter()
        for _ in loader:
            pass
        seconds.append(time.perf_counter() - begun)
    return {"us": {"epoch, wall": min(seconds[1:]) / len(dataset) * 1e6}, "samples": len(dataset)}


def _remove(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    import json
    import sys

    what, path, *rest = sys.argv[1:]
    if what == "build":
        import io
        from contextlib import redirect_stderr, redirect_stdout

        from stpatch.cli.app import app

        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            app(["build", path, "--quiet"], standalone_mode=False)
        return
    if what == "rates":
        found = rates(Path(path), int(rest[0]), Path(rest[1]) if rest[1:] else None)
    else:
        found = {"overlap": overlap, "workers": workers}[what](Path(path), int(rest[0]))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
