"""A generated toy language in the contest's format: grammar -> meanings -> texts -> pairs -> numbers.

A meaning is an action and the values of a few slots ("buy", "red", "shoes", "large"). A text says
it in words: each concept by one of its synonyms, in one of the orders its frame allows, with
particles and fillers. Two texts match if and only if their meanings are equal, so a pair of few
common words may match and a pair of many may not: counting words fails, learning synonyms helps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, NewType

import numpy as np

from desmatch.errors import UserError
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

    num_frames: int = 6
    """Kinds of sentences; each has an action slot of its own."""
    num_actions: int = 4
    """Actions of a frame: they share its other slots."""
    num_slots: int = 6
    """Slots that the frames share, such as colour or place."""
    num_values: int = 10
    """Concepts that may fill one shared slot."""
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
    near_share: float = 0.5
    """Share of the negatives that differ in one concept only: hard, since most words agree."""
    far_changes: int = 2
    """Concepts in which the other negatives differ."""
    keep_probability: float = 0.5
    """How often the partner keeps the query's word for a concept; else a synonym is drawn."""
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
    frames: tuple[Frame, ...]
    num_words: int


def zipf(size: int, *, shift: float = 1.0) -> np.ndarray:
    """Return (size,) probabilities that fall as 1 / (rank + shift)."""
    weights = 1.0 / (np.arange(size) + shift)
    return weights / weights.sum()


# Grammar


def build_grammar(config: LanguageConfig, rng: np.random.Generator) -> Grammar:
    """Draw the frames of a language and give every concept its words."""
    sizes = [config.num_actions] * config.num_frames + [config.num_values] * config.num_slots
    ends = np.cumsum(sizes)
    slots = tuple(
        tuple(Concept(c) for c in range(end - size, end))
        for size, end in zip(sizes, ends, strict=True)
    )
    words = iter(range(1_000_000))

    def fresh(count: int) -> tuple[Word, ...]:
        return tuple(Word(next(words)) for _ in range(count))

    return Grammar(
        synonyms=tuple(fresh(config.num_synonyms) for _ in range(ends[-1])),
        slots=slots,
        particles=fresh(len(slots)),
        fillers=fresh(config.num_fillers),
        frames=tuple(_draw_frame(action, config, rng) for action in range(config.num_frames)),
        num_words=next(words),
    )


def _draw_frame(action: int, config: LanguageConfig, rng: np.random.Generator) -> Frame:
    shared = rng.permutation(config.num_slots)[: 2 + action % 3] + config.num_frames
    slots = (action, *(int(slot) for slot in shared))
    orders = (tuple(int(i) for i in rng.permutation(len(slots))) for _ in range(config.num_orders))
    return Frame(slots=slots, orders=tuple(orders))


# Meanings


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
        return Meaning(frame=frame, concepts=tuple(self._concept(slot) for slot in slots))

    def changed(self, meaning: Meaning, num_changes: int) -> Meaning:
        """Return `meaning` with other concepts in `num_changes` of its slots."""
        slots = self.grammar.frames[meaning.frame].slots
        concepts = list(meaning.concepts)
        for i in self.rng.permutation(len(slots))[:num_changes]:
            while concepts[i] == meaning.concepts[i]:
                concepts[i] = self._concept(slots[i])
        return Meaning(frame=meaning.frame, concepts=tuple(concepts))

    def _concept(self, slot: int) -> Concept:
        concepts = self.grammar.slots[slot]
        return concepts[self.rng.choice(len(concepts), p=zipf(len(concepts), shift=3.0))]

    # Texts

    def reworded(self, words: Sequence[Word], meaning: Meaning) -> tuple[Word, ...]:
        """Choose a word for each concept of `meaning`, now and then the fitting one of `words`."""
        keep = self.rng.random(len(words)) < self.config.keep_probability
        return tuple(
            word if kept and word in self.grammar.synonyms[concept] else self._synonym(concept)
            for word, kept, concept in zip(words, keep, meaning.concepts, strict=True)
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
        synonyms = self.grammar.synonyms[concept]
        return synonyms[self.rng.choice(len(synonyms), p=zipf(len(synonyms), shift=2.0))]

    # Pairs

    def pairs(self) -> Iterator[LabeledPair]:
        """Yield pairs without end: a query with one partner, or now and then with many."""
        config, rng = self.config, self.rng
        said: list[Query] = []
        while True:
            if not said or rng.random() >= config.return_probability:
                said.append(self.query())
                query = said[-1]
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
        num_changes = 1 if rng.random() < config.near_share else config.far_changes
        other = query.meaning if label else self.changed(query.meaning, num_changes)
        partner = self.text(self.reworded(query.words, other), other)
        a, b = (query.text, partner) if rng.random() < 0.5 else (partner, query.text)
        return LabeledPair(a, b, label ^ int(rng.random() < config.noise))


# Numbers


def numbering(num_words: int, rng: np.random.Generator) -> tuple[RawId, ...]:
    """Return the number that replaces each word: a random permutation."""
    return tuple(RawId(str(number)) for number in rng.permutation(num_words) + 1)


def _desensitised(text: Text, numbers: Sequence[RawId]) -> str:
    return " ".join(numbers[word] for word in text)


# Files


def write_sample(
    out: Path,
    *,
    seed: int = 0,
    num_train: int = 6000,
    num_test: int = 2000,
    num_unlabeled: int = 10000,
) -> None:
    """Write `train.tsv`, `test.tsv`, `test_labels.tsv` and `unlabeled.tsv` of a toy language."""
    if min(num_train, num_test, num_unlabeled) < 0:
        raise UserError("counts must not be negative")
    rng = np.random.default_rng(seed)
    config = LanguageConfig()
    grammar = build_grammar(config, rng)
    numbers = numbering(grammar.num_words, rng)
    pairs = Speaker(grammar=grammar, config=config, rng=rng).pairs()

    def rows(count: int) -> list[tuple[Pair, int]]:
        return [
            (Pair(_desensitised(a, numbers), _desensitised(b, numbers)), label)
            for (a, b, label), _ in zip(pairs, range(count), strict=False)
        ]

    train, test, unlabeled = rows(num_train), rows(num_test), rows(num_unlabeled)
    write_text(out / "train.tsv", "".join(f"{a}\t{b}\t{label}\n" for (a, b), label in train))
    write_text(out / "test.tsv", "".join(f"{a}\t{b}\n" for (a, b), _ in test))
    write_text(out / "test_labels.tsv", "".join(f"{label}\n" for _, label in test))
    write_text(out / "unlabeled.tsv", "".join(f"{a}\t{b}\n" for (a, b), _ in unlabeled))
