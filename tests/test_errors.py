"""Errors: one readable block, natural builtins, and the way back from a worker process."""

from __future__ import annotations

import pickle

import pytest

from stpatch.errors import (
    ConfigError,
    DatasetError,
    InputError,
    InputMissingError,
    MismatchError,
    MissingExtraError,
    ProblemsError,
    StpatchError,
    UnitsFailedError,
    one_or_many,
)


def test_a_block_answers_five_questions() -> None:
    error = InputError("a cell is text", where="a.tsv row 3", found="x", expected="a number", hint="mend it")
    assert error.block().splitlines() == [
        "a cell is text",
        "  where:    a.tsv row 3",
        "  found:    x",
        "  expected: a number",
        "  hint:     mend it",
    ]
    assert str(error) == error.block()


def test_what_is_not_known_takes_no_line() -> None:
    assert StpatchError("wrong").block() == "wrong"
    assert StpatchError("wrong", found=0).block() == "wrong\n  found:    0"


@pytest.mark.parametrize(
    ("kind", "builtin", "code"),
    [
        (ConfigError, ValueError, 2),
        (InputError, ValueError, 2),
        (InputMissingError, FileNotFoundError, 2),
        (MismatchError, ValueError, 2),
        (DatasetError, ValueError, 2),
        (MissingExtraError, ImportError, 2),
        (UnitsFailedError, RuntimeError, 1),
    ],
)
def test_errors_are_builtins_and_survive_pickling(kind: type[StpatchError], builtin: type, code: int) -> None:
    error = kind("wrong", where="here", found=3, hint="so")
    assert isinstance(error, builtin)
    assert error.exit_code == code
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is kind
    assert str(back) == str(error) == error.block() == back.block()
    assert (back.what, back.where, back.found, back.hint) == ("wrong", "here", "3", "so")


def test_problems_are_numbered_and_survive_pickling() -> None:
    error = one_or_many([ConfigError("a", where="x"), InputMissingError("b", found="y")])
    assert isinstance(error, ProblemsError)
    assert error.block() == "2 problems found\n[1] a\n  where:    x\n[2] b\n  found:    y"
    back = pickle.loads(pickle.dumps(error))
    assert str(back) == str(error)
    assert [type(item) for item in back.problems] == [ConfigError, InputMissingError]


def test_one_problem_is_itself() -> None:
    error = ConfigError("a")
    assert one_or_many([error]) is error


def test_a_missing_extra_says_how_to_install_it() -> None:
    error = MissingExtraError.of("hvg", needs="skmisc", purpose="hvg_seurat_v3")
    assert "pip install 'stpatch[hvg]'" in error.block()
