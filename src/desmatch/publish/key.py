"""The key file: the secret, and which token each number stands for. Whoever has it has the texts.

It is readable by its owner alone from its first byte, written whole or not at all, and only ever
grows: another secret, or tokens cut in another way, never take its place.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import stat
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from desmatch.errors import UserError
from desmatch.publish.numbers import COLLISION
from desmatch.runs import atomic_write

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

SECRET_VARIABLE = "DESMATCH_SECRET"
LEAST_SECRET = 32
"""Bytes of a secret that nobody guesses, a passphrase included."""

FORMAT = "desmatch key 1"
PRIVATE = 0o600


@dataclass(frozen=True, kw_only=True, slots=True)
class Key:
    """What a key file holds."""

    secret: bytes = field(repr=False)
    tokens: Mapping[str, Any]
    """How texts are cut: `Tokens.identity`."""
    numbers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Token to its published number."""
    rare: tuple[str, ...] = ()
    """Numbers that stand for rare tokens."""


def read_secret(path: Path | None) -> bytes | None:
    """Return the secret of a file or of the environment's DESMATCH_SECRET, or none.

    Raises:
        UserError: The file is missing, others may read it, or the secret is short.
    """
    if path is None:
        word = os.environ.get(SECRET_VARIABLE)
        return None if word is None else _long_enough(os.fsencode(word), SECRET_VARIABLE)
    if not path.exists():
        raise UserError(f"{path}: no such file; write {LEAST_SECRET} random bytes or more there")
    _require_private(path)
    return _long_enough(path.read_bytes().rstrip(b"\r\n"), str(path))


def _long_enough(secret: bytes, place: str) -> bytes:
    if len(secret) < LEAST_SECRET:
        raise UserError(
            f"{place}: expected a secret of {LEAST_SECRET} bytes or more, got {len(secret)}; "
            "`openssl rand -hex 32` makes one"
        )
    return secret


def open_key(path: Path, *, secret: bytes | None, tokens: Mapping[str, Any]) -> Key:
    """Read a key to go on with, or begin a new one with the secret, or with a random one.

    Raises:
        UserError: The file is no key, others may read it, or it has another secret or other tokens.
    """
    if not path.exists():
        return Key(secret=secret or secrets.token_bytes(LEAST_SECRET), tokens=dict(tokens))
    key = read_key(path)
    if secret is not None and secret != key.secret:
        raise UserError(
            f"{path}: is the key of another secret; name another key file, or leave the secret out"
        )
    if dict(key.tokens) != dict(tokens):
        raise UserError(
            f"{path}: its texts were cut into tokens in another way; give --tokens and --lowercase "
            "as before, or name another key file"
        )
    return key


def read_key(path: Path) -> Key:
    """Read a key file.

    Raises:
        UserError: It is missing, is no key, or others than its owner may read it.
    """
    if path.is_dir():
        raise UserError(f"{path}: expected a file, got a folder; name a file in it")
    if not path.exists():
        raise UserError(f"{path}: no such file; name the key that `desmatch anonymize` wrote")
    _require_private(path)
    try:
        found = json.loads(path.read_bytes())
        if found["format"] != FORMAT:
            raise ValueError
        return Key(
            secret=bytes.fromhex(found["secret"]),
            tokens=dict(found["tokens"]),
            numbers=dict(found["numbers"]),
            rare=tuple(found["rare"]),
        )
    except (ValueError, TypeError, KeyError, RecursionError):
        raise UserError(
            f"{path}: not a key of this version of `desmatch anonymize`; name another file"
        ) from None


def _require_private(path: Path) -> None:
    """Refuse a secret that others may read, as ssh does; pipes belong to who opened them."""
    mode = path.stat().st_mode
    if stat.S_ISREG(mode) and mode & 0o077:
        raise UserError(
            f"{path}: others may read it (mode {stat.S_IMODE(mode):04o}); chmod 600 {path}"
        )


def extend_key(path: Path, key: Key) -> int:
    """Add numbers to a key file, or make it; what it has stays.

    Runs that extend one key at once wait for each other.

    Returns:
        How many tokens the file has now.

    Raises:
        UserError: The file is the key of another secret by now, or two tokens share a number.
    """
    path = path.resolve()  # a link stays one
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path.parent):
        old = open_key(path, secret=key.secret, tokens=key.tokens)
        rare = tuple(sorted({*old.rare, *key.rare}))
        whole = replace(key, numbers={**old.numbers, **key.numbers}, rare=rare)
        if len({*whole.numbers.values(), *rare}) < len(whole.numbers) + len(rare):
            raise UserError(f"{path}: {COLLISION}")
        write_key(path, whole)
    return len(whole.numbers)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, which leaves no file behind."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def write_key(path: Path, key: Key) -> None:
    """Write a key file whole or not at all, readable by its owner alone from its first byte."""
    value = {
        "format": FORMAT,
        "secret": key.secret.hex(),
        "tokens": key.tokens,
        "rare": key.rare,
        "numbers": dict(sorted(key.numbers.items())),
    }
    with atomic_write(path) as partial:
        partial.unlink(missing_ok=True)
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            json.dump(value, stream, ensure_ascii=False, indent=1)
            stream.flush()
            os.fsync(stream.fileno())
