"""What may be asked of the service and what it answers: our own contract, and the contest's.

Every limit is checked before a model is asked. Source of the second: GAIIC 2021 track 3, round 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import parse_qs

from pydantic import BaseModel, ConfigDict, Field, field_validator

RawIds = str | list[Annotated[int, Field(ge=0)] | str]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a call may hold."""

    body_bytes: int = 1 << 20
    """Of a request's body."""
    body_seconds: float = 10.0
    """In which a client has to send it."""
    ids_per_text: int = 1_000
    """Longer texts are refused, not cut."""
    pairs_per_call: int = 1_000
    """Of one request."""
    waiting_pairs: int = 10_000
    """Of all requests that wait for the model; more are told to come back."""


class BadRequestError(Exception):
    """A request that cannot be answered; its text says why."""


class PairIn(BaseModel):
    """Two texts: ids separated by spaces, or a list of ids."""

    model_config = ConfigDict(extra="forbid")

    a: RawIds = Field(examples=["12 7 93"])
    b: RawIds = Field(examples=[[93, 7, 12]])

    @field_validator("a", "b")
    @classmethod
    def _one_text(cls, value: RawIds) -> str:
        return to_text(value)


class MatchRequest(BaseModel):
    """One pair or many."""

    model_config = ConfigDict(extra="forbid")

    pairs: list[PairIn] = Field(min_length=1)


class MatchResult(BaseModel):
    """What the models say of a pair: probabilities that its texts mean the same."""

    score: float = Field(ge=0, le=1, description="of both orders together")
    score_forward: float = Field(ge=0, le=1, description="a before b")
    score_backward: float = Field(ge=0, le=1, description="b before a")
    unknown_ids: int = Field(ge=0, description="ids that training has not seen")


class MatchResponse(BaseModel):
    """The results, in the order of the pairs."""

    results: list[MatchResult]


class Problem(BaseModel):
    """Why a request was refused."""

    detail: str


def to_text(ids: Any) -> str:  # noqa: ANN401 - a string or a list of ids
    """Return ids as a text, separated by single spaces.

    Raises:
        ValueError: There is none, or one of a list holds white space.
    """
    if isinstance(ids, str):
        words = ids.split()
    else:
        words = [str(each) for each in ids]
        if any(len(word.split()) != 1 for word in words):
            raise ValueError("an id of a list must have characters and no white space")
    if not words:
        raise ValueError("a text needs at least one id")
    return " ".join(words)


def read_match(body: bytes, limits: Limits) -> list[tuple[str, str]]:
    """Return the pairs of a request of our own contract.

    Raises:
        pydantic.ValidationError: The body is no such JSON.
        BadRequestError: It holds more than the limits allow.
    """
    request = MatchRequest.model_validate_json(body)
    pairs = [(str(pair.a), str(pair.b)) for pair in request.pairs]
    _require_few(len(pairs), limits)
    for number, pair in enumerate(pairs):
        _require_short(pair, limits, f"pairs.{number}")
    return pairs


@dataclass(frozen=True)
class GaiicRow:
    """A row of the contest's request.

    Attributes:
        index: As the client named it.
        pair: Its texts; none where they cannot be read.
    """

    index: str
    pair: tuple[str, str] | None


def read_gaiic(body: bytes, limits: Limits) -> list[GaiicRow]:
    """Return the rows of a request of the contest's contract; a row that is wrong stands alone.

    Raises:
        BadRequestError: The fields are missing or do not go together, or there are too many.
    """
    try:
        fields = parse_qs(
            body.decode("utf-8"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=2 * limits.pairs_per_call,
        )
    except ValueError as error:  # bad UTF-8, or too many fields
        raise BadRequestError(f"expected form fields input and index: {error}") from None
    inputs, indices = fields.get("input", []), fields.get("index", [])
    if not inputs or len(inputs) != len(indices):
        raise BadRequestError(
            f"expected as many fields index as input, one at least, got {len(indices)} and "
            f"{len(inputs)}"
        )
    return [GaiicRow(i, _gaiic_pair(text, limits)) for i, text in zip(indices, inputs, strict=True)]


def gaiic_answer(rows: list[GaiicRow], scores: list[float | None]) -> dict[str, Any]:
    """Return the contest's answer: a row without a score is not ok and has 0."""
    return {
        "results": [
            {
                "predict": 0.0 if score is None else score,
                "index": row.index,
                "ok": score is not None,
            }
            for row, score in zip(rows, scores, strict=True)
        ]
    }


def _gaiic_pair(text: str, limits: Limits) -> tuple[str, str] | None:
    sides = text.split("\t")
    if len(sides) != 2 or not all(side.split() for side in sides):
        return None
    pair = to_text(sides[0]), to_text(sides[1])
    return pair if max(map(_num_ids, pair)) <= limits.ids_per_text else None


def _require_few(num_pairs: int, limits: Limits) -> None:
    if num_pairs > limits.pairs_per_call:
        raise BadRequestError(
            f"{num_pairs} pairs in a call, {limits.pairs_per_call} at most; send several calls"
        )


def _require_short(pair: tuple[str, str], limits: Limits, place: str) -> None:
    longest = max(map(_num_ids, pair))
    if longest > limits.ids_per_text:
        raise BadRequestError(
            f"{place}: a text of {longest} ids, {limits.ids_per_text} at most; shorten it"
        )


def _num_ids(text: str) -> int:
    return text.count(" ") + 1
