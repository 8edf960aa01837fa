"""Shell completion and the short form of --help."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from commands import built

from stpatch.cli.app import app


@pytest.mark.parametrize("words", [[], ["build"], ["report"], ["doctor"]], ids=" ".join)
def test_h_is_help(words: list[str]) -> None:
    assert built(*words, "-h").out == built(*words, "--help").out


def test_completion_knows_commands_and_options(monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    def complete(line: str) -> list[str]:
        words = {"_STPATCH_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
        return CliRunner().invoke(app, prog_name="stpatch", env=words).stdout.split()

    assert "report" in complete("stpatch re")
    assert "--patches" in complete("stpatch report --pa")


def test_a_script_for_the_shell_is_printed() -> None:
    # without the look at which shell this is, which a process of no shell cannot answer
    words = {**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    command = [sys.executable, "-m", "stpatch", "--show-completion", "bash"]
    done = subprocess.run(command, env=words, capture_output=True, text=True, check=True)
    assert "COMP_WORDS" in done.stdout
