"""Damage small valid slides of every platform, and see that each is read rightly or refused in words.

    python scripts/fuzz_readers.py [--cases 2500] [--seed 0] [--first 0] [--workers 2] [--bundle NAME]

A case is a number: with its seed it always damages the same file in the same way. Allowed is a `StpatchError`, or a
slide whose counts are conserved; a change that changes no content (line ends, a byte order mark, the order of rows
that are joined by id) must give the same slide. Any other exception, a crash, a hang, a warning, output, or a changed
input file is a fault, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from bundles.every import Bundle, Place, all_bundles, read_bundle, write_bundle
from bundles.same import broken_invariant, difference

from scripts.fuzz.mutations import BYTES, CELLS, HARMLESS, Promise
from stpatch.errors import StpatchError
from stpatch.slides.slide import Slide

SECONDS = 20.0
"""How long a case may take."""
MEMORY = 2 << 30
"""Bytes of address space that a case may take beyond what the process has."""
FINE = ("refused", "read", "same")


@dataclass(frozen=True, kw_only=True)
class Result:
    """What became of a case: `outcome` is one of `FINE` or the kind of fault."""

    case: int
    bundle: str
    platform: str
    what: str
    outcome: str
    detail: str = ""


def main() -> int:
    options = _parsed()
    bundles = all_bundles()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        templates = Path(folder) / "templates"
        places = [write_bundle(bundle, templates / str(number)) for number, bundle in enumerate(bundles)]
        cases = [
            case
            for case in range(options.first, options.first + options.cases)
            if options.bundle in (None, bundles[case % len(bundles)].name)
        ]
        results = run_all(cases, places, Path(folder), seed=options.seed, workers=options.workers)
    _print_table(results)
    faults = [result for result in results if result.outcome not in FINE]
    print(f"{len(results)} cases, {len(faults)} faults, {time.perf_counter() - started:.0f} s, seed {options.seed}")
    for fault in faults:
        print(f"\n{fault.outcome}: {fault.bundle}, {fault.what}\n  {fault.detail.strip()}")
        print(f"  repeat: python scripts/fuzz_readers.py --seed {options.seed} --first {fault.case} --cases 1")
    return 1 if faults else 0


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", type=int, default=2500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--bundle", help="only the cases of this bundle")
    return parser.parse_args()


def run_all(cases: list[int], places: list[Place], folder: Path, *, seed: int, workers: int) -> list[Result]:
    """Run cases in worker processes; one that dies or hangs costs its case and is replaced."""
    context = multiprocessing.get_context("spawn")
    crews = [_Crew(context, cases[i::workers], places, folder, f"worker{i}", seed) for i in range(workers)]
    while any(crew.turn() for crew in crews):
        time.sleep(0.01)
    return sorted((result for crew in crews for result in crew.results), key=lambda result: result.case)


class _Crew:
    """One worker process at a time, with its list of cases."""

    def __init__(self, context: Any, cases: list[int], places: list[Place], folder: Path, name: str, seed: int) -> None:
        self.results: list[Result] = []
        self._context, self._cases, self._places, self._seed = context, cases, places, seed
        self._folder, self._templates = folder / name, folder / "templates"
        self._process: Any = None
        self._case: int | None = None
        self._since = 0.0

    def turn(self) -> bool:
        """Take in what the worker says; return whether cases are left."""
        if not self._cases:
            if self._process is not None:
                self._process.join()
                self._process = None
            return False
        if self._process is None:
            self._start()
        while self._cases and self._pipe.poll():
            try:
                message = self._pipe.recv()
            except EOFError:
                break
            if isinstance(message, Result):
                self.results.append(message)
                self._cases = self._cases[1:]
                self._case = None
            else:
                self._case, self._since = message, time.monotonic()
        if self._case is not None and time.monotonic() - self._since > SECONDS:
            self._process.kill()
            self._process.join()
            self._lost("hang", f"more than {SECONDS:.0f} s")
        elif self._cases and not self._process.is_alive() and not self._pipe.poll():
            self._lost("crash", f"the process ended with {self._process.exitcode}")
        return True

    def _start(self) -> None:
        self._pipe, end = self._context.Pipe(duplex=False)
        arguments = (end, self._cases, self._places, self._folder, self._templates, self._seed)
        self._process = self._context.Process(target=work, args=arguments, daemon=True)
        self._process.start()
        end.close()

    def _lost(self, outcome: str, detail: str) -> None:
        case = self._cases[0]
        bundle = all_bundles()[case % len(all_bundles())]
        what = (self._folder / "what").read_text() if self._case is not None else "before the first case"
        self.results.append(
            Result(case=case, bundle=bundle.name, platform=bundle.platform, what=what, outcome=outcome, detail=detail)
        )
        self._cases, self._case, self._process = self._cases[1:], None, None


def work(pipe: Any, cases: list[int], places: list[Place], folder: Path, templates: Path, seed: int) -> None:
    """Run cases and send their results: the worker process."""
    folder.mkdir(parents=True, exist_ok=True)
    printed = (folder / "printed").open("w+b")
    for descriptor in (1, 2):
        os.dup2(printed.fileno(), descriptor)
    bundles = all_bundles()
    whole = {}
    for number in {case % len(bundles) for case in cases}:
        copy = _copied(templates / str(number), folder / "case")
        whole[number] = read_bundle(bundles[number], copy, places[number])[1]
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    for case in cases:
        number = case % len(bundles)
        pipe.send(case)
        copy = _copied(templates / str(number), folder / "case")
        result = one_case(case, bundles[number], copy, places[number], whole[number], seed=seed, note=folder / "what")
        printed.seek(0)
        if (text := printed.read()) and result.outcome in FINE:
            result = Result(**{**vars(result), "outcome": "output", "detail": text.decode(errors="replace")[-2000:]})
        printed.truncate(0)
        printed.seek(0)
        pipe.send(result)


def _copied(template: Path, folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(template, folder)
    return folder


def one_case(case: int, bundle: Bundle, folder: Path, place: Place, whole: Slide, *, seed: int, note: Path) -> Result:
    """Damage a copy of a bundle and read it."""
    rng = np.random.default_rng([seed, case])
    what, promise = damage(bundle, folder, rng)
    note.write_text(what)
    before = digests(folder)
    outcome, detail = "", ""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            raw, slide = read_bundle(bundle, folder, place)
        except StpatchError as error:
            outcome, detail = "refused", error.block()
        except BaseException:  # noqa: BLE001 - everything else is what this script is to find
            outcome, detail = "exception", traceback.format_exc()
    if not outcome:
        problem = broken_invariant(raw, slide)
        same = difference(whole, slide) == ""
        outcome, detail = ("invariant", problem) if problem else ("same" if same else "read", "")
        if outcome == "read" and promise != "any":
            outcome, detail = "another slide", difference(whole, slide)
    elif outcome == "refused" and promise == "same":
        outcome = "needless refusal"
    if caught and outcome in FINE:
        outcome, detail = "warning", f"{caught[0].category.__name__}: {caught[0].message} ({caught[0].filename})"
    if digests(folder) != before:
        outcome, detail = "input changed", ""
    return Result(
        case=case, bundle=bundle.name, platform=bundle.platform, what=what, outcome=outcome, detail=detail[-3000:]
    )


def damage(bundle: Bundle, folder: Path, rng: np.random.Generator) -> tuple[str, Promise]:
    """Change one file of a bundle; return what was done and what must come out."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    while True:
        path = files[int(rng.integers(0, len(files)))]
        kind = rng.random()
        promise: Promise = "any"
        if kind < 0.2:
            mutation, promise = HARMLESS[int(rng.integers(0, len(HARMLESS)))]
            if mutation.__name__ == "shuffle_rows" and path.name.removesuffix(".gz").endswith(bundle.by_order):
                promise = "any" if bundle.by_order else promise
        else:
            pool = BYTES if kind < 0.6 else CELLS
            mutation = pool[int(rng.integers(0, len(pool)))]
        done = mutation(path, rng)
        if done is not None:
            return f"{path.relative_to(folder)}: {done}", promise


def digests(folder: Path) -> dict[str, str]:
    """Return every file's checksum."""
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if p.is_file()}


def _print_table(results: list[Result]) -> None:
    outcomes = [*FINE, *sorted({result.outcome for result in results} - set(FINE))]
    counts = collections.Counter((result.platform, result.outcome) for result in results)
    platforms = list(dict.fromkeys(bundle.platform for bundle in all_bundles()))
    print(f"{'platform':<14}{'cases':>7}" + "".join(f"{outcome:>18}" for outcome in outcomes))
    for platform in [*platforms, "all"]:
        row = [
            sum(n for (p, o), n in counts.items() if platform in (p, "all") and o == outcome) for outcome in outcomes
        ]
        if sum(row):
            print(f"{platform:<14}{sum(row):>7}" + "".join(f"{n:>18}" for n in row))


if __name__ == "__main__":
    sys.exit(main())
