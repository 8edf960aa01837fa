"""The normalizations by name: what each is and what may be done with it. Their arithmetic is defined elsewhere, once.

The table imports nothing numerical, because the config takes its choices from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, kw_only=True)
class NormalizationKind:
    """One normalization.

    Attributes
    ----------
    formula
        The value of a count, for people.
    source
        Where it is published, or the function whose result it equals.
    scaled
        Whether a count is divided by its spot's total, so that a target sum is needed.
    keeps_zeros
        Whether a count of 0 becomes a value of 0, so that sparse stays sparse.
    whole_slide
        Whether a value depends on the slide's other spots, so that a pixel's counts and total do not give it back.
    """

    formula: str
    source: str
    scaled: bool = False
    keeps_zeros: bool = True
    whole_slide: bool = False


NORMALIZATIONS: Mapping[str, NormalizationKind] = MappingProxyType(
    {
        "none": NormalizationKind(formula="count", source="the input"),
        "total": NormalizationKind(
            formula="count * target_sum / total", source="equals scanpy.pp.normalize_total", scaled=True
        ),
        "log1p_total": NormalizationKind(
            formula="log(1 + count * target_sum / total)",
            source="equals scanpy.pp.log1p after scanpy.pp.normalize_total",
            scaled=True,
        ),
        "sqrt_total": NormalizationKind(
            formula="sqrt(count * target_sum / total)",
            source="equals scanpy.pp.sqrt after scanpy.pp.normalize_total",
            scaled=True,
        ),
        "pearson_residuals": NormalizationKind(
            formula="(count - mu) / sqrt(mu + mu**2 / theta), mu = total * share of the gene",
            source="Lause et al. 2021; equals scanpy.experimental.pp.normalize_pearson_residuals",
            keeps_zeros=False,
            whole_slide=True,
        ),
    }
)


def normalization_names() -> tuple[str, ...]:
    """Return all names."""
    return tuple(NORMALIZATIONS)


def names_given_back_by_counts() -> tuple[str, ...]:
    """Return the normalizations that a pixel's counts and total give back, so that counts alone may be stored."""
    return tuple(name for name, kind in NORMALIZATIONS.items() if not kind.whole_slide)
