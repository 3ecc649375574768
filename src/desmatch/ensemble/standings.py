"""Every member and every combination on the same out-of-fold rows, beside the best member.

Shapes: M members, B rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from desmatch.ensemble.combine import CrossFitted, combine_out_of_fold
from desmatch.ensemble.naive_bayes import log_loss_of_logits
from desmatch.metrics.intervals import Interval, bootstrap_auc, paired_bootstrap
from desmatch.metrics.roc import roc_auc
from desmatch.runs import generator

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from desmatch.ensemble.combine import Combination, Floats, Labels, Views


class OutOfFold(NamedTuple):
    """Labelled rows scored by members that did not learn them.

    Attributes:
        names: M names of members.
        views: Their logits.
        labels: (B,), 0 or 1.
        folds: (B,), each row's fold: combinations are fitted on the others.
        groups: (B,), each row's component of the query graph, which lies in one fold.
    """

    names: tuple[str, ...]
    views: Views
    labels: Labels
    folds: NDArray[np.int64]
    groups: NDArray[np.int64]


class Standing(NamedTuple):
    """A member or a combination.

    Attributes:
        name: Its name.
        is_member: Whether it is a single member.
        rows: Rows it scores; a member may abstain from some.
        auc: Of these rows.
        interval: Of the AUC, 95 %, over components.
        log_loss: Nats, of its logits as they are.
        difference: AUC less that of the best member, on the rows that both score.
        difference_interval: Of the paired difference.
    """

    name: str
    is_member: bool
    rows: int
    auc: float
    interval: Interval
    log_loss: float
    difference: float
    difference_interval: Interval


def best_member(oof: OutOfFold) -> int:
    """Return the member of the highest AUC among those that score the most rows."""
    is_scored = ~np.isnan(oof.views.logits)
    num_rows = is_scored.sum(axis=1)
    aucs = [
        roc_auc(oof.labels[scored], each[scored]) if scored.sum() == num_rows.max() else -1.0
        for each, scored in zip(oof.views.logits, is_scored, strict=True)
    ]
    return int(np.argmax(aucs))


def standings(
    oof: OutOfFold,
    combinations: Mapping[str, Combination],
    *,
    seed: int = 0,
    num_samples: int = 1000,
) -> list[Standing]:
    """Return a line for each member, in their order, then one for each combination.

    Combinations are cross-fitted over folds. The best member is found on the very rows it is
    measured on, which flatters it a little: what combinations gain over it is, if anything, more.

    Args:
        oof: Members' logits of rows they did not learn.
        combinations: By name.
        seed: Of the bootstrap's draws, which are the same for every line.
        num_samples: Bootstrap samples.

    Raises:
        ValueError: A class is missing, or there is but one fold.
    """
    bench = _Bench(oof, oof.views.logits[best_member(oof)], seed, num_samples)
    members = [
        bench.standing(name, CrossFitted(logits, logits), is_member=True)
        for name, logits in zip(oof.names, oof.views.logits, strict=True)
    ]
    return members + [
        bench.standing(
            name, combine_out_of_fold(rule, oof.views, oof.labels, oof.folds), is_member=False
        )
        for name, rule in combinations.items()
    ]


def deal_folds(
    groups: NDArray[np.int64], *, num_folds: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return (B,), folds of whole components, for rows that one model a member has scored.

    Args:
        groups: (B,), each row's component.
        num_folds: Folds, which differ by one component at most.
        rng: Deals the components.
    """
    names, group = np.unique(groups, return_inverse=True)
    return np.asarray((rng.permutation(len(names)) % num_folds)[group])


class _Bench(NamedTuple):
    """What all lines share."""

    oof: OutOfFold
    best: Floats
    seed: int
    num_samples: int

    def standing(self, name: str, scored: CrossFitted, *, is_member: bool) -> Standing:
        """Return the line of scored rows, NaN where a member abstains."""
        own, both = (
            np.flatnonzero(~np.isnan(each)) for each in (scored.logits, scored.logits + self.best)
        )
        labels, ranks = self.oof.labels, scored.ranks
        interval, difference_interval = self._intervals(ranks, own, both)
        auc, auc_of_both, auc_of_best = (
            roc_auc(labels[rows], scores[rows])
            for scores, rows in ((ranks, own), (ranks, both), (self.best, both))
        )
        return Standing(
            name=name,
            is_member=is_member,
            rows=len(own),
            auc=auc,
            interval=interval,
            log_loss=log_loss_of_logits(labels[own], scored.logits[own]),
            difference=auc_of_both - auc_of_best,
            difference_interval=difference_interval,
        )

    def _intervals(
        self, ranks: Floats, own: NDArray[np.int64], both: NDArray[np.int64]
    ) -> tuple[Interval, Interval]:
        """Return the intervals of the AUC of `own` rows and of the difference on `both`."""
        labels, groups, best = self.oof.labels, self.oof.groups, self.best
        rng, num_samples = generator(self.seed, "standings"), self.num_samples
        return (
            bootstrap_auc(labels[own], ranks[own], groups[own], rng=rng, num_samples=num_samples),
            paired_bootstrap(
                labels[both],
                best[both],
                ranks[both],
                groups[both],
                rng=rng,
                num_samples=num_samples,
            ).interval,
        )
