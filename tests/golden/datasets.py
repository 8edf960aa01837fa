"""Datasets whose bytes are fixed: the simulated slides they are made of, their building, and their digests."""

from __future__ import annotations

import csv
import hashlib
import importlib.metadata
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml
from commands import built

from stpatch.demo import simulate

HERE = Path(__file__).parent
MANIFEST = "manifest.json"
DIGESTS = HERE / "digests.json"
CONFIGS: dict[str, dict[str, Any]] = yaml.safe_load((HERE / "configs.yaml").read_text())
LIBRARIES = ("anndata", "h5py", "numcodecs", "numpy", "pandas", "pyarrow", "scikit-misc", "scipy", "zarr")

_SHEETS: dict[str, Callable[[dict[str, str]], bool]] = {
    "whole": lambda _row: True,
    "visium": lambda row: row["slide_id"].startswith("visium"),
    "st": lambda row: row["slide_id"].startswith("st-"),
    "array": lambda row: row["slide_id"].startswith("array"),
    "mixed": lambda row: row["slide_id"].endswith("-1"),
    "given": lambda row: not row["slide_id"].startswith("visium"),
}
"""Samplesheets, by which slides are in them."""
_PARTS = {"1": "train", "2": "val", "3": "train"}
"""The split that a slide is given, by the last digit of its id."""


def write_slides(folder: Path) -> Path:
    """Simulate nine slides of three layouts and write the samplesheets beside them; return the folder."""
    simulate(folder, slides_per_layout=3, size=0.35)
    with (folder / "slides.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for name, belongs in _SHEETS.items():
        column = "split" if name == "given" else "part"
        chosen = [{**row, column: _PARTS[row["slide_id"][-1]]} for row in rows if belongs(row)]
        with (folder / f"{name}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(chosen[0]))
            writer.writeheader()
            writer.writerows(chosen)
    return folder


def build(name: str, folder: Path, slides: Path) -> Path:
    """Build a config's dataset below `folder` in this process, by one worker; return the dataset's folder."""
    sections = CONFIGS[name]
    config = {
        **sections,
        "dataset": {"name": name, "output": "out", "work_dir": "work", **sections.get("dataset", {})},
        "slides": {"sheet": str(slides / sections.get("slides", {}).get("sheet", "whole.csv"))},
        "run": {"workers": 1},
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    built("build", path, "-q")
    return folder / "out"


def portable_digests(dataset: Path) -> dict[str, str]:
    """Return the digest of every file's content as far as no other library's version decides over it.

    That is the whole file but for these:

    - Parquet holds the name and version of its writer, and pages as that version compresses them: the schema, the
      lengths of the row groups and all values, floats to the last bit, as JSON; of column ``inputs`` the names alone.
    - ``zarr.json`` is written by the zarr library: the JSON values, not their layout.
    - ``manifest.json``: without the members ``versions`` and ``fingerprint`` (which knows the bytes of the inputs), and
      without size and checksum of the files above.
    """
    return {path: _sha256(_portable(dataset / path)) for path in files_below(dataset)}


def exact_digests(dataset: Path) -> dict[str, str]:
    """Return the digests of the bytes of those files of which `portable_digests` leaves something out.

    Of the manifest all but ``versions``, which a release of stpatch changes too; its fingerprint stands by itself.
    """
    paths = [path for path in files_below(dataset) if path.endswith((".parquet", "zarr.json"))]
    manifest = _manifest(dataset / MANIFEST, without=["versions"])
    fingerprint = manifest.pop("fingerprint")
    digests = {path: _sha256((dataset / path).read_bytes()) for path in paths}
    return {**digests, MANIFEST: _sha256(_json_text(manifest)), f"{MANIFEST}: fingerprint": fingerprint}


def differences(expected: dict[str, str], found: dict[str, str]) -> str:
    """Return in words which files' digests differ, "" if none does."""
    words = {
        "differ": [path for path in expected if path in found and found[path] != expected[path]],
        "are missing": sorted(expected.keys() - found.keys()),
        "are new": sorted(found.keys() - expected.keys()),
    }
    return "; ".join(f"{', '.join(paths)} {what}" for what, paths in words.items() if paths)


def slides_digest(slides: Path) -> str:
    """Return one digest of all files of the slides, over whose bytes HDF5, zlib and anndata decide."""
    return _sha256(_json_text({path: _sha256((slides / path).read_bytes()) for path in files_below(slides)}))


def versions() -> dict[str, str]:
    """Return the versions of the libraries that may decide over bytes."""
    return {name: importlib.metadata.version(name) for name in LIBRARIES}


def files_below(folder: Path) -> list[str]:
    """Return the relative paths of all files below a folder, sorted."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def inputs(dataset: Path) -> list[dict[str, Any]]:
    """Return the records (name, bytes, sha256) of all input files in slides.parquet."""
    column = pq.read_table(dataset / "slides.parquet", columns=["inputs"])["inputs"].to_pylist()
    return [record for text in column for record in json.loads(text)]


def _portable(path: Path) -> bytes:
    if path.suffix == ".parquet":
        return _json_text(_table(path))
    if path.name == "zarr.json":
        return _json_text(json.loads(path.read_bytes()))
    if path.name == MANIFEST:
        value = _manifest(path, without=["versions", "fingerprint"])
        for record in [*value["tables"].values(), *value["files"]]:
            if record["path"].endswith((".parquet", "zarr.json")):
                del record["bytes"], record["sha256"]
        return _json_text(value)
    return path.read_bytes()


def _table(path: Path) -> dict[str, Any]:
    with pq.ParquetFile(path) as file:
        columns = file.read().to_pydict()
        groups = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        schema = [[field.name, str(field.type), field.nullable] for field in file.schema_arrow]
    if "inputs" in columns:
        columns["inputs"] = [[record["name"] for record in json.loads(text)] for text in columns["inputs"]]
    return {"schema": schema, "groups": groups, "columns": columns}


def _manifest(path: Path, *, without: list[str]) -> dict[str, Any]:
    """Return the manifest less some members; its text must be that of its values, so that no byte goes unseen."""
    text = path.read_text(encoding="utf-8")
    value: dict[str, Any] = json.loads(text)
    assert text == json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    for name in without:
        del value[name]
    return value


def _json_text(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, default=bytes.hex).encode()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
