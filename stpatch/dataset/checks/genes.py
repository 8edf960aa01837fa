"""Rows of genes.parquet: ids, names and the panel, and moments that no counts could have."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpatch.dataset.manifest import Manifest
from stpatch.dataset.planes import LARGEST_GENE_ID
from stpatch.dataset.tables import numbers
from stpatch.errors import DatasetError

_ROUNDING = 1e-9
"""Relative error of sums of float64, with room."""


def check_ids(gene_ids: NDArray[np.int32], manifest: Manifest, *, where: Path) -> Iterator[DatasetError]:
    """Yield where gene ids are not ascending, or out of bounds; tables by id are as long as the largest one."""
    wrong = (np.diff(gene_ids) <= 0).any() or (gene_ids < 0).any() or (gene_ids > LARGEST_GENE_ID).any()
    if wrong or manifest.pad_id in gene_ids:
        yield DatasetError(
            "gene ids are wrong",
            where=where,
            found=f"{gene_ids.min(initial=0)} to {gene_ids.max(initial=0)}",
            expected=f"ascending, 0 to {LARGEST_GENE_ID}, none {manifest.pad_id}",
        )


def check_genes(genes: Any, gene_ids: NDArray[np.int32], manifest: Manifest, *, where: Path) -> Iterator[DatasetError]:
    """Yield what contradicts itself in the table, or contradicts the manifest."""
    names = genes["name"].to_pylist()
    if len(set(names)) != len(names) or "" in names:
        yield DatasetError("gene names are wrong", where=where, expected="different names, none empty")
    told = manifest.channels.get("vocabulary")
    told = told.get("genes") if isinstance(told, dict) else None
    if told not in (None, len(gene_ids)):
        yield DatasetError(
            "manifest and table disagree on the vocabulary", where=where, found=f"{len(gene_ids)} genes", expected=told
        )
    channels = manifest.layout.shape[0]
    if manifest.channels.get("n") not in (None, channels):
        yield DatasetError(
            "the manifest contradicts itself on the channels",
            where="manifest.json, key channels.n",
            found=manifest.channels.get("n"),
            expected=f"{channels}, as in tensor.shape",
        )
    positions = genes["channel"].to_pylist()
    if manifest.scope == "panel":
        yield from _check_panel(positions, channels, where=where)
    elif any(position is not None for position in positions):
        yield DatasetError("genes have channels", where=where, expected=f"none, as the scope is {manifest.scope}")
    yield from _check_moments(genes, where=where)


def _check_panel(channels: list[int | None], expected: int, *, where: Path) -> Iterator[DatasetError]:
    used = sorted(channel for channel in channels if channel is not None)
    if len(set(used)) != len(used) or (used and not 0 <= used[0] <= used[-1] < expected):
        yield DatasetError(
            "the channels of the panel are wrong",
            where=f"{where}, column channel",
            found=f"{len(used)} channels, {used[0]} to {used[-1]}",
            expected=f"different ones of 0 to {expected - 1}",
        )


def _check_moments(genes: Any, *, where: Path) -> Iterator[DatasetError]:
    """Yield moments that no counts have; the square of a sum is at most the sum of squares times their number."""
    spots, detected = (numbers(genes[name], where=where) for name in ("n_spots", "n_detected"))
    total, squares = (numbers(genes[name], where=where) for name in ("sum_counts", "sum_squared_counts"))
    variance, mean = (numbers(genes[name], where=where) for name in ("var_normalized", "mean_normalized"))
    slides = numbers(genes["n_slides"], where=where)
    finite = np.isfinite(total) & np.isfinite(squares)
    with np.errstate(over="ignore", invalid="ignore"):
        bounded = total * total <= squares * detected * (1 + _ROUNDING)
    checks = [
        ("n_slides", slides >= 0, "no negative number"),
        ("n_spots, n_detected", (detected >= 0) & (detected <= spots), "no more spots with a count than spots"),
        ("sum_counts, n_detected", finite & (total >= 0) & ((total > 0) == (detected > 0)), "a sum of the counts"),
        ("sum_squared_counts, sum_counts", finite & bounded, "a sum of squares of as many counts with this sum"),
        ("mean_normalized, var_normalized", ~((variance < 0) | np.isinf(variance) | np.isinf(mean)), "moments"),
    ]
    for columns, fine, expected in checks:
        if not fine.all():
            row = int(np.flatnonzero(~fine)[0])
            values = ", ".join(str(genes[name][row].as_py()) for name in columns.split(", "))
            yield DatasetError(
                f"a gene's {columns} cannot be", where=f"{where}, row {row}", found=values, expected=expected
            )


def check_measured_by(
    genes: Any,
    gene_ids: NDArray[np.int32],
    masks: NDArray[np.bool_],
    slides: list[dict[str, Any]],
    manifest: Manifest,
    *,
    where: Path,
) -> Iterator[DatasetError]:
    """Yield where a gene's slides and spots are not those of the slides whose masks have it.

    Parameters
    ----------
    masks
        (slides, largest id + 1) whether a slide measured a gene.
    slides
        The rows of slides.parquet.

    Notes
    -----
    A slide that gave genes and no patch is not in slides.parquet, and its note in the manifest says that it was left
    out; then there may be more of both than the masks tell, never fewer.
    """
    left_out = any("left out" in note for note in manifest.dataset.get("notes", []))
    fit_on = manifest.channels.get("fit_on", "all")
    fit = np.array([fit_on in ("all", slide["split"]) for slide in slides], bool)
    left_out |= fit_on != "all" and any(slide["split"] is None for slide in slides)
    spots = np.array([slide["spots"] for slide in slides], np.int64) * fit
    masks = masks[:, gene_ids]
    for column, found in (("n_slides", masks.sum(axis=0)), ("n_spots", spots @ masks)):
        told = numbers(genes[column], where=where)
        wrong = told < found if left_out else told != found
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            yield DatasetError(
                f"tables disagree on a gene's {column}",
                where=f"{where}, row {row}",
                found=int(told[row]),
                expected=f"{int(found[row])}, by the slides whose bit masks have it",
            )
