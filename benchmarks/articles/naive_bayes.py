"""Naive Bayes over views (kexue.fm/archives/9617 and 9648): what was said of it, measured.

    python benchmarks/articles/naive_bayes.py [--quick]

Views are simulated so that their logits are exact: a view of strength d sees x = d * label + noise
of deviation 1; the share of label 1 is 0.3. Where views are correlated, a part of the noise is the
same in all of them. "Heterogeneous" views differ in strength, 0 to 2 from row to row and from view
to view, and are correlated by 0.8: our reading, for which the expected figures give the direction.
Every combination is fitted on one half of the rows and measured on the other. The last line has all
figures as JSON.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.special import logit
from tables import Line, Table, run_experiments

from desmatch.ensemble.combine import COMBINATIONS, Views
from desmatch.ensemble.naive_bayes import (
    NaiveBayes,
    fit_beta,
    log_loss_of_logits,
    shift_prior,
)
from desmatch.ensemble.stacking import Stacking
from desmatch.metrics.roc import roc_auc
from desmatch.runs import generator

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from desmatch.ensemble.combine import Combination

    Floats = NDArray[np.float64]

PRIOR = float(logit(0.3))
NUM_VIEWS = 5
CORRELATION = 0.6
HETEROGENEOUS_CORRELATION = 0.8
STACKING = "stacking"


class Rows(NamedTuple):
    """Labels (B,) and exact logits (M, B), NaN where a view abstains."""

    labels: NDArray[np.int8]
    logits: Floats

    def half(self, number: int) -> Rows:
        """Return every other row."""
        return Rows(self.labels[number::2], self.logits[:, number::2])

    def loss(self, rule: NaiveBayes) -> float:
        """Return a rule's log loss, nats."""
        return log_loss_of_logits(self.labels, rule.apply(self.logits))

    def auc(self, rule: NaiveBayes) -> float:
        """Return a rule's AUC."""
        return roc_auc(self.labels, rule.apply(self.logits))


def simulate(
    rng: np.random.Generator,
    num_rows: int,
    *,
    correlation: float = 0.0,
    strength: Floats | float = 1.0,
    prior: float = PRIOR,
) -> Rows:
    """Draw rows and what each view says of them."""
    labels = (rng.random(num_rows) < 1 / (1 + np.exp(-prior))).astype(np.int8)
    own = np.sqrt(1 - correlation) * rng.normal(size=(NUM_VIEWS, num_rows))
    noise = np.sqrt(correlation) * rng.normal(size=num_rows) + own
    return Rows(labels, prior + strength * (strength * labels + noise) - strength**2 / 2)


def independent(seed: int, num_rows: int) -> Rows:
    """Five views that are independent given the label."""
    return simulate(generator(seed, "independent"), num_rows)


def correlated(seed: int, num_rows: int) -> Rows:
    """Five views whose noise is correlated."""
    return simulate(generator(seed, "correlated"), num_rows, correlation=CORRELATION)


def counted(seed: int, num_rows: int) -> Rows:
    """One to five independent views a row, each number as often."""
    rng = generator(seed, "counted")
    rows = simulate(rng, num_rows)
    is_silent = np.arange(NUM_VIEWS)[:, None] >= rng.integers(1, NUM_VIEWS + 1, num_rows)
    return rows._replace(logits=np.where(is_silent, np.nan, rows.logits))


def heterogeneous(seed: int, num_rows: int) -> Rows:
    """Five correlated views whose strengths differ."""
    rng = generator(seed, "heterogeneous")
    strength = rng.uniform(0, 2, (NUM_VIEWS, num_rows))
    return simulate(rng, num_rows, correlation=HETEROGENEOUS_CORRELATION, strength=strength)


SETS: dict[str, Callable[[int, int], Rows]] = {
    "independent": independent,
    "correlated": correlated,
    "one to five views": counted,
    "heterogeneous": heterogeneous,
}

MEAN = NaiveBayes(prior=PRIOR, beta=0)
EXACT = NaiveBayes(prior=PRIOR)
SUREST = NaiveBayes(prior=PRIOR, pool="min-entropy", beta=0)


class Size(NamedTuple):
    """How much is simulated."""

    seeds: range
    num_rows: int

    @classmethod
    def of(cls, is_quick: bool) -> Size:
        """Return the size of a quick or of a full measurement."""
        return cls(range(2), 20_000) if is_quick else cls(range(5), 100_000)

    def draw(self, name: str) -> list[Rows]:
        """Return a set for each seed."""
        return [SETS[name](seed, self.num_rows) for seed in self.seeds]


def near(figure: str, unit: str, expected: float, measured: list[float], within: float) -> Line:
    """Return a figure that must lie near the expected one."""
    return Line(
        figure=figure,
        unit=unit,
        expected=expected,
        measured=measured,
        at_least=expected - within,
        at_most=expected + within,
    )


def log_losses(is_quick: bool) -> Table:
    """How much beta is worth where views are independent, and where they are not."""
    size = Size.of(is_quick)
    lines = []
    for name, expected in (("independent", (0.445, 0.273)), ("correlated", (0.488, 0.743))):
        rows = size.draw(name)
        for rule, value in zip((MEAN, EXACT), expected, strict=True):
            title = "mean logit" if rule is MEAN else "naive Bayes, beta 4"
            lines.append(
                near(f"{name}: {title}", "nats", value, [r.loss(rule) for r in rows], 0.01)
            )
        halves = [(r.half(1), fit_beta(MEAN, *r.half(0)[::-1])) for r in rows]
        fitted = [there.loss(rule) for there, rule in halves]
        gains = [there.loss(MEAN) - there.loss(rule) for there, rule in halves]
        value, beta = {"independent": (0.273, 4.0), "correlated": (0.477, 0.5)}[name]
        lines += [
            near(f"{name}: naive Bayes, beta fitted", "nats", value, fitted, 0.01),
            near(f"{name}: the fitted beta", "ratio", beta, [r.beta or 0 for _, r in halves], 0.15),
            Line(
                figure=f"{name}: mean logit less fitted beta, other rows",
                unit="nats",
                measured=gains,
                at_least=0,
            ),
        ]
    return Table(lines)


def rankings(is_quick: bool) -> Table:
    """Where naive Bayes ranks otherwise than the mean logit, and where it cannot."""
    size = Size.of(is_quick)
    drawn = {name: size.draw(name) for name in SETS}
    aucs = {
        (name, rule.pool, rule.beta): [each.auc(rule) for each in rows]
        for name, rows in drawn.items()
        for rule in (MEAN, EXACT, SUREST)
    }
    moved = [
        abs(exact - mean)
        for name in ("independent", "correlated", "heterogeneous")
        for exact, mean in zip(aucs[name, "mean", None], aucs[name, "mean", 0], strict=True)
    ]
    gain = np.subtract(
        aucs["heterogeneous", "min-entropy", 0], aucs["heterogeneous", "mean", 0]
    ).tolist()
    few = "one to five views"
    return Table(
        [
            Line(figure="five views: AUC moved by beta", unit="AUC", expected=0,
                 measured=max(moved), at_most=1e-12),
            near(f"{few}: mean logit", "AUC", 0.864, aucs[few, "mean", 0], 0.005),
            near(f"{few}: naive Bayes", "AUC", 0.881, aucs[few, "mean", None], 0.005),
            near("independent: mean logit", "AUC", 0.943, aucs["independent", "mean", 0], 0.005),
            near("independent: least entropy", "AUC", 0.861,
                 aucs["independent", "min-entropy", 0], 0.005),
            near("heterogeneous: mean logit", "AUC", 0.834,
                 aucs["heterogeneous", "mean", 0], 0.015),
            near("heterogeneous: least entropy", "AUC", 0.844,
                 aucs["heterogeneous", "min-entropy", 0], 0.015),
            Line(figure="heterogeneous: least entropy less mean logit", unit="AUC", expected=0.01,
                 measured=gain, at_least=0.002),
        ]
    )  # fmt: skip


def priors(is_quick: bool) -> Table:
    """What a corrected prior is worth: models learned a share of 0.3, the test has 0.5."""
    size = Size.of(is_quick)
    learned, corrected = [], []
    for seed in size.seeds:
        rows = simulate(generator(seed, "prior"), size.num_rows, prior=0.0)
        logits = EXACT.apply(rows.logits + PRIOR)  # views whose models know the share 0.3
        learned.append(log_loss_of_logits(rows.labels, logits))
        moved = shift_prior(logits, prior=PRIOR, new_prior=0.0)
        corrected.append(log_loss_of_logits(rows.labels, moved))
    gain = np.subtract(learned, corrected).tolist()
    return Table(
        [
            Line(figure="log loss with the learned prior", unit="nats", measured=learned),
            Line(figure="log loss with the test's prior", unit="nats", measured=corrected),
            Line(figure="the difference", unit="nats", measured=gain, at_least=0.01),
        ]
    )


def combinations(is_quick: bool) -> Table:
    """All combinations of members side by side, fitted on one half and measured on the other."""
    size = Size.of(is_quick)
    rules: dict[str, Combination] = {**COMBINATIONS, STACKING: Stacking()}
    lines = []
    for name in SETS:
        rows = size.draw(name)
        for title, rule in rules.items():
            aucs, losses = [], []
            for each in rows:
                here, there = each.half(0), each.half(1)
                fitted = rule.fit(Views(here.logits), here.labels)
                combined = fitted.apply(Views(there.logits))
                aucs.append(roc_auc(there.labels, combined))
                losses.append(log_loss_of_logits(there.labels, combined))
            lines += [
                Line(figure=f"{name}: {title}", unit="AUC", measured=aucs),
                Line(figure=f"{name}: {title}", unit="nats", measured=losses),
            ]
    return Table(
        lines, "stacking is logistic regression on the logits; rank means are no posterior"
    )


if __name__ == "__main__":
    run_experiments(
        __doc__ or "",
        {
            "Log loss of the mean and of naive Bayes": log_losses,
            "AUC: where it can move": rankings,
            "A prior that shifts from 0.3 to 0.5": priors,
            "Naive Bayes beside other combinations": combinations,
        },
    )
