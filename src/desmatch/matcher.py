"""The Python API, in the manner of scikit-learn and Hugging Face.

Shapes: B pairs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from desmatch.data.vocabulary import Vocabulary
from desmatch.ensemble.predictions import combine_predictions
from desmatch.errors import UserError
from desmatch.members import load_rule
from desmatch.mends import load_whole_run
from desmatch.model.checkpoints import load_model
from desmatch.model.scoring import PairLogits, score_pairs
from desmatch.predict import mean_predictions, shifted
from desmatch.stages import RECIPE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from desmatch.ensemble.combine import Fitted
    from desmatch.ensemble.predictions import Predictions
    from desmatch.model.heads import MatchForPairs
    from desmatch.stages import Run

Text = str | Sequence[int] | Sequence[str]
"""Ids separated by spaces, or a sequence of ids."""


class PairMatcher:
    """Trained models with their vocabulary: one, or one of each fold of a run.

    Args:
        models: With either kind of pair head.
        vocabulary: The vocabulary they were trained with.

    Example:
        >>> matcher = PairMatcher.from_pretrained("runs/demo")  # doctest: +SKIP
        >>> matcher.predict_proba([("12 7 93", "93 7 12")])  # doctest: +SKIP
        array([[0.07, 0.93]])
    """

    classes_: NDArray[np.int64] = np.array([0, 1])
    """The labels, in the order of `predict_proba`'s columns."""

    def __init__(self, models: Sequence[MatchForPairs], vocabulary: Vocabulary) -> None:
        self.models = tuple(model.eval() for model in models)
        self.vocabulary = vocabulary

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> PairMatcher:
        """Load the last models of a run, one of each fold that it trained, or one model's folder.

        Of an ensemble these are the last models of all its members, and its rule.

        Raises:
            UserError: The folder is neither, or the ensemble's rule scores its test alone.
        """
        path = Path(folder)
        if not (path / RECIPE).is_file():
            return cls([load_model(path)], Vocabulary.load(path))
        return cls.of_run(load_whole_run(path))

    @classmethod
    def of_run(cls, run: Run) -> PairMatcher:
        """Load the last models of a run that is known to be whole, as `from_pretrained` does.

        Raises:
            UserError: A model cannot be read, or the ensemble's rule scores its test alone.
        """
        if run.members:
            rule = load_rule(run.folder)
            return EnsembleMatcher(
                {name: cls.of_run(each) for name, each in run.members.items()}, rule
            )
        paths = run.last_models
        return cls([load_model(path) for path in paths], Vocabulary.load(paths[0]))

    def decision_function(self, pairs: Iterable[tuple[Text, Text]]) -> PairLogits:
        """Return the logits of both orders of each pair, the mean over models of one vocabulary.

        Raises:
            UserError: A text is empty.
        """
        return PairLogits(*self._score(pairs)[:2])

    def _score(self, pairs: Iterable[tuple[Text, Text]]) -> Predictions:
        """Check the pairs and score them."""
        texts = [(_text(a), _text(b)) for a, b in pairs]
        for number, (a, b) in enumerate(texts, start=1):
            if not a or not b:
                raise UserError(f"pair {number}: a text is empty; each needs at least one id")
        return self.score_texts([a for a, _ in texts], [b for _, b in texts])

    def score_texts(
        self,
        a: Any,  # noqa: ANN401 - any Arrow array or sequence of texts
        b: Any,  # noqa: ANN401 - any Arrow array or sequence of texts
        *,
        shift: NDArray[np.float64] | float = 0.0,
        in_bf16: bool = False,
    ) -> Predictions:
        """Return logits and scores of checked texts, ids separated by single spaces.

        Args:
            a: (B,).
            b: (B,).
            shift: (B,), added to the logits of each model.
            in_bf16: Matrix products in bfloat16.
        """
        encoded = self.vocabulary.encode(a, b)
        logits = (score_pairs(model, encoded, in_bf16=in_bf16) for model in self.models)
        return mean_predictions([shifted(each, shift) for each in logits])

    def predict_proba(self, pairs: Iterable[tuple[Text, Text]]) -> NDArray[np.float64]:
        """Return (B, 2): the probabilities that the texts of a pair differ, and that they match.

        They are the mean over the models, or what an ensemble's rule makes of them, as in a
        submission.

        Raises:
            UserError: A text is empty.
        """
        scores = self._score(pairs).scores
        return np.stack([1 - scores, scores], axis=1)

    def predict(self, pairs: Iterable[tuple[Text, Text]]) -> NDArray[np.int64]:
        """Return (B,): 1 where a match is more likely than not.

        Raises:
            UserError: A text is empty.
        """
        labels: NDArray[np.int64] = self.predict_proba(pairs).argmax(axis=1)
        return labels


class EnsembleMatcher(PairMatcher):
    """Members with a vocabulary each, and the rule that combines what they say.

    Args:
        members: By name, in the order that the rule was fitted in.
        rule: Fitted.
    """

    def __init__(self, members: Mapping[str, PairMatcher], rule: Fitted) -> None:
        self.members = dict(members)
        self.rule = rule

    def score_texts(
        self,
        a: Any,  # noqa: ANN401 - any Arrow array or sequence of texts
        b: Any,  # noqa: ANN401 - any Arrow array or sequence of texts
        *,
        shift: NDArray[np.float64] | float = 0.0,
        in_bf16: bool = False,
    ) -> Predictions:
        """Return what the rule makes of the members' logits, and the scores that follow.

        The arguments are those of any matcher; `shift` is added to the combined logits.
        """
        said = [each.score_texts(a, b, in_bf16=in_bf16) for each in self.members.values()]
        return combine_predictions(self.rule, said).shifted(shift)


def _text(text: Text) -> str:
    if isinstance(text, str):
        return " ".join(text.split())
    return " ".join(str(raw_id) for raw_id in text)
