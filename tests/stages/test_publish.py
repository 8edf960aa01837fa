"""A dataset whose output is a URL: the same bytes as in a folder, the manifest last, and going on after a fault."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from bundles.corpus import digests, write_config, write_corpus
from commands import built, stpatch

import stpatch as package
from stpatch import remote

fsspec = pytest.importorskip("fsspec", reason="extra remote is not installed")


@pytest.fixture
def url(monkeypatch, tmp_path):
    monkeypatch.setattr(remote, "PAUSES", (0.0,))
    monkeypatch.setenv("STPATCH_CACHE", str(tmp_path / "cache"))
    yield "memory://bucket/tiny-data"
    fsspec.filesystem("memory").store.clear()


def stored(url: str) -> dict[str, str]:
    fs = fsspec.filesystem("memory")
    return {
        name.removeprefix("/bucket/tiny-data/"): hashlib.sha256(fs.cat_file(name)).hexdigest() for name in fs.find(url)
    }


def test_it_is_the_dataset_of_a_folder(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = write_corpus(tmp_path)
    built("build", config, "-q")
    config = write_config(tmp_path, dataset={"output": url})
    puts: list[str] = []
    put = remote.Store.put

    def noted(store: remote.Store, local: Path, path: str) -> None:
        puts.append(path)
        if path == "slides.parquet" and puts.count(path) == 1:
            raise remote.RemoteError("the store is down")
        put(store, local, path)

    monkeypatch.setattr(remote.Store, "put", noted)
    failed = stpatch("build", config, "-q")
    assert failed.code == 1
    assert "the store is down" in failed.err
    assert "manifest.json" not in stored(url)
    done = built("build", config, "-q")
    assert url in done.out
    assert puts[-1] == "manifest.json"
    assert stored(url) == digests(tmp_path / "out")
    assert (tmp_path / "tiny-data.work" / "published.json").is_file()
    assert len(package.open(url, "train").batch([0, 1]).keys) == 2

    puts.clear()
    built("build", config, "-q")
    assert puts == []

    built("build", write_config(tmp_path, dataset={"output": url}, shards={"format": "zarr"}), "-q", "--replace")
    built("build", write_config(tmp_path, name="local.yaml", shards={"format": "zarr"}), "-q", "--replace")
    assert stored(url) == digests(tmp_path / "out"), "what the older dataset had is gone"


def test_another_dataset_is_not_written_over(tmp_path: Path, url: str) -> None:
    config = write_corpus(tmp_path, dataset={"output": url})
    fs = fsspec.filesystem("memory")
    for name in ("manifest.json", "notes.txt"):
        fs.pipe_file(f"/bucket/tiny-data/{name}", b"{}")
        done = stpatch("build", config, "-q")
        assert done.code == 2
        assert "did not store" in done.err
        assert name in done.err
        fs.rm_file(f"/bucket/tiny-data/{name}")
    built("build", config, "-q")
