"""Shard indexes as webdataset's indexed reader (wids) takes them: one a split, URLs relative to the index."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from stpatch.dataset.layout import FileRecord
from stpatch.dataset.manifest import SplitRecord
from stpatch.storage import canonical_json, write_bytes

KIND = "wids-shard-index-v1"
FOLDER = "index"


def shard_index(name: str, split: SplitRecord) -> dict[str, Any]:
    """Return the index of a split's tar shards."""
    return {
        "__kind__": KIND,
        "wids_version": 1,
        "name": name,
        "shardlist": [
            {"url": f"../{shard.file.path}", "nsamples": shard.patches, "filesize": shard.file.bytes}
            for shard in split.shards
        ],
    }


def write_index(folder: Path, name: str, split: SplitRecord) -> FileRecord:
    """Write ``index/<split>.json`` into the dataset's folder."""
    path = f"{FOLDER}/{name}.json"
    data = (canonical_json(shard_index(name, split), indent=1) + "\n").encode()
    write_bytes(folder / path, data)
    return FileRecord(path=path, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
