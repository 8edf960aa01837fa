"""What one slide tells the panel rules: moments, totals, and the scores that need a pass over the slide."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from stpatch.errors import DatasetError, InputError
from stpatch.expression.moments import CountMoments, ValueMoments, ratio
from stpatch.expression.moran import MoranSums
from stpatch.expression.normalize import SCALED_METHODS, Normalization, spot_totals
from stpatch.expression.rules import COUNT_METHODS, RuleSpec
from stpatch.expression.vst import vst_score
from stpatch.slides.slide import Slide
from stpatch.storage import atomic_file, canonical_json

FORMAT = 1
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
        """Write an npz file (no pickle), atomically."""
        header = {
            "format": FORMAT,
            "slide_id": self.slide_id,
            "method": self.normalization.method,
            "target_sum": self.normalization.target_sum,
            "theta": self.normalization.theta,
        }
        arrays: dict[str, NDArray[Any]] = {
            "header": _text(header),
            "genes": _text(list(self.genes)),
            "totals": self.totals,
        }
        for name in _MOMENTS:
            part = getattr(self, name)
            if part is not None:
                arrays |= {f"{name}.{key}": value for key, value in vars(part).items()}
        if self.moran is not None:
            arrays |= {f"moran.{key}": getattr(self.moran, key) for key in _MORAN}
        arrays |= {f"score.{key}": value for key, value in self.scores.items()}
        with atomic_file(path) as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote.

        Raises
        ------
        DatasetError
            The file is no such file, or of another format version.
        """
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
                arrays = dict(file)
            header = json.loads(arrays["header"].tobytes())
            genes = tuple(json.loads(arrays["genes"].tobytes()))
        except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
            raise DatasetError(
                "slide statistics cannot be read", where=path, found=error, mend="run the normalize stage again"
            ) from error
        if header["format"] != FORMAT:
            raise DatasetError(
                "slide statistics are of another format version",
                where=path,
                found=header["format"],
                expected=FORMAT,
                mend="run the normalize stage again",
            )
        parts: dict[str, dict[str, NDArray[Any]]] = {}
        for key, value in arrays.items():
            name, sign, column = key.partition(".")
            if sign:
                parts.setdefault(name, {})[column] = value
        counts = CountMoments(**parts["counts"])
        values = ValueMoments(**parts["values"])
        totals = arrays["totals"]
        return cls(
            slide_id=header["slide_id"],
            genes=genes,
            totals=totals,
            normalization=_normalization(header, counts, len(totals)),
            counts=counts,
            values=values,
            scaled=ValueMoments(**parts["scaled"]) if "scaled" in parts else None,
            moran=MoranSums(values=values, **parts["moran"]) if "moran" in parts else None,
            scores=parts.get("score", {}),
        )


def slide_statistics(slide: Slide, *, normalization: Normalization, rules: Sequence[RuleSpec] = ()) -> SlideStatistics:
    """Compute a slide's statistics.

    Parameters
    ----------
    slide
        A canonical slide.
    normalization
        Resolved for this slide (`resolve_normalization`).
    rules
        The rules that the corpus will be asked for; they say which scores are needed beside the moments.
    """
    totals = spot_totals(slide.counts)
    counts = CountMoments.of(slide.counts)
    values = ValueMoments.of(slide.counts, totals, normalization)
    return SlideStatistics(
        slide_id=slide.slide_id,
        genes=tuple(slide.genes.index.astype(str)),
        totals=totals,
        normalization=normalization,
        counts=counts,
        values=values,
        scaled=_scaled(slide, totals, normalization, values),
        moran=MoranSums.of(slide, totals, normalization, values)
        if any(rule.method == "moran" for rule in rules)
        else None,
        scores={
            rule.score_key: _score(rule, slide, totals, counts)
            for rule in rules
            if rule.method in COUNT_METHODS and rule.score_key
        },
    )


def require_counts(counts: CountMoments, method: str, *, where: object = None) -> None:
    """Raise `InputError` where a rule that models raw counts is asked for values that are none."""
    if counts.total.dtype.kind == "f":
        raise InputError(
            f"rule {method} models raw counts, and the input is normalized already",
            where=where or "channels.method",
            found="ingest.values: normalized",
            mend="choose variance, mean, detected or hvg_cell_ranger, or give raw counts",
        )


def residual_variance(moments: ValueMoments) -> NDArray[np.float64]:
    """Return the (genes,) variance with n, as scanpy's residual variance is; 0 without spots."""
    return ratio(moments.m2, moments.n)


def _score(rule: RuleSpec, slide: Slide, totals: NDArray[np.float64], counts: CountMoments) -> NDArray[np.float64]:
    """Return the (genes,) score of a rule that needs a pass over the slide.

    ``pearson_residuals`` clips at the square root of this slide's own number of spots. (scanpy 1.11 with several
    batches clips all of them at the first one's.)
    """
    require_counts(counts, rule.method, where=slide.slide_id)
    if rule.method == "hvg_seurat_v3":
        return vst_score(slide.counts, counts, where=slide.slide_id)
    grand = totals.sum()
    shares = counts.total / grand if grand else np.zeros(slide.n_genes)
    clip = np.full(slide.n_genes, float(slide.n_spots) ** 0.5)
    return residual_variance(
        ValueMoments.of_residuals(slide.counts, totals, shares=shares, theta=rule.theta, clip=clip)
    )


def _scaled(
    slide: Slide, totals: NDArray[np.float64], normalization: Normalization, values: ValueMoments
) -> ValueMoments | None:
    if normalization.method not in SCALED_METHODS:
        return None
    if normalization.method == "total":
        return values
    linear = Normalization(method="total", target_sum=normalization.target_sum)
    return ValueMoments.of(slide.counts, totals, linear)


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


def _text(value: Any) -> NDArray[np.uint8]:
    return np.frombuffer(canonical_json(value).encode(), dtype=np.uint8)
