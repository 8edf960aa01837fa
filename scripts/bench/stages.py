"""Measures every stage of the pipeline, each in a process of its own, and whole commands."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

STAGES = ("ingest", "normalize", "select", "crop", "plan", "shard", "finalize")
RULES = {
    "patch": {"scope": "patch", "method": "variance_sampled", "n": 512},
    "panel": {"scope": "panel", "method": "variance", "n": 512},
}
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


def measure_stage(config: Path, stage: str) -> dict[str, Any]:
    """Run one stage in a fresh process: seconds without start-up, processor seconds, peak memory."""
    command = [sys.executable, "-m", "scripts.bench.child", str(config), stage]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"stage {stage} of {config} failed:\n{done.stderr[-4000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def measure_all(config: Path, *, repeats: int) -> dict[str, dict[str, Any]]:
    """Run all stages in order; the shard stage `repeats` times, of which the median counts."""
    found = {}
    for stage in STAGES:
        runs = [measure_stage(config, stage) for _ in range(repeats if stage == "shard" else 1)]
        found[stage] = sorted(runs, key=lambda run: run["seconds"])[len(runs) // 2]
    found["shard"]["samples"] = samples_of(config)
    return found


def samples_of(config: Path) -> int:
    """Return how many samples a planned build has."""
    output = Path(json.loads(config.read_text())["dataset"]["output"])
    with np.load(output.with_name(output.name + ".work") / "plan.npz") as plan:
        return len(plan["split"])


def measure_command(*words: str, repeats: int = 3) -> dict[str, float]:
    """Run a whole command of stpatch; median wall seconds, median processor seconds, largest peak in bytes."""
    walls, processors, peaks = [], [], []
    for _ in range(repeats):
        begun = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "stpatch", *words], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        stderr = process.stderr
        text = stderr.read() if stderr else b""
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RuntimeError(f"stpatch {' '.join(words)} failed:\n{text.decode()[-4000:]}")
        walls.append(time.perf_counter() - begun)
        processors.append(usage.ru_utime + usage.ru_stime)
        peaks.append(usage.ru_maxrss * 1024)
    return {"seconds": statistics.median(walls), "cpu": statistics.median(processors), "peak": max(peaks)}


def forget(config: Path, *stages: str) -> None:
    """Remove the receipts of some stages, so that a build does them again; without stages, all that was made."""
    output = Path(json.loads(config.read_text())["dataset"]["output"])
    work = output.with_name(output.name + ".work")
    if not stages:
        shutil.rmtree(output, ignore_errors=True)
        shutil.rmtree(work, ignore_errors=True)
    for stage in stages:
        shutil.rmtree(work / "receipts" / stage, ignore_errors=True)
    (output / "manifest.json").unlink(missing_ok=True)


def measure_build(config: Path) -> dict[str, float]:
    """Build from nothing to the validated dataset."""
    forget(config)
    built = measure_command("build", str(config), "--quiet", repeats=1)
    output = json.loads(config.read_text())["dataset"]["output"]
    checked = measure_command("validate", output, repeats=1)
    return {**built, "validate": checked["seconds"], "samples": samples_of(config)}


def measure_workers(config: Path) -> dict[str, float]:
    """Time the shard stage of a build with one worker process (in a pool, as two are) and with two."""
    found = {}
    for workers in (1, 2):
        command = [sys.executable, "-m", "scripts.bench.pool", str(config), str(workers)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        found[str(workers)] = float(done.stdout.splitlines()[-1])
    return found
