"""A slide's store in the work dir: an AnnData file that scanpy opens.

The counts lie as three contiguous, uncompressed HDF5 arrays, so that a stage maps them into memory instead of reading
them: a window touches its own rows and nothing else. Counts and gene numbers are as narrow as the slide allows, since a
window costs mostly the bytes of its rows.

Who opens the file with scanpy gets float32 (float64 where a count needs it) and int32: ``X/data`` and ``X/indices`` are
virtual datasets over the narrow ``X/counts`` and ``X/genes`` and take no room. Sums and squares of 16-bit counts would
wrap around in silence.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stpatch.errors import InputError
from stpatch.slides.slide import Slide, gene_number_dtype
from stpatch.storage import canonical_json, patient_file

_FACTS = "stpatch"
_COUNTS, _GENES = "counts", "genes"
"""Members of X with the arrays as they are mapped; ``data`` and ``indices`` are wider views of them."""
_FLOAT32_WHOLE = 2**24
"""Below, float32 holds every whole number."""


@dataclass(frozen=True, kw_only=True)
class CountsView:
    """The counts of a stored slide, mapped read-only: CSR arrays, (spots + 1,) `indptr`."""

    data: NDArray[Any]
    indices: NDArray[np.uint16] | NDArray[np.int32]
    indptr: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where a stored slide's spots lie (see `stpatch.slides.slide.Slide`), without its counts."""

    xy: NDArray[np.float64]
    array: NDArray[np.int32] | None
    geometry: Any
    um_per_unit: float | None
    pitch: float | None
    file_row: NDArray[np.int64] | None = None


def write_slide(path: Path, slide: Slide) -> None:
    """Write a slide atomically; a full disk is an `OSError`, not a crash of HDF5."""
    import h5py

    from stpatch.slides.formats.hdf5 import elements

    obs: dict[str, Any] = {}
    if slide.array is not None:
        obs["array_row"], obs["array_col"] = slide.array[:, 0], slide.array[:, 1]
    if slide.file_row is not None:
        obs["file_row"] = slide.file_row
    for name in slide.labels:
        obs[f"label_{name}"] = pd.Categorical(slide.labels[name])
    facts = {
        "slide_id": slide.slide_id,
        "platform": slide.platform,
        "organism": slide.organism,
        "geometry": slide.geometry,
        "um_per_unit": slide.um_per_unit,
        "pitch": slide.pitch,
        "metadata": dict(slide.metadata),
        "record": dict(slide.record),
    }
    genes = slide.genes
    # Offsets are multiples of 8, so that what is mapped lies as NumPy's own arrays do.
    with patient_file(path) as raw, h5py.File(raw, "w", alignment_threshold=1, alignment_interval=8) as file:
        elements.mark(file, "anndata")
        _write_counts(elements.write_group(file, "X", "csr_matrix"), slide)
        elements.write_table(file, "obs", slide.spot_ids.astype(object), obs)
        index = genes.index.to_numpy(dtype=object)
        elements.write_table(file, "var", index, {str(name): _text_column(genes[name]) for name in genes})
        elements.write_array(elements.write_group(file, "obsm"), "spatial", slide.xy)
        elements.write_text(elements.write_group(file, "uns"), _FACTS, canonical_json(facts))
        for name in ("layers", "obsp", "varm", "varp"):
            elements.write_group(file, name)


def _write_counts(group: Any, slide: Slide) -> None:
    counts = slide.counts
    group.attrs["shape"] = np.array(counts.shape, np.int64)
    for name, array, dtype in (
        (_COUNTS, counts.data, counts.dtype),
        (_GENES, counts.indices, gene_number_dtype(slide.n_genes)),
        ("indptr", counts.indptr, np.dtype(np.int64)),
    ):
        group.create_dataset(name, data=array.astype(dtype, copy=False))
    largest = float(counts.data.max(initial=0))
    _write_view(group, "data", of=_COUNTS, dtype=np.dtype(np.float32 if largest < _FLOAT32_WHOLE else np.float64))
    _write_view(group, "indices", of=_GENES, dtype=np.dtype(np.int32))


def _write_view(group: Any, name: str, *, of: str, dtype: np.dtype[Any]) -> None:
    """Add a dataset that is a wider view of another: HDF5 converts the numbers when they are read."""
    import h5py

    narrow = group[of]
    if not narrow.size:  # a view of nothing cannot be made
        group.create_dataset(name, shape=(0,), dtype=dtype)
        return
    # The low-level way, since a virtual dataset of the high-level one carries the time of its making in its header:
    # the same slide would be stored as other bytes, and all that depends on it done again.
    space = h5py.h5s.create_simple(narrow.shape)
    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_obj_track_times(False)
    settings.set_virtual(space, b".", narrow.name.encode(), space)
    h5py.h5d.create(group.id, name.encode(), h5py.h5t.py_create(dtype), space, dcpl=settings)


def _text_column(column: pd.Series[str]) -> NDArray[np.object_] | pd.Categorical:
    """Return texts, or categories where most repeat."""
    texts = column.to_numpy(dtype=object)
    different = set(texts.tolist())
    if 2 * len(different) > len(texts):
        return texts
    return pd.Categorical(texts, categories=pd.Index(sorted(different), dtype=object))


def read_slide(path: Path, *, spot_ids: bool = True) -> Slide:
    """Read a whole slide, without its `spot_ids` if these are not wanted; its counts are mapped, not copied."""
    from scipy import sparse

    view = open_counts(path)
    with _opened(path) as file:
        facts = _facts(file)
        genes = _gene_table(file)
        obs = file["obs"]
        labels = {
            name.removeprefix("label_"): _categorical(obs[name]) for name in _columns(obs) if name.startswith("label_")
        }
        places = _places(file, facts)
        ids = _texts(obs[obs.attrs["_index"]]) if spot_ids else np.empty(0, dtype=object)
    counts = sparse.csr_matrix((len(places.xy), len(genes)), dtype=view.data.dtype)
    counts.data, counts.indices, counts.indptr = view.data, view.indices, view.indptr
    counts.has_sorted_indices = True
    counts.has_canonical_format = True
    return Slide(
        slide_id=facts["slide_id"],
        platform=facts["platform"],
        organism=facts["organism"],
        counts=counts,
        genes=genes,
        spot_ids=ids,
        xy=places.xy,
        array=places.array,
        geometry=places.geometry,
        um_per_unit=places.um_per_unit,
        pitch=places.pitch,
        labels=pd.DataFrame(labels),
        metadata=facts["metadata"],
        record=facts["record"],
        file_row=places.file_row,
    )


def read_places(path: Path) -> Places:
    """Read where the spots lie."""
    with _opened(path) as file:
        return _places(file, _facts(file))


def read_genes(path: Path, *, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Read the gene table: index ``gene``; columns ``name``, ``ensembl_id``, ``organism``, or those that are named."""
    with _opened(path) as file:
        return _gene_table(file, columns)


def read_labels(path: Path) -> pd.DataFrame:
    """Read the labels: one categorical column each."""
    with _opened(path) as file:
        obs = file["obs"]
        names = [name for name in _columns(obs) if name.startswith("label_")]
        return pd.DataFrame({name.removeprefix("label_"): _categorical(obs[name]) for name in names})


def open_counts(path: Path) -> CountsView:
    """Map the counts of a stored slide."""
    with _opened(path) as file, path.open("rb") as raw:
        pages = mmap.mmap(raw.fileno(), 0, access=mmap.ACCESS_READ)
        arrays = {name: _mapped(pages, file["X"][name]) for name in (_COUNTS, _GENES, "indptr")}
    return CountsView(data=arrays[_COUNTS], indices=arrays[_GENES], indptr=arrays["indptr"])


def _mapped(pages: mmap.mmap, dataset: Any) -> NDArray[Any]:
    offset = dataset.id.get_offset()
    if offset is None or dataset.size == 0:  # an empty array has no place in the file
        return np.asarray(dataset[()])
    return np.frombuffer(pages, dataset.dtype, dataset.size, offset)


def _opened(path: Path) -> Any:
    import h5py

    try:
        return h5py.File(path, "r", locking=False)  # nobody writes it any more, and some file systems know no locks
    except OSError as error:
        raise InputError(
            "a stored slide cannot be opened", where=path, found=str(error), hint="remove it; the next build redoes it"
        ) from error


def _facts(file: Any) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(file["uns"][_FACTS][()].decode())
    return facts


def _places(file: Any, facts: dict[str, Any]) -> Places:
    obs = file["obs"]
    array = None
    if "array_row" in obs:
        array = np.column_stack([obs["array_row"][()], obs["array_col"][()]]).astype(np.int32)
    return Places(
        xy=np.asarray(file["obsm"]["spatial"][()], np.float64),
        array=array,
        geometry=facts["geometry"],
        um_per_unit=facts["um_per_unit"],
        pitch=facts["pitch"],
        file_row=np.asarray(obs["file_row"][()], np.int64) if "file_row" in obs else None,
    )


def _gene_table(file: Any, columns: Sequence[str] | None = None) -> pd.DataFrame:
    var = file["var"]
    table = {name: _column(var[name]) for name in columns or _columns(var)}
    return pd.DataFrame(table, index=pd.Index(_texts(var[var.attrs["_index"]]), name="gene", dtype=object))


def _columns(group: Any) -> list[str]:
    return [name if isinstance(name, str) else name.decode() for name in group.attrs["column-order"]]


def _column(item: Any) -> Any:
    """Read a text column, which AnnData stores as texts or, where texts repeat, as categories."""
    import h5py

    return _texts(item) if isinstance(item, h5py.Dataset) else np.asarray(_categorical(item), dtype=object)


def _categorical(item: Any) -> Any:
    categories: Any = _texts(item["categories"])
    return pd.Categorical.from_codes(item["codes"][()].astype(np.int64), categories=categories)


def _texts(dataset: Any) -> NDArray[np.object_]:
    import h5py

    if isinstance(dataset, h5py.Group):  # AnnData's nullable strings: values and a mask
        dataset = dataset["values"]
    return np.asarray(dataset.asstr()[()], dtype=object)
