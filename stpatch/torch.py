"""Reading a built dataset with PyTorch; needs ``pip install 'stpatch[torch]'``.

`PatchDataset` gives one rank's batches, `PatchLoader` goes through epochs and saves where it stands, `PatchSamples`
gives single samples by number, `TensorBatch` is what a batch holds, and `densify` expands a sparse batch on a device.
"""

from __future__ import annotations

import importlib.util

from stpatch.errors import MissingExtraError

if importlib.util.find_spec("torch") is None:
    raise MissingExtraError.of("torch", needs="torch", purpose="stpatch.torch")

from stpatch.dataset.densify import densify
from stpatch.dataset.tensors import TensorBatch
from stpatch.dataset.torch import PatchDataset, PatchLoader, PatchSamples

__all__ = ["PatchDataset", "PatchLoader", "PatchSamples", "TensorBatch", "densify"]
