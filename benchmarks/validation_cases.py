"""Labelled rows and a test whose labels we know: drawn from real rows, or made up to mislead.

Shapes: B rows (pairs).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from desmatch.data.read import column, read_pairs
from desmatch.data.sample import LanguageConfig, Speaker, build_grammar

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from desmatch.data.sample import LabeledPair

OPINIONATED = 0.4
"""Share of the hubs of the leaky copy whose pairs all have one label."""


class Rows(NamedTuple):
    """Pairs with their labels.

    Attributes:
        a: (B,), texts.
        b: (B,), texts.
        labels: (B,), 0 or 1.
    """

    a: NDArray[Any]
    b: NDArray[Any]
    labels: NDArray[np.int8]

    def take(self, which: NDArray[np.int64] | NDArray[np.bool_]) -> Rows:
        """Return some of the rows."""
        return Rows(self.a[which], self.b[which], self.labels[which])

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(B,), ids of both texts."""
        return np.array(
            [a.count(" ") + b.count(" ") + 2 for a, b in zip(self.a, self.b, strict=True)]
        )


class Case(NamedTuple):
    """What a contestant has, and what the organiser keeps.

    Attributes:
        labelled: Rows to train and validate on.
        test: Rows to score; their labels are looked at after the claim.
    """

    labelled: Rows
    test: Rows

    @property
    def known_share(self) -> float:
        """Share of the test's rows that share a text with a labelled row."""
        known = {*self.labelled.a, *self.labelled.b}
        rows = zip(self.test.a, self.test.b, strict=True)
        return float(np.mean([a in known or b in known for a, b in rows]))


def read_rows(path: Path) -> Rows:
    """Read a file of labelled rows."""
    rows = read_pairs([path], labels="required").rows
    a, b = (np.array(column(rows, side).to_pylist(), dtype=object) for side in ("a", "b"))
    return Rows(a, b, np.asarray(column(rows, "label")))


def row_by_row(rows: Rows, share: float, rng: np.random.Generator) -> Case:
    """Draw a test from labelled rows one by one, as contests do."""
    order = rng.permutation(len(rows.labels))
    num_test = round(share * len(order))
    return Case(rows.take(np.sort(order[num_test:])), rows.take(np.sort(order[:num_test])))


def leaky(num_rows: int, rng: np.random.Generator) -> Case:
    """Make hubs whose labels are noise of their own, and a test of other queries.

    Four of ten queries have an opinion: all their pairs get one label, whatever the texts say. A
    model that remembers a query is right about its other pairs, and knows nothing of a new query.
    """
    config = replace(
        LanguageConfig(), num_slots=6, num_values=20, frame_sizes=(3, 4), degree_exponent=1.6
    )
    pairs = _language(config, rng)
    labelled = _as_rows(list(islice(pairs, num_rows)))
    seen = {*labelled.a, *labelled.b}
    others = _as_rows(list(islice(pairs, num_rows)))
    is_new = [not seen & {a, b} for a, b in zip(others.a, others.b, strict=True)]
    test = others.take(np.flatnonzero(is_new)[: num_rows // 4])
    return Case(_with_opinions(labelled, rng), _with_opinions(test, rng))


def drifted(num_rows: int, strength: float, rng: np.random.Generator) -> Case:
    """Make a test of longer texts whose queries are new more often than not.

    Of one pool of rows a test is drawn with probabilities that rise with the number of ids, as
    exp(strength * standardised length), among rows without a hub; the labelled rows are the others.

    Args:
        num_rows: Labelled rows; the test has a quarter as many.
        strength: 0: no drift of lengths.
        rng: Draws all.
    """
    config = replace(
        LanguageConfig(), frame_sizes=(1, 4), degree_exponent=2.2, particle_probability=0.4
    )
    pool = _as_rows(list(islice(_language(config, rng), 3 * num_rows)))
    often = Counter([*pool.a, *pool.b])
    is_alone = np.array([often[a] == often[b] == 1 for a, b in zip(pool.a, pool.b, strict=True)])
    lengths = pool.lengths
    odds = np.exp(strength * (lengths - lengths.mean()) / lengths.std())
    chances = odds * (is_alone if strength else np.ones(len(odds)))
    test = rng.choice(len(odds), num_rows // 4, replace=False, p=chances / chances.sum())
    others = np.setdiff1d(np.arange(len(odds)), test)
    return Case(pool.take(rng.permutation(others)[:num_rows]), pool.take(test))


def _language(config: LanguageConfig, rng: np.random.Generator) -> Iterator[LabeledPair]:
    """Yield pairs of a new language without end."""
    return Speaker(grammar=build_grammar(config, rng), config=config, rng=rng).pairs()


def _said(text: Sequence[int]) -> str:
    return " ".join(str(word + 1) for word in text)


def _as_rows(pairs: Sequence[LabeledPair]) -> Rows:
    a, b = [_said(pair.a) for pair in pairs], [_said(pair.b) for pair in pairs]
    return Rows(
        np.array(a, dtype=object),
        np.array(b, dtype=object),
        np.array([pair.label for pair in pairs], np.int8),
    )


def _with_opinions(rows: Rows, rng: np.random.Generator) -> Rows:
    """Give all pairs of some hubs one label."""
    often = Counter([*rows.a, *rows.b])
    hubs = sorted(text for text, count in often.items() if count > 1)
    opinions = {text: int(rng.integers(2)) for text in hubs if rng.random() < OPINIONATED}
    labels = rows.labels.copy()
    for row, texts in enumerate(zip(rows.a, rows.b, strict=True)):
        for text in texts:
            labels[row] = opinions.get(text, labels[row])
    return rows._replace(labels=labels)
