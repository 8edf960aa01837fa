"""Let calls of the storage layer fail, one per build, and go on; and damage what lies in the work dir.

    python scripts/faults/faults.py --trials 300 --seed 0
    python scripts/faults/faults.py --damage

A clean build counts the calls that reach the disk: opening, writing, syncing, renaming, mapping, making folders. A
trial draws one of them and an error, has that call fail, and wants: a message, no damaged file at a final name, and
that the same command goes on to equal bytes. With ``--damage`` every file of the work dir in turn has one page of
zeros or one flipped bit at its old size; the next build must find it and make it again.
"""

from __future__ import annotations

import argparse
import errno
import io
import mmap
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from runs import VARIANTS, config, count, counted, digests, inputs, prepare, run, temporaries

from stpatch import storage
from stpatch.cli.options import job_of
from stpatch.engine.graph import STAGES

ERRORS = (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.ESTALE, errno.EACCES)


class Shim:
    """Counts the calls that reach the disk, and has one of them fail.

    Parameters
    ----------
    fail_at
        The number of the call that fails, 0 for none.
    error
        Its errno.
    folder
        Calls on paths elsewhere are left alone.
    """

    def __init__(self, folder: Path, *, fail_at: int = 0, error: int = 0, report: Path | None = None) -> None:
        self.folder = str(folder)
        self.fail_at = fail_at
        self.error = error
        self.report = report
        self.calls = 0

    def install(self) -> None:
        """Put it in the place of the calls, for the rest of this process."""
        self._wrap(io, "open", lambda a: a[0])  # which Path.open calls
        self._wrap(os, "open", lambda a: a[0])
        self._wrap(os, "fsync", lambda a: Path(f"/proc/self/fd/{a[0]}").readlink())
        self._wrap(os, "rename", lambda a: a[1])
        self._wrap(os, "replace", lambda a: a[1])
        self._wrap(os, "link", lambda a: a[1])
        self._wrap(os, "mkdir", lambda a: a[0])
        self._wrap(os, "unlink", lambda a: a[0])
        self._wrap(storage.FileWriter, "write", lambda a: a[0]._path)
        self._wrap(storage.FileWriter, "flush", lambda a: a[0]._path)
        if self.report is not None:
            report, leave = self.report, os._exit

            def ended(code: int) -> None:
                report.write_text(str(self.calls))
                leave(code)

            os._exit = ended  # type: ignore[assignment]

    def _wrap(self, place: Any, name: str, path_of: Callable[[Any], Any]) -> None:
        original = getattr(place, name)

        def wrapped(*arguments: Any, **options: Any) -> Any:
            try:
                path = os.fspath(path_of(arguments))
            except (TypeError, OSError, IndexError):
                path = ""
            if isinstance(path, str) and path.startswith(self.folder) and "/log/" not in path:
                self.calls += 1
                if self.calls == self.fail_at:
                    raise OSError(self.error, os.strerror(self.error), path)
            return original(*arguments, **options)

        setattr(place, name, wrapped)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--damage", action="store_true", help="damage every file of the work dir instead")
    options = parser.parse_args()
    prepare()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        slides = inputs(folder / "slides")
        return _damage(folder, slides) if options.damage else _faults(folder, slides, options.trials, options.seed)


def _faults(folder: Path, slides: Path, trials: int, seed: int) -> int:
    bad = 0
    place, log = folder / "trial", folder / "log"
    with counted("faults") as counts:
        calls, expected = {}, {}
        for variant, sections in VARIANTS.items():
            shim = Shim(place, report=folder / "calls")
            words = ["build", config(place, slides, **sections), "-q", "-w", 1]
            done = run(words, log, before=shim.install)
            assert done.code == 0, done.err
            calls[variant], expected[variant] = int((folder / "calls").read_text()), digests(place / "out")
            shutil.rmtree(place)
        print(f"calls that reach the disk: {calls}", flush=True)
        for trial in range(trials):
            rng = random.Random(f"{seed}-{trial}")
            variant, error = rng.choice(list(VARIANTS)), rng.choice(ERRORS)
            number = rng.randint(1, calls[variant])
            path = config(place, slides, **VARIANTS[variant])
            words = ["build", path, "-q", "-w", 1]
            done = run(words, log, before=Shim(place, fail_at=number, error=error).install)
            faults = (
                [] if done.code == 0 or (done.code in (1, 2) and done.told) else [f"{done.code}: {done.err[-800:]}"]
            )
            faults += [f"{found} is damaged" for found in damaged(path)]
            again = run(words, log)
            if again.code != 0 or digests(place / "out") != expected[variant]:
                faults.append(f"the same command does not go on: {again.code} {again.err[-800:]}")
            faults += [f"{found} is left" for found in temporaries(place)]
            for fault in faults:
                print(f"trial {trial}, {variant}, call {number}, {errno.errorcode[error]}: {fault}", flush=True)
            bad += len(faults)
            count(counts, "trials")
            count(counts, errno.errorcode[error])
            count(counts, "refused" if done.code else "did not matter")
            count(counts, "faults", len(faults))
            shutil.rmtree(place)
    return 1 if bad else 0


def damaged(path: Path) -> list[Path]:
    """Return the outputs that are not what their receipts say."""
    job = job_of(path, None)
    found: list[Path] = []
    for stage in STAGES.values():
        units = [item.name.removesuffix(".json") for item in (job.work / "receipts" / stage.name).glob("[!.]*.json")]
        found += stage.damaged(job, [unit for unit in units if not unit.endswith(".failed")])
    return found


def _damage(folder: Path, slides: Path) -> int:
    bad = 0
    place, log = folder / "trial", folder / "log"
    words = ["build", config(place, slides), "-q", "-w", 1]
    assert run(words, log).code == 0
    expected = digests(place / "out")
    with counted("damage") as counts:
        files = sorted(path for path in place.rglob("*") if path.is_file() and path.parent.name != "log")
        for number, path in enumerate(files):
            if path.name == "config.yaml" or not path.exists():
                continue
            whole, rng = path.read_bytes(), random.Random(number)
            spot = rng.randrange(len(whole))
            if number % 2:
                other = whole[:spot] + bytes([whole[spot] ^ 1 << rng.randrange(8)]) + whole[spot + 1 :]
            else:
                start = spot // mmap.PAGESIZE * mmap.PAGESIZE
                other = (
                    whole[:start] + bytes(len(whole[start : start + mmap.PAGESIZE])) + whole[start + mmap.PAGESIZE :]
                )
            stat = path.stat()
            path.write_bytes(other)
            os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
            done = run(words, log)
            right = done.code == 0 and digests(place / "out") == expected
            if not right:
                print(f"{path.relative_to(place)}: {done.code} {done.err[-500:]}", flush=True)
            bad += not right
            count(counts, "files")
            count(counts, "made again", right)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
