"""Tokens to numbers by a keyed pseudo-random function of the secret and the token alone.

A number is the first 63 bits of HMAC-SHA256(secret, token): the same token has the same number
wherever the secret is the same, and without it a number tells neither the token's place in the
alphabet nor when or how often it came (Bellare, Canetti & Krawczyk 1996; RFC 2104). No state
decides it, so the files of another day agree even where the key file is lost and only the secret
is left.

Two of n tokens share a number with a chance of about n^2 / 2^64: 5e-8 for a million tokens. A
collision is refused, not mended: a second choice would depend on which tokens came before, and on a
day that saw one of the two alone the number would be another.
"""

from __future__ import annotations

import hmac

from desmatch.errors import UserError

NUMBER_BITS = 63
"""So that a number fits a signed 64-bit integer of any database."""

COLLISION = (
    "two tokens have the same number by this secret; begin anew with another secret and another "
    "key file"
)

TOKEN, RARE, BUCKET, ROWS = (
    f"desmatch/{purpose}/1\0".encode() for purpose in ("token", "rare", "bucket", "rows")
)
"""What stands before a message: a secret is never asked the same for two purposes."""


def keyed(secret: bytes, purpose: bytes, message: bytes) -> int:
    """Return 256 bits that only those who know the secret can tell from random ones."""
    return int.from_bytes(hmac.digest(secret, purpose + message, "sha256"), "big")


class Numbering(dict[str, str]):
    """Token to number, made when it is asked for.

    Args:
        secret: 32 bytes or more.
        rare_buckets: How many numbers rare tokens share.
    """

    def __init__(self, secret: bytes, *, rare_buckets: int = 1) -> None:
        super().__init__()
        self._secret = secret
        self._taken: set[str] = set()
        self.rare = tuple(
            self._take(RARE, f"{bucket}/{rare_buckets}".encode()) for bucket in range(rare_buckets)
        )

    def __missing__(self, token: str) -> str:
        number = self[token] = self._take(TOKEN, token.encode())
        return number

    def rare_number(self, token: str) -> str:
        """Return the number that a token shares with other rare ones."""
        return self.rare[keyed(self._secret, BUCKET, token.encode()) % len(self.rare)]

    def _take(self, purpose: bytes, message: bytes) -> str:
        number = str(keyed(self._secret, purpose, message) >> (256 - NUMBER_BITS))
        if number in self._taken:
            raise UserError(COLLISION)
        self._taken.add(number)
        return number
