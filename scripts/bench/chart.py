"""The bench's figures as one picture: rates against targets, builds, kernels, peers, memory, growth."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from scripts.bench.report import PUBLISHED, TARGETS

COLUMNS = 4
OURS, THEIRS, WORK = "#2b6ca3", "#c9a227", "#8a8a8a"

Panel = Callable[[Any], None]


def draw(found: dict[str, Any], path: Path) -> None:
    """Draw a panel for each part that was measured, and one for each axis of growth."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    panels = _panels(found)
    columns = max(1, min(COLUMNS, len(panels)))
    rows = max(1, -(-len(panels) // columns))
    figure, grid = plt.subplots(rows, columns, figsize=(5.2 * columns, 3.9 * rows), squeeze=False, layout="constrained")
    for place, panel in zip(grid.flat, panels, strict=False):
        panel(place)
    for place in grid.flat[len(panels) :]:
        place.set_axis_off()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _panels(found: dict[str, Any]) -> list[Panel]:
    panels: list[Panel] = []
    if "stages" in found:
        panels.append(lambda place: _shard(place, found["stages"]["configs"]))
    if "build" in found:
        panels.append(lambda place: _build(place, found["build"]))
    if "kernels" in found:
        panels.append(lambda place: _kernels(place, found["kernels"]))
    if "peers" in found:
        panels.append(lambda place: _peers(place, found["peers"]))
    if "memory" in found:
        panels.append(lambda place: _memory(place, found["memory"]["configs"]))
    for axis, run in found.get("growth", {}).items():
        panels.append(partial(_growth, axis=axis, run=run))
    return panels


def _shard(place: Any, configs: dict[str, Any]) -> None:
    names = list(configs)
    rates = [run["shard"]["samples"] / run["shard"]["seconds"] for run in configs.values()]
    place.bar(names, rates, color=OURS, label="stpatch")
    place.bar(names, [PUBLISHED[name.split("-")[0]] for name in names], width=0.4, color=THEIRS, label="paper's code")
    place.scatter(names, [TARGETS[name] for name in names], color="black", marker="_", s=900, label="target", zorder=3)
    place.set(yscale="log", title="shard stage, patches/s", ylim=(5, None))
    _name_bars(place, names)
    place.legend(fontsize="x-small", ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.18), markerscale=0.3)


def _build(place: Any, builds: dict[str, Any]) -> None:
    names = list(builds)
    start = [0.0] * len(names)
    for stage in (*next(iter(builds.values()))["stages"], "validate"):
        parts = [{**run["stages"], "validate": run["validate"]} for run in builds.values()]
        shares = [part[stage] / sum(part.values()) for part in parts]
        place.barh(names, shares, left=start, label=stage)
        start = [left + share for left, share in zip(start, shares, strict=True)]
    place.set(title="whole build and validate: share of the time", xlim=(0, 1))
    place.tick_params(axis="y", labelsize="small")
    place.invert_yaxis()
    place.legend(fontsize="x-small", ncols=5, loc="upper center", bbox_to_anchor=(0.4, -0.08))


def _kernels(place: Any, part: dict[str, Any]) -> None:
    pairs = {f"{name}, {kind}": pair for kind in PUBLISHED for name, pair in part[kind]["kernels"].items()}
    ratios = [pair["plain us"] / pair["ours us"] for pair in pairs.values()]
    place.barh(list(pairs), [ratio - 1 for ratio in ratios], left=1, color=OURS)
    place.axvline(1, color="black", linewidth=0.8)
    place.set(xscale="log", title="kernels: times as fast as the plain version")
    place.tick_params(axis="y", labelsize="x-small")
    place.invert_yaxis()


def _peers(place: Any, part: dict[str, Any]) -> None:
    rates, colours = {}, []
    for kind, ours in part["ours"].items():
        for what, rate in ours.items():
            rates[f"stpatch, {what.removesuffix('/s')}, {kind}"] = rate
            colours.append(OURS)
        for row in part["rows"]:
            if row.get("corpus") == kind and "skipped" not in row:
                genes = ", all genes" if "all genes" in row["what"] else ""
                rates[f"{row['peer']}{genes}, {kind}"] = row["samples/s"]
                colours.append(THEIRS)
    place.barh(list(rates), list(rates.values()), color=colours)
    place.set(xscale="log", title="peers: windows of 16 x 16 a second")
    place.tick_params(axis="y", labelsize="x-small")
    place.invert_yaxis()


def _memory(place: Any, configs: dict[str, Any]) -> None:
    names = list(configs)
    place.bar(names, [max(run["stages"].values()) / 1e6 for run in configs.values()], color=OURS, label="largest stage")
    bounds = [run["bound"] / 1e6 for run in configs.values()]
    place.scatter(names, bounds, color="black", marker="_", s=900, label="bound", zorder=3)
    place.set(title="peak memory, MB", ylim=(0, None))
    _name_bars(place, names)
    place.legend(fontsize="x-small", ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.18), markerscale=0.3)


def _name_bars(place: Any, names: list[str]) -> None:
    """Write corpus and rule below each other: side by side, four names would run into one another."""
    place.set_xticks(range(len(names)), [name.replace("-", "\n") for name in names], fontsize="small")


def _growth(place: Any, axis: str, run: dict[str, Any]) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    rows = run["points"]
    places = range(len(rows))
    place.plot(places, [row["samples/s"] for row in rows], marker="o", color=OURS)
    place.set(yscale="log", title=f"{axis}: time a byte of work ~ number ^ {run['exponent']:+.2f}")
    place.title.set_fontsize("medium")
    labels = [f"{_short(row['point'])}\n{row['shard peak MB']:,.0f} MB" for row in rows]
    place.set_xticks(places, labels, fontsize="small")
    place.set_ylabel("patches/s", color=OURS)
    work = place.twinx()
    work.plot(places, [row["work MB/cpu s"] for row in rows], marker="s", linestyle="--", color=WORK)
    work.set(yscale="log")
    work.set_ylabel("MB of work a processor second", color=WORK, fontsize="small")
    for scale in (place, work):
        low, high = scale.get_ylim()
        if high < 10 * low:  # a flat line shall look flat
            middle = (low * high) ** 0.5
            scale.set_ylim(middle / 4, middle * 4)
        scale.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        scale.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        scale.yaxis.set_minor_formatter(NullFormatter())


def _short(number: int) -> str:
    return f"{number // 1000}k" if number >= 10_000 else f"{number:,}"
