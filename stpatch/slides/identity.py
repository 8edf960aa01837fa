"""The names that genes go by: Ensembl ids with versions, symbols, genome prefixes, and the organism that each tells."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Sequence

_ENSEMBL = re.compile(r"(ENS[A-Z]*G\d{9,})(\.\d+)?(_PAR_Y)?")
_ORGANISM_OF_ENSEMBL = {
    "ENSG": "human", "ENSMUSG": "mouse", "ENSRNOG": "rat", "ENSDARG": "zebrafish", "ENSGALG": "chicken",
    "ENSSSCG": "pig", "ENSMMUG": "macaque", "ENSXETG": "frog", "ENSCAFG": "dog", "ENSBTAG": "cow", "ENSOCUG": "rabbit",
}  # fmt: skip
_ORGANISM_OF_GENOME = (
    (re.compile(r"GRCh\d\d|hg\d\d|b37|hs37d5|human", re.IGNORECASE), "human"),
    (re.compile(r"GRCm\d\d|mm\d{1,2}|mouse", re.IGNORECASE), "mouse"),
    (re.compile(r"Rnor|mRatBN7|rn\d|GRCr8|rat", re.IGNORECASE), "rat"),
    (re.compile(r"GRCz\d\d|danRer\d{1,2}|zebrafish", re.IGNORECASE), "zebrafish"),
)
_PREFIX = re.compile(
    r"(GRCh\d\d(?:\.p\d+)?|GRCm\d\d(?:\.p\d+)?|GRCz\d\d|GRCr8|hg\d\d|mm\d{1,2}|rn\d|Rnor(?:[_.]6\.0)?|mRatBN7(?:\.2)?"
    r"|danRer\d{1,2}|human|mouse|rat)(?:_+|-+|:+|\.(?=[A-Z]))(?=[A-Za-z0-9])"
)
_LATIN = {
    "homo sapiens": "human", "hsapiens": "human", "h. sapiens": "human", "homo_sapiens": "human", "hs": "human",
    "mus musculus": "mouse", "mmusculus": "mouse", "m. musculus": "mouse", "mus_musculus": "mouse", "mm": "mouse",
    "rattus norvegicus": "rat", "danio rerio": "zebrafish", "gallus gallus": "chicken", "sus scrofa": "pig",
    "macaca mulatta": "macaque", "drosophila melanogaster": "fly", "caenorhabditis elegans": "worm",
    "ncbitaxon:9606": "human", "ncbitaxon:10090": "mouse", "9606": "human", "10090": "mouse",
}  # fmt: skip
KNOWN_ORGANISMS = tuple(dict.fromkeys([*_ORGANISM_OF_ENSEMBL.values(), *_LATIN.values(), "axolotl", "marmoset"]))
"""Organisms that a slide may name without a question; others are taken as they are."""
_CASED_LEAST = 20


def bare_ensembl(text: str) -> str:
    """Return an Ensembl gene id without genome prefix and version, "" if `text` is none."""
    if "ENS" not in text:
        return ""
    match = _ENSEMBL.fullmatch(bare_name(text))
    return match.group(1) if match else ""


def split_prefix(text: str) -> tuple[str, str]:
    """Return the organism that a genome prefix tells ("" = no prefix), and the name without it.

    A reference of two genomes puts them in front: ``GRCh38_TP53``, ``mm10___Trp53``, ``hg19_ENSG00000141510``.
    """
    match = _PREFIX.match(text)
    if match is None:
        return "", text
    organism = next((name for pattern, name in _ORGANISM_OF_GENOME if pattern.match(match.group(1))), "")
    return (organism, text[match.end() :]) if organism else ("", text)


def bare_name(text: str) -> str:
    """Return a gene's name without genome prefix."""
    return split_prefix(text)[1]


def organism_of_ensembl(text: str) -> str:
    """Return the organism that an Ensembl id's prefix tells, "" if none does."""
    bare = bare_ensembl(text)
    return _ORGANISM_OF_ENSEMBL.get(bare.rstrip("0123456789"), "") if bare else ""


def organism_name(text: str) -> str:
    """Return the word for an organism: ``human`` for ``Homo sapiens``; others in lower case as they are."""
    plain = " ".join(text.strip().lower().split())
    return _LATIN.get(plain, plain)


def near_organism(name: str) -> str:
    """Return the known organism that an unknown name is nearest to, "" if it is known or near none."""
    if not name or name in KNOWN_ORGANISMS:
        return ""
    near = difflib.get_close_matches(name, [*KNOWN_ORGANISMS, *_LATIN], n=1, cutoff=0.75)
    return organism_name(near[0]) if near else ""


def told_organism(names: Sequence[str]) -> tuple[str, str]:
    """Return the organism that a slide's gene names tell, and by what: ``Ensembl ids``, ``prefixes`` or ``case``.

    Ensembl ids and prefixes are proof; the case of symbols (``TP53``, ``Trp53``) tells human from rodent at most, and
    only where nine of ten agree. Several organisms in one slide: ("", "prefixes").

    Parameters
    ----------
    names
        Names or ids, as the file has them.
    """
    prefixes = Counter(split_prefix(name)[0] for name in names)
    del prefixes[""]
    ids = Counter(organism_of_ensembl(name) for name in names)
    del ids[""]
    for counted, by in ((ids, "Ensembl ids"), (prefixes, "prefixes")):
        if counted and 2 * sum(counted.values()) > len(names):
            organism, most = counted.most_common(1)[0]
            return (organism, by) if 10 * most >= 9 * sum(counted.values()) else ("", by)
    cased = [name for name in names if re.fullmatch(r"[A-Za-z][A-Za-z]{2,}[A-Za-z0-9-]*", name)]
    if len(cased) < _CASED_LEAST or 2 * len(cased) < len(names):
        return "", ""
    upper = sum(name == name.upper() for name in cased)
    title = sum(name[0].isupper() and name[1:3].islower() for name in cased)
    if 10 * upper >= 9 * len(cased):
        return "human", "case"
    if 10 * title >= 9 * len(cased):
        return "mouse", "case"
    return "", ""
