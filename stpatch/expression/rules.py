"""What a panel rule is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stpatch.errors import ConfigError

SIMPLE_METHODS = ("variance", "cv", "mean", "detected")
"""Rules that rank by one moment."""
COUNT_METHODS = ("hvg_seurat_v3", "pearson_residuals")
"""Rules that look at raw counts and need a pass over the slides."""
DISPERSION_METHODS = ("hvg_seurat", "hvg_cell_ranger")
RULE_METHODS = (*DISPERSION_METHODS, *COUNT_METHODS, *SIMPLE_METHODS, "moran", "list", "all")


@dataclass(frozen=True, kw_only=True)
class RuleSpec:
    """A panel rule.

    Attributes
    ----------
    method
        One of `RULE_METHODS`.
    n
        Genes to select; ``list`` and ``all`` take no notice of it.
    genes
        The names of ``list``, in order.
    across_slides
        ``pooled``: as if all spots were one matrix. ``rank``: each slide ranks its own genes, as `batch_key` of scanpy.
    scope
        ``panel``: one list for the corpus. ``slide``: the rule is run on every slide alone.
    theta
        Overdispersion of ``pearson_residuals``.
    """

    method: str
    n: int = 512
    genes: tuple[str, ...] = ()
    across_slides: Literal["pooled", "rank"] = "pooled"
    scope: Literal["panel", "slide"] = "panel"
    theta: float = 100.0

    def __post_init__(self) -> None:
        if self.method not in RULE_METHODS:
            raise ConfigError(
                f"unknown panel rule {self.method!r}", where="channels.method", expected=", ".join(RULE_METHODS)
            )
        if self.n < 1:
            raise ConfigError(
                "a panel needs at least one gene", where="channels.n", found=self.n, expected="channels.n of 1 or more"
            )

    @property
    def score_key(self) -> str | None:
        """Name of what a slide's statistics must hold for the rule beside the moments, None where moments do.

        A pooled rule of counts looks at the slides again with pooled parameters, so it needs no per-slide score.
        """
        if self.method == "moran":
            return self.method
        if self.method not in COUNT_METHODS or (self.scope == "panel" and self.across_slides == "pooled"):
            return None
        return f"{self.method}-{self.theta:g}" if self.method == "pearson_residuals" else self.method
