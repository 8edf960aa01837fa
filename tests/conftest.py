"""Fixtures that all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("stpatch", deadline=None)
settings.load_profile("stpatch")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Return the folder of real slides: ``STPATCH_DATA`` or ``../shared/data``; tests that need it skip without it."""
    folder = Path(os.environ.get("STPATCH_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not (folder / "README.md").is_file():
        pytest.skip("no real slides here (set STPATCH_DATA)")
    return folder
