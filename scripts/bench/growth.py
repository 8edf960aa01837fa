"""How patches a second and memory go with the size of the work, one axis at a time."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from scripts.bench.corpus import SlideSpec, write_slides
from scripts.bench.stages import measure_stage, samples_of, write_config

BASE = SlideSpec(name="base", spots=10_000, filled=0.02, lattice="square", seed=7)
BEFORE_SHARD = ("ingest", "normalize", "select", "crop", "plan")


def axes(*, quick: bool) -> dict[str, list[tuple[str, dict[str, Any]]]]:
    """Return the points of each axis: a label and what it changes (slide facts, config sections, slides)."""
    spots = (1_000, 10_000, 100_000) if quick else (1_000, 10_000, 100_000, 300_000, 700_000)
    genes = (300, 3_000, 18_000) if quick else (300, 3_000, 18_000, 36_000)
    channels = (64, 512, 2_048) if quick else (64, 512, 2_048, 4_096)
    sizes = (8, 16, 64) if quick else (8, 16, 32, 64, 128)
    slides = (1, 10) if quick else (1, 10, 100, 1_000)
    return {
        "slide size (spots)": [
            (str(n), {"spec": {"spots": n, "filled": _filled(n)}, "crop": {"density": 8 if n <= 10_000 else 2}})
            for n in spots
        ],
        "genes": [(str(n), {"spec": {"genes": n}, "channels": {"n": min(n, 512)}}) for n in genes],
        "channels": [(str(n), {"channels": {"n": n}}) for n in channels],
        "patch size": [(str(n), {"crop": {"size": [n, n], "density": 8 if n < 64 else 32}}) for n in sizes],
        "overlap (stride)": [
            (f"size/{k}", {"crop": {"method": "tiles", "stride": 16 // k, "density": 2}}) for k in (1, 2, 4, 8)
        ],
        "slides": [(str(n), {"slides": n, "spec": {"spots": 1_000, "genes": 2_000}}) for n in slides],
    }


def _filled(spots: int) -> float:
    """Return the share of non-zeros of the slide-size axis: the largest slides are the sparsest, as bins are."""
    return 0.02 if spots <= 100_000 else 0.005


def measure_growth(folder: Path, *, quick: bool) -> list[dict[str, Any]]:
    """Return one row a point: samples, samples a second and processor time of the shard stage, and the peaks."""
    rows = []
    for axis, points in axes(quick=quick).items():
        for label, changes in points:
            rows.append({"axis": axis, "point": label, **measure_point(folder, changes)})
            print("  ", rows[-1], flush=True)
    return rows


def measure_point(folder: Path, changes: dict[str, Any]) -> dict[str, Any]:
    """Build one point up to its plan and measure its shard stage."""
    facts = {**vars(BASE), **changes.get("spec", {})}
    count = changes.get("slides", 1)
    specs = tuple(SlideSpec(**{**facts, "name": f"s{facts['spots']}-{facts['genes']}-{i}"}) for i in range(count))
    sheet = write_slides(folder / "slides", specs)
    sections = {name: value for name, value in changes.items() if name in ("channels", "crop")}
    config = write_config(folder, "growth", sheet, shards={"patches": 1024, "mix": 64}, **sections)
    found = {stage: measure_stage(config, stage) for stage in BEFORE_SHARD}
    shard, samples = measure_stage(config, "shard"), samples_of(config)
    shutil.rmtree(folder / "growth", ignore_errors=True)
    shutil.rmtree(folder / "growth.work", ignore_errors=True)
    shutil.rmtree(folder / "slides", ignore_errors=True)
    return {
        "samples": samples,
        "samples/s": samples / shard["seconds"],
        "samples/cpu s": samples / shard["cpu"],
        "shard peak MB": shard["peak"] / 1e6,
        "shard mapped MB": shard["mapped"] / 1e6,
        "ingest s": found["ingest"]["seconds"],
        "ingest peak MB": found["ingest"]["peak"] / 1e6,
        "before shard s": sum(run["seconds"] for run in found.values()),
    }
