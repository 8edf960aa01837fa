"""A dataset made ready for the public: what is missing for it, and the files that strangers look for.

    CITATION.cff  sources.bib     how to cite the dataset and what it was made from
    croissant.json                the dataset in the words of MLCommons Croissant
    zenodo.json                   metadata for a deposit
    rebuild/config.yaml           the config, without places on the machine that built it
    SHA256SUMS                    of every file but the manifest, which names it and has a digest of its own

Nothing is sent anywhere. The card is written again, as the manifest's licence and sources may be new.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stpatch.dataset.card import write_card
from stpatch.dataset.croissant import croissant
from stpatch.dataset.entries import FileEntry, write_file
from stpatch.dataset.manifest import MANIFEST, SEALED_SINCE, Manifest, read_manifest
from stpatch.dataset.sources import bibtex, dataset_license, source_problems, sources_of
from stpatch.dataset.tables import SLIDES, read_table
from stpatch.errors import DatasetError
from stpatch.storage import canonical_json

SUMS = "SHA256SUMS"
CONFIG = "rebuild/config.yaml"
_PLACES = {"output", "work_dir"}


@dataclass(frozen=True, kw_only=True)
class Release:
    """What was written, what is missing, and how to go on.

    Attributes
    ----------
    digest
        Of the manifest as it is now; publish it beside the dataset.
    license
        Of the whole.
    missing
        What a public release should not be without.
    files
        Paths that were written.
    commands
        Lines of a shell that check the dataset and send it to hosts.
    """

    digest: str
    license: str
    missing: tuple[str, ...]
    files: tuple[str, ...]
    commands: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "digest": self.digest,
            "license": self.license,
            "missing": list(self.missing),
            "files": list(self.files),
            "commands": list(self.commands),
        }

    def text(self) -> str:
        """Return the report."""
        lines = [f"missing: {item}" for item in self.missing]
        lines += [f"written: {path}" for path in self.files]
        lines += [f"license: {self.license}", f"digest:  {self.digest}", "", "nothing was uploaded; to do so:", ""]
        return "\n".join([*lines, *(f"    {command}" for command in self.commands)])


def make_release(
    folder: Path,
    *,
    authors: Sequence[str] = (),
    doi: str = "",
    url: str = "",
    date: str | None = None,
    config: Mapping[str, Any] | None = None,
) -> Release:
    """Write the files of a release into a dataset's folder, and its manifest last.

    Parameters
    ----------
    folder
        The dataset's folder.
    authors
        Who releases it, as ``Family, Given``.
    doi, url, date
        Of the dataset, where they are known already; `date` is an ISO day.
    config
        The config that built it, as sections of keys.

    Raises
    ------
    DatasetError
        There is no such dataset, or it is of a format whose manifest names no further files.
    """
    manifest = read_manifest(folder)
    if manifest.version < SEALED_SINCE:
        raise DatasetError(
            "a dataset of this format cannot be released",
            where=folder,
            found=f"format {manifest.version}",
            expected=f"format {SEALED_SINCE} or later, whose manifest names every file",
            hint="build it again with this version of stpatch",
        )
    rows = (
        read_table(folder / manifest.tables["slides"].path, SLIDES)
        .select(["slide_id", "platform", "metadata"])
        .to_pylist()
    )
    metadata = {row["slide_id"]: _metadata(row, folder) for row in rows}
    license_ = dataset_license(str(manifest.dataset.get("license", "unknown")), list(metadata.values()))
    sources = sources_of(list(metadata.values()))
    dataset = {**manifest.dataset, "license": license_, **({"sources": sources} if sources else {})}
    manifest = manifest.model_copy(update={"dataset": dataset})
    manifest = manifest.with_files(write_card(folder, manifest))
    platforms = dict(sorted(Counter(str(row["platform"]) for row in rows).items()))
    title = f"{dataset.get('name')} {dataset.get('version', '')}".strip()
    cite_as = bibtex(
        [{"title": title, "authors": "; ".join(authors), "doi": doi, "url": url, "year": (date or "")[:4]}]
    )
    written = [
        write_file(folder, "CITATION.cff", _citation(dataset, sources, authors=authors, doi=doi, url=url, date=date)),
        write_file(folder, "sources.bib", bibtex(sources).encode()),
        write_file(folder, "zenodo.json", _json(_zenodo(dataset, sources, authors=authors))),
    ]
    if config is not None:
        written.append(write_file(folder, CONFIG, _config(config)))
    manifest = manifest.with_files(*written)
    told = croissant(
        manifest,
        creators=authors,
        url=url or f"https://doi.org/{doi}",
        date=date,
        cite_as=cite_as.strip(),
        slides=platforms,
    )
    manifest = manifest.with_files(write_file(folder, "croissant.json", _json(told)))
    manifest = manifest.with_files(write_file(folder, SUMS, _sums(manifest)))
    manifest.write(folder)
    missing = source_problems(metadata, license_)
    for value, what in ((authors, "--author"), (doi or url, "--doi or --url"), (date, "--date"), (config, "--config")):
        if not value:
            missing.append(f"{what} is not given: who made the release, where or when it is, or how to build it again")
    if not dataset.get("description"):
        missing.append("the dataset has no description: set dataset.description")
    return Release(
        digest=str(manifest.digest),
        license=license_,
        missing=tuple(missing),
        files=("README.md", *(file.path for file in written), "croissant.json", SUMS, MANIFEST),
        commands=_commands(folder, str(dataset.get("name")), str(manifest.digest)),
    )


def _metadata(row: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    try:
        value: dict[str, Any] = json.loads(row["metadata"])
    except ValueError as error:
        raise DatasetError("a slide's metadata cannot be read", where=f"{folder}, slide {row['slide_id']}") from error
    return value


def _person(author: str) -> dict[str, str]:
    family, _, given = (part.strip() for part in author.partition(","))
    return {"family-names": family, **({"given-names": given} if given else {})}


def _citation(
    dataset: Mapping[str, Any],
    sources: Sequence[Mapping[str, Any]],
    *,
    authors: Sequence[str],
    doi: str,
    url: str,
    date: str | None,
) -> bytes:
    """Return CITATION.cff 1.2.0, which is YAML."""
    import yaml

    value: dict[str, Any] = {
        "cff-version": "1.2.0",
        "type": "dataset",
        "message": "If you use this dataset, please cite it and the sources that it was made from.",
        "title": str(dataset.get("name")),
        "version": str(dataset.get("version", "")),
        "authors": [_person(author) for author in authors] or [{"name": "unknown"}],
    }
    if dataset.get("license", "unknown") != "unknown":
        value["license"] = dataset["license"]
    value |= {key: text for key, text in (("doi", doi), ("url", url), ("date-released", date)) if text}
    references = [
        {
            "type": "article" if source.get("doi") else "generic",
            "title": source.get("title") or source.get("doi") or source["url"],
            "authors": [_person(name) for name in str(source.get("authors", "")).split(";") if name.strip()]
            or [{"name": "unknown"}],
            **{key: source[key] for key in ("doi", "url") if source.get(key)},
            **({"year": int(source["year"])} if re.fullmatch(r"\d{4}", str(source.get("year", ""))) else {}),
        }
        for source in sources
        if source.get("title") or source.get("doi") or source.get("url")
    ]
    if references:
        value["references"] = references
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True).encode()


def _zenodo(
    dataset: Mapping[str, Any], sources: Sequence[Mapping[str, Any]], *, authors: Sequence[str]
) -> dict[str, Any]:
    """Return the metadata of a Zenodo deposit."""
    value = {
        "title": str(dataset.get("name")),
        "version": str(dataset.get("version", "")),
        "upload_type": "dataset",
        "description": str(dataset.get("description") or "Patches of spatial transcriptomics slides."),
        "creators": [{"name": author} for author in authors],
        "keywords": ["spatial transcriptomics", "gene expression"],
        "related_identifiers": [
            {"identifier": source["doi"], "relation": "isDerivedFrom", "scheme": "doi"}
            for source in sources
            if source.get("doi")
        ],
    }
    if dataset.get("license", "unknown") != "unknown":
        value["license"] = str(dataset["license"]).lower()
    return {"metadata": value}


def _config(sections: Mapping[str, Any]) -> bytes:
    """Return a config without the places of the machine that built the dataset, nor how its work was run."""
    import yaml

    value = {name: section for name, section in sections.items() if name != "run"}
    value["dataset"] = {k: v for k, v in value.get("dataset", {}).items() if k not in _PLACES} | {"output": "dataset"}
    return yaml.safe_dump(_without_places(value), sort_keys=False, allow_unicode=True).encode()


def _without_places(value: Any) -> Any:
    """Return values whose absolute paths are names alone."""
    if isinstance(value, Mapping):
        return {key: _without_places(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_places(item) for item in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def _json(value: Any) -> bytes:
    return (canonical_json(value, indent=1) + "\n").encode()


def _sums(manifest: Manifest) -> bytes:
    files: list[FileEntry] = [file for file in manifest.all_files() if file.path != SUMS]
    return "".join(f"{file.sha256}  {file.path}\n" for file in sorted(files, key=lambda file: file.path)).encode()


def _commands(folder: Path, name: str, digest: str) -> tuple[str, ...]:
    return (
        f"stpatch validate {folder} --deep --digest {digest}",
        f"(cd {folder} && sha256sum --check --quiet {SUMS})",
        f"huggingface-cli upload-large-folder YOUR_NAME/{name} {folder} --repo-type=dataset",
        f"tar --sort=name --owner=0 --group=0 -cf {name}.tar {folder}    # for a deposit; its metadata: zenodo.json",
        f"stpatch build {CONFIG}    # builds it again, where the samplesheet and the slides are",
    )
