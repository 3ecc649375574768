"""Stacking: a small model on the members' logits and on what the texts' ids say by themselves.

The features know no label: they come from the texts, and from counts over all files. What learns
from labels is fitted on the folds that it is not asked about (`combine.combine_out_of_fold`).

Shapes: M members, F features, B rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, assert_never

import numpy as np
from scipy.special import logit
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from desmatch.data.features import row_features
from desmatch.ensemble.combine import check_views, fill_abstained
from desmatch.ensemble.lexical import lexical_features
from desmatch.runs import generator

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from desmatch.data.vocabulary import Vocabulary
    from desmatch.ensemble.combine import Floats, Labels, Views
    from desmatch.ensemble.lexical import TextCounts


def stacking_features(
    a: Any,  # noqa: ANN401 - any Arrow array or list of texts
    b: Any,  # noqa: ANN401 - any Arrow array or list of texts
    vocabulary: Vocabulary,
    texts: TextCounts,
    ids: Mapping[str, int] | None = None,
) -> dict[str, Floats]:
    """Return all features of pairs, one array (B,) a name; the overlap appears once.

    Args:
        a: (B,), texts, ids separated by single spaces.
        b: (B,), the second texts.
        vocabulary: Says which ids are rare.
        texts: In how many texts each id occurs.
        ids: How often each id occurs; none: the vocabulary's counts.
    """
    described = row_features(a, b, vocabulary, ids)
    del described["overlap"]  # is the feature jaccard
    return {**described, **lexical_features(a, b, texts)}


class FittedStack(NamedTuple):
    """A classifier of scikit-learn that knows its parameters.

    Attributes:
        classifier: On the columns logits, features.
        num_members: M.
    """

    classifier: Any
    num_members: int

    def apply(self, views: Views) -> Floats:
        """As `Fitted.apply` of desmatch.ensemble.combine."""
        columns = _columns(views, num_members=self.num_members)
        if hasattr(self.classifier, "decision_function"):
            return np.asarray(self.classifier.decision_function(columns), np.float64)
        return np.asarray(logit(self.classifier.predict_proba(columns)[:, 1]))


@dataclass(frozen=True, kw_only=True, slots=True)
class Stacking:
    """A classifier on the members' logits and the rows' features, if there are any."""

    model: Literal["logistic", "boosting"] = "logistic"
    """Logistic regression on standardised columns, or boosted trees."""
    c: float = 1.0
    """Inverse strength of logistic regression's penalty."""
    num_trees: int = 100
    """Of boosting."""
    learning_rate: float = 0.05
    """Of boosting."""
    min_samples_leaf: int = 50
    """Of boosting."""
    seed: int = 0
    """Of boosting: draws the rows that set the bins, where there are more than 200,000."""

    def fit(self, views: Views, labels: Labels) -> FittedStack:
        """As `Combination.fit`."""
        columns = _columns(views)
        if len(np.unique(labels)) < 2:
            raise ValueError("stacking needs labels 0 and 1")
        return FittedStack(self._classifier().fit(columns, labels), len(views.logits))

    def _classifier(self) -> Any:  # noqa: ANN401 - scikit-learn has no types
        match self.model:
            case "logistic":
                return make_pipeline(StandardScaler(), LogisticRegression(C=self.c, max_iter=1000))
            case "boosting":
                return HistGradientBoostingClassifier(
                    max_iter=self.num_trees,
                    learning_rate=self.learning_rate,
                    min_samples_leaf=self.min_samples_leaf,
                    early_stopping=False,
                    random_state=int(generator(self.seed, "stacking").integers(2**31)),
                )
            case _:
                assert_never(self.model)


def _columns(views: Views, num_members: int | None = None) -> NDArray[np.float64]:
    """Return (B, M + F)."""
    logits = fill_abstained(check_views(views.logits, num_members=num_members))
    if views.features is None:
        return logits.T
    if views.features.shape[1:] != logits.shape[1:]:
        raise ValueError(f"expected features (F, {logits.shape[1]}), got {views.features.shape}")
    return np.concatenate([logits, views.features]).T
