"""A job: one config, its slides, and where everything of it lies. All stages work on it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stpatch.config import Config
from stpatch.errors import StpatchError
from stpatch.slides.sheet import read_sources
from stpatch.slides.source import SlideSource
from stpatch.stages.provenance import CodeIndex, installation_cache, library_versions
from stpatch.stages.receipts import Checksums, InputFile, Output, Receipt, ReceiptBook, measure
from stpatch.storage import sha256_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stpatch.stages.parent import Parent

SLIDE_STAGES = ("ingest", "normalize", "crop")
"""The stages that a slide goes through, in order."""


@dataclass(frozen=True)
class Outcome:
    """What a unit made and from which files: its outputs (with their checksum where known), facts for later stages."""

    outputs: Sequence[tuple[Path, str | None]] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    inputs: Sequence[InputFile] = ()


@dataclass(frozen=True)
class Job:
    """A config with its slides; paths of the work dir and the output folder."""

    config: Config

    @cached_property
    def sources(self) -> dict[str, SlideSource]:
        """The slides to build by id, in samplesheet order.

        Those that the dataset that is extended has, or had until they were withdrawn, are not among them.
        """
        known = set(self.config.slides.withdraw)
        if self.parent is not None:
            known |= {*self.parent.slides, *self.parent.withdrawn}
        return {slide_id: source for slide_id, source in self.listed.items() if slide_id not in known}

    @cached_property
    def listed(self) -> dict[str, SlideSource]:
        """All slides that the config lists, by id, in samplesheet order."""
        return {source.slide_id: source for source in read_sources(self.config.slides)}

    @cached_property
    def parent(self) -> Parent | None:
        """The dataset that this one extends, None for a dataset of its own."""
        from stpatch.stages.parent import Parent

        folder = self.config.dataset.extends
        return None if folder is None else Parent.open(folder)

    @cached_property
    def gives_splits(self) -> bool:
        """Whether the samplesheet gives a slide its split."""
        return any(source.split for source in self.sources.values())

    @property
    def work(self) -> Path:
        """The work dir."""
        return self.config.work_dir

    @property
    def url(self) -> str | None:
        """Where the finished dataset is copied to, if ``dataset.output`` is a URL."""
        output = self.config.dataset.output
        return output if isinstance(output, str) else None

    @property
    def place(self) -> Path:
        """The dataset's folder, where readers look for it; that it is built in where ``dataset.output`` is a URL."""
        return self.config.output_folder

    @property
    def output(self) -> Path:
        """The folder that stages write the dataset to: its own, or the one beside while a finished one is replaced."""
        return self.beside if self.replacing else self.place

    @property
    def beside(self) -> Path:
        """Where a dataset is made that is to replace the finished one: on the same file system."""
        place = self.place.resolve()
        return place.with_name(f"{place.name}.next")

    @property
    def replacing_path(self) -> Path:
        """Where it stands that a finished dataset is being replaced, see `stpatch.engine.replace`."""
        return self.work / "replacing.json"

    @property
    def replacing(self) -> bool:
        """Whether a finished dataset is being replaced; any process may have begun with it."""
        return os.path.exists(self.replacing_path)  # noqa: PTH110 - it is asked for every output of every unit

    @property
    def roots(self) -> Mapping[str, Path]:
        """The two folders that outputs lie in, by name."""
        return {"work": self.work, "output": self.output}

    @cached_property
    def book(self) -> ReceiptBook:
        """The receipts."""
        return ReceiptBook(self.work / "receipts")

    @cached_property
    def checksums(self) -> Checksums:
        """The checksums of outputs that this process has checked."""
        return Checksums()

    @cached_property
    def known(self) -> dict[str, Any]:
        """What stages have worked out once for all of their units, by name: from the config and the files it names."""
        return {}

    @cached_property
    def code(self) -> CodeIndex:
        """The digests of the code that stages run."""
        caches = (installation_cache(), self.work / "code.json")
        return CodeIndex(caches=[path for path in caches if path is not None])

    def library_versions(self, names: Iterable[str]) -> dict[str, str]:
        """Return the versions of installed libraries; each is looked up once per job, not once per unit."""
        new = [name for name in names if name not in self._asked]
        self._asked.update(dict.fromkeys(new), **library_versions(new))
        return {name: version for name in names if (version := self._asked[name]) is not None}

    @cached_property
    def _asked(self) -> dict[str, str | None]:
        return {}

    def slide_path(self, slide_id: str) -> Path:
        """Return where the canonical slide lies."""
        return self.work / "slides" / f"{slide_id}.h5ad"

    def totals_path(self, slide_id: str) -> Path:
        """Return where the per-spot totals and largest counts lie."""
        return self.work / "slides" / f"{slide_id}.totals.npy"

    def totals(self, slide_id: str) -> dict[str, NDArray[Any]]:
        """Return the (spots,) float64 ``totals`` over all measured genes, and each spot's ``largest`` count."""
        from stpatch.record import read_record

        return read_record(self.totals_path(slide_id), what="a slide's totals", stage="ingest")

    def statistics_path(self, slide_id: str) -> Path:
        """Return where the per-gene statistics lie."""
        return self.work / "statistics" / f"{slide_id}.npy"

    def patches_path(self, slide_id: str) -> Path:
        """Return where the pixel grid and patches lie."""
        return self.work / "patches" / f"{slide_id}.npy"

    @property
    def channels_path(self) -> Path:
        """Vocabulary and channels."""
        return self.work / "channels.json"

    @property
    def plan_path(self) -> Path:
        """The ordered samples of every split."""
        return self.work / "plan.npz"

    def rows_path(self, task: str) -> Path:
        """Return where the table of a shard's samples lies."""
        return self.work / "rows" / f"{task}.npz"

    def receipt(self, stage: str, unit: str) -> Receipt:
        """Return the receipt of a unit that must be done.

        Raises
        ------
        StpatchError
            It is not.
        """
        receipt = self.book.receipt(stage, unit)
        if receipt is None:
            raise StpatchError(
                f"stage {stage} is not finished",
                where=f"work dir {self.work}",
                found=f"no receipt of {unit}",
                hint=f"run it first: stpatch run {stage} CONFIG",
            )
        return receipt

    def receipts(self, stage: str, slides: Iterable[str] | None = None) -> dict[str, Receipt]:
        """Return the receipts of the slides that went through a stage, in samplesheet order; `slides` are all if None.

        Slides that failed (``run.on_error: skip``) are left out; where a slide has neither receipt nor failure, the
        stage is not finished.

        Raises
        ------
        StpatchError
            The stage is not finished, or no slide went through it.
        """
        found: dict[str, Receipt] = {}
        missing: list[str] = []
        failed: list[str] = []
        for slide_id in self.sources if slides is None else slides:
            receipt = self.book.receipt(stage, slide_id)
            if self.failed(slide_id, until=stage):  # a receipt beside it is of an earlier run
                failed.append(slide_id)
            elif receipt is not None:
                found[slide_id] = receipt
            else:
                missing.append(slide_id)
        if failed and self.config.run.on_error == "stop":
            raise StpatchError(
                "some slides have failed",
                where=f"stage {stage}, work dir {self.work}",
                found=_listed(failed),
                hint="stpatch status says why; repair the slides, or set run.on_error: skip",
            )
        if missing:
            raise StpatchError(
                f"stage {stage} is not finished",
                where=f"work dir {self.work}",
                found=f"no receipt of {_listed(missing)}",
                hint=f"run it first: stpatch run {stage} CONFIG",
            )
        if self.sources and len(failed) == len(self.sources):
            raise StpatchError(
                "no slide is left: all have failed",
                where=f"stage {stage}",
                found=_listed(failed),
                hint="stpatch status says why each slide failed; repair them and run again",
            )
        return found

    def failed(self, slide_id: str, *, until: str = SLIDE_STAGES[-1]) -> bool:
        """Whether a slide failed in one of its stages, up to `until`."""
        stages = SLIDE_STAGES[: SLIDE_STAGES.index(until) + 1]
        return any(self.book.failure(stage, slide_id) for stage in stages)

    def measured(self, path: Path, sha256: str | None = None) -> Output:
        """Return what a receipt says of an output of this job: where it lies, its size and SHA-256."""
        for root, base in self.roots.items():
            if path.is_relative_to(base):
                return measure(path, root=root, base=base, sha256=sha256)
        raise StpatchError("an output lies outside the job's folders", where=path)


def file_digest(path: Path | None) -> str | None:
    """Return a file's SHA-256 for a request, None for no file."""
    return None if path is None or not path.is_file() else sha256_file(path)


def _listed(names: Sequence[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
