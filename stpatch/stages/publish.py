"""A finished dataset to the URL of ``dataset.output``: whole objects, the manifest last.

The dataset is built in a folder beside the work dir, with the same bytes as a local one. What is stored already, by the
record in the work dir and its size at the store, is left alone, so that a run that was stopped goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from stpatch.dataset.manifest import MANIFEST
from stpatch.errors import MismatchError
from stpatch.remote import Store
from stpatch.stages.job import Job
from stpatch.storage import read_sealed, sha256_file, write_sealed

RECORD = "published.json"
_OFTEN = 64
"""Files after which the record is written."""


def publish(job: Job, url: str, *, tick: Callable[[str], None] = lambda _path: None) -> int:
    """Store the files of a job's dataset behind a URL; return how many were stored.

    Parameters
    ----------
    job
        Whose dataset is finished.
    url
        The dataset's folder.
    tick
        Called with the path of each file that has been stored.

    Raises
    ------
    MismatchError
        There is another dataset, or something else, behind the URL.
    RemoteError
        The store failed, however often that was tried; the same command goes on from there.
    MissingExtraError
        The package for this kind of URL is not installed.
    """
    store = Store(url)
    files = {path.relative_to(job.output).as_posix(): path for path in sorted(job.output.rglob("*")) if path.is_file()}
    sums = {name: sha256_file(path) for name, path in files.items()}
    record = _read_record(job.work / RECORD, url)
    there = store.files()
    _require_own(there, record, sums, store)
    new = [
        name
        for name, path in files.items()
        if name != MANIFEST and (there.get(name) != path.stat().st_size or record.get(name) != sums[name])
    ]
    old = sorted(record.keys() & there.keys() - files.keys())
    if not new and not old and record.get(MANIFEST) == sums[MANIFEST] and MANIFEST in there:
        return 0
    store.remove(MANIFEST)  # a dataset in change has no entry point
    record.pop(MANIFEST, None)
    for number, name in enumerate(new):
        if number % _OFTEN == 0:
            _write_record(job.work / RECORD, url, record)
        store.put(files[name], name)
        record[name] = sums[name]
        tick(name)
    for name in old:
        store.remove(name)
        record.pop(name)
    record[MANIFEST] = sums[MANIFEST]  # noted before it is there, so that a later run knows it as its own
    _write_record(job.work / RECORD, url, record)
    store.put(files[MANIFEST], MANIFEST)
    tick(MANIFEST)
    return len(new) + 1


def _require_own(there: dict[str, int], record: dict[str, str], sums: dict[str, str], store: Store) -> None:
    """Refuse to mix with files that this job did not store."""
    foreign = sorted(there.keys() - record.keys() - sums.keys())
    if MANIFEST in there and MANIFEST not in record:
        foreign = [MANIFEST]
    if foreign:
        raise MismatchError(
            "the URL holds something that this job did not store",
            where=store.url,
            found=", ".join(foreign[:6]),
            expected="nothing, or the dataset that this work dir stored there",
            hint="choose another dataset.output, or remove what is there",
        )


def _read_record(path: Path, url: str) -> dict[str, str]:
    try:
        value: dict[str, Any] = read_sealed(path)
    except (FileNotFoundError, ValueError):
        return {}
    return dict(value["files"]) if value.get("url") == url else {}


def _write_record(path: Path, url: str, record: dict[str, str]) -> None:
    write_sealed(path, {"url": url, "files": record})
