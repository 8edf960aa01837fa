"""The forms that foundation models publish their vocabularies in, beside the plain ``{gene: id}`` JSON.

- scGPT's ``vocab.json`` is such a JSON: symbols to ids, with ``<pad>``, ``<cls>`` and ``<eoc>`` among them.
- Geneformer's token dictionary (Ensembl ids to ids) is a pickle, which is not opened: it can run code. A line turns it
  into JSON once; ``ingest.genes.identity: ensembl`` goes with it.
- nicheformer's reference is an AnnData file, whose genes in order (Ensembl ids) are the vocabulary.
- A JSON list of genes: the ids are the places.
"""

from __future__ import annotations

from pathlib import Path

from stpatch.errors import ConfigError
from stpatch.slides.formats.hdf5.files import is_hdf5

_PICKLE_MARKS = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def genes_of_anndata(path: Path) -> list[str] | None:
    """Return the genes of an AnnData file in order (Ensembl ids without version as they are); None for other files."""
    if not is_hdf5(path):
        return None
    from stpatch.slides.formats.hdf5.anndata_group import anndata_group, is_anndata

    if not is_anndata(path):
        raise ConfigError(
            "the vocabulary is an HDF5 file without genes",
            where=f"key ingest.genes.vocabulary, {path}",
            expected="an AnnData file, whose var index is the vocabulary, or a JSON {gene: id}",
        )
    with anndata_group(path) as group:
        return [str(name) for name in group.frame("var").index]


def refuse_pickle(path: Path) -> None:
    """Refuse a pickle, with the line that makes JSON of it.

    Raises
    ------
    ConfigError
        The file begins as a pickle does.
    """
    with path.open("rb") as file:
        start = file.read(2)
    if start in _PICKLE_MARKS:
        raise ConfigError(
            "the vocabulary is a pickle, which could run code when it is opened",
            where=f"key ingest.genes.vocabulary, {path}",
            expected="JSON: {gene: id}",
            hint='if you trust it, convert it once: python -c "import json, pickle; json.dump(pickle.load(open('
            f"'{path.name}', 'rb')), open('{path.stem}.json', 'w'))\"",
        )


def by_place(genes: list[str], path: Path) -> dict[str, int]:
    """Return a list's genes with their places as ids.

    Raises
    ------
    ConfigError
        A gene is listed twice.
    """
    table: dict[str, int] = {}
    for place, gene in enumerate(genes):
        if table.setdefault(gene, place) != place:
            raise ConfigError(
                "a gene of the vocabulary is given twice", where=path, found=repr(gene), hint="keep one of them"
            )
    return table
