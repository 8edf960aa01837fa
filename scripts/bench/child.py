"""Runs one stage in this process and prints what it took: the measured side of `stages`.

    python -m scripts.bench.child CONFIG STAGE [--profile]

Kernels are loaded before the clock starts (what a first run pays for them is measured on its own), and the peak of
resident memory is the kernel's, split into anonymous and file-mapped pages by a thread that looks on.
"""

from __future__ import annotations

import cProfile
import json
import resource
import shutil
import sys
import threading
import time
from pathlib import Path


def main() -> None:
    begun = time.perf_counter()
    from stpatch.config_file import load_config
    from stpatch.pipeline.job import Job
    from stpatch.pipeline.stages import STAGES
    from stpatch.pipeline.warm import compile_kernels

    config, name = Path(sys.argv[1]), sys.argv[2]
    job, stage = Job(load_config(config)), STAGES[name]
    if name == "shard":
        compile_kernels(announce=lambda text: print(text, file=sys.stderr))
    units = stage.units(job)
    shutil.rmtree(job.work / "receipts" / name, ignore_errors=True)  # done again, whatever an earlier run has done
    started = time.perf_counter() - begun
    watch = MemoryWatch()
    profile = cProfile.Profile() if "--profile" in sys.argv else None
    before = resource.getrusage(resource.RUSAGE_SELF)
    clock = time.perf_counter()
    if profile:
        profile.enable()
    for unit in units:
        stage.run(job, unit)
    if profile:
        profile.disable()
        profile.dump_stats("stage.prof")
    seconds = time.perf_counter() - clock
    after = resource.getrusage(resource.RUSAGE_SELF)
    print(
        json.dumps(
            {
                "stage": name,
                "units": len(units),
                "startup": started,
                "seconds": seconds,
                "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
                **watch.stop(),
            }
        )
    )


class MemoryWatch:
    """The peak of this process' memory, in bytes: all, anonymous, file-mapped."""

    def __init__(self, every: float = 0.01) -> None:
        self._peak = {"RssAnon": 0, "RssFile": 0}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, args=(every,), daemon=True)
        self._thread.start()

    def stop(self) -> dict[str, int]:
        """Return the peaks."""
        self._over.set()
        self._thread.join()
        return {"peak": status()["VmHWM"], "anonymous": self._peak["RssAnon"], "mapped": self._peak["RssFile"]}

    def _look(self, every: float) -> None:
        while not self._over.wait(every):
            now = status()
            for name, peak in self._peak.items():
                self._peak[name] = max(peak, now[name])


def status() -> dict[str, int]:
    """Return this process' memory figures in bytes, as Linux tells them."""
    fields = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in fields if words[-1] == "kB"}


if __name__ == "__main__":
    main()
