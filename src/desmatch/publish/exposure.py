"""Who stands alone: how few rows share an id, a text, a pair or a run of rare ids.

What is seen once cannot hide among others: whoever knows one thing about it has found its row
(k-anonymity: Sweeney 2002). Shapes: B pairs, N ids laid end to end, V distinct ids, G n-grams.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from desmatch.publish.coded import CodedPairs, Ints

RARE_BELOW = 5
"""An id of fewer occurrences is rare."""

RUN_LENGTHS = (1, 2, 3, 4, 5)


def crowd(pairs: CodedPairs) -> list[dict[str, Any]]:
    """Return how many ids, texts and pairs occur in one row, in two, in fewer than 5 and 10."""
    kinds = {
        "ids": pairs.rows_with_id,
        "texts": pairs.rows_with_text,
        "pairs": pairs.rows_with_pair,
    }
    return [
        {
            "kind": kind,
            "distinct": len(rows),
            "in_1": int((rows == 1).sum()),
            "in_2": int((rows == 2).sum()),
            "below_5": int((rows < 5).sum()),
            "below_10": int((rows < 10).sum()),
        }
        for kind, rows in kinds.items()
    ]


def rows_with_lone_id(pairs: CodedPairs) -> int:
    """Return how many pairs hold an id that no other pair holds."""
    is_lone = pairs.rows_with_id[pairs.codes] == 1
    return len(np.unique(pairs.text_of[is_lone] % pairs.num_pairs))


def lone_runs(pairs: CodedPairs) -> dict[str, Any]:
    """Return how many runs of ids occur once in all distinct texts: each tells one from all others.

    Returns:
        `longest`, ids of the longest run of rare ones; `texts`, distinct texts; and for each
        length of a run, of rare ids alone and of any, `once`: runs that occur once, and `texts`:
        those that hold such a run.
    """
    texts = pairs.distinct
    is_rare = (pairs.counts < RARE_BELOW)[texts.codes]
    grams, lengths = texts.codes, []
    run = is_rare.copy()  # (N,), whether the n ids from here on are rare, and in one text
    ends = texts.offsets[1:][texts.text_of]
    inside = np.ones(len(grams), np.bool_)
    for length in RUN_LENGTHS:
        if length > 1:
            grams, inside = _longer(grams, texts, length)
            run = run & inside & np.roll(is_rare, 1 - length)
        lengths.append({
            "length": length,
            **{f"rare_{name}": count for name, count in _once(grams, run, texts).items()},
            **{f"any_{name}": count for name, count in _once(grams, inside, texts).items()},
        })  # fmt: skip
    return {"longest": _longest(is_rare, ends), "texts": len(texts.offsets) - 1, "lengths": lengths}


def _longer(grams: Ints, texts: CodedPairs, length: int) -> tuple[Ints, NDArray[np.bool_]]:
    """Return (N,) numbers of the n-grams that begin at each id, and if they end in its text."""
    following = np.roll(texts.codes, 1 - length)
    keys = grams * len(texts.ids) + following
    numbers = np.unique(keys, return_inverse=True)[1].astype(np.int64)
    place = np.arange(len(grams))
    return numbers, place + length <= texts.offsets[1:][texts.text_of]


def _once(grams: Ints, counted: NDArray[np.bool_], texts: CodedPairs) -> dict[str, int]:
    """Return how many of the counted n-grams occur once, and in how many texts these lie."""
    found = grams[counted]
    is_once = np.bincount(found)[found] == 1
    return {
        "once": int(is_once.sum()),
        "texts": len(np.unique(texts.text_of[counted][is_once])),
    }


def _longest(is_rare: NDArray[np.bool_], ends: Ints) -> int:
    """Return the length of the longest run of rare ids within a text."""
    place = np.arange(len(is_rare))
    common = np.minimum.accumulate(np.where(is_rare, len(place), place)[::-1])[::-1]
    return int((np.minimum(common, ends) - place).max(initial=0))
