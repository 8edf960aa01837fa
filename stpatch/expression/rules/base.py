"""What a rule is: the abstract classes that every rule fills in, and the request that a panel rule is given.

This module and the modules of rules import no numerical library when they are loaded, because the config reads a rule's
facts (its name, whether it draws, whether it needs a list of genes) whenever a config is read. A rule imports its
arithmetic where it computes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from stpatch.errors import ConfigError, MismatchError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from stpatch.expression.moments import CountMoments
    from stpatch.expression.pool import PooledStatistics
    from stpatch.expression.rank import Join
    from stpatch.expression.sample import WindowGenes
    from stpatch.expression.statistics import SlideStatistics
    from stpatch.slides.slide import Slide

    SlidePass = Callable[[], Iterator[tuple[Slide, NDArray[np.int64]]]]
    """Starts a pass over the slides: each with the positions of its genes on the pooled axis."""

Need = Literal["moments", "neighbours", "slide_scores", "slides"]
"""What a panel rule reads: moments of counts and values, neighbour sums (Moran's I), scores that the normalize stage
computes from each slide's matrix, a second pass over the slides with pooled parameters."""


@dataclass(frozen=True, kw_only=True)
class RuleSpec:
    """A panel rule and what is asked of it.

    Attributes
    ----------
    method
        Name of a registered panel rule.
    n
        Genes to select; rules without scores (``list``, ``all``) ignore it.
    genes
        The given names, in order, for a rule that needs them.
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
        _ = self.rule  # an unknown name is refused here
        if self.n < 1:
            raise ConfigError(
                "a panel needs at least one gene", where="channels.n", found=self.n, expected="channels.n of 1 or more"
            )

    @property
    def rule(self) -> PanelRule:
        """The registered rule."""
        from stpatch.expression.rules.registry import panel_rule

        return panel_rule(self.method)

    @property
    def score_key(self) -> str | None:
        """Name of what a slide's statistics must hold for the rule beside the moments, None where moments do.

        A pooled rule that passes over the slides again with pooled parameters needs no score from each slide.
        """
        rule = self.rule
        if "neighbours" in rule.needs:
            return rule.name
        if "slide_scores" not in rule.needs or (self.scope == "panel" and self.across_slides == "pooled"):
            return None
        return rule.score_name(self)


class PanelRule(ABC):
    """A rule that ranks (or names) genes for a corpus or for one slide.

    A rule is stateless: one instance serves every request. Higher scores are better, NaN is no score, equal scores go
    by name.

    Attributes
    ----------
    name
        The word of ``channels.method``; also the name of the rule's module or entry point.
    source
        Where the rule is published, or the function whose result it equals.
    needs
        What the rule reads, see `Need`; empty for a rule that scores nothing.
    needs_genes
        Whether ``channels.genes`` must give names.
    counts_only
        Whether the rule models raw counts, so that input that is normalized already is refused.
    refuses
        Normalizations that the rule cannot go with.
    refusal
        Why it refuses them.
    min_spots
        A slide of fewer spots says nothing when slides rank: nothing varies over one spot.
    """

    name: ClassVar[str]
    source: ClassVar[str]
    needs: ClassVar[frozenset[Need]] = frozenset({"moments"})
    needs_genes: ClassVar[bool] = False
    counts_only: ClassVar[bool] = False
    refuses: ClassVar[frozenset[str]] = frozenset()
    refusal: ClassVar[str] = ""
    min_spots: ClassVar[int] = 2

    @abstractmethod
    def score(self, spec: RuleSpec, pooled: PooledStatistics, slides: SlidePass) -> NDArray[np.float64]:
        """Return the (genes,) score over all spots as one matrix.

        Parameters
        ----------
        spec
            The request.
        pooled
            Statistics of the corpus, or of one slide; genes sorted by name.
        slides
            Starts a second pass over the slides, for a rule with ``slides`` in `needs`.
        """

    @abstractmethod
    def score_alone(self, spec: RuleSpec, statistics: SlideStatistics) -> NDArray[np.float64]:
        """Return the (genes,) score of one slide, in the slide's order of genes, for ranking over slides."""

    def join(self, spec: RuleSpec) -> Join:
        """Return what joins the slides' rankings: by the number of slides that have the gene on top, then by rank."""
        from stpatch.expression.rank import RankJoin

        return RankJoin(n=spec.n)

    def score_name(self, _spec: RuleSpec) -> str:
        """Return the name under which a slide's statistics keep the rule's score; it tells all its parameters."""
        return self.name

    def check_normalization(self, method: str) -> None:
        """Raise `ConfigError` where the rule cannot go with a normalization."""
        if method in self.refuses:
            raise ConfigError(
                f"rule {self.name} {self.refusal}",
                where="channels.method",
                found=f"normalize.method: {method}",
                hint="choose rule variance or pearson_residuals, or another normalization",
            )

    @property
    def scored(self) -> bool:
        """Whether the rule scores genes; others name them."""
        return bool(self.needs)


class MomentRule(PanelRule):
    """A panel rule whose score follows from moments alone (or from neighbour sums): `of` is all that it defines."""

    @abstractmethod
    def of(self, pooled: PooledStatistics) -> NDArray[np.float64]:
        """Return the (genes,) score from the statistics of a corpus or of one slide."""

    def score(self, _spec: RuleSpec, pooled: PooledStatistics, _slides: SlidePass) -> NDArray[np.float64]:
        """See `PanelRule.score`."""
        return self.of(pooled)

    def score_alone(self, _spec: RuleSpec, statistics: SlideStatistics) -> NDArray[np.float64]:
        """See `PanelRule.score_alone`."""
        from stpatch.expression.pool import pooled_of

        return self.of(pooled_of(statistics))


class DispersionRule(PanelRule):
    """A panel rule of normalized dispersions, whose bins depend on which genes are binned."""

    refuses = frozenset({"pearson_residuals"})
    refusal = "divides by a gene's mean, and Pearson residuals have means of about 0"

    @abstractmethod
    def of_some(self, pooled: PooledStatistics, some: NDArray[np.int64] | slice) -> NDArray[np.float64]:
        """Return the scores of the genes at positions `some`, binned among themselves."""

    def score(self, _spec: RuleSpec, pooled: PooledStatistics, _slides: SlidePass) -> NDArray[np.float64]:
        """See `PanelRule.score`."""
        return self.of_some(pooled, slice(None))

    def score_alone(self, _spec: RuleSpec, statistics: SlideStatistics) -> NDArray[np.float64]:
        """Return the scores of the slide's expressed genes, binned among themselves, as scanpy does per batch."""
        import numpy as np

        from stpatch.expression.pool import pooled_of

        expressed = np.flatnonzero(statistics.counts.detected > 0).tolist()
        # in order of name, because sums over a bin round by order, and scores of small bins are often equal
        by_name = np.array(sorted(expressed, key=statistics.genes.__getitem__), dtype=np.int64)
        scores = np.full(len(statistics.genes), np.nan)
        scores[by_name] = self.of_some(pooled_of(statistics), by_name)
        return scores

    def join(self, spec: RuleSpec) -> Join:
        """Sort by the number of slides that have the gene on top, then by mean dispersion."""
        from stpatch.expression.rank import DispersionJoin

        return DispersionJoin(n=spec.n)


class CountRule(PanelRule):
    """A panel rule that models raw counts and looks at the matrix itself.

    The normalize stage calls `score_slide` while it holds a slide; pooled, `score` passes over the slides once more.
    """

    needs = frozenset({"slide_scores", "slides"})
    counts_only = True

    @abstractmethod
    def score_slide(
        self, spec: RuleSpec, slide: Slide, totals: NDArray[np.float64], counts: CountMoments
    ) -> NDArray[np.float64]:
        """Return the (genes,) score of one slide from its matrix, its (spots,) totals and its moments."""

    def score_alone(self, spec: RuleSpec, statistics: SlideStatistics) -> NDArray[np.float64]:
        """Return what `score_slide` gave in the normalize stage."""
        key = str(spec.score_key)
        if key not in statistics.scores:
            raise MismatchError(
                f"slide statistics lack the scores of rule {self.name}",
                where=statistics.slide_id,
                hint="run the normalize stage again with this rule in the config",
            )
        return statistics.scores[key]


class NamingRule(PanelRule):
    """A panel rule that names genes and scores none."""

    needs = frozenset()

    @abstractmethod
    def names(self, spec: RuleSpec, measured: Sequence[str], among: Collection[str] | None) -> tuple[str, ...]:
        """Return the genes.

        Parameters
        ----------
        spec
            The request.
        measured
            Sorted names of the genes that some slide measured.
        among
            The genes that may be selected, None for all.
        """

    def score(self, _spec: RuleSpec, _pooled: PooledStatistics, _slides: SlidePass) -> NDArray[np.float64]:
        """Not asked: the rule has no scores."""
        raise TypeError(f"rule {self.name} has no scores")

    def score_alone(self, _spec: RuleSpec, _statistics: SlideStatistics) -> NDArray[np.float64]:
        """Not asked: the rule has no scores."""
        raise TypeError(f"rule {self.name} has no scores")


class PatchRule(ABC):
    """A rule that chooses n genes for one window.

    Attributes
    ----------
    name
        The word of ``channels.method``; also the name of the rule's module or entry point.
    source
        Where the rule is published, or the function whose result it equals.
    draws
        Whether the choice is random, so that several draws of one patch differ.
    """

    name: ClassVar[str]
    source: ClassVar[str]
    draws: ClassVar[bool] = False

    @abstractmethod
    def choose(self, genes: WindowGenes) -> NDArray[np.int64]:
        """Return at most ``genes.n`` ascending positions among the genes by ascending id.

        Parameters
        ----------
        genes
            The window's genes: their moments, and the draws and selections that a rule may use. A rule that takes its
            randomness from there depends on seed, slide, patch, draw and gene id, and on nothing else.
        """
