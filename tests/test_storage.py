"""Files at the edge: atomic writes, checksums, canonical JSON, safe names."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpora import make_slide
from hypothesis import given
from hypothesis import strategies as st

from stpatch.processes import Process, this_process
from stpatch.record import write_record
from stpatch.slides.store import write_slide
from stpatch.storage import (
    LEFT_BEHIND,
    atomic_file,
    atomic_path,
    canonical_json,
    digest,
    is_safe_id,
    key_text,
    read_json,
    read_sealed,
    release_pages,
    remove_file,
    remove_temporaries,
    sha256_file,
    write_bytes,
    write_json,
    write_new,
    write_sealed,
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


def test_what_another_process_writes_stays(tmp_path: Path) -> None:
    own, host = this_process(), "00000001"
    living = tmp_path / f".tmp-{own}-0123-kept"
    ended = tmp_path / f".tmp-{Process(own.host, 2**22 + 1, 1)}-0123-gone"
    reused = tmp_path / f".tmp-{Process(own.host, own.pid, own.started + 1)}-0123-gone"
    elsewhere = tmp_path / f".tmp-{Process(host, 1, 1)}-0123-kept"
    long_ago = tmp_path / f".tmp-{Process(host, 2, 1)}-0123-gone"
    for path in (living, ended, reused, elsewhere, long_ago):
        path.write_bytes(b"half")
    os.utime(long_ago, (time.time() - LEFT_BEHIND - 1,) * 2)
    remove_temporaries(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([living, elsewhere])
    with atomic_path(tmp_path / "file") as temporary:
        temporary.write_bytes(b"new")
        remove_temporaries(tmp_path)  # as a second build does that ends meanwhile
    assert (tmp_path / "file").read_bytes() == b"new"


def test_a_new_file_is_written_once(tmp_path: Path) -> None:
    assert write_new(tmp_path / "a" / "b", b"1")
    assert not write_new(tmp_path / "a" / "b", b"2")
    assert (tmp_path / "a" / "b").read_bytes() == b"1"
    assert len(list((tmp_path / "a").iterdir())) == 1


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
    "text",
    [
        "",
        ".",
        "..",
        "../x",
        "a/b",
        "a\\b",
        "-a",
        ".a",
        "a b",
        "ä",
        "a\n",
        "x" * 129,
        "a\0",
        "a.",
        "con",
        "NUL",
        "aux.h5",
        "Com1",
        "lpt9.tar.gz",
    ],
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


class Disk:
    """Counts the calls by which files are written, and lets one of them fail as a bad or full disk does.

    Writes fail in the raw file, below Python's buffer, where a disk's do.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        self.at: int | None = None
        self.error = errno.ENOSPC
        normal, replace, fsync, unlink = Path.open, Path.replace, os.fsync, Path.unlink
        disk = self

        class Raw(io.FileIO):
            def write(self, data: Any) -> int:
                disk.count("write")
                return super().write(data)

        def opened(path: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            if mode == "w+b":
                return io.BufferedRandom(Raw(str(path), mode))
            return normal(path, mode, *args, **kwargs)

        monkeypatch.setattr(Path, "open", opened)
        monkeypatch.setattr(os, "fsync", lambda file: (disk.count("fsync"), fsync(file))[1])
        monkeypatch.setattr(Path, "replace", lambda *paths: (disk.count("rename"), replace(*paths))[1])
        monkeypatch.setattr(
            Path, "unlink", lambda path, **kwargs: (disk.calls.append("unlink"), unlink(path, **kwargs))
        )

    def count(self, call: str) -> None:
        self.calls.append(call)
        if len(self.calls) - 1 == self.at:
            raise OSError(self.error, os.strerror(self.error))


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def write_text(path: Path) -> None:
    write_json(path, {"text": "a" * 100_000})


def write_arrays(path: Path) -> None:
    write_record(path, {"a": np.arange(20_000), "b": np.ones(7, np.uint8)})


def write_archive(path: Path) -> None:
    with atomic_file(path) as file:
        np.savez(file, a=np.arange(20_000), b=np.ones(7, np.uint8))


def write_stored_slide(path: Path) -> None:
    write_slide(path, make_slide("A", np.arange(3000).reshape(60, 50)))


WRITERS = [write_text, write_arrays, write_archive, write_stored_slide]


@pytest.mark.parametrize("write", WRITERS)
def test_the_order_of_a_write(tmp_path: Path, disk: Disk, write: Callable[[Path], None]) -> None:
    write(tmp_path / "file")
    calls = [call for call, following in zip(disk.calls, [*disk.calls[1:], None], strict=True) if call != following]
    assert calls == ["write", "fsync", "rename", "fsync", "unlink"], "the last is of what is not there any more"


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("write", WRITERS)
def test_any_call_that_fails_is_told_and_no_final_name_is_wrong(
    tmp_path: Path, disk: Disk, write: Callable[[Path], None], error: int
) -> None:
    path = tmp_path / "file"
    write(path)
    whole, calls = path.read_bytes(), disk.calls[:]
    disk.error = error
    for disk.at in range(calls.index("unlink")):
        path.write_bytes(b"as before")
        disk.calls.clear()
        with pytest.raises(OSError, match=re.escape(os.strerror(error))) as caught:
            write(path)
        folder_only = "rename" in calls[: disk.at]
        assert path.read_bytes() == (whole if folder_only else b"as before"), calls[disk.at]
        assert list(tmp_path.iterdir()) == [path]
        if calls[disk.at] == "write":
            assert caught.value.filename == str(path)
    disk.at = None
    write(path)
    assert path.read_bytes() == whole


def test_file_systems_that_know_no_sync_of_folders_are_borne(tmp_path: Path, disk: Disk) -> None:
    disk.error = errno.EINVAL
    disk.at = 3  # write, fsync, rename, fsync of the folder
    write_bytes(tmp_path / "file", b"1")
    assert (tmp_path / "file").read_bytes() == b"1"


def test_new_folders_are_synced_in_theirs(tmp_path: Path, disk: Disk) -> None:
    write_bytes(tmp_path / "a" / "b" / "file", b"1")
    assert disk.calls == ["fsync", "fsync", "write", "fsync", "rename", "fsync", "unlink"]


def test_no_library_gets_at_the_descriptor(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "file") as file:
        with pytest.raises(io.UnsupportedOperation):
            file.fileno()
        np.save(file, np.arange(9))
    assert np.load(tmp_path / "file").tolist() == list(range(9))


@given(st.dictionaries(st.text(), json_values, max_size=4), st.data())
def test_a_seal_shows_any_other_bit(tmp_path_factory: pytest.TempPathFactory, value: dict, data: st.DataObject) -> None:
    path = tmp_path_factory.mktemp("sealed") / "file"
    write_sealed(path, value)
    assert read_sealed(path) == value
    whole = path.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    path.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << data.draw(st.integers(0, 7)))]) + whole[place + 1 :])
    try:
        found = read_sealed(path)
    except ValueError:
        return
    assert found == value  # a blank between members has become another one


def test_removed_files_are_gone(tmp_path: Path, disk: Disk) -> None:
    (tmp_path / "file").write_bytes(b"1")
    remove_file(tmp_path / "file")
    assert not (tmp_path / "file").exists()
    assert disk.calls == ["unlink", "fsync"]
    remove_file(tmp_path / "file")
