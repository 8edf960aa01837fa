"""What one slide tells the panel rules: moments, totals, and the scores that need a pass over the slide."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from stpatch.errors import DatasetError, InputError
from stpatch.expression.moments import CountMoments, ValueMoments, slide_moments
from stpatch.expression.moran import MoranSums
from stpatch.expression.normalize import Normalization, spot_totals
from stpatch.expression.rules.base import CountRule, RuleSpec
from stpatch.record import read_record, write_record
from stpatch.slides.slide import Slide
from stpatch.storage import canonical_json

FORMAT = 2
_MOMENTS = ("counts", "values", "scaled")
_MORAN = ("cross", "edge", "weight")


@dataclass(frozen=True, kw_only=True)
class SlideStatistics:
    """Statistics of one slide.

    Attributes
    ----------
    slide_id
        As in `Slide`.
    genes
        Names of the measured genes, in the slide's column order; the arrays below follow it.
    totals
        (spots,) float64, counts over all measured genes.
    normalization
        The slide's normalization, every number resolved.
    counts
        Moments of the raw counts.
    values
        Moments of the normalized values.
    scaled
        Moments of the values before logarithm or square root (``counts * target_sum / total``); None where the
        normalization does not scale.
    moran
        What Moran's I is made of; None where no rule asked for it.
    scores
        (genes,) float64 per `RuleSpec.score_key` of the rules that model raw counts; NaN = no score.
    """

    slide_id: str
    genes: tuple[str, ...]
    totals: NDArray[np.float64]
    normalization: Normalization
    counts: CountMoments
    values: ValueMoments
    scaled: ValueMoments | None
    moran: MoranSums | None = None
    scores: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    @property
    def n_spots(self) -> int:
        """Number of spots."""
        return len(self.totals)

    def save(self, path: Path) -> None:
        """Write one file, atomically; equal statistics give equal bytes."""
        header = {
            "format": FORMAT,
            "slide_id": self.slide_id,
            "method": self.normalization.method,
            "target_sum": self.normalization.target_sum,
            "theta": self.normalization.theta,
        }
        arrays: dict[str, NDArray[Any]] = {"totals": self.totals}
        for name in _MOMENTS:
            part = getattr(self, name)
            if part is not None:
                arrays |= {f"{name}.{key}": value for key, value in vars(part).items() if key != "n"}
        if self.moran is not None:
            arrays |= {f"moran.{key}": np.asarray(getattr(self.moran, key)) for key in _MORAN}
        arrays |= {f"score.{key}": value for key, value in self.scores.items()}
        write_record(path, arrays | {"genes": _text(list(self.genes)), "header": _text(header)})

    @classmethod
    def load(cls, path: Path, *, sha256: str | None = None) -> Self:
        """Read what `save` wrote.

        Parameters
        ----------
        sha256
            The file's checksum, as its receipt has it; None: not checked.

        Raises
        ------
        DatasetError
            The file does not hold statistics, is not the one that was written, or is of another format version.
        """
        arrays = read_record(path, what="a slide's statistics", stage="normalize", sha256=sha256)
        try:
            header = json.loads(arrays["header"].tobytes())
            genes = _gene_names(arrays["genes"].tobytes())
        except (ValueError, KeyError) as error:
            raise DatasetError(
                "a slide's statistics cannot be read", where=path, found=error, hint="run the normalize stage again"
            ) from error
        if header["format"] != FORMAT:
            raise DatasetError(
                "a slide's statistics are of another format version",
                where=path,
                found=header["format"],
                expected=FORMAT,
                hint="run the normalize stage again",
            )
        parts: dict[str, dict[str, NDArray[Any]]] = {}
        for key, value in arrays.items():
            name, sign, column = key.partition(".")
            if sign:
                parts.setdefault(name, {})[column] = value
        totals = arrays["totals"]
        n = np.full(len(genes), len(totals), dtype=np.int64)
        counts = CountMoments(n=n, **parts["counts"])
        values = ValueMoments(n=n, **parts["values"])
        return cls(
            slide_id=header["slide_id"],
            genes=genes,
            totals=totals,
            normalization=_normalization(header, counts, len(totals)),
            counts=counts,
            values=values,
            scaled=ValueMoments(n=n, **parts["scaled"]) if "scaled" in parts else None,
            moran=MoranSums(values=values, **parts["moran"]) if "moran" in parts else None,
            scores=parts.get("score", {}),
        )


def slide_statistics(
    slide: Slide,
    *,
    normalization: Normalization,
    rules: Sequence[RuleSpec] = (),
    totals: NDArray[np.float64] | None = None,
) -> SlideStatistics:
    """Compute a slide's statistics.

    Parameters
    ----------
    slide
        A canonical slide.
    normalization
        Resolved for this slide (`resolve_normalization`).
    rules
        The rules that the corpus will be asked for; they say which scores are needed beside the moments.
    totals
        (spots,) float64, counts over all measured genes, where the caller has them.
    """
    if totals is None:
        totals = spot_totals(slide.counts)
    counts, values, scaled = slide_moments(slide.counts, totals, normalization)
    return SlideStatistics(
        slide_id=slide.slide_id,
        genes=tuple(slide.genes.index.astype(str)),
        totals=totals,
        normalization=normalization,
        counts=counts,
        values=values,
        scaled=scaled,
        moran=MoranSums.of(slide, totals, normalization, values)
        if any("neighbours" in rule.rule.needs for rule in rules)
        else None,
        scores=dict(_scores(rules, slide, totals, counts)),
    )


def _scores(
    rules: Sequence[RuleSpec], slide: Slide, totals: NDArray[np.float64], counts: CountMoments
) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Yield the (genes,) scores, by key, of the rules that need them from the slide's own matrix."""
    for rule in rules:
        method, key = rule.rule, rule.score_key
        if isinstance(method, CountRule) and key is not None:
            require_counts(counts, rule.method, where=slide.slide_id)
            yield key, method.score_slide(rule, slide, totals, counts)


def require_counts(counts: CountMoments, method: str, *, where: object = None) -> None:
    """Raise `InputError` where a rule that models raw counts is given other values."""
    if counts.total.dtype.kind == "f":
        raise InputError(
            f"rule {method} models raw counts, and the input is normalized already",
            where=where or "channels.method",
            found="ingest.values: normalized",
            hint="choose variance, mean, detected or hvg_cell_ranger, or give raw counts",
        )


def _normalization(header: Mapping[str, Any], counts: CountMoments, n_spots: int) -> Normalization:
    if header["method"] != "pearson_residuals":
        return Normalization(method=header["method"], target_sum=header["target_sum"], theta=header["theta"])
    sums = counts.total.astype(np.float64)
    return Normalization(
        method=header["method"],
        theta=header["theta"],
        gene_sums=sums,
        grand_total=float(sums.sum()),
        n_spots=n_spots,
    )


@lru_cache(maxsize=2)
def _gene_names(text: bytes) -> tuple[str, ...]:
    """Parse a list of names; neighbouring slides most often have the same one, which is then parsed once."""
    return tuple(json.loads(text))


def _text(value: Any) -> NDArray[np.uint8]:
    return np.frombuffer(canonical_json(value).encode(), dtype=np.uint8)
