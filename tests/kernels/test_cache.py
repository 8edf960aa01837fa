"""Where compiled loops are kept: a place is found also where neither the package nor HOME can be written."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from stpatch.kernels import cache
from stpatch.kernels.cache import Cache, find_cache


@pytest.fixture(autouse=True)
def _asked_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    find_cache.cache_clear()
    yield
    find_cache.cache_clear()


def only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Let files be made in the test's folder only, or in some of its folders."""
    allowed = [tmp_path / name for name in names] or [tmp_path]
    real = cache._can_make
    monkeypatch.setattr(
        cache, "_can_make", lambda folder: any(folder.is_relative_to(a) for a in allowed) and real(folder)
    )


def test_where_numba_finds_a_place_nothing_is_said() -> None:
    assert find_cache() == Cache()


def test_the_temporary_folder_has_a_place_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only(tmp_path, monkeypatch)
    found = find_cache()
    assert found.used
    assert found.folder is not None
    assert found.folder.parent == tmp_path
    assert found.folder.stat().st_mode & 0o777 == 0o700
    assert "NUMBA_CACHE_DIR" in found.note


def test_a_named_folder_is_taken_if_it_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only(tmp_path, monkeypatch)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "named"))
    assert find_cache() == Cache()
    find_cache.cache_clear()
    monkeypatch.setenv("NUMBA_CACHE_DIR", "/dev/null/named")
    assert find_cache().folder is not None


@pytest.mark.parametrize("kind", ["link", "open to all", "file"])
def test_a_folder_that_another_could_have_filled_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    only(tmp_path, monkeypatch)
    path = tmp_path / f"stpatch-kernels-{os.getuid()}"
    if kind == "link":
        (tmp_path / "other").mkdir(mode=0o700)
        path.symlink_to(tmp_path / "other")
    elif kind == "file":
        path.touch()
    else:
        path.mkdir()
        path.chmod(0o777)
    found = find_cache()
    assert not found.used
    assert "anew" in found.note


@pytest.mark.parametrize("used", [True, False], ids=["kept", "not kept"])
def test_loops_compile_there(tmp_path: Path, used: bool) -> None:
    code = (
        "from pathlib import Path\n"
        "from stpatch.kernels import cache\n"
        f"place = cache.Cache(used={used}, folder=Path({str(tmp_path)!r}) if {used} else None)\n"
        "cache.find_cache = lambda: place\n"
        "import stpatch.kernels.pairs\n"
        "from stpatch.kernels.registry import kernel\n"
        "def one(x):\n    return x + 1\n"
        "assert kernel()(one)(1) == 2\n"
    )
    script = tmp_path / "script.py"
    script.write_text(code)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert bool(list(tmp_path.rglob("*.nbc"))) == used
