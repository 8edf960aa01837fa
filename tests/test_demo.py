"""Simulated slides: the same bytes from one seed, whole in every layout, and looking like tissue."""

from __future__ import annotations

import csv
import gzip
import hashlib
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from stpatch.config_file import load_config
from stpatch.demo import KINDS, simulate
from stpatch.demo.counts import negative_binomial
from stpatch.demo.genes import MARKERS, symbols
from stpatch.demo.tissue import make_tissue, normal, smooth_field
from stpatch.seeds import generator

SIZE = 0.4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate(tmp_path_factory.mktemp("demo"), seed=3, size=SIZE).parent


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def visium_counts(path: Path) -> tuple[np.ndarray, list[str], list[str]]:
    with h5py.File(path / "filtered_feature_bc_matrix.h5") as file:
        matrix = file["matrix"]
        n_genes, n_spots = matrix["shape"][:]
        counts = np.zeros((n_spots, n_genes), dtype=np.int64)
        rows = np.repeat(np.arange(n_spots), np.diff(matrix["indptr"][:]))
        counts[rows, matrix["indices"][:]] = matrix["data"][:]
        names = [name.decode() for name in matrix["features/name"][:]]
        return counts, names, [name.decode() for name in matrix["barcodes"][:]]


def test_one_seed_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    simulate(tmp_path / "again", seed=3, size=SIZE)
    assert digests(tmp_path / "again") == digests(folder)
    simulate(tmp_path / "again", seed=3, size=SIZE)
    assert digests(tmp_path / "again") == digests(folder)
    other = digests(simulate(tmp_path / "other", seed=4, size=SIZE).parent)
    assert other.keys() == digests(folder).keys()
    assert other["slides/array/array-1.h5ad"] != digests(folder)["slides/array/array-1.h5ad"]


def test_sheet_and_config_belong_together(folder: Path) -> None:
    config = load_config(folder / "demo.yaml")
    assert config.slides.sheet == folder / "slides.csv"
    with (folder / "slides.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["slide_id"] for row in rows] == ["visium-1", "visium-2", "st-1", "st-2", "array-1", "array-2"]
    assert len({row["donor"] for row in rows}) == 6
    for row in rows:
        for name in ("path", "coordinates", "labels"):
            assert not row[name] or (folder / row[name]).exists()


def test_visium_positions_lie_on_the_hexagonal_lattice(folder: Path) -> None:
    outs = folder / "slides/visium/visium-1/outs"
    table = pd.read_csv(outs / "spatial/tissue_positions.csv")
    assert table["barcode"].is_unique
    assert ((table["array_col"] - table["array_row"]) % 2 == 0).all()
    one_row = table[table["array_row"] == 3].sort_values("array_col")
    assert set(np.diff(one_row["pxl_col_in_fullres"])) == {200}
    assert abs(np.diff(np.unique(table["pxl_row_in_fullres"])).mean() - 100 * np.sqrt(3)) < 0.1
    counts, names, barcodes = visium_counts(outs)
    assert barcodes == list(table.loc[table["in_tissue"] == 1, "barcode"])
    assert 0 < len(barcodes) < len(table)
    assert counts.min() >= 0
    assert len(set(names)) == len(names)


def test_st_tables_name_the_same_spots(folder: Path) -> None:
    with gzip.open(folder / "slides/st/ST-cnts/st-1.tsv.gz", "rt") as file:
        counts = pd.read_csv(file, sep="\t", index_col=0)
    spots = pd.read_csv(folder / "slides/st/ST-spotfiles/st-1_selection.tsv", sep="\t")
    assert list(counts.index) == [f"{x}x{y}" for x, y in zip(spots["x"], spots["y"], strict=True)]
    labels = pd.read_csv(folder / "slides/st/st-1-domains.csv")
    assert list(labels["spot"]) == list(counts.index)
    assert set(labels["domain"]) <= set(MARKERS["breast"])


def test_h5ad_holds_counts_and_places(folder: Path) -> None:
    import anndata

    slide = anndata.read_h5ad(folder / "slides/array/array-1.h5ad")
    assert np.issubdtype(slide.X.dtype, np.integer)
    np.testing.assert_array_equal(slide.obsm["spatial"], (slide.obs[["array_col", "array_row"]] + 0.5) * 50)


def test_markers_mark_their_domains(folder: Path) -> None:
    counts, names, barcodes = visium_counts(folder / "slides/visium/visium-2/outs")
    domain = pd.read_csv(folder / "slides/visium/visium-2-domains.csv").set_index("spot").loc[barcodes, "domain"]
    share = pd.DataFrame(counts / counts.sum(axis=1, keepdims=True), columns=names)
    for name, markers in MARKERS["cortex"].items():
        here = (domain == name).to_numpy()
        if here.sum() < 10:
            continue
        measured = [gene for gene in markers.split() if gene in names]
        assert (share.loc[here, measured].mean() > 3 * share.loc[~here, measured].mean()).all(), name


def test_every_layout_lacks_some_genes_and_shares_most(folder: Path) -> None:
    _, visium, _ = visium_counts(folder / "slides/visium/visium-1/outs")
    with gzip.open(folder / "slides/st/ST-cnts/st-1.tsv.gz", "rt") as file:
        st = file.readline().rstrip("\n").split("\t")[1:]
    assert set(visium) != set(st)
    assert len(set(visium) & set(st)) > 0.75 * len(symbols())


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_tissue_is_one_large_piece_with_all_its_domains(kind) -> None:
    places = (np.stack(np.meshgrid(np.arange(64), np.arange(64)), axis=-1).reshape(-1, 2) + 0.5) / 64
    for seed in range(5):
        tissue = make_tissue(generator(seed, "tissue"), places, anatomy=kind.anatomy)
        assert 0.4 < tissue.inside.mean() < 0.85
        shares = np.bincount(tissue.domain[tissue.inside], minlength=len(tissue.names)) / tissue.inside.sum()
        assert (shares > 0).sum() >= len(tissue.names) - 1


def test_negative_binomial_has_its_distribution() -> None:
    mean = np.full(40_000, 3.0)
    counts = negative_binomial(generator(0, "nb"), mean, size=2.0)
    expected = stats.nbinom.pmf(np.arange(12), 2.0, 2.0 / 5.0) * mean.size
    observed = np.bincount(counts, minlength=12)[:12]
    assert stats.chisquare(observed, expected * observed.sum() / expected.sum()).pvalue > 1e-3
    wide = negative_binomial(generator(1, "nb"), np.full(2000, 5e3), size=50.0)
    assert abs(wide.mean() / 5e3 - 1) < 0.02


def test_smooth_fields_are_standard_and_smooth() -> None:
    places = np.column_stack([np.linspace(0, 1, 400), np.zeros(400)])
    fields = np.stack([smooth_field(generator(k, "field"), places, scale=0.1) for k in range(200)])
    assert abs(fields.std() - 1) < 0.1
    assert abs(np.diff(fields, axis=1)).max() < 0.3
    draws = normal(generator(0, "normal"), (20_000,))
    assert abs(draws.mean()) < 0.03
    assert abs(draws.std() - 1) < 0.03
