"""A linear probe: multinomial logistic regression on frozen features, and how well it tells categories."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional


@dataclass(frozen=True, kw_only=True)
class Scores:
    """How well categories are told.

    Attributes
    ----------
    accuracy
        Share of the spots that are told right.
    balanced_accuracy
        Mean over categories of that share.
    macro_f1
        Mean over categories of the harmonic mean of precision and recall.
    """

    accuracy: float
    balanced_accuracy: float
    macro_f1: float


def probe(
    train: tuple[torch.Tensor, torch.Tensor], test: tuple[torch.Tensor, torch.Tensor], *, penalty: float = 1e-2
) -> Scores:
    """Fit on one set of spots and tell the categories of another.

    Parameters
    ----------
    train, test
        (N, D) features and (N,) categories; every category of `test` is one of `train`.
    penalty
        Of the squared weights, beside the mean loss. Features are standardized, so that it is as fair to all of them.
    """
    features, labels = train
    categories, target = labels.unique(return_inverse=True)
    mean, deviation = features.mean(0), features.std(0).clamp(min=1e-6)
    weights = fitted_weights((features - mean) / deviation, target, len(categories), penalty=penalty)
    told = categories[_logits((test[0] - mean) / deviation, weights).argmax(1)]
    return scores(told, test[1])


def fitted_weights(features: torch.Tensor, target: torch.Tensor, categories: int, *, penalty: float) -> torch.Tensor:
    """Return the (D + 1, categories) weights of least loss, the last row for the constant; the loss is convex."""
    weights = torch.zeros(features.shape[1] + 1, categories, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=300, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        found = functional.cross_entropy(_logits(features, weights), target) + penalty * weights[:-1].square().sum()
        found.backward()
        return found

    optimizer.step(loss)
    return weights.detach()


def scores(told: torch.Tensor, true: torch.Tensor) -> Scores:
    """Return the scores of categories told, over the categories that there are."""
    recalls, f1s = [], []
    for category in true.unique():
        right = float(((told == category) & (true == category)).sum())
        recalls.append(right / float((true == category).sum()))
        f1s.append(2 * right / float((told == category).sum() + (true == category).sum()))
    return Scores(
        accuracy=float((told == true).float().mean()),
        balanced_accuracy=sum(recalls) / len(recalls),
        macro_f1=sum(f1s) / len(f1s),
    )


def _logits(features: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    return features @ weights[:-1] + weights[-1]
