"""Batches as torch tensors: what they hold, and how they are made of samples by number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from stpatch.dataset.augment import Arrays, Augment, Symmetry, check_symmetry
from stpatch.dataset.batch import Batch
from stpatch.dataset.reader import Dataset
from stpatch.errors import ConfigError

_INTEGERS = {"uint16": np.int32, "uint32": np.int64}
"""Counts go to torch as signed integers: it has few operations on unsigned ones."""


@dataclass(frozen=True, kw_only=True)
class TensorBatch:
    """Samples as tensors, the batch on the first axis.

    Attributes
    ----------
    x
        (B, C, H, W): float32, or the counts as int32 (int64 where they are stored as uint32).
    totals
        (B, H, W) float32.
    occupied
        (B, H, W) bool: the pixel holds a spot.
    genes
        (B, C) int32 gene ids.
    measured
        (B, C) bool: the slide measured the channel's gene; elsewhere a 0 does not mean absence.
    valid
        (B,) bool: False for samples that fill up the last batches of an epoch; see `Order.last`.
    numbers
        (B,) int64 sample numbers in the dataset.
    labels, further
        By name; labels are (B, H, W) int16.
    keys
        (B,) texts.
    epoch, position
        The epoch, and the batch's number in its global sequence.
    """

    x: torch.Tensor
    totals: torch.Tensor
    occupied: torch.Tensor
    genes: torch.Tensor
    measured: torch.Tensor
    valid: torch.Tensor
    numbers: torch.Tensor
    labels: Mapping[str, torch.Tensor]
    further: Mapping[str, torch.Tensor]
    keys: list[str]
    epoch: int
    position: int

    def to(self, device: Any, *, non_blocking: Any = True) -> TensorBatch:
        """Return the batch on a device."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> TensorBatch:
        """Return the batch in pinned memory; `DataLoader` calls it where ``pin_memory`` is set."""
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, change: Any) -> TensorBatch:
        changed: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, torch.Tensor):
                changed[field.name] = change(value)
            elif isinstance(value, Mapping):
                changed[field.name] = {name: change(tensor) for name, tensor in value.items()}
        return replace(self, **changed)


class TensorMaker:
    """Makes tensors of samples by number: reads, changes, converts."""

    def __init__(self, dataset: Dataset, augment: Augment) -> None:
        self.dataset = dataset
        self.augment = augment
        if dataset.request.leaves_out_zeros:
            raise ConfigError(
                "tensors are made of dense samples", where="stpatch.open", found="values='sparse'",
                hint="open the dataset with values='normalized', or expand its sparse batches by stpatch.torch.densify",
            )  # fmt: skip

    def make(
        self,
        numbers: NDArray[np.int64],
        *,
        valid: NDArray[np.bool_],
        epoch: int,
        position: int,
        places: NDArray[np.int64] | None,
    ) -> TensorBatch:
        """Return the samples of some numbers; `epoch` and `places` as in `Augment.apply`."""
        batch = self.dataset.at_epoch(epoch).batch(numbers)
        arrays = self.augment.apply(self._arrays(batch), epoch=epoch, numbers=numbers, places=places)
        images = {name: _tensor(image) for name, (image, _, _) in arrays.images.items()}
        totals = images.pop("totals")
        return TensorBatch(
            x=_tensor(arrays.x),
            totals=totals,
            occupied=totals > 0,
            genes=_tensor(arrays.genes),
            measured=_tensor(arrays.measured),
            valid=_tensor(valid),
            numbers=_tensor(numbers),
            labels={name: images[f"label_{name}"] for name in batch.labels},
            further={name: images.get(name, _tensor(array)) for name, array in batch.further.items()},
            keys=batch.keys,
            epoch=epoch,
            position=position,
        )

    def _arrays(self, batch: Batch) -> Arrays:
        images = {"totals": (batch.totals, 1, 2)} | {f"label_{name}": (a, 1, 2) for name, a in batch.labels.items()}
        for plane in self.dataset.manifest.layout.further:
            if {"row", "col"} <= set(plane.dims):
                row, col = plane.dims.index("row") + 1, plane.dims.index("col") + 1
                images[plane.name] = (batch.further[plane.name], row, col)
        return Arrays(x=batch.x, genes=batch.genes, measured=batch.measured, images=images)


def tensor_maker(
    dataset: Dataset,
    seed: int,
    symmetry: Symmetry,
    symmetry_check: Literal["on", "off"],
    channels: int | None,
    pad_channels: int | None,
) -> TensorMaker:
    """Return what makes tensors of a dataset's samples, once the changes are known to be possible."""
    augment = Augment(
        seed=seed,
        symmetry=symmetry,
        channels=channels,
        pad_channels=pad_channels,
        pad_id=dataset.manifest.pad_id,
    )
    if symmetry_check not in ("on", "off"):
        raise ConfigError("unknown symmetry_check", found=symmetry_check, expected="on or off")
    check_symmetry(symmetry, dataset, strict=symmetry_check == "on")
    return TensorMaker(dataset, augment)


def _tensor(array: NDArray[Any]) -> torch.Tensor:
    """Return a tensor with memory of its own or of an array that may be written."""
    array = np.ascontiguousarray(array, dtype=_INTEGERS.get(array.dtype.name, array.dtype))
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def shared_numbers(count: int) -> torch.Tensor:
    """Return (count,) int64 zeros in memory that this process and its workers, forked or spawned, have in common."""
    zeros: Any = torch.zeros(count, dtype=torch.int64)
    shared: torch.Tensor = zeros.share_memory_()
    return shared
