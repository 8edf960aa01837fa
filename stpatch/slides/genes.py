"""Gene identity: which column of a vendor's matrix is which gene of the corpus."""

from __future__ import annotations

import csv
import fnmatch
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stpatch.config import GenesSection
from stpatch.errors import ConfigError, InputError
from stpatch.slides import feature_types
from stpatch.slides.identity import bare_ensembl, organism_of_ensembl, split_prefix
from stpatch.slides.reference import Coverage, Reference
from stpatch.slides.vocabulary import by_place, genes_of_anndata, refuse_pickle

PAD = "<pad>"


@dataclass(frozen=True, kw_only=True)
class GeneMap:
    """A user's mapping table: old name -> new name ("" leaves the gene out)."""

    names: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Harmonized:
    """Where every column of the raw matrix goes.

    Attributes
    ----------
    columns
        (raw columns,) int32: row of `genes`, -1 = dropped.
    genes
        Index ``gene`` (unique); columns ``name``, ``ensembl_id``, ``organism`` ("" for genes the user mapped and
        where the organism is unknown: such genes are shared by all organisms of the corpus).
    reasons
        (raw columns,) why a column was dropped, "" where it was kept.
    n_merged
        Columns that share a gene with an earlier one.
    coverage
        How the genes were found in the reference; None without one.
    """

    columns: NDArray[np.int32]
    genes: pd.DataFrame
    reasons: NDArray[np.object_]
    n_merged: int
    coverage: Coverage | None = None


def organism_of(ensembl_ids: Sequence[str]) -> str:
    """Return the organism that the first Ensembl id's prefix tells, "" if none does."""
    for text in ensembl_ids:
        if bare_ensembl(text):
            return organism_of_ensembl(text)
    return ""


def read_gene_map(path: Path) -> GeneMap:
    """Read a mapping table: CSV or TSV with the columns ``from`` and ``to``; an empty ``to`` leaves the gene out."""
    if not path.is_file():
        raise ConfigError(
            "there is no such gene map",
            where=f"key ingest.genes.map, {path}",
            hint="check the path; it is taken from the config's folder",
        )
    delimiter = "\t" if path.suffix.lower() in (".tsv", ".txt") else ","
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return GeneMap(names=_map_names(csv.DictReader(file, delimiter=delimiter, strict=True), path))
    except (csv.Error, UnicodeDecodeError) as error:
        raise ConfigError(
            "the gene map cannot be read",
            where=path,
            found=str(error),
            expected="a table of two columns: old name, new name",
        ) from error


def _map_names(reader: csv.DictReader[str], path: Path) -> dict[str, str]:
    if reader.fieldnames is None or not {"from", "to"} <= set(reader.fieldnames):
        raise ConfigError(
            "the gene map lacks a column",
            where=path,
            found=", ".join(reader.fieldnames or []) or "an empty file",
            expected="columns from and to",
        )
    names: dict[str, str] = {}
    for row in reader:
        place = f"{path} row {reader.line_num}"
        if not (row["from"] or "").strip() or row["to"] is None:
            raise ConfigError("a row of the gene map lacks a cell", where=place, expected="cells for from and to")
        old, new = row["from"].strip(), row["to"].strip()
        if names.setdefault(old, new) != new:
            raise ConfigError(
                "the gene map gives a gene two new names",
                where=place,
                found=f"{old} -> {names[old]} and {new}",
                hint="keep one row a gene",
            )
    return names


def read_vocabulary(path: Path) -> dict[str, int]:
    """Read an external vocabulary: ``{gene: id}`` JSON, as foundation models publish it; ``<pad>`` may have any id.

    The other forms that models publish are in `stpatch.slides.vocabulary`.
    """
    if not path.is_file():
        raise ConfigError(
            "there is no such vocabulary",
            where=f"key ingest.genes.vocabulary, {path}",
            hint="check the path; it is taken from the config's folder",
        )

    refuse_pickle(path)
    if (ordered := genes_of_anndata(path)) is not None:
        return by_place(ordered, path)

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(pairs)
        if len(found) < len(pairs):
            twice, _ = Counter(gene for gene, _ in pairs).most_common(1)[0]
            raise ConfigError(
                "a gene of the vocabulary is given twice", where=path, found=repr(twice), hint="keep one of them"
            )
        return found

    try:
        table = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=unique)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(
            "the vocabulary is not JSON", where=path, found=str(error), expected="a JSON object: gene name to id"
        ) from error
    if isinstance(table, list) and table and all(isinstance(gene, str) for gene in table):
        return by_place(table, path)
    if not isinstance(table, dict) or not table:
        raise ConfigError("the vocabulary is not a mapping", where=path, expected="{gene: id}")
    for gene, number in table.items():
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < 2**24:
            raise ConfigError(
                "a vocabulary id is not a whole number",
                where=f"{path}, gene {gene!r}",
                found=number,
                expected="whole numbers from 0, below 2^24, since tables by id are as long as the largest one",
            )
    if len(set(table.values())) != len(table):
        raise ConfigError(
            "two genes of the vocabulary have one id", where=path, hint="give every gene an id of its own"
        )
    return table


def harmonize(
    genes: pd.DataFrame,
    *,
    section: GenesSection,
    gene_map: GeneMap | None,
    organism: str,
    control_patterns: Sequence[str],
    where: object,
    reference: Reference | None = None,
) -> Harmonized:
    """Give every column its gene.

    Genome prefixes (``GRCh38_``, ``mm10___``) are taken off first, and tell the gene's organism.

    In order: feature type (controls and other modalities go; where it says neither, the control patterns decide), the
    user's map (looked up by name, then by Ensembl id), identity (symbol: the name, or the bare Ensembl id where a gene
    has no name; ensembl: the id without version), ``exclude`` patterns, duplicates.

    Parameters
    ----------
    genes
        The raw slide's gene table (`stpatch.slides.slide.RawSlide`).
    organism
        The slide's, "" where unknown.
    reference
        Where given, symbols are its current ones and ids its current ones; genes that it does not know stay.

    Raises
    ------
    InputError
        No gene is left, or ``duplicates: error`` and there are some.
    """
    prefixes, names = _without_prefixes(genes["name"].tolist())
    of_id, ids = _without_prefixes(genes["ensembl_id"].tolist())
    organisms = [by_name or by_id or organism for by_name, by_id in zip(prefixes, of_id, strict=True)]
    from_name = [bare_ensembl(text) for text in names]
    ensembl = [bare_ensembl(text) or other for text, other in zip(ids, from_name, strict=True)]
    coverage = None
    if reference is not None:
        coverage = Coverage(Counter(), [])
        names, ensembl, from_name = _looked_up(reference, names, ensembl, from_name, organisms, coverage)
    identity, mapped = _identities(names, ensembl, from_name, section=section, gene_map=gene_map)
    reasons = _reasons(genes, identity, section=section, patterns=control_patterns)
    return replace(
        _merged(identity, mapped, names, ensembl, reasons, section=section, organisms=organisms, where=where),
        coverage=coverage,
    )


def _without_prefixes(texts: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the organisms that genome prefixes tell, and the names without them; few slides have any."""
    parts = [split_prefix(text) for text in texts]
    return [organism for organism, _ in parts], [name for _, name in parts]


def _looked_up(
    reference: Reference,
    names: Sequence[str],
    ensembl: Sequence[str],
    from_name: Sequence[str],
    organisms: Sequence[str],
    coverage: Coverage,
) -> tuple[list[str], list[str], list[str]]:
    """Return names and ids as the reference has them: an id that stood for a name gives way to the symbol."""
    columns = []
    for name, bare, own, organism in zip(names, ensembl, from_name, organisms, strict=True):
        entry, how = reference.find(ensembl_id=bare, name=name, organism=organism)
        coverage.found[how] += 1
        if entry is None:
            coverage.unknown.append(name or bare)
            columns.append((name, bare, own))
        else:
            columns.append((entry.symbol or name, entry.ensembl_id, "" if entry.symbol else own))
    return [row[0] for row in columns], [row[1] for row in columns], [row[2] for row in columns]


def _identities(
    names: Sequence[str],
    ensembl: Sequence[str],
    from_name: Sequence[str],
    *,
    section: GenesSection,
    gene_map: GeneMap | None,
) -> tuple[list[str | None], set[str]]:
    """Return each column's gene (None: the user's map leaves it out), and the genes that the map named."""
    if section.identity == "ensembl":
        identity: list[str | None] = list(ensembl)
    else:
        identity = [own or name or bare for own, name, bare in zip(from_name, names, ensembl, strict=True)]
    table = {} if gene_map is None else gene_map.names
    mapped: set[str] = set()
    for i, (name, bare) in enumerate(zip(names, ensembl, strict=True) if table else ()):
        key = name if name in table else bare if bare in table else None
        if key is not None:
            identity[i] = table[key] or None
            mapped.add(table[key])
    return identity, mapped


def _reasons(
    genes: pd.DataFrame, identity: Sequence[str | None], *, section: GenesSection, patterns: Sequence[str]
) -> NDArray[np.object_]:
    """Return (raw columns,) why a column is dropped, "" where it stays; the first reason counts."""
    reasons = np.full(len(identity), "", dtype=object)
    if section.exclude:
        exclude = re.compile("|".join(f"(?:{fnmatch.translate(pattern)})" for pattern in section.exclude))
        reasons[[gene is not None and exclude.match(gene) is not None for gene in identity]] = "excluded"
    reasons[[gene == PAD for gene in identity]] = "padding"
    reasons[[gene == "" for gene in identity]] = "no Ensembl id" if section.identity == "ensembl" else "no name"
    reasons[[gene is None for gene in identity]] = "left out by the gene map"
    kinds = feature_types.kinds_of(genes["feature_type"].tolist())
    if not section.keep_controls:
        reasons[_controls(genes, kinds, patterns)] = "control"
    for i in np.flatnonzero([kind == "other" for kind in kinds]).tolist():
        reasons[i] = f"feature type {genes['feature_type'].iloc[i]}"
    return reasons


def _controls(genes: pd.DataFrame, kinds: Sequence[feature_types.Kind], patterns: Sequence[str]) -> NDArray[np.bool_]:
    """Return (raw columns,) whether a column is a control by its feature type, else by its name.

    Names decide where the type does not: it is missing, unknown, or the annotation's gene type.
    """
    by_type = np.array([kind == "control" for kind in kinds], dtype=bool)
    if not patterns:
        return by_type
    control = re.compile("|".join(f"(?:{pattern})" for pattern in patterns), re.IGNORECASE)
    typed = any(kind in ("control", "other") for kind in kinds)
    trusted = {text: feature_types.is_trusted(text) for text in set(genes["feature_type"])}
    by_name = [
        not trusted[text] and not (typed and not text) and control.fullmatch(name) is not None
        for name, text in zip(genes["name"], genes["feature_type"], strict=True)
    ]
    found: NDArray[np.bool_] = by_type | np.array(by_name, dtype=bool)
    return found


def _merged(
    identity: Sequence[str | None],
    mapped: set[str],
    names: Sequence[str],
    ensembl: Sequence[str],
    reasons: NDArray[np.object_],
    *,
    section: GenesSection,
    organisms: Sequence[str],
    where: object,
) -> Harmonized:
    """Give the genes that stay their numbers; one symbol of two organisms in a slide (of two genomes) is two."""
    columns = np.full(len(identity), -1, np.int32)
    number_of: dict[tuple[str, str], int] = {}
    first: list[int] = []
    n_merged = 0
    for i in np.flatnonzero(reasons == "").tolist():
        gene = identity[i] or ""
        number = number_of.setdefault((gene, "" if gene in mapped else organisms[i]), len(first))
        if number == len(first):
            first.append(i)
        else:
            n_merged += 1
            if section.duplicates == "error":
                raise InputError(
                    "a gene is given twice",
                    where=where,
                    found=f"{gene!r} (columns {first[number]} and {i})",
                    hint="set ingest.genes.duplicates: sum or first",
                )
            if section.duplicates == "first":
                reasons[i] = "duplicate"
                continue
        columns[i] = number
    if not first:
        counted = pd.Series(reasons).value_counts().to_dict() if len(reasons) else {}
        raise InputError(
            "no gene is left",
            where=where,
            found=", ".join(f"{count} x {reason}" for reason, count in counted.items()) or "a matrix without genes",
            hint="see ingest.genes: identity, map, exclude, keep_controls",
        )
    known = {
        "name": [names[i] or identity[i] for i in first],
        "ensembl_id": [ensembl[i] for i in first],
        "organism": [organism for _, organism in number_of],
    }
    index = pd.Index(np.array([gene for gene, _ in number_of], dtype=object), name="gene")
    table = pd.DataFrame({name: np.array(texts, dtype=object) for name, texts in known.items()}, index=index)
    return Harmonized(columns=columns, genes=table, reasons=reasons, n_merged=n_merged)
