"""The bytes of whole datasets, against digests that are kept: nothing changes them unnoticed.

What is fixed, and what cannot be:

- Every file of every dataset of configs.yaml has its SHA-256 in digests.json: shards, indexes and the card as they
  are; Parquet tables, ``zarr.json`` and ``manifest.json`` by their content, as other libraries' versions decide over
  their bytes (see `datasets.portable_digests`). Where the libraries and the slides are those that digests.json was
  made with, these files' bytes are compared too, the manifest's all but ``versions``.
- Blosc frames depend on c-blosc and its LZ4, which numcodecs brings: a failure names the libraries that differ.
- The simulated slides are made with NumPy's exp, log1p and cos, whose last place differs between CPUs and versions. A
  count would change only where a uniform draw lies within that of a bound: not to be expected in these few million.
- Normalized values are machine independent where the project's own loops make them (``collisions: mean``), or where
  IEEE fixes every operation: square roots, totals, Pearson residuals. The logarithms of a patch's counts
  (``values: normalized`` with ``log1p_total`` and collisions ``sum``) are NumPy's, and may differ in the last place;
  so no dataset here holds them. Panel rules use NumPy's logarithms only to rank genes.

Renewing: ``PYTHONPATH=tests python -m golden.renew``. Whoever changes bytes raises the version of stpatch and says so
in CHANGELOG.md.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from commands import built
from golden.datasets import (
    CONFIGS,
    DIGESTS,
    build,
    differences,
    exact_digests,
    files_below,
    inputs,
    portable_digests,
    slides_digest,
    versions,
    write_slides,
)

GOLDEN: dict[str, Any] = json.loads(DIGESTS.read_text())
COVERED = {
    "channels": ("scope", "method", "across_slides"),
    "crop": ("unit", "method", "edge"),
    "grid": ("method", "collisions"),
    "normalize": ("method",),
    "shards": ("format", "encoding", "values", "dtype"),
}
"""Keys of which some dataset has every choice."""


@pytest.fixture(scope="session")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_slides(tmp_path_factory.mktemp("golden"))


@pytest.mark.parametrize("name", CONFIGS)
def test_bytes(name: str, slides: Path, tmp_path: Path) -> None:
    assert name in GOLDEN["configs"], f"config {name} has no digests yet. {how_to_renew()}"
    dataset = build(name, tmp_path, slides)
    golden = GOLDEN["configs"][name]
    wrong = differences(golden["files"], portable_digests(dataset))
    assert not wrong, f"dataset {name} has other bytes: {wrong}. {how_to_renew()}"
    if GOLDEN["libraries"] == versions() and GOLDEN["slides"] == slides_digest(slides):
        wrong = differences(golden["exact"], exact_digests(dataset))
        assert not wrong, f"dataset {name} has the same content in other bytes: {wrong}. {how_to_renew()}"
    built("validate", dataset)  # sizes and checksums in the manifest, which the digests leave out for some files
    there = {record_of(slides / path) for path in files_below(slides)}
    assert there >= {(record["name"], record["bytes"], record["sha256"]) for record in inputs(dataset)}
    assert not [path for path in files_below(tmp_path) if "tmp" in Path(path).name], "a temporary file is left"


def test_every_digest_has_its_config() -> None:
    assert sorted(GOLDEN["configs"]) == sorted(CONFIGS), how_to_renew()


def test_the_configs_cover_what_a_config_can_choose() -> None:
    """Of the config's schema: a new choice needs a dataset here."""
    schema = json.loads(built("config", "--schema").out)
    missing = {}
    for section, keys in COVERED.items():
        fields = properties(schema, section)
        for key in keys:
            default = fields[key].get("default")
            used = {config.get(section, {}).get(key, default) for config in CONFIGS.values()}
            if gap := choices(fields[key]) - used:
                missing[f"{section}.{key}"] = sorted(gap)
    assert not missing, f"no config of configs.yaml has {missing}"


def record_of(path: Path) -> tuple[str, int, str]:
    data = path.read_bytes()
    return path.name, len(data), hashlib.sha256(data).hexdigest()


def how_to_renew() -> str:
    made, here = GOLDEN["libraries"], versions()
    others = ", ".join(f"{name} {here[name]} (was {made.get(name)})" for name in here if here[name] != made.get(name))
    return (
        f"Libraries that differ from those of digests.json: {others or 'none'}. "
        "If the change is meant: raise the version of stpatch, say in CHANGELOG.md what changed, and run "
        "`PYTHONPATH=tests python -m golden.renew`."
    )


def properties(schema: dict[str, Any], section: str) -> dict[str, Any]:
    name = schema["properties"][section]["$ref"].rpartition("/")[2]
    found: dict[str, Any] = schema["$defs"][name]["properties"]
    return found


def choices(field: dict[str, Any]) -> set[Any]:
    """Return the choices of a field, those of its alternatives included."""
    return set(field.get("enum", ())).union(*(choices(part) for part in field.get("anyOf", ())))
