"""Which spots and channels the network sees: a draw that depends on seed, epoch and the batch's number alone."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stpatch.seeds import generator, raw_draws

_LAST = np.uint64(2**64 - 1)


@dataclass(frozen=True, kw_only=True)
class Mask:
    """What is seen and what is hidden of a batch's P pixels.

    Attributes
    ----------
    seen
        (B, K) int64 numbers of the pixels that are seen, ascending, then any others up to K.
    real
        (B, K) bool: whether it is one of them.
    hidden
        (B, P) bool: pixels with a spot that is not seen.
    occupied
        (B, P) bool: pixels with a spot; the first of a sample that has none, so that attention looks at something.
    shown
        (B, C) bool: channels whose values are seen at the pixels that are seen.
    """

    seen: torch.Tensor
    real: torch.Tensor
    hidden: torch.Tensor
    occupied: torch.Tensor
    shown: torch.Tensor

    def to(self, device: Any) -> Mask:
        """Return the mask on a device."""
        return Mask(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})


def see_all(occupied: torch.Tensor, measured: torch.Tensor) -> Mask:
    """Return the mask that hides nothing; arguments as for `draw_mask`."""
    return draw_mask(occupied, measured, spots=0, channels=0, seed=0, epoch=0, position=0)


def draw_mask(
    occupied: torch.Tensor,
    measured: torch.Tensor,
    *,
    spots: float,
    channels: float,
    seed: int,
    epoch: int,
    position: int,
) -> Mask:
    """Hide a share of each sample's spots and of its measured channels, but leave one at least.

    Drawn from a stream of its own for every batch of an epoch, so that neither ranks nor workers nor a restart change
    it, and a checkpoint needs no state of a generator.

    Parameters
    ----------
    occupied
        (B, H, W) bool.
    measured
        (B, C) bool.
    spots, channels
        The shares that are hidden, from 0 (all are seen) to 1.
    seed, epoch, position
        Which batch of which epoch: `TensorBatch.epoch` and `position`.
    """
    full: NDArray[np.bool_] = occupied.flatten(1).cpu().numpy()
    chosen = _draw(full, spots, generator(seed, "mask", epoch, position))
    shown = _draw(measured.cpu().numpy(), channels, generator(seed, "mask", "channels", epoch, position))
    hidden = full & ~chosen
    empty = ~full.any(axis=1)
    full, chosen = full.copy(), chosen.copy()
    full[empty, 0] = chosen[empty, 0] = True
    kept = chosen.sum(axis=1)
    seen = np.argsort(~chosen, axis=1, kind="stable")[:, : kept.max()]
    return Mask(
        seen=torch.from_numpy(np.ascontiguousarray(seen)),
        real=torch.from_numpy(np.arange(kept.max()) < kept[:, None]),
        hidden=torch.from_numpy(hidden),
        occupied=torch.from_numpy(full),
        shown=torch.from_numpy(shown),
    )


def _draw(there: NDArray[np.bool_], ratio: float, source: np.random.Generator) -> NDArray[np.bool_]:
    """Return (B, N) bool: what is left of what is there when a share is taken away, and one at least."""
    draws = raw_draws(source, there.size).reshape(there.shape)
    order = np.argsort(
        np.where(there, draws >> np.uint64(1), _LAST), axis=1, kind="stable"
    )  # what is there comes first
    count = there.sum(axis=1)
    kept = np.minimum(np.maximum(count - np.floor(count * ratio).astype(np.int64), 1), count)
    chosen = np.zeros_like(there)
    np.put_along_axis(chosen, order, np.arange(there.shape[1]) < kept[:, None], axis=1)
    return chosen
