"""Whether a dataset is whole: manifest, tables and shards against each other, and deep: every sample against its row.

    files     every file is there, in the folder, as the manifest says; no other is    checks/files
    tables    rows against the manifest, against each other                            checks/patches, slides, genes
    samples   (deep) decoded, against rows; pieces of one image; written anew          checks/samples, mosaic; content
    anew      (deep) tables and card are the bytes that they are written as            checks/anew
    readers   (deep) every way to open it; what other programs read                    checks/readers

A problem is a `DatasetError` that is yielded, not raised: a damaged dataset has many, and all of them are told. Each
step rests on what the ones before it found whole, so that no number is used for an allocation before it was held
against something that is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpatch.dataset import content
from stpatch.dataset.access import ShardReader
from stpatch.dataset.checks.anew import check_anew
from stpatch.dataset.checks.files import check_file, check_manifest_bytes, in_place, place_problem, unlisted
from stpatch.dataset.checks.genes import check_genes, check_ids, check_measured_by
from stpatch.dataset.checks.mosaic import Mosaic
from stpatch.dataset.checks.patches import AGAIN, check_rows, check_split
from stpatch.dataset.checks.readers import check_readers
from stpatch.dataset.checks.samples import check_samples
from stpatch.dataset.checks.slides import check_masks, check_slides
from stpatch.dataset.genes import read_panel
from stpatch.dataset.manifest import MANIFEST, SEALED_SINCE, Manifest, read_manifest
from stpatch.dataset.tables import (
    CANDIDATE,
    DIGESTS,
    GENES,
    SLIDES,
    codes,
    numbers,
    patch_columns,
    read_table,
    unpack_measured,
)
from stpatch.errors import DatasetError
from stpatch.registry import FORMATS

Progress = Callable[[str], None]


def verify(
    folder: Path,
    *,
    deep: bool = False,
    work: Path | None = None,
    digest: str | None = None,
    progress: Progress | None = None,
) -> Iterator[DatasetError]:
    """Yield every problem of a dataset; none means that it is whole.

    Parameters
    ----------
    folder
        The dataset's folder.
    deep
        Decode every sample too, and hold it against its row and the other tables; open the dataset as readers do.
    work
        The work dir that made it, whose copy of the manifest it must agree with.
    digest
        The digest that its manifest must have, as it was published.
    progress
        Called with the path of each file that has been looked at.
    """
    tell = progress or (lambda _path: None)
    try:
        if link := _place_of_manifest(folder):
            yield link
            return
        manifest = read_manifest(folder)
    except DatasetError as problem:
        yield problem
        return
    tell(MANIFEST)
    problems = list(check_manifest_bytes(folder, manifest))
    if digest is not None and digest != manifest.digest:
        problems.append(DatasetError("this is another dataset", where=folder, found=manifest.digest, expected=digest))
    if work is not None:
        problems += _check_work(manifest, work)
    intact = set()
    for file in manifest.all_files():
        problem_of_file = check_file(folder, file)
        if problem_of_file is not None:
            problems.append(problem_of_file)
        else:
            intact.add(file.path)
        tell(file.path)
    problems += unlisted(folder, manifest)
    yield from problems
    if any(file.path not in intact for file in manifest.tables.values()):
        return  # rows of a damaged table would be problems that the shards do not have
    found = False
    for wrong in _check_contents(folder, manifest, intact=intact, deep=deep, tell=tell):
        found = True
        yield wrong
    if deep and not found and not problems:
        yield from check_readers(folder, manifest)


def _place_of_manifest(folder: Path) -> DatasetError | None:
    try:
        return place_problem(folder, MANIFEST)
    except OSError:
        return None  # that it is missing, `read_manifest` says in better words


def _check_work(manifest: Manifest, work: Path) -> Iterator[DatasetError]:
    """Yield where the dataset is not the one that a work dir knows; a release may have added files."""
    try:
        own = read_manifest(work)
    except DatasetError as problem:
        yield DatasetError(problem.what, where=problem.where, hint="name the work dir of the job that built it")
        return
    added = {file.path for file in manifest.files} - {file.path for file in own.files}
    files = tuple(file for file in manifest.files if file.path not in added)
    ours, theirs = manifest.model_copy(update={"files": files}).as_json(), own.as_json()
    different = sorted(
        key for key in {*ours, *theirs} - {"digest", "dataset"} if _but_card(ours, key) != _but_card(theirs, key)
    )
    told = {**theirs["dataset"], "license": ours["dataset"].get("license")}
    if different or ours["dataset"] != told:
        yield DatasetError(
            "the dataset is not the one that the work dir made",
            where=work,
            found=", ".join(different or ["dataset"]),
            expected="the same values of these keys",
        )


def _but_card(value: dict[str, Any], key: str) -> Any:
    """Return a member of a manifest's values; of the files those that a release does not write anew."""
    return [file for file in value[key] if file["path"] != "README.md"] if key == "files" else value.get(key)


def _check_contents(
    folder: Path, manifest: Manifest, *, intact: set[str], deep: bool, tell: Progress
) -> Iterator[DatasetError]:
    columns = patch_columns(manifest.layout, draws=manifest.draws)
    paths = {name: folder / record.path for name, record in manifest.tables.items()}
    try:
        patches = read_table(paths["patches"], columns, rows=manifest.patches)
        slides = read_table(paths["slides"], SLIDES | DIGESTS, without=DIGESTS)
        genes = read_table(paths["genes"], GENES | CANDIDATE, without=CANDIDATE)
        numeric = [name for name, kind in columns.items() if kind != "string"]
        rows: dict[str, Any] = {name: numbers(patches[name], where=paths["patches"]) for name in numeric}
        gene_ids = numbers(genes["gene_id"], where=paths["genes"])
    except DatasetError as problem:
        yield problem
        return
    for name in ("key", "split", "shard", "slide_id"):
        rows[name] = patches[name].to_pylist()
    problems = list(check_ids(gene_ids, manifest, where=paths["genes"]))
    split_of, names = codes(patches["split"])
    problems += [
        DatasetError("a split is not in the manifest", where=paths["patches"], found=unknown, hint=AGAIN)
        for unknown in sorted(set(names) - set(manifest.splits))
    ]
    slide_rows = slides.to_pylist()
    problems += check_slides(slide_rows, rows, manifest, where=paths["slides"])
    problems += check_rows(rows, manifest, where=paths["patches"])
    if not problems:
        problems += check_masks(slide_rows, gene_ids, manifest.pad_id, where=paths["slides"])
        problems += check_genes(genes, gene_ids, manifest, where=paths["genes"])
    chosen = {
        name: np.flatnonzero(split_of == names.index(name)) if name in names else np.empty(0, np.int64)
        for name in manifest.splits
    }
    if not problems:
        largest = max(int(gene_ids.max(initial=0)), manifest.pad_id)
        masks = np.stack(
            [unpack_measured(slide["measured"], largest) for slide in slide_rows] or [np.zeros(largest + 1, bool)]
        )
        if manifest.of_one_corpus:
            problems += check_measured_by(genes, gene_ids, masks, slide_rows, manifest, where=paths["genes"])
    for name, split in manifest.splits.items():
        problems += check_split(name, split, rows, chosen[name], manifest, paths["patches"])
    yield from problems
    if problems or not deep:
        return
    if manifest.version >= SEALED_SINCE:
        columns_of = {"patches": columns, "slides": SLIDES | DIGESTS, "genes": GENES | CANDIDATE}
        found = {"patches": patches, "slides": slides, "genes": genes}
        tables = {name: (table, columns_of[name]) for name, table in found.items()}
        yield from check_anew(folder, manifest, tables, intact=intact)
    facts = content.Facts.of(manifest, slides=slides, gene_ids=gene_ids)
    panel = read_panel(folder, manifest) if manifest.scope == "panel" else None
    mosaic = Mosaic(manifest, slides={slide["slide_id"]: slide for slide in slide_rows}, panel=panel, largest=largest)
    wrong = list(_check_shards(folder, rows, chosen, facts, mosaic, tell=tell))
    yield from filter(None, wrong)
    if not wrong and manifest.of_one_corpus and not FORMATS.get(manifest.layout.format).whole_slides:
        sums = ("gene_id", "n_detected", "sum_counts", "sum_squared_counts")
        of_genes = {name: numbers(genes[name], where=paths["genes"]) for name in sums}
        for where, what in mosaic.finish(of_genes):
            yield DatasetError(what, where=where)


def _check_shards(
    folder: Path,
    rows: Mapping[str, Any],
    chosen: Mapping[str, NDArray[np.int64]],
    facts: content.Facts,
    mosaic: Mosaic,
    *,
    tell: Progress,
) -> Iterator[DatasetError | None]:
    """Yield the problems of all samples; None for a shard that is not looked at, as something else is in its place."""
    whole_slides = FORMATS.get(facts.manifest.layout.format).whole_slides
    for name, split in facts.manifest.splits.items():
        if whole_slides:
            from stpatch.dataset.cropping.check import slide_problems

            columns = {name: rows[name] for name in patch_columns(facts.manifest.layout, draws=facts.manifest.draws)}
            yield from slide_problems(folder, name, columns, chosen[name], facts, tell)
            continue
        reader = ShardReader(folder, facts.manifest.layout)
        for start, shard in zip(split.starts, split.shards, strict=False):
            if in_place(folder, shard):
                part = chosen[name][start : start + shard.patches]
                yield from check_samples(reader, shard, rows, part, facts, mosaic)
            else:
                yield None
            tell(shard.path)
        reader.close()
