"""Vocabulary and channels: ids, padding, organisms, external vocabularies; read back from the shards."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import yaml
from commands import built, stpatch
from scipy import sparse

from stpatch.errors import InputError
from stpatch.stages.channels import vocabulary_names
from stpatch.stages.corpus import number_genes


def write_slide(path: Path, names: list[str], *, seed: int, ensembl: list[str] | None = None) -> None:
    """Write an h5ad of 4 x 4 spots on a square lattice."""
    counts = np.random.default_rng(seed).poisson(3, (16, len(names))) + 1
    obs = pd.DataFrame({"in_tissue": 1, "array_row": np.arange(16) // 4, "array_col": np.arange(16) % 4})
    obs.index = pd.Index([f"s{i:02d}" for i in range(16)], dtype=object)
    var = pd.DataFrame(index=pd.Index(names, dtype=object))
    if ensembl is not None:
        var["gene_ids"] = ensembl
    slide = anndata.AnnData(X=sparse.csr_matrix(counts.astype(np.int32)), obs=obs, var=var)
    slide.obsm["spatial"] = obs[["array_col", "array_row"]].to_numpy(dtype=float)
    slide.write_h5ad(path)


def build(folder: Path, entries: list[dict[str, str]], **sections: Any) -> Path:
    """Build a corpus of h5ad slides, one patch a slide; return the dataset."""
    values = {
        "dataset": {"output": "out"},
        "slides": entries,
        "crop": {"size": [4, 4]},
        "split": {"fractions": {"train": 1}},
        "run": {"workers": 1},
        **sections,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(values))
    built("build", folder / "config.yaml", "-q")
    built("validate", folder / "out", "--deep")
    return folder / "out"


def genes_of(dataset: Path) -> dict[str, list[int]]:
    """Return the gene ids of each slide's sample."""
    found = {}
    for path in dataset.rglob("*.tar"):
        with tarfile.open(path) as tar:
            for name in tar.getnames():
                if name.endswith(".genes.npy"):
                    file = tar.extractfile(name)
                    assert file is not None
                    found[name.rsplit("-", 1)[0]] = np.load(io.BytesIO(file.read())).tolist()
    return found


def table_of(dataset: Path) -> dict[str, int]:
    table = pd.read_parquet(dataset / "genes.parquet")
    return dict(zip(table["name"], table["gene_id"], strict=True))


def test_ids_start_at_1_in_order_of_name() -> None:
    assert number_genes(["A", "B"], None) == ({"A": 1, "B": 2}, 0)


@pytest.mark.parametrize(
    ("vocabulary", "ids", "pad"),
    [
        ({"<pad>": 0, "B": 4, "A": 9}, {"A": 9, "B": 4}, 0),
        ({"A": 0, "B": 1, "<pad>": 60694}, {"A": 0, "B": 1}, 60694),
        ({"A": 0, "X": 5}, {"A": 0}, 6),
        ({"A": 3}, {"A": 3}, 0),
    ],
)
def test_an_external_vocabulary_rules(vocabulary: dict[str, int], ids: dict[str, int], pad: int) -> None:
    assert number_genes(["A", "B"], vocabulary) == (ids, pad)


def test_a_vocabulary_of_other_genes_is_refused() -> None:
    with pytest.raises(InputError, match="no measured gene is in the vocabulary"):
        number_genes(["A"], {"X": 1, "<pad>": 0})


def test_names_carry_the_organism_where_there_are_several() -> None:
    genes = pd.DataFrame({"organism": ["human", ""]}, index=["C3", "shared"])
    assert vocabulary_names(genes, by_organism=False) == ["C3", "shared"]
    assert vocabulary_names(genes, by_organism=True) == ["human:C3", "shared"]


def test_a_short_slide_is_padded(tmp_path: Path) -> None:
    write_slide(tmp_path / "a.h5ad", ["A", "B", "C", "D"], seed=0)
    write_slide(tmp_path / "b.h5ad", ["B", "C"], seed=1)
    dataset = build(tmp_path, [{"path": "a.h5ad"}, {"path": "b.h5ad"}], channels={"n": 3})
    genes = genes_of(dataset)
    assert table_of(dataset) == {"A": 1, "B": 2, "C": 3, "D": 4}
    assert genes["b"] == [2, 3, 0]
    assert 0 not in genes["a"]
    assert genes["a"] == sorted(genes["a"])


def test_a_vocabulary_with_ids_from_0_and_its_own_pad(tmp_path: Path) -> None:
    write_slide(tmp_path / "a.h5ad", ["A", "B", "C", "odd"], seed=0)
    write_slide(tmp_path / "b.h5ad", ["B", "A"], seed=1)
    (tmp_path / "vocab.json").write_text(json.dumps({"A": 0, "B": 7, "C": 3, "<pad>": 99, "else": 5}))
    sections = {"ingest": {"genes": {"vocabulary": "vocab.json"}}, "channels": {"n": 4}}
    dataset = build(tmp_path, [{"path": "a.h5ad"}, {"path": "b.h5ad"}], **sections)
    assert genes_of(dataset) == {"a": [0, 3, 7, 99], "b": [0, 7, 99, 99]}
    assert table_of(dataset) == {"A": 0, "B": 7, "C": 3}
    manifest = json.loads((dataset / "manifest.json").read_text())
    assert manifest["channels"]["pad_id"] == 99
    record = json.loads(pd.read_parquet(dataset / "slides.parquet").set_index("slide_id").loc["a", "qc"])
    assert record["vocabulary"] == {"matched": 3, "unmatched": 1, "unmatched_genes": ["odd"]}


def test_organisms_are_kept_apart_unless_mapped(tmp_path: Path) -> None:
    write_slide(tmp_path / "h.h5ad", ["C3", "ACTB"], seed=0)
    write_slide(tmp_path / "m.h5ad", ["C3", "Actb"], seed=1)
    entries = [{"path": "h.h5ad", "organism": "Homo sapiens"}, {"path": "m.h5ad", "organism": "mouse"}]
    for name in ("apart", "mapped"):
        (tmp_path / name).mkdir()
    placed = [{**entry, "path": f"../{entry['path']}"} for entry in entries]
    apart = build(tmp_path / "apart", placed, channels={"n": 2})
    assert set(table_of(apart)) == {"human:C3", "human:ACTB", "mouse:C3", "mouse:Actb"}
    one, two = genes_of(apart).values()
    assert not set(one) & set(two)

    (tmp_path / "mapped" / "map.csv").write_text("from,to\nActb,ACTB\nACTB,ACTB\nC3,C3\n")
    mapped = build(tmp_path / "mapped", placed, channels={"n": 2}, ingest={"genes": {"map": "map.csv"}})
    assert table_of(mapped) == {"ACTB": 1, "C3": 2}
    assert set(map(tuple, genes_of(mapped).values())) == {(1, 2)}


def test_one_organism_has_plain_names_also_where_some_do_not_say(tmp_path: Path) -> None:
    write_slide(tmp_path / "h.h5ad", ["C3", "ACTB"], seed=0)
    write_slide(tmp_path / "u.h5ad", ["C3", "TP53"], seed=1)
    dataset = build(tmp_path, [{"path": "h.h5ad", "organism": "human"}, {"path": "u.h5ad"}], channels={"n": 2})
    assert set(table_of(dataset)) == {"C3", "ACTB", "TP53"}


def test_ensembl_identity_ignores_versions(tmp_path: Path) -> None:
    write_slide(tmp_path / "a.h5ad", ["TP53", "x"], seed=0, ensembl=["ENSG00000141510.3", "ENSG00000075624.1"])
    write_slide(tmp_path / "b.h5ad", ["P53", "y"], seed=1, ensembl=["ENSG00000141510.17", "ENSG00000075624"])
    sections = {"ingest": {"genes": {"identity": "ensembl"}}, "channels": {"n": 2}}
    dataset = build(tmp_path, [{"path": "a.h5ad"}, {"path": "b.h5ad"}], **sections)
    assert table_of(dataset) == {"ENSG00000075624": 1, "ENSG00000141510": 2}


@pytest.mark.parametrize("scope", ["panel", "slide"])
def test_lists_by_scope(tmp_path: Path, scope: str) -> None:
    write_slide(tmp_path / "a.h5ad", ["A", "B", "C", "D"], seed=0)
    write_slide(tmp_path / "b.h5ad", ["B", "C"], seed=1)
    entries = [{"path": "a.h5ad"}, {"path": "b.h5ad"}]
    dataset = build(tmp_path, entries, channels={"scope": scope, "method": "mean", "n": 3})
    genes = genes_of(dataset)
    if scope == "panel":
        assert genes == {}
        table = pd.read_parquet(dataset / "genes.parquet")
        assert sorted(table["channel"].dropna().astype(int)) == [0, 1, 2]
    else:
        assert sorted(genes["b"], reverse=True)[:2] == [3, 2]
        assert genes["b"][2] == 0
        assert len(set(genes["a"])) == 3


def test_a_list_beyond_the_vocabulary_is_refused(tmp_path: Path) -> None:
    write_slide(tmp_path / "a.h5ad", ["A", "B"], seed=0)
    (tmp_path / "vocab.json").write_text(json.dumps({"A": 1}))
    values = {
        "dataset": {"output": "out"},
        "slides": ["a.h5ad"],
        "ingest": {"genes": {"vocabulary": "vocab.json"}},
        "channels": {"scope": "panel", "method": "list", "genes": ["A", "B"]},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
    done = stpatch("build", tmp_path / "config.yaml", "-q")
    assert done.code == 2
    assert "not in the vocabulary" in done.err
    assert "B" in done.err
