"""The registry of readers: one class per platform, recognized by content.

A reader is a module of this room, named for its platform, whose class registers itself; or a class that another
package names in the entry point group ``stpatch.readers``. `probe_source` asks all of them (or the one that config or
samplesheet name) and `read_source` reads with the one that recognized the files. Modules are imported on first use.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Protocol, runtime_checkable

from stpatch.config import IngestSection
from stpatch.errors import InputError, InputMissingError, StpatchError
from stpatch.registry import READERS
from stpatch.slides.formats.names import listed
from stpatch.slides.formats.whatis import explain
from stpatch.slides.overrides import ignored, slide_options
from stpatch.slides.slide import RawSlide
from stpatch.slides.source import Probe, SlideSource

LEVELS, MOST_FOLDERS = 2, 64
"""How deep, and in how many folders of a level, a slide is looked for below a folder that is none."""


@runtime_checkable
class Reader(Protocol):
    """One platform's reader."""

    platform: str

    def probe(self, source: SlideSource, options: IngestSection) -> Probe | None:
        """Look at names and headers only; None if this is not the platform's layout.

        A layout that is the platform's but is incomplete raises `InputError`: the error says what is missing.
        """
        ...

    def read(self, source: SlideSource, options: IngestSection, probe: Probe) -> RawSlide:
        """Read the whole slide; every fault of the input is an `InputError` with file, key and row."""
        ...


register = READERS.register
"""Class decorator: add a reader under its platform's name."""


def reader_of(platform: str) -> Reader:
    """Return the reader of a platform; `stpatch.registry.Registry.get` says what is raised."""
    return READERS.get(platform)


def require_path(source: SlideSource) -> None:
    """Raise `InputMissingError` where a slide's path names nothing, `InputError` where one is a pipe or a device.

    Whoever opens those may wait for ever, or read for ever; and what they give cannot be read twice.
    """
    if not source.path.exists():
        raise InputMissingError("there is no such file or folder", where=_place(source), found=source.path)
    for column in ("path", "matrix", "transcripts", "coordinates", "labels"):
        path: Path | None = getattr(source, column)
        if path is not None and path.exists() and not path.is_file() and not path.is_dir():
            raise InputError(
                "this is neither a file nor a folder",
                where=f"{_place(source)}, column {column}",
                found=f"{_kind(path)} {path}",
                expected="a file or a folder",
                hint="save what it gives to a file first",
            )


def _kind(path: Path) -> str:
    kinds = {
        "pipe": path.is_fifo(),
        "socket": path.is_socket(),
        "device": path.is_char_device() or path.is_block_device(),
    }
    return next((kind for kind, found in kinds.items() if found), "special file")


def probe_source(source: SlideSource, options: IngestSection) -> Probe:
    """Recognize a slide by content.

    Raises
    ------
    InputError
        Nothing recognizes it, or several platforms do (the candidates are named), or its layout is incomplete.
    """
    require_path(source)
    options = slide_options(source, options)
    probe = _probe(source, options)
    notes = ignored(source, options, probe)
    return replace(probe, notes=(*probe.notes, *notes)) if notes else probe


def _probe(source: SlideSource, options: IngestSection) -> Probe:
    platform = source.platform if source.platform != "auto" else options.platform
    if platform != "auto":
        probe = reader_of(platform).probe(source, options) or _below(source, options, asked=(platform,))
        if probe is None:
            known = explain(source.path)
            raise InputError(
                f"this is not a {platform} layout" + (f": {known.what}" if known else ""),
                where=_place(source),
                found=_listing(source),
                hint=known.hint
                if known
                else "set platform: auto to have it recognized, or name the platform that wrote it",
            )
        return probe
    probes, problems = _ask_all(source, options)
    if not probes and not problems and (below := _below(source, options, asked=READERS.names())) is not None:
        return below
    return _only_one(source, probes, problems)


def read_source(source: SlideSource, options: IngestSection) -> tuple[Probe, RawSlide]:
    """Probe and read one slide."""
    probe = probe_source(source, options)
    return probe, read_probed(source, options, probe)


def read_probed(source: SlideSource, options: IngestSection, probe: Probe) -> RawSlide:
    """Read what was probed, which may lie in a folder below the source's path."""
    place = source if probe.path is None else replace(source, path=probe.path)
    raw = reader_of(probe.platform).read(place, slide_options(source, options), probe)
    if probe.path is None:
        return raw
    return replace(raw, notes=(_below_note(source, probe.path), *raw.notes))


def _below_note(source: SlideSource, folder: Path) -> str:
    return f"the slide is in {folder.relative_to(source.path)} of the folder that was given"


def _ask_all(source: SlideSource, options: IngestSection) -> tuple[list[Probe], list[StpatchError]]:
    probes: list[Probe] = []
    problems: list[StpatchError] = []
    for platform in READERS.names():
        try:
            probe = reader_of(platform).probe(source, options)
        except StpatchError as error:
            problems.append(error)
        else:
            if probe is not None:
                probes.append(probe)
    return probes, problems


def _below(source: SlideSource, options: IngestSection, *, asked: tuple[str, ...]) -> Probe | None:
    """Return the only slide in the folders below, None where there is none.

    Raises
    ------
    InputError
        There are several slides below: they are listed.
    """
    level = [source.path] if source.path.is_dir() else []
    for _ in range(LEVELS):
        level = [item for folder in level for item in sorted(folder.iterdir()) if item.is_dir()][:MOST_FOLDERS]
        found: list[Probe] = []
        for folder in level:
            for platform in asked:
                try:
                    probe = reader_of(platform).probe(replace(source, path=folder), options)
                except StpatchError:
                    continue  # what is wrong in a folder that nobody named is no problem of this one
                if probe is not None:
                    found.append(replace(probe, path=folder, notes=(_below_note(source, folder), *probe.notes)))
        if len(found) == 1:
            return found[0]
        if found:
            names = [f"{probe.path.relative_to(source.path)} ({probe.platform})" for probe in found if probe.path]
            raise InputError(
                "the folder holds several slides",
                where=_place(source),
                found=listed(names),
                expected="one slide per row of the samplesheet",
                hint="give each slide a row of its own, with its folder as path",
            )
    return None


def _only_one(source: SlideSource, probes: list[Probe], problems: list[StpatchError]) -> Probe:
    if len(probes) == 1:
        return probes[0]
    if probes:
        raise InputError(
            "several platforms recognize these files",
            where=_place(source),
            found="; ".join(f"{probe.platform} ({probe.reason})" for probe in probes),
            hint="name one: a platform column in the samplesheet, or ingest.platform in the config",
        )
    if problems:
        raise problems[0]
    if (known := explain(source.path)) is not None:
        raise InputError(known.what, where=_place(source), found=_listing(source), hint=known.hint)
    raise InputError(
        "no platform recognizes these files",
        where=_place(source),
        found=_listing(source),
        expected=f"the layout of one of {', '.join(READERS.names())}",
        hint="check the path, or describe the files: platform table, with ingest.table keys",
    )


def _place(source: SlideSource) -> str:
    return f"slide {source.slide_id}" + (f", {source.where}" if source.where else "") + f", path {source.path}"


def _listing(source: SlideSource) -> str:
    if source.path.is_file():
        return f"the file {source.path.name}"
    names = sorted(path.name for path in source.path.iterdir())
    more = ", ..." if len(names) > 12 else ""
    return f"a folder with {', '.join(names[:12]) or 'nothing in it'}{more}"
