"""Builds the arms of configs/ablation on the same slides and splits, and prints one table of them.

    python scripts/ablation.py --sheet slides.csv --set split.by=donor
    python scripts/ablation.py                        on six simulated slides

An arm is a file: spot, slide or patch, and all genes, one panel, or genes drawn for every sample. Arms that lie in the
output folder already are not built again (their seconds are then those of looking).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq

import stpatch
from stpatch.config_file import load_config
from stpatch.dataset.manifest import read_manifest
from stpatch.demo import simulate
from stpatch.engine.graph import STAGES
from stpatch.engine.run import run_stages
from stpatch.errors import ConfigError, StpatchError
from stpatch.stages.job import Job

ARMS = Path(__file__).parents[1] / "configs" / "ablation"
TEXT_COLUMNS = 3


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One row of the table.

    Attributes
    ----------
    shape
        (channels, height, width); for whole slides the largest.
    bytes
        Of all shards, compressed.
    genes
        Different genes over all samples.
    occupied
        Share of all samples' pixels that hold a spot.
    seconds
        Of the whole build, from the raw files.
    splits
        Slide id -> split.
    """

    arm: str
    samples: int
    shape: str
    dtype: str
    bytes: int
    bytes_a_sample: int
    genes: int
    occupied: float
    seconds: float
    splits: dict[str, str]


def build_arms(
    sheet: Path, output: Path, *, arms: Sequence[Path], overrides: Sequence[str] = (), workers: int | None = None
) -> list[Arm]:
    """Build the arms, each in a folder of its own below `output`; refuse arms whose slides lie in different splits."""
    rows = [build_arm(arm, sheet, output, overrides=overrides, workers=workers) for arm in arms]
    for row in rows[1:]:
        if row.splits != rows[0].splits:
            moved = sorted(set(row.splits.items()) ^ set(rows[0].splits.items()))
            raise ConfigError(
                "two arms have different splits, so they cannot be compared",
                where=f"arms {rows[0].arm} and {row.arm}",
                found=", ".join(f"{slide_id} in {split}" for slide_id, split in moved[:6]),
                hint="give all arms the same dataset.seed and split",
            )
    return rows


def build_arm(config: Path, sheet: Path, output: Path, *, overrides: Sequence[str], workers: int | None) -> Arm:
    """Build one arm and measure it."""
    places = [f"slides.sheet={sheet.absolute()}", f"dataset.output={(output / config.stem).absolute()}"]
    job = Job(load_config(config, [*places, *overrides]))
    print(f"arm {config.stem}", file=sys.stderr)
    started = time.perf_counter()
    summary = run_stages(job, tuple(STAGES), progress=silent, workers=workers)
    seconds = time.perf_counter() - started
    if (error := summary.failed_error()) is not None:
        raise error
    return measure(config.stem, job.output, seconds=seconds)


def measure(name: str, folder: Path, *, seconds: float) -> Arm:
    """Return the row of a built arm."""
    manifest = read_manifest(folder)
    layout = manifest.layout
    slides = pq.read_table(folder / "slides.parquet", columns=["slide_id", "split"]).to_pydict()
    patches = pq.read_table(folder / "patches.parquet").to_pydict()
    sides = [
        np.array(patches.get(key, [side])) for key, side in zip(("height", "width"), layout.shape[1:], strict=True)
    ]
    pixels = np.broadcast_to(sides[0] * sides[1], manifest.patches)
    return Arm(
        arm=name,
        samples=manifest.patches,
        shape=" x ".join(map(str, layout.shape)),
        dtype=layout.dtype,
        bytes=manifest.bytes,
        bytes_a_sample=round(manifest.bytes / manifest.patches),
        genes=len(genes_covered(folder)),
        occupied=float(np.average(patches["coverage"], weights=pixels)),
        seconds=seconds,
        splits=dict(zip(slides["slide_id"], slides["split"], strict=True)),
    )


def genes_covered(folder: Path) -> set[int]:
    """Return the ids of all genes that some sample has a channel for and its slide measured."""
    covered: set[int] = set()
    manifest = read_manifest(folder)
    for split in manifest.splits:
        with stpatch.open(folder, split) as dataset:
            slide_ids = dataset.table["slide_id"].to_pylist()
            numbers: Sequence[int] = range(len(dataset))
            if dataset.panel is not None:  # the same for all samples of a slide
                numbers = [slide_ids.index(slide_id) for slide_id in dict.fromkeys(slide_ids)]
            for number in numbers:
                genes = dataset.genes(number)
                covered.update(genes[dataset.measured(number)].tolist())
    return covered - {manifest.pad_id}


def table(rows: Sequence[Arm]) -> str:
    """Return the rows as aligned text."""
    cells = [["arm", "shape", "dtype", "samples", "bytes", "bytes/sample", "genes", "occupied", "build s"]]
    for row in rows:
        numbers = [f"{number:,}" for number in (row.samples, row.bytes, row.bytes_a_sample, row.genes)]
        cells.append([row.arm, row.shape, row.dtype, *numbers, f"{row.occupied:.1%}", f"{row.seconds:.1f}"])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < TEXT_COLUMNS else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in cells
    )


@contextmanager
def silent(_stage: str, _units: int, _done: int) -> Iterator[Any]:
    """Stand for a progress bar."""
    yield SimpleNamespace(update=lambda _n: None)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sheet", type=Path, help="samplesheet of the slides; simulated slides if left out")
    parser.add_argument("--output", type=Path, default=Path("out/ablation"), help="one folder an arm goes here")
    parser.add_argument("--arms", nargs="*", metavar="ARM", help="names of arms, such as patch_panel; all if left out")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a key in every arm")
    parser.add_argument("--workers", type=int, help="worker processes; default run.workers")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    options = parser.parse_args(arguments)
    known = {path.stem: path for path in sorted(ARMS.glob("*.yaml"))}
    wanted = options.arms or list(known)
    try:
        if unknown := sorted(set(wanted) - set(known)):
            raise ConfigError(
                "there is no such arm", where="--arms", found=", ".join(unknown), expected=", ".join(known)
            )
        sheet = options.sheet
        if sheet is None:
            simulate(options.output / "demo")
            sheet = options.output / "demo" / "slides.csv"
        rows = build_arms(
            sheet,
            options.output,
            arms=[known[name] for name in wanted],
            overrides=options.set,
            workers=options.workers,
        )
    except StpatchError as error:
        print(error.block(), file=sys.stderr)
        return 2
    print(json.dumps([asdict(row) for row in rows], indent=1) if options.json else table(rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
