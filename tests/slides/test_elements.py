"""Plain AnnData elements against the anndata package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
from anndata.io import read_elem, write_elem
from hypothesis import given
from hypothesis import strategies as st

from stpatch.slides.formats.hdf5 import elements

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5)


@st.composite
def tables(draw: st.DrawFn) -> pd.DataFrame:
    n = draw(st.integers(1, 6))
    table = pd.DataFrame(index=pd.Index(draw(st.lists(TEXTS, min_size=n, max_size=n)), dtype=object))
    for name in draw(st.lists(st.sampled_from(["a", "b", "ü", "_x"]), unique=True)):
        kind = draw(st.sampled_from(["int64", "float32", "uint16", "bool", "text", "category"]))
        if kind == "text":
            table[name] = np.array(draw(st.lists(TEXTS, min_size=n, max_size=n)), dtype=object)
        elif kind == "category":
            values = draw(st.lists(st.sampled_from(["x", "y", None]), min_size=n, max_size=n))
            table[name] = pd.Categorical(values, categories=pd.Index(["x", "y"], dtype=object))
        else:
            table[name] = np.array(draw(st.lists(st.integers(0, 1), min_size=n, max_size=n)), dtype=kind)
    return table


def column(values: pd.Series[Any]) -> Any:
    return values.array if isinstance(values.dtype, pd.CategoricalDtype) else values.to_numpy()


@given(table=tables())
def test_tables_are_read_and_written_as_anndata_does(
    tmp_path_factory: pytest.TempPathFactory, table: pd.DataFrame
) -> None:
    with h5py.File(tmp_path_factory.mktemp("elements") / "x.h5", "w") as file:
        write_elem(file, "theirs", table)
        elements.write_table(
            file, "ours", table.index.to_numpy(dtype=object), {name: column(table[name]) for name in table}
        )
        for name in ("theirs", "ours"):
            assert elements.is_plain(file[name])
            pd.testing.assert_frame_equal(elements.read_plain(file[name]), read_elem(file[name]))
        pd.testing.assert_frame_equal(elements.read_plain(file["ours"]), elements.read_plain(file["theirs"]))


@pytest.mark.parametrize("value", [np.arange(6.0).reshape(3, 2), np.float64(2.5), np.array(["a", "é"], dtype=object)])
def test_arrays_are_read_as_anndata_does(tmp_path: Path, value: Any) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        write_elem(file, "x", value)
        assert elements.is_plain(file["x"])
        np.testing.assert_array_equal(elements.read_plain(file["x"]), read_elem(file["x"]))


def test_what_is_not_plain_is_left_to_anndata(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        write_elem(file, "missing", pd.DataFrame({"a": pd.array([1, None], dtype="Int64")}, index=["x", "y"]))
        write_elem(file, "nested", {"a": 1})
        file.create_dataset("unmarked", data=[1, 2])
        for name in file:
            assert not elements.is_plain(file[name])
        assert not elements.is_plain(None)


def test_a_text_and_empty_groups_are_anndatas(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        elements.write_text(elements.write_group(file, "uns"), "facts", "é {}")
        elements.write_group(file, "obsm")
        assert read_elem(file["uns"]) == {"facts": "é {}"}
        assert read_elem(file["obsm"]) == {}
