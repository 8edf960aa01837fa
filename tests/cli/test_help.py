"""Help answers at once: nothing heavy is imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import typer
from commands import built, stpatch

from stpatch.cli.app import app

COMMANDS = sorted(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
LIGHT = """
import json, sys
sys.argv = ["stpatch", *json.loads(sys.argv[1])]
from stpatch.cli.app import main
try:
    main()
except SystemExit as end:
    code = end.code or 0
heavy = sorted({name.partition(".")[0] for name in sys.modules} & {"numpy", "pandas", "scipy", "anndata", "zarr",
    "pyarrow", "numba", "matplotlib", "h5py", "torch", "webdataset"})
print(json.dumps({"code": code, "heavy": heavy}), file=sys.stderr)
"""


def look(*words: str) -> dict[str, object]:
    """Run a command in a process of its own and see what it imported."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV_")}
    command = [sys.executable, "-W", "error", "-c", LIGHT, json.dumps(words)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert "Usage" in done.stdout
    value: dict[str, object] = json.loads(done.stderr.splitlines()[-1])
    return value


def test_all_commands_are_there() -> None:
    wanted = {"init", "config", "check", "plan", "build", "run", "status", "validate", "inspect", "demo"}
    assert wanted <= set(COMMANDS)


@pytest.mark.parametrize("words", [[], ["build"], ["run"]], ids=" ".join)
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    assert look(*words, "--help") == {"code": 0, "heavy": []}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    out = built(command, "--help").out
    assert "Usage" in out
    assert all(len(line) <= 100 for line in out.splitlines())


def test_no_command_shows_the_commands() -> None:
    done = stpatch()
    assert all(command in done.out + done.err for command in COMMANDS)


@pytest.mark.parametrize("words", [["biuld"], ["build"], ["build", "--no-such"], ["run", "shard", "x", "--rank", "-1"]])
def test_wrong_usage_ends_with_2(words: list[str]) -> None:
    done = stpatch(*words)
    assert done.code == 2
    assert done.err
