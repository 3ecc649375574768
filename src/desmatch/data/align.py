"""Frequency alignment: the k-th most frequent id takes the place of the k-th most frequent token.

Source: Su Jianlin's baseline for GAIIC 2021 track 3 (kexue.fm/archives/8213).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from desmatch.errors import UserError
from desmatch.runs import read_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

_RESERVED = re.compile(r"\[[^\]\s]+\]")
"""Special and unused tokens of a plain-text vocabulary: [CLS], [unused7]."""


def rank_tokens(
    reference_vocab: Mapping[str, int], reference_counts: Mapping[str, int]
) -> NDArray[np.int64]:
    """Return the rows of a plain-text vocabulary, most frequent token first.

    Tokens without a count and reserved tokens such as [CLS] are left out; of equally frequent
    tokens the one with the lower row comes first.

    Args:
        reference_vocab: Token to row of the checkpoint's embedding.
        reference_counts: Token to frequency in an open corpus.
    """
    counted = [
        (-reference_counts[token], row)
        for token, row in reference_vocab.items()
        if reference_counts.get(token, 0) > 0 and not _RESERVED.fullmatch(token)
    ]
    return np.array([row for _, row in sorted(counted)], dtype=np.int64)


def read_reference_counts(path: Path) -> dict[str, int]:
    """Read a JSON object from token to frequency.

    Raises:
        UserError: Not an object of non-negative integers.
    """
    counts = read_json(path)
    if not isinstance(counts, dict) or not counts:
        raise UserError(f"{path}: expected a JSON object from token to count")
    for token, count in counts.items():
        if not isinstance(count, int) or count < 0:
            raise UserError(f"{path}: count of {token!r}: expected 0 or more, got {count!r}")
    return counts


def read_reference_vocab(path: Path) -> dict[str, int]:
    """Read a vocab.txt, one token a line, row by row.

    Raises:
        UserError: The file is missing or not UTF-8.
    """
    try:
        tokens = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such file; a checkpoint folder needs config.json, vocab.txt and "
            "model.safetensors"
        ) from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 ({error}); save it as UTF-8") from None
    if tokens and not tokens[-1]:
        tokens.pop()
    return {token.removesuffix("\r"): row for row, token in enumerate(tokens)}
