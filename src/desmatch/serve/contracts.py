"""What may be asked of the service and what it answers: our own contract, and the contest's.

Every limit is checked before a model is asked. Source of the second: GAIIC 2021 track 3, round 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple
from urllib.parse import parse_qs

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    WithJsonSchema,
)

NO_SPACE = r"[^\t-\r\x1c- \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]"
"""What `str.split` does not split at; dialects of patterns differ in what \\S is."""

TEXT = {
    "anyOf": [
        {"type": "string", "pattern": NO_SPACE},
        {
            "type": "array",
            "minItems": 1,
            "items": {
                "anyOf": [
                    {"type": "integer", "minimum": 0},
                    {"type": "string", "pattern": f"^{NO_SPACE}+$"},
                ]
            },
        },
    ]
}
"""What `to_text` takes, as the description says it."""


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


def to_text(ids: Any) -> str:  # noqa: ANN401 - whatever JSON holds
    """Return ids, a string or a list, as a text: separated by single spaces.

    Raises:
        ValueError: There is none, or something is no id.
    """
    if not isinstance(ids, str | list):
        raise ValueError("a text is a string of ids, or a list of them")
    words = ids.split() if isinstance(ids, str) else [*map(_one_id, ids)]
    if not words:
        raise ValueError("a text needs at least one id")
    return " ".join(words)


def _one_id(raw_id: Any) -> str:  # noqa: ANN401 - as above
    whole = _whole(raw_id)
    if isinstance(whole, int) and not isinstance(whole, bool) and whole >= 0:
        return str(whole)
    if isinstance(whole, str) and whole.split() == [whole]:
        return whole
    raise ValueError(
        "an id of a list is a whole number from 0 on, or has characters and no white space"
    )


def _whole(number: Any) -> Any:  # noqa: ANN401 - as above
    """Return a float without a fraction as an integer, which to JSON Schema it is."""
    return int(number) if isinstance(number, float) and number.is_integer() else number


Text = Annotated[str, PlainValidator(to_text), WithJsonSchema(TEXT)]


class PairIn(BaseModel):
    """Two texts: ids separated by spaces, or a list of ids."""

    model_config = ConfigDict(extra="forbid", strict=True)

    a: Text = Field(examples=["12 7 93"])
    b: Text = Field(examples=[[93, 7, 12]])


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


class NearestRequest(PairIn):
    """A pair, and how many training rows are asked for."""

    num_rows: Annotated[int, BeforeValidator(_whole)] = Field(
        default=5, ge=1, le=100, description="at most so many"
    )


class NearestRow(BaseModel):
    """A labelled pair of the training."""

    a: str
    b: str
    label: Literal[0, 1] = Field(description="1: its texts mean the same")
    similarity: float = Field(
        ge=0, le=1, description="mean cosine of TF-IDF, in the better order of its texts"
    )


class NearestResponse(BaseModel):
    """The nearest first; rows that share no id with the pair are left out."""

    rows: list[NearestRow]


class Problem(BaseModel):
    """Why a request was refused."""

    detail: str


def read_match(body: bytes, limits: Limits) -> list[tuple[str, str]]:
    """Return the pairs of a request of our own contract.

    Raises:
        pydantic.ValidationError: The body is no such JSON.
        BadRequestError: It holds more than the limits allow.
    """
    request = MatchRequest.model_validate_json(body)
    pairs = [(pair.a, pair.b) for pair in request.pairs]
    _require_few(len(pairs), limits)
    for number, pair in enumerate(pairs):
        _require_short(pair, limits, f"pairs.{number}")
    return pairs


class NearestQuestion(NamedTuple):
    """A pair that the nearest rows are asked of."""

    a: str
    b: str
    num_rows: int


def read_nearest(body: bytes, limits: Limits) -> NearestQuestion:
    """Return what a request for the nearest rows asks.

    Raises:
        pydantic.ValidationError: The body is no such JSON.
        BadRequestError: It holds more than the limits allow.
    """
    request = NearestRequest.model_validate_json(body)
    pair = request.a, request.b
    _require_short(pair, limits, "pair")
    return NearestQuestion(*pair, request.num_rows)


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
