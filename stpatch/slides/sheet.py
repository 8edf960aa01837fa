"""The samplesheet: config to slide sources, every problem at once."""

from __future__ import annotations

import csv
import difflib
import glob
from collections.abc import Iterable, Mapping
from pathlib import Path

from stpatch.config import PLATFORMS, SlidesSection
from stpatch.errors import ConfigError, StpatchError, one_or_many
from stpatch.slides.identity import organism_name
from stpatch.slides.source import SlideSource
from stpatch.storage import is_safe_id, key_text

COLUMNS = ("slide_id", "path", "platform", "organism", "split", "coordinates", "matrix", "transcripts", "labels")
"""Columns with a meaning of their own; every further one (tissue, donor, ...) is metadata."""

_SUFFIXES = (".gz", ".tsv", ".csv", ".txt", ".h5ad", ".h5", ".zarr", ".gem", ".gef", ".loom")


def read_sources(section: SlidesSection) -> list[SlideSource]:
    """Return the corpus' slides in samplesheet order (globs: sorted by path).

    Raises
    ------
    ConfigError, ProblemsError
        Missing columns, ids that are given twice or are no safe names, empty paths: all of them at once.
    """
    if section.sheet is not None:
        rows, base = _sheet_rows(section.sheet), section.sheet.parent
    elif section.glob is not None:
        rows, base = _glob_rows(section.glob), Path()
    else:
        entries = section.entries or []
        rows = [
            (f"slides.entries[{i}]", {**entry.model_dump(exclude_none=True), **_texts(entry.model_extra or {})})
            for i, entry in enumerate(entries)
        ]
        base = Path()
    sources, problems = [], []
    for where, row in rows:
        try:
            sources.append(_source(row, base=base, where=where))
        except StpatchError as error:
            problems.append(error)
    problems += _repeats(sources)
    if not problems and not sources and not section.withdraw:
        problems.append(ConfigError("the corpus has no slide", where="key slides", hint="add slides"))
    if problems:
        raise one_or_many(problems)
    return sources


def _sheet_rows(sheet: Path) -> list[tuple[str, Mapping[str, str]]]:
    if not sheet.is_file():
        raise ConfigError(
            "the samplesheet is a folder" if sheet.is_dir() else "there is no such samplesheet",
            where=f"key slides.sheet, {sheet}",
            hint="check slides.sheet; it is taken from the config's folder",
        )
    delimiter = "\t" if sheet.suffix.lower() in (".tsv", ".txt") else ","
    try:
        with sheet.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            header = [name.strip() for name in next(reader, [])]
            rows = [(f"{sheet} row {reader.line_num}", row) for row in reader if any(cell.strip() for cell in row)]
    except (csv.Error, UnicodeDecodeError) as error:
        raise ConfigError(
            "the samplesheet cannot be read",
            where=sheet,
            found=str(error),
            expected="a CSV in UTF-8 with the columns slide_id and path",
        ) from error
    _check_header(header, sheet)
    for where, row in rows:
        if len(row) != len(header):
            raise ConfigError(
                "a samplesheet row has another number of cells than the header",
                where=where,
                found=len(row),
                expected=len(header),
            )
    return [(where, dict(zip(header, (cell.strip() for cell in row), strict=True))) for where, row in rows]


def _check_header(header: list[str], sheet: Path) -> None:
    if len(set(header)) != len(header):
        twice = sorted({name for name in header if header.count(name) > 1})
        raise ConfigError(
            "a samplesheet column is given twice",
            where=sheet,
            found=", ".join(twice),
            hint="rename or take out one of them",
        )
    for name in ("slide_id", "path"):
        if name not in header:
            near = difflib.get_close_matches(name, header, n=1)
            raise ConfigError(
                f"the samplesheet has no column {name!r}",
                where=sheet,
                found=", ".join(header) or "an empty file",
                hint=f"rename column {near[0]!r} to {name!r}" if near else f"add a column {name!r}",
            )


def _glob_rows(patterns: str | list[str]) -> list[tuple[str, Mapping[str, str]]]:
    rows: list[tuple[str, Mapping[str, str]]] = []
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        paths = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
        if not paths:
            raise ConfigError(
                "a glob matches nothing",
                where="key slides.glob",
                found=pattern,
                hint="check slides.glob; it is taken from the config's folder",
            )
        rows += [(f"glob {pattern}", {"slide_id": slide_id_of(Path(path)), "path": path}) for path in paths]
    return rows


def slide_id_of(path: Path) -> str:
    """Return a slide id for a path: its name without suffixes; for a folder ``outs`` the name above it."""
    if path.name in ("outs", "binned_outputs") and path.parent.name:
        return slide_id_of(path.parent)
    name = path.name
    while (suffix := Path(name).suffix) and suffix.lower() in _SUFFIXES:
        name = name[: -len(suffix)]
    return name


def _texts(values: Mapping[str, object]) -> dict[str, str]:
    return {name: "" if value is None else str(value) for name, value in values.items()}


def _source(row: Mapping[str, str], *, base: Path, where: str) -> SlideSource:
    path_text = row.get("path", "")
    if not path_text:
        raise ConfigError("a slide has no path", where=where, hint="fill the column path")
    if "\0" in path_text:
        raise ConfigError("a path holds a NUL character", where=where, found=repr(path_text), hint="type the path anew")
    slide_id = row.get("slide_id") or slide_id_of(Path(path_text))
    if not is_safe_id(slide_id):
        raise ConfigError(
            "a slide_id cannot be used as a name",
            where=where,
            found=repr(slide_id),
            expected="1 to 128 of the characters A-Z a-z 0-9 _ . + -, the first a letter or digit, the last not a dot, "
            "and not the name of a device of Windows (con, prn, aux, nul, com1, lpt1)",
        )
    platform = row.get("platform") or "auto"
    known = PLATFORMS.names()
    if platform not in known:
        near = difflib.get_close_matches(platform, known, n=1)
        raise ConfigError(
            f"unknown platform {platform!r}",
            where=where,
            expected=f"one of {', '.join(known)}",
            hint=f"did you mean {near[0]!r}?" if near else None,
        )

    def beside(name: str) -> Path | None:
        text = row.get(name, "")
        return base / Path(text).expanduser() if text else None

    return SlideSource(
        slide_id=slide_id,
        path=base / Path(path_text).expanduser(),
        platform=platform,
        organism=organism_name(row.get("organism", "")),
        split=row.get("split", ""),
        coordinates=beside("coordinates"),
        matrix=beside("matrix"),
        transcripts=beside("transcripts"),
        labels=beside("labels"),
        metadata={name: text for name, text in row.items() if name not in COLUMNS},
        where=where,
    )


def _repeats(sources: Iterable[SlideSource]) -> list[StpatchError]:
    problems: list[StpatchError] = []
    seen: dict[str, SlideSource] = {}
    for source in sources:
        first = seen.setdefault(key_text(source.slide_id), source)
        if first is not source:
            same = first.slide_id == source.slide_id
            problems.append(
                ConfigError(
                    "two slides have one slide_id" if same else "two slide_ids give one sample key",
                    where=f"{first.where} and {source.where}",
                    found=source.slide_id if same else f"{first.slide_id} and {source.slide_id}",
                    expected="ids that differ" + ("" if same else " in more than case or punctuation"),
                    hint="rename one of them",
                )
            )
    return problems
