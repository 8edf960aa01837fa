"""What only the corpus as a whole can have wrong, told from headers, small columns and the config."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from stpatch.engine.growth import growth_notes
from stpatch.errors import ConfigError, StpatchError
from stpatch.expression.rules.registry import panel_rule
from stpatch.image.groups import auto_groups
from stpatch.slides import feature_types, qc
from stpatch.slides.genes import PAD, read_vocabulary
from stpatch.slides.identity import bare_ensembl, bare_name, near_organism, told_organism
from stpatch.slides.peek import peek_genes
from stpatch.slides.source import Probe, SlideSource
from stpatch.stages.deal import deal, duplicates_error, kept_slides, separation_notes, sheet_facts
from stpatch.stages.job import Job
from stpatch.views.build_table import note_lines

PICKS = (
    "region",
    "library_id",
    "library_key",
    "library",
    "group",
    "section",
    "fov",
    "slide_value",
    "sample",
    "vocabulary",
)
"""Samplesheet columns that may pick a part of a file, so that two slides of one file need not be the same."""
FEW_SHARED = 0.1
"""Share of a slide's genes that other slides of its organism have, below which names rather than panels differ."""
LARGEST_SAMPLE = 8 * 2**30
"""Bytes of a dense sample that no worker can be asked to hold."""
_BLOCK = 1 << 16
_LISTED = 5


@dataclass
class Findings:
    """What was found: problems stop a build, notes do not."""

    problems: list[StpatchError] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def check_sheet(job: Job) -> list[StpatchError]:
    """Return the problems that config and samplesheet show by themselves; no file is opened."""
    problems: list[StpatchError] = []
    for look in (_check_folders, _check_organisms, _check_allowed, _check_deal):
        problems += look(job)
    return problems


def check_corpus(job: Job, probes: Mapping[str, Probe]) -> Findings:
    """Return what the slides' headers show together; `probes` are of the slides that were recognized."""
    found = Findings(problems=_check_sample(job))
    same = _same_files(job, probes)
    if (error := duplicates_error(job, same)) is not None:
        found.problems.append(error)
    genes = {slide_id: table for slide_id, probe in probes.items() if (table := peek_genes(probe)) is not None}
    found.notes += note_lines(
        (slide_id, note)
        for slide_id, table in genes.items()
        for note in feature_types.notes_of(table["feature_type"].tolist())
    )
    _check_names(job, genes, found)
    _check_shared(job, genes, found)
    _check_channels(job, probes, genes, found)
    try:
        split_of = early_splits(job, probes)
    except StpatchError as error:
        split_of = None
        if _knows_columns(job):  # else the column is told by itself
            found.problems.append(error)
    if split_of is not None:
        found.notes += _split_notes(job, split_of)
    found.notes += separation_notes(job)
    if job.parent is not None:
        found.notes += growth_notes(job, job.parent, split_of)
    return found


def early_splits(job: Job, probes: Mapping[str, Probe] | None = None) -> dict[str, str] | None:
    """Return each slide's split as the build will deal it; None where it needs what only reading a slide tells.

    A build deals the same where every slide can be read: platforms come from `probes`, organisms from the samplesheet.
    """
    split = job.config.split
    asked = {split.by, split.stratify, split.column}
    if "organism" in asked and not all(source.organism for source in job.sources.values()):
        return None
    if "platform" in asked and (probes is None or len(probes) < len(job.sources)):
        return None
    facts = {}
    for slide_id, source in job.sources.items():
        platform = probes[slide_id].platform if probes and slide_id in probes else source.platform
        facts[slide_id] = sheet_facts(job, slide_id, platform=platform, organism=source.organism)
    return deal(job, facts)


def _check_folders(job: Job) -> list[StpatchError]:
    """Refuse to write into a slide's folder: the next look at it would find other files."""
    problems: list[StpatchError] = []
    for key, folder in (("dataset.output", job.place), ("dataset.work_dir", job.work)):
        inside = [
            source.slide_id
            for source in job.sources.values()
            if source.path.is_dir() and folder.resolve().is_relative_to(source.path.resolve())
        ]
        if inside:
            problems.append(
                ConfigError(
                    f"{'the dataset' if key == 'dataset.output' else 'the work dir'} would lie in an input folder",
                    where=f"key {key}, {folder}",
                    found=f"inside the folder of slide {', '.join(inside[:_LISTED])}",
                    hint=f"choose another {key}",
                )
            )
    return problems[:1]  # the work dir lies beside the dataset: one problem, one mend


def _check_sample(job: Job) -> list[StpatchError]:
    """Refuse samples that no memory holds."""
    config = job.config
    if (
        config.crop.unit != "patch"
        or config.channels.scope == "slide"
        or (config.channels.scope == "panel" and not panel_rule(config.channels.method).scored)
    ):
        return []
    height, width = config.crop.size
    size = (
        config.channels.n
        * height
        * width
        * (2 if config.shards.values == "counts" else np.dtype(config.shards.dtype).itemsize)
    )
    if size <= LARGEST_SAMPLE:
        return []
    return [
        ConfigError(
            "a sample would be too large to hold in memory",
            where="keys channels.n and crop.size",
            found=f"{config.channels.n} channels x {height} x {width}: {size / 2**30:.0f} GiB",
            expected=f"at most {LARGEST_SAMPLE // 2**30} GiB",
            hint="set a smaller crop.size or channels.n",
        )
    ]


def _check_organisms(job: Job) -> list[StpatchError]:
    problems: list[StpatchError] = []
    for name in dict.fromkeys(source.organism for source in job.sources.values()):
        if near := near_organism(name):
            slides = [source for source in job.sources.values() if source.organism == name]
            problems.append(
                ConfigError(
                    f"unknown organism {name!r}",
                    where=slides[0].where or f"slide {slides[0].slide_id}",
                    found=f"{name!r} for {len(slides)} slide{'s' if len(slides) > 1 else ''}",
                    hint=f"did you mean {near!r}? Genes are shared between slides of one organism's name only",
                )
            )
    return problems


def _check_allowed(job: Job) -> list[StpatchError]:
    unknown = [slide_id for slide_id in job.config.dataset.allow_duplicates if slide_id not in job.sources]
    columns = {name.strip().lower() for source in job.sources.values() for name in source.metadata}
    strange = [name for name in job.config.split.allow_leak if name.strip().lower() not in columns]
    problems: list[StpatchError] = []
    if unknown:
        problems.append(
            ConfigError(
                "there is no such slide",
                where="key dataset.allow_duplicates",
                found=", ".join(unknown[:_LISTED]),
                expected="slide ids",
            )
        )
    if strange:
        problems.append(
            ConfigError(
                "the samplesheet has no such column",
                where="key split.allow_leak",
                found=", ".join(strange[:_LISTED]),
                expected=f"some of {', '.join(sorted(columns)) or 'none: it has no further column'}",
            )
        )
    return problems


def _check_deal(job: Job) -> list[StpatchError]:
    """Deal the splits as the build will; what stands against it is a problem now."""
    if not _knows_columns(job):
        return []  # told by itself
    try:
        early_splits(job)
    except StpatchError as error:
        return [error]
    return []


def _knows_columns(job: Job) -> bool:
    split = job.config.split
    known = {"auto", "slide_id", "platform", "organism", "split"}
    known.update(name for source in job.sources.values() for name in source.metadata)
    return {split.by, split.stratify, split.column} - {None} <= known


def _same_files(job: Job, probes: Mapping[str, Probe]) -> list[tuple[tuple[str, ...], str]]:
    """Return slides whose largest file is one: the same place, or the same size, beginning, middle and end.

    A build compares counts; this look finds copies without reading them.
    """
    by_place: dict[object, list[str]] = {}
    by_size: dict[tuple[int, tuple[str, ...]], list[tuple[str, Path]]] = {}
    for slide_id, probe in probes.items():
        source, files = job.sources[slide_id], [path for path in probe.files if path.is_file()]
        if not files:
            continue
        largest = max(files, key=lambda path: path.stat().st_size)
        picks = _picks(source)
        by_place.setdefault((largest.resolve(), picks), []).append(slide_id)
        by_size.setdefault((largest.stat().st_size, picks), []).append((slide_id, largest))
    sets = [(tuple(ids), "the file") for ids in by_place.values() if len(ids) > 1]
    for items in by_size.values():
        if len({path.resolve() for _, path in items}) < 2:
            continue
        by_look: dict[str, list[str]] = {}
        for slide_id, path in items:
            by_look.setdefault(_look(path), []).append(slide_id)
        sets += [(tuple(ids), "the file's content") for ids in by_look.values() if len(ids) > 1]
    unique = dict(reversed(sets))
    return [(ids, unique[ids]) for ids in dict.fromkeys(ids for ids, _ in sets)]


def _picks(source: SlideSource) -> tuple[str, ...]:
    return tuple(
        f"{name}={text}"
        for name, text in sorted(source.metadata.items())
        if text and (name.strip().lower() in PICKS or name.startswith(("select.", "table.")))
    )


def _look(path: Path) -> str:
    """Return a digest of a file's size and of its first, middle and last block."""
    size = path.stat().st_size
    mark = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for start in (0, max(size // 2 - _BLOCK // 2, 0), max(size - _BLOCK, 0)):
            file.seek(start)
            mark.update(file.read(_BLOCK))
    return mark.hexdigest()


def _check_names(job: Job, genes: Mapping[str, pd.DataFrame], found: Findings) -> None:
    """Compare the organisms of the samplesheet with what names tell, and see whether max_mito can work."""
    for slide_id, table in genes.items():
        source = job.sources[slide_id]
        where = f"slide {slide_id}" + (f", {source.where}" if source.where else "")
        texts = [ensembl or name for name, ensembl in zip(table["name"], table["ensembl_id"], strict=True)]
        told, by = told_organism(texts)
        if told and source.organism and told != source.organism:
            text = f"organism {source.organism!r}, but its genes are {told}'s by their {by}, such as {texts[0]}"
            if by == "case":
                if {told, source.organism} == {"human", "mouse"}:
                    found.notes.append(f"slide {slide_id}: {text}")
            else:
                found.problems.append(
                    ConfigError(
                        "a slide's organism contradicts its gene names",
                        where=where,
                        found=text,
                        hint="mend the samplesheet's column organism",
                    )
                )
        if job.config.ingest.qc.max_mito is not None:
            named = table.assign(
                name=[bare_name(name) for name in table["name"]],
                ensembl_id=[
                    bare_ensembl(text) or bare_ensembl(name)
                    for text, name in zip(table["ensembl_id"], table["name"], strict=True)
                ],
            )
            try:
                notes = qc.mito_notes(named, qc.mitochondrial(named), where=where)
            except StpatchError as error:
                found.problems.append(error)
            else:
                found.notes += [f"slide {slide_id}: {note}" for note in notes]


def _check_shared(job: Job, genes: Mapping[str, pd.DataFrame], found: Findings) -> None:
    """Tell slides that share few or no genes with the others of their organism, and vocabularies that match little."""
    identity = {slide_id: _identities(job, table) for slide_id, table in genes.items()}
    organism = {slide_id: _organism(job, slide_id, table) for slide_id, table in genes.items()}
    for name in dict.fromkeys(organism.values()):
        slides = [slide_id for slide_id in genes if organism[slide_id] in (name, "")]
        if len(slides) < 2:
            continue
        holders: dict[str, int] = {}
        for slide_id in slides:
            for gene in identity[slide_id]:
                holders[gene] = holders.get(gene, 0) + 1
        for slide_id in slides:
            if organism[slide_id] != name or not identity[slide_id]:
                continue
            share = sum(holders[gene] > 1 for gene in identity[slide_id]) / len(identity[slide_id])
            if share < FEW_SHARED:
                found.notes.append(
                    f"slide {slide_id} shares {_percent(share)} of its {len(identity[slide_id])} genes (such as "
                    f"{', '.join(sorted(identity[slide_id])[:3])}) with the other {name or 'corpus'} slides: see "
                    "ingest.genes (identity: symbol or ensembl, reference, map)"
                )
    vocabulary = job.config.ingest.genes.vocabulary
    if vocabulary is None:
        return
    try:
        words = set(read_vocabulary(vocabulary)) - {PAD}
    except StpatchError:
        return  # told by itself
    for slide_id, names in identity.items():
        matched = sum(name in words or f"{organism[slide_id]}:{name}" in words for name in names)
        if names and matched < FEW_SHARED * len(names):
            found.notes.append(
                f"the vocabulary has {matched} of the {len(names)} genes of slide {slide_id}: see ingest.genes "
                "(identity: symbol or ensembl, reference, map)"
            )


def _percent(share: float) -> str:
    return "none" if share == 0 else f"{100 * share:.0f}%"


def _identities(job: Job, table: pd.DataFrame) -> set[str]:
    """Return the genes' identities as ingest gives them, but for what a map or a reference renames."""
    by_id = job.config.ingest.genes.identity == "ensembl"
    names = set()
    for name, text in zip(table["name"], table["ensembl_id"], strict=True):
        bare = bare_ensembl(text) or bare_ensembl(name)
        names.add(bare if by_id else bare_ensembl(name) or bare_name(name) or bare)
    return names - {""}


def _organism(job: Job, slide_id: str, table: pd.DataFrame) -> str:
    organism, by = told_organism([text or name for name, text in zip(table["name"], table["ensembl_id"], strict=True)])
    return job.sources[slide_id].organism or (organism if by == "Ensembl ids" else "")


def _check_channels(job: Job, probes: Mapping[str, Probe], genes: Mapping[str, pd.DataFrame], found: Findings) -> None:
    """Tell where fewer genes are measured than channels are wanted."""
    channels = job.config.channels
    if channels.scope != "patch" and not panel_rule(channels.method).scored:
        return
    sizes = {slide_id: probe.n_genes for slide_id, probe in probes.items() if probe.n_genes is not None}
    few = [slide_id for slide_id, size in sizes.items() if size < channels.n]
    if channels.scope == "panel":
        union = set().union(*(_identities(job, table) for table in genes.values())) if genes else set()
        if len(genes) == len(job.sources) and len(union) < channels.n:
            found.notes.append(
                f"channels.n is {channels.n}, but all slides together list {len(union)} genes: so many channels at most"
            )
    elif few:
        what = "padded" if channels.scope == "patch" else "as few, and those of larger slides more"
        found.notes.append(
            f"channels.n is {channels.n}, but {_slides(few)} "
            f"{'lists' if len(few) == 1 else 'list'} fewer genes ({min(sizes[name] for name in few)}): they are {what}"
        )


def _slides(names: Sequence[str]) -> str:
    if len(names) == 1:
        return f"slide {names[0]}"
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"slides {', '.join(names[:_LISTED])}{more}"


def _split_notes(job: Job, split_of: Mapping[str, str]) -> Iterable[str]:
    """Tell splits that no slide is dealt to, and what the groups are."""
    section = job.config.split
    if section.blocks is not None:
        return []
    notes = []
    if section.by == "auto":
        rows: dict[str, Mapping[str, object]] = {}
        if job.parent is not None:
            rows |= {slide_id: job.parent.facts(slide_id) for slide_id in kept_slides(job)}
        rows |= {slide_id: source.metadata for slide_id, source in job.sources.items()}
        groups, columns = auto_groups(rows, allow=section.allow_leak)
        if columns:
            notes.append(
                f"splits keep {' and '.join(columns)} together: {len(set(groups.values()))} groups of "
                f"{len(groups)} slides"
            )
    if section.folds is None and section.column is None and not job.gives_splits:
        used = {*split_of.values(), *(job.parent.split_of.values() if job.parent else ())}
        empty = [name for name, share in section.fractions.items() if share > 0 and name not in used]
        notes += [f"split {name} gets no slide: there are fewer groups than splits (split.by)" for name in empty]
    return notes
