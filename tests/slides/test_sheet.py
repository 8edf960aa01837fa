"""The samplesheet: what is read, what is refused, all problems at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from stpatch.config import SlidesSection
from stpatch.errors import ConfigError, ProblemsError, StpatchError
from stpatch.slides.sheet import read_sources, slide_id_of
from stpatch.slides.source import SlideSource

GOOD = "slide_id,path,platform,organism,split,donor\nA1,a/A1.tsv,st,Homo sapiens,train,p1\nB1,/abs/B1,,mouse,,p2\n"


def sources_of(folder: Path, text: str | bytes, *, name: str = "slides.csv") -> list[SlideSource]:
    sheet = folder / name
    sheet.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_sources(SlidesSection(sheet=sheet))


def problem_of(folder: Path, text: str | bytes, *, name: str = "slides.csv") -> str:
    with pytest.raises(StpatchError) as caught:
        sources_of(folder, text, name=name)
    message = caught.value.block()
    assert str(folder / name) in message
    return message


@pytest.mark.parametrize(
    ("name", "encode"),
    [
        ("slides.csv", lambda text: text.encode()),
        ("slides.csv", lambda text: b"\xef\xbb\xbf" + text.encode()),
        ("slides.csv", lambda text: text.replace("\n", "\r\n").encode()),
        ("slides.csv", lambda text: ("\n" + text).lstrip("\n").replace("\n", "\n\n").encode()),
        ("slides.csv", lambda text: text.rstrip("\n").encode()),
        ("slides.tsv", lambda text: text.replace(",", "\t").encode()),
        ("slides.txt", lambda text: text.replace(",", "\t").encode()),
        ("slides.csv", lambda text: text.replace(",", " , ").encode()),
        ("slides.csv", lambda text: text.replace("a/A1.tsv", '"a/A1.tsv"').encode()),
    ],
    ids=["plain", "bom", "crlf", "blank lines", "no last newline", "tsv", "txt", "blanks", "quotes"],
)
def test_a_sheet_in_its_many_forms(tmp_path: Path, name: str, encode: object) -> None:
    first, second = sources_of(tmp_path, encode(GOOD), name=name)  # type: ignore[operator]
    assert (first.slide_id, first.platform, first.organism, first.split) == ("A1", "st", "human", "train")
    assert first.path == tmp_path / "a" / "A1.tsv"
    assert dict(first.metadata) == {"donor": "p1"}
    assert (second.platform, second.organism, second.split) == ("auto", "mouse", "")
    assert second.path == Path("/abs/B1")


def test_files_beside_are_anchored_and_are_no_metadata(tmp_path: Path) -> None:
    (source,) = sources_of(tmp_path, "slide_id,path,coordinates,labels\nA,a,xy.csv,l.csv\n")
    assert source.coordinates == tmp_path / "xy.csv"
    assert source.labels == tmp_path / "l.csv"
    assert not source.metadata


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["no column 'slide_id'", "an empty file"]),
        ("path\na\n", ["no column 'slide_id'"]),
        ("slide,path\nA,a\n", ["no column 'slide_id'", "rename column 'slide'"]),
        ("slide_id,file\nA,a\n", ["no column 'path'"]),
        ("slide_id;path\nA;a\n", ["no column 'slide_id'"]),
        ("slide_id,path,path\nA,a,b\n", ["given twice", "path"]),
        ("slide_id,path\n", ["no slide"]),
        ("slide_id,path\nA,a,b\n", ["row 2", "another number of cells"]),
        ("slide_id,path,donor\nA,a,d\nB,b\n", ["row 3", "another number of cells"]),
        ("slide_id,path\nA,\n", ["row 2", "no path"]),
        ("slide_id,path\nA,a\nA,b\n", ["row 2", "row 3", "one slide_id", "found:    A"]),
        ("slide_id,path\na1,a\nA1,b\n", ["row 2", "row 3", "one sample key", "a1 and A1"]),
        ("slide_id,path\na.1,a\na+1,b\n", ["one sample key"]),
        ("slide_id,path\n../x,a\n", ["row 2", "'../x'", "cannot be used as a name"]),
        ("slide_id,path\n.x,a\n", ["'.x'"]),
        (f"slide_id,path\n{'x' * 129},a\n", ["cannot be used as a name"]),
        ('slide_id,path\n"A,a\n', ["cannot be read"]),
        (b"slide_id,path\n\xff\xfe,a\n", ["cannot be read"]),
        ("slide_id,path,platform\nA,a,visum\n", ["row 2", "visum", "did you mean 'visium'"]),
        ("slide_id,path\nA,a\0b\n", ["row 2"]),
    ],
)
def test_a_sheet_that_is_refused(tmp_path: Path, text: str | bytes, words: list[str]) -> None:
    message = problem_of(tmp_path, text) if text != "slide_id,path\n" else _no_slide(tmp_path, text)
    assert all(word in message for word in words), message


def _no_slide(folder: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        sources_of(folder, text)
    return caught.value.block()


def test_an_empty_slide_id_is_taken_from_the_path(tmp_path: Path) -> None:
    (source,) = sources_of(tmp_path, "slide_id,path\n,data/S7/outs\n")
    assert source.slide_id == "S7"


def test_all_problems_come_at_once(tmp_path: Path) -> None:
    with pytest.raises(ProblemsError) as caught:
        sources_of(tmp_path, "slide_id,path\nA,a\n../x,b\nB,\nA,c\n")
    assert [error.what for error in caught.value.problems] == [
        "a slide_id cannot be used as a name",
        "a slide has no path",
        "two slides have one slide_id",
    ]


def test_no_such_sheet(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such samplesheet") as caught:
        read_sources(SlidesSection(sheet=tmp_path / "none.csv"))
    assert "slides.sheet" in caught.value.block()


def test_globs_are_sorted_and_named_by_their_files(tmp_path: Path) -> None:
    for name in ("b.h5ad", "a.h5ad", "deep/c.tsv.gz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    section = SlidesSection(glob=[str(tmp_path / "*.h5ad"), str(tmp_path / "**/*.tsv.gz")])
    assert [source.slide_id for source in read_sources(section)] == ["a", "b", "c"]


def test_a_glob_that_matches_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="matches nothing") as caught:
        read_sources(SlidesSection(glob=str(tmp_path / "*.h5ad")))
    assert "slides.glob" in caught.value.block()


def test_globs_that_match_one_file_twice(tmp_path: Path) -> None:
    (tmp_path / "a.h5ad").touch()
    with pytest.raises(ConfigError, match="one slide_id"):
        read_sources(SlidesSection(glob=[str(tmp_path / "*"), str(tmp_path / "a*")]))


def test_entries_keep_their_metadata(tmp_path: Path) -> None:
    section = SlidesSection.model_validate(
        [
            {"path": f"{tmp_path}/A.h5ad", "donor": 7, "organism": "Mus musculus", "note": None},
            f"{tmp_path}/B/outs",
        ]
    )
    first, second = read_sources(section)
    assert (first.slide_id, first.organism, dict(first.metadata)) == ("A", "mouse", {"donor": "7", "note": ""})
    assert second.slide_id == "B"
    assert "slides.entries[0]" in first.where


def test_entries_of_one_id(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read_sources(SlidesSection.model_validate(["x/A.h5ad", "y/A.h5ad"]))
    assert "slides.entries[0] and slides.entries[1]" in caught.value.block()


@pytest.mark.parametrize(
    ("path", "slide_id"),
    [
        ("a/A1.tsv.gz", "A1"),
        ("a/S.v2.h5ad", "S.v2"),
        ("run7/outs", "run7"),
        ("run7/outs/binned_outputs", "run7"),
        ("a/folder.x", "folder.x"),
        ("s.GEM.GZ", "s"),
    ],
)
def test_slide_ids_of_paths(path: str, slide_id: str) -> None:
    assert slide_id_of(Path(path)) == slide_id
