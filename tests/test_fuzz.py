"""Short runs of the fuzzers; the long ones are ``scripts/fuzz_readers.py`` and ``scripts/fuzz_dataset.py``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def test_damaged_slides_are_read_rightly_or_refused_in_words() -> None:
    script = Path(__file__).parents[1] / "scripts" / "fuzz_readers.py"
    done = subprocess.run(
        [sys.executable, str(script), "--cases", "165", "--seed", "7"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "165 cases, 0 faults" in done.stdout


@pytest.mark.slow
def test_damaged_datasets_are_found_out() -> None:
    script = Path(__file__).parents[1] / "scripts" / "fuzz_dataset.py"
    done = subprocess.run(
        [sys.executable, str(script), "--cases", "200", "--seed", "7"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "200 cases, 0 faults" in done.stdout
