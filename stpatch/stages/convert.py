"""From a dataset of whole slides to shards of samples, and back to slides: without the vendors' files.

Shards, tables and indexes are, byte for byte, those that a build of the same config with the other format makes. The
manifest differs in its fingerprint, which tells how the dataset came about.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stpatch.dataset.card import write_card
from stpatch.dataset.cropping.asked import Cropping
from stpatch.dataset.cropping.dataset import CroppedDataset, open_slides
from stpatch.dataset.entries import FileEntry, ShardEntry, SplitEntry, WrittenShard, write_file
from stpatch.dataset.home import Home
from stpatch.dataset.manifest import Manifest, read_manifest
from stpatch.dataset.planes import LABEL, NO_LABEL
from stpatch.dataset.sample import Sample, by_kind
from stpatch.dataset.tables import GENES, SLIDES, patch_columns, read_table, write_table
from stpatch.errors import DatasetError, MissingExtraError
from stpatch.registry import FORMATS
from stpatch.slides.slide import Slide
from stpatch.slides.store import write_slide
from stpatch.stages.plan import make_plan
from stpatch.stages.spool import Spool
from stpatch.storage import digest

SLIDE_KINDS = ("h5ad", "spatialdata")


def read_whole(folder: Path) -> Manifest:
    """Return the manifest of a dataset of whole slides.

    Raises
    ------
    DatasetError
        It is a dataset of samples.
    """
    manifest = read_manifest(folder)
    if not FORMATS.get(manifest.layout.format).whole_slides:
        raise DatasetError(
            "only a dataset of whole slides can be converted",
            where=folder,
            found=f"format {manifest.layout.format}",
            expected="shards.format: slides",
        )
    return manifest


def require_empty(output: Path) -> None:
    """Refuse an output folder that holds something."""
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise DatasetError("the output folder is not empty", where=output, hint="name a new folder, or remove this one")


def to_shards(
    folder: Path, output: Path, *, format_: str, encoding: str | None = None, patches: int | None = None, mix: int = 16
) -> Manifest:
    """Write the samples of a dataset of slides as shards.

    Parameters
    ----------
    folder, output
        The dataset, and an empty or new folder.
    format_, encoding, patches, mix
        As in section ``shards`` of the config; None: as the dataset has them.

    Returns
    -------
    Manifest
        Of the new dataset, written last.
    """
    manifest = read_whole(folder)
    require_empty(output)
    target = FORMATS.get(format_)
    layout = replace(
        manifest.layout,
        format=format_,
        encoding=encoding or manifest.layout.encoding,
        patches=patches or manifest.layout.patches,
    )
    seed = int(manifest.dataset.get("seed", 0))
    rows: dict[str, list[Any]] = {name: [] for name in patch_columns(layout, draws=manifest.draws)}
    splits, files = {}, []
    for name in manifest.splits:
        dataset = open_slides(
            Home(folder), name, values="counts", dtype=None, cropping=Cropping(fresh=False, pool=max(mix, 1))
        )
        order = _shard_order(dataset, name, draws=manifest.draws, patches=layout.patches, mix=mix, seed=seed)
        shards: list[ShardEntry] = []
        for number, start in enumerate(range(0, len(order), layout.patches)):
            members = order[start : start + layout.patches]
            with Spool(output) as spool:
                for place in _by_slide(dataset, members):
                    sample = _sample(dataset, int(members[place]))
                    spool.put(int(place), sample.key, target.encode(sample, layout))
                written = target.write(output, spool.in_order(), split=name, number=number, layout=layout)
            shards.append(written.entry)
            _add_rows(rows, dataset, members, written)
        spots = int(np.sum(dataset.table["n_spots"].to_numpy()[order])) if len(order) else 0
        splits[name] = SplitEntry.of(shards, spots=spots)
        files += target.write_split_files(output, name=name, split=splits[name], layout=layout)
        dataset.close()
    tables = {
        name: _copied(folder, output, manifest.tables[name])
        if name != "patches"
        else write_table(output, name, patch_columns(layout, draws=manifest.draws), rows)
        for name in manifest.tables
    }
    made = Manifest.of(
        dataset=manifest.dataset,
        layout=layout,
        values=manifest.values,
        normalization=manifest.normalization,
        channels=manifest.channels,
        grid=manifest.grid,
        crop=manifest.crop,
        labels=manifest.labels,
        splits=splits,
        tables=tables,
        files=files,
        fingerprint=digest(["converted", manifest.fingerprint, layout.format, layout.encoding, layout.patches, mix]),
        versions=manifest.versions,
    )
    made = made.with_files(write_card(output, made))
    made.write(output)
    return made


def to_slides(folder: Path, output: Path, *, kind: str) -> list[Path]:
    """Write each slide of a dataset as one file: ``h5ad``, or a ``spatialdata`` store; return their paths.

    Spots come in the stored order, genes are those of the dataset's vocabulary that the slide measured; `obs` holds the
    array indices, the labels and, for ``spatialdata``, each spot's total.
    """
    manifest = read_whole(folder)
    require_empty(output)
    output.mkdir(parents=True, exist_ok=True)
    genes = read_table(folder / manifest.tables["genes"].path, GENES).to_pandas().set_index("gene_id")
    facts = read_table(folder / manifest.tables["slides"].path, SLIDES).to_pandas()
    paths = []
    for name in manifest.splits:
        dataset = open_slides(Home(folder), name, values="counts", dtype=None, cropping=Cropping(fresh=False))
        for row in dataset.library.slides:
            slide, totals = _slide(dataset, row, facts.iloc[row], genes, manifest.labels)
            if kind == "h5ad":
                paths.append(output / f"{slide.slide_id}.h5ad")
                write_slide(paths[-1], slide)
            else:
                paths.append(output / f"{slide.slide_id}.zarr")
                _write_spatialdata(paths[-1], slide, totals)
    return paths


def _shard_order(
    dataset: CroppedDataset, split: str, *, draws: int, patches: int, mix: int, seed: int
) -> NDArray[np.int64]:
    """Return the dataset's sample numbers in the order in which a build puts them into shards."""
    slides, _ = dataset.pools
    names = [dataset.slide_ids[slide] for slide in dict.fromkeys(slides.tolist())]
    counts = {name: int(np.count_nonzero(slides == dataset.slide_ids.index(name))) for name in names}
    dealt = {name: np.full(count // draws, split, object) for name, count in counts.items()}
    if not dealt:
        return np.empty(0, np.int64)
    plan = make_plan(dealt, splits=[split], draws=draws, patches=patches, mix=mix, seed=seed)
    first = {name: int(np.flatnonzero(slides == dataset.slide_ids.index(name))[0]) for name in names}
    start = np.array([first[name] for name in plan.slides], np.int64)
    return start[plan.slide] + plan.patch.astype(np.int64) * draws + plan.draw


def _by_slide(dataset: CroppedDataset, members: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the places of a shard's samples, those of a slide together."""
    return np.argsort(dataset.pools[0][members], kind="stable")


def _sample(dataset: CroppedDataset, number: int) -> Sample:
    """Return a sample as the shard stage makes it."""
    arrays = by_kind(dataset.stored(number).arrays, dataset.manifest.layout)
    return Sample(key=dataset.table["key"][number].as_py(), meta=dataset.meta(number), **arrays)


def _add_rows(
    rows: Mapping[str, list[Any]],
    dataset: CroppedDataset,
    members: NDArray[np.int64],
    written: WrittenShard,
) -> None:
    table = dataset.table.take(members).to_pydict()
    own: dict[str, list[Any]] = {
        "shard": [written.entry.path] * len(members),
        "index": list(range(len(members))),
        "offset": [offset for offset, _ in written.ranges],
        "nbytes": [nbytes for _, nbytes in written.ranges],
        "crc32c": list(written.checksums),
    }
    for name, column in rows.items():
        column += own.get(name, table.get(name, []))


def _copied(folder: Path, output: Path, file: FileEntry) -> FileEntry:
    return write_file(output, file.path, (folder / file.path).read_bytes())


def _slide(
    dataset: CroppedDataset, row: int, facts: Any, genes: pd.DataFrame, categories: Mapping[str, list[str]]
) -> tuple[Slide, NDArray[np.float64]]:
    """Return a stored slide as a canonical one, and its spots' totals over all genes."""
    from scipy import sparse

    files = dataset.library.open(row)
    indptr, ids, table = files.read("indptr"), files.read("gene_ids"), files.spots()
    counts = sparse.csr_matrix((len(indptr) - 1, len(ids)), dtype=files.read("counts").dtype)
    used = int(indptr[-1])
    counts.data, counts.indices, counts.indptr = files.read("counts")[:used], files.read("genes")[:used], indptr
    of_slide = genes.loc[ids]
    columns = {name: of_slide[name].fillna("").to_numpy(object) for name in ("name", "ensembl_id", "organism")}
    labels = {}
    for name, known in categories.items():
        codes = files.read(f"{LABEL}{name}").astype(np.int64)
        labels[name] = pd.Categorical.from_codes(np.where(codes == NO_LABEL, -1, codes), categories=pd.Index(known))
    array = None
    if not table["array_row"].null_count:
        array = np.stack([table["array_row"].to_numpy(), table["array_col"].to_numpy()], axis=1).astype(np.int32)
    slide = Slide(
        slide_id=files.slide_id,
        platform=str(facts["platform"]),
        organism=facts["organism"] or "",
        counts=counts,
        genes=pd.DataFrame(columns, index=pd.Index(columns["name"], name="gene", dtype=object)),
        spot_ids=np.array(table["spot_id"].to_pylist(), dtype=object),
        xy=np.stack([table["x"].to_numpy(), table["y"].to_numpy()], axis=1),
        array=array,
        geometry=files.facts["geometry"],
        um_per_unit=files.facts["um_per_unit"],
        pitch=files.facts["pitch"],
        labels=pd.DataFrame(labels, index=range(len(indptr) - 1)),
        metadata=json.loads(facts["metadata"]),
        record={},
    )
    return slide, files.read("totals")


def _write_spatialdata(path: Path, slide: Slide, totals: NDArray[np.float64]) -> None:
    """Write one slide as a SpatialData store: a table of counts, and a circle per spot."""
    try:
        import anndata
        import geopandas  # type: ignore[import-untyped]
        import shapely  # type: ignore[import-untyped]
        import spatialdata
        from spatialdata.models import ShapesModel, TableModel
    except ImportError as error:
        raise MissingExtraError.of("spatialdata", needs="spatialdata", purpose="convert --to spatialdata") from error
    obs = pd.DataFrame({"total": totals}, index=pd.Index(slide.spot_ids, dtype=object))
    if slide.array is not None:
        obs["array_row"], obs["array_col"] = slide.array[:, 0], slide.array[:, 1]
    for name in slide.labels:
        obs[str(name)] = slide.labels[name].to_numpy()
    obs["region"] = pd.Categorical(["spots"] * len(obs))
    obs["spot"] = np.arange(len(obs))
    table = anndata.AnnData(X=slide.counts, obs=obs, var=slide.genes.astype(str))
    table.obsm["spatial"] = slide.xy
    radius = (slide.pitch or 1.0) / 2
    circles = geopandas.GeoDataFrame({"geometry": shapely.points(slide.xy), "radius": radius}, index=obs["spot"])
    circles.index.name = None
    elements = {
        "spots": ShapesModel.parse(circles),
        "table": TableModel.parse(table, region="spots", region_key="region", instance_key="spot"),
    }
    spatialdata.SpatialData.init_from_elements(elements).write(path)


def kinds() -> Iterator[str]:
    """Yield what a dataset of slides can become."""
    yield from (name for name in FORMATS.names() if not FORMATS.get(name).whole_slides)
    yield from SLIDE_KINDS
