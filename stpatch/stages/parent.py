"""The dataset that a new version extends: what of it the stages go on from, and what the config must not contradict."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stpatch.dataset.entries import ShardEntry
from stpatch.dataset.manifest import MANIFEST, Manifest, read_manifest
from stpatch.dataset.tables import CANDIDATE, DIGESTS, GENES, PATCHES, SLIDES, read_table
from stpatch.errors import ConfigError, InputError, StpatchError
from stpatch.registry import FORMATS, PANEL_RULES
from stpatch.storage import key_text, sha256_file

if TYPE_CHECKING:
    from stpatch.config import Config

_LISTED = 6


@dataclass(frozen=True, kw_only=True)
class ParentGenes:
    """The genes that have ids already, by ascending id.

    Attributes
    ----------
    names, ids
        Vocabulary names and (genes,) int32 ids.
    ensembl, organism
        By gene, "" where the table has none.
    channel
        (genes,) int64 position on the channel axis, -1 for none.
    candidate
        (genes,) bool, whether a patch rule may draw it; None where it may draw all.
    numbers
        The table's columns of numbers, (genes,) each: those of the version in which a gene entered.
    """

    names: Sequence[str]
    ids: NDArray[np.int32]
    ensembl: Sequence[str]
    organism: Sequence[str]
    channel: NDArray[np.int64]
    candidate: NDArray[np.bool_] | None
    numbers: Mapping[str, NDArray[Any]]

    @property
    def by_organism(self) -> bool:
        """Whether names are ``organism:gene``."""
        return any(
            organism and name.startswith(f"{organism}:")
            for name, organism in zip(self.names, self.organism, strict=True)
        )


@dataclass(frozen=True)
class Parent:
    """A finished dataset that another version goes on from.

    Attributes
    ----------
    folder
        Where it is.
    manifest
        Its manifest.
    """

    folder: Path
    manifest: Manifest

    @classmethod
    def open(cls, folder: Path) -> Parent:
        """Read the manifest.

        Raises
        ------
        DatasetError
            There is no dataset, or it is damaged.
        """
        return cls(folder, read_manifest(folder))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the bytes of ``manifest.json``, which names every other file by its own."""
        return hashlib.sha256((self.folder / MANIFEST).read_bytes()).hexdigest()

    @cached_property
    def slides(self) -> dict[str, dict[str, Any]]:
        """The rows of slides.parquet by slide id."""
        path = self.folder / "slides.parquet"
        known = {name: kind for name, kind in DIGESTS.items() if name in _columns(path)}
        columns = read_table(path, SLIDES | known).to_pydict()
        for name in DIGESTS.keys() - known.keys():
            columns[name] = [None] * len(columns["slide_id"])
        rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        return {row["slide_id"]: row for row in rows}

    @cached_property
    def genes(self) -> ParentGenes:
        """The rows of genes.parquet."""
        path = self.folder / "genes.parquet"
        further = {name: kind for name, kind in CANDIDATE.items() if name in _columns(path)}
        table = read_table(path, GENES | further).to_pydict()
        return ParentGenes(
            names=table["name"],
            ids=np.array(table["gene_id"], np.int32),
            ensembl=[text or "" for text in table["ensembl_id"]],
            organism=[text or "" for text in table["organism"]],
            channel=np.array([-1 if number is None else number for number in table["channel"]], np.int64),
            candidate=np.array(table["candidate"], bool) if further else None,
            numbers={
                name: np.array(table[name], kind.rstrip("?"))
                for name, kind in GENES.items()
                if name.startswith(("n_", "sum_", "mean_", "var_"))
            },
        )

    @cached_property
    def shards(self) -> dict[str, tuple[str, ShardEntry]]:
        """The shards by task, each with its split, in order."""
        format_ = FORMATS.get(self.manifest.shards.format)
        return {
            f"{name}-{format_.shard_number(shard.path):06d}": (name, shard)
            for name, split in self.manifest.splits.items()
            for shard in split.shards
        }

    def next_shards(self) -> dict[str, int]:
        """Return by split the number of the first shard that is not taken."""
        numbers: dict[str, int] = {}
        for task, (split, _) in self.shards.items():
            numbers[split] = max(numbers.get(split, 0), int(task.rpartition("-")[2]) + 1)
        return numbers

    @property
    def withdrawn(self) -> set[str]:
        """The slides that went in it or in a version before: they stay out, though a samplesheet may list them."""
        extends = self.manifest.extends
        return set() if extends is None else {*extends.withdrawn, *extends.withdrawn_before}

    def facts(self, slide_id: str) -> dict[str, str]:
        """Return what the split rules may look at: a slide's samplesheet columns, platform and organism."""
        row = self.slides[slide_id]
        metadata = {name: str(value) for name, value in json.loads(row["metadata"]).items()}
        return {"slide_id": slide_id, "platform": row["platform"], "organism": row["organism"] or "", **metadata}

    @cached_property
    def split_of(self) -> dict[str, str]:
        """The split of each slide that is in one, as a whole."""
        return {slide_id: row["split"] for slide_id, row in self.slides.items() if row["split"]}

    def digests(self, slide_id: str) -> dict[str, str]:
        """Return a slide's digests, as `stpatch.slides.digests` makes them."""
        row = self.slides[slide_id]
        return {name.removeprefix("digest_"): row[name] or "" for name in DIGESTS}

    @property
    def organisms(self) -> set[str]:
        """The organisms of its genes."""
        return {name for name in self.genes.organism if name}

    @property
    def target_sum(self) -> float | None:
        """The corpus' own target sum, where the normalization has one for all slides."""
        return next((row["target_sum"] for row in self.slides.values() if row["target_sum"] is not None), None)

    def keys_of(self, slide_id: str) -> list[str]:
        """Return the keys of a slide's samples, sorted."""
        import pyarrow.compute as pc

        table = read_table(self.folder / "patches.parquet", {name: PATCHES[name] for name in ("key", "slide_id")})
        return sorted(table["key"].filter(pc.equal(table["slide_id"], slide_id)).to_pylist())

    def holders(self, slide_ids: Iterable[str]) -> dict[str, int]:
        """Return the tasks whose shards hold samples of some slides, each with the number of its other samples."""
        import pyarrow.compute as pc

        wanted = sorted(slide_ids)
        if not wanted:
            return {}
        if tuple(wanted) in self._holders:  # every task asks
            return self._holders[tuple(wanted)]
        columns = {name: PATCHES[name] for name in ("shard", "slide_id")}
        table = read_table(self.folder / "patches.parquet", columns)
        held = pc.is_in(table["slide_id"], value_set=_texts(wanted))
        found = table["shard"].filter(held).value_counts().to_pylist()
        of_path = {shard.path: (task, shard.patches) for task, (_, shard) in self.shards.items()}
        left = {of_path[item["values"]][0]: of_path[item["values"]][1] - item["counts"] for item in found}
        self._holders[tuple(wanted)] = left
        return left

    @cached_property
    def _holders(self) -> dict[tuple[str, ...], dict[str, int]]:
        return {}


def _columns(path: Path) -> list[str]:
    import pyarrow.parquet as pq

    return list(pq.read_schema(path).names) if path.is_file() else []


def _texts(values: Sequence[str]) -> Any:
    import pyarrow as pa

    return pa.array(values, pa.string())


def parent_problems(parent: Parent, config: Config, listed: Mapping[str, Path]) -> list[StpatchError]:
    """Return what stands against going on from a dataset.

    Parameters
    ----------
    parent, config
        The dataset, and the config of the new version.
    listed
        The paths of the config's slides, those that the parent has too among them.
    """
    problems: list[StpatchError] = []
    dataset, name = config.dataset, parent.manifest.dataset
    if config.output_folder.resolve() == parent.folder.resolve():
        problems.append(
            ConfigError(
                "a version cannot be written over the dataset that it extends",
                where="key dataset.output",
                found=dataset.output,
                hint="choose another dataset.output; shards are shared by hard links where the file system has them",
            )
        )
    elif (dataset.name, dataset.version) == (name.get("name"), name.get("version")):
        problems.append(
            ConfigError(
                "a new version needs another version's name",
                where="key dataset.version",
                found=f"{dataset.name} {dataset.version}, as the dataset that it extends",
                hint="raise dataset.version",
            )
        )
    if differing := contract_differences(parent, config):
        problems.append(
            ConfigError(
                "the config contradicts the dataset that it extends",
                where=f"key dataset.extends, {parent.folder}",
                found="; ".join(f"{key}: {here}" for key, (_, here) in differing.items()),
                expected="; ".join(f"{key}: {there}" for key, (there, _) in differing.items()),
                hint="set these keys as that dataset has them; for other tensors, build a dataset without "
                "dataset.extends",
            )
        )
    candidates = config.channels.candidates
    if not differing and candidates is not None and parent.genes.candidate is None:
        problems.append(
            ConfigError(
                "the dataset that is extended does not tell its candidates",
                where=f"key channels.candidates, {parent.folder}",
                found=f"a dataset of format {parent.manifest.version}",
                expected="column candidate in genes.parquet, which datasets have from format 2 on",
                hint="build the dataset again with this version of stpatch, then extend it",
            )
        )
    problems += _slide_problems(parent, config, listed)
    return problems


def contract_differences(parent: Parent, config: Config) -> dict[str, tuple[Any, Any]]:
    """Return by key what of the tensors is different: (the parent's, the config's)."""
    from stpatch.dataset.sample import label_name
    from stpatch.stages.normalize import normalization_json

    manifest, shards = parent.manifest, config.shards
    there: dict[str, Any] = {"dataset.seed": manifest.dataset.get("seed", 0)}
    here: dict[str, Any] = {"dataset.seed": config.dataset.seed}
    for section in ("grid", "crop"):
        of_parent = getattr(manifest, section)
        of_config = {key: value for key, value in config.section(section)[section].items() if key in of_parent}
        of_config.pop("exclude", None)  # which patches are not wanted is no matter of their shape
        there |= {f"{section}.{key}": of_parent[key] for key in of_config}
        here |= {f"{section}.{key}": value for key, value in of_config.items()}
    for key, value in normalization_json(config).items():
        there[f"normalize.{key}"], here[f"normalize.{key}"] = manifest.normalization.get(key), value
    channels = config.section("channels")["channels"]
    if channels["candidates"] is not None:
        del channels["candidates"]["genes"]
    for key in ("scope", "method", "draws", "across_slides", "candidates", "min_detected"):
        if key in manifest.channels:
            there[f"channels.{key}"], here[f"channels.{key}"] = manifest.channels[key], channels[key]  # type: ignore[literal-required]
    if _counts_channels(config):
        there["channels.n"], here["channels.n"] = manifest.channels["n"], config.channels.n
        if config.channels.scope != "patch" and config.channels.n > manifest.channels["n"]:
            here["channels.n"] = there["channels.n"]  # a panel of fewer genes than asked for: there were no more
    there |= {"shards.format": manifest.shards.format, "shards.values": manifest.tensor.values}
    here |= {"shards.format": shards.format, "shards.values": shards.values}
    there["shards.encoding"], here["shards.encoding"] = manifest.tensor.encoding, shards.encoding
    there["shards.patches"] = manifest.shards.patches
    here["shards.patches"] = manifest.shards.patches if shards.patches == "auto" else shards.patches
    if shards.values == "normalized":
        there["shards.dtype"], here["shards.dtype"] = manifest.tensor.dtype, shards.dtype
    there["ingest.labels"] = sorted(manifest.labels)
    here["ingest.labels"] = sorted(label_name(name) for name in config.ingest.labels)
    genes = config.ingest.genes
    vocabulary: dict[str, Any] = dict(manifest.channels).get("vocabulary", {})  # type: ignore[assignment]
    there["ingest.genes.vocabulary"] = vocabulary.get("sha256")
    here["ingest.genes.vocabulary"] = None if genes.vocabulary is None else sha256_file(genes.vocabulary)
    if "identity" in vocabulary:
        there["ingest.genes.identity"], here["ingest.genes.identity"] = vocabulary["identity"], genes.identity
    return {key: (there[key], here[key]) for key in there if there[key] != here[key]}


def _counts_channels(config: Config) -> bool:
    """Whether ``channels.n`` says how many channels there are."""
    channels = config.channels
    return channels.scope == "patch" or (PANEL_RULES.get(channels.method).scored and channels.method != "all")


def _slide_problems(parent: Parent, config: Config, listed: Mapping[str, Path]) -> list[StpatchError]:
    problems: list[StpatchError] = []
    for slide_id in config.slides.withdraw:
        if slide_id not in parent.slides:
            near = difflib.get_close_matches(slide_id, parent.slides, n=1)
            problems.append(
                ConfigError(
                    "the dataset that is extended has no such slide",
                    where="key slides.withdraw",
                    found=slide_id,
                    hint=f"did you mean {near[0]!r}?" if near else "see its slides.parquet",
                )
            )
    keys = {key_text(slide_id): slide_id for slide_id in parent.slides}
    for slide_id, path in listed.items():
        other = keys.get(key_text(slide_id), slide_id)
        if other != slide_id:
            problems.append(
                ConfigError(
                    "two slide_ids give one sample key",
                    where=f"slide {slide_id}, and slide {other} of {parent.folder}",
                    found=f"{slide_id} and {other}",
                    expected="ids that differ in more than case or punctuation",
                    hint="rename the new one",
                )
            )
        elif slide_id in parent.slides and slide_id not in config.slides.withdraw:
            problems += _changed_input(parent, slide_id, path)
    return problems


def _changed_input(parent: Parent, slide_id: str, path: Path) -> list[StpatchError]:
    """Refuse a slide under a known id whose file has another size than the one that the parent was made from."""
    inputs = {item["name"]: item["bytes"] for item in json.loads(parent.slides[slide_id]["inputs"])}
    sizes = {
        name: file.stat().st_size
        for name in inputs
        if (file := path / name if path.is_dir() else path).is_file() and file.name == name
    }
    changed = [f"{name}: {size} bytes" for name, size in sizes.items() if size != inputs[name]]
    if not changed:
        return []
    return [
        InputError(
            "a slide of the dataset that is extended has other files now",
            where=f"slide {slide_id}, {path}",
            found="; ".join(changed[:_LISTED]),
            expected="; ".join(f"{name}: {inputs[name]} bytes" for name in sizes if sizes[name] != inputs[name]),
            hint="a slide of an earlier version is taken over as it is: give the new files another slide_id, and take "
            f"the old ones out (slides.withdraw: [{slide_id}]) if they are wrong",
        )
    ]
