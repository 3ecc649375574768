"""The nouns of the project: raw ids, pairs, special tokens."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple, NewType

RawId = NewType("RawId", str)
"""An id as the organiser published it: any token without white space, a number in the contest."""


class Special(IntEnum):
    """Tokens that exist in every vocabulary, in this order.

    NO and YES are the label tokens: a labelled pair predicts one of them at [CLS].
    """

    PAD = 0
    UNK = 1
    CLS = 2
    SEP = 3
    MASK = 4
    NO = 5
    YES = 6

    @property
    def token(self) -> str:
        """The token's text, such as `[PAD]`."""
        return f"[{self.name}]"


class Pair(NamedTuple):
    """Two texts, each a string of raw ids with one space between them."""

    a: str
    b: str
