"""Measures every stage of the pipeline, each in a process of its own, and whole commands."""

from __future__ import annotations

import functools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scripts.bench.corpus import SlideSpec, write_slides
from scripts.bench.memory import MemoryWatch

STAGES = ("ingest", "normalize", "select", "crop", "plan", "shard", "finalize")
BEFORE_SHARD = STAGES[: STAGES.index("shard")]
RULES = {
    "patch": {"scope": "patch", "method": "variance_sampled", "n": 512},
    "panel": {"scope": "panel", "method": "variance", "n": 512},
}
WARM = SlideSpec(name="warm", spots=100, genes=40, filled=0.3, lattice="square")
ROOT = Path(__file__).resolve().parents[2]


def write_config(folder: Path, name: str, sheet: Path, *, rule: str = "patch", **sections: Any) -> Path:
    """Write a config for a simulated corpus; sections are merged into the defaults of the bench."""
    value: dict[str, Any] = {
        "dataset": {"name": "bench", "output": str(folder / name)},
        "slides": {"sheet": str(sheet)},
        "channels": dict(RULES[rule]),
        "crop": {"method": "random", "density": 8},
        "split": {"fractions": {"train": 1.0}},
        "shards": {"patches": 512},
        "run": {"workers": 1},
    }
    for section, keys in sections.items():
        value[section] = {**value.get(section, {}), **keys}
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps(value))
    return path


def measure_stages(config: Path, stages: Sequence[str], *, profile: Path | None = None) -> dict[str, dict[str, Any]]:
    """Run stages in one fresh process: start-up, seconds and processor seconds without it, and peaks of memory."""
    words = [*stages, "--warm", str(warm_config(config.parent, rule_of(config)))]
    words += ["--profile", str(profile)] if profile else []
    for _ in range(3):
        found = {run["stage"]: run for run in map(json.loads, run_child("child", str(config), *words))}
        if not any(run["compiled"] for run in found.values()):
            return found
    raise RuntimeError(f"{config}: loops are compiled again in every process, so their cache does not work")


def measure_stage(config: Path, stage: str) -> dict[str, Any]:
    """Run one stage in a process of its own."""
    return measure_stages(config, (stage,))[stage]


@functools.cache
def measure_all(config: Path, repeats: int) -> dict[str, dict[str, Any]]:
    """Run all stages in order, each in a process of its own; the shard stage `repeats` times, the median counts.

    Several parts of the bench need a finished build: it is measured once a run.
    """
    forget(config)
    found = {}
    for stage in STAGES:
        runs = [measure_stage(config, stage) for _ in range(repeats if stage == "shard" else 1)]
        found[stage] = sorted(runs, key=lambda run: run["seconds"])[len(runs) // 2]
    found["shard"] |= {"samples": samples_of(config), "bytes": dataset_bytes(config)}
    return found


def measure_first_run(folder: Path) -> dict[str, float]:
    """Run all stages of a tiny dataset with an empty cache of compiled loops, and again with what that left."""
    config = warm_config(folder, "patch")
    found = {}
    with tempfile.TemporaryDirectory(dir=folder) as cache:
        for name in ("first run", "second run"):
            begun = time.perf_counter()
            run_child("child", str(config), *STAGES, environment={"NUMBA_CACHE_DIR": cache})
            found[name] = time.perf_counter() - begun
    return found


@functools.cache
def warm_config(folder: Path, rule: str) -> Path:
    """Build a tiny dataset once a run of the bench; its stages are what a measured process warms up on."""
    sheet = write_slides(folder / "slides" / "warm", (WARM,))
    config = write_config(folder, f"warm-{rule}", sheet, rule=rule, channels={"n": 8}, crop={"size": [4, 4]})
    forget(config)
    run_child("child", str(config), *STAGES)
    return config


def rule_of(config: Path) -> str:
    """Return which of `RULES` a config follows."""
    return str(json.loads(config.read_text())["channels"]["scope"])


def run_child(module: str, *words: str, environment: Mapping[str, str] | None = None) -> list[str]:
    """Run a module of the bench in a fresh process; return the lines that it printed."""
    command = [sys.executable, "-m", f"scripts.bench.{module}", *words]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ, **(environment or {})}
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[2:])} failed:\n{done.stderr[-4000:]}")
    return done.stdout.splitlines()


def sheet_of(config: Path) -> Path:
    """Return a config's samplesheet."""
    return Path(json.loads(config.read_text())["slides"]["sheet"])


def folders_of(config: Path) -> tuple[Path, Path]:
    """Return a config's dataset and its work dir."""
    output = Path(json.loads(config.read_text())["dataset"]["output"])
    return output, output.with_name(output.name + ".work")


def samples_of(config: Path) -> int:
    """Return how many samples a planned build has."""
    with np.load(folders_of(config)[1] / "plan.npz") as plan:
        return len(plan["split"])


def dataset_bytes(config: Path) -> int:
    """Return the bytes of a dataset's shards."""
    return sum(path.stat().st_size for path in folders_of(config)[0].rglob("*.tar"))


def measure_command(*words: str, repeats: int = 3) -> dict[str, float]:
    """Run a whole command of stpatch; median wall seconds, median processor seconds, largest peak in bytes."""
    walls, processors, peaks = [], [], []
    for _ in range(repeats):
        begun = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "stpatch", *words], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        watch = MemoryWatch(f"/proc/{process.pid}/status")
        stderr = process.stderr
        text = stderr.read() if stderr else b""
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        peaks.append(watch.stop()["peak"])  # the kernel's own figure starts with the memory of who started the process
        if process.returncode:
            raise RuntimeError(f"stpatch {' '.join(words)} failed:\n{text.decode()[-4000:]}")
        walls.append(time.perf_counter() - begun)
        processors.append(usage.ru_utime + usage.ru_stime)
    return {"seconds": statistics.median(walls), "cpu": statistics.median(processors), "peak": max(peaks)}


def forget(config: Path) -> None:
    """Remove all that a config's build has made."""
    for folder in folders_of(config):
        shutil.rmtree(folder, ignore_errors=True)
