"""Ranks: options first, then every scheduler's variables; shares cover all units once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stpatch.engine.ranks import Rank, find_rank
from stpatch.errors import ConfigError

SLURM_ARRAY = {
    "SLURM_ARRAY_TASK_ID": "7",
    "SLURM_ARRAY_TASK_MIN": "1",
    "SLURM_ARRAY_TASK_MAX": "9",
    "SLURM_ARRAY_TASK_COUNT": "5",
    "SLURM_ARRAY_TASK_STEP": "2",
}


@pytest.mark.parametrize(
    ("environment", "rank", "size", "source"),
    [
        ({}, 0, 1, "options"),
        (SLURM_ARRAY, 3, 5, "Slurm array"),
        ({"SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_TASK_MIN": "0", "SLURM_ARRAY_TASK_COUNT": "4"}, 2, 4, "Slurm array"),
        ({**SLURM_ARRAY, "SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, 3, 5, "Slurm array"),
        ({"SLURM_PROCID": "2", "SLURM_NTASKS": "3"}, 2, 3, "Slurm"),
        ({"SGE_TASK_ID": "3", "SGE_TASK_FIRST": "1", "SGE_TASK_LAST": "5", "SGE_TASK_STEPSIZE": "2"}, 1, 3, "SGE"),
        ({"SGE_TASK_ID": "undefined"}, 0, 1, "options"),
        ({"LSB_JOBINDEX": "4", "LSB_JOBINDEX_END": "4", "LSB_JOBINDEX_STEP": "1"}, 3, 4, "LSF"),
        ({"LSB_JOBINDEX": "0", "LSB_JOBINDEX_END": "0"}, 0, 1, "options"),
        ({"AWS_BATCH_JOB_ARRAY_INDEX": "1", "AWS_BATCH_JOB_ARRAY_SIZE": "2"}, 1, 2, "AWS Batch"),
    ],
)
def test_schedulers(environment: dict[str, str], rank: int, size: int, source: str) -> None:
    assert find_rank(None, None, environment) == Rank(rank, size, source)


@pytest.mark.parametrize(
    ("environment", "rank"),
    [({"PBS_ARRAY_INDEX": "2"}, 2), ({"JOB_COMPLETION_INDEX": "0"}, 0), ({"AWS_BATCH_JOB_ARRAY_INDEX": "1"}, 1)],
)
def test_a_scheduler_that_does_not_tell_the_size_needs_the_option(environment: dict[str, str], rank: int) -> None:
    with pytest.raises(ConfigError, match="number of tasks") as caught:
        find_rank(None, None, environment)
    assert "--world-size" in caught.value.block()
    found = find_rank(None, 4, environment)
    assert (found.rank, found.world_size) == (rank, 4)


def test_options_come_first() -> None:
    assert find_rank(1, 2, SLURM_ARRAY) == Rank(1, 2, "options")
    assert find_rank(None, 9, SLURM_ARRAY) == Rank(3, 9, "Slurm array")


@pytest.mark.parametrize(
    ("rank", "size", "environment", "word"),
    [
        (1, None, {}, "needs a world size"),
        (None, 3, {}, "needs a rank"),
        (3, 3, {}, "not below"),
        (0, 0, {}, "make no sense"),
        (None, None, {**SLURM_ARRAY, "SLURM_ARRAY_TASK_COUNT": "2"}, "not below"),
        (
            None,
            None,
            {"SLURM_ARRAY_TASK_ID": "0", "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_COUNT": "2"},
            "no sense",
        ),
    ],
)
def test_numbers_that_make_no_sense(rank: int | None, size: int | None, environment: dict[str, str], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        find_rank(rank, size, environment)


def test_a_world_of_one_needs_no_rank() -> None:
    assert find_rank(None, 1, {}) == Rank()


@given(units=st.lists(st.integers(), max_size=30), size=st.integers(1, 40))
def test_shares_cover_every_unit_once_and_evenly(units: list[int], size: int) -> None:
    shares = [Rank(rank, size).share(units) for rank in range(size)]
    assert sorted(unit for share in shares for unit in share) == sorted(units)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
