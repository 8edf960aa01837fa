"""What changed since a dataset was finished: keys, slides and files; told before anything runs.

When a dataset is finished, its settings and its slides' fingerprints are written to ``finished.json`` of the work dir.
A build that would make another dataset of the same version in the same place is refused, unless it is asked to replace
it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import stpatch
from stpatch.config import Config
from stpatch.dataset.manifest import MANIFEST
from stpatch.engine.graph import STAGES
from stpatch.errors import MismatchError, StpatchError
from stpatch.slides.source import SlideSource
from stpatch.stages.job import Job, file_digest
from stpatch.storage import canonical_json, read_sealed, sha256_file, write_sealed

FILES = (
    "ingest.genes.map",
    "ingest.genes.vocabulary",
    "ingest.genes.reference",
    "channels.genes",
    "channels.candidates.genes",
)
"""Keys that may name a file: its contents count, and its place does not."""
_SHOWN = 12
_UNKNOWN = "(not set)"


def finished_path(job: Job) -> Path:
    """Return where the settings of the finished dataset stand."""
    return job.work / "finished.json"


def record_finished(job: Job) -> None:
    """Write down what the finished dataset was made of, if it is not there yet."""
    manifest = job.place / MANIFEST
    crops = job.receipts("crop")
    value = {
        "manifest": sha256_file(manifest),
        "version": job.config.dataset.version,
        "package": stpatch.__version__,
        "code": STAGES["finalize"].code(job),
        "settings": settings(job),
        "slides": {
            slide_id: {"sheet": _sheet(job.sources[slide_id]), "ingest": job.receipt("ingest", slide_id).fingerprint}
            for slide_id in crops
        },
        "left_out": sorted(set(job.sources) - set(crops)),
    }
    if read_finished(job) != value:
        write_sealed(finished_path(job), value)


def read_finished(job: Job) -> dict[str, Any] | None:
    """Return what `record_finished` wrote, None where there is nothing that can be read."""
    try:
        return read_sealed(finished_path(job))
    except (OSError, ValueError):
        return None


def settings(job: Job) -> dict[str, Any]:
    """Return every key that changes what is made, by its dotted name; slides are not among them."""
    flat = _flat(job.config)
    for key in FILES:
        value = flat.get(key)
        if isinstance(value, str):
            flat[key] = {"file": Path(value).name, "sha256": file_digest(Path(value))}
    return flat


def _flat(config: Config) -> dict[str, Any]:
    value = config.model_dump(mode="json", exclude={"run", "slides"})
    for place in ("output", "work_dir"):
        del value["dataset"][place]
    return dict(_leaves(value, ""))


def _leaves(value: Mapping[str, Any], before: str) -> Iterator[tuple[str, Any]]:
    for key, item in value.items():
        if isinstance(item, dict) and item:
            yield from _leaves(item, f"{before}{key}.")
        else:
            yield f"{before}{key}", item


@lru_cache
def _defaults() -> dict[str, Any]:
    return _flat(Config.model_validate({"dataset": {"output": "x"}, "slides": {"glob": "x"}}))


def _sheet(source: SlideSource) -> dict[str, Any]:
    named = {name: getattr(source, name) for name in ("matrix", "transcripts", "coordinates", "labels")}
    columns = {"platform": source.platform, "organism": source.organism, "split": source.split, **source.metadata}
    return {**columns, **{name: path.name for name, path in named.items() if path is not None}}


def changes(job: Job, before: Mapping[str, Any]) -> list[str]:
    """Return what differs from a finished dataset, a line each: keys, slides, files, and the code.

    Nothing large is read. A slide that was left out, because it had failed, may come in.

    Parameters
    ----------
    before
        What `record_finished` wrote.
    """
    lines = list(_changed_keys(before["settings"], settings(job)))
    known = before["slides"]
    lines += [f"slide {name} is new" for name in job.sources if name not in known and name not in before["left_out"]]
    lines += [f"slide {name} is gone" for name in known if name not in job.sources]
    for slide_id, source in job.sources.items():
        if slide_id in known:
            lines += _changed_slide(job, slide_id, known[slide_id], _sheet(source))
    if before["package"] != stpatch.__version__:
        lines.append(f"stpatch {before['package']} -> {stpatch.__version__}")
    elif before["code"] != STAGES["finalize"].code(job):
        lines.append("the code of stpatch, or of an installed extension")
    return lines


def _changed_keys(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for key in sorted({*before, *now}):
        old, new = before.get(key, _defaults().get(key)), now.get(key, _defaults().get(key))
        if old != new:
            yield f"{key}: {_shown(old)} -> {_shown(new)}"


def _changed_slide(job: Job, slide_id: str, known: Mapping[str, Any], sheet: Mapping[str, Any]) -> Iterator[str]:
    before = known["sheet"]
    for column in sorted({*before, *sheet}):
        if (old := before.get(column)) != (new := sheet.get(column)):
            yield f"slide {slide_id}, column {column}: {_shown(old)} -> {_shown(new)}"
    receipt = job.book.receipt("ingest", slide_id)
    if receipt is None:
        return  # it will be read again; what comes of it is looked at before a shard is made
    ingest = STAGES["ingest"]
    if receipt.location == ingest.location(job, slide_id):
        for item in receipt.inputs:
            if not item.unchanged(job.checksums):
                state = "changed" if Path(item.path).is_file() else "is gone"
                yield f"slide {slide_id}, file {item.path} {state}"
    elif not job.sources[slide_id].path.exists():
        yield f"slide {slide_id}, {job.sources[slide_id].path} is gone"
    if ingest.is_current(job, receipt) and receipt.fingerprint != known["ingest"]:
        yield f"slide {slide_id}: its files, or what was read from them"


def _shown(value: Any) -> str:
    if value is None:
        return _UNKNOWN
    if isinstance(value, dict) and "sha256" in value:
        return f"{value['file']} (SHA-256 {str(value['sha256'])[:12]})"
    text = value if isinstance(value, str) and value else canonical_json(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def require_consent(job: Job, *, replace: bool) -> list[str]:
    """Return what differs from the finished dataset in the job's place; refuse where it may not be replaced.

    Raises
    ------
    MismatchError
        Something differs, the version is the same, and nobody asked to replace it.
    """
    if not (job.place / MANIFEST).is_file():
        return []
    before = read_finished(job)
    if before is None or before["manifest"] != sha256_file(job.place / MANIFEST):
        lines = ["its settings, which were not written down when it was made"] if _is_other(job) else []
    else:
        lines = changes(job, before)
        if before["version"] != job.config.dataset.version:
            return lines
    if lines and not replace and not job.replacing:
        section = job.config.dataset
        raise MismatchError(
            "there is a finished dataset, and this build would make another one in its place",
            where=f"{job.place}, dataset {section.name!r}, version {section.version}",
            found="changed since it was made:" + "".join(f"\n            {line}" for line in shortened(lines)),
            hint="to replace it: --replace (readers keep the old one until the new one is whole); to keep it: set "
            "another dataset.output, or a new dataset.version to replace it under that name",
        )
    return lines


def _is_other(job: Job) -> bool:
    """Whether a dataset whose settings nobody wrote down is not the one that the job would make, by its receipts."""
    try:
        for stage in STAGES.values():
            for unit in stage.units(job):
                receipt = job.book.receipt(stage.name, unit)
                if receipt is None or not stage.is_current(job, receipt):
                    return True
    except StpatchError:  # a stage is not done at all
        return True
    return False


def shortened(lines: Iterable[str]) -> list[str]:
    """Return the first lines, and how many more there are."""
    lines = list(lines)
    return lines if len(lines) <= _SHOWN else [*lines[:_SHOWN], f"... and {len(lines) - _SHOWN} more"]
