"""What an attacker who knows how often tokens are used elsewhere gets right by ranks alone.

The k-th most frequent number is taken for the k-th most frequent token of an open corpus: the
oldest attack on a substitution (Al-Kindi, 9th century; on encrypted columns Naveed, Kamara & Wright
2015), and the alignment that our own training begins with. Equal counts are broken at random, and
what is given is the expectation over all ways to break them, not one draw.

Only shares leave this module: which number was taken for which token is not kept.

Shapes: V ids, P tokens of the open corpus.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.stats import spearmanr

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

TOPS = (10, 100, 1000)
"""The attack is judged on so many of the most frequent ids, and on all."""

NEARBY = (0, 5, 50)
"""Ranks by which a guess may be off."""


class Truth(NamedTuple):
    """What the key says of the ids.

    Attributes:
        counts: (V,), how often each id occurs.
        public: (V,), the count of the id's token in the open corpus; 0: not in it.
        corpus: (P,), the counts of all tokens of the open corpus, above 0.
        is_merged: (V,), whether an id stands for several tokens; the attacker knows that it does.
    """

    counts: Ints
    public: Ints
    corpus: Ints
    is_merged: NDArray[np.bool_]


class _Places(NamedTuple):
    """Ranks that something may have: `size` of them from `start` on, all equally likely."""

    start: Ints
    size: Ints


def _places(counts: ArrayLike, among: Ints) -> _Places:
    """Return the ranks of counts among others, the greatest first."""
    rising = np.sort(-among)
    start, end = (np.searchsorted(rising, -np.asarray(counts), side) for side in ("left", "right"))
    return _Places(start, np.maximum(end - start, 1))


def chance_placed(truth: Truth, off: int = 0) -> Floats:
    """Return (V,), the chance that an id's rank and its token's differ by at most `off`."""
    ids = _places(truth.counts, truth.counts[~truth.is_merged])
    tokens = _places(truth.public, truth.corpus)
    shift = tokens.start - ids.start

    def not_beyond(difference: int) -> Floats:
        """Count the pairs of ranks whose difference is at most this."""
        reach = difference - shift

        def below(steps: Ints) -> Ints:  # 1 + 2 + ... + steps
            positive: Ints = np.maximum(steps, 0)
            return positive * (positive + 1) // 2

        inner = below(reach + ids.size) - below(reach)
        outer = below(reach + ids.size - tokens.size) - below(reach - tokens.size)
        return (inner - outer).astype(np.float64)

    chance = (not_beyond(off) - not_beyond(-off - 1)) / (ids.size * tokens.size)
    return np.where((truth.public > 0) & ~truth.is_merged, chance, 0.0)


def rank_attack(truth: Truth) -> dict[str, Any]:
    """Return the attacker's shares, of ids and of their occurrences, over all and the top ids."""
    right = chance_placed(truth)
    known = (truth.public > 0) & ~truth.is_merged
    order = np.argsort(-truth.counts, kind="stable")
    tops = [size for size in TOPS if size < len(order)] + [len(order)]
    return {
        **shares(right, truth.counts),
        "nearby": [{"off": off, **shares(chance_placed(truth, off), truth.counts)}
                   for off in NEARBY],
        "tops": [{"top": top, **shares(right[order[:top]], truth.counts[order[:top]])}
                 for top in tops],
        "spearman": _spearman(truth.counts[known], truth.public[known]),
        "ids_in_corpus": int(known.sum()),
    }  # fmt: skip


def shares(right: Floats, counts: Ints) -> dict[str, float]:
    """Return the share of ids and of occurrences that are placed right.

    Args:
        right: (V,), the chance of each id.
        counts: (V,).
    """
    total = max(int(counts.sum()), 1)
    return {
        "ids": float(right.sum() / max(len(right), 1)),
        "occurrences": float(right @ counts / total),
    }


def ceiling(counts: Ints) -> dict[str, float]:
    """Return the shares of an attacker who has the exact counts of these very files.

    An id that shares its count with others is one of them at random.
    """
    return shares(1 / _places(counts, counts).size, counts)


def _spearman(counts: Ints, public: Ints) -> float | None:
    """Return the rank correlation, or none where it is not defined."""
    if len(counts) < 3 or np.ptp(counts) == 0 or np.ptp(public) == 0:
        return None
    return float(spearmanr(counts, public).statistic)


def truth_of(counts: Ints, tokens: Sequence[str | None], corpus: Mapping[str, int]) -> Truth:
    """Look up how often the tokens of ids occur elsewhere.

    Args:
        counts: (V,), of the ids.
        tokens: (V,), what each id stands for; none: several tokens, or it is of another key.
        corpus: Token to count.
    """
    public = [0 if token is None else corpus.get(token, 0) for token in tokens]
    return Truth(
        counts,
        np.array(public, np.int64),
        np.array([count for count in corpus.values() if count > 0], np.int64),
        np.array([token is None for token in tokens], np.bool_),
    )
