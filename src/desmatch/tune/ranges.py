"""Ranges and choices of one key, as YAML has them."""

from __future__ import annotations

import dataclasses
import math
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from desmatch.errors import nearest

if TYPE_CHECKING:
    from collections.abc import Mapping

Value = bool | int | float | str | None

SPAN_KEYS = ("low", "high", "log", "step")


@dataclasses.dataclass(frozen=True)
class Span:
    """A range of numbers, both ends included.

    Attributes:
        low: The least value.
        high: The greatest value.
        log: Whether factors count rather than differences.
        step: Between neighbours from `low` on; none: 1 of whole numbers, any value of others.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None

    @property
    def is_whole(self) -> bool:
        """Whether only whole numbers are meant."""
        return all(isinstance(each, int) for each in (self.low, self.high, self.step or 1))

    @property
    def ends(self) -> tuple[Value, ...]:
        """The values at which a recipe's checks are asked."""
        return (self.low, self.high)

    def holds(self, value: Value) -> bool:
        """Whether a value lies in the range, on a step where there are steps."""
        if not is_number(value) or not self.low <= float(value) <= self.high:  # type: ignore[arg-type]
            return False
        step = self.step or (1 if self.is_whole else None)
        return step is None or _is_on_step(float(value), self.low, step)  # type: ignore[arg-type]


@dataclasses.dataclass(frozen=True)
class Choices:
    """Values without an order, two or more."""

    values: tuple[Value, ...]

    @property
    def ends(self) -> tuple[Value, ...]:
        """The values at which a recipe's checks are asked: all."""
        return self.values

    def holds(self, value: Value) -> bool:
        """Whether it is one of the values."""
        return value in self.values


def parse_range(value: object) -> Span | Choices:
    """Return what stands behind a key.

    Raises:
        ValueError: It is neither a range nor choices, or is empty.
    """
    if isinstance(value, dict):
        return _parse_span(value)
    if not isinstance(value, list):
        raise ValueError(f"expected {{low: ..., high: ...}} or [one, another], got {value!r}")
    if len(value) < 2:
        raise ValueError(f"expected two choices or more, got {value!r}; a fixed value belongs in "
                         "the recipe")  # fmt: skip
    odd = [each for each in value if not isinstance(each, bool | int | float | str | None)]
    if odd:
        raise ValueError(f"expected numbers, words, true, false or null, got {odd[0]!r}")
    return Choices(tuple(value))


def _parse_span(value: Mapping[Any, Any]) -> Span:
    for name in value:
        if name not in SPAN_KEYS:
            raise ValueError(f"unknown key {name!r}{nearest(str(name), SPAN_KEYS)}; a range has "
                             "low, high and, if need be, log or step")  # fmt: skip
    for name in ("low", "high"):
        if name not in value:
            raise ValueError(f"a range needs {name}, such as {{low: 1, high: 5}}")
    numbers = {name: _number(value[name], name) for name in ("low", "high", "step")
               if value.get(name) is not None or name != "step"}  # fmt: skip
    is_log = value.get("log", False)
    if not isinstance(is_log, bool):
        raise ValueError(f"log: expected true or false, got {is_log!r}")
    span = Span(log=is_log, **numbers)
    _require_sound(span)
    return span


def _require_sound(span: Span) -> None:
    low, high, step = span.low, span.high, span.step
    if low >= high:
        raise ValueError(f"an empty range: low {low} is not below high {high}")
    if span.log and low <= 0:
        raise ValueError(f"log: low has to be more than 0, got {low}")
    if step is None:
        return
    if span.log:
        raise ValueError("log and step do not go together; leave one of them out")
    if not 0 < step <= high - low:
        raise ValueError(f"step: expected more than 0 and no more than the range, got {step}")
    if not _is_on_step(high, low, step):
        raise ValueError(f"steps of {step} from {low} do not end at {high}")


def _is_on_step(value: float, low: float, step: float) -> bool:
    return (Decimal(str(value)) - Decimal(str(low))) % Decimal(str(step)) == 0


def _number(value: object, name: str) -> float:
    """Return a finite number; YAML takes 1e-5 for a word."""
    number = from_word(value)
    if not is_number(number) or not math.isfinite(number):  # type: ignore[arg-type]
        raise ValueError(f"{name}: expected a number, got {value!r}")
    return number  # type: ignore[return-value]


def from_word(value: object) -> object:
    """Return a number for a word that is one, such as 1e-5; any other value as it is."""
    if not isinstance(value, str):
        return value
    try:
        return float(value)
    except ValueError:
        return value


def is_number(value: object) -> bool:
    """Whether it is a number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)
