"""A tiny corpus of slides in three vendor layouts, with samplesheet and config."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import yaml
from bundles.h5ad import write_h5ad
from bundles.st import write_st
from bundles.visium import write_visium

SHEET = """slide_id,path,platform,donor
V1,visium/V1,visium,d1
V2,visium/V2,visium,d2
A1,st/ST-cnts/A1.tsv.gz,st,d3
H1,h1.h5ad,h5ad,d4
"""


def settings(**sections: dict[str, Any]) -> dict[str, Any]:
    """Return the corpus' config; the keys of `sections` are laid over its own."""
    value: dict[str, Any] = {
        "dataset": {"name": "tiny", "output": "out"},
        "slides": {"sheet": "slides.csv"},
        "channels": {"n": 5},
        "crop": {"size": [3, 4], "min_coverage": 0},
        "split": {"by": "donor", "fractions": {"train": 0.5, "val": 0.5}},
        "shards": {"patches": 3, "mix": 2},
        "run": {"workers": 1},
    }
    for name, section in sections.items():
        value[name] = {**value.get(name, {}), **section}
    return value


def write_config(folder: Path, *, name: str = "config.yaml", **sections: dict[str, Any]) -> Path:
    """Write a config beside the corpus and return its path."""
    path = folder / name
    path.write_text(yaml.safe_dump(settings(**sections), sort_keys=False))
    return path


def write_corpus(folder: Path, **sections: dict[str, Any]) -> Path:
    """Write four slides of three platforms and four donors, samplesheet and config; return the config's path."""
    folder.mkdir(parents=True, exist_ok=True)
    write_visium(folder / "visium" / "V1", rows=7, columns=6)
    write_visium(folder / "visium" / "V2", rows=6, columns=9, matrix="mex", layout="v1", seed=1)
    write_st(folder / "st", size=(6, 7))
    write_h5ad(folder / "h1.h5ad", rows=5, columns=7, n_genes=9, seed=2)
    (folder / "slides.csv").write_text(SHEET)
    return write_config(folder, **sections)


def digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
