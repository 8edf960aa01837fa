"""The bench's figures as one table of ratios, at most 120 columns wide."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median
from typing import Any

PUBLISHED = {"visium": 21.0, "hd": 13.0}
"""Crops a second of the paper's code on these corpora, the better figure where it varies."""

TARGETS = {"visium-patch": 600, "hd-patch": 2_500, "visium-panel": 3_000, "hd-panel": 6_000}
BUILD_TARGETS = {"patch": 25, "panel": 100}
"""How many times the paper's patches a second a whole build makes."""
COMMANDS = {"--help": 0.3, "check, one slide": 1.5, "build, up to date": 1.5}
WORKERS_TARGET, SHARE_TARGET = 1.8, 0.4
WIDTHS = (42, 12, 48, 10)

LARGE_STAGES = ("ingest", "normalize", "shard")
"""Those that hold a slide."""

Row = tuple[str, str, str, str]


def table(found: dict[str, Any]) -> str:
    """Return all figures: what, measured, against what, ratio; a block a part."""
    lines = [_line(("what", "measured", "against", "ratio"))]
    for part, rows in BLOCKS.items():
        if part in found:
            took = found["took"][part]
            title = f"-- {part} ({took['seconds']:.0f} s, load before {took['load before']:.1f}) "
            lines += ["", title.ljust(sum(WIDTHS) + 6, "-")]
            lines += [_line(row) for row in rows(found[part])]
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    machine = found["machine"]
    return "\n".join([*lines, "", versions, f"{machine['processors']} processors, {machine['processor']}"])


def _line(row: Row) -> str:
    return "  ".join(_cut(text, width).ljust(width) for text, width in zip(row, WIDTHS, strict=True)).rstrip()


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."


def _stages(part: dict[str, Any]) -> Iterator[Row]:
    for name, runs in part["configs"].items():
        shard = runs["shard"]
        wall, cpu = shard["samples"] / shard["seconds"], shard["samples"] / shard["cpu"]
        target, paper = TARGETS[name], PUBLISHED[name.split("-")[0]]
        yield (f"{name}: patches/s", f"{wall:,.0f}", f"target {target:,}", f"{wall / target:.2f}")
        yield ("  a processor second", f"{cpu:,.0f}", f"target {target:,}", f"{cpu / target:.2f}")
        yield ("", f"{wall:,.0f}", f"the paper's code {paper:g}", f"{wall / paper:.0f}")
        whole = sum(run["seconds"] for run in runs.values())
        for stage, run in runs.items():
            share = run["seconds"] / whole
            against = f"all stages {whole:.2f}; peak {run['peak'] / 1e6:.0f} MB, start-up {run['startup']:.1f} s"
            yield (f"  {stage}, s", f"{run['seconds']:.2f}", against, f"{share:.0%}")
    first, second = part["first run"], part["second run"]
    yield ("first run ever, tiny dataset, s", f"{first:.1f}", f"second run {second:.1f}", f"{first / second:.1f}")


def _kernels(part: dict[str, Any]) -> Iterator[Row]:
    machine = part["machine"]
    for name, value in machine.items():
        yield (name, f"{value:.2f}", "", "")
    for kind in PUBLISHED:
        for name, pair in part[kind]["kernels"].items():
            ratio = pair["plain us"] / pair["ours us"]
            yield (f"{kind}: {name}, us", f"{pair['ours us']:,.1f}", f"plain {pair['plain us']:,.1f}", f"{ratio:.1f}")
        size = part[kind]["frame bytes"]
        plain = f"numcodecs' default {size['plain']:,.0f}"
        yield (f"{kind}: frame, bytes", f"{size['ours']:,.0f}", plain, f"{size['plain'] / size['ours']:.2f}")
        for rule, limits in part[kind]["limits"].items():
            shares = " ".join(f"{name} {limits[f'{name} us']:.0f}" for name in ("copy", "codec", "sha256", "disk"))
            against = f"limits {limits['sum us']:.0f}: {shares}"
            ratio = limits["shard us"] / limits["sum us"]
            rate, prototype = 1e6 / limits["shard cpu us"], part[kind]["prototype"][rule]
            yield (
                f"{kind}-{rule}: patches a processor s",
                f"{rate:,.0f}",
                f"prototype in memory {prototype:,.0f}",
                f"{rate / prototype:.2f}",
            )
            yield (f"{kind}-{rule}: shard stage, us a patch", f"{limits['shard us']:,.0f}", against, f"{ratio:.1f}")


def _workers(part: dict[str, Any]) -> Iterator[Row]:
    both = f"after all {part['two processors, after']:.2f}; 2 at best"
    yield ("the machine: two processes, times one", f"{part['two processors']:.2f}", both, "")
    for name, run in part["configs"].items():
        one, two = run["samples"] / median(run["one"]), run["samples"] / median(run["two"])
        best = min(run["one"]) / min(run["two"])
        against = f"one {one:,.0f}; of the best runs {best:.2f}; target {WORKERS_TARGET}"
        yield (f"{name}: two workers, patches/s", f"{two:,.0f}", against, f"{run['two to one']:.2f}")


def _commands(part: dict[str, Any]) -> Iterator[Row]:
    for name, run in part.items():
        target = COMMANDS[name]
        yield (f"stpatch {name}, s", f"{run['seconds']:.2f}", f"target {target}", f"{run['seconds'] / target:.2f}")


def _memory(part: dict[str, Any]) -> Iterator[Row]:
    for name, run in part["configs"].items():
        large = {stage: run["stages"][stage] for stage in LARGE_STAGES}
        others = max(peak for stage, peak in run["stages"].items() if stage not in LARGE_STAGES)
        for stage, peak in {**large, "other stages": others}.items():
            against = f"1.5 x {run['csr'] / 1e6:.0f} (CSR) + 400 = {run['bound'] / 1e6:.0f}"
            yield (f"{name}: {stage}, peak MB", f"{peak / 1e6:.0f}", against, f"{peak / run['bound']:.2f}")
    few, many = part["small slides"].items()
    against = f"{few[0]} slides {few[1]['peak'] / 1e6:.0f}"
    ratio = many[1]["peak"] / few[1]["peak"]
    yield (f"build of {many[0]} slides, peak MB", f"{many[1]['peak'] / 1e6:.0f}", against, f"{ratio:.2f}")
    rates = [run["samples"] / run["seconds"] for run in (few[1], many[1])]
    against = f"{few[0]} slides {rates[0]:,.0f}"
    yield (f"build of {many[0]} slides, patches/s", f"{rates[1]:,.0f}", against, f"{rates[1] / rates[0]:.2f}")


def _build(part: dict[str, Any]) -> Iterator[Row]:
    for name, run in part.items():
        kind, rule = name.split(",")[0].split("-")
        rate, target = run["samples"] / (run["seconds"] + run["validate"]), BUILD_TARGETS[rule]
        against = f"the paper's code {PUBLISHED[kind]:g}; target {target} times"
        yield (f"{name}: patches/s", f"{rate:,.0f}", against, f"{rate / PUBLISHED[kind]:.0f}")
        stages = {**run["stages"], "validate": run["validate"]}
        whole = sum(stages.values())
        most = sorted(stages.items(), key=lambda item: -item[1])[:3]
        shares = ", ".join(f"{stage} {seconds / whole:.0%}" for stage, seconds in most)
        peak = f"peak {run['peak'] / 1e6:.0f} MB"
        yield (f"  {run['samples']:,} patches, {peak}, s", f"{whole:.2f}", shares, "")
        if "auto" in name:
            continue  # the workers' processor time is not the command's own
        share = (run["cut cpu"] + run["encode cpu"]) / run["cpu"]
        against = f"whole build {run['cpu']:.2f}; target {SHARE_TARGET:.0%}"
        yield ("  cut and encode, processor s", f"{share * run['cpu']:.2f}", against, f"{share:.0%}")


def _peers(part: dict[str, Any]) -> Iterator[Row]:
    for kind, run in part["ours"].items():
        yield (f"stpatch {kind}, panel: cut and stored/s", f"{run['cut and stored/s']:,.0f}", "", "")
        yield (f"stpatch {kind}, panel: read at random/s", f"{run['read/s']:,.0f}", "", "")
    for row in part["rows"]:
        name = f"{row['peer']} {row.get('version', '')} {row.get('corpus', '')}"
        if "skipped" in row:
            yield (name, "skipped", row["skipped"], "")
            continue
        ours = part["ours"][row["corpus"]]
        ratio = "/".join(f"{ours[key] / row['samples/s']:.0f}" for key in ("cut and stored/s", "read/s"))
        yield (f"{name}: samples/s", f"{row['samples/s']:,.0f}", row["what"], ratio)
    yield ("", "", "ratio: stpatch cut and stored / read, to a peer", "")


def _growth(part: dict[str, Any]) -> Iterator[Row]:
    for axis, run in part.items():
        for row in run["points"]:
            rates = f"{row['samples/cpu s']:,.0f} /cpu s, {row['work MB/cpu s']:,.0f} MB/cpu s"
            against = f"{rates}, peak {row['shard peak MB']:,.0f} MB"
            yield (f"{axis} {row['point']:,}: patches/s", f"{row['samples/s']:,.0f}", against, "")
        against = "power of the number; " + ("-1 at best" if axis == "workers" else "0: as the work, above: faster")
        yield (f"{axis}: time a byte of work", f"{run['exponent']:+.2f}", against, "")


def _reading(part: dict[str, Any]) -> Iterator[Row]:
    for name, found in part.items():
        for way, micros in found["us"].items():
            against = f"the codec alone {found['us']['codec']:.0f}"
            yield (f"{name}: {way}, us per patch", f"{micros:.0f}", against, f"{found['of codec'][way]:.2f}")


def _croppable(part: dict[str, Any]) -> Iterator[Row]:
    for name, found in part["rates"].items():
        micros = found["us"]
        for way in ("slides, counts", "slides, normalized"):
            for other in (way.replace("slides", "shards"), "shard stage", "dense array, counts"):
                if other in micros:
                    ratio = micros[other] / micros[way]
                    rate, against = f"{1e6 / micros[way]:,.0f}", f"{other} {1e6 / micros[other]:,.0f}"
                    yield (f"{name}: {way}, patches/cpu s", rate, against, f"{ratio:.2f}")
        yield (f"{name}: a slide open", f"{found['open MB']:,.0f} MB", f"{found['open s']:.2f} s of processor", "")
    for point, found in part["growth"].items():
        for way, micros in found["us"].items():
            yield (f"{point}: {way}, us per patch", f"{micros:,.0f}", f"of {found['samples']:,} patches", "")
    for name, sizes in part["bytes"].items():
        for other, size in sizes.items():
            if other != "slides":
                ours = sizes["slides"]
                yield (f"{name}: MB", f"{ours:,.2f}", f"{other} {size:,.2f}", f"{size / ours:.2f}")


BLOCKS = {
    "stages": _stages,
    "kernels": _kernels,
    "workers": _workers,
    "commands": _commands,
    "memory": _memory,
    "build": _build,
    "peers": _peers,
    "growth": _growth,
    "reading": _reading,
    "croppable": _croppable,
}
