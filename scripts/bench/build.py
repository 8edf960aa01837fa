"""Whole builds: from .h5ad files to the validated dataset, and where their time goes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from scripts.bench.corpus import first_rows, slide_ids
from scripts.bench.stages import (
    STAGES,
    dataset_bytes,
    folders_of,
    forget,
    measure_command,
    measure_stage,
    rule_of,
    samples_of,
    warm_config,
    write_config,
)


def measure_build(config: Path) -> dict[str, Any]:
    """Build from nothing, and validate; the caller sees to it that the compiled loops are in their cache.

    Returns
    -------
    dict
        `seconds`, `cpu` and `peak` of the build; `validate`, its seconds; `stages`, wall seconds by stage as the
        receipts' times tell them, start-up apart; `cut cpu` and `encode cpu`, processor seconds of the shard stage's
        two kernels, from a second run of that stage; `samples`, `bytes`.
    """
    forget(config)
    begun = time.time()
    built = measure_command("build", str(config), "--quiet", repeats=1)
    stages = times_of(config, begun, built["seconds"])
    output = folders_of(config)[0]
    checked = measure_command("validate", str(output), repeats=1)
    size = dataset_bytes(config)
    shard = measure_stage(config, "shard")
    return {
        **built,
        "validate": checked["seconds"],
        "stages": stages,
        "cut cpu": shard["cut cpu"],
        "encode cpu": shard["encode cpu"],
        "shard cpu": shard["cpu"],
        "samples": samples_of(config),
        "bytes": size,
    }


def times_of(config: Path, begun: float, seconds: float) -> dict[str, float]:
    """Return the wall seconds of each stage of a build that has just ended: from last receipt to last receipt.

    The first stage's include the start-up of the command; `end` is what comes after the last receipt.
    """
    receipts = folders_of(config)[1] / "receipts"
    ends = [max(path.stat().st_mtime for path in (receipts / stage).glob("*.json")) for stage in STAGES]
    starts = [begun, *ends]
    found = {stage: end - start for stage, start, end in zip(STAGES, starts, ends, strict=False)}
    return {**found, "end": begun + seconds - ends[-1]}


def measure_small_slides(folder: Path, sheet: Path, *, few: int) -> dict[str, dict[str, Any]]:
    """Build a few slides of a corpus of small ones, then all of them: memory must not grow with their number."""
    found = {}
    for count in (few, len(slide_ids(sheet))):
        config = write_config(folder, f"small-{count}", first_rows(sheet, count), shards={"patches": 256})
        warm_config(folder, rule_of(config))
        forget(config)
        found[str(count)] = measure_command("build", str(config), "--quiet", repeats=1)
        found[str(count)]["samples"] = samples_of(config)
        forget(config)
    return found
