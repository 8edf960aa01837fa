"""Files at the edge: atomic writes, checksums, canonical JSON, safe names."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stpatch.storage import (
    atomic_file,
    atomic_path,
    canonical_json,
    digest,
    is_safe_id,
    key_text,
    read_json,
    release_pages,
    remove_temporaries,
    sha256_file,
    write_bytes,
    write_json,
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.bin"
    with atomic_file(path) as file:
        file.write(b"new")
        assert not path.exists()
    assert path.read_bytes() == b"new"
    with pytest.raises(TypeError), atomic_file(path) as file:
        file.writelines([b"half", None])
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


def test_a_path_for_libraries_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    with atomic_path(path) as temporary:
        assert temporary.suffix == ".txt"
        temporary.write_text("new")
    with pytest.raises(OSError, match="kept"), atomic_path(path) as temporary:
        _write_half(temporary)
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def _write_half(path: Path) -> None:
    path.write_text("half")
    raise OSError("the rest is kept back")


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a" / "kept", b"1")
    left = tmp_path / "a" / ".tmp-0123-kept"
    left.write_bytes(b"half")
    remove_temporaries(tmp_path)
    assert not left.exists()
    assert (tmp_path / "a" / "kept").exists()


@given(json_values)
def test_equal_values_have_equal_text(value: object) -> None:
    text = canonical_json(value)
    assert json.loads(text) == value
    assert canonical_json(json.loads(text)) == text
    assert digest(json.loads(text)) == digest(value)


def test_key_order_does_not_matter_and_nan_is_refused() -> None:
    assert canonical_json({"b": 1, "a": {"d": 1, "c": 2}}) == '{"a":{"c":2,"d":1},"b":1}'
    with pytest.raises(ValueError, match="JSON"):
        canonical_json(float("nan"))


def test_json_files(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"ü": [1, None]})
    assert read_json(path) == {"ü": [1, None]}
    assert path.read_bytes().endswith(b"}\n")


def test_checksums_of_files(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(bytes(3 << 20))
    assert sha256_file(path) == hashlib.sha256(bytes(3 << 20)).hexdigest()


@pytest.mark.parametrize("text", ["A1", "a.b_c-d+e", "0", "x" * 128])
def test_safe_ids(text: str) -> None:
    assert is_safe_id(text)


@pytest.mark.parametrize(
    "text", ["", ".", "..", "../x", "a/b", "a\\b", "-a", ".a", "a b", "ä", "a\n", "x" * 129, "a\0"]
)
def test_unsafe_ids(text: str) -> None:
    assert not is_safe_id(text)


@given(st.text())
def test_key_texts_are_webdataset_safe(text: str) -> None:
    key = key_text(text)
    assert set(key) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-")
    assert key_text(key) == key


def test_released_pages_are_read_again(tmp_path: Path) -> None:
    path, expected = tmp_path / "array", np.arange(4_000_000)
    expected.tofile(path)
    mapped = np.memmap(path, dtype=expected.dtype, mode="r").view(np.ndarray)
    in_memory = expected.copy()
    np.testing.assert_array_equal(mapped, expected)
    before = mapped_bytes()
    release_pages(mapped, in_memory)
    if before is not None:
        assert before - (mapped_bytes() or 0) > 0.9 * expected.nbytes
    np.testing.assert_array_equal(mapped, expected)
    np.testing.assert_array_equal(in_memory, expected)


def mapped_bytes() -> int | None:
    """Return the bytes of mapped files in this process' memory, where the system tells them."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssFile")), None)
