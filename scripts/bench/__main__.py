"""Measures stpatch against the machine's limits, plain versions of its kernels, and public peers.

    python -m scripts.bench [--quick] [--folder DIR] [--out DIR] [--only PART ...] [--repeats N]

Parts: stages, kernels, workers, commands, memory, build, peers, growth. Prints one table of ratios and writes
bench.json and bench.png. Simulated slides and environments of peers stay in the folder for the next run.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

from scripts.bench import corpus, report
from scripts.bench.baselines import measure_baselines
from scripts.bench.growth import measure_growth
from scripts.bench.limits import measure_limits
from scripts.bench.peers import measure_peers
from scripts.bench.stages import (
    forget,
    measure_all,
    measure_build,
    measure_command,
    measure_stage,
    measure_workers,
    write_config,
)

PARTS = ("stages", "kernels", "workers", "commands", "memory", "build", "peers", "growth")
DENSITY = {"visium": 32, "hd": 8}
SMALL_SLIDES = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one Visium-like slide, a smaller HD-like one, few points")
    parser.add_argument("--folder", type=Path, default=Path("out/bench"), help="where slides and builds lie")
    parser.add_argument(
        "--out", type=Path, default=None, help="where bench.json and bench.png go (default: the folder)"
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--repeats", type=int, default=3, help="runs of a shard stage, of which the median counts")
    options = parser.parse_args()
    folder, out = options.folder.absolute(), (options.out or options.folder).absolute()
    out.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {"machine": machine(), "versions": versions(), "quick": options.quick}
    sheets = corpora(folder, quick=options.quick)
    for part in PARTS:
        if part in options.only:
            print(f"== {part}", flush=True)
            found[part] = MEASURES[part](folder, sheets, options)
            (out / "bench.json").write_text(json.dumps(found, indent=1) + "\n")
    print(report.table(found))
    report.chart(found, out / "bench.png")
    print(f"wrote {out / 'bench.json'} and {out / 'bench.png'}")


def corpora(folder: Path, *, quick: bool) -> dict[str, Path]:
    """Simulate the two corpora; return their samplesheets."""
    visium = corpus.VISIUM[:1] if quick else corpus.VISIUM
    hd = (corpus.resized(corpus.HD[0], spots=20_000),) if quick else corpus.HD
    return {
        "visium": corpus.write_slides(folder / "slides" / "visium", visium),
        "hd": corpus.write_slides(folder / "slides" / ("hd-quick" if quick else "hd"), hd),
    }


def configs(folder: Path, sheets: dict[str, Path]) -> dict[str, Path]:
    """Return the four configs: each corpus with each rule."""
    return {
        f"{kind}-{rule}": write_config(
            folder, f"{kind}-{rule}", sheet, rule=rule, crop={"method": "random", "density": DENSITY[kind]}
        )
        for kind, sheet in sheets.items()
        for rule in ("patch", "panel")
    }


def stages(folder: Path, sheets: dict[str, Path], options: argparse.Namespace) -> Any:
    return {name: measure_all(path, repeats=options.repeats) for name, path in configs(folder, sheets).items()}


def kernels(folder: Path, sheets: dict[str, Path], _options: argparse.Namespace) -> Any:
    found = {}
    for kind, slide in (("visium", "visium0"), ("hd", _first_slide(sheets["hd"]))):
        pairs, patches = measure_baselines(configs(folder, sheets)[f"{kind}-patch"], slide)
        found[kind] = {"kernels": pairs, "limits": measure_limits(folder, patches)}
    return found


def workers(folder: Path, sheets: dict[str, Path], options: argparse.Namespace) -> Any:
    found = {}
    for name, path in configs(folder, sheets).items():
        runs = [measure_workers(path) for _ in range(options.repeats)]
        ratios = sorted(run["1"] / run["2"] for run in runs)
        found[name] = {"runs": runs, "one / two": ratios[len(ratios) // 2]}
    return found


def commands(folder: Path, sheets: dict[str, Path], options: argparse.Namespace) -> Any:
    one = folder / "one.csv"
    lines = sheets["visium"].read_text().splitlines()
    slide = sheets["visium"].with_name("visium0.h5ad")
    one.write_text(f"{lines[0]}\n{lines[1].replace(slide.name, str(slide))}\n")
    check = write_config(folder, "check-one", one)
    built = configs(folder, sheets)["visium-patch"]
    measure_command("build", str(built), "--quiet", repeats=1)
    return {
        "--help": measure_command("--help", repeats=options.repeats + 2),
        "check, one slide": measure_command("check", str(check), repeats=options.repeats + 2),
        "build, up to date": measure_command("build", str(built), "--quiet", repeats=options.repeats + 2),
    }


def memory(folder: Path, sheets: dict[str, Path], _options: argparse.Namespace) -> Any:
    found: dict[str, Any] = {}
    for name, path in configs(folder, sheets).items():
        slides = folder / f"{name}.work" / "slides"
        largest = max(_csr_bytes(file) for file in slides.glob("*.h5ad"))
        runs = {stage: measure_stage(path, stage) for stage in ("ingest", "normalize", "crop", "shard")}
        peak = max(run["peak"] for run in runs.values())
        bound = int(1.5 * largest + 400e6)
        found[name] = {"csr": largest, "bound": bound, "peak": peak, "stages": runs}
    specs = tuple(
        corpus.SlideSpec(name=f"small{i:03d}", spots=1_000, genes=2_000, filled=0.1, seed=i)
        for i in range(SMALL_SLIDES)
    )
    sheet = corpus.write_slides(folder / "slides" / "small", specs)
    for count in (10, SMALL_SLIDES):
        few = sheet.with_name(f"first{count}.csv")
        few.write_text("\n".join(sheet.read_text().splitlines()[: count + 1]) + "\n")
        path = write_config(folder, f"small-{count}", few, shards={"patches": 256})
        forget(path)
        found[f"build of {count} small slides"] = measure_command("build", str(path), "--quiet", repeats=1)
    return found


def build(folder: Path, sheets: dict[str, Path], _options: argparse.Namespace) -> Any:
    return {name: measure_build(path) for name, path in configs(folder, sheets).items()}


def peers(folder: Path, sheets: dict[str, Path], _options: argparse.Namespace) -> Any:
    return measure_peers(folder / "peers", sheets["hd"].parent)


def growth(folder: Path, _sheets: dict[str, Path], options: argparse.Namespace) -> Any:
    return measure_growth(folder / "growth", quick=options.quick)


MEASURES = {
    "stages": stages,
    "kernels": kernels,
    "workers": workers,
    "commands": commands,
    "memory": memory,
    "build": build,
    "peers": peers,
    "growth": growth,
}


def machine() -> dict[str, Any]:
    """Return what the figures depend on."""
    model = [line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return {
        "processor": model[0] if model else platform.processor(),
        "processors": os.cpu_count(),
        "load": os.getloadavg(),
    }


def versions() -> dict[str, str]:
    """Return the versions of what is measured."""
    names = ("stpatch", "numpy", "scipy", "numba", "numcodecs", "anndata", "h5py")
    return {"python": sys.version.split()[0], **{name: importlib.metadata.version(name) for name in names}}


def _lines(path: str) -> list[str]:
    file = Path(path)
    return file.read_text().splitlines() if file.exists() else []


def _first_slide(sheet: Path) -> str:
    return sheet.read_text().splitlines()[1].split(",")[0]


def _csr_bytes(path: Path) -> int:
    """Return the bytes of a stored slide's values and indices, as stored."""
    from stpatch.slides.store import open_counts

    view = open_counts(path)
    return int(view.data.nbytes + view.indices.nbytes)


if __name__ == "__main__":
    main()
