"""What a samplesheet row says over the config of ingest, and known columns that a reader does not use."""

from __future__ import annotations

from pydantic import ValidationError

from stpatch.config import IngestSection, TableSection
from stpatch.errors import ConfigError
from stpatch.slides.selection import PREFIX
from stpatch.slides.source import Probe, SlideSource

COLUMNS = ("um_per_unit", "pitch_um", "places")
"""Samplesheet columns that stand for the key of ``ingest`` of that name, for their slide."""

_SELECTING = frozenset({"h5ad", "spatialdata", "table", "visium"})
_WITH_COORDINATES = frozenset({"table", "st", "slideseq", "visium"})
_WITH_PITCH = frozenset({"h5ad", "spatialdata", "table", "st", "slideseq", "visium"})
_OWN_FILES = frozenset({
    "visium", "visium_hd", "xenium", "merscope", "cosmx", "stereoseq", "slideseq", "st", "h5ad", "spatialdata",
    "paper_h5", "table",
})  # fmt: skip


def slide_options(source: SlideSource, options: IngestSection) -> IngestSection:
    """Return the config of ingest with the slide's own samplesheet columns over it.

    Raises
    ------
    ConfigError
        A cell of ``um_per_unit``, ``pitch_um`` or ``places`` is not what the key may be.
    """
    own = {name: source.metadata[name] for name in COLUMNS if source.metadata.get(name)}
    if not own:
        return options
    try:
        return IngestSection.model_validate({**options.model_dump(), **own})
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(
            f"samplesheet column {first['loc'][0]} is not valid",
            where=f"slide {source.slide_id}" + (f", {source.where}" if source.where else ""),
            found=repr(first["input"]),
            expected=first["msg"],
        ) from None


def ignored(source: SlideSource, options: IngestSection, probe: Probe) -> tuple[str, ...]:
    """Return a note for each column of the samplesheet that stpatch knows but the slide's reader does not use.

    Raises
    ------
    ConfigError
        Rows are to be picked, and the reader cannot.
    """
    platform = probe.platform
    if platform not in _OWN_FILES:  # another package's reader
        return ()
    notes = []
    if platform not in _SELECTING:
        asked = [f"ingest.select.{name}" for name in options.select]
        asked += [
            f"samplesheet column {name}" for name, text in source.metadata.items() if name.startswith(PREFIX) and text
        ]
        if asked:
            raise ConfigError(
                f"rows of a {platform} slide cannot be picked",
                where=f"slide {source.slide_id}" + (f", {source.where}" if source.where else ""),
                found=", ".join(asked),
                hint="leave it empty for this slide: its files hold one section",
            )
        notes += [_unused(name, platform) for name in ("region", "library_id") if source.metadata.get(name)]
    if source.coordinates is not None and platform not in _WITH_COORDINATES and source.coordinates not in probe.files:
        notes.append(_unused("coordinates", platform))
    if platform != "table":
        known = [name for name in TableSection.model_fields if name not in ("slide_column", "slide_value")]
        if platform not in _SELECTING:
            known += ["slide_column", "slide_value"]
        notes += [_unused(name, platform) for name in known if source.metadata.get(name)]
    if platform not in _WITH_PITCH and source.metadata.get("pitch_um"):
        notes.append(_unused("pitch_um", platform))
    if platform not in {*_SELECTING, "visium_hd", "st"} and source.metadata.get("places"):
        notes.append(_unused("places", platform))
    return tuple(notes)


def _unused(name: str, platform: str) -> str:
    return f"samplesheet column {name} has no effect on a {platform} slide"
