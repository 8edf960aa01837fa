"""Measures stpatch against the machine's limits, plain versions of its kernels, and public peers.

    python -m scripts.bench [--quick] [--folder DIR] [--out DIR] [--only PART ...] [--repeats N]

Prints one table of ratios and writes bench.json (as each part ends) and bench.png. Simulated slides and the peers'
environments stay in the folder for the next run.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

from scripts.bench import corpus
from scripts.bench.baselines import measure_kernels
from scripts.bench.build import measure_build, measure_small_slides
from scripts.bench.chart import draw
from scripts.bench.croppable import measure_croppable
from scripts.bench.growth import measure_growth
from scripts.bench.limits import measure_machine
from scripts.bench.peers import measure_peers
from scripts.bench.pool import measure_pool, measure_processors
from scripts.bench.read import measure_reading
from scripts.bench.reading import measure_ratios
from scripts.bench.report import table
from scripts.bench.stages import (
    BEFORE_SHARD,
    folders_of,
    forget,
    measure_all,
    measure_command,
    measure_first_run,
    measure_stages,
    samples_of,
    sheet_of,
    write_config,
)

PARTS = ("stages", "kernels", "workers", "commands", "memory", "build", "peers", "growth", "reading", "croppable")
DENSITY = {"visium": 32, "hd": 8}
SMALL_SLIDES, FEW_SLIDES = 200, 10


class Bench:
    """One run: its corpora, its configs, and one method a part."""

    def __init__(self, folder: Path, *, quick: bool, repeats: int) -> None:
        self.folder, self.quick, self.repeats = folder, quick, repeats
        visium = corpus.VISIUM[:1] if quick else corpus.VISIUM
        hd = (corpus.resized(corpus.HD[0], spots=20_000),) if quick else corpus.HD
        suffix = "-quick" if quick else ""
        self.sheets = {
            "visium": corpus.write_slides(folder / "slides" / f"visium{suffix}", visium),
            "hd": corpus.write_slides(folder / "slides" / f"hd{suffix}", hd),
        }
        self.configs = {
            f"{kind}-{rule}": self.config(kind, rule, crop={"method": "random", "density": DENSITY[kind]})
            for kind in self.sheets
            for rule in ("patch", "panel")
        }

    def config(self, kind: str, rule: str, name: str = "", **sections: Any) -> Path:
        """Write the config of a corpus and a rule."""
        return write_config(self.folder, f"{kind}-{rule}{name}", self.sheets[kind], rule=rule, **sections)

    def built(self, name: str) -> dict[str, dict[str, Any]]:
        """Return the measured stages of a config, whose build is then there."""
        return measure_all(self.configs[name], self.repeats)

    def stages(self) -> Any:
        """Return every stage of every config, and what a first run pays for compiling."""
        return {"configs": {name: self.built(name) for name in self.configs}, **measure_first_run(self.folder)}

    def kernels(self) -> Any:
        """Return the kernels against their plain versions, and what the machine allows."""
        machine = measure_machine(self.folder)
        found: dict[str, Any] = {"machine": machine}
        for kind in self.sheets:
            shard = {rule: self.built(f"{kind}-{rule}")["shard"] for rule in ("patch", "panel")}
            found[kind] = measure_kernels(self.configs[f"{kind}-patch"], self.configs[f"{kind}-panel"], machine)
            for rule, limits in found[kind]["limits"].items():
                limits["shard us"] = shard[rule]["seconds"] / shard[rule]["samples"] * 1e6
                limits["shard cpu us"] = shard[rule]["cpu"] / shard[rule]["samples"] * 1e6
        return found

    def workers(self) -> Any:
        """Return the seconds of the shard stage with one worker and with two, many shards for each."""
        found: dict[str, Any] = {"two processors": measure_processors(), "configs": {}}
        for name in self.configs:
            kind, rule = name.split("-")
            crop = {"method": "random", "density": DENSITY[kind]}
            config = self.config(kind, rule, "-workers", crop=crop, shards={"patches": 64 if self.quick else 256})
            measure_stages(config, BEFORE_SHARD)
            samples = samples_of(config)
            one, two = (measure_pool(config, count, repeats=2 * self.repeats - 1) for count in (1, 2))
            found["configs"][name] = {
                "samples": samples,
                "one": one,
                "two": two,
                "two to one": median(one) / median(two),
            }
            forget(config)
        found["two processors, after"] = measure_processors()
        return found

    def commands(self) -> Any:
        """Return the time to the first byte of three commands."""
        one = corpus.first_rows(self.sheets["visium"], 1)
        check = write_config(self.folder, "check-one", one)
        config = self.configs["visium-patch"]
        measure_command("build", str(config), "--quiet", repeats=1)
        return {
            name: measure_command(*words, repeats=self.repeats + 2)
            for name, words in {
                "--help": ("--help",),
                "check, one slide": ("check", str(check)),
                "build, up to date": ("build", str(config), "--quiet"),
            }.items()
        }

    def memory(self) -> Any:
        """Return each stage's peak against the bound, and the peaks of builds of few and of many slides."""
        found: dict[str, Any] = {"configs": {}}
        for name, config in self.configs.items():
            runs = self.built(name)
            largest = max(csr_bytes(config, slide_id) for slide_id in corpus.slide_ids(sheet_of(config)))
            found["configs"][name] = {
                "csr": largest,
                "bound": int(1.5 * largest + 400e6),
                "stages": {stage: run["peak"] for stage, run in runs.items()},
            }
        count = 50 if self.quick else SMALL_SLIDES
        specs = tuple(
            corpus.SlideSpec(name=f"small{i:03d}", spots=1_000, genes=2_000, filled=0.1, seed=i) for i in range(count)
        )
        sheet = corpus.write_slides(self.folder / "slides" / f"small-{count}", specs)
        found["small slides"] = measure_small_slides(self.folder, sheet, few=FEW_SLIDES)
        return found

    def build(self) -> Any:
        """Return whole builds of the corpora: few patches a slide and many, one worker and one a processor."""
        found = {}
        for name, config in self.configs.items():
            self.built(name)  # leaves every loop in the cache
            found[name] = measure_build(config)
        for name in self.configs:
            kind, rule = name.split("-")
            for stride, workers in ((2, 1), (2, "auto"), *([(1, "auto")] if kind == "visium" else [])):
                crop = {"method": "tiles", "stride": stride}
                config = self.config(kind, rule, "-overlap", crop=crop, run={"workers": workers})
                key = f"{name}, stride {stride}, {workers} worker" + ("s" if workers == "auto" else "")
                found[key] = measure_build(config)
        return found

    def peers(self) -> Any:
        """Return the peers, and stpatch's own rates on the same slides with a fixed panel."""
        ours = {}
        for kind in self.sheets:
            shard = self.built(f"{kind}-panel")["shard"]
            ours[kind] = {
                "cut and stored/s": shard["samples"] / shard["seconds"],
                "read/s": measure_reading(folders_of(self.configs[f"{kind}-panel"])[0]),
            }
        rows = measure_peers(self.folder / "peers", {kind: sheet.parent for kind, sheet in self.sheets.items()})
        return {"ours": ours, "rows": rows}

    def growth(self) -> Any:
        """Return how rate and memory go with the size of the work."""
        return measure_growth(self.folder / "growth", quick=self.quick)

    def reading(self) -> Any:
        """Return what reading takes beside the codec's decoding of the same frames."""
        found = {}
        for name, config in self.configs.items():
            self.built(name)
            found[name] = measure_ratios(folders_of(config)[0])
        return found

    def croppable(self) -> Any:
        """Return slides that are cut when they are read beside stored patches: rates, bytes, memory, growth."""
        return measure_croppable(self.folder / "croppable", quick=self.quick)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one Visium-like slide, a smaller HD-like one, few points")
    parser.add_argument("--folder", type=Path, default=Path("out/bench"), help="where slides and builds lie")
    parser.add_argument("--out", type=Path, help="where bench.json and bench.png go (default: the folder)")
    parser.add_argument("--only", nargs="+", choices=("all", *PARTS), default=["all"])
    parser.add_argument("--repeats", type=int, default=3, help="runs of a shard stage, of which the median counts")
    options = parser.parse_args()
    folder, out = options.folder.absolute(), (options.out or options.folder).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    bench = Bench(folder, quick=options.quick, repeats=options.repeats)
    parts = [part for part in PARTS if part in options.only or "all" in options.only]
    found: dict[str, Any] = {"took": {}}
    if len(parts) < len(PARTS) and (out / "bench.json").exists():
        found = json.loads((out / "bench.json").read_text())  # the other parts stay as an earlier run found them
    found |= {"machine": machine(), "versions": versions(), "quick": options.quick}
    for part in parts:
        print(f"== {part}", flush=True)
        begun, load = time.perf_counter(), os.getloadavg()[0]
        found[part] = getattr(bench, part)()
        found["took"][part] = {"seconds": time.perf_counter() - begun, "load before": load}
        (out / "bench.json").write_text(json.dumps(found, indent=1) + "\n")
    print(table(found))
    draw(found, out / "bench.png")
    print(f"wrote {out / 'bench.json'} and {out / 'bench.png'}")


def csr_bytes(config: Path, slide_id: str) -> int:
    """Return the bytes of a stored slide's values and indices, as stored."""
    from stpatch.slides.store import open_counts

    view = open_counts(folders_of(config)[1] / "slides" / f"{slide_id}.h5ad")
    return int(view.data.nbytes + view.indices.nbytes)


def machine() -> dict[str, Any]:
    """Return what the figures depend on."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": models[0] if models else platform.processor() or platform.machine(),
        "processors": len(os.sched_getaffinity(0)),
        "load": [round(load, 2) for load in os.getloadavg()],
    }


def versions() -> dict[str, str]:
    """Return the versions of what is measured; the peers' are in their rows."""
    names = ("stpatch", "numpy", "scipy", "numba", "numcodecs", "anndata", "h5py")
    return {"python": sys.version.split()[0], **{name: importlib.metadata.version(name) for name in names}}


if __name__ == "__main__":
    main()
