from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from bundles.dataset import genes_table, make_layout
from hypothesis import given
from hypothesis import strategies as st

from stpatch.dataset import tables
from stpatch.dataset.tables import GENES, codes, numbers, pack_measured, patch_columns, read_table, unpack_measured
from stpatch.errors import DatasetError
from stpatch.storage import sha256_file


def patches(count, *, splits=("train", "val")):
    split = np.sort(np.arange(count) % len(splits))
    return {
        "key": [f"s-{number:06d}" for number in range(count)],
        "split": [splits[at] for at in split],
        "shard": [f"{splits[at]}/a.tar" for at in split],
        **{name: np.arange(count) for name in ("index", "offset", "nbytes", "row", "col", "n_spots", "crc32c")},
        "slide_id": np.array([f"s{number % 3}" for number in range(count)], dtype=object),
        "coverage": np.linspace(0, 1, count, dtype=np.float32),
    }


def test_rows_come_back_and_bytes_are_fixed(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "ROW_GROUP", 4)
    columns = patch_columns(make_layout())
    values = patches(20)
    record = tables.write_table(tmp_path, "patches", columns, values)
    assert record.sha256 == sha256_file(tmp_path / record.path)
    again = tables.write_table(tmp_path / "b", "patches", columns, {name: list(values[name]) for name in values})
    assert again == record
    file = pq.ParquetFile(tmp_path / record.path)
    assert file.num_row_groups == 6  # 4 + 4 + 2 a split
    assert not file.schema_arrow.metadata
    table = read_table(tmp_path / record.path, columns)
    assert table.column_names == list(columns)
    np.testing.assert_array_equal(numbers(table["row"]), values["row"])
    val = read_table(tmp_path / record.path, columns, split="val")
    np.testing.assert_array_equal(numbers(val["offset"]), np.arange(10, 20))
    assert read_table(tmp_path / record.path, columns, split="test").num_rows == 0
    assert read_table(tmp_path / record.path, columns, split="u").num_rows == 0  # between train and val
    assert pd.read_parquet(tmp_path / record.path)["slide_id"][4] == "s1"


def test_codes_and_numbers_of_many_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "ROW_GROUP", 3)
    columns = patch_columns(make_layout())
    record = tables.write_table(tmp_path, "patches", columns, patches(11))
    table = read_table(tmp_path / record.path, columns).slice(2, 7)
    position, texts = codes(table["slide_id"])
    assert [texts[at] for at in position] == table["slide_id"].to_pylist()
    assert numbers(table["coverage"]).tolist() == table["coverage"].to_pylist()
    assert numbers(table["nbytes"]).dtype == np.int64


def test_nulls_stand_where_they_may(tmp_path):
    values = genes_table(make_layout())
    record = tables.write_table(tmp_path, "genes", GENES, values)
    table = read_table(tmp_path / record.path, GENES)
    assert table["ensembl_id"].to_pylist()[0] is None
    assert table["channel"].null_count == 9
    with pytest.raises(DatasetError, match="missing values"):
        numbers(table["channel"])
    with pytest.raises(DatasetError, match=r"missing values(.|\n)*1 nulls"):
        tables.write_table(tmp_path, "genes", GENES, {**values, "name": [None, *values["name"][1:]]})


def test_wrong_columns_are_refused(tmp_path):
    values = genes_table(make_layout())
    for change, message in [
        ({"n_slides": ["a"] * 9}, "wrong type"),
        ({"n_slides": [1]}, "differ in length"),
        ({"n_slides": [2**40] * 9}, "wrong type"),
        ({"more": [1] * 9}, "other columns"),
    ]:
        with pytest.raises(DatasetError, match=message):
            tables.write_table(tmp_path, "genes", GENES, {**values, **change})
    assert not list(tmp_path.iterdir())


def test_columns_follow_the_layout():
    assert set(patch_columns(make_layout(variable=True), draws=2)) - set(patch_columns(make_layout())) == {
        "height",
        "width",
        "draw",
    }


def test_other_or_missing_tables_are_told(tmp_path):
    with pytest.raises(DatasetError, match="a table is missing"):
        read_table(tmp_path / "genes.parquet", GENES)
    tables.write_table(tmp_path, "genes", {"gene_id": "int32"}, {"gene_id": [1]})
    with pytest.raises(DatasetError, match=r"lacks a column(.|\n)*name string"):
        read_table(tmp_path / "genes.parquet", GENES)


def test_flipped_bytes_never_give_other_rows(tmp_path):
    record = tables.write_table(tmp_path, "genes", GENES, genes_table(make_layout()))
    path = tmp_path / record.path
    whole = path.read_bytes()
    rows = read_table(path, GENES)
    for at in range(4, len(whole), 11):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        try:
            assert at > len(whole) // 2 or read_table(path, GENES).equals(rows)  # the footer carries no checksum
        except DatasetError as error:
            assert str(path) in str(error)  # noqa: PT017 - either outcome is right


@given(st.sets(st.integers(1, 40)))
def test_measured_genes_come_back(genes):
    packed = pack_measured(np.array(sorted(genes), dtype=np.int64), 40)
    assert len(packed) == 6
    mask = unpack_measured(packed, 40)
    assert set(np.flatnonzero(mask)) == genes
    plain = np.unpackbits(np.frombuffer(packed, "uint8"), bitorder="little")[list(genes)]
    assert plain.all()
