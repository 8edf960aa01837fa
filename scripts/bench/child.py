"""Runs stages in this process and prints what each took, a JSON line a stage: the measured side of `stages`.

    python -m scripts.bench.child CONFIG STAGE [STAGE ...] [--warm CONFIG] [--profile FILE]

The clock of a stage contains the stage's own work and nothing else. Before it starts, the same stage is run on a tiny
dataset built from the `--warm` config, so that everything the stage imports on its way is imported and every compiled
loop is loaded. What that takes is told apart, as the start-up of a fresh process.
"""

from __future__ import annotations

import argparse
import contextlib
import cProfile
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from scripts.bench.memory import MemoryWatch, forget_peak


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("config", type=Path)
    parser.add_argument("stages", nargs="+")
    parser.add_argument("--warm", type=Path, default=None)
    parser.add_argument("--profile", type=Path, default=None)
    options = parser.parse_args()
    begun = time.perf_counter()
    from stpatch.config_file import load_config
    from stpatch.stages.job import Job

    if options.warm is not None:
        warm = Job(load_config(options.warm))
        for name in options.stages:
            run_stage(warm, name)
    startup = time.perf_counter() - begun
    job = Job(load_config(options.config))
    parts = watch_parts() if "shard" in options.stages else {}
    for name in options.stages:
        profile = cProfile.Profile() if options.profile else None
        print(json.dumps({"stage": name, "startup": startup, **measured(job, name, profile), **parts}), flush=True)
        if profile:
            profile.dump_stats(options.profile)


def run_stage(job: Any, name: str, *, start: Callable[[], None] = lambda: None) -> int:
    """Do all units of a stage, whatever an earlier run has done; `start` is called before the first."""
    from stpatch.engine.graph import STAGES

    stage = STAGES[name]
    shutil.rmtree(job.work / "receipts" / name, ignore_errors=True)
    units = stage.units(job)
    start()
    for unit in units:
        stage.run(job, unit)
    return len(units)


def measured(job: Any, name: str, profile: cProfile.Profile | None) -> dict[str, Any]:
    """Run a stage; return units, seconds, processor seconds and peaks of memory in bytes."""
    forget_peak()
    watch = MemoryWatch()
    begun: list[float] = []

    def start() -> None:
        if profile:
            profile.enable()
        begun.extend([time.process_time(), time.perf_counter()])

    with compilations() as compiled:
        units = run_stage(job, name, start=start)
    seconds, cpu = time.perf_counter() - begun[1], time.process_time() - begun[0]
    if profile:
        profile.disable()
    return {"units": units, "seconds": seconds, "cpu": cpu, "compiled": len(compiled), **watch.stop()}


@contextlib.contextmanager
def compilations() -> Iterator[list[Any]]:
    """Collect what is compiled meanwhile, loops read from the cache aside."""
    if "numba" not in sys.modules:
        yield []
        return
    from numba.core import event

    with event.install_recorder("numba:compile") as recorder:
        yield recorder.buffer


def watch_parts() -> dict[str, float]:
    """Count the processor seconds that the shard stage spends cutting and encoding, into the returned mapping.

    Two clock readings a sample and a part: far below what they measure.
    """
    from stpatch.registry import FORMATS
    from stpatch.stages.cutter import Cutter

    spent = {"cut cpu": 0.0, "encode cpu": 0.0}

    def timed(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **options: Any) -> Any:
            begun = time.thread_time()
            try:
                return call(*arguments, **options)
            finally:
                spent[name] += time.thread_time() - begun

        return run

    Cutter.cut = timed("cut cpu", Cutter.cut)  # type: ignore[method-assign]
    for format_ in map(FORMATS.get, FORMATS.own()):
        format_.encode = timed("encode cpu", format_.encode)  # type: ignore[method-assign]
    return spent


if __name__ == "__main__":
    main()
