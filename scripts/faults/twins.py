"""Run the same thing twice at once: the result is right, or one of the two says why not.

    python scripts/faults/twins.py --twins 50 --ranks 50 --configs 20 --seed 0

``twins``: two builds of one config, started together. ``ranks``: the same rank of an array job, started twice, stage by
stage. ``configs``: two configs with one output folder, with one work dir or with two.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from runs import VARIANTS, Ended, config, count, digests, inputs, prepare, run, start, temporaries, wait

from stpatch.dataset.validate import verify
from stpatch.engine.graph import STAGES


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--twins", type=int, default=10)
    parser.add_argument("--ranks", type=int, default=5)
    parser.add_argument("--configs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    prepare()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        slides = inputs(folder / "slides")
        expected = {}
        for variant, sections in VARIANTS.items():
            place = folder / "expected" / variant
            done = run(["build", config(place, slides, **sections), "-q", "-w", 1], folder / "log")
            assert done.code == 0, done.err
            expected[variant] = digests(place / "out")
        bad = sum(_twins(folder, slides, expected, trial, options.seed) for trial in range(options.twins))
        bad += sum(_ranks(folder, slides, expected, trial, options.seed) for trial in range(options.ranks))
        bad += sum(_configs(folder, slides, expected, trial, options.seed) for trial in range(options.configs))
        print(f"faults: {bad}; " + ", ".join(f"{name} {n}" for name, n in COUNTS.items()))
    return 1 if bad else 0


COUNTS: dict[str, int] = {}


def both(one: Sequence[object], other: Sequence[object], folder: Path, rng: random.Random) -> list[Ended]:
    """Start two commands almost together; return how they ended."""
    logs = [folder / "log-one", folder / "log-other"]
    for log in logs:
        log.unlink(missing_ok=True)
    children = []
    for words, log in zip((one, other), logs, strict=True):
        children.append(start(words, log))
        time.sleep(rng.choice([0.0, 0.0, rng.uniform(0, 0.3)]))
    return [wait(child, log) for child, log in zip(children, logs, strict=True)]


def _right_or_told(ended: Sequence[Ended], what: str) -> list[str]:
    return [
        f"{what}: {one.code} {one.err[-600:]}"
        for one in ended
        if one.code != 0 and not (one.code in (1, 2) and one.told)
    ]


def _twins(folder: Path, slides: Path, expected: dict[str, dict[str, str]], trial: int, seed: int) -> int:
    rng = random.Random(f"twins-{seed}-{trial}")
    variant, place = rng.choice(list(VARIANTS)), folder / "trial"
    words = ["build", config(place, slides, **VARIANTS[variant]), "-q", "-w", 1]
    ended = both(words, words, folder, rng)
    faults = _right_or_told(ended, "twin")
    count(COUNTS, f"twins: {sum(one.code == 0 for one in ended)} of two done")
    for one in ended:
        if one.code:
            print(f"  said: {one.err.splitlines()[-4:]}")
    if digests(place / "out") != expected[variant]:
        again = run(words, folder / "log")
        count(COUNTS, "twins: once more")
        if all(one.code == 0 for one in ended) or again.code or digests(place / "out") != expected[variant]:
            faults.append("other bytes")
    faults += [f"{path} is left" for path in temporaries(place)]
    return _finish(place, f"twins {trial}, {variant}", faults)


def _ranks(folder: Path, slides: Path, expected: dict[str, dict[str, str]], trial: int, seed: int) -> int:
    rng = random.Random(f"ranks-{seed}-{trial}")
    variant, place = rng.choice(list(VARIANTS)), folder / "trial"
    path = config(place, slides, **VARIANTS[variant])
    faults = []
    for stage in STAGES:
        for rank in (0, 1):
            words = ["run", stage, path, "-q", "--rank", rank, "--world-size", 2]
            ended = both(words, words, folder, rng)
            faults += _right_or_told(ended, f"{stage} {rank}")
            count(COUNTS, f"ranks: {sum(one.code == 0 for one in ended)} of two done")
            if all(one.code for one in ended) and run(words, folder / "log").code:
                faults.append(f"{stage} {rank} does not go on")
    if digests(place / "out") != expected[variant]:
        faults.append("other bytes")
    faults += [f"{left} is left" for left in temporaries(place)]
    return _finish(place, f"ranks {trial}, {variant}", faults)


def _configs(folder: Path, slides: Path, expected: dict[str, dict[str, str]], trial: int, seed: int) -> int:
    rng = random.Random(f"configs-{seed}-{trial}")
    variants, place = rng.sample(list(VARIANTS), 2), folder / "trial"
    dataset = {"work_dir": "elsewhere"} if trial % 2 else {}
    words = [
        [
            "build",
            config(place, slides, name=f"{i}.yaml", dataset=dataset if i else {}, **VARIANTS[variant]),
            "-q",
            "-w",
            1,
        ]
        for i, variant in enumerate(variants)
    ]
    ended = both(words[0], words[1], folder, rng)
    faults = _right_or_told(ended, "config")
    done = [variant for variant, one in zip(variants, ended, strict=True) if one.code == 0]
    count(COUNTS, f"configs: {len(done)} of two done")
    if len(done) == 2:
        faults.append("both say that they made it")
    if len(done) == 1 and digests(place / "out") != expected[done[0]]:
        faults.append("other bytes")
    if done and (problems := list(verify(place / "out", deep=True))):
        faults.append(problems[0].block())
    return _finish(place, f"configs {trial}, {variants}", faults)


def _finish(place: Path, what: str, faults: Sequence[str]) -> int:
    for fault in faults:
        print(f"{what}: {fault}", flush=True)
    shutil.rmtree(place)
    return len(faults)


if __name__ == "__main__":
    sys.exit(main())
