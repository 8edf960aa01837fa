"""Looks at a config and at every slide's headers, and lists every problem at once; no matrix is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from stpatch.errors import ConfigError, ProblemsError, StpatchError, one_or_many
from stpatch.slides.genes import read_gene_map, read_vocabulary
from stpatch.slides.readers.registry import probe_source, require_path
from stpatch.slides.source import Probe, SlideSource
from stpatch.stages.job import Job
from stpatch.stages.normalize import panel_rules


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
            probe = probe_source(source, job.config.ingest)
            row = SlideCheck(source=source, probe=probe, problem=_grid_problem(job, source, probe))
        except StpatchError as error:
            row = SlideCheck(source=source, problem=error)
        rows.append(row)
        tick()
    return rows


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
        for source in job.sources.values():
            try:
                require_path(source)
            except StpatchError as error:
                problems.append(error)
    if problems:
        raise one_or_many(problems)


def check_settings(job: Job) -> list[StpatchError]:
    """Return the problems of what the config names beside the slides: files, columns, units."""
    problems: list[StpatchError] = []
    genes = job.config.ingest.genes
    looks: list[Callable[[], object]] = [partial(panel_rules, job)]
    if genes.map is not None:
        looks.append(partial(read_gene_map, genes.map))
    if genes.vocabulary is not None:
        looks.append(partial(read_vocabulary, genes.vocabulary))
    for look in looks:
        try:
            look()
        except ProblemsError as error:
            problems += error.problems
        except StpatchError as error:
            problems.append(error)
    return problems + _columns(job)


def _columns(job: Job) -> list[StpatchError]:
    split = job.config.split
    known = {"slide_id", "platform", "organism", "split"}
    known.update(*(source.metadata for source in job.sources.values()))
    asked = {"split.by": split.by, "split.stratify": split.stratify, "split.column": split.column}
    return [
        ConfigError(
            "the samplesheet has no such column",
            where=f"key {key}",
            found=column,
            expected=f"one of {', '.join(sorted(known))}",
        )
        for key, column in asked.items()
        if column is not None and column not in known
    ]
