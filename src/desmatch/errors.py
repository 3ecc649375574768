"""The errors a user can mend: each says where, what was expected, what came, and the mend."""

from __future__ import annotations

from difflib import get_close_matches
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

SHOWN_PROBLEMS = 20
"""How many problems of one file an error lists before it only counts the rest."""


class UserError(Exception):
    """A mistake in the input or the command; the command line prints it and exits with 2.

    Args:
        message: One or more lines that name the place, the fault and the mend.
    """


class DivergedError(UserError):
    """Training has led to numbers that are not finite: its rate is too high."""


def listed(problems: Iterable[str], *, shown: int = SHOWN_PROBLEMS) -> str:
    """Join problems one a line, the first `shown` in full and the rest as a count."""
    lines = list(problems)
    rest = len(lines) - shown
    return "\n".join([*lines[:shown], *([f"... and {rest} more"] if rest > 0 else [])])


def nearest(name: str, candidates: Iterable[str]) -> str:
    """Return `"; did you mean 'x'?"` for the candidate nearest to `name`, or an empty text."""
    close = get_close_matches(name, list(candidates), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def require(condition: bool, name: str, value: object, expected: str) -> None:
    """Refuse a setting whose value has no meaning, in the name of the setting.

    Raises:
        ValueError: `condition` does not hold.
    """
    if not condition:
        raise ValueError(f"{name}: expected {expected}, got {value!r}")


def require_installed(extra: str, *packages: str) -> None:
    """Look for packages of an extra before anything is done.

    Args:
        extra: Of desmatch.
        packages: As they are imported.

    Raises:
        UserError: One is not installed.
    """
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise UserError(f"{missing[0]} is not installed; pip install 'desmatch[{extra}]'")
