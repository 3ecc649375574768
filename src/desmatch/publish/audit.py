"""How exposed numbered pairs are: every figure of the audit's page.

No figure holds a token or a text. What an attacker would guess is compared with the key inside
`attack` and only its share comes out.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from desmatch.data.align import read_reference_counts
from desmatch.errors import UserError
from desmatch.publish.attack import ceiling, rank_attack, truth_of
from desmatch.publish.coded import NO_LABEL, read_coded
from desmatch.publish.exposure import RARE_BELOW, crowd, lone_runs, rows_with_lone_id
from desmatch.publish.key import read_key
from desmatch.publish.neighbours import neighbour_attack, read_corpus
from desmatch.publish.plain import Columns, read_plain
from desmatch.publish.tokens import AUTO, auto_split
from desmatch.publish.treatments import find_judge, weigh_treatments

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from desmatch.publish.coded import CodedPairs
    from desmatch.publish.key import Key
    from desmatch.publish.neighbours import Corpus

CURVE_POINTS = 200
UNKNOWN = (
    "what an attacker gets right cannot be known without the key and an open corpus: --key FILE "
    "with --public-counts JSON or --public-pairs FILE measures it"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Audit:
    """What to look at."""

    data: Sequence[Path]
    public_counts: Path | None = None
    """Token counts of an open corpus."""
    public_pairs: Path | None = None
    """Plain pairs of the attacker's; their tokens are counted where `public_counts` is none."""
    key: Path | None = None
    auc_rows: int = 20_000
    seed: int = 0


def audit(asked: Audit) -> dict[str, Any]:
    """Return every figure of numbered pairs' exposure, as JSON holds it.

    Raises:
        UserError: A file cannot be read, has a malformed row, or the key is of other files.
    """
    key = None if asked.key is None else read_key(asked.key)
    pairs = read_coded(asked.data)
    if key is not None:
        _require_own(key, pairs, asked)
    texts, counts = _public(asked, key)
    truth, by_neighbours = None, None
    if key is not None and counts is not None:
        numbers = {number: token for token, number in key.numbers.items()}
        tokens = [numbers.get(each) for each in pairs.ids]
        truth = truth_of(pairs.counts, tokens, counts)
        by_neighbours = texts and neighbour_attack(pairs, truth, tokens, texts)
    judge = find_judge(pairs, max_rows=asked.auc_rows, seed=asked.seed)
    return {
        "files": [str(path) for path in asked.data],
        "seed": asked.seed,
        "data": _sizes(pairs, key),
        "attack": None if truth is None else rank_attack(truth),
        "neighbours": by_neighbours,
        "attack_note": UNKNOWN if truth is None else None,
        "ceiling": ceiling(pairs.counts),
        "crowd": crowd(pairs),
        "rows_with_lone_id": rows_with_lone_id(pairs),
        "runs": {"rare_below": RARE_BELOW, **lone_runs(pairs)},
        "treatments": weigh_treatments(pairs, truth, judge, seed=asked.seed),
        "auc_rows": 0 if isinstance(judge, str) else len(judge.rows),
        "auc_note": judge if isinstance(judge, str) else None,
        "curves": {
            "these files": frequency_curve(pairs.counts),
            **({} if counts is None else {"open corpus": frequency_curve([*counts.values()])}),
        },
    }


def _sizes(pairs: CodedPairs, key: Key | None) -> dict[str, Any]:
    numbers = None if key is None else {*key.numbers.values(), *key.rare}
    return {
        "rows": pairs.num_pairs,
        "labelled": int((pairs.labels != NO_LABEL).sum()),
        "distinct_texts": int(pairs.texts.max()) + 1,
        "distinct_ids": len(pairs.ids),
        "occurrences": len(pairs.codes),
        "ids_not_in_key": None
        if numbers is None
        else sum(each not in numbers for each in pairs.ids),
    }


def _require_own(key: Key, pairs: CodedPairs, asked: Audit) -> None:
    """Refuse a key that knows none of the ids."""
    if not set(key.numbers.values()).intersection(pairs.ids):
        raise UserError(
            f"{asked.key}: knows none of the numbers of {asked.data[0]}; name the key that was "
            "made with them"
        )


def _public(asked: Audit, key: Key | None) -> tuple[Corpus | None, dict[str, int] | None]:
    """Return what the attacker has: texts, if any, and counts of tokens, if any.

    Raises:
        UserError: A file cannot be read, or texts cannot be cut as the key says.
    """
    identity = {} if key is None else key.tokens
    texts, counts = None, None
    if asked.public_pairs is not None:
        if identity.get("kind") != AUTO:
            raise UserError("--public-pairs needs --key FILE beside it, of texts cut by auto")
        rows = read_plain(asked.public_pairs, Columns())
        sides = (text for row in rows for text in (row.a, row.b))
        texts = read_corpus(sides, auto_split(lowercase=identity["lowercase"]))
        counts = texts.counts
        if not counts:
            raise UserError(f"{asked.public_pairs}: its texts have no token; name another file")
    if asked.public_counts is not None:
        counts = as_tokens(read_reference_counts(asked.public_counts), identity)
    return texts, counts


def as_tokens(counts: Mapping[str, int], identity: Mapping[str, Any]) -> dict[str, int]:
    """Return the counts of what can be a token where texts were cut as the key says.

    Whoever attacks knows how texts are cut: pieces of words and special tokens are left out, and
    forms that are one token count together.
    """
    if identity.get("kind") != AUTO:
        return dict(counts)
    split = auto_split(lowercase=identity["lowercase"])
    found: Counter[str] = Counter()
    for token, count in counts.items():
        parts = split(token)
        if len(parts) == 1:
            found[parts[0]] += count
    return found


def frequency_curve(counts: Sequence[int] | np.ndarray) -> dict[str, list[float]]:
    """Return shares of all occurrences by rank, at ranks that lie evenly on a logarithmic axis."""
    falling = np.sort(np.asarray(counts, np.float64))[::-1]
    falling = falling[falling > 0]
    if not len(falling):
        return {"rank": [], "share": []}
    ranks = np.unique(np.geomspace(1, len(falling), CURVE_POINTS).round().astype(np.int64))
    return {"rank": ranks.tolist(), "share": (falling[ranks - 1] / falling.sum()).tolist()}
