from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from bundles.st import write_text
from scipy import sparse

from stpatch.config import IngestSection
from stpatch.errors import ConfigError, InputError
from stpatch.slides.formats.names import gene_frame
from stpatch.slides.labels import attach_labels, categories, missing_labels
from stpatch.slides.readers.st import StReader
from stpatch.slides.slide import RawSlide
from stpatch.slides.source import SlideSource

SOURCE = SlideSource(slide_id="s", path=Path("counts.tsv"))


def raw_slide(*, array: bool = True, spots: pd.DataFrame | None = None) -> RawSlide:
    ids = np.array(["2x3", "2x4", "3x3", "3x4"], dtype=object)
    places = np.array([[3, 2], [4, 2], [3, 3], [4, 3]], np.int32)
    return RawSlide(
        counts=sparse.csr_matrix(np.ones((4, 1), np.uint16)),
        spot_ids=ids,
        genes=gene_frame(["A"]),
        xy=places[:, ::-1].astype(float),
        array=places if array else None,
        spots=pd.DataFrame() if spots is None else spots,
    )


def texts(frame: pd.DataFrame, name: str) -> list[object]:
    return [None if pd.isna(value) else value for value in frame[name]]


def test_no_labels() -> None:
    frame = attach_labels(raw_slide(), SOURCE, [], None)
    assert frame.shape == (4, 0)


def test_columns_of_the_spot_table() -> None:
    spots = pd.DataFrame({"cluster": [10, 2, 10, 1], "type": ["b", "", "a10", "a9"], "score": [1.0, np.nan, 2.5, 2.0]})
    frame = attach_labels(raw_slide(spots=spots), SOURCE, ["cluster", "type", "score"], None)
    assert texts(frame, "cluster") == ["10", "2", "10", "1"]
    assert frame["cluster"].cat.categories.tolist() == ["1", "2", "10"]
    assert texts(frame, "type") == ["b", None, "a10", "a9"]
    assert frame["type"].cat.categories.tolist() == ["a9", "a10", "b"]
    assert texts(frame, "score") == ["1", None, "2.5", "2"]
    assert frame.attrs["notes"] == ["label type: 1 of 4 spots have none", "label score: 1 of 4 spots have none"]


def test_label_table_joined_by_id(tmp_path: Path) -> None:
    path = write_text(tmp_path / "l.csv", "name,spot,kind\na,3x4,tumour\nb,2x3,NA\nc,9x9,stroma\nd,2x4,stroma\n")
    frame = attach_labels(raw_slide(array=False), SOURCE, ["kind"], path)
    assert texts(frame, "kind") == [None, "stroma", None, "tumour"]
    assert frame["kind"].cat.categories.tolist() == ["stroma", "tumour"]
    assert frame.attrs["notes"] == ["1 rows of l.csv belong to no spot", "label kind: 2 of 4 spots have none"]


def test_label_table_joined_by_rounded_place(tmp_path: Path) -> None:
    path = write_text(
        tmp_path / "l.tsv", "Row.names\tx\ty\tlabel\n1x1\t3.02\t3.994\t1\n1x2\t1.98\t3.01\t0\n1x3\t9\t9\t0\n"
    )
    frame = attach_labels(raw_slide(), SOURCE, ["label"], path)
    assert texts(frame, "label") == ["0", None, None, "1"]


def test_label_that_is_nowhere_or_twice(tmp_path: Path) -> None:
    frame = attach_labels(raw_slide(), SOURCE, ["kind"], None)
    assert (texts(frame, "kind"), frame["kind"].cat.categories.tolist()) == ([None] * 4, [])
    spots = pd.DataFrame({"kind": list("abcd")})
    frame = attach_labels(raw_slide(spots=spots), SOURCE, ["knd"], None)
    assert frame.attrs["notes"] == ["label knd: the slide has no such column; columns kind"]
    path = write_text(tmp_path / "l.csv", "spot,kind\n2x3,a\n")
    with pytest.raises(ConfigError, match="in the slide's spot table and in its label table"):
        attach_labels(raw_slide(spots=spots), SOURCE, ["kind"], path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("id,kind\nq,a\n", "cannot be joined"),
        ("x,y,kind\n50,50,a\n", "another slide"),
        ("x,y,kind\n2,3,a\n2.1,3.1,b\n", "two rows of one array place"),
        ("x,y,kind\n2,nan,a\n", "not a finite number"),
        ("spot,kind\n2x3,a\n2x3,b\n", "given twice"),
        ("", "empty"),
    ],
)
def test_label_tables_that_do_not_fit(tmp_path: Path, content: str, words: str) -> None:
    path = write_text(tmp_path / "l.csv", content)
    with pytest.raises(InputError, match=words):
        attach_labels(raw_slide(), SOURCE, ["kind"], path)
    with pytest.raises(InputError, match="no such label table"):
        attach_labels(raw_slide(), SOURCE, ["kind"], tmp_path / "none.csv")


@pytest.mark.parametrize(
    "word", ["NA", "n/a", "#N/A", "nan", "NaN", "None", "null", "<NA>", "", " ", "-", "missing", "N.A."]
)
def test_words_for_no_label(word: str) -> None:
    assert categories(pd.Series(["a", word], dtype=object)).tolist() == ["a", np.nan] or pd.isna(
        categories(pd.Series(["a", word], dtype=object))[1]
    )
    assert categories(pd.Series(["a", word], dtype=object)).categories.tolist() == ["a"]


@pytest.mark.parametrize("word", ["0", "n", "none of these", "NAB2", "unknown"])
def test_words_that_are_labels(word: str) -> None:
    assert categories(pd.Series([word], dtype=object)).categories.tolist() == [word]


@pytest.mark.parametrize("form", ["{}-1", '"{}"', "S1_{}"])
def test_a_label_table_whose_ids_agree_but_for_a_form(tmp_path: Path, form: str) -> None:
    rows = "".join(
        f"{form.format(spot)},{kind}\n" for spot, kind in zip(["2x3", "2x4", "3x3", "3x4"], "abab", strict=True)
    )
    path = write_text(tmp_path / "l.csv", f"spot,kind\n{rows}")
    frame = attach_labels(raw_slide(array=False), SOURCE, ["kind"], path)
    assert texts(frame, "kind") == list("abab")
    assert form == '"{}"' or "agree but for" in frame.attrs["notes"][0]


def test_a_label_table_that_no_config_asks_for_is_told(tmp_path: Path) -> None:
    path = write_text(tmp_path / "l.csv", "spot,x,y,kind,grade\n2x3,1,1,a,b\n")
    frame = attach_labels(raw_slide(), SOURCE, [], path)
    assert frame.shape == (4, 0)
    assert frame.attrs["notes"] == ["columns of l.csv that ingest.labels does not ask for: kind, grade"]


def test_labels_that_no_slide_has_by_headers(tmp_path: Path) -> None:
    path = write_text(tmp_path / "l.csv", "spot,kind\n2x3,a\n")
    assert missing_labels(["kind"], [((), None), (("layer",), path)]) == []
    (problem,) = missing_labels(["knd", "layer"], [((), None), (("layer",), path)])
    assert "no slide has a label 'knd'" in str(problem)
    assert "kind, layer" in str(problem)
    assert missing_labels(["knd"], [(None, None), ((), path)]) == []


def test_categories_of_categoricals_and_bytes() -> None:
    values = pd.Series(pd.Categorical(["b", None, "a"]))
    assert categories(values).tolist()[0] == "b"
    assert categories(pd.Series([b"x", b"y"], dtype=object)).categories.tolist() == ["x", "y"]
    assert categories(pd.Series([True, False])).categories.tolist() == ["False", "True"]


def her2st_labels(folder: Path, section: str, table: str) -> tuple[RawSlide, pd.DataFrame]:
    source = SlideSource(slide_id="s", path=folder / "ST-cnts" / f"{section}.tsv.gz", labels=folder / table)
    probe = StReader().probe(source, IngestSection())
    assert probe is not None
    raw = StReader().read(source, IngestSection(), probe)
    return raw, attach_labels(raw, source, ["label"], source.labels)


@pytest.mark.parametrize(("section", "without"), [("A1", 0), ("B1", 0), ("C1", 0), ("D1", 0)])
def test_pathologists_labels_have_the_spots_tables_adjusted_places(data_dir: Path, section: str, without: int) -> None:
    folder = data_dir / "her2st"
    raw, frame = her2st_labels(folder, section, f"ST-pat/lbl/{section}_labeled_coordinates.tsv")
    labels = pd.read_csv(folder / f"ST-pat/lbl/{section}_labeled_coordinates.tsv", sep="\t", index_col=["x", "y"])
    spots = pd.read_csv(folder / f"ST-spotfiles/{section}_selection.tsv", sep="\t")
    spots.index = pd.Index(spots["x"].astype(str) + "x" + spots["y"].astype(str))
    own = spots.loc[raw.spot_ids]
    expected = labels["label"].loc[list(zip(own["new_x"], own["new_y"], strict=True))]
    assert int(frame["label"].isna().sum()) == without
    assert frame["label"].tolist() == expected.tolist()


@pytest.mark.parametrize(("section", "without"), [("A1", 1), ("B2", 57), ("D3", None)])
def test_cluster_labels(data_dir: Path, section: str, without: int | None) -> None:
    table = f"ST-cluster/lbl/{section}-cluster-annotation.tsv.gz"
    raw, frame = her2st_labels(data_dir / "her2st", section, table)
    labels = pd.read_csv(data_dir / "her2st" / table, sep="\t", dtype=str)
    by_id = dict(zip(labels["x"] + "x" + labels["y"], labels["label"], strict=True))
    assert texts(frame, "label") == [by_id.get(spot) for spot in raw.spot_ids]
    assert without is None or int(frame["label"].isna().sum()) == without
