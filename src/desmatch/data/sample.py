"""A generated toy language: grammar -> meanings -> texts -> pairs -> numbers, in this order.

A meaning is an action and the values of a few slots ("buy", "red", "shoes", "large"). A text says
it in words: each concept by one of its synonyms, in one of the orders its frame allows, with
particles and fillers. Two texts match if and only if their meanings are equal, so a pair of few
common words may match and a pair of many may not: counting words fails, learning synonyms helps.
"""

from __future__ import annotations

from bisect import bisect
from dataclasses import dataclass
from functools import cache
from itertools import count, islice
from typing import TYPE_CHECKING, NamedTuple, NewType, TypeVar

import numpy as np

from desmatch.errors import UserError, listed
from desmatch.runs import write_text
from desmatch.schema import Pair, RawId

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

Word = NewType("Word", int)
"""A word of the toy language before the numbering hides it."""

Concept = NewType("Concept", int)
"""What a set of synonyms means."""

Text = tuple[Word, ...]
Item = TypeVar("Item")


class Frame(NamedTuple):
    """One kind of sentence: which slots it fills, and the orders it may say them in."""

    slots: tuple[int, ...]
    orders: tuple[tuple[int, ...], ...]


class Meaning(NamedTuple):
    """What a text says: its frame and one concept for each of the frame's slots."""

    frame: int
    concepts: tuple[Concept, ...]


class Query(NamedTuple):
    """A text, the word it has for each concept, and what it means."""

    text: Text
    words: tuple[Word, ...]
    meaning: Meaning


class LabeledPair(NamedTuple):
    """Two texts and whether they mean the same."""

    a: Text
    b: Text
    label: int


@dataclass(frozen=True, kw_only=True, slots=True)
class LanguageConfig:
    """The size of the language and how hard its pairs are."""

    num_frames: int = 4
    """Kinds of sentences; each has an action slot of its own."""
    num_actions: int = 3
    """Actions of a frame: they share its other slots."""
    num_slots: int = 4
    """Slots that the frames share, such as colour or place."""
    num_values: int = 6
    """Concepts that may fill one shared slot."""
    frame_sizes: tuple[int, ...] = (2, 3)
    """Shared slots that a frame fills, in turn."""
    num_synonyms: int = 2
    """Words of one concept."""
    num_orders: int = 2
    """Orders in which one frame may say its slots."""
    num_fillers: int = 8
    """Words without a meaning."""
    filler_probability: float = 0.3
    """How often a filler is put at a random place of a text."""
    particle_probability: float = 0.2
    """How often a concept's slot is named by a particle before it."""
    positive_share: float = 0.4
    """Share of pairs of equal meaning, before the noise."""
    noise: float = 0.01
    """Share of labels that are flipped."""
    near_share: float = 0.65
    """Share of the negatives that differ in one concept only: hard, since most words agree."""
    far_changes: int = 2
    """Concepts in which the other negatives differ."""
    keep_probability: float = 0.5
    """How often the partner keeps the query's word for a concept; else a synonym is drawn."""
    concept_shift: float = 3.0
    """Concept r of a slot is drawn with a probability that falls as 1 / (r + this)."""
    synonym_shift: float = 2.0
    """The same for synonym r of a concept."""
    degree_exponent: float = 2.8
    """A query has k partners with a probability that falls as k to this power..."""
    max_degree: int = 24
    """...up to so many: most queries have one partner, a few are hubs."""
    return_probability: float = 0.04
    """Probability that the next query is an earlier one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Grammar:
    """The drawn language: slots, frames and words."""

    synonyms: tuple[tuple[Word, ...], ...]
    """Words of a concept, the commonest first."""
    slots: tuple[tuple[Concept, ...], ...]
    """Concepts that may fill a slot, the commonest first."""
    particles: tuple[Word, ...]
    """The word that names a slot."""
    fillers: tuple[Word, ...]
    """Words that may stand anywhere and mean nothing."""
    frames: tuple[Frame, ...]
    """Kinds of sentences."""
    num_words: int
    """Words of all kinds together; a word is a number below it."""


@cache
def zipf_bounds(size: int, shift: float) -> tuple[float, ...]:
    """Cut [0, 1) into `size` stretches, the length of each as 1 / (rank + shift); their ends."""
    weights = 1.0 / (np.arange(size) + shift)
    return tuple((weights.cumsum() / weights.sum()).tolist()[:-1])


def draw(items: Sequence[Item], shift: float, rng: np.random.Generator) -> Item:
    """Draw an item, the first ones more often; the larger `shift`, the more evenly."""
    return items[bisect(zipf_bounds(len(items), shift), rng.random())]


# Grammar


def build_grammar(config: LanguageConfig, rng: np.random.Generator) -> Grammar:
    """Draw the frames of a language and give every concept its words."""
    sizes = [config.num_actions] * config.num_frames + [config.num_values] * config.num_slots
    concepts, words = count(), count()
    slots = tuple(tuple(Concept(c) for c in islice(concepts, size)) for size in sizes)

    def fresh(size: int) -> tuple[Word, ...]:
        return tuple(Word(word) for word in islice(words, size))

    return Grammar(
        synonyms=tuple(fresh(config.num_synonyms) for _ in range(sum(sizes))),
        slots=slots,
        particles=fresh(len(slots)),
        fillers=fresh(config.num_fillers),
        frames=tuple(_draw_frame(action, config, rng) for action in range(config.num_frames)),
        num_words=next(words),
    )


def _draw_frame(action: int, config: LanguageConfig, rng: np.random.Generator) -> Frame:
    size = config.frame_sizes[action % len(config.frame_sizes)]
    slots = (action, *(rng.permutation(config.num_slots)[:size] + config.num_frames).tolist())
    orders = (tuple(rng.permutation(len(slots)).tolist()) for _ in range(config.num_orders))
    return Frame(slots=slots, orders=tuple(orders))


# Meanings, texts, pairs


@dataclass(frozen=True, kw_only=True, slots=True)
class Speaker:
    """Says things in a language; every draw comes from `rng`."""

    grammar: Grammar
    config: LanguageConfig
    rng: np.random.Generator

    def meaning(self) -> Meaning:
        """Draw a meaning, common ones more often."""
        frame = int(self.rng.integers(len(self.grammar.frames)))
        slots = self.grammar.frames[frame].slots
        return Meaning(frame, tuple(self._concept(slot) for slot in slots))

    def changed(self, meaning: Meaning, num_changes: int) -> Meaning:
        """Return `meaning` with other concepts in `num_changes` of its slots."""
        slots = self.grammar.frames[meaning.frame].slots
        concepts = list(meaning.concepts)
        for i in self.rng.permutation(len(slots))[:num_changes]:
            while concepts[i] == meaning.concepts[i]:
                concepts[i] = self._concept(slots[i])
        return Meaning(meaning.frame, tuple(concepts))

    def _concept(self, slot: int) -> Concept:
        return draw(self.grammar.slots[slot], self.config.concept_shift, self.rng)

    def reworded(self, words: Sequence[Word], meaning: Meaning) -> tuple[Word, ...]:
        """Choose a word for each concept of `meaning`, now and then the fitting one of `words`."""
        synonyms, keep, rng = self.grammar.synonyms, self.config.keep_probability, self.rng
        return tuple(
            word if word in synonyms[concept] and rng.random() < keep else self._synonym(concept)
            for word, concept in zip(words, meaning.concepts, strict=True)
        )

    def text(self, words: Sequence[Word], meaning: Meaning) -> Text:
        """Put the words of a meaning in an order, with particles and fillers."""
        frame = self.grammar.frames[meaning.frame]
        said: list[Word] = []
        for i in frame.orders[self.rng.integers(len(frame.orders))]:
            if self.rng.random() < self.config.particle_probability:
                said.append(self.grammar.particles[frame.slots[i]])
            said.append(words[i])
        if self.rng.random() < self.config.filler_probability:
            filler = self.grammar.fillers[self.rng.integers(len(self.grammar.fillers))]
            said.insert(int(self.rng.integers(len(said) + 1)), filler)
        return tuple(said)

    def _synonym(self, concept: Concept) -> Word:
        return draw(self.grammar.synonyms[concept], self.config.synonym_shift, self.rng)

    def pairs(self) -> Iterator[LabeledPair]:
        """Yield pairs without end: a query with one partner, or now and then with many."""
        config, rng = self.config, self.rng
        said: list[Query] = []
        while True:
            if not said or rng.random() >= config.return_probability:
                said.append(query := self.query())
            else:
                query = said[rng.integers(len(said))]
            for _ in range(min(int(rng.zipf(config.degree_exponent)), config.max_degree)):
                yield self._pair(query)

    def query(self) -> Query:
        """Draw a text together with the words and the meaning it was made from."""
        meaning = self.meaning()
        words = tuple(self._synonym(concept) for concept in meaning.concepts)
        return Query(self.text(words, meaning), words, meaning)

    def _pair(self, query: Query) -> LabeledPair:
        config, rng = self.config, self.rng
        label = int(rng.random() < config.positive_share)
        num_wrong = 0 if label else 1 if rng.random() < config.near_share else config.far_changes
        other = self.changed(query.meaning, num_wrong)
        partner = self.text(self.reworded(query.words, other), other)
        a, b = (query.text, partner) if rng.random() < 0.5 else (partner, query.text)
        return LabeledPair(a, b, label ^ int(rng.random() < config.noise))


# Numbers and files


def numbering(num_words: int, rng: np.random.Generator) -> tuple[RawId, ...]:
    """Return the id that replaces each word: 1 to `num_words` in random order."""
    return tuple(RawId(str(number)) for number in rng.permutation(num_words) + 1)


def sample_pairs(seed: int) -> Iterator[tuple[Pair, int]]:
    """Yield desensitised pairs and their labels without end; the same seed yields the same."""
    rng = np.random.default_rng(seed)
    config = LanguageConfig()
    grammar = build_grammar(config, rng)
    numbers = numbering(grammar.num_words, rng)
    for a, b, label in Speaker(grammar=grammar, config=config, rng=rng).pairs():
        texts = (" ".join(numbers[word] for word in text) for text in (a, b))
        yield Pair(*texts), label


def write_sample(
    out: Path,
    *,
    seed: int = 0,
    num_train: int = 6000,
    num_test: int = 2000,
    num_unlabeled: int = 10000,
) -> None:
    """Write `train.tsv`, `test.tsv`, `test_labels.tsv` and `unlabeled.tsv` of one toy language.

    Args:
        out: Folder of the files; made if it is missing.
        seed: The same seed writes the same bytes.
        num_train: Rows `a<TAB>b<TAB>label`.
        num_test: Rows `a<TAB>b`; `test_labels.tsv` has as many lines, each a label.
        num_unlabeled: Rows `a<TAB>b`.

    Raises:
        UserError: A negative number of rows; the message names all of them.
    """
    sizes = {"num_train": num_train, "num_test": num_test, "num_unlabeled": num_unlabeled}
    if wrong := [f"{name}: expected 0 or more, got {n}" for name, n in sizes.items() if n < 0]:
        raise UserError(listed(wrong))
    pairs = sample_pairs(seed)
    train, test, unlabeled = (list(islice(pairs, size)) for size in sizes.values())
    write_text(out / "train.tsv", "".join(f"{a}\t{b}\t{label}\n" for (a, b), label in train))
    write_text(out / "test.tsv", "".join(f"{a}\t{b}\n" for (a, b), _ in test))
    write_text(out / "test_labels.tsv", "".join(f"{label}\n" for _, label in test))
    write_text(out / "unlabeled.tsv", "".join(f"{a}\t{b}\n" for (a, b), _ in unlabeled))
