"""Slide-seq pucks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from bundles.st import write_text

BARCODES = ("ACGTACGTACGTAC", "TTGGACGTTTCAAT", "CACGGCCATATTGC", "NNGGACGTTTCAAA")


def write_slideseq(folder: Path, *, layout: str = "mapped", suffix: str = "", lost: int = 0) -> Path:
    """Write a puck and return its folder.

    Parameters
    ----------
    layout
        ``mapped``: R's two CSV files; ``puck``: the pipeline's tab-separated matrix and ``barcode,x,y``; ``bare``:
        locations without header.
    suffix
        ".gz" for packed files.
    lost
        How many beads have no location.
    """
    counts = np.random.default_rng(1).poisson(1.0, (3, len(BARCODES))) + 1
    genes = ("Actb", "Sntg1", "Gad1")
    beads = [f"{code},{100.5 * i},{7.25 * i}" for i, code in enumerate(BARCODES)][lost:][::-1]
    if layout == "mapped":
        table = [",".join(["", *(f'"{code}"' for code in BARCODES)])]
        table += [",".join([f'"{gene}"', *map(str, row)]) for gene, row in zip(genes, counts.tolist(), strict=True)]
        write_text(folder / f"MappedDGEForR.csv{suffix}", "\r\n".join(table) + "\r\n")
        write_text(folder / f"BeadLocationsForR.csv{suffix}", "\n".join(["barcodes,xcoord,ycoord", *beads]) + "\n")
    else:
        table = ["\t".join(["GENE", *BARCODES])]
        table += ["\t".join([gene, *map(str, row)]) for gene, row in zip(genes, counts.tolist(), strict=True)]
        write_text(folder / f"Puck.digital_expression.txt{suffix}", "\n".join(table) + "\n")
        header = ["barcode,x,y"] if layout == "puck" else []
        write_text(folder / f"Puck_bead_locations.csv{suffix}", "\n".join([*header, *beads]) + "\n")
    return folder
