"""What labelled pairs say of another pair by closure, weighed by how often they turn out right.

The answer of the closure is one more view of a pair beside the model's; for views that are
independent given the label, the logits add up (kexue.fm/archives/9617):

    z = z_model + log P(answer | label 1) / P(answer | label 0)

The ratio is counted on labelled pairs, each answered by the pairs of the other parts. Where
annotators agree with each other an answer outweighs any model; where they do not, it hardly counts.

Shapes: B labelled pairs, P other pairs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from desmatch.data.closure import UNKNOWN, infer_closure

if TYPE_CHECKING:
    from numpy.typing import NDArray

NUM_PARTS = 10
"""Parts of the labelled pairs, each answered by the others."""

PSEUDO_COUNT = 0.5
"""Added to every count, so that an answer that was never wrong is not certain (Jeffreys' prior)."""


class TextPairs(NamedTuple):
    """Pairs by the numbers of their texts.

    Attributes:
        a: (B,), int64.
        b: (B,), int64.
    """

    a: NDArray[np.int64]
    b: NDArray[np.int64]

    def take(self, rows: NDArray[np.bool_]) -> TextPairs:
        """Return the pairs where `rows`, (B,), is true."""
        return TextPairs(self.a[rows], self.b[rows])


class Evidence(NamedTuple):
    """How much an answer of the closure counts.

    Attributes:
        ratios: Log likelihood ratios of the answers 0 and 1.
        num_answered: Labelled pairs that the others answered.
        num_right: How many of these answers agree with the label.
    """

    ratios: tuple[float, float]
    num_answered: int
    num_right: int

    def logits(self, answers: NDArray[np.int8]) -> NDArray[np.float64]:
        """(P,), what to add to a model's logits; 0 where there is no answer."""
        return np.select([answers == 0, answers == 1], self.ratios, 0.0)


def answer(known: TextPairs, labels: NDArray[np.int8], asked: TextPairs) -> NDArray[np.int8]:
    """(P,), what B labelled pairs say of P others: 0, 1 or UNKNOWN."""
    num_texts = 1 + max(int(each.max(initial=-1)) for each in (*known, *asked))
    return infer_closure(*known, labels, num_texts=num_texts).answers(*asked)


def weigh_answers(
    pairs: TextPairs, labels: NDArray[np.int8], *, rng: np.random.Generator
) -> Evidence:
    """Count how often labelled pairs answer each other rightly.

    Args:
        pairs: B labelled pairs.
        labels: (B,), 0 or 1.
        rng: Deals the pairs to parts.
    """
    part = rng.permutation(len(labels)) % NUM_PARTS
    answers = np.full(len(labels), UNKNOWN, np.int8)
    for number in range(NUM_PARTS):
        here = part == number
        answers[here] = answer(pairs.take(~here), labels[~here], pairs.take(here))
    is_answered = answers != UNKNOWN
    counts = np.zeros((2, 2))  # answer by label
    np.add.at(counts, (answers[is_answered], labels[is_answered]), 1)
    of_label = np.bincount(labels, minlength=2)
    shares = (counts + PSEUDO_COUNT) / (of_label + 2 * PSEUDO_COUNT)
    ratios = np.log(shares[:, 1] / shares[:, 0])
    return Evidence(
        (float(ratios[0]), float(ratios[1])),
        int(is_answered.sum()),
        int((answers == labels)[is_answered].sum()),
    )
