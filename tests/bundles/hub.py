"""What keeps Hugging Face datasets to a folder of its own, without a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


def keep_to_itself(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the package ``datasets``, or skip the test; its caches are in `folder`, and it asks no server."""
    datasets = pytest.importorskip("datasets", reason="the package datasets is not installed")
    for name in ("HF_DATASETS_CACHE", "HF_MODULES_CACHE"):
        monkeypatch.setattr(datasets.config, name, str(folder / name.lower()), raising=False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True, raising=False)
    datasets.disable_progress_bars()
    return datasets
