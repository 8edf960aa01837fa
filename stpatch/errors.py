"""One base error, and subclasses that are also the natural builtin.

Every message answers five questions in one readable block: what is wrong, where (file, key, row), what was found,
what was expected, and what helps (the hint).
"""

from __future__ import annotations


class StpatchError(Exception):
    """Base of every error that stpatch raises on purpose.

    Parameters
    ----------
    what
        One sentence: what is wrong.
    where
        File, key, row, column: the place to look at.
    found, expected
        What is there, and what should be.
    hint
        What the user can do about it.
    """

    exit_code = 2

    def __init__(
        self,
        what: str,
        *,
        where: object = None,
        found: object = None,
        expected: object = None,
        hint: str | None = None,
    ) -> None:
        self.what = what
        self.where = None if where is None else str(where)
        self.found = None if found is None else str(found)
        self.expected = None if expected is None else str(expected)
        self.hint = hint
        super().__init__(self.block())

    def block(self) -> str:
        """Return the message as one block of lines."""
        rows = [("where", self.where), ("found", self.found), ("expected", self.expected), ("hint", self.hint)]
        return "\n".join([self.what, *(f"  {name + ':':<10}{text}" for name, text in rows if text is not None)])

    def __str__(self) -> str:
        """Return the block (some builtins would print their own fields)."""
        return self.block()

    def __reduce__(self) -> tuple[object, ...]:
        """Survive the way back from a worker process."""
        return (_rebuild, (type(self), self.__dict__.copy()))


def _rebuild(cls: type[StpatchError], state: dict[str, object]) -> StpatchError:
    error = cls(str(state["what"]))
    error.__dict__.update(state)
    error.args = (error.block(),)
    return error


class ConfigError(StpatchError, ValueError):
    """The config or the samplesheet is wrong."""


class InputError(StpatchError, ValueError):
    """An input file does not hold what its layout promises."""


class InputMissingError(InputError, FileNotFoundError):
    """An input file that should be there is not."""


class MismatchError(StpatchError, ValueError):
    """Two things that should agree do not: output folder and config, manifest and shard."""


class DatasetError(StpatchError, ValueError):
    """A built dataset is damaged or is not a dataset."""


class RemoteError(StpatchError, ConnectionError):
    """A store or the network failed, and went on to fail when that was tried again; nothing is wrong with the data."""

    exit_code = 1


class MissingExtraError(StpatchError, ImportError):
    """An optional dependency is not installed; the message names the extra."""

    @classmethod
    def of(cls, extra: str, *, needs: str, purpose: str) -> MissingExtraError:
        """Return the error for a missing extra: what needs it, and how to install it."""
        return cls(
            f"{purpose} needs the package {needs!r}, which is not installed",
            hint=f"pip install 'stpatch[{extra}]'",
        )


class ProblemsError(StpatchError, ValueError):
    """Several problems found together, so that all can be corrected at once."""

    def __init__(self, problems: list[StpatchError]) -> None:
        self.problems = problems
        count = len(problems)
        super().__init__(f"{count} problem{'s' if count != 1 else ''} found")

    def __reduce__(self) -> tuple[object, ...]:
        """Survive the way back from a worker process, with all problems."""
        return (type(self), (self.problems,))

    def block(self) -> str:
        """Return all problems, numbered."""
        blocks = [f"[{i}] {problem.block()}" for i, problem in enumerate(self.problems, 1)]
        return "\n".join([self.what, *blocks])


class UnitsFailedError(StpatchError, RuntimeError):
    """Some units failed and the rest is done; the units are listed."""

    exit_code = 1


def one_or_many(problems: list[StpatchError]) -> StpatchError:
    """Return the only problem itself, or a `ProblemsError` of several."""
    return problems[0] if len(problems) == 1 else ProblemsError(problems)
