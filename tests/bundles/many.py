"""A corpus of many tiny slides, for tests of how units are shared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bundles.corpus import write_config
from bundles.h5ad import write_h5ad


def write_many(folder: Path, count: int, *, bad: tuple[int, ...] = (), **sections: dict[str, Any]) -> Path:
    """Write slides S00, S01, ... of a donor each, samplesheet and config; those of `bad` are no slides.

    Returns
    -------
    Path
        The config.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = ["slide_id,path,platform,donor"]
    for i in range(count):
        path = write_h5ad(folder / f"s{i:02d}.h5ad", rows=4, columns=5, n_genes=9, seed=i)
        if i in bad:
            spoil(path)
        rows.append(f"S{i:02d},{path.name},h5ad,d{i}")
    (folder / "slides.csv").write_text("\n".join(rows) + "\n")
    return write_config(folder, **sections)


def spoil(path: Path) -> None:
    """Damage a slide's matrix, which is seen when it is read, and not from its header."""
    import h5py

    with h5py.File(path, "r+") as file:
        file["X/indices"][0] = 10_000  # no such gene
