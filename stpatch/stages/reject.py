"""The reject list: patches that somebody looked at and does not want (``crop.exclude``)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from stpatch.config import CropSection
from stpatch.errors import ConfigError, InputError
from stpatch.image.crop import Patches
from stpatch.stages.job import Job, file_digest
from stpatch.storage import key_text

_PATCH = re.compile(r"(?P<slide>.+)-(?P<number>\d{6,})")
_DRAW = re.compile(r"(?P<slide>.+)-(?P<number>\d{6,})-\d+")
_MOST = 8


def crop_settings(job: Job, slide_id: str | None = None) -> dict[str, Any]:
    """Return section crop as JSON values that name no file.

    Parameters
    ----------
    slide_id
        With the slide's rejected patches, on which its crop depends; None: with the whole list's digest.
    """
    value: dict[str, Any] = job.config.section("crop")["crop"]
    del value["exclude"]  # without a list the value is what it was before there were any
    if (path := job.config.crop.exclude) is None:
        return value
    if slide_id is None:
        return {**value, "exclude": {"keys": len(read_rejects(path)), "sha256": file_digest(path)}}
    numbers = rejected(job).get(slide_id, ())
    return {**value, **({"exclude": list(numbers)} if numbers else {})}


def rejected(job: Job) -> Mapping[str, tuple[int, ...]]:
    """Return the numbers of the rejected patches by slide.

    A key is that of patches.parquet: slide, number and, where a patch has several draws of channels, the draw. A patch
    is left out with all of its draws.

    Raises
    ------
    ConfigError
        The list cannot be read, or holds a key of no slide; all such keys are counted and some named.
    """
    path = job.config.crop.exclude
    if path is None:
        return {}
    slides = {key_text(slide_id): slide_id for slide_id in job.sources}
    found: dict[str, set[int]] = {}
    unknown: list[str] = []
    for key in read_rejects(path):
        matches = [_PATCH.fullmatch(key), _DRAW.fullmatch(key) if job.config.channels.draws > 1 else None]
        match = next((one for one in matches if one is not None and one["slide"] in slides), None)
        if match is None:
            unknown.append(key)
        else:
            found.setdefault(slides[match["slide"]], set()).add(int(match["number"]))
    if unknown:
        raise _unknown(unknown, ConfigError, where=f"key crop.exclude, {path}")
    return {slide_id: tuple(sorted(numbers)) for slide_id, numbers in found.items()}


def without_rejected(
    cut: Callable[..., Patches], *, section: CropSection, numbers: Sequence[int], where: object
) -> Patches:
    """Cut a slide's patches but for the rejected ones.

    Parameters
    ----------
    cut
        Cuts the slide's patches by a ``section``.
    numbers
        Of the rejected patches. One that the filters take anyway may be among them.

    Raises
    ------
    InputError
        A number is that of no window.
    """
    patches = cut(section=section)
    if not numbers:
        return patches
    rejects = np.array(numbers, np.int64)
    missing = rejects[~np.isin(rejects, patches.number)]
    if len(missing):
        everything = cut(section=section.model_copy(update={"min_coverage": 0.0, "min_spots": 0}))
        missing = missing[~np.isin(missing, everything.number)]
    if len(missing):
        raise _unknown([f"{number:06d}" for number in missing.tolist()], InputError, where=f"crop.exclude, {where}")
    return patches.take(~np.isin(patches.number, rejects))


def read_rejects(path: Path) -> tuple[str, ...]:
    """Return the keys of a list: one per line; what follows a ``#`` is a comment.

    Raises
    ------
    ConfigError
        The file cannot be read as text.
    """
    try:
        stat = path.stat()
        return _read(path, stat.st_mtime_ns, stat.st_size)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            "the reject list cannot be read",
            where=f"key crop.exclude, {path}",
            found=getattr(error, "strerror", None) or error,
            expected="a text file with a key of patches.parquet per line",
        ) from error


@lru_cache(maxsize=4)
def _read(path: Path, _mtime_ns: int, _size: int) -> tuple[str, ...]:
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    return tuple(dict.fromkeys(key for line in lines if (key := line.partition("#")[0].strip())))


def _unknown(
    keys: Sequence[str], kind: type[ConfigError] | type[InputError], *, where: object
) -> ConfigError | InputError:
    more = f" and {len(keys) - _MOST} more" if len(keys) > _MOST else ""
    return kind(
        "the reject list names patches that do not exist",
        where=where,
        found=", ".join(keys[:_MOST]) + more,
        expected="keys of patches.parquet, as stpatch inspect shows them",
        hint="take the keys from a dataset of this config: another grid, crop or seed numbers windows in another way",
    )
