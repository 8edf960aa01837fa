"""Gene identity: names, ids, maps, controls, duplicates, vocabularies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from stpatch.config import GenesSection
from stpatch.errors import ConfigError, InputError, StpatchError
from stpatch.slides import feature_types
from stpatch.slides.genes import (
    GeneMap,
    Harmonized,
    bare_ensembl,
    harmonize,
    organism_of,
    read_gene_map,
    read_vocabulary,
)

TP53, ACTB = "ENSG00000141510", "ENSG00000075624"


def table(*rows: tuple[str, ...]) -> pd.DataFrame:
    """Make a raw gene table of (name, ensembl id, feature type), the last ones "" where left out."""
    full = [(*row, *[""] * (3 - len(row))) for row in rows]
    return pd.DataFrame(full, columns=["name", "ensembl_id", "feature_type"], dtype=object)


def harmonized(
    genes: pd.DataFrame,
    *,
    names: dict[str, str] | None = None,
    patterns: tuple[str, ...] = (),
    organism: str = "human",
    **section: Any,
) -> Harmonized:
    return harmonize(
        genes,
        section=GenesSection(**section),
        gene_map=None if names is None else GeneMap(names=names),
        organism=organism,
        control_patterns=patterns,
        where="slide A",
    )


@pytest.mark.parametrize(
    ("text", "bare"),
    [
        (TP53, TP53),
        (f"{TP53}.11", TP53),
        ("ENSMUSG00000064339.1", "ENSMUSG00000064339"),
        ("TP53", ""),
        ("ENSG1", ""),
        (f"{TP53}.x", ""),
        (f"x{TP53}", ""),
        ("ENST00000269305", ""),
        ("", ""),
    ],
)
def test_bare_ensembl_ids(text: str, bare: str) -> None:
    assert bare_ensembl(text) == bare


def test_the_prefix_tells_the_organism() -> None:
    assert organism_of(["?", "ENSMUSG00000064339.1"]) == "mouse"
    assert organism_of([TP53]) == "human"
    assert organism_of(["ENSXYZG00000000001", TP53]) == ""
    assert organism_of([]) == ""


def test_symbols_are_names_else_bare_ids() -> None:
    found = harmonized(table(("TP53", f"{TP53}.11"), ("", f"{ACTB}.2"), (f"{ACTB}.3",), ("C3",)), duplicates="sum")
    assert list(found.genes.index) == ["TP53", ACTB, "C3"]
    assert list(found.columns) == [0, 1, 1, 2]
    assert list(found.genes["ensembl_id"]) == [TP53, ACTB, ""]
    assert list(found.genes["name"]) == ["TP53", ACTB, "C3"]
    assert set(found.genes["organism"]) == {"human"}


def test_ensembl_identity_drops_what_has_no_id() -> None:
    found = harmonized(table(("TP53", f"{TP53}.11"), ("C3",), (f"{ACTB}.3",)), identity="ensembl")
    assert list(found.genes.index) == [TP53, ACTB]
    assert list(found.genes["name"]) == ["TP53", f"{ACTB}.3"]
    assert list(found.reasons) == ["", "no Ensembl id", ""]


def test_columns_without_any_name_are_dropped() -> None:
    assert list(harmonized(table(("",), ("A",))).reasons) == ["no name", ""]


def test_a_map_renames_leaves_out_and_is_looked_up_by_name_then_id() -> None:
    names = {"old": "NEW", TP53: "P53", "gone": "", "A": "x", ACTB: "y"}
    found = harmonized(table(("old",), ("TP53", f"{TP53}.1"), ("gone",), ("A", ACTB), ("B",)), names=names)
    assert list(found.genes.index) == ["NEW", "P53", "x", "B"]
    assert list(found.columns) == [0, 1, -1, 2, 3]
    assert found.reasons[2] == "left out by the gene map"
    assert list(found.genes["organism"]) == ["", "", "", "human"]


def test_a_map_can_merge() -> None:
    found = harmonized(table(("a",), ("b",), ("c",)), names={"a": "X", "c": "X"})
    assert list(found.columns) == [0, 1, 0]
    assert found.n_merged == 1


@pytest.mark.parametrize("order", [("A", "B"), ("B", "A")])
def test_a_gene_that_the_map_named_is_shared_whatever_the_order(order: tuple[str, str]) -> None:
    found = harmonized(table(*((name,) for name in order)), names={"A": "B"})
    assert list(found.genes["organism"]) == [""]


def test_exclusion_is_by_glob_on_the_identity() -> None:
    genes = table(("MT-CO1",), ("RPL3",), ("RPS2",), ("mt-Nd1",), ("ARPL",))
    found = harmonized(genes, exclude=["MT-*", "RP[LS]*"])
    assert list(found.genes.index) == ["mt-Nd1", "ARPL"]
    assert list(found.reasons) == ["excluded"] * 3 + ["", ""]
    assert list(harmonized(genes, names={"ARPL": "zz"}, exclude=["zz"]).genes.index) == [
        "MT-CO1",
        "RPL3",
        "RPS2",
        "mt-Nd1",
    ]


def test_controls_by_type_whatever_their_names() -> None:
    genes = table(("A", "", "Gene Expression"), ("B", "", "Negative Control Probe"), ("BLANK_1", "", "gene"), ("C",))
    found = harmonized(genes, patterns=("BLANK.*",))
    assert list(found.reasons) == ["", "control", "", ""]
    assert list(harmonized(genes, keep_controls=True).genes.index) == ["A", "B", "BLANK_1", "C"]


def test_controls_by_pattern_where_there_are_no_types() -> None:
    genes = table(("blank-3",), ("NegPrb1",), ("Blanka",), ("XNegPrb",))
    found = harmonized(genes, patterns=(r"BLANK-\d+", "NegPrb.*"))
    assert list(found.reasons) == ["control", "control", "", ""]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Gene Expression", "gene"),
        ("GEX", "gene"),
        ("protein_coding", "gene"),
        ("lncRNA", "gene"),
        ("IG_V_gene", "gene"),
        ("transcribed_unprocessed_pseudogene", "gene"),
        ("protein-coding", "gene"),
        ("Negative Control Codeword", "control"),
        ("spike-in", "control"),
        ("Antibody Capture", "other"),
        ("Protein Expression", "other"),
        ("", "unknown"),
        ("marker", "unknown"),
    ],
)
def test_feature_types_mean(text: str, kind: str) -> None:
    assert feature_types.kind_of(text) == kind
    assert feature_types.kind_of(text.upper()) == kind


@pytest.mark.parametrize("kind", ["protein_coding", "lncRNA", "marker", "Gene Expression", "TEC", ""])
@pytest.mark.parametrize("other", ["Gene Expression", "protein_coding", "snoRNA", ""])
def test_types_of_genes_drop_nothing(kind: str, other: str) -> None:
    found = harmonized(table(("A", "", kind), ("B", "", other), ("C", "", kind)))
    assert list(found.reasons) == ["", "", ""]


@pytest.mark.parametrize("kind", ["Antibody Capture", "Protein Expression", "CRISPR Guide Capture", "peaks", "ADT"])
@pytest.mark.parametrize("keep_controls", [False, True])
def test_other_modalities_are_left_out_by_type_and_named(kind: str, keep_controls: bool) -> None:
    found = harmonized(table(("A", "", "Gene Expression"), ("CD3", "", kind)), keep_controls=keep_controls)
    assert list(found.reasons) == ["", f"feature type {kind}"]


def test_gene_types_of_the_annotation_do_not_hide_controls() -> None:
    genes = table(("BLANK_1", "", "protein_coding"), ("A", "", "lncRNA"), ("Blank-2", "", "marker"))
    assert list(harmonized(genes, patterns=("BLANK.*",)).reasons) == ["control", "", "control"]


@pytest.mark.parametrize(
    "name",
    [
        "Blank-12",
        "BLANK_0001",
        "blank",
        "NegControlProbe_00003",
        "Negative1",
        "SystemControl7",
        "FalseCode3",
        "ERCC-00002",
    ],
)
def test_controls_of_any_imaging_platform_by_name(name: str) -> None:
    found = harmonized(table((name,), ("Blanka",), ("NEGR1",), ("ERCC1",)), patterns=feature_types.CONTROL_NAMES)
    assert list(found.reasons) == ["control", "", "", ""]


def test_unknown_types_are_listed() -> None:
    assert feature_types.notes_of(["gene", "marker", "marker", "odd", ""]) == [
        "feature types that are not known are taken for genes: marker (2), odd (1)"
    ]
    assert feature_types.notes_of(["Gene Expression", "lncRNA", "Custom"]) == []


def test_duplicates() -> None:
    genes = table(("A", TP53), ("B",), ("A", ACTB))
    summed = harmonized(genes)
    assert list(summed.columns) == [0, 1, 0]
    assert (summed.n_merged, list(summed.reasons)) == (1, ["", "", ""])
    first = harmonized(genes, duplicates="first")
    assert list(first.columns) == [0, 1, -1]
    assert list(first.reasons) == ["", "", "duplicate"]
    with pytest.raises(InputError) as caught:
        harmonized(genes, duplicates="error")
    assert "'A' (columns 0 and 2)" in caught.value.block()
    assert "slide A" in caught.value.block()


def test_a_dropped_column_is_no_duplicate() -> None:
    genes = table(("A", "", "Negative Control"), ("A", "", "Gene Expression"))
    assert list(harmonized(genes, duplicates="error").columns) == [-1, 0]


@pytest.mark.parametrize(
    ("genes", "section", "word"),
    [
        (table(("A",), ("B",)), {"exclude": ["*"]}, "2 x excluded"),
        (table(("A",), ("B",)), {"identity": "ensembl"}, "2 x no Ensembl id"),
        (table(("A", "", "Blank"), ("",)), {}, "1 x control"),
        (table(("<pad>",)), {}, "1 x padding"),
        (table(), {}, "a matrix without genes"),
    ],
)
def test_no_gene_left(genes: pd.DataFrame, section: dict[str, Any], word: str) -> None:
    with pytest.raises(InputError, match="no gene is left") as caught:
        harmonized(genes, **section)
    assert word in caught.value.block()


def test_gene_maps_are_tables_of_from_and_to(tmp_path: Path) -> None:
    path = tmp_path / "map.csv"
    path.write_bytes(b"\xef\xbb\xbffrom,to,note\r\nA, X,\r\nB,,gone\r\nA,X,again\r\n")
    assert dict(read_gene_map(path).names) == {"A": "X", "B": ""}
    path = tmp_path / "map.tsv"
    path.write_text("to\tfrom\nX\tA\n")
    assert dict(read_gene_map(path).names) == {"A": "X"}


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"from,to\nA,X\nA,Y\n", "row 3"),
        (b"old,new\nA,X\n", "columns from and to"),
        (b"", "an empty file"),
        (b"from,to\nA\n", "row 2"),
        (b"from,to\n\xff\xfe,X\n", "utf-8"),
        (b"from,to\n,X\n", "row 2"),
    ],
)
def test_gene_maps_that_are_refused(tmp_path: Path, data: bytes, word: str) -> None:
    path = tmp_path / "map.csv"
    path.write_bytes(data)
    with pytest.raises(ConfigError) as caught:
        read_gene_map(path)
    assert word in caught.value.block()
    assert str(path) in caught.value.block()


def test_vocabularies(tmp_path: Path) -> None:
    path = tmp_path / "vocab.json"
    path.write_text(json.dumps({"A": 0, "<pad>": 60694, "B": 7}))
    assert read_vocabulary(path) == {"A": 0, "<pad>": 60694, "B": 7}


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("{", "not JSON"),
        ("[1]", "not a mapping"),
        ("{}", "not a mapping"),
        ('{"A": 1.5}', "gene 'A'"),
        ('{"A": true}', "gene 'A'"),
        ('{"A": -1}', "gene 'A'"),
        ('{"A": 2147483648}', "gene 'A'"),
        ('{"A": 1, "B": 1}', "two genes"),
        ('{"A": 1, "A": 2}', "twice"),
    ],
)
def test_vocabularies_that_are_refused(tmp_path: Path, text: str, word: str) -> None:
    path = tmp_path / "vocab.json"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_vocabulary(path)
    assert word in caught.value.block()
    assert str(path) in caught.value.block()


def test_files_that_are_not_there(tmp_path: Path) -> None:
    for read, key in ((read_gene_map, "genes.map"), (read_vocabulary, "genes.vocabulary")):
        with pytest.raises(StpatchError) as caught:
            read(tmp_path / "none")
        assert key in caught.value.block()


def test_columns_are_int32_and_cover_the_genes() -> None:
    found = harmonized(table(("B",), ("A",), ("B",)))
    assert found.columns.dtype == np.int32
    assert set(found.columns.tolist()) == set(range(len(found.genes)))
