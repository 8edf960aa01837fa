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


SLOW = (
    "cli/test_bad_input.py",
    "cli/test_commands.py",
    "cli/test_places.py",
    "dataset/test_cropping.py",
    "cluster",
    "dataset/test_s3.py",
    "cli/test_progress.py",
    "dataset/test_torch.py",
    "dataset/test_validate.py",
    "engine",
    "expression/test_scanpy.py",
    "golden",
    "kernels/test_registry.py",
    "paper",
    "slides/test_as_downloaded.py",
    "slides/test_matrix.py",
    "slides/test_problems.py",
    "slides/test_real_data.py",
    "slides/test_selection.py",
    "slides/test_st.py",
    "stages",
    "test_ablation.py",
    "test_bench.py",
    "test_demo.py",
    "test_fuzz.py",
    "test_readme.py",
    "views",
)
"""Modules and folders that `scripts/test.sh --fast` leaves out: whole builds, real slides, fuzzing, other processes."""
KEPT = ("engine/test_ranks.py", "stages/test_plan.py", "stages/test_receipts.py", "stages/test_spool.py")
"""Quick modules of slow folders."""


LONG = {
    "test_a_slide_that_fails_is_left_out",
    "test_a_kill_at_any_time[1]",
}
"""Tests whose kind a shorter one covers too; they run where ``STPATCH_TEST_LONG`` is set."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of slow modules."""
    root = Path(__file__).parent
    for item in items:
        place = item.path.relative_to(root)
        names = {place.as_posix(), *(folder.as_posix() for folder in place.parents)}
        if names & set(SLOW) and place.as_posix() not in KEPT:
            item.add_marker(pytest.mark.slow)
        if item.name in LONG and not os.environ.get("STPATCH_TEST_LONG"):
            item.add_marker(pytest.mark.skip(reason="half a minute and more: set STPATCH_TEST_LONG=1"))
