"""Sparse batches as dense tensors, made on the device: a tenth of the bytes of a dense batch is moved there."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from stpatch.dataset.batch import SparseBatch
from stpatch.errors import DatasetError
from stpatch.kernels.formula import LOG1P_TOTAL, METHODS, NONE, SQRT_TOTAL


def densify(
    batch: SparseBatch,
    device: Any = "cpu",
    *,
    values: Literal["normalized", "counts"] = "normalized",
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """Return the (B, C, H, W) values of a sparse batch on a device.

    Parameters
    ----------
    batch
        Of a dataset that was opened with ``values="sparse"``.
    device
        Where the batch is expanded and normalized.
    values
        ``normalized``, by the dataset's normalization, computed in float32: equal to what ``values="normalized"`` reads
        up to its rounding. ``counts``: as stored.
    dtype
        Of the result, floating; counts above 2048 do not fit float16, and above 256 not bfloat16.

    Raises
    ------
    DatasetError
        The normalization cannot be computed from counts and totals.
    """
    method = METHODS.get(batch.method) if values == "normalized" else NONE
    if method is None:
        raise DatasetError(
            f"values cannot be normalized by {batch.method} when they are read", where="normalization.method",
            hint="build the dataset with shards.values: normalized",
        )  # fmt: skip
    size, pixels = math.prod(batch.shape), batch.shape[1] * batch.shape[2]
    lengths = _moved(np.diff(batch.indptr), device)
    samples = torch.repeat_interleave(torch.arange(len(batch), device=device), lengths)
    positions = _moved(batch.positions, device).long()
    x = _moved(batch.counts.astype(np.float32), device)
    if values == "normalized":
        totals = _moved(batch.totals, device).reshape(-1)[samples * pixels + positions % pixels]
        if method == NONE:
            x = torch.where(totals > 0, x, 0.0)
        else:
            targets = _moved(batch.target_sums.astype(np.float32), device)[samples]
            x = x * torch.where(totals > 0, targets / totals, 0.0)
            if method == LOG1P_TOTAL:
                x = torch.log1p(x)
            elif method == SQRT_TOTAL:
                x = torch.sqrt(x)
    out = torch.zeros(len(batch) * size, dtype=dtype, device=device)
    out[samples * size + positions] = x.to(dtype)
    return out.reshape(len(batch), *batch.shape)


def _moved(array: NDArray[Any], device: Any) -> torch.Tensor:
    """Return an array on the device, by way of pinned memory where that lets the copy run beside the processor."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    if torch.device(device).type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
