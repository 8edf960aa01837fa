"""Shard indexes as webdataset's indexed reader (wids) takes them: one per split, URLs relative to the index."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stpatch.dataset.entries import FileEntry, SplitEntry, write_file
from stpatch.storage import canonical_json

KIND = "wids-shard-index-v1"
FOLDER = "index"


def shard_index(name: str, split: SplitEntry) -> dict[str, Any]:
    """Return the index of a split's tar shards."""
    return {
        "__kind__": KIND,
        "wids_version": 1,
        "name": name,
        "shardlist": [
            {"url": f"../{shard.path}", "nsamples": shard.patches, "filesize": shard.bytes} for shard in split.shards
        ],
    }


def write_index(folder: Path, name: str, split: SplitEntry) -> FileEntry:
    """Write ``index/<split>.json`` into the dataset's folder."""
    return write_file(folder, f"{FOLDER}/{name}.json", encoded_index(name, split))


def encoded_index(name: str, split: SplitEntry) -> bytes:
    """Return the bytes of a split's index."""
    return (canonical_json(shard_index(name, split), indent=1) + "\n").encode()
