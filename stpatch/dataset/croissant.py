"""``croissant.json``: the dataset in the words of MLCommons Croissant 1.1, with what its RAI extension asks for.

Every file is there with its size and SHA-256, but the manifest, which names this file. The tables are record sets, so
that ``mlcroissant`` loads their rows; shards are files, as no reader of Croissant decodes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stpatch.dataset.entries import FileEntry
from stpatch.dataset.manifest import Manifest
from stpatch.dataset.tables import GENES, SLIDES, patch_columns

_TYPES = {
    "int32": "cr:Int32",
    "int64": "cr:Int64",
    "float64": "cr:Float64",
    "float32": "cr:Float32",
    "string": "sc:Text",
}
_KINDS = {".parquet": "application/x-parquet", ".tar": "application/x-tar", ".json": "application/json"}
_RENAMED: tuple[str, ...] = (
    "citeAs",
    "column",
    "containedIn",
    "arrayShape",
    "equivalentProperty",
    "extract",
    "field",
    "fileProperty",
)
_RENAMED += ("fileObject", "fileSet", "format", "includes", "isArray", "isLiveDataset", "jsonPath", "key", "md5")
_RENAMED += (
    "parentField",
    "path",
    "recordSet",
    "references",
    "regex",
    "repeated",
    "replace",
    "samplingRate",
    "separator",
)
_RENAMED += ("source", "subField", "transform")
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "description": {"@container": "@language"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "name": {"@container": "@language"},
    **{name: f"cr:{name}" for name in _RENAMED},
}


def croissant(
    manifest: Manifest, *, creators: Sequence[str], url: str, date: str | None, cite_as: str, slides: Mapping[str, int]
) -> dict[str, Any]:
    """Return the JSON values of ``croissant.json``.

    Parameters
    ----------
    creators
        Names of who releases the dataset.
    url, date
        Where it will be, and the day of its publication (ISO), None where that is not known yet.
    cite_as
        BibTeX of the dataset.
    slides
        Number of slides by platform.
    """
    dataset = manifest.dataset
    license_ = str(dataset.get("license", "unknown"))
    files = [file for file in manifest.all_files() if file.path not in ("croissant.json", "SHA256SUMS")]
    value: dict[str, Any] = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": ["http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0"],
        "name": dataset.get("name", "dataset"),
        "description": dataset.get("description") or "Patches of spatial transcriptomics slides.",
        "version": str(dataset.get("version", "1.0.0")),
        "url": url,
        "citeAs": cite_as,
        "keywords": ["spatial transcriptomics", "gene expression", *slides],
        "distribution": [_file(file) for file in files],
        "recordSet": [_record_set(name, columns) for name, columns in _tables(manifest).items()],
        **_rai(manifest, slides),
    }
    if license_ != "unknown":
        value["license"] = f"https://spdx.org/licenses/{license_}.html"
    if creators:
        value["creator"] = [{"@type": "sc:Person", "name": name} for name in creators]
    if date is not None:
        value["datePublished"] = date
    return value


def _file(file: FileEntry) -> dict[str, Any]:
    kind = next((kind for end, kind in _KINDS.items() if file.path.endswith(end)), "application/octet-stream")
    return {
        "@type": "cr:FileObject",
        "@id": file.path,
        "name": file.path,
        "contentUrl": file.path,
        "contentSize": f"{file.bytes} B",
        "sha256": file.sha256,
        "encodingFormat": kind,
    }


def _tables(manifest: Manifest) -> dict[str, Mapping[str, str]]:
    return {"patches": patch_columns(manifest.layout, draws=manifest.draws), "slides": SLIDES, "genes": GENES}


def _record_set(name: str, columns: Mapping[str, str]) -> dict[str, Any]:
    key = {"patches": "key", "slides": "slide_id", "genes": "gene_id"}[name]
    fields = [
        {
            "@type": "cr:Field",
            "@id": f"{name}/{column}",
            "name": column,
            "dataType": _TYPES.get(kind.rstrip("?"), "sc:Integer"),
            "source": {"fileObject": {"@id": f"{name}.parquet"}, "extract": {"column": column}},
        }
        for column, kind in columns.items()
        if kind != "binary"
    ]
    return {"@type": "cr:RecordSet", "@id": name, "name": name, "key": {"@id": f"{name}/{key}"}, "field": fields}


def _rai(manifest: Manifest, slides: Mapping[str, int]) -> dict[str, Any]:
    """Return the members of the RAI extension, from what the manifest knows."""
    counted = ", ".join(f"{count} of {platform}" for platform, count in slides.items())
    channels, crop = manifest.channels, manifest.crop
    return {
        "rai:dataCollection": f"Slides of spatial transcriptomics, measured by others: {counted}; see slides.parquet.",
        "rai:dataCollectionType": ["Secondary Data Analysis"],
        "rai:dataPreprocessingProtocol": [
            "Spots that quality control refused were left out; slides.parquet counts them.",
            f"Spots were laid on a grid ({manifest.grid.get('method')}); patches were cut by {crop.get('method')}.",
            f"Channels are genes by {channels.get('method')}, scope {channels.get('scope')}.",
            f"Values are {manifest.values}; the normalization is {manifest.normalization['method']}.",
        ],
        "rai:dataLimitations": "A gene that a slide did not measure is not a zero: see slides.parquet.",
        "rai:dataBiases": "Tissues, donors and platforms are those of the slides and represent no population.",
        "rai:dataUseCases": "Training and evaluation of models of spatial gene expression; not for diagnosis.",
        "rai:personalSensitiveInformation": "The samplesheet's metadata in slides.parquet; counts, no reads.",
    }
