"""Groups of donors: found by their columns' names, kept together, told where splits part them."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stpatch.config import SplitSection
from stpatch.errors import ConfigError
from stpatch.image.groups import auto_groups, donor_columns
from stpatch.image.split import assign_splits


@pytest.mark.parametrize(
    "name",
    ["donor", "Donor", "DONOR_ID", "donor id", "donorId", "patient", "Patient-ID", "patients", "subject_id",
     "individual", "animal", "Mouse", "mouse_number", "case", "case_id", "CaseID", "block", "block_id", " donor ",
     "donor_name"],
)  # fmt: skip
def test_donor_like_columns(name: str) -> None:
    assert donor_columns([name]) == [name]


@pytest.mark.parametrize(
    "name", ["tissue", "donation", "mousey", "block_size", "mouse_strain", "age", "id", "", "showcase"]
)
def test_other_columns(name: str) -> None:
    assert donor_columns([name]) == []


def test_the_most_telling_column_comes_first() -> None:
    assert donor_columns(["block", "age", "Patient", "donor_id"]) == ["donor_id", "Patient", "block"]


def sheet(**columns: list[str]) -> pd.DataFrame:
    n = len(next(iter(columns.values())))
    return pd.DataFrame(columns, index=[f"s{i}" for i in range(n)])


def split(slides: pd.DataFrame, **options: object) -> dict[str, str]:
    return assign_splits(slides, section=SplitSection(**options), seed=0)  # type: ignore[arg-type]


@given(donors=st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=20))
def test_auto_deals_as_the_column_by_name(donors: list[str]) -> None:
    assert split(sheet(donor=donors)) == split(sheet(donor=donors), by="donor")


@given(n=st.integers(1, 12))
def test_auto_without_such_a_column_deals_slides(n: int) -> None:
    assert split(sheet(tissue=["liver"] * n)) == split(sheet(tissue=["liver"] * n), by="slide_id")


@given(
    donors=st.lists(
        st.tuples(st.sampled_from(["", "NA", "a", "b", "c"]), st.sampled_from(["x", "y", "z", "unknown"])), min_size=1
    )
)
def test_no_column_spans_splits_whatever_is_missing(donors: list[tuple[str, str]]) -> None:
    slides = sheet(patient=[one for one, _ in donors], block=[two for _, two in donors])
    dealt = split(slides)
    for column, missing in (("patient", {"", "NA"}), ("block", {"unknown"})):
        for value in set(slides[column]) - missing:
            assert len({dealt[i] for i in slides.index[slides[column] == value]}) == 1


def test_slides_that_name_nobody_are_their_own_groups() -> None:
    groups, columns = auto_groups({"a": {"donor": ""}, "b": {"donor": "n/a"}, "c": {"donor": "d"}})
    assert columns == ["donor"]
    assert len(set(groups.values())) == 3


@pytest.mark.parametrize("column", ["donor", "Patient_ID", "subject", "Animal", "case", "block"])
@pytest.mark.parametrize("how", ["by", "split", "column", "folds"])
def test_a_donor_in_two_splits_is_an_error_that_names_it(column: str, how: str) -> None:
    slides = sheet(**{column: ["d1", "d1", "d2", "d2"]}, fold=["train", "test", "train", "test"])
    options: dict[str, object] = {
        "by": {"by": "slide_id", "fractions": {"train": 0.5, "test": 0.5}},
        "split": {"by": "slide_id"},
        "column": {"by": "slide_id", "column": "fold"},
        "folds": {"by": "slide_id", "folds": 4},
    }[how]  # type: ignore[assignment]
    if how == "split":
        slides = slides.rename(columns={"fold": "split"})
    refused = []
    for seed in range(8):  # by slide, some seed parts a donor
        try:
            assign_splits(slides, section=SplitSection(**options), seed=seed)  # type: ignore[arg-type]
        except ConfigError as error:
            refused.append(str(error))
    assert refused
    assert all(text in refused[0] for text in (f"'{column}'", "'d1'", "allow_leak"))
    for seed in range(8):
        allowed = SplitSection(**options, allow_leak=[column.upper()])  # type: ignore[arg-type]
        assign_splits(slides, section=allowed, seed=seed)


def test_given_splits_that_part_donors_are_refused_by_auto() -> None:
    slides = sheet(donor=["a", "a"], split=["train", "test"])
    with pytest.raises(ConfigError, match=r"different splits(?s:.*)allow_leak"):
        split(slides)
    assert split(slides, allow_leak=["donor"]) == {"s0": "train", "s1": "test"}
