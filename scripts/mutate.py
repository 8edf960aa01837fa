"""Break one line at a time and see whether a test notices.

Every mutation names a file, a text that stands in it exactly once, what to put in its place, and the tests that should
fail. The script copies the repository, breaks the copy, runs those tests, and prints the mutations that survive: each
is a line that no test holds. A text that is not found is an error too, so that the list follows the code.

    python scripts/mutate.py               all mutations
    python scripts/mutate.py grid plan     those whose file or description contains one of the words
    python scripts/mutate.py --list        what there is
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from scripts.mutations import MUTATIONS, Mutation  # noqa: E402 - found from any folder

LONGEST = 600
"""Seconds that the tests of one mutation may take; a mutation that makes them hang counts as noticed."""


@dataclass(frozen=True)
class Verdict:
    """What became of one mutation: killed, survived or stale (its text is not in the file exactly once)."""

    mutation: Mutation
    state: str
    seconds: float


def main() -> int:
    """Run the chosen mutations; return 0 if every one was noticed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("words", nargs="*", help="only mutations whose file or description contains one of these")
    parser.add_argument("--list", action="store_true", help="print the mutations and stop")
    options = parser.parse_args()
    chosen = [
        mutation
        for mutation in MUTATIONS
        if not options.words or any(word in f"{mutation.path} {mutation.what}" for word in options.words)
    ]
    if options.list:
        for mutation in chosen:
            print(f"{mutation.path}: {mutation.what}")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        copy = _copy_repository(Path(folder) / "copy")
        verdicts = []
        for mutation in chosen:
            verdict = _try(mutation, copy)
            verdicts.append(verdict)
            print(f"{verdict.state:<9}{verdict.seconds:6.1f} s  {mutation.path}: {mutation.what}", flush=True)
    left = [verdict for verdict in verdicts if verdict.state != "killed"]
    print(f"{len(verdicts)} mutations, {len(verdicts) - len(left)} killed, {len(left)} survived or stale")
    return 1 if left else 0


def _copy_repository(target: Path) -> Path:
    """Copy the files that git tracks, as they are in the working tree."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout
    for name in filter(None, listed.decode().split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    return target


def _try(mutation: Mutation, copy: Path) -> Verdict:
    """Break the copy, run the mutation's tests, mend the copy."""
    path = copy / mutation.path
    before = path.read_text(encoding="utf-8") if path.is_file() else ""
    if before.count(mutation.old) != 1:
        return Verdict(mutation, "stale", 0.0)
    path.write_text(before.replace(mutation.old, mutation.new), encoding="utf-8")
    start = time.monotonic()
    data = os.environ.get("STPATCH_DATA") or str(ROOT.parent / "shared" / "data")
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *mutation.tests]
    try:
        done = subprocess.run(
            command,
            cwd=copy,
            env={**os.environ, "PYTHONPATH": str(copy), "STPATCH_DATA": data},
            capture_output=True,
            timeout=LONGEST,
            check=False,
        )
        state = {0: "survived", 1: "killed", 2: "killed"}.get(done.returncode, "stale")
    except subprocess.TimeoutExpired:
        state = "killed"
    finally:
        path.write_text(before, encoding="utf-8")
    return Verdict(mutation, state, time.monotonic() - start)


if __name__ == "__main__":
    sys.exit(main())
