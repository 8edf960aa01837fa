"""The command line: every command parses, calls and prints; the work is elsewhere."""

from __future__ import annotations

import atexit
import gc
import signal
import sys
import traceback
from typing import Annotated

import typer

import stpatch
from stpatch.cli import build, cluster, configs, convert, datasets, doctor, inspect, release, report, versions
from stpatch.errors import StpatchError

INTERRUPTED = 130

app = typer.Typer(
    name="stpatch",
    help="Spatial transcriptomics slides to sharded image patches for pretraining.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for module in (configs, build, cluster, datasets, convert, inspect, report, doctor, versions, release):
    module.add_commands(app)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"stpatch {stpatch.__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="With any command: show where an error was raised.")] = False,
) -> None:
    """Take the options of all commands; `main` has taken --debug off the line before, wherever it stood."""


def main() -> None:
    """Run the command line; exit codes: 0 done, 1 some units failed, 2 the request was wrong, 130 stopped."""
    for name in ("SIGTERM", "SIGUSR1"):  # a scheduler's request to end is as good as Ctrl-C
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), _stop)
    atexit.register(gc.freeze)  # at its end the interpreter would look through all that was imported: half a second
    debug = "--debug" in sys.argv
    sys.argv = [word for word in sys.argv if word != "--debug"]
    try:
        app()
    except StpatchError as error:
        if debug:
            traceback.print_exc()
        typer.echo(f"error: {error.block()}", err=True)
        sys.exit(error.exit_code)
    except SystemExit as end:
        if end.code == INTERRUPTED:  # typer turns Ctrl-C into this
            typer.echo("stopped; the same command goes on from here", err=True)
        raise
    except BrokenPipeError:
        sys.exit(1)
    except (MemoryError, OSError) as error:
        if debug:
            traceback.print_exc()
        typer.echo(f"error: {_of_the_machine(error).block()}", err=True)
        sys.exit(1)
    except Exception as error:
        if debug:
            raise
        typer.echo(
            f"error: something unexpected happened\n  found:    {type(error).__name__}: {error}\n"
            "  hint:     run the same command with --debug and report what it prints",
            err=True,
        )
        sys.exit(1)


def _stop(_number: int, _frame: object) -> None:
    """End as after Ctrl-C; further requests change nothing: one may come from the scheduler and one from its script."""
    for name in ("SIGTERM", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    raise KeyboardInterrupt


def _of_the_machine(error: MemoryError | OSError) -> StpatchError:
    """Return the message of a fault that is neither the request's nor the code's."""
    if isinstance(error, MemoryError):
        return StpatchError(
            "there is not enough memory",
            found=error or None,
            hint="set a lower run.workers, crop.size, crop.density or channels.n; see stpatch plan",
        )
    return StpatchError(
        "a file or folder cannot be read or written", where=error.filename, found=error.strerror or str(error)
    )
