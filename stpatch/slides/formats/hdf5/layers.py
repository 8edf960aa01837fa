"""Which matrix of an AnnData group holds raw counts: the named one, else the first that says so and has whole numbers.

`candidates` is the order in which matrices are tried; a look at the first values decides, so that `check` tells what
`build` would find.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from stpatch.errors import InputError
from stpatch.slides.formats.counts import FractionalError, as_counts, csr_of, dtype_for, without_fractions
from stpatch.slides.formats.hdf5.anndata_group import AnnDataGroup, read_genes
from stpatch.slides.formats.hdf5.files import faults
from stpatch.slides.formats.names import gene_frame, listed
from stpatch.slides.formats.tenx.matrix import no_genes

FIRST = 1 << 14
"""Values that a look takes."""
USUAL = "layers/counts"
_COUNTS = re.compile(
    r"(raw|umi|rna|gene|integer|int|original|orig)?[_. -]?(counts?|umis?)([_. -](rna|raw|umi|matrix|data|int|integer))?"
    r"|raw([_. -]?(data|x|matrix))?|unnormali[sz]ed|umi",
    re.IGNORECASE,
)


def says_counts(name: str) -> bool:
    """Whether a layer's name says that it holds raw counts: counts, count, raw_counts, raw, counts_RNA, umi, ..."""
    return _COUNTS.fullmatch(name) is not None


def candidates(group: AnnDataGroup) -> list[str]:
    """Return the matrices that may hold raw counts, in order of preference."""
    layers = [f"layers/{name}" for name in group.keys("layers") if says_counts(name) and name != "counts"]
    keys = [USUAL, *layers, "raw/X", "X"]
    found = [key for key in keys if group.has(key)]
    n_genes = group.shape(found[0])[1] if found else -1
    return found + [key for key in _obsm(group) if says_counts(key.partition("/")[2]) and _width(group, key) == n_genes]


def named_key(group: AnnDataGroup, layer: str) -> str:
    """Return the matrix that ``ingest.layer`` names: ``X``, ``raw``, a layer's name, ``layers/NAME`` or ``obsm/NAME``.

    Raises
    ------
    InputError
        There is none; those present are listed with the kind of their values.
    """
    text = layer.strip()
    forms = {"X": ["X"], "raw": ["layers/raw", "raw/X"], "raw.X": ["raw/X"], "raw/X": ["raw/X"]}
    for key in forms.get(text, [text] if "/" in text else [f"layers/{text}", f"obsm/{text}"]):
        if group.has(key) and key.partition("/")[0] in ("X", "raw", "layers", "obsm"):
            return key
    raise InputError(
        f"the AnnData file has no matrix {layer!r}",
        where=f"{group.path}, key ingest.layer",
        found=described(group),
        hint="set ingest.layer to one of these: X, raw, a layer's name, or obsm/NAME",
    )


def counts_key(group: AnnDataGroup, *, layer: str | None = None) -> str:
    """Return the matrix to read as raw counts, by a look at the first values.

    Raises
    ------
    InputError
        No matrix may hold raw counts: all that there are are listed with the kind of their values.
    """
    if layer is not None:
        return named_key(group, layer)
    keys = candidates(group)
    if not keys:
        raise InputError("the AnnData file has no matrix", where=group.path, expected="layers/counts, raw/X or X")
    others = _no_genes(group, keys[0])
    for key in keys:
        if not _kind(group, key).startswith("fractions") or others.any():
            return key  # what else is wrong with the values is told when they are read, with its place
    raise no_counts(group)


def read_counts(group: AnnDataGroup, *, layer: str | None = None) -> tuple[str, sparse.csr_matrix, tuple[str, ...]]:
    """Read the matrix of raw counts.

    Returns
    -------
    key, matrix, notes

    Raises
    ------
    InputError
        No matrix holds whole numbers: those that there are are listed.
    """
    keys = [named_key(group, layer)] if layer is not None else candidates(group)
    fractions: list[str] = []
    for key in keys:
        try:
            matrix = _matrix(group, key)
        except FractionalError as error:
            if (left := _genes_alone(group, key)) is not None:
                return key, *left
            if layer is not None:
                raise InputError(
                    "the matrix that ingest.layer names does not hold raw counts",
                    where=group.where(key),
                    found=f"{error.found}; {described(group)}",
                    expected="whole numbers",
                    hint="name another matrix, or set ingest.values: normalized",
                ) from error
            fractions.append(key)
            continue
        return key, matrix, _why(group, key, fractions=fractions, layer=layer)
    if not keys:
        raise InputError("the AnnData file has no matrix", where=group.path, expected="layers/counts, raw/X or X")
    raise no_counts(group)


def choice_notes(group: AnnDataGroup, key: str, *, layer: str | None) -> tuple[str, ...]:
    """Return the notes that `read_counts` gives on its choice of a matrix, by a look at the first values."""
    tried = [] if layer is not None else candidates(group)
    fractions = [
        other for other in tried[: tried.index(key) if tried else 0] if _kind(group, other).startswith("fractions")
    ]
    return _why(group, key, fractions=fractions, layer=layer)


def _why(group: AnnDataGroup, key: str, *, fractions: list[str], layer: str | None) -> tuple[str, ...]:
    """Return why counts are from this matrix, and which others might hold some."""
    notes = []
    if fractions or (layer is None and key not in (USUAL, "raw/X", "X")):
        why = (
            f": {', '.join(fractions)} {'hold' if len(fractions) > 1 else 'holds'} fractions"
            if fractions
            else ", by its name"
        )
        notes.append(f"counts are from {key}{why}; ingest.layer names another")
    if layer is None and key != "X" and (rest := [other for other in _whole(group) if other != key]):
        notes.append(f"whole numbers are also in {', '.join(rest)}")
    return tuple(notes)


def read_features(group: AnnDataGroup, key: str) -> Any:
    """Return the gene table of a matrix: of ``var``, of ``raw/var``, or the columns of a table in obsm."""
    if key.startswith("obsm/"):
        item = group.group[key]
        if hasattr(item, "keys") and "column-order" in item.attrs:
            return gene_frame([str(name) for name in group.read(key).columns])
    return read_genes(group, key)


def no_counts(group: AnnDataGroup) -> InputError:
    """Return the error of an AnnData file without raw counts."""
    elsewhere = any(_kind(group, key) == "whole numbers" for key in _all(group))
    what = " where they are looked for" if elsewhere else ", only normalized values"
    logs = " (uns holds log1p: the values are logarithms)" if group.has("uns/log1p") else ""
    return InputError(
        f"the AnnData file holds no raw counts{what}{logs}",
        where=group.path,
        found=described(group),
        expected="whole numbers in layers['counts'] (or a layer whose name says counts), raw.X or X",
        hint="name the matrix that holds them: ingest.layer; or set ingest.values: normalized",
    )


def described(group: AnnDataGroup) -> str:
    """Return every matrix of the file with the kind of its first values."""
    return "; ".join(f"{key}: {_kind(group, key)}" for key in _all(group)) or "no matrix"


def _all(group: AnnDataGroup) -> list[str]:
    keys = [*(f"layers/{name}" for name in group.keys("layers")), "raw/X", "X"]
    return [key for key in keys if group.has(key)] + [key for key in _obsm(group) if (_width(group, key) or 0) > 3]


def _whole(group: AnnDataGroup) -> list[str]:
    return [key for key in _all(group) if key != "X" and _kind(group, key) == "whole numbers"]


def _obsm(group: AnnDataGroup) -> list[str]:
    return [f"obsm/{name}" for name in group.keys("obsm") if not name.lower().startswith(("spatial", "x_"))]


def _width(group: AnnDataGroup, key: str) -> int | None:
    item = group.group[key]
    with faults(group.where(key)):
        if hasattr(item, "keys"):
            if "column-order" in item.attrs:
                return len(item.attrs["column-order"])
            return int(item.attrs["shape"][1]) if "shape" in item.attrs else None
        return int(item.shape[1]) if len(item.shape) == 2 else None


def _kind(group: AnnDataGroup, key: str) -> str:
    """Return what the first stored values of a matrix are, with an example of one that is no count."""
    item = group.group[key]
    with faults(group.where(key)):
        if hasattr(item, "keys") and "data" in item:
            values = np.asarray(item["data"][:FIRST])
        elif hasattr(item, "keys"):
            return "whole numbers" if _is_counts(group.read(key).to_numpy()) else "a table"
        else:
            values = np.asarray(item[: max(1, FIRST // max(1, int(item.shape[-1])))]).ravel()
    if values.dtype.kind not in "iufb":
        return "no numbers"
    if _is_counts(values):
        return "whole numbers"
    fractions = values[np.isfinite(values) & (values != np.rint(values))]
    if len(fractions):
        return f"fractions such as {fractions[0]:g}"
    odd = values[~(values >= 0) | ~np.isfinite(values)]
    return f"numbers such as {odd[0]:g}"


def _is_counts(values: NDArray[Any]) -> bool:
    if values.dtype.kind not in "iufb":
        return False
    return bool((np.isfinite(values) & (values >= 0) & (values == np.rint(values))).all())


def _matrix(group: AnnDataGroup, key: str) -> sparse.csr_matrix:
    item = group.group[key]
    if key.startswith("obsm/") and hasattr(item, "keys") and "column-order" in item.attrs:
        dense = group.read(key).to_numpy()
        rows, columns = np.nonzero(dense)
        data = as_counts(dense[rows, columns], where=group.where(key))
        indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(dense)))]).astype(np.int64)
        return csr_of(data, columns.astype(np.int32), indptr, (dense.shape[0], dense.shape[1]))
    return group.matrix(key)


def _no_genes(group: AnnDataGroup, key: str) -> NDArray[np.bool_]:
    return no_genes(read_features(group, key))


def _genes_alone(group: AnnDataGroup, key: str) -> tuple[sparse.csr_matrix, tuple[str, ...]] | None:
    """Read a matrix whose fractions are all of features that are no genes by their types; None where they are not."""
    genes = read_features(group, key)
    others = no_genes(genes)
    if not others.any():
        return None
    try:
        matrix = group.matrix(key, normalized=True)
    except InputError:
        return None
    values, left_out = without_fractions(matrix.data, matrix.indices, others)
    if not _is_counts(values):
        return None
    matrix.data = values.astype(dtype_for(int(values.max(initial=0))))
    kinds = listed(sorted(set(genes["feature_type"][left_out])))
    return matrix, (f"{int(left_out.sum())} features of type {kinds} hold values that are not whole numbers: left out",)
