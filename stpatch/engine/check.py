"""Looks at a config and at every slide's headers, and lists every problem at once; no matrix is read.

`check` and `build` share the list `SETTINGS`: what the first passes, the second does not refuse. Whoever adds a refusal
that the config, the samplesheet or the folders could have told adds a function here; the stage's own refusal stays,
for those who run stages one by one.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from stpatch.engine.changes import read_finished
from stpatch.engine.corpus_check import check_sheet
from stpatch.engine.growth import require_parent
from stpatch.engine.owner import MARKER, owns_output
from stpatch.errors import (
    ConfigError,
    InputError,
    InputMissingError,
    MismatchError,
    MissingExtraError,
    ProblemsError,
    StpatchError,
    one_or_many,
)
from stpatch.image.groups import AUTO
from stpatch.slides.genes import read_gene_map, read_vocabulary
from stpatch.slides.labels import missing_labels
from stpatch.slides.readers.registry import probe_source, require_path
from stpatch.slides.reference import read_reference
from stpatch.slides.source import Probe, SlideSource
from stpatch.stages.deal import metadata_columns
from stpatch.stages.job import Job
from stpatch.stages.normalize import panel_rules
from stpatch.stages.plan import check_names
from stpatch.stages.reject import rejected
from stpatch.storage import read_json


@dataclass(frozen=True, kw_only=True)
class SlideCheck:
    """What the headers tell of one slide: a probe, or the problem."""

    source: SlideSource
    probe: Probe | None = None
    problem: StpatchError | None = None

    def as_json(self) -> dict[str, object]:
        """Return the row as JSON values."""
        row: dict[str, object] = {"slide_id": self.source.slide_id, "path": str(self.source.path)}
        if self.probe is not None:
            probe = self.probe
            row |= {
                "platform": probe.platform,
                "version": probe.version,
                "spots": probe.n_spots,
                "genes": probe.n_genes,
                "unit": probe.unit,
                "um_per_unit": probe.um_per_unit,
                "pitch_um": probe.pitch_um,
                "reason": probe.reason,
                "notes": list(probe.notes),
            }
        if self.problem is not None:
            row["problem"] = self.problem.block()
        return row


def check_slides(job: Job, *, tick: Callable[[], object] = lambda: None) -> list[SlideCheck]:
    """Probe every slide; `tick` is called after each."""
    rows = []
    for source in job.sources.values():
        try:
            require_files(source)
            probe = probe_source(source, job.config.ingest)
            row = SlideCheck(source=source, probe=probe, problem=_grid_problem(job, source, probe))
        except StpatchError as error:
            row = SlideCheck(source=source, problem=error)
        rows.append(row)
        tick()
    return rows


def require_files(source: SlideSource) -> None:
    """Refuse a slide whose path, or one of whose files of labels and coordinates, names nothing."""
    require_path(source)
    for column, path in (("labels", source.labels), ("coordinates", source.coordinates)):
        if path is not None and not path.is_file():
            raise InputMissingError(
                f"there is no such file of {column}",
                where=f"slide {source.slide_id}, {source.where}, column {column}",
                found=path,
                hint="paths in a samplesheet are taken from its folder",
            )


def check_labels(job: Job, rows: Sequence[SlideCheck]) -> list[StpatchError]:
    """Return the problems of labels that no slide has, where all slides' columns are known."""
    if not rows or any(row.probe is None for row in rows):
        return []
    slides = [(row.probe.spot_columns, row.source.labels) for row in rows if row.probe is not None]
    try:
        return list(missing_labels(job.config.ingest.labels, slides))
    except StpatchError as error:
        return [error]


def _grid_problem(job: Job, source: SlideSource, probe: Probe) -> StpatchError | None:
    """Return what the grid lacks on a slide whose places were looked at."""
    if not probe.geometry:
        return None
    grid = job.config.grid
    where = f"slide {source.slide_id}, {source.path}"
    if grid.method == "lattice" and probe.geometry == "irregular":
        return ConfigError(
            "grid.method lattice needs a lattice",
            where=where,
            found="spots that lie on none",
            expected="array indices, or coordinates on a hexagonal or square lattice",
            hint="set grid: {method: um, pitch_um: ...} or grid: {method: fit, size: ...}",
        )
    if grid.method == "um" and probe.um_per_unit is None:
        return ConfigError(
            "grid.method um needs micrometres, and the slide's files do not tell them",
            where=where,
            hint="give um_per_unit or pitch_um: as ingest key or as samplesheet column of that name; or use "
            "grid: {method: fit, size: ...}",
        )
    return None


def require_settings(job: Job) -> None:
    """Refuse before any work what would stop the job in a late stage: files, columns, and paths of slides.

    Raises
    ------
    ConfigError, InputMissingError, ProblemsError
        All problems at once.
    """
    problems = check_settings(job)
    if job.config.run.on_error == "stop":
        problems += _caught(partial(require_files, source) for source in job.sources.values())
    if problems:
        raise one_or_many(problems)


def check_settings(job: Job) -> list[StpatchError]:
    """Return the problems of what the config and the samplesheet say, and of the folders that they name."""
    return _caught(partial(look, job) for look in SETTINGS)


def _caught(looks: Iterable[Callable[[], object]]) -> list[StpatchError]:
    """Return the problems that several looks raise, each of which may raise several."""
    problems: list[StpatchError] = []
    for look in looks:
        try:
            look()
        except ProblemsError as error:
            problems += error.problems
        except StpatchError as error:
            problems.append(error)
    return problems


def require_gene_files(job: Job) -> None:
    """Refuse a gene map or vocabulary that is missing or cannot be read."""
    genes = job.config.ingest.genes
    looks: list[Callable[[], object]] = []
    if genes.map is not None:
        looks.append(partial(read_gene_map, genes.map))
    if genes.reference is not None:
        looks.append(partial(read_reference, genes.reference))
    if genes.vocabulary is not None:
        looks.append(partial(read_vocabulary, genes.vocabulary))
    if problems := _caught(looks):
        raise one_or_many(problems)


def require_rules(job: Job) -> None:
    """Refuse panel rules that cannot rank: no list, a list that is empty or repeats itself, a package that is missing.

    What the rules' own modules refuse by the config alone is refused here first.
    """
    key = "channels.genes" if job.config.channels.scope != "patch" else "channels.candidates.genes"
    try:
        rules = panel_rules(job)
    except UnicodeDecodeError as error:
        raise InputError(
            "the gene list is not a text file", where=f"key {key}", found=error, expected="UTF-8, one gene per line"
        ) from error
    for rule in rules:
        if rule.method == "list" and not rule.genes:
            raise InputError("the gene list is empty", where=f"key {key}", hint="name at least one gene")
        repeated = sorted(name for name, count in Counter(rule.genes).items() if count > 1)
        if rule.method == "list" and repeated:
            raise ConfigError(
                "genes are listed twice", where=f"key {key}", found=", ".join(repeated[:8]), hint="list each once"
            )
        if rule.method == "hvg_seurat_v3" and importlib.util.find_spec("skmisc") is None:
            raise MissingExtraError.of("hvg", needs="scikit-misc", purpose="rule hvg_seurat_v3")


def require_columns(job: Job) -> None:
    """Refuse columns that the split asks for and the samplesheet does not have."""
    split = job.config.split
    known = {"slide_id", "platform", "organism", "split"}
    known |= metadata_columns(job)
    asked = {"split.by": split.by, "split.stratify": split.stratify, "split.column": split.column}
    problems: list[StpatchError] = [
        ConfigError(
            "the samplesheet has no such column",
            where=f"key {key}",
            found=column,
            expected=f"one of {', '.join(sorted(known))}",
            hint=f"add a column {column} to the samplesheet"
            + (", or set split.by: auto (a donor-like column where there is one, else slide_id)" * (key == "split.by")),
        )
        for key, column in asked.items()
        if column is not None and column not in known and (key, column) != ("split.by", AUTO)
    ]
    if problems:
        raise one_or_many(problems)


def require_blocks(job: Job) -> None:
    """Refuse patches that no block of a spatial hold-out could hold."""
    blocks, crop = job.config.split.blocks, job.config.crop
    if blocks is not None and crop.unit == "patch" and max(crop.size) > blocks.size:
        raise ConfigError(
            "a patch is larger than a block, so no block could hold one",
            where="key split.blocks.size",
            found=f"blocks of {blocks.size} x {blocks.size} pixels, patches of {crop.size[0]} x {crop.size[1]}",
            expected=f"at least {max(crop.size)}; several times that keeps the margin small",
            hint="set a larger split.blocks.size, or split by slides",
        )


def require_names(job: Job) -> None:
    """Refuse labels and slide ids that could not become names in a shard."""
    check_names(job, dict.fromkeys(job.sources, 0))


def require_corpus(job: Job) -> None:
    """Refuse what the samplesheet as a whole has wrong: splits, organisms, folders, names of allowed exceptions."""
    if problems := check_sheet(job):
        raise one_or_many(problems)


def require_output(job: Job) -> None:
    """Refuse an output folder that holds something this job did not make, or that cannot be made.

    Raises
    ------
    MismatchError
        The folder is not empty, and the work dir does not know it as its own; or there is a file in its way.
    """
    output = job.place
    for folder in (output, job.work):
        there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        if not there.is_dir():
            raise MismatchError("there is a file where a folder should be", where=there, hint="choose another folder")
    if not output.exists():
        return
    names = [path.name for path in output.iterdir() if path.name != MARKER and not path.name.startswith(".tmp-")]
    if not names:
        return
    manifest, own = output / "manifest.json", job.work / "manifest.json"
    if manifest.is_file():
        if not _is_own(job, own, manifest):
            raise MismatchError(
                "the output folder holds another dataset",
                where=output,
                found=_dataset_of(manifest),
                expected=f"an empty folder, or the dataset that work dir {job.work} made",
                hint="choose another dataset.output, or remove the old dataset",
            )
        return
    if not (job.work / "receipts" / "plan").is_dir() and not owns_output(job):
        raise MismatchError(
            "the output folder is not empty",
            where=output,
            found=", ".join(sorted(names)[:6]),
            expected=f"an empty folder, or an unfinished dataset of work dir {job.work}",
            hint="choose another dataset.output, or empty the folder",
        )


def _is_release_of(found: bytes, kept: bytes) -> bool:
    """Whether a manifest is whole and of the same contents: `stpatch release` adds files to it."""
    from stpatch.dataset.manifest import manifest_digest

    try:
        value, own = json.loads(found), json.loads(kept)
        return bool(value["digest"] == manifest_digest(value) and value["fingerprint"] == own["fingerprint"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


def _is_own(job: Job, own: Path, manifest: Path) -> bool:
    """Whether a manifest is the job's own: as its copy in the work dir, though one of the two may be damaged.

    Another dataset's manifest can be read and has another fingerprint, of 64 digits; damage leaves a text that cannot
    be read or hits single bytes.
    """
    found = manifest.read_bytes()
    receipt = job.book.receipt("finalize", "corpus")
    recorded = {output.path: output.sha256 for output in receipt.outputs} if receipt is not None else {}
    made = (read_finished(job) or {}).get("manifest")  # a new one may be in the making, which the receipt knows
    if hashlib.sha256(found).hexdigest() in (recorded.get("output/manifest.json"), made):
        return True
    kept = own.read_bytes() if own.is_file() else b""
    if found == kept or _is_release_of(found, kept):
        return True
    if hashlib.sha256(kept).hexdigest() != recorded.get("output/manifest.json") or len(found) != len(kept):
        return False
    try:
        json.loads(found)
    except ValueError:
        return True
    return sum(a != b for a, b in zip(found, kept, strict=True)) < _DAMAGED_BYTES


_DAMAGED_BYTES = 16
"""Two fingerprints differ in more of their 64 digits: the chance of fewer is below 1e-40."""


def _dataset_of(manifest: Path) -> str:
    try:
        section = read_json(manifest).get("dataset", {})
        return f"dataset {section.get('name')!r}, version {section.get('version')}"
    except (ValueError, OSError, AttributeError):
        return "a manifest.json that cannot be read"


SETTINGS: tuple[Callable[[Job], object], ...] = (
    require_output,
    require_parent,
    require_gene_files,
    require_rules,
    rejected,
    require_columns,
    require_blocks,
    require_names,
    require_corpus,
)
"""What the config, the samplesheet and the folders can tell before any work is done."""
