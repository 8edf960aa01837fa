"""Kill builds at random moments and go on: every resumed dataset must equal one that nobody disturbed.

    python scripts/faults/chaos.py --trials 500 --seed 0

A trial takes a format and an encoding, one worker or two, and kills the command up to three times: its own process, one
of its workers, or the whole group, by SIGKILL, SIGTERM or SIGINT, at a moment drawn from the whole time that such a
build takes, its end included. Every third trial replaces a finished dataset meanwhile; then, after every kill, the
dataset in its place must be whole. The last run goes to the end.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from runs import (
    PATIENCE,
    VARIANTS,
    config,
    count,
    counted,
    digests,
    inputs,
    prepare,
    run,
    session,
    start,
    temporaries,
    wait,
)

SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=float, default=0.3, help="share of the trials with two workers")
    options = parser.parse_args()
    prepare()
    bad = 0
    with tempfile.TemporaryDirectory() as name, counted("chaos") as counts:
        folder = Path(name)
        slides = inputs(folder / "slides")
        expected, seconds = {}, {}
        for variant, sections in VARIANTS.items():
            place = folder / "expected" / variant
            for workers in (1, 2):
                shutil.rmtree(place, ignore_errors=True)
                done = run(["build", config(place, slides, **sections), "-q", "-w", workers], folder / "log")
                assert done.code == 0, done.err
                seconds[variant, workers] = done.seconds
            expected[variant] = digests(place / "out")
        for trial in range(options.trials):
            rng = random.Random(f"{options.seed}-{trial}")
            place = folder / "trial"
            variant, workers = rng.choice(list(VARIANTS)), 2 if rng.random() < options.workers else 1
            replaces = trial % 3 == 2
            if replaces:
                other = rng.choice([name for name in VARIANTS if name != variant])
                assert run(["build", config(place, slides, **VARIANTS[other]), "-q", "-w", 1], folder / "log").code == 0
            words = ["build", config(place, slides, **VARIANTS[variant]), "-q", "-w", workers, "--replace"]
            for _ in range(rng.randint(1, 3)):
                faults = _disturb(words, folder / "log", rng, seconds[variant, workers], counts)
                if replaces and digests(place / "out") not in (expected[variant], expected[other]):
                    faults.append("a reader found a half")
                bad += _told(trial, variant, faults)
            done = run(words, folder / "log")
            faults = [] if done.code == 0 else [f"the last run ended with {done.code}: {done.err[-500:]}"]
            if done.code == 0 and digests(place / "out") != expected[variant]:
                faults.append("other bytes")
            faults += [f"{path} is left" for path in temporaries(place)]
            bad += _told(trial, variant, faults)
            count(counts, "trials")
            count(counts, "equal", not faults)
            shutil.rmtree(place)
        count(counts, "faults", bad)
    return 1 if bad else 0


def _disturb(words: list[object], log: Path, rng: random.Random, seconds: float, counts: dict[str, int]) -> list[str]:
    """Run a command and kill it on the way; return what went wrong."""
    log.unlink(missing_ok=True)
    child = start(words, log)
    time.sleep(rng.uniform(0, 1.1 * seconds))
    target, by = rng.choice(["parent", "worker", "group"]), rng.choice(SIGNALS)
    members = [pid for pid in session(child) if pid != child]
    try:
        if target == "group":
            os.killpg(child, by)
        elif target == "worker" and members:
            os.kill(rng.choice(members), signal.SIGKILL)
        else:
            os.kill(child, by)
    except ProcessLookupError:
        pass
    ended = wait(child, log)
    count(counts, f"{target} hit" if ended.code != 0 else "ended before")
    faults = []
    if ended.code is None:
        faults.append(f"hung for {PATIENCE:.0f} s")
    elif ended.code in (1, 2) and not ended.told:
        faults.append(f"exit {ended.code} without a word: {ended.err[-500:]}")
    end = time.monotonic() + 15
    while (left := session(child)) and time.monotonic() < end:
        time.sleep(0.05)
    for pid in left:
        faults.append(f"process {pid} is left")
        os.kill(pid, signal.SIGKILL)
    return faults


def _told(trial: int, variant: str, faults: list[str]) -> int:
    for fault in faults:
        print(f"trial {trial}, {variant}: {fault}", flush=True)
    return len(faults)


if __name__ == "__main__":
    sys.exit(main())
