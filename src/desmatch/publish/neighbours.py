"""What an attacker gets right who has texts of the same kind, by which tokens stand together.

Numbering renames the nodes of a graph: tokens, joined as often as one follows the other. Whoever
has the like graph of plain texts looks for the renaming under which both agree best, a quadratic
assignment, here by FAQ (Vogelstein et al. 2015, 'Fast approximate quadratic programming for graph
matching') from where the frequencies alone lead. It is far stronger than matching ranks, and still
not the strongest: language models decipher more. As in `attack`, only shares leave this module.

Shapes: N ids laid end to end, M most frequent tokens on either side.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.optimize import quadratic_assignment

from desmatch.publish.attack import chance_placed, shares

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from desmatch.publish.attack import Truth
    from desmatch.publish.coded import CodedPairs

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

MOST = 300
"""Tokens that are matched: time grows with their cube, and rarer ones have few neighbours."""

WIDTH = 0.3
"""How far apart the log frequencies of a token and its number are expected to lie."""

EVEN = 0.01
"""What every pair is given to begin with, against 1 for one of equal frequency."""


class Corpus(NamedTuple):
    """Plain texts as codes.

    Attributes:
        tokens: Token to its code.
        codes: (N,), of all texts end to end.
        offsets: (texts + 1,).
    """

    tokens: Mapping[str, int]
    codes: Ints
    offsets: Ints

    @property
    def counts(self) -> dict[str, int]:
        """How often each token occurs."""
        often = np.bincount(self.codes, minlength=len(self.tokens)).tolist()
        return dict(zip(self.tokens, often, strict=True))


def read_corpus(texts: Iterable[str], split: Callable[[str], list[str]]) -> Corpus:
    """Cut and number texts; those without a token are left out."""
    tokens: dict[str, int] = {}
    codes: list[int] = []
    offsets = [0]
    for text in texts:
        codes.extend(tokens.setdefault(token, len(tokens)) for token in split(text))
        offsets += [len(codes)] if len(codes) > offsets[-1] else []
    return Corpus(tokens, np.array(codes, np.int64), np.array(offsets, np.int64))


def neighbour_attack(
    pairs: CodedPairs, truth: Truth, tokens: Sequence[str | None], corpus: Corpus
) -> dict[str, Any]:
    """Return the attacker's shares of the most frequent ids, beside those of matching ranks.

    Args:
        pairs: The numbered pairs.
        truth: Of their ids.
        tokens: (V,), what each id stands for, as the key says.
        corpus: The attacker's texts.
    """
    candidates = np.flatnonzero(~truth.is_merged)
    known = np.array([*corpus.counts.values()], np.int64)
    size = min(MOST, len(candidates), len(known))
    ids = candidates[_most_frequent(truth.counts[candidates], size)]
    plain = _most_frequent(known, size)
    guessed = match(
        follows(pairs.codes, pairs.offsets, ids),
        follows(corpus.codes, corpus.offsets, plain),
        _closeness(truth.counts[ids], known[plain]),
    )
    true = np.array([corpus.tokens.get(tokens[each] or "", -1) for each in ids])
    right = (plain[guessed] == true).astype(np.float64)
    counts = truth.counts[ids]
    return {
        "top": size,
        "share_of_occurrences": float(counts.sum() / max(truth.counts.sum(), 1)),
        "by_rank": shares(chance_placed(truth)[ids], counts),
        "by_neighbours": shares(right, counts),
    }


def match(ours: Floats, theirs: Floats, start: Floats) -> Ints:
    """Return (M,), for each token of one graph its like in the other.

    Args:
        ours: (M, M), how strongly each token is followed by each.
        theirs: (M, M).
        start: (M, M), above 0, how likely each two are the same to begin with.
    """
    rng = np.random.default_rng(0)  # unused: with a start nothing is drawn
    options = {"maximize": True, "P0": _doubly_stochastic(start), "rng": rng}
    return np.asarray(quadratic_assignment(ours, theirs, method="faq", options=options).col_ind)


def follows(codes: Ints, offsets: Ints, chosen: Ints) -> Floats:
    """Return (M, M), the root of the share of neighbours that are each two of the chosen codes."""
    place = np.full(int(codes.max(initial=0)) + 1, -1)
    place[chosen] = np.arange(len(chosen))
    at = place[codes]
    is_last = np.zeros(len(codes), np.bool_)
    is_last[offsets[1:] - 1] = True
    both = (at[:-1] >= 0) & (at[1:] >= 0) & ~is_last[:-1]
    cells = at[:-1][both] * len(chosen) + at[1:][both]
    often = np.bincount(cells, minlength=len(chosen) ** 2).astype(np.float64)
    roots: Floats = np.sqrt(often / max(often.sum(), 1))
    return roots.reshape(len(chosen), -1)


def _most_frequent(counts: Ints, size: int) -> Ints:
    return np.argsort(-counts, kind="stable")[:size]


def _closeness(ours: Ints, theirs: Ints) -> Floats:
    """Return (M, M), high where two shares of all occurrences are alike."""
    logs = [np.log(counts / counts.sum()) for counts in (ours, theirs)]
    distance = (logs[0][:, None] - logs[1][None]) / WIDTH
    close: Floats = np.exp(-(distance**2)) + EVEN
    return close


def _doubly_stochastic(start: Floats) -> Floats:
    """Scale rows and columns until each sums to 1 (Sinkhorn & Knopp 1967)."""
    matrix = start
    for _ in range(1000):
        matrix = matrix / matrix.sum(axis=1, keepdims=True)
        matrix = matrix / matrix.sum(axis=0, keepdims=True)
    return matrix
