"""A toy language whose entropies are known: texts of a Markov chain over V words.

The next word is one of S permutations of the present one, drawn with fixed probabilities. Every
word is then equally likely anywhere, so who does not look at a masked word's neighbours cannot have
a smaller mean loss than log V, the unigram entropy. Shapes: V words, S permutations, B pairs.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from desmatch.data.vocabulary import EncodedPairs
from desmatch.model.batch import UNLABELED, TrainingBatches, TrainingRows, Vocabularies
from desmatch.runs import generator
from desmatch.schema import Special

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from training import Batch

    from desmatch.recipe_training import TrainingConfig

FIRST_ID = len(Special)


class Chain(NamedTuple):
    """The language.

    Attributes:
        successors: (S, V), the word that follows each word.
        probabilities: (S,), how often each permutation is drawn.
    """

    successors: NDArray[np.int64]
    probabilities: NDArray[np.float64]

    @property
    def num_words(self) -> int:
        """V."""
        return len(self.successors[0])

    @property
    def vocab_size(self) -> int:
        """V and the special tokens."""
        return FIRST_ID + self.num_words

    @property
    def unigram_entropy(self) -> float:
        """The least mean loss of a masked word without a look at its neighbours, in nats."""
        return math.log(self.num_words)

    @property
    def transitions(self) -> NDArray[np.float64]:
        """(V, V), the probability of the next word (column) after a word (row)."""
        table = np.zeros((self.num_words, self.num_words))
        for successor, probability in zip(*self, strict=True):
            table[np.arange(self.num_words), successor] += probability
        return table

    @property
    def cloze_entropy(self) -> float:
        """The least mean loss of a masked word inside a text, both neighbours seen, in nats."""
        between = self.transitions[:, :, None] * self.transitions[None, :, :]  # before, word, after
        joint = between / between.sum()
        given = joint.sum(axis=1, keepdims=True)
        with np.errstate(divide="ignore", invalid="ignore"):
            terms = np.where(joint > 0, joint * np.log(joint / given), 0.0)
        return float(-terms.sum())

    def texts(self, num_texts: int, length: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Return (num_texts, length) token ids."""
        words = np.empty((num_texts, length), np.int64)
        words[:, 0] = rng.integers(self.num_words, size=num_texts)
        for place in range(1, length):
            drawn = rng.choice(len(self.successors), size=num_texts, p=self.probabilities)
            words[:, place] = self.successors[drawn, words[:, place - 1]]
        return words + FIRST_ID

    def batches(self, config: TrainingConfig, *, num_pairs: int, seed: int) -> TrainingBatches:
        """Return batches of `num_pairs` pairs of unrelated texts, as a training stage makes them.

        Two seeds have different texts and different noise.
        """
        texts = self.texts(2 * num_pairs, TEXT_LENGTH, generator(seed, "texts"))
        offsets = np.arange(2 * num_pairs + 1) * TEXT_LENGTH
        pairs = EncodedPairs(texts.ravel().astype(np.int32), offsets)
        rows = TrainingRows(pairs, np.full(num_pairs, UNLABELED, np.int8))
        sizes = Vocabularies(FIRST_ID, self.vocab_size)
        return TrainingBatches(rows, config, sizes, seed=seed, stage="toy")


TEXT_LENGTH = 8


def draw_chain(num_words: int = 30, seed: int = 0) -> Chain:
    """Return a language in which the likeliest next word has 70 %."""
    rng = generator(seed, "chain")
    successors = np.stack([rng.permutation(num_words) for _ in range(4)])
    return Chain(successors, np.array([0.7, 0.2, 0.07, 0.03]))


def fully_masked(batches: TrainingBatches, num_batches: int) -> list[Batch]:
    """Return the first batches with [MASK] at every predicted word, as the entropies assume."""
    masked = []
    for number in range(num_batches):
        batch = batches[number]
        batch["input_ids"].view(-1)[batch["masked_cells"]] = int(Special.MASK)
        masked.append(batch)
    return masked
