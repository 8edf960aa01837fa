"""The command line, run in this process."""

from __future__ import annotations

import contextlib
import io
import sys
from dataclasses import dataclass
from unittest import mock

from stpatch.cli.app import main
from stpatch.kernels.registry import ANNOUNCEMENT


@dataclass(frozen=True)
class Done:
    """What a command left: its exit code and what it printed."""

    code: int
    out: str
    err: str


def stpatch(*words: object) -> Done:
    """Run a command; whatever happens, it must not print a traceback."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    argv = ["stpatch", *map(str, words)]
    with mock.patch.object(sys, "argv", argv), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
    said = err.getvalue().replace(f"{ANNOUNCEMENT}\n", "")  # the first test of all may have to compile
    done = Done(code=code, out=out.getvalue(), err=said)
    assert "Traceback" not in done.err
    assert "something unexpected" not in done.err, done.err
    return done


def built(*words: object) -> Done:
    """Run a command that must succeed."""
    done = stpatch(*words)
    assert done.code == 0, done.err
    return done
