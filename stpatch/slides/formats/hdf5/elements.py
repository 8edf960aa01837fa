"""Plain elements of AnnData's HDF5 layout, read and written without the anndata package, whose import takes longer.

Only what needs no judgement: arrays of numbers and of texts, categories, and tables of these, as today's encoding has
them. Everything else (older encodings, missing values, nested elements) is left to anndata.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

VERSIONS = {
    "array": "0.2.0",
    "string-array": "0.2.0",
    "numeric-scalar": "0.2.0",
    "categorical": "0.2.0",
    "dataframe": "0.2.0",
    "dict": "0.1.0",
    "string": "0.2.0",
    "csr_matrix": "0.1.0",
    "anndata": "0.1.0",
}


def is_plain(item: Any) -> bool:
    """Whether `read_plain` can read an element."""
    if not isinstance(item, (h5py.Dataset, h5py.Group)):
        return False
    kind = item.attrs.get("encoding-type")
    if not isinstance(kind, str) or item.attrs.get("encoding-version") != VERSIONS.get(kind):
        return False
    if isinstance(item, h5py.Group):
        if kind == "categorical":
            return _is_array(item.get("codes"), "iu") and is_plain(item.get("categories"))
        return kind == "dataframe" and all(is_plain(item.get(name)) for name in _members(item))
    return kind == "string-array" or (kind in ("array", "numeric-scalar") and _is_array(item, "iufb"))


def read_plain(item: Any) -> Any:
    """Read an element: an array, a scalar, a `pandas.Categorical` or a `pandas.DataFrame`, as anndata does."""
    kind = item.attrs["encoding-type"]
    if kind == "dataframe":
        index, *columns = _members(item)
        table = {name: read_plain(item[name]) for name in columns}
        return pd.DataFrame(table, index=pd.Index(read_plain(item[index])), columns=columns or None)
    if kind == "categorical":
        return pd.Categorical.from_codes(
            item["codes"][()], categories=read_plain(item["categories"]), ordered=bool(item.attrs.get("ordered", False))
        )
    return item.asstr()[()] if kind == "string-array" else item[()]


def _members(table: h5py.Group) -> list[str]:
    """Return the name of a table's index and those of its columns."""
    return [str(table.attrs["_index"]), *(str(name) for name in table.attrs["column-order"])]


def _is_array(item: Any, kinds: str) -> bool:
    return isinstance(item, h5py.Dataset) and item.dtype.kind in kinds


def write_array(group: h5py.Group, name: str, values: NDArray[Any]) -> None:
    """Write numbers, or texts (dtype object)."""
    if values.dtype.kind == "O":
        mark(group.create_dataset(name, data=values, dtype=h5py.string_dtype()), "string-array")
    else:
        mark(group.create_dataset(name, data=values), "array")


def write_text(group: h5py.Group, name: str, text: str) -> None:
    """Write one text."""
    mark(group.create_dataset(name, data=text, dtype=h5py.string_dtype()), "string")


def write_categories(group: h5py.Group, name: str, values: pd.Categorical) -> None:
    """Write unordered categories of text."""
    part = mark(group.create_group(name), "categorical")
    part.attrs["ordered"] = False
    write_array(part, "codes", values.codes)
    write_array(part, "categories", values.categories.to_numpy(dtype=object))


def write_table(
    group: h5py.Group, name: str, index: NDArray[np.object_], columns: Mapping[str, NDArray[Any] | pd.Categorical]
) -> None:
    """Write a table; `index` are the names of its rows."""
    part = mark(group.create_group(name), "dataframe")
    part.attrs["_index"] = "_index"
    part.attrs["column-order"] = np.array(list(columns), dtype=h5py.string_dtype() if columns else np.float64)
    write_array(part, "_index", index)
    for column, values in columns.items():
        if isinstance(values, pd.Categorical):
            write_categories(part, column, values)
        else:
            write_array(part, column, values)


def write_group(group: h5py.Group, name: str, kind: str = "dict") -> h5py.Group:
    """Make a group of an encoding."""
    return mark(group.create_group(name), kind)


def mark(item: Any, kind: str) -> Any:
    """Write an element's encoding marks, and return the element."""
    item.attrs["encoding-type"], item.attrs["encoding-version"] = kind, VERSIONS[kind]
    return item
