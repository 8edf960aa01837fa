"""The paper's corpus files: one HDF5 file, one group a slide, a dense matrix with numbers for genes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpatch.config import IngestSection
from stpatch.errors import InputError, InputMissingError
from stpatch.slides.formats.counts import FractionalError, read_dense
from stpatch.slides.formats.hdf5.files import as_texts, child, faults, hdf5_file, is_hdf5
from stpatch.slides.formats.names import gene_table
from stpatch.slides.formats.places import check_finite, nearest_distance
from stpatch.slides.readers.registry import register
from stpatch.slides.slide import RawSlide
from stpatch.slides.source import Probe, SlideSource

KEYS = ("coords_map", "expr_map", "vocab_index")
PAD = "<pad>"
GROUP_COLUMN = "group"
VOCABULARY_COLUMN = "vocabulary"
LARGEST_VOCABULARY = 1 << 26
"""Bytes; a larger JSON beside the file is no vocabulary."""


@register
class PaperH5:
    """Reader of one group of a corpus file; samplesheet columns ``group`` and ``vocabulary`` say which."""

    platform = "paper_h5"

    def probe(self, source: SlideSource, options: IngestSection) -> Probe | None:
        """Recognize groups with ``coords_map``, ``expr_map`` and ``vocab_index``."""
        path = source.path
        if not is_hdf5(path):
            return None
        with hdf5_file(path) as file:
            groups = slide_groups(file)
            if not groups:
                return None
            name = choose_group(groups, source)
            group = _group(file, name)
            _check_complete(group, path)
            n_spots, n_genes = _matrix_shape(group, path)
            needs_vocabulary = _index_needs_vocabulary(group, path)
        vocabulary = find_vocabulary(source, options, required=needs_vocabulary)
        return Probe(
            platform=self.platform,
            reason=f"group {name} with {', '.join(KEYS)}",
            files=(path,) if vocabulary is None else (path, vocabulary),
            n_spots=n_spots,
            n_genes=n_genes,
        )

    def read(self, source: SlideSource, options: IngestSection, probe: Probe) -> RawSlide:
        """Read one group, its matrix in blocks of rows."""
        path = source.path
        normalized = options.values == "normalized"
        vocabulary = read_vocabulary(probe.files[1]) if len(probe.files) > 1 else {}
        with hdf5_file(path) as file:
            name = choose_group(slide_groups(file), source)
            group = _group(file, name)
            shape = _matrix_shape(group, path)
            xy = _coordinates(group, path, shape[0])
            names = gene_names(_array(group, "vocab_index", path), vocabulary, where=f"{path}, key {name}/vocab_index")
            if len(names) != shape[1]:
                raise InputError(
                    "vocab_index and expr_map differ in size",
                    where=f"{path}, key {name}",
                    found=f"{len(names)} ids",
                    expected=f"{shape[1]}, the columns of expr_map",
                )
            matrix = child(group, "expr_map", path)
            where = f"{path}, key {name}/expr_map"
            try:
                with faults(where):
                    counts = read_dense(
                        lambda start, stop: np.asarray(matrix[start:stop]), shape, where=where, normalized=normalized
                    )
            except FractionalError as error:
                raise InputError(
                    "the group holds no raw counts, only normalized values",
                    where=error.where,
                    found=error.found,
                    expected="whole numbers",
                    hint="give raw counts, or set ingest.values: normalized",
                ) from error
        return RawSlide(
            counts=counts,
            spot_ids=np.array([str(i) for i in range(shape[0])], dtype=object),
            genes=gene_table(names, "", ""),
            xy=xy,
            pitch=nearest_distance(xy)[0],
            notes=("coords_map is taken as (x, y)",),
        )


def slide_groups(file: Any) -> list[str]:
    """Return the names of the groups that hold an ``expr_map``, sorted."""
    found: list[str] = []

    def visit(name: str, item: Any) -> None:
        if name.rsplit("/", 1)[-1] == "expr_map" and hasattr(item, "shape"):
            found.append(name.rpartition("/")[0] or "/")

    file.visititems(visit)
    return sorted(found)


def choose_group(groups: list[str], source: SlideSource) -> str:
    """Return the group that the samplesheet names, or the only one.

    Raises
    ------
    InputError
        There are several and none is named, or the one named is not there.
    """
    wanted = source.metadata.get(GROUP_COLUMN, "").strip("/")
    listed = ", ".join(groups[:20]) + (f", ... ({len(groups)} in all)" if len(groups) > 20 else "")
    if wanted:
        if wanted not in groups:
            raise InputError("the file has no such group", where=source.path, found=wanted, expected=f"one of {listed}")
        return wanted
    if len(groups) != 1:
        raise InputError(
            "the file holds several slides",
            where=source.path,
            found=f"groups {listed}",
            hint=f"give each a row of the samplesheet, its group in a column {GROUP_COLUMN!r}",
        )
    return groups[0]


def _group(file: Any, name: str) -> Any:
    return file if name == "/" else file[name]


def _check_complete(group: Any, path: Path) -> None:
    for key in KEYS:
        child(group, key, path)


def _array(group: Any, key: str, path: Path) -> NDArray[Any]:
    values = child(group, key, path)
    with faults(f"{path}, key {group.name}/{key}"):
        return np.asarray(values[()])


def _matrix_shape(group: Any, path: Path) -> tuple[int, int]:
    matrix = child(group, "expr_map", path)
    shape = tuple(getattr(matrix, "shape", ()))
    if len(shape) != 2:
        raise InputError(
            "expr_map is not a matrix", where=f"{path}, key {group.name}", found=shape, expected="(spots, genes)"
        )
    return int(shape[0]), int(shape[1])


def _coordinates(group: Any, path: Path, n_spots: int) -> NDArray[np.float64]:
    where = f"{path}, key {group.name}/coords_map"
    values = _array(group, "coords_map", path)
    if values.shape != (n_spots, 2) or values.dtype.kind not in "iuf":
        raise InputError(
            "coords_map does not fit expr_map",
            where=where,
            found=f"{values.dtype} {values.shape}",
            expected=f"numbers ({n_spots}, 2)",
        )
    xy = values.astype(np.float64)
    check_finite(xy, where=where)
    return xy


def _index_needs_vocabulary(group: Any, path: Path) -> bool:
    """Whether the gene index holds numbers, as numbers or as text; gene names need no vocabulary."""
    texts = as_texts(np.atleast_1d(_array(group, "vocab_index", path)))
    return any(text.isdecimal() for text in texts)


def find_vocabulary(source: SlideSource, options: IngestSection, *, required: bool) -> Path | None:
    """Return the vocabulary: the samplesheet's, the only JSON with ``<pad>`` beside the file, or the config's.

    Raises
    ------
    InputError
        There are several beside the file, or none at all where the gene index needs one.
    """
    named = source.metadata.get(VOCABULARY_COLUMN, "")
    if named:
        path = source.path.parent / named
        if not path.is_file():
            raise InputMissingError(
                "there is no such vocabulary",
                where=source.where or source.path,
                found=path,
                hint="set ingest.genes.vocabulary to an existing file",
            )
        return path
    beside = [item for item in sorted(source.path.parent.glob("*.json")) if _has_pad(item)]
    if len(beside) > 1:
        raise InputError(
            "several vocabularies lie beside the file",
            where=source.path,
            found=", ".join(item.name for item in beside),
            hint=f"name one in a samplesheet column {VOCABULARY_COLUMN!r}",
        )
    if beside:
        return beside[0]
    if options.genes.vocabulary is not None and options.genes.vocabulary.is_file():
        return options.genes.vocabulary
    if required:
        raise InputMissingError(
            "the gene ids need a vocabulary",
            where=source.path,
            expected='a JSON {gene: id} with "<pad>" beside the file',
            hint=f"put it there, or name it in a samplesheet column {VOCABULARY_COLUMN!r}",
        )
    return None


def _has_pad(path: Path) -> bool:
    return path.is_file() and path.stat().st_size <= LARGEST_VOCABULARY and f'"{PAD}"'.encode() in path.read_bytes()


def read_vocabulary(path: Path) -> dict[str, str]:
    """Return gene by id (as text) from ``{gene: id}``; an id given to two genes is an `InputError`."""
    try:
        table = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise InputError(
            "the vocabulary is not JSON", where=path, found=error, expected="a JSON object: gene name to id"
        ) from error
    if not isinstance(table, dict):
        raise InputError("the vocabulary is not a mapping", where=path, expected="{gene: id}")
    genes: dict[str, str] = {}
    for gene, number in table.items():
        first = genes.setdefault(str(number), gene)
        if first != gene:
            raise InputError(
                "two genes of the vocabulary have one id",
                where=path,
                found=f"{first} and {gene}",
                hint="give every gene an id of its own",
            )
    return genes


def gene_names(index: NDArray[Any], vocabulary: dict[str, str], *, where: str) -> NDArray[np.object_]:
    """Return (genes,) names of an index of ids (numbers or text) or of names.

    Raises
    ------
    InputError
        An id is not in the vocabulary.
    """
    if index.ndim != 1:
        raise InputError(
            "vocab_index does not have one dimension", where=where, found=index.shape, expected="one id a gene"
        )
    texts = as_texts(index)
    if not any(text.isdecimal() for text in texts):
        return texts
    unknown = [i for i, text in enumerate(texts) if text not in vocabulary]
    if unknown:
        raise InputError(
            "gene ids are not in the vocabulary: it is another corpus'",
            where=f"{where}, column {unknown[0]}",
            found=f"{len(unknown)} of {len(texts)} ids, such as {texts[unknown[0]]}",
            expected=f"ids of a vocabulary of {len(vocabulary)} genes",
        )
    return np.array([vocabulary[text] for text in texts], dtype=object)
