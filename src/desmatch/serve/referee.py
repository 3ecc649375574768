"""Play the contest's client: one pair a request, each on a connection of its own, by the clock."""

from __future__ import annotations

import json
import time
from contextlib import closing
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from urllib.parse import urlencode, urlsplit

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from desmatch.errors import UserError, require

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from desmatch.serve import Contract

MAX_ANSWER_BYTES = 1 << 20
"""More of an answer to one pair is not read."""

PROBE_SECONDS = 0.2
"""Between two looks whether the server is ready."""

FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True, kw_only=True, slots=True)
class Rules:
    """What the client asks for and how long it waits."""

    contract: Contract = "gaiic"
    """`gaiic`: the form of POST /tccapi; `v1`: the JSON of POST /v1/match."""

    seconds: float = 15 * 60
    """From the first pair on; rows that are not reached by then are given up, but the first."""

    limit_ms: float = 18.0
    """Answers that took longer are counted, and count all the same."""

    timeout_seconds: float = 10.0
    """An answer that takes longer has failed."""

    wait_seconds: float = 60.0
    """For the server's health probe, before the clock starts."""

    def __post_init__(self) -> None:
        require(self.contract in CONTRACTS, "contract", self.contract, " or ".join(CONTRACTS))
        for name in ("seconds", "limit_ms", "timeout_seconds", "wait_seconds"):
            value = getattr(self, name)
            require(0 < value < float("inf"), name, value, "more than 0")


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """Rows that failed for one reason."""

    reason: str
    rows: int
    first_row: int
    """From 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """How a server did. Times are those of all requests sent, from connecting to the last byte."""

    rows: int
    sent: int
    failed: int
    """Of those sent."""

    not_reached: int
    """Rows left when the time was over."""

    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float
    limit_ms: float
    share_over_limit: float
    """Of the requests sent, in [0, 1]."""

    seconds: float
    """From the first request to the last answer."""

    pairs_per_second: float
    failures: tuple[Failure, ...]
    """The most frequent first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What a server said of the pairs, and how it did."""

    scores: npt.NDArray[np.float64]
    """(rows,) in [0, 1], in the order of the pairs; 0 where a row failed or was not reached."""

    figures: Figures


class _RowError(Exception):
    """Its text says why a row has no score."""


class _Address(NamedTuple):
    """Where a server listens."""

    url: str
    host: str
    port: int


class _Request(NamedTuple):
    """One HTTP request."""

    method: Literal["GET", "POST"]
    path: str
    body: bytes | None = None
    content_type: str | None = None


class _Terms(NamedTuple):
    """How to ask about a pair, and how to read the only result of the answer."""

    probe: str
    ask: Callable[[str, str, str], _Request]
    read: Callable[[Mapping[str, Any], str], float]


def referee(
    url: str,
    pairs: Sequence[tuple[str, str]],
    rules: Rules | None = None,
    *,
    progress: str | None = None,
) -> Verdict:
    """Wait for a server, send it the pairs one by one, and keep its scores and times.

    Args:
        url: `http://host:port`.
        pairs: Two texts each, ids with one space between them; at least one pair.
        rules: The contest's, if there are none.
        progress: What the bar is called; no bar without it.

    Raises:
        UserError: The url is none, or its server does not answer the health probe in time.
        ValueError: There are no pairs.
    """
    rules = rules or Rules()
    require(len(pairs) > 0, "pairs", len(pairs), "at least one")
    address = _parse(url)
    _await_health(address, rules)
    sheet = _Sheet(len(pairs))
    is_quiet = True if progress is None else None  # None: quiet where no terminal is
    bar = tqdm(pairs, desc=progress, disable=is_quiet, unit="pair", leave=False)
    begin, left = time.perf_counter(), rules.seconds
    for row, pair in enumerate(bar):
        sheet.play(address, row, pair, rules.contract, timeout=min(left, rules.timeout_seconds))
        left = begin + rules.seconds - time.perf_counter()
        if left <= 0:
            break
    return Verdict(
        scores=sheet.scores, figures=sheet.figures(time.perf_counter() - begin, rules.limit_ms)
    )


@dataclass(slots=True)
class _Sheet:
    """What is written down while the pairs are sent."""

    rows: int
    scores: npt.NDArray[np.float64] = field(init=False)
    milliseconds: list[float] = field(default_factory=list)
    failed_rows: dict[str, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.scores = np.zeros(self.rows)

    def play(
        self,
        address: _Address,
        row: int,
        pair: tuple[str, str],
        contract: Contract,
        *,
        timeout: float,
    ) -> None:
        """Send one pair, and write down its score and time, or why it has no score."""
        index, terms = str(row), CONTRACTS[contract]
        begin = time.perf_counter()
        try:
            status, answer = _exchange(address, terms.ask(*pair, index), timeout)
            if status != 200:
                raise _RowError(f"status {status}")
            self.scores[row] = terms.read(_only_result(answer), index)
        except _RowError as failure:
            self.failed_rows.setdefault(str(failure), []).append(row)
        self.milliseconds.append(1000 * (time.perf_counter() - begin))

    def figures(self, seconds: float, limit_ms: float) -> Figures:
        """Sum up after so many seconds."""
        times = np.array(self.milliseconds)  # (sent,)
        p50, p90, p99 = np.percentile(times, [50, 90, 99]).tolist()
        failures = [
            Failure(reason=reason, rows=len(rows), first_row=rows[0] + 1)
            for reason, rows in self.failed_rows.items()
        ]
        return Figures(
            rows=self.rows,
            sent=len(times),
            failed=sum(each.rows for each in failures),
            not_reached=self.rows - len(times),
            p50_ms=p50,
            p90_ms=p90,
            p99_ms=p99,
            max_ms=float(times.max()),
            limit_ms=limit_ms,
            share_over_limit=float((times > limit_ms).mean()),
            seconds=seconds,
            pairs_per_second=len(times) / seconds,
            failures=tuple(sorted(failures, key=lambda each: -each.rows)),
        )


def _parse(url: str) -> _Address:
    """Split a server's url, or refuse it."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or 80
        host.encode("idna")
        is_good = bool(host) and (parts.scheme, parts.path.strip("/")) == ("http", "")
    except ValueError:
        is_good = False
    if not is_good:
        raise UserError(f"{url}: expected http://host:port of a server, without a path; mend --url")
    return _Address(url.rstrip("/"), host, port)


def _await_health(address: _Address, rules: Rules) -> None:
    """Return as soon as the server answers its health probe with 200.

    Raises:
        UserError: It does not within `rules.wait_seconds`, or it does not know the probe.
    """
    probe = CONTRACTS[rules.contract].probe
    deadline = time.perf_counter() + rules.wait_seconds
    start = f"`desmatch serve RUN --contract {rules.contract}`"
    came = "not asked in so short a time"
    while (left := deadline - time.perf_counter()) > 0:
        try:
            status, _ = _exchange(address, _Request("GET", probe), min(left, rules.timeout_seconds))
        except _RowError as failure:
            came = str(failure)
        else:
            if status == 200:
                return
            came = f"status {status}"
            if status in (404, 405):
                raise UserError(
                    f"{address.url}: the server does not know GET {probe} ({came}); "
                    f"start it with {start}, or name the contract that it has"
                )
        time.sleep(min(PROBE_SECONDS, left))
    raise UserError(
        f"{address.url}: no server answered GET {probe} with 200 within {rules.wait_seconds:g} s "
        f"({came}); start one with {start}"
    )


def _exchange(address: _Address, request: _Request, timeout: float) -> tuple[int, bytes]:
    """Return status and body of the answer, on a new connection that is closed again.

    Raises:
        _RowError: There is no answer.
    """
    deadline = time.perf_counter() + timeout
    headers = {"Connection": "close"}
    if request.content_type:
        headers["Content-Type"] = request.content_type
    try:
        with closing(HTTPConnection(address.host, address.port, timeout=timeout)) as connection:
            connection.request(request.method, request.path, request.body, headers)
            response = connection.getresponse()
            answer = response.read(MAX_ANSWER_BYTES)
        if time.perf_counter() > deadline:  # a socket's own timeout begins anew with each packet
            raise TimeoutError
        return response.status, answer
    except TimeoutError:
        raise _RowError("timeout") from None
    except ConnectionRefusedError:
        raise _RowError("connection refused") from None
    except HTTPException as error:  # a connection that was closed early as well
        raise _RowError(f"no HTTP answer ({type(error).__name__})") from None
    except OSError as error:
        raise _RowError(f"connection failed ({error.strerror or type(error).__name__})") from None


def _only_result(answer: bytes) -> Mapping[str, Any]:
    """Return the one result of an answer, whatever its content type says."""
    try:
        content = json.loads(answer)
    except (ValueError, RecursionError):
        raise _RowError("not JSON") from None
    match content:
        case {"results": [dict() as result]}:
            return result
    raise _RowError("not one result")


def _probability(result: Mapping[str, Any], key: str) -> float:
    value = result.get(key)
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1:
        return float(value)
    raise _RowError(f"{key} is no number in [0, 1]")  # NaN is none either


def _ask_gaiic(a: str, b: str, index: str) -> _Request:
    body = urlencode({"input": f"{a}\t{b}", "index": index}).encode()
    return _Request("POST", "/tccapi", body, FORM)


def _read_gaiic(result: Mapping[str, Any], index: str) -> float:
    if result.get("ok") is not True:
        raise _RowError("ok is not true")
    if result.get("index") != index:
        raise _RowError("wrong index")
    return _probability(result, "predict")


def _ask_v1(a: str, b: str, index: str) -> _Request:  # noqa: ARG001 - one pair needs no number
    body = json.dumps({"pairs": [{"a": a, "b": b}]}).encode()
    return _Request("POST", "/v1/match", body, "application/json")


def _read_v1(result: Mapping[str, Any], index: str) -> float:  # noqa: ARG001 - as above
    return _probability(result, "score")


CONTRACTS: dict[Contract, _Terms] = {
    "gaiic": _Terms("/tccapi", _ask_gaiic, _read_gaiic),
    "v1": _Terms("/readyz", _ask_v1, _read_v1),
}
"""A contract's name to what it asks and how it answers."""
