"""Legacy ST slides in the layouts that public data sets use."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np

GENES = ("ACTB", "ENSG00000141510.11", "TP53", "__ambiguous[A+B]", "MT-CO1")


def counts_of(n_spots: int, *, seed: int = 0) -> np.ndarray:
    """Return (spots, genes) counts; every spot has some."""
    counts = np.random.default_rng(seed).poisson(2.0, (n_spots, len(GENES)))
    counts[:, 0] += 1
    return counts


def write_text(path: Path, text: str) -> Path:
    """Write text, packed where the name ends in .gz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = text.encode()
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
    return path


def write_st(
    folder: Path,
    *,
    layout: str = "her2st",
    name: str = "A1",
    transposed: bool = False,
    separator: str = "x",
    id_name: str = "",
    adjusted: bool = False,
    checkerboard: bool = False,
    left_out: int = 0,
    unselected: int = 0,
    size: tuple[int, int] = (5, 4),
) -> Path:
    """Write a slide and return the path of its counts.

    Parameters
    ----------
    layout
        ``her2st``: counts and spots in folders side by side; ``flat``: beside each other, ``x y pixel_x pixel_y``;
        ``bare``: no spots table.
    left_out
        How many spots the spots table lacks.
    unselected
        How many have ``selected`` 0.
    size
        Spots along x and y.
    """
    places = [(x, y) for x in range(2, 2 + size[0]) for y in range(3, 3 + size[1])]
    if checkerboard:
        places = [(x, y) for x in range(1, 13) for y in range(1, 13) if (x + y) % 2 == 0]
    shift = 0.013 if adjusted else 0
    names = [f"{x + shift:g}{separator}{y - shift:g}" for x, y in places]
    counts = counts_of(len(places))
    if transposed:
        rows = [(gene, *column) for gene, column in zip(GENES, counts.T.tolist(), strict=True)]
        header = [id_name, *names]
    else:
        rows = [(spot, *row) for spot, row in zip(names, counts.tolist(), strict=True)]
        header = [id_name, *GENES]
    text = "".join("\t".join(map(str, row)) + "\n" for row in [header, *rows])
    path = folder / "ST-cnts" / f"{name}.tsv.gz" if layout == "her2st" else folder / f"{name}.tsv"
    write_text(path, text)
    listed = places[left_out:]
    if layout == "her2st":
        spots = ["x\ty\tnew_x\tnew_y\tpixel_x\tpixel_y\tselected"] + [
            f"{x}\t{y}\t{x + 0.013}\t{y - 0.013}\t{x * 250.0 + 7}\t{y * 250.0 + 11}\t{int(i >= unselected)}"
            for i, (x, y) in enumerate(listed)
        ]
        write_text(folder / "ST-spotfiles" / f"{name}_selection.tsv", "\n".join(reversed(spots[1:] + spots[:1])) + "\n")
    elif layout == "flat":
        spots = ["x,y,pixel_x,pixel_y"] + [f"{x},{y},{x * 250 + 7},{y * 250 + 11}" for x, y in listed]
        write_text(folder / f"spots_{name}.csv", "\n".join(spots) + "\n")
    return path
