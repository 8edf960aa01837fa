"""The bench's figures as one table of ratios and one chart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

PUBLISHED = {"visium": 21.0, "hd": 13.0}
"""Crops a second of the paper's code on these corpora, the better figure where it varies."""

TARGETS = {"visium-patch": 600, "hd-patch": 2_500, "visium-panel": 3_000, "hd-panel": 6_000}
COMMANDS = {"--help": 0.3, "check, one slide": 1.5, "build, up to date": 1.5}

Row = tuple[str, str, str, str]


def table(found: dict[str, Any]) -> str:
    """Return all figures: what, measured, against what, ratio."""
    rows: list[Row] = [("what", "measured", "against", "ratio")]
    for part in (_stages, _kernels, _workers, _commands, _memory, _build, _peers, _growth):
        rows += part(found)
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:], "", str(found["versions"]), str(found["machine"])])


def _stages(found: dict[str, Any]) -> list[Row]:
    rows = []
    for name, runs in found.get("stages", {}).items():
        shard = runs["shard"]
        wall, cpu = shard["samples"] / shard["seconds"], shard["samples"] / shard["cpu"]
        target, paper = TARGETS[name], PUBLISHED[name.split("-")[0]]
        rows.append((f"shard {name}, patches/s", f"{wall:,.0f}", f"target {target:,}", f"{wall / target:.2f}"))
        rows.append((f"shard {name}, patches/processor s", f"{cpu:,.0f}", f"target {target:,}", f"{cpu / target:.2f}"))
        rows.append((f"shard {name}, patches/s", f"{wall:,.0f}", f"the paper's code {paper:g}", f"{wall / paper:.0f}"))
        whole = sum(run["seconds"] for run in runs.values())
        for stage, run in runs.items():
            share = run["seconds"] / whole
            rows.append((f"  {stage} {name}, s", f"{run['seconds']:.2f}", f"all stages {whole:.2f}", f"{share:.0%}"))
    return rows


def _kernels(found: dict[str, Any]) -> list[Row]:
    rows = []
    for kind, part in found.get("kernels", {}).items():
        for name, pair in part["kernels"].items():
            ratio = pair["plain us"] / pair["ours us"]
            against = f"NumPy and SciPy {pair['plain us']:,.0f}"
            rows.append((f"{name} {kind}, us a patch", f"{pair['ours us']:,.0f}", against, f"{ratio:.0f}"))
        for name, value in part["limits"].items():
            rows.append((f"limit {kind}: {name}", f"{value:,.1f}", "", ""))
    return rows


def _workers(found: dict[str, Any]) -> list[Row]:
    return [
        (f"two workers {name}", f"{part['one / two']:.2f}", "target 1.8", f"{part['one / two'] / 1.8:.2f}")
        for name, part in found.get("workers", {}).items()
    ]


def _commands(found: dict[str, Any]) -> list[Row]:
    return [
        (
            f"stpatch {name}, s",
            f"{run['seconds']:.2f}",
            f"target {COMMANDS[name]}",
            f"{run['seconds'] / COMMANDS[name]:.2f}",
        )
        for name, run in found.get("commands", {}).items()
    ]


def _memory(found: dict[str, Any]) -> list[Row]:
    rows = []
    for name, part in found.get("memory", {}).items():
        against = f"1.5 CSR + 400 MB = {part['bound'] / 1e6:.0f}" if "bound" in part else ""
        ratio = f"{part['peak'] / part['bound']:.2f}" if "bound" in part else ""
        rows.append((f"peak {name}, MB", f"{part['peak'] / 1e6:.0f}", against, ratio))
    return rows


def _build(found: dict[str, Any]) -> list[Row]:
    rows = []
    for name, run in found.get("build", {}).items():
        rate, paper = run["samples"] / (run["seconds"] + run["validate"]), PUBLISHED[name.split("-")[0]]
        rows.append((f"build {name}, patches/s", f"{rate:,.0f}", f"the paper's code {paper:g}", f"{rate / paper:.0f}"))
    return rows


def _peers(found: dict[str, Any]) -> list[Row]:
    rows = []
    for name, run in found.get("peers", {}).items():
        if "skipped" in run:
            rows.append((f"peer {name}", "skipped", run["skipped"], ""))
        else:
            rows.append((f"peer {name} {run['version']}, samples/s", f"{run['samples/s']:,.0f}", run["what"], ""))
    return rows


def _growth(found: dict[str, Any]) -> list[Row]:
    return [
        (
            f"growth, {row['axis']} {row['point']}: patches/s",
            f"{row['samples/s']:,.0f}",
            f"{row['samples']} patches, peak {row['shard peak MB']:.0f} MB, of it mapped {row['shard mapped MB']:.0f}",
            f"ingest {row['ingest s']:.1f} s, {row['ingest peak MB']:.0f} MB",
        )
        for row in found.get("growth", [])
    ]


def chart(found: dict[str, Any], path: Path) -> None:
    """Draw the shard stage against its targets and the growth of its rate."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    axes = list(dict.fromkeys(row["axis"] for row in found.get("growth", [])))
    figure, panels = plt.subplots(1, 1 + len(axes), figsize=(4 * (1 + len(axes)), 3.5), squeeze=False)
    first = panels[0][0]
    names = list(found.get("stages", {}))
    rates = [found["stages"][name]["shard"]["samples"] / found["stages"][name]["shard"]["seconds"] for name in names]
    first.bar(names, rates, label="shard stage")
    first.bar(names, [PUBLISHED[name.split("-")[0]] for name in names], label="the paper's code", width=0.4)
    first.scatter(names, [TARGETS[name] for name in names], color="black", marker="_", s=300, label="target", zorder=3)
    first.set_yscale("log")
    first.set_ylabel("patches/s")
    first.tick_params(axis="x", rotation=30)
    first.legend(fontsize="small")
    for panel, axis in zip(panels[0][1:], axes, strict=True):
        rows = [row for row in found["growth"] if row["axis"] == axis]
        panel.plot([row["point"] for row in rows], [row["samples/s"] for row in rows], marker="o")
        panel.set_yscale("log")
        panel.set_title(axis, fontsize="medium")
        panel.set_ylabel("patches/s")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
