"""Damage small whole datasets, and see that `stpatch validate --deep` finds it.

    python scripts/fuzz_dataset.py [--cases 9000] [--seed 0] [--first 0] [--kind "zarr blosc"]

A case is a number: with its seed it always damages the same dataset in the same way. Every damage must be found by the
dataset alone; or there is a reason in `REASONS` why nothing in it tells, and then it must be found when the manifest's
digest is given (``validate --digest``). A traceback, an allocation of more than 1 GB, a file read outside the folder,
or a damage that is found in neither way is a fault, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import collections
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from scripts.fuzz.dataset_mutations import MUTATIONS, Damage, Link, Special, Tree
from scripts.fuzz.datasets import KINDS, Files, build_kinds, files_of
from stpatch.dataset.manifest import read_manifest
from stpatch.dataset.validate import verify

SECONDS = 30
"""How long a look may take; what waits for ever is a fault too."""
MEMORY = 1 << 30
"""Bytes of address space that a case may take beyond what the process has."""
OUTSIDE = "outside"
_TOO_LARGE = re.compile(r"too large for this machine|malloc of size|MemoryError|realloc of size")
REASONS: tuple[tuple[str, str], ...] = (
    (r"manifest\.json:dataset\b", "name, version, licence, description, seed and notes are nowhere else"),
    (r"manifest\.json:versions|manifest\.json:version_sets", "which versions wrote it is nowhere else"),
    (r"manifest\.json:fingerprint", "it is of the config and the inputs, which are not in the dataset"),
    (r"manifest\.json:grid\b", "how spots became pixels does not follow from the pixels"),
    (r"manifest\.json:crop\b", "a filter that lets through more than there is does not show"),
    (r"manifest\.json:channels\b", "how channels were chosen does not follow from those that were"),
    (r"manifest\.json:normalization\b", "counts do not tell how they are meant to be normalized, nor by what number"),
    (r"manifest\.json:labels\b", "what a category is called, or that an unused one exists, is nowhere else"),
    (r"manifest\.json:(tables|files|splits)\b.*", "a key that this version does not know is ignored"),
    (r"manifest\.json:tensor\.dims", "names of the axes"),
    (r"genes\.parquet:(name|ensembl_id|organism)", "what a gene is called is nowhere else"),
    (r"genes\.parquet:(n_detected|sum_counts|sum_squared_counts|mean_normalized|var_normalized)",
     "moments follow from samples where a panel shows them all, else they are bounded"),
    (r"slides\.parquet:(platform|organism|metadata|inputs|qc|digest_matrix|digest_genes|genes)", "of its files"),
    (r"slides\.parquet:(spots|rows|cols|pitch_um|origin_x|origin_y|target_sum|digest_spots)",
     "it follows from patches where they show all of the slide, else it is bounded"),
    (r"slides\.parquet:measured", "that a gene of no count was measured, where other slides' masks make up for it"),
    (r"slides\.parquet:rows", "the order of slides has no meaning"),
    (r"patches\.parquet:coverage", "occupied pixels without counts are known by the number of spots alone"),
    (r"sample:(x|x one more|totals|totals odd|label|genes|swap)$",
     "a count that stays below its pixel's total, a label, a gene of no count, patches of as many spots exchanged: "
     "nothing else tells them where patches do not overlap"),
    (r".*(\.tar|/c/[0-9/]+):bytes", "a bit that makes another count or label, as an edit of it does"),
    (r".*\.json:(json|bytes)", "white space and keys that no reader looks at"),
)  # fmt: skip
"""Where damage may be silent, and why nothing in the dataset can tell."""
FINE = ("found", "found by digest", "no change")


@dataclass(frozen=True, kw_only=True)
class Result:
    """What became of a case."""

    case: int
    kind: str
    mutation: str
    what: str
    outcome: str
    detail: str = ""


class Watch:
    """Notes every file that is opened, by the interpreter's audit events."""

    def __init__(self) -> None:
        self.allowed: tuple[str, ...] = ()
        self.outside: list[str] = []
        self.on = False
        sys.addaudithook(self._see)

    def _see(self, event: str, arguments: tuple[Any, ...]) -> None:
        if (
            self.on
            and event in ("open", "os.listdir", "os.scandir")
            and isinstance(arguments[0], str | bytes | os.PathLike)
        ):
            path = os.path.realpath(os.fsdecode(arguments[0]))
            if not path.startswith(self.allowed):
                self.outside.append(path)


def main() -> int:
    options = _parsed()
    warnings.simplefilter("ignore")
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        results = run_cases(
            Path(folder), range(options.first, options.first + options.cases), seed=options.seed, only=options.kind
        )
    _print_table(results)
    faults = [result for result in results if result.outcome not in FINE]
    print(f"{len(results)} cases, {len(faults)} faults, {time.perf_counter() - started:.0f} s, seed {options.seed}")
    for fault in faults[: options.shown]:
        print(f"\n{fault.outcome}: {fault.kind}, {fault.mutation}, {fault.what}\n  {fault.detail.strip()}")
        print(f"  repeat: python scripts/fuzz_dataset.py --seed {options.seed} --first {fault.case} --cases 1")
    return 1 if faults else 0


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", type=int, default=9000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--kind", choices=list(KINDS), help="only the cases of this kind")
    parser.add_argument("--shown", type=int, default=40, help="faults that are printed")
    return parser.parse_args()


def run_cases(folder: Path, cases: range, *, seed: int, only: str | None = None) -> list[Result]:
    """Build the datasets, and run cases over them in turn."""
    outputs = build_kinds(folder / "built")
    watch = Watch()
    signal.signal(signal.SIGALRM, _too_long)
    results = []
    benches = {kind: Bench(kind, output, folder / "benches", watch) for kind, output in outputs.items()}
    for bench in benches.values():
        bench.must_be_whole()
    with _bounded_memory():
        for case in cases:
            kind = list(KINDS)[case % len(KINDS)]
            if only in (None, kind):
                results.append(benches[kind].run(case, seed=seed))
    return results


class Bench:
    """One dataset that is damaged and mended again."""

    def __init__(self, kind: str, output: Path, folder: Path, watch: Watch) -> None:
        number = str(list(KINDS).index(kind))
        self._kind = kind
        self._whole: Files = files_of(output)
        self._digest = str(read_manifest(output).digest)
        self._place = folder / number / "dataset"
        self._outside = folder / number / OUTSIDE
        shutil.copytree(output, self._place)
        shutil.copytree(output, self._outside)
        self._watch = watch

    def must_be_whole(self) -> None:
        """Raise `RuntimeError` where the dataset has problems without any damage."""
        if problems := list(verify(self._place, deep=True, digest=self._digest)):
            raise RuntimeError(f"{self._kind}: {problems[0].block()}")

    def run(self, case: int, *, seed: int) -> Result:
        """Damage the dataset, look at it, mend it."""
        rng = np.random.default_rng([seed, case])
        names, weights = list(MUTATIONS), np.array([weight for _, weight in MUTATIONS.values()], float)
        damage = None
        while damage is None:
            name = str(rng.choice(names, p=weights / weights.sum()))
            damage = MUTATIONS[name][0](self._whole, rng)
        self._write(damage.files)
        try:
            outcome, detail = self._look(damage)
        finally:
            self._mend(damage.files)
        return Result(case=case, kind=self._kind, mutation=name, what=damage.what, outcome=outcome, detail=detail)

    def _look(self, damage: Damage) -> tuple[str, str]:
        problems, outcome, detail = self._verify(None)
        if outcome or problems:
            return outcome or "found", detail
        reason = next((reason for pattern, reason in REASONS if re.match(pattern, damage.place)), None)
        if reason is None:
            return "silent", damage.place
        problems, outcome, detail = self._verify(self._digest)
        return outcome or ("found by digest" if problems else "silent with digest"), detail or reason

    def _verify(self, digest: str | None) -> tuple[list[str], str, str]:
        """Return the problems, and the fault with its detail where the look itself was one."""
        self._watch.allowed = (str(self._place.resolve()), *_LIBRARIES)
        self._watch.outside, self._watch.on = [], True
        signal.alarm(SECONDS)
        try:
            problems = [problem.block() for problem in verify(self._place, deep=True, digest=digest)]
        except (Exception, _TooLongError) as error:  # noqa: BLE001 - whatever it is, it is the fault that is looked for
            kind = {"MemoryError": "memory", "_TooLongError": "hang"}.get(type(error).__name__, "traceback")
            return [], kind, "".join(traceback.format_exception(error)[-6:])
        finally:
            signal.alarm(0)
            self._watch.on = False
        if self._watch.outside:
            return [], "outside", ", ".join(self._watch.outside[:4])
        large = [problem for problem in problems if _TOO_LARGE.search(problem)]
        return problems, "memory" if large else "", large[0] if large else ""

    def _write(self, files: Tree) -> None:
        for path in sorted(set(self._whole) | set(files)):
            new = files.get(path)
            if new == self._whole.get(path):
                continue
            place = self._place / path
            place.unlink(missing_ok=True)
            if new is None:
                continue
            place.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(new, Link):
                target = new.target
                place.symlink_to(self._outside / target.removeprefix("@outside/") if target[0] == "@" else target)
            elif isinstance(new, Special):
                os.mkfifo(place) if new.kind == "fifo" else place.mkdir()
            else:
                place.write_bytes(new)

    def _mend(self, files: Tree) -> None:
        for path in sorted(set(self._whole) | set(files)):
            old = self._whole.get(path)
            if files.get(path) == old:
                continue
            place = self._place / path
            if place.is_dir() and not place.is_symlink():
                place.rmdir()
            else:
                place.unlink(missing_ok=True)
            if old is not None:
                place.write_bytes(old)


def _too_long(_number: int, _frame: object) -> None:
    raise _TooLongError(f"no answer in {SECONDS} s")


class _TooLongError(BaseException):
    """Not an `Exception`, which the code that is looked at could take for an error of its own."""


_LIBRARIES = tuple(
    {os.path.realpath(path) for path in (sys.prefix, sys.base_prefix, *sys.path) if path and Path(path).is_dir()}
    | {"/proc/", "/sys/", "/usr/share/zoneinfo"}
)


@contextmanager
def _bounded_memory() -> Iterator[None]:
    """Let the process have `MEMORY` bytes of address space more than it has."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def _print_table(results: list[Result]) -> None:
    outcomes = sorted({result.outcome for result in results})
    counts = collections.Counter((result.mutation, result.outcome) for result in results)
    print(f"{'':<26}" + "".join(f"{outcome:>20}" for outcome in outcomes))
    for mutation in MUTATIONS:
        print(f"{mutation:<26}" + "".join(f"{counts[mutation, outcome]:>20}" for outcome in outcomes))
    for kind in KINDS:
        of_kind = collections.Counter(result.outcome for result in results if result.kind == kind)
        print(f"{kind:<26}" + "".join(f"{of_kind[outcome]:>20}" for outcome in outcomes))
    reasons = collections.Counter(result.detail for result in results if result.outcome == "found by digest")
    for reason, count in reasons.most_common():
        print(f"{count:>6} by digest alone: {reason}")


if __name__ == "__main__":
    sys.exit(main())
