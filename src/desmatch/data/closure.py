"""What labelled pairs say of other pairs: a = b and b = c give a = c; a = b and a != c give b != c.

Texts joined by pairs of label 1 are equal; a set of equal texts is a class. A pair of label 0 holds
two classes apart. Where it lies inside one class, the rows contradict each other, and nothing
is concluded from that class.

Shapes: B labelled pairs, T texts, C classes of equal texts, N new pairs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.sparse.csgraph import connected_components

from desmatch.data.graph import adjacency, pair_keys

if TYPE_CHECKING:
    from numpy.typing import NDArray

UNKNOWN = -1
"""The answer where no labelled pairs say anything."""


class Closure(NamedTuple):
    """Which texts are equal and which differ, as far as labelled pairs say.

    Attributes:
        equal: (T,), int64, class of each text.
        is_sound: (C,), whether no pair of label 0 lies inside the class.
        apart: Sorted keys of the pairs of classes that a pair of label 0 holds apart.
        contradicted: (B,), the pairs of label 0 inside a class.
    """

    equal: NDArray[np.int64]
    is_sound: NDArray[np.bool_]
    apart: NDArray[np.int64]
    contradicted: NDArray[np.bool_]

    def answers(self, a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.int8]:
        """(pairs,), 1, 0 or UNKNOWN for pairs of texts, those from T on unknown to the closure."""
        result = np.full(len(a), UNKNOWN, np.int8)
        known = np.flatnonzero((a < len(self.equal)) & (b < len(self.equal)))
        first, second = self.equal[a[known]], self.equal[b[known]]
        sound = self.is_sound[first] & self.is_sound[second]
        keys = pair_keys(first, second, len(self.is_sound))
        result[known[sound & _contains(self.apart, keys)]] = 0
        result[known[sound & (first == second)]] = 1
        return result


class ClosedPairs(NamedTuple):
    """New pairs that follow from labelled ones.

    Attributes:
        a: (N,), number of each first text.
        b: (N,), of each second text.
        labels: (N,), int8.
    """

    a: NDArray[np.int64]
    b: NDArray[np.int64]
    labels: NDArray[np.int8]


def infer_closure(
    a: NDArray[np.int64], b: NDArray[np.int64], labels: NDArray[np.int8], *, num_texts: int
) -> Closure:
    """Find the classes of equal texts and which of them differ.

    Args:
        a: (B,), number of each first text.
        b: (B,), of each second text.
        labels: (B,), 0 or 1.
        num_texts: T.
    """
    is_same = labels == 1
    num_classes, equal = connected_components(
        adjacency(a[is_same], b[is_same], num_texts), directed=False
    )
    first, second = equal[a], equal[b]
    contradicted = ~is_same & (first == second)
    is_sound = np.ones(num_classes, np.bool_)
    is_sound[first[contradicted]] = False
    apart = ~is_same & (first != second)
    keys = np.unique(pair_keys(first[apart], second[apart], num_classes))
    return Closure(equal.astype(np.int64), is_sound, keys, contradicted)


def close(
    a: NDArray[np.int64],
    b: NDArray[np.int64],
    labels: NDArray[np.int8],
    *,
    cap: float,
    rng: np.random.Generator,
) -> ClosedPairs:
    """Draw new pairs that follow from labelled ones, in the ratio of their labels.

    A class of n texts gives at most n new pairs of label 1, and two classes that are held apart at
    most as many of label 0 as they have texts beside the two that one pair needs, so that no clique
    drowns the rest. Pairs that are labelled already are not new. All texts of a new pair are texts
    of the given pairs, so where these are whole components outside a held-out fold, no text of
    the fold appears.

    Args:
        a: (B,), number of each first text.
        b: (B,), of each second text.
        labels: (B,), 0 or 1.
        cap: At most so many new pairs for each given one.
        rng: Draws pairs, and which text comes first.
    """
    num_texts = int(max(a.max(initial=-1), b.max(initial=-1))) + 1
    closure = infer_closure(a, b, labels, num_texts=num_texts)
    known = np.unique(pair_keys(a, b, num_texts))
    order = np.argsort(closure.equal, kind="stable")
    sizes = np.bincount(closure.equal, minlength=len(closure.is_sound))
    members = _Members(order, sizes, known, most=2 * cap * len(labels))
    same = members.pairs_within(np.flatnonzero(closure.is_sound & (sizes > 2)), rng)
    first, second = np.divmod(closure.apart, max(1, len(closure.is_sound)))
    says_more = (
        closure.is_sound[first] & closure.is_sound[second] & (sizes[first] + sizes[second] > 2)
    )
    differ = members.pairs_between(first[says_more], second[says_more], rng)
    share = float(labels.mean()) if len(labels) else 0.0
    drawn = [
        rng.permutation(keys)[:number]
        for keys, number in zip(
            (same, differ), _numbers(len(same), len(differ), share, cap * len(labels)), strict=True
        )
    ]
    low, high = np.divmod(np.concatenate(drawn), max(1, num_texts))
    swapped = rng.random(len(low)) < 0.5
    return ClosedPairs(
        np.where(swapped, high, low),
        np.where(swapped, low, high),
        np.repeat(np.array([1, 0], np.int8), [len(keys) for keys in drawn]),
    )


def _numbers(num_same: int, num_differ: int, share: float, limit: float) -> tuple[int, int]:
    """Return how many pairs of label 1 and 0 to take: as many as may be in the ratio `share`."""
    total = limit
    if share > 0:
        total = min(total, num_same / share)
    if share < 1:
        total = min(total, num_differ / (1 - share))
    return int(total * share + 1e-9), int(total * (1 - share) + 1e-9)


def _contains(ascending: NDArray[np.int64], keys: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(keys,), whether each key is among the ascending ones."""
    if not len(ascending):
        return np.zeros(len(keys), np.bool_)
    place = np.minimum(np.searchsorted(ascending, keys), len(ascending) - 1)
    found: NDArray[np.bool_] = ascending[place] == keys
    return found


DRAWS = 2
"""Pairs drawn for each that a class may give, where it has too many to list them all."""


class _Members(NamedTuple):
    """The texts of each class.

    Attributes:
        texts: (T,), all texts, class by class.
        sizes: (C,).
        known: Sorted keys of the pairs that are labelled.
        most: About so many new pairs of a label are of use; more are not made.
    """

    texts: NDArray[np.int64]
    sizes: NDArray[np.int64]
    known: NDArray[np.int64]
    most: float

    def pairs_within(
        self, classes: NDArray[np.int64], rng: np.random.Generator
    ) -> NDArray[np.int64]:
        """Return keys of new pairs inside each class, at most as many as it has texts."""
        size = self.sizes[classes]
        limit = _lowered(size, self.most)
        owner, number = _draw_numbers(size * (size - 1) // 2, limit, rng)
        # number k of a triangle without its diagonal: row i < column j, k = j (j - 1) / 2 + i
        j = ((1 + np.sqrt(1 + 8 * number)) / 2).astype(np.int64)
        i = number - j * (j - 1) // 2
        return self._new(owner, (classes[owner], i), (classes[owner], j), limit)

    def pairs_between(
        self,
        first: NDArray[np.int64],
        second: NDArray[np.int64],
        rng: np.random.Generator,
    ) -> NDArray[np.int64]:
        """Return keys of new pairs between classes, at most one for each text beyond two."""
        limit = _lowered(self.sizes[first] + self.sizes[second] - 2, self.most)
        owner, number = _draw_numbers(self.sizes[first] * self.sizes[second], limit, rng)
        i, j = np.divmod(number, self.sizes[second[owner]])
        return self._new(owner, (first[owner], i), (second[owner], j), limit)

    def _new(
        self,
        owner: NDArray[np.int64],
        one: tuple[NDArray[np.int64], NDArray[np.int64]],
        other: tuple[NDArray[np.int64], NDArray[np.int64]],
        limit: NDArray[np.int64],
    ) -> NDArray[np.int64]:
        """Return the keys of (class, place) pairs that are not known, `limit` for each owner."""
        starts = np.cumsum(self.sizes) - self.sizes
        keys = pair_keys(
            self.texts[starts[one[0]] + one[1]],
            self.texts[starts[other[0]] + other[1]],
            len(self.texts),
        )
        is_new = ~_contains(self.known, keys)
        keys, owner = keys[is_new], owner[is_new]  # owners ascend
        place = np.arange(len(owner)) - np.searchsorted(owner, owner)
        return keys[place < limit[owner]]


def _lowered(limits: NDArray[np.int64], most: float) -> NDArray[np.int64]:
    """Lower all limits by one factor to a sum of about `most`, but none below 1."""
    factor = min(1.0, most / max(1, int(limits.sum())))
    lowered: NDArray[np.int64] = np.ceil(limits * factor).astype(np.int64)
    return lowered


def _draw_numbers(
    totals: NDArray[np.int64], limits: NDArray[np.int64], rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw numbers below each total, without repetition and in random order.

    Where a total is small all of its numbers come, else DRAWS for each that is wanted.

    Returns:
        The index of each number's total, ascending, and the number.
    """
    is_listed = totals <= DRAWS * limits
    often = np.where(is_listed, totals, DRAWS * limits)
    owner = np.repeat(np.arange(len(totals)), often)
    within = np.arange(len(owner)) - np.repeat(np.cumsum(often) - often, often)
    drawn = rng.integers(0, np.maximum(totals[owner], 1))
    number = np.where(is_listed[owner], within, drawn)
    order = np.lexsort((number, owner))
    owner, number = owner[order], number[order]
    is_first = (np.diff(owner, prepend=-1) != 0) | (np.diff(number, prepend=-1) != 0)
    owner, number = owner[is_first], number[is_first]
    shuffled = np.lexsort((rng.random(len(owner)), owner))
    return owner[shuffled], number[shuffled]
