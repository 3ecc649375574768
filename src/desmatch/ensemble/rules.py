"""The rules that a recipe may combine its members by, and how a fitted one is kept."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from desmatch.ensemble.combine import COMBINATIONS, FittedNaiveBayes, Weighted
from desmatch.ensemble.naive_bayes import NaiveBayes
from desmatch.ensemble.selection import GreedySelection
from desmatch.ensemble.stacking import Stacking
from desmatch.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from desmatch.ensemble.combine import Combination, Fitted

GREEDY = GreedySelection(num_bags=1, bag_share=1.0)
"""Of all members at once: a recipe's members are too few to be drawn by parts."""

RULES: Mapping[str, Combination] = {**COMBINATIONS, "selection": GREEDY, "stacking": Stacking()}
"""The values of a recipe's `ensemble.combine`."""


def rule_to_json(name: str, members: Sequence[str], rule: Fitted) -> dict[str, Any]:
    """Return a fitted rule as plain numbers; only its name where it needs more than these."""
    kept: dict[str, Any] = {"combine": name, "members": [*members]}
    match rule:
        case Weighted():
            return {**kept, "weighted": dataclasses.asdict(rule)}
        case FittedNaiveBayes():
            return {**kept, "naive_bayes": dataclasses.asdict(rule.rule)}
        case _:
            return kept


def rule_from_json(kept: Mapping[str, Any], *, run: str) -> Fitted:
    """Return the rule that `rule_to_json` wrote.

    Args:
        kept: What it wrote.
        run: Names the run in the error.

    Raises:
        UserError: The rule needs more than numbers, so it cannot score pairs on their own.
    """
    if "weighted" in kept:
        values = kept["weighted"]
        return Weighted(**{**values, "weights": tuple(values["weights"])})
    if "naive_bayes" in kept:
        values = kept["naive_bayes"]
        return FittedNaiveBayes(NaiveBayes(**{**values, "slopes": tuple(values["slopes"])}))
    raise UserError(
        f"{run}: its members are combined by {kept['combine']}, which scores the run's test as a "
        "whole and no other pairs; give the `desmatch run` again with --ensemble.combine "
        "logit-weights or probability-mean: it combines anew and trains nothing"
    )
