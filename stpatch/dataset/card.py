"""The dataset card: README.md with Hugging Face front matter, and snippets that read the dataset."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stpatch.dataset.entries import FileEntry, write_file
from stpatch.dataset.manifest import Manifest
from stpatch.dataset.planes import DIMS, GENES_KIND, LABEL, LABEL_KIND, TOTALS_KIND, VALUES_KIND, Plane
from stpatch.dataset.training_loop import training_loop
from stpatch.registry import ENCODINGS, FORMATS
from stpatch.storage import canonical_json

CARD = "README.md"
_SIZES = (
    (10**3, "n<1K"),
    (10**4, "1K<n<10K"),
    (10**5, "10K<n<100K"),
    (10**6, "100K<n<1M"),
    (10**7, "1M<n<10M"),
    (10**8, "10M<n<100M"),
    (10**9, "100M<n<1B"),
)
_FORMULAS = {
    "total": "x * (target_sum / totals)",
    "log1p_total": "numpy.log1p(x * (target_sum / totals))",
    "sqrt_total": "numpy.sqrt(x * (target_sum / totals))",
}


def write_card(folder: Path, manifest: Manifest) -> FileEntry:
    """Write ``README.md`` into the dataset's folder; return its entry."""
    return write_file(folder, CARD, card(manifest).encode())


def card(manifest: Manifest) -> str:
    """Return the card's text; the same manifest gives the same text."""
    parts = [_front_matter(manifest), _words(manifest), _fields(manifest), _tables(manifest), _reading(manifest)]
    parts += [_sources(manifest)] if manifest.dataset.get("sources") else []
    return "\n".join(parts)


def size_category(patches: int) -> str:
    """Return the Hub's size category of a number of samples."""
    return next((name for limit, name in _SIZES if patches < limit), "n>1B")


def _front_matter(manifest: Manifest) -> str:
    dataset = manifest.dataset
    lines = ["---"]
    if str(dataset.get("license", "unknown")) != "unknown":
        lines.append(f"license: {_quoted(str(dataset['license']).lower())}")
    lines.append(f"pretty_name: {_quoted(dataset.get('name', ''))}")
    tags = ["spatial-transcriptomics", "biology", "gene-expression"]
    format_ = FORMATS.get(manifest.layout.format)
    tags.append(format_.tag)
    lines += ["tags:", *(f"- {tag}" for tag in tags)]
    lines += ["size_categories:", f"- {size_category(manifest.patches)}"]
    lines += ["configs:", *format_.front_matter(manifest), "---", ""]
    return "\n".join(lines)


def _words(manifest: Manifest) -> str:
    layout, dataset = manifest.layout, manifest.dataset
    channels, height, width = layout.shape
    lines = [f"# {dataset.get('name')} {dataset.get('version', '')}".rstrip(), ""]
    if dataset.get("description"):
        lines += [str(dataset["description"]), ""]
    lines += [
        "Patches of spatial transcriptomics slides: a slide is an image whose pixels are spots and whose channels are "
        "genes. Made by stpatch.",
        "",
        f"A patch is `x` of shape ({channels}, {height}, {width}) = ({', '.join(DIMS)}), {layout.dtype} "
        f"{'counts' if manifest.values == 'counts' else 'normalized values'}"
        + (" (height and width differ between samples; these are the largest)." if layout.variable else "."),
        "",
        "| split | patches | spots in them | shards | bytes |",
        "|---|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {name} | {split.patches:,} | {split.spots:,} | {len(split.shards):,} | {split.bytes:,} |"
        for name, split in manifest.splits.items()
    ]
    if (fit_on := manifest.channels.get("fit_on")) is not None:
        lines += ["", _fit_words(str(fit_on))]
    return "\n".join([*lines, ""])


def _fit_words(fit_on: str) -> str:
    """Say which slides chose the genes: what a held-out split may not know."""
    if fit_on == "all":
        return "Genes, channels and the moments of genes.parquet were chosen on all slides, whatever their split."
    return (
        f"Genes, channels and the moments of genes.parquet were chosen on the slides of split {fit_on} alone; each "
        "slide is normalized by itself."
    )


def _fields(manifest: Manifest) -> str:
    layout = manifest.layout
    format_ = FORMATS.get(layout.format)
    rows = [(format_.field_name(plane), _plane_words(plane, manifest)) for plane in layout.planes]
    rows += format_.further_fields(layout)
    lines = [
        "## Fields",
        "",
        "| field | what |",
        "|---|---|",
        *(f"| `{name}` | {_cell(what)} |" for name, what in rows),
    ]
    return "\n".join([*lines, "", *_normalization(manifest)])


def _plane_words(plane: Plane, manifest: Manifest) -> str:
    """Return what a plane holds."""
    if plane.kind == VALUES_KIND:
        return f"{_x_words(manifest)}: {plane.dtype}, rows are y"
    if plane.kind == LABEL_KIND:
        return f"(H, W) int16, -1 = none: {_few(manifest.labels[plane.name.removeprefix(LABEL)])}"
    known = {
        TOTALS_KIND: "(H, W) float32, a pixel's count over all genes; 0 marks an empty pixel",
        GENES_KIND: f"(C,) int32 gene ids of the channels, see genes.parquet; {manifest.pad_id} = pad",
    }
    further = f"({', '.join(plane.dims)}) {plane.dtype}, {plane.kind}; {plane.fill} where there is none"
    return known.get(plane.kind, further)


def _x_words(manifest: Manifest) -> str:
    layout = manifest.layout
    return FORMATS.get(layout.format).x_words(ENCODINGS.get(layout.encoding).words)


def _few(categories: Sequence[str], most: int = 12) -> str:
    more = f", ... ({len(categories)} in all, see manifest.json)" if len(categories) > most else ""
    return ", ".join(categories[:most]) + more


def _normalization(manifest: Manifest) -> list[str]:
    method = str(manifest.normalization["method"])
    if manifest.values == "normalized":
        return [f"The values are normalized already, by `{method}`.", ""]
    if method not in _FORMULAS:
        return ["The values are raw counts, meant to be used as they are.", ""]
    return [
        f"The values are raw counts; `{method}` is `{_FORMULAS[method]}` where `totals > 0`, else 0, with the slide's "
        "`target_sum` of slides.parquet.",
        "",
    ]


def _tables(manifest: Manifest) -> str:
    where = "channel axis: column `channel`" if not manifest.layout.genes else "ids that `genes` holds"
    return "\n".join(
        [
            "## Tables",
            "",
            f"- `genes.parquet`: the vocabulary ({where}) and its moments.",
            "- `slides.parquet`: a row a slide: inputs, grid, QC, and a bit mask of measured genes: bit `gene_id`, "
            "least significant first. A gene that a slide did not measure is not a zero.",
            "- `patches.parquet`: a row a sample in the order of the shards, with place, coverage and byte range.",
            "- `manifest.json`: everything else, with the SHA-256 of every file.",
            "",
        ]
    )


def _reading(manifest: Manifest) -> str:
    split = next((name for name, split in manifest.splits.items() if split.shards), None)
    if split is None:
        return ""
    own = [
        "import stpatch",
        "",
        f'dataset = stpatch.open(".", split="{split}", values="normalized")',
        "sample = dataset[0]",
        "print(sample.key, sample.x.shape, sample.x.dtype, len(dataset))",
    ]
    lines = ["## Reading", "", "Each of these runs in the dataset's folder.", ""]
    lines += ["### stpatch", "", "Random access, normalization, which genes were measured:", "", *_fenced(own)]
    if not manifest.layout.variable:
        words = (
            "Training with PyTorch: spots are tokens, half of them are hidden and predicted, and a channel is known by"
        )
        lines += [f"{words} its gene.", "", *_fenced(training_loop(".", split).splitlines())]
    for title, words, snippet in FORMATS.get(manifest.layout.format).snippets(manifest, split):
        lines += [f"### {title}", "", *([words, ""] if words else []), *_fenced(snippet)]
    lines += FORMATS.get(manifest.layout.format).further_reading(manifest, split)
    return "\n".join(lines)


def _sources(manifest: Manifest) -> str:
    """Return the publications that the slides come from, with their licences."""
    rows = []
    for source in manifest.dataset.get("sources", []):
        doi = f"https://doi.org/{source['doi']}" if source.get("doi") else source.get("url", "")
        cells = [source.get("title", ""), source.get("authors", ""), str(source.get("year", "")), doi]
        rows.append([*cells, ", ".join(source.get("licenses", [])) or "not told", str(source.get("slides", ""))])
    table = [f"| {' | '.join(_cell(cell) for cell in row)} |" for row in rows]
    head = ["## Sources", "", "| title | authors | year | where | licence | slides |", "|---|---|---|---|---|---:|"]
    return "\n".join([*head, *table, ""])


def _fenced(lines: list[str]) -> list[str]:
    return ["```python", *lines, "```", ""]


def _quoted(text: Any) -> str:
    """Return a text as a YAML scalar: JSON's strings are YAML's."""
    return canonical_json(str(text))


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
