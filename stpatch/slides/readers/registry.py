"""The registry of readers: one class a platform, recognized by content.

A reader module registers itself; `probe_source` asks all of them (or the one that config or samplesheet name) and
`read_source` reads with the one that recognized the files. Modules are imported on first use.
"""

from __future__ import annotations

import importlib
from dataclasses import replace
from typing import Protocol

from stpatch.config import IngestSection
from stpatch.errors import InputError, InputMissingError, StpatchError
from stpatch.slides.formats.hdf5.files import looks_hdf5
from stpatch.slides.overrides import ignored, slide_options
from stpatch.slides.slide import RawSlide
from stpatch.slides.source import Probe, SlideSource

MODULES = (
    "visium", "visium_hd", "xenium", "merscope", "cosmx", "stereoseq", "slideseq", "st",
    "h5ad", "spatialdata", "paper_h5", "table",
)  # fmt: skip
"""Reader modules, named for their platforms."""


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


_READERS: dict[str, Reader] = {}


def register(cls: type[Reader]) -> type[Reader]:
    """Class decorator: add a reader under its platform's name."""
    _READERS[cls.platform] = cls()
    return cls


def reader_of(platform: str) -> Reader:
    """Return the reader of a platform."""
    if platform not in MODULES:
        raise InputError(f"unknown platform {platform!r}", expected=f"auto or one of {', '.join(MODULES)}")
    if platform not in _READERS:
        importlib.import_module(f"stpatch.slides.readers.{platform}")
    return _READERS[platform]


def require_path(source: SlideSource) -> None:
    """Raise `InputMissingError` where a slide's path names nothing."""
    if not source.path.exists():
        raise InputMissingError("there is no such file or folder", where=_place(source), found=source.path)


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
        probe = reader_of(platform).probe(source, options)
        if probe is None:
            raise InputError(
                f"this is not a {platform} layout",
                where=_place(source),
                found=_listing(source),
                hint="set platform: auto to have it recognized, or name the platform that wrote it",
            )
        return probe
    return _only_one(source, *_ask_all(source, options))


def read_source(source: SlideSource, options: IngestSection) -> tuple[Probe, RawSlide]:
    """Probe and read one slide."""
    probe = probe_source(source, options)
    return probe, reader_of(probe.platform).read(source, slide_options(source, options), probe)


def _ask_all(source: SlideSource, options: IngestSection) -> tuple[list[Probe], list[StpatchError]]:
    probes: list[Probe] = []
    problems: list[StpatchError] = []
    for platform in MODULES:
        if platform == "table" and not looks_hdf5(
            source.path
        ):  # a text table is anything: only on request; loom is not
            continue
        try:
            probe = reader_of(platform).probe(source, options)
        except StpatchError as error:
            problems.append(error)
        else:
            if probe is not None:
                probes.append(probe)
    return probes, problems


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
    raise InputError(
        "no platform recognizes these files",
        where=_place(source),
        found=_listing(source),
        expected=f"the layout of one of {', '.join(MODULES)}",
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
