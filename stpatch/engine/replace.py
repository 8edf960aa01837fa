"""Replacing a finished dataset: the new one is made beside it, and the two change places when it is whole.

    begin     link the shards that stay to OUTPUT.next; write replacing.json to the work dir    (the old dataset stands)
    ...       stages write to OUTPUT.next                                                       (the old dataset stands)
    publish   the two folders change places in one step; remove replacing.json; remove the old one

A reader finds the old dataset or the new one and never a half. Every step may be the last before a kill: `recover`,
with which every run begins, sees by the manifests how far it came.
"""

from __future__ import annotations

import contextlib
import errno
import shutil
from collections.abc import Iterable
from pathlib import Path

from stpatch.dataset.manifest import MANIFEST, read_manifest
from stpatch.engine.graph import CORPUS, STAGES
from stpatch.engine.owner import others_at_work, told
from stpatch.errors import StpatchError, UnitsFailedError
from stpatch.processes import this_process
from stpatch.stages.job import Job
from stpatch.stages.receipts import Output, file_of
from stpatch.storage import (
    exchange_folders,
    make_folder,
    read_sealed,
    remove_empty_folders,
    remove_file,
    sha256_file,
    share_file,
    sync_folder,
    write_sealed,
)


def must_be_made_beside(job: Job) -> bool:
    """Whether there is a finished dataset, and what the job is to make now is another one.

    One of which files alone are lost or damaged is not another one: it is mended where it stands.
    """
    if job.replacing or not (job.place / MANIFEST).is_file():
        return False
    shard, finalize = STAGES["shard"], STAGES["finalize"]
    for unit in shard.units(job):
        receipt = job.book.receipt("shard", unit)
        if receipt is None or not shard.is_current(job, receipt):
            return True
    receipt = job.book.receipt("finalize", CORPUS)
    return receipt is None or not finalize.is_current(job, receipt)


def begin(job: Job) -> None:
    """Begin to make a dataset beside the finished one: its shards that stay are linked, and cost nothing."""
    make_folder(job.beside)
    for output in _shards_that_stay(job):
        with contextlib.suppress(FileNotFoundError):  # it is lost, and will be made again
            share_file(file_of(output.path, job.roots), job.beside / output.path.partition("/")[2])
    write_sealed(job.replacing_path, {"manifest": sha256_file(job.place / MANIFEST)})


def _shards_that_stay(job: Job) -> Iterable[Output]:
    shard = STAGES["shard"]
    for unit in shard.units(job):
        receipt = job.book.receipt("shard", unit)
        if receipt is not None and shard.is_current(job, receipt):
            yield from (output for output in receipt.outputs if output.path.startswith("output/"))


def recover(job: Job) -> None:
    """Finish what a kill interrupted while two datasets changed places."""
    if not job.replacing:
        return
    old = _manifest_that_stood(job)
    now = sha256_file(job.place / MANIFEST) if (job.place / MANIFEST).is_file() else None
    if now == old:
        return  # the new one is still to be made
    if now is not None:
        _finish(job)  # they have changed places
    elif (job.beside / MANIFEST).is_file():
        _move_over(job.beside, job.place.resolve())
        _finish(job)


def _manifest_that_stood(job: Job) -> str | None:
    try:
        return str(read_sealed(job.replacing_path)["manifest"])
    except (OSError, ValueError, KeyError):
        return None


def publish(job: Job) -> None:
    """Put a finished dataset in the place of the old one.

    Raises
    ------
    UnitsFailedError
        Another process still works on it, and would write to a folder that is another one from now on.
    """
    if others := [other for other in others_at_work(job) if other.process != this_process()]:
        raise UnitsFailedError(
            "the dataset is finished and not yet in its place: another process still works on it",
            where=job.beside,
            found=told(others),
            hint=f"run the same command when that one has ended; until then {job.place} holds the old dataset",
        )
    place, beside = job.place.resolve(), job.beside
    try:
        exchange_folders(beside, place)
    except OSError as error:
        if error.errno in (errno.EIO, errno.ESTALE):
            raise
        _move_over(beside, place)  # where folders cannot change places: one that a disk is mounted on, or macOS
    _finish(job)


def _move_over(new: Path, place: Path) -> None:
    """Replace a dataset file by file; meanwhile there is no manifest, so nobody takes it for one."""
    old = _files_of(place)
    remove_file(place / MANIFEST)
    files = sorted(path for path in new.rglob("*") if path.is_file() and path != new / MANIFEST)
    names = {path.relative_to(new).as_posix() for path in files}
    for name in old - names:
        remove_file(place / name)
    for path in [*files, new / MANIFEST]:
        target = place / path.relative_to(new)
        make_folder(target.parent)
        path.replace(target)
        sync_folder(target.parent)
    remove_empty_folders(place)


def _finish(job: Job) -> None:
    """Remove the old dataset, but keep what somebody else put into its folder; take the mark away last."""
    old = job.beside
    known = _files_of(old)
    for path in sorted(old.rglob("*")) if known else ():
        name = path.relative_to(old)
        if path.is_file() and name.as_posix() not in known and not (job.place / name).exists():
            make_folder((job.place / name).parent)
            path.replace(job.place / name)
    if old.is_dir():
        shutil.rmtree(old)
    remove_file(job.replacing_path)


def _files_of(folder: Path) -> set[str]:
    """Return the names of a dataset's own files; of one that cannot be read, none."""
    from stpatch.dataset.card import CARD

    try:
        manifest = read_manifest(folder)
    except StpatchError:
        return set()
    shards = (file.path for split in manifest.splits.values() for shard in split.shards for file in shard.files())
    beside = (file.path for file in (*manifest.tables.values(), *manifest.files))
    return {MANIFEST, CARD, *shards, *beside}
