"""Gene identity: which column of a vendor's matrix is which gene of the corpus."""

from __future__ import annotations

import csv
import fnmatch
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stpatch.config import GenesSection
from stpatch.errors import ConfigError, InputError
from stpatch.slides import feature_types

PAD = "<pad>"
_ENSEMBL = re.compile(r"(ENS[A-Z]*G\d{9,})(\.\d+)?")
_ORGANISM_OF_PREFIX = {"ENSG": "human", "ENSMUSG": "mouse", "ENSRNOG": "rat", "ENSDARG": "zebrafish"}


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
    """

    columns: NDArray[np.int32]
    genes: pd.DataFrame
    reasons: NDArray[np.object_]
    n_merged: int


def bare_ensembl(text: str) -> str:
    """Return an Ensembl gene id without its version suffix, "" if `text` is none."""
    if not text.startswith("ENS"):
        return ""
    match = _ENSEMBL.fullmatch(text)
    return match.group(1) if match else ""


def organism_of(ensembl_ids: Sequence[str]) -> str:
    """Return the organism that the first Ensembl id's prefix tells, "" if none does."""
    for text in ensembl_ids:
        if bare := bare_ensembl(text):
            return _ORGANISM_OF_PREFIX.get(bare.rstrip("0123456789"), "")
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
    """Read an external vocabulary: ``{gene: id}`` JSON, as foundation models publish it; ``<pad>`` may have any id."""
    if not path.is_file():
        raise ConfigError(
            "there is no such vocabulary",
            where=f"key ingest.genes.vocabulary, {path}",
            hint="check the path; it is taken from the config's folder",
        )

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
    if not isinstance(table, dict) or not table:
        raise ConfigError("the vocabulary is not a mapping", where=path, expected="{gene: id}")
    for gene, number in table.items():
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < 2**31:
            raise ConfigError(
                "a vocabulary id is not a whole number",
                where=f"{path}, gene {gene!r}",
                found=number,
                expected="whole numbers from 0",
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
) -> Harmonized:
    """Give every column its gene.

    In order: feature type (controls and other modalities go; where it says neither, the control patterns decide), the
    user's map (looked up by name, then by Ensembl id), identity (symbol: the name, or the bare Ensembl id where a gene
    has no name; ensembl: the id without version), ``exclude`` patterns, duplicates.

    Parameters
    ----------
    genes
        The raw slide's gene table (`stpatch.slides.slide.RawSlide`).
    organism
        The slide's, "" where unknown.

    Raises
    ------
    InputError
        No gene is left, or ``duplicates: error`` and there are some.
    """
    names = genes["name"].tolist()
    from_name = [bare_ensembl(text) for text in names]
    ensembl = [bare_ensembl(text) or other for text, other in zip(genes["ensembl_id"], from_name, strict=True)]
    identity, mapped = _identities(names, ensembl, from_name, section=section, gene_map=gene_map)
    reasons = _reasons(genes, identity, section=section, patterns=control_patterns)
    return _merged(identity, mapped, names, ensembl, reasons, section=section, organism=organism, where=where)


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
    organism: str,
    where: object,
) -> Harmonized:
    columns = np.full(len(identity), -1, np.int32)
    number_of: dict[str, int] = {}
    first: list[int] = []
    n_merged = 0
    for i in np.flatnonzero(reasons == "").tolist():
        gene = identity[i] or ""
        number = number_of.setdefault(gene, len(first))
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
        "organism": ["" if gene in mapped else organism for gene in number_of],
    }
    index = pd.Index(np.array(list(number_of), dtype=object), name="gene")
    table = pd.DataFrame({name: np.array(texts, dtype=object) for name, texts in known.items()}, index=index)
    return Harmonized(columns=columns, genes=table, reasons=reasons, n_merged=n_merged)
