"""Normalized values of dense counts: windows, and the batches that a reader asks for.

No compiler is imported before counts are normalized.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpatch.kernels.formula import NONE, Formula, spot_scale


@dataclass(frozen=True, kw_only=True, eq=False)
class Residuals:
    """Pearson residuals of a slide, clipped; a normalization that does not keep zero zero.

    Attributes
    ----------
    shares
        (genes,) float64, the expected share of a spot's total that is the gene's; 0 gives 0 everywhere.
    theta
        Overdispersion.
    clip
        Largest absolute value.
    """

    shares: NDArray[np.float64]
    theta: float
    clip: float

    def of_genes(self, positions: NDArray[np.integer[Any]]) -> Residuals:
        """Return the residuals of some genes of the slide; position -1 (pad) becomes 0 everywhere."""
        shares = np.where(positions < 0, 0.0, self.shares[positions])
        return Residuals(shares=shares, theta=self.theta, clip=self.clip)


Recipe = Formula | Residuals
"""A slide's normalization with every number resolved, as images and readers apply it."""


class PatchNormalizer:
    """Normalizes patches one after the other, each value computed in float64 and rounded once.

    Writers and readers of datasets use it alike, so that values computed at reading are, to the last bit, those that
    would have been stored. It holds what the loop needs between patches: one for each thread.
    """

    def __init__(self) -> None:
        self._tables: tuple[NDArray[np.float32], NDArray[Any]] | None = None

    def write(
        self, counts: NDArray[Any], totals: NDArray[np.floating[Any]], recipe: Recipe, *, out: NDArray[np.float32]
    ) -> None:
        """Write a patch's values.

        Parameters
        ----------
        counts
            (C, H, W) in C order, of an unsigned dtype; or values that are normalized already, which are floating and
            go with the method ``none``.
        totals
            (H, W), counts over all measured genes; 0 marks an empty pixel.
        recipe
            The normalization; `Residuals` are those of the C channels.
        out
            (C, H, W) float32, in C order; empty pixels are 0, and so is a channel that the slide has no count of.
        """
        if isinstance(recipe, Residuals):
            mu = recipe.shares[:, None, None] * np.asarray(totals, dtype=np.float64)
            out[...] = residuals(counts, mu, theta=recipe.theta, clip=recipe.clip)
        elif counts.dtype.kind != "u":
            if recipe.method != NONE:
                raise ValueError(f"values that are no counts cannot be normalized, by {recipe}")
            np.multiply(counts, totals > 0, out=out, dtype=np.float32, casting="same_kind")
        elif counts.size:
            self._write_counts(counts, totals, recipe, out)

    def _write_counts(
        self, counts: NDArray[Any], totals: NDArray[np.floating[Any]], formula: Formula, out: NDArray[np.float32]
    ) -> None:
        from stpatch.kernels.patches import SMALL, patch_values

        channels, pixels = counts.shape[0], totals.size
        if self._tables is None or self._tables[0].shape[1] != pixels:
            index_dtype = np.uint16 if SMALL * pixels <= 2**16 else np.uint32
            self._tables = np.empty((SMALL, pixels), np.float32), np.empty((2, pixels), index_dtype)
        table, index = self._tables
        scale = spot_scale(totals.reshape(-1), formula.target_sum)
        flat = out.reshape(channels, pixels)
        patch_values(counts.reshape(channels, pixels), scale, formula.method, table, index, flat)


def residuals(
    x: NDArray[Any] | int, mu: NDArray[np.float64], *, theta: float, clip: float | NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return clipped Pearson residuals ``(x - mu) / sqrt(mu + mu**2 / theta)``; 0 where nothing is expected."""
    spread = np.sqrt(mu + mu * mu / theta)
    values = np.divide(x - mu, spread, out=np.zeros(np.broadcast_shapes(np.shape(x), mu.shape)), where=spread > 0)
    return np.clip(values, -clip, clip, out=values)
