"""What the scripts of this folder share: a tiny corpus, and commands run in forked children that cannot hang for ever.

A child is a copy of this process, which has imported everything: a build of the corpus takes a fraction of a second.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

import yaml
from bundles.corpus import settings, write_corpus

from stpatch.cli.app import main
from stpatch.engine.preload import preload

PATIENCE = 120.0
"""Seconds that a command may take; one that takes longer counts as hanging."""
VARIANTS: dict[str, dict[str, Any]] = {
    "tar": {},
    "zarr": {"shards": {"format": "zarr"}},
    "tar-sparse": {"shards": {"encoding": "sparse"}},
    "zarr-sparse": {"shards": {"format": "zarr", "encoding": "sparse"}},
}


@dataclass(frozen=True)
class Ended:
    """How a command ended: exit code (None: it hung; negative: a signal), stderr, seconds, peak bytes."""

    code: int | None
    err: str
    seconds: float
    peak: int

    @property
    def told(self) -> bool:
        """Whether a failure is one readable block and not a traceback."""
        return "error: " in self.err and "Traceback" not in self.err and "something unexpected" not in self.err


def prepare() -> None:
    """Import and compile everything once."""
    preload()


def inputs(folder: Path) -> Path:
    """Write the slides; return the folder."""
    write_corpus(folder)
    return folder


def config(folder: Path, slides: Path, *, name: str = "config.yaml", **sections: dict[str, Any]) -> Path:
    """Write a config whose slides lie elsewhere."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    value = settings(slides={"sheet": str(slides / "slides.csv")}, **sections)
    path.write_text(yaml.safe_dump(value, sort_keys=False))
    return path


def start(words: Sequence[object], log: Path, *, before: Callable[[], object] = lambda: None) -> int:
    """Start a command in a child with a session of its own; return its process number."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        sys.argv = ["stpatch", *map(str, words)]
        before()
        main()
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:  # noqa: BLE001 - whatever it was, the child ends here
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def wait(child: int, log: Path, *, patience: float = PATIENCE, began: float | None = None) -> Ended:
    """Wait for a child; one that hangs is killed with all its session."""
    began = time.monotonic() if began is None else began
    while True:
        pid, state, usage = os.wait4(child, os.WNOHANG)
        if pid:
            break
        if time.monotonic() - began > patience:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
            _, _, usage = os.wait4(child, 0)
            state = None
            break
        time.sleep(0.005)
    code = None if state is None else os.waitstatus_to_exitcode(state)
    err = log.read_text(errors="replace") if log.exists() else ""
    return Ended(code, err, time.monotonic() - began, usage.ru_maxrss * 1024)


def run(words: Sequence[object], log: Path, *, patience: float = PATIENCE, **options: Any) -> Ended:
    """Run a command to its end."""
    log.unlink(missing_ok=True)
    began = time.monotonic()
    return wait(start(words, log, **options), log, patience=patience, began=began)


def session(leader: int) -> list[int]:
    """Return the processes of a session that have not ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            if fields[0] != "Z" and int(fields[3]) == leader:
                found.append(int(path.parent.name))
    return found


def digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def temporaries(folder: Path) -> list[Path]:
    """Return what should not be there when nothing runs."""
    names = (".tmp-*", ".stpatch-owner.json", "*.next", "replacing.json")
    return sorted({path for name in names for path in folder.rglob(name)})


@contextlib.contextmanager
def counted(title: str) -> Iterator[dict[str, int]]:
    """Yield counters; print them at the end."""
    counts: dict[str, int] = {}
    began = time.monotonic()
    try:
        yield counts
    finally:
        print(f"{title}: " + ", ".join(f"{name} {n}" for name, n in counts.items()), end="")
        print(f" ({time.monotonic() - began:.0f} s)", flush=True)


def count(counts: dict[str, int], name: str, n: int = 1) -> None:
    """Add to a counter."""
    counts[name] = counts.get(name, 0) + n
