"""How the rate and the memory go with the size of the work, one axis at a time.

Every point is set against its own work: the bytes of counts in its windows, one pair of sums a gene, and the bytes of
its patches. What takes more time a byte as its axis grows, grows faster than its work.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from scripts.bench.corpus import SlideSpec, slide_ids, write_slides
from scripts.bench.pool import measure_pool
from scripts.bench.stages import forget, measure_stage, measure_stages, samples_of, sheet_of, write_config

BASE = SlideSpec(name="base", spots=10_000, filled=0.02, lattice="square", seed=7)
BASE_SECTIONS: dict[str, dict[str, Any]] = {
    "channels": {"n": 512},
    "crop": {"size": [16, 16], "density": 32},
    "shards": {"patches": 1024, "mix": 64},
}
OF_SLIDES, OF_PATCHES = ("ingest", "normalize"), ("select", "crop", "plan")
SUM_BYTES, COUNT_BYTES = 16, 2
"""A gene's sum and sum of squares in a window; a count of a patch."""
STEADY_SECONDS = 1.0
"""A shard stage shorter than this is run three times; the median counts."""

Point = dict[str, Any]


def axes(*, quick: bool) -> dict[str, list[tuple[float, Point]]]:
    """Return the points of each axis: its number, and what the point changes in `BASE` and `BASE_SECTIONS`."""
    spots = (1_000, 10_000, 100_000) if quick else (1_000, 10_000, 100_000, 300_000, 700_000)
    genes = (300, 3_000, 18_000) if quick else (300, 3_000, 18_000, 36_000)
    channels = (64, 512, 2_048) if quick else (64, 512, 2_048, 4_096)
    sizes = {8: 1, 16: 2, 64: 8} if quick else {8: 1, 16: 4, 32: 8, 64: 16, 128: 32}
    slides = (1, 10, 100) if quick else (1, 10, 100, 1_000)
    large = {"spots": 20_000 if quick else 100_000}
    return {
        "slide size": [
            (n, {"spec": {"spots": n, "filled": 0.01}, "crop": {"density": max(2, 200_000 // n)}}) for n in spots
        ],
        "genes": [(n, {"spec": {"genes": n}, "channels": {"n": 256}}) for n in genes],
        "channels": [(n, {"channels": {"n": n}, "crop": {"density": 16}}) for n in channels],
        "patch size": [(n, {"spec": large, "crop": {"size": [n, n], "density": sizes[n]}}) for n in sizes],
        "overlap": [
            (n, {"spec": {"spots": 40_000}, "crop": {"method": "tiles", "stride": 16 // n, "density": 2}})
            for n in (1, 2, 4, 8)
        ],
        "slides": [
            (n, {"slides": n, "spec": {"spots": 1_000, "genes": 2_000}, "crop": {"density": 4}}) for n in slides
        ],
        "workers": [(n, {"workers": n, "shards": {"patches": 128}}) for n in (1, 2)],
    }


def measure_growth(folder: Path, *, quick: bool) -> dict[str, dict[str, Any]]:
    """Return by axis its `points` and how its time goes with its work (`exponent`, see `exponent`)."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for axis, points in axes(quick=quick).items():
        rows: list[dict[str, Any]] = []
        known: tuple[Any, Any] = (None, None)
        for number, changes in points:
            facts, sheet = _slides(folder, changes)
            config = _config(folder, sheet, changes)
            if known[0] != facts:
                forget(config)
                known = facts, measure_stages(config, OF_SLIDES)
            rows.append({"point": number, **measure_point(config, changes, known[1])})
            print("  ", axis, {name: _short(value) for name, value in rows[-1].items()}, flush=True)
            last = changes is points[-1][1]
            if last or _facts(points[len(rows)][1]) != facts:
                shutil.rmtree(sheet.parent)
        forget(config)
        found[axis] = {"points": rows, "exponent": exponent(rows)}
    return found


def measure_point(config: Path, changes: Point, of_slides: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Measure the shard stage of one point, and what its slides took before."""
    before = {**of_slides, **measure_stages(config, OF_PATCHES)}
    samples, work = samples_of(config), work_of(config)
    runs = [measure_stage(config, "shard")]
    if runs[0]["seconds"] < STEADY_SECONDS:
        runs += [measure_stage(config, "shard") for _ in range(2)]
    shard = sorted(runs, key=lambda run: float(run["seconds"]))[len(runs) // 2]
    seconds, busy = float(shard["seconds"]), float(shard["cpu"])
    if "workers" in changes:
        seconds = busy = float(np.median(measure_pool(config, changes["workers"], repeats=5)))
    return {
        "samples": samples,
        "samples/s": samples / seconds,
        "samples/cpu s": samples / busy,
        "work bytes": work,
        "work MB/cpu s": work / busy / 1e6,
        "shard s": seconds,
        "shard cpu s": busy,
        "shard peak MB": shard["peak"] / 1e6,
        "shard mapped MB": shard["mapped"] / 1e6,
        "ingest s": before["ingest"]["seconds"],
        "ingest peak MB": before["ingest"]["peak"] / 1e6,
        "normalize peak MB": before["normalize"]["peak"] / 1e6,
        "before shard s": sum(run["seconds"] for run in before.values()),
    }


def exponent(rows: list[dict[str, Any]]) -> float:
    """Return p where the time for a byte of work goes as the axis' number to the power of p: 0 is what is hoped for.

    The time is the process' own (the wall's on the axis of workers), as it hardly depends on what else is running.
    """
    number = np.log([row["point"] for row in rows])
    time = np.log([row["shard cpu s"] / row["work bytes"] for row in rows])
    return float(np.polyfit(number, time, 1)[0])


def work_of(config: Path) -> float:
    """Return the bytes that the patches of a planned build need touched and made."""
    from stpatch.config_file import load_config
    from stpatch.slides.store import open_counts
    from stpatch.stages.crop import read_cut
    from stpatch.stages.job import Job

    job = Job(load_config(config))
    height, width = job.config.crop.size
    made = job.config.channels.n * height * width * COUNT_BYTES
    work = 0.0
    for slide_id in slide_ids(sheet_of(config)):
        view, cut = open_counts(job.slide_path(slide_id)), read_cut(job.patches_path(slide_id))
        a_spot = (view.data.nbytes + view.indices.nbytes) / (len(view.indptr) - 1)
        work += float(cut.patches.n_spots.sum()) * a_spot
        work += len(cut.patches.number) * (made + len(cut.gene_ids) * SUM_BYTES)
    return work


def _facts(changes: Point) -> tuple[dict[str, Any], int]:
    return {**vars(BASE), **changes.get("spec", {})}, changes.get("slides", 1)


def _slides(folder: Path, changes: Point) -> tuple[Any, Path]:
    facts, count = _facts(changes)
    specs = tuple(SlideSpec(**{**facts, "name": f"s{i:04d}", "seed": facts["seed"] + i}) for i in range(count))
    name = "-".join(str(facts[key]).replace(".", "_") for key in ("spots", "genes", "filled"))
    return (facts, count), write_slides(folder / f"slides-{name}", specs)


def _config(folder: Path, sheet: Path, changes: Point) -> Path:
    sections: dict[str, Any] = {name: {**keys, **changes.get(name, {})} for name, keys in BASE_SECTIONS.items()}
    return write_config(folder, "growth", sheet, **sections)


def _short(value: Any) -> Any:
    return float(f"{value:.3g}") if isinstance(value, float) else value
