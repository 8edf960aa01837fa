"""The paper's recipe, to the number: what configs/paper.yaml builds equals plain loops over the slides' files."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from bundles.built import build_job, write_sheet
from bundles.paper_recipe import (
    Cells,
    RecipeSlide,
    gene_variances,
    patch_counts,
    patch_totals,
    patch_values,
    place_spots,
    slide_of_dense,
    window_spots,
    write_corpus,
)
from scipy.io import mmread

import stpatch
from stpatch.config_file import load_config
from stpatch.dataset.manifest import read_manifest
from stpatch.dataset.reader import Dataset
from stpatch.stages.channels import read_channels
from stpatch.stages.cutter import PatchChannels, open_cutter
from stpatch.stages.job import Job
from stpatch.stages.shard import dataset_layout

PAPER = Path(__file__).parents[2] / "configs" / "paper.yaml"


def build_paper(folder: Path, *overrides: str) -> Job:
    """Build configs/paper.yaml itself on the samplesheet in a folder."""
    paths = [f"slides.sheet={folder / 'slides.csv'}", f"dataset.output={folder / 'out'}", "run.workers=1"]
    return build_job(Job(load_config(PAPER, [*paths, *overrides])))


def datasets(job: Job, *, values: str | None = None) -> list[Dataset]:
    return [stpatch.open(job.output, split, values=values) for split in read_manifest(job.output).splits]


def names_of(dataset: Dataset, genes: np.ndarray) -> list[str | None]:
    """Return the names of gene ids, None for padding."""
    rows = pq.read_table(dataset.folder / "genes.parquet", columns=["gene_id", "name"]).to_pydict()
    known = dict(zip(rows["gene_id"], rows["name"], strict=True))
    pad = dataset.manifest.channels["pad_id"]
    return [None if gene == pad else known[gene] for gene in genes.tolist()]


def check_dataset(job: Job, slides: dict[str, RecipeSlide], *, at_most: int = 8) -> int:
    """Compare samples, spread over every split, with the recipe; return how many."""
    cells = {slide_id: place_spots(slide) for slide_id, slide in slides.items()}
    compared = 0
    for counted, normalized in zip(datasets(job), datasets(job, values="normalized"), strict=True):
        for number in np.unique(np.linspace(0, len(counted) - 1, at_most).astype(int)):
            sample = counted[int(number)]
            slide_id = sample.meta["slide_id"]
            slide = slides[slide_id]
            spots = window_spots(cells[slide_id], sample.meta["row"], sample.meta["col"])
            assert sample.meta["n_spots"] == len(spots)
            assert sample.genes is not None
            channels = names_of(counted, sample.genes)
            counts, totals = patch_counts(slide, spots, channels), patch_totals(slide, spots)
            np.testing.assert_array_equal(sample.x, counts)
            np.testing.assert_array_equal(sample.totals, totals)
            values = normalized[int(number)].x
            assert values.dtype == np.float32
            np.testing.assert_array_equal(values, patch_values(counts, totals).astype(np.float32))
            compared += 1
    return compared


def check_variances(job: Job, slide_id: str, slide: RecipeSlide, *, at_most: int = 2) -> None:
    """Compare the weights of the draw with the recipe's variances, every gene of some windows; and what was drawn."""
    cells = place_spots(slide)
    channels = read_channels(job.channels_path)
    cutter = open_cutter(job, slide_id, channels=channels, layout=dataset_layout(job), categories={})
    rule = cutter.rule
    assert isinstance(rule, PatchChannels)
    genes = [channels.name_of(number) for number in rule.gene_ids]
    for position in np.linspace(0, len(cutter.patches) - 1, at_most).astype(int):
        window = cutter.window(int(position))
        variances = gene_variances(slide, window_spots(cells, *window[:2]))
        expected = np.array([variances[gene] for gene in genes])
        found = cutter.image.moments(window).variance
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-15)
        sample = cutter.cut(int(position), 0)
        assert sample.genes is not None
        varying = {number for number, value in zip(rule.gene_ids, expected, strict=True) if value > 1e-15}
        drawn = set(sample.genes.tolist())
        assert drawn <= varying or varying <= drawn
        assert (np.diff(sample.genes[sample.genes != channels.pad_id]) > 0).all()


def crowded(seed: int, *, n_spots: int = 900, n_genes: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Return counts and coordinates of a slide so dense that spots share cells, in no order; some spots are empty."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(rng.gamma(0.6, 2.0, n_genes), (n_spots, n_genes))
    counts[rng.integers(0, n_spots, 20)] = 0
    xy = rng.normal(0, 1, (n_spots, 2)) * [300.0, 80.0]
    xy[:2] = [[-1500, -400], [1500, 400]]
    xy[2:5] = xy[5:8]
    return counts, xy


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Job, dict[str, RecipeSlide]]:
    """Build a corpus in the paper's own layout, with its vocabulary, by the paper's config."""
    folder = tmp_path_factory.mktemp("paper")
    genes = [f"GENE{i}" for i in np.random.default_rng(0).permutation(40)]
    vocabulary = {gene: 7 + 3 * i for i, gene in enumerate(genes)} | {"<pad>": 0}
    groups = {name: crowded(seed) for seed, name in enumerate(("tissue_a", "tissue_b", "tissue_c"))}
    write_corpus(folder, groups, vocabulary)
    write_sheet(folder, [{"slide_id": name, "path": "corpus.h5", "group": name} for name in groups])
    job = build_paper(folder, f"ingest.genes.vocabulary={folder / 'vocab.json'}", "channels.n=24")
    return job, {name: slide_of_dense(*group, genes) for name, group in groups.items()}


def test_the_papers_corpus_by_the_papers_config(tiny: tuple[Job, dict[str, RecipeSlide]]) -> None:
    job, slides = tiny
    assert any(len(place_spots(slide)) < len(slide.spots) - 40 for slide in slides.values()), "spots share cells"
    assert check_dataset(job, slides, at_most=40) > 60


def test_ids_are_the_papers_vocabulary(tiny: tuple[Job, dict[str, RecipeSlide]]) -> None:
    job, _ = tiny
    vocabulary = json.loads((job.work.parent / "vocab.json").read_text())
    for dataset in datasets(job):
        for number in range(len(dataset)):
            genes = dataset.genes(number)
            assert [vocabulary[name] for name in names_of(dataset, genes)] == genes.tolist()


def test_the_draws_weights_are_the_variances(tiny: tuple[Job, dict[str, RecipeSlide]]) -> None:
    job, slides = tiny
    for slide_id, slide in slides.items():
        check_variances(job, slide_id, slide, at_most=6)


def test_windows_are_the_papers(tiny: tuple[Job, dict[str, RecipeSlide]]) -> None:
    """2 x area windows inside the square, of which those with 26 spots are kept; also the last row and column."""
    job, slides = tiny
    for slide_id in slides:
        cutter = open_cutter(
            job, slide_id, channels=read_channels(job.channels_path), layout=dataset_layout(job), categories={}
        )
        patches = cutter.patches
        assert cutter.grid.shape == (140, 140)
        assert patches.number.max() < 2 * 140 * 140 / 256 + 1
        assert patches.n_spots.min() >= 26
        assert min(patches.row.min(), patches.col.min()) >= 0
        assert max(patches.row.max(), patches.col.max()) <= 140 - 16


def read_st(data_dir: Path, section: str) -> RecipeSlide:
    """Read a section of her2st from its text files, line by line."""
    with (data_dir / "her2st" / "ST-spotfiles" / f"{section}_selection.tsv").open() as file:
        places = {
            f"{row['x']}x{row['y']}": (float(row["pixel_x"]), float(row["pixel_y"]))
            for row in csv.DictReader(file, delimiter="\t")
        }
    with gzip.open(data_dir / "her2st" / "ST-cnts" / f"{section}.tsv.gz", "rt") as file:
        genes = next(file).rstrip("\n").split("\t")[1:]
        spots, xy = [], []
        for line in file:
            name, *cells = line.rstrip("\n").split("\t")
            spots.append({gene: int(cell) for gene, cell in zip(genes, cells, strict=True) if cell != "0"})
            xy.append(places[name])
    return RecipeSlide(spots=spots, xy=np.array(xy), genes=genes)


def read_visium(folder: Path) -> RecipeSlide:
    """Read a Visium slide from its Space Ranger outputs: the spots in tissue, in the matrix' order."""
    matrix = folder / "filtered_feature_bc_matrix"
    barcodes = gzip.decompress((matrix / "barcodes.tsv.gz").read_bytes()).decode().split()
    features = [
        line.split("\t") for line in gzip.decompress((matrix / "features.tsv.gz").read_bytes()).decode().splitlines()
    ]
    with (folder / "spatial" / "tissue_positions.csv").open() as file:
        places = {
            row["barcode"]: (float(row["pxl_col_in_fullres"]), float(row["pxl_row_in_fullres"]))
            for row in csv.DictReader(file)
            if row["in_tissue"] == "1"
        }
    with gzip.open(matrix / "matrix.mtx.gz") as stream:
        counts = mmread(stream).tocsc()
    names = [feature[1] for feature in features]
    spots: list[dict[str, int]] = []
    xy = []
    for column, barcode in enumerate(barcodes):
        if barcode not in places:
            continue
        spot: dict[str, int] = {}
        for k in range(counts.indptr[column], counts.indptr[column + 1]):
            gene = names[counts.indices[k]]
            spot[gene] = spot.get(gene, 0) + int(counts.data[k])
        spots.append(spot)
        xy.append(places[barcode])
    return RecipeSlide(spots=spots, xy=np.array(xy), genes=list(dict.fromkeys(names)))


def test_real_st_slide(data_dir: Path, tmp_path: Path) -> None:
    """Spots 200 um apart fill little of 140 x 140 cells, so that fewer make a patch than the paper's 26."""
    slide = read_st(data_dir, "A1")
    folder = data_dir / "her2st"
    row = {"path": folder / "ST-cnts" / "A1.tsv.gz", "coordinates": folder / "ST-spotfiles" / "A1_selection.tsv"}
    write_sheet(tmp_path, [{"slide_id": "A1", **row}])
    job = build_paper(tmp_path, "crop.min_spots=5")
    assert check_dataset(job, {"A1": slide}, at_most=10) == 10
    check_variances(job, "A1", slide, at_most=3)


def test_real_visium_slide(data_dir: Path, tmp_path: Path) -> None:
    folder = data_dir / "visium_cytassist_mouse"
    slide = read_visium(folder)
    write_sheet(tmp_path, [{"slide_id": "mouse", "path": folder}])
    job = build_paper(tmp_path)
    assert check_dataset(job, {"mouse": slide}, at_most=6) == 6
    check_variances(job, "mouse", slide)


def test_cells_of_the_recipe() -> None:
    """The reference itself, by hand: rounding is half to even, the first spot stays, an empty one takes no cell."""
    xy = np.array([[0, 0], [139, 139], [0.5, 0], [1.5, 0], [0.4, 0.2], [7, 7]])
    spots = [{"a": 1}, {"a": 1}, {"b": 5}, {"b": 2}, {"b": 9}, {}]
    cells: Cells = place_spots(RecipeSlide(spots=spots, xy=xy, genes=["a", "b"]))
    assert cells == {(0, 0): 0, (139, 139): 1, (0, 2): 3}
