"""Arrays that are read block by block against the same read at once."""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stpatch.errors import InputError
from stpatch.slides.formats import counts
from stpatch.slides.formats.counts import read_indices, read_values

STORED = st.sampled_from(["uint8", "uint16", ">u2", "int32", ">i4", "int64", "float32", "float64"])


def dataset(folder: Any, values: np.ndarray, chunk: int) -> h5py.Dataset:
    file = h5py.File(folder / "x.h5", "w")
    options: dict[str, Any] = (
        {"chunks": (min(chunk, len(values)),), "compression": "gzip"} if chunk and len(values) else {}
    )
    return file.create_dataset("x", data=values, **options)


@given(
    numbers=st.lists(st.integers(0, 200), max_size=30), stored=STORED, chunk=st.integers(0, 9), run=st.integers(1, 9)
)
def test_blocks_give_what_one_read_gives(
    tmp_path_factory: pytest.TempPathFactory, numbers: list[int], stored: str, chunk: int, run: int
) -> None:
    values = dataset(tmp_path_factory.mktemp("counts"), np.array(numbers, stored), chunk)
    with values.file, pytest.MonkeyPatch.context() as patch:
        patch.setattr(counts, "RUN", run)
        found = read_values(values, where="x")
        assert (found.dtype, found.tolist()) == (np.uint16, numbers)
        assert read_values(values, where="x", normalized=True).dtype == np.float32
        for dtype in (np.dtype(np.int32), np.dtype(np.uint16)):
            indices = read_indices(values, where="x", limit=201, dtype=dtype)
            assert (indices.dtype, indices.tolist()) == (dtype, numbers)
            assert read_indices(values[()], where="x", limit=201, dtype=dtype).tolist() == numbers


@pytest.mark.parametrize("wrong", [-1, 7, 2**31 - 1])
@pytest.mark.parametrize("stored", ["int32", ">i4", "int64", "float64"])
def test_an_index_outside_is_named_by_its_place(tmp_path: Any, wrong: int, stored: str) -> None:
    values = dataset(tmp_path, np.array([0, 6, 1, 2, wrong, 3], stored), 0)
    with values.file, pytest.MonkeyPatch.context() as patch:
        patch.setattr(counts, "RUN", 3)
        with pytest.raises(InputError, match="value 4") as caught:
            read_indices(values, where="x", limit=7, dtype=np.dtype(np.uint16))
        assert "0 to 6" in caught.value.block()
