"""What runs say of rows, and what their ensemble says.

A view is what one member says of a row. For the score it is the logit of the member's own score,
for either order of a pair the member's logit of that order: the rule is one and the same.

Shapes: M members, B rows, F features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.special import expit, logit

from desmatch.ensemble.combine import Views

if TYPE_CHECKING:
    from collections.abc import Sequence

    from desmatch.ensemble.combine import Fitted, Floats

COLUMNS = ("logit_forward", "logit_backward", "score")
"""The fields of `Predictions` as columns of a file."""


class Predictions(NamedTuple):
    """What a run says of rows.

    Attributes:
        forward: (B,), logit of label 1, `a` before `b`; of several models the mean.
        backward: (B,), the same, `b` before `a`.
        scores: (B,), in [0, 1].
    """

    forward: Floats
    backward: Floats
    scores: Floats

    def columns(self) -> dict[str, Floats]:
        """Return them by the names of a file's columns."""
        return dict(zip(COLUMNS, self, strict=True))

    def shifted(self, by: Floats | float) -> Predictions:
        """Return them with (B,) added to all logits, the scores' too."""
        moved = expit(score_logits(self.scores) + by)
        return Predictions(
            self.forward + by, self.backward + by, np.where(by == 0, self.scores, moved)
        )


def combine_predictions(
    rule: Fitted, members: Sequence[Predictions], features: Floats | None = None
) -> Predictions:
    """Return what the ensemble says of rows.

    Args:
        rule: Fitted to the members, in this order.
        members: M, of the same rows.
        features: (F, B), for a rule that stacks.
    """
    forward, backward, scores = map(np.stack, zip(*members, strict=True))  # (M, B) each
    combined = [
        rule.apply(Views(logits, features)) for logits in (forward, backward, score_logits(scores))
    ]
    return Predictions(combined[0], combined[1], expit(combined[2]))


def score_logits(scores: Floats) -> Floats:
    """Return the logits of scores; of a score that was rounded to 0 or 1 the largest there is."""
    smallest = np.finfo(np.float64).epsneg
    return np.asarray(logit(np.clip(scores, smallest, 1 - smallest)))
