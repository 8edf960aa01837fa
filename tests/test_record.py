"""Arrays in one file."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from stpatch.errors import DatasetError
from stpatch.record import read_record, write_record

arrays = st.dictionaries(
    st.text("abc.", min_size=1, max_size=5),
    st.sampled_from(["u1", "<u2", "<i4", "<i8", "<f8", "?"]).flatmap(
        lambda dtype: npst.arrays(dtype, npst.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=4))
    ),
    min_size=1,
    max_size=5,
)


@given(arrays)
@settings(max_examples=60, deadline=None)
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, values: dict[str, np.ndarray]) -> None:
    folder = tmp_path_factory.mktemp("record")
    for name in "ab":
        write_record(folder / name, values)
    found = read_record(folder / "a", what="a test", stage="crop")
    assert list(found) == list(values)
    for name, value in values.items():
        assert found[name].dtype == value.dtype
        np.testing.assert_array_equal(found[name], value)
        assert found[name].flags.aligned
        assert not found[name].flags.writeable
    assert (folder / "a").read_bytes() == (folder / "b").read_bytes()


@pytest.mark.parametrize(
    "content",
    [b"", b"no record", b"\x93NUMPY\x01\x00v\x00{", b"\x93NUMPY\x01\x00\x04\x00{(}\n", b"\x93NUMPY\x03\x00"],
)
def test_what_is_no_record_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(DatasetError, match="a slide's patches cannot be read") as caught:
        read_record(tmp_path / "a.npy", what="a slide's patches", stage="crop")
    assert "run the crop stage again" in caught.value.block()


@pytest.mark.parametrize("array", [np.arange(3), np.array([{}], dtype=object)])
def test_an_array_that_is_no_record_is_refused(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    with pytest.raises(DatasetError, match=r"not a record of numbers"):
        read_record(tmp_path / "a.npy", what="a test", stage="crop")


def test_damage_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    write_record(path, {"a": np.arange(9), "b": np.ones(3, np.uint8)})
    whole = path.read_bytes()
    sha256 = hashlib.sha256(whole).hexdigest()
    assert read_record(path, what="a test", stage="crop", sha256=sha256)["b"].tolist() == [1, 1, 1]
    path.write_bytes(whole[:-1])
    with pytest.raises(DatasetError, match="cut short"):
        read_record(path, what="a test", stage="crop")
    path.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    with pytest.raises(DatasetError, match="checksum"):
        read_record(path, what="a test", stage="crop", sha256=sha256)
