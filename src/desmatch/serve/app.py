"""The service: routes, limits, and what becomes of a bad request."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import ValidationError
from scipy.special import expit

from desmatch.serve.batching import Batcher, BusyError
from desmatch.serve.contracts import (
    BadRequestError,
    Limits,
    MatchRequest,
    MatchResponse,
    NearestRequest,
    NearestResponse,
    gaiic_answer,
    read_gaiic,
    read_match,
    read_nearest,
)
from desmatch.serve.description import NOT_READY, PROBLEMS, describe_requests, json_body, problem
from desmatch.serve.telemetry import Telemetry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from desmatch.ensemble.predictions import Predictions
    from desmatch.serve import Contract
    from desmatch.serve.nearest import NearestRows
    from desmatch.serve.session import ServedModel

MOST_PAIRS_A_CALL = 64
"""Of requests that came at once."""

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
NO_ROWS = (
    "This export holds no training rows; make it with `desmatch export --with-rows`, or serve it "
    "with --rows FILE"
)
PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'"
)
"""The page loads nothing from elsewhere and asks nobody but its own server."""

Asked = TypeVar("Asked")


class HttpError(Exception):
    """A request that gets a status of 4xx or 503 and a reason."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail


class Scored(NamedTuple):
    """What the models say of B pairs, and of each how many ids training has not seen."""

    predictions: Predictions
    unknown_ids: list[int]


class Service:
    """A model with what stands around it: batches, limits, metrics, readiness."""

    def __init__(self, model: ServedModel, limits: Limits) -> None:
        self.model, self.limits, self.telemetry = model, limits, Telemetry()
        self.batcher = Batcher(
            model.score,
            most_pairs=MOST_PAIRS_A_CALL,
            most_waiting=limits.waiting_pairs,
            on_batch=self.telemetry.batch.observe,
        )
        self.telemetry.waiting.set_function(lambda: self.batcher.num_waiting)
        self.is_ready = False

    async def score(self, pairs: list[tuple[str, str]]) -> Scored:
        """Score pairs, and count them.

        Raises:
            HttpError: Too many wait.
        """
        try:
            said = await self.batcher.score(pairs)
        except BusyError:
            raise HttpError(503, "too many pairs wait; come back in a second") from None
        unknown = [self.model.count_unknown(pair) for pair in pairs]
        self.telemetry.pairs.inc(len(pairs))
        self.telemetry.unknown_ids.inc(sum(unknown))
        return Scored(said, unknown)

    async def body(self, request: Request) -> bytes:
        """Read a body within the limits.

        Raises:
            HttpError: It is too large, or too slow.
        """
        try:
            async with asyncio.timeout(self.limits.body_seconds):
                return await self._body(request)
        except TimeoutError:
            raise HttpError(
                408, f"the body took over {self.limits.body_seconds:g} s; send it at once"
            ) from None

    async def _body(self, request: Request) -> bytes:
        parts, size = [], 0
        async for part in request.stream():
            size += len(part)
            if size > self.limits.body_bytes:
                raise HttpError(
                    413, f"a body over {self.limits.body_bytes} bytes; send less a call"
                )
            parts.append(part)
        return b"".join(parts)


def build_app(
    model: ServedModel,
    *,
    contract: Contract = "v1",
    limits: Limits | None = None,
    rows: NearestRows | None = None,
    on_exit: Callable[[], None] | None = None,
) -> FastAPI:
    """Return the service of a model.

    Args:
        model: Loaded.
        contract: gaiic adds the contest's route to our own.
        limits: Of a call; none: the usual ones.
        rows: Of the training, to show the nearest of; none: none are shown.
        on_exit: What the contest's body `exit` does; none: it is a bad request like any other.
    """
    service = Service(model, limits or Limits())

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        del app
        await service.batcher.score([("1", "1")])  # the first call of a graph is a slow one
        service.is_ready = True
        yield
        await service.batcher.close()

    app = FastAPI(
        title="desmatch", summary="Do two desensitised texts mean the same?", lifespan=lifespan
    )
    app.state.service = service
    _add_page(app, has_rows=rows is not None)
    _add_probes(app, service)
    _add_match(app, service)
    _add_nearest(app, service, rows)
    if contract == "gaiic":
        _add_gaiic(app, service, on_exit)
    describe_requests(app)
    app.add_exception_handler(HttpError, _refuse)
    app.add_middleware(Watch, telemetry=service.telemetry)
    return app


def _add_page(app: FastAPI, *, has_rows: bool) -> None:
    plain = files("desmatch.serve").joinpath("page.html").read_text(encoding="utf-8")
    page = plain.replace("<!-- why there are none -->", "" if has_rows else NO_ROWS)

    async def show(request: Request) -> Response:
        del request
        return HTMLResponse(page, headers={"Content-Security-Policy": PAGE_POLICY})

    app.add_route("/", show, methods=["GET"])


def _add_probes(app: FastAPI, service: Service) -> None:
    @app.get("/healthz", summary="Whether the process lives")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz", summary="Whether it takes requests", responses=NOT_READY)
    async def readyz() -> dict[str, str]:
        if not service.is_ready:
            raise HttpError(503, "not ready, or about to stop")
        return {"status": "ready"}

    described = {
        "description": "Metrics",
        "content": {"text/plain": {"schema": {"type": "string"}}},
    }

    @app.get(
        "/metrics", summary="For Prometheus", response_class=Response, responses={200: described}
    )
    async def metrics() -> Response:
        return Response(service.telemetry.text(), media_type=METRICS_TYPE)


def _add_match(app: FastAPI, service: Service) -> None:
    @app.post(
        "/v1/match",
        summary="Score one pair or many",
        response_model=MatchResponse,
        responses={**PROBLEMS, **NOT_READY},
        openapi_extra=json_body(MatchRequest),
    )
    async def match(request: Request) -> Response:
        pairs = _read(read_match, await service.body(request), service.limits)
        said, unknown_ids = await service.score(pairs)
        columns = zip(
            said.scores, expit(said.forward), expit(said.backward), unknown_ids, strict=True
        )
        results = [
            {
                "score": float(score),
                "score_forward": float(forward),
                "score_backward": float(backward),
                "unknown_ids": unknown,
            }
            for score, forward, backward, unknown in columns
        ]
        return JSONResponse({"results": results})


def _add_nearest(app: FastAPI, service: Service, rows: NearestRows | None) -> None:
    @app.post(
        "/v1/nearest",
        summary="Show the training rows nearest to a pair",
        response_model=NearestResponse,
        responses={**PROBLEMS, **problem(404, "No training rows are held")},
        openapi_extra=json_body(NearestRequest),
    )
    async def nearest(request: Request) -> Response:
        body = await service.body(request)
        if rows is None:
            raise HttpError(404, NO_ROWS)
        asked = _read(read_nearest, body, service.limits)
        found = rows.search(asked.a, asked.b, num_rows=asked.num_rows)
        return JSONResponse({"rows": [row._asdict() for row in found]})


def _add_gaiic(app: FastAPI, service: Service, on_exit: Callable[[], None] | None) -> None:
    """Add the contest's route, plain: what FastAPI does for a route costs half a millisecond."""

    async def tccapi(request: Request) -> Response:
        if request.method != "POST":  # the contest's warm-up
            return Response()
        body = await service.body(request)
        if body == b"exit" and on_exit is not None:
            on_exit()
            return Response()
        rows = _read(read_gaiic, body, service.limits)
        asked = [row.pair for row in rows if row.pair is not None]
        said = (await service.score(asked)).predictions.scores.tolist() if asked else []
        scores = iter(said)
        return JSONResponse(
            gaiic_answer(rows, [None if row.pair is None else next(scores) for row in rows])
        )

    app.add_route("/tccapi", tccapi, methods=["GET", "POST"])


def _read(reader: Callable[[bytes, Limits], Asked], body: bytes, limits: Limits) -> Asked:
    """Read a body, or say what is wrong with it."""
    try:
        return reader(body, limits)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise HttpError(422, f"{place}: {first['msg']}" if place else first["msg"]) from None
    except BadRequestError as error:
        raise HttpError(400, str(error)) from None


async def _refuse(request: Request, error: Exception) -> Response:
    del request
    assert isinstance(error, HttpError)
    headers = {"Retry-After": "1"} if error.status == 503 else {}
    if error.status in (408, 413):
        headers["Connection"] = "close"  # the rest of the body is not waited for
    return JSONResponse({"detail": error.detail}, error.status, headers)


class Watch:
    """Counts requests and their seconds by route, around an app; plain ASGI, which costs least."""

    def __init__(self, app: ASGIApp, telemetry: Telemetry) -> None:
        self.app, self.telemetry = app, telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and count it when its answer is out."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.perf_counter(), "none"

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        try:
            await self.app(scope, receive, sending)
        finally:
            route = scope["path"] if "endpoint" in scope else "other"  # no path has parameters
            self.telemetry.seconds.labels(route).observe(time.perf_counter() - started)
            self.telemetry.requests.labels(route, status).inc()
