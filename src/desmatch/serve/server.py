"""The service on a port: it starts, it drains, it stops."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import uvicorn

from desmatch.errors import UserError
from desmatch.serve.app import build_app

if TYPE_CHECKING:
    from types import FrameType

    from fastapi import FastAPI

    from desmatch.serve import Contract
    from desmatch.serve.contracts import Limits
    from desmatch.serve.nearest import NearestRows
    from desmatch.serve.session import ServedModel

BACKLOG = 2048
KEEP_ALIVE_SECONDS = 5


class DrainingServer(uvicorn.Server):
    """Told to stop it is first not ready any more, answers what comes for a while, then stops.

    So a load balancer that asks /readyz has turned away before the port is closed, and a request
    that was taken is answered.

    Args:
        app: The service.
        config: Of uvicorn.
        drain_seconds: The while.
    """

    def __init__(self, app: FastAPI, config: uvicorn.Config, *, drain_seconds: float) -> None:
        super().__init__(config)
        self.app, self.drain_seconds = app, drain_seconds
        self.loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Remember the loop, then start as uvicorn does."""
        self.loop = asyncio.get_running_loop()
        await super().startup(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain at the first signal; a second Ctrl-C stops at once."""
        service = self.app.state.service
        if not service.is_ready or self.loop is None or sig == signal.SIGINT:
            super().handle_exit(sig, frame)
            return
        service.is_ready = False
        self.loop.call_soon_threadsafe(
            self.loop.call_later, self.drain_seconds, super().handle_exit, sig, frame
        )


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where and how a service listens, and how it stops."""

    host: str = "127.0.0.1"
    """Address."""
    port: int = 8080
    """0: any that is free."""
    contract: Contract = "v1"
    """gaiic adds the contest's route."""
    allow_exit: bool = False
    """Whether the contest's body `exit` stops the service."""
    drain_seconds: float = 1.0
    """From SIGTERM to the closing of the port."""


def serve(
    model: ServedModel, place: Place, limits: Limits, *, rows: NearestRows | None = None
) -> None:
    """Serve a model until told to stop (SIGTERM, Ctrl-C).

    Args:
        model: Loaded.
        place: Where and how.
        limits: Of a call.
        rows: Of the training, to show the nearest of; none: none are shown.

    Raises:
        UserError: The port is taken or not ours to take.
    """
    listening = _listen(place.host, place.port)

    def stop() -> None:
        server.handle_exit(signal.SIGTERM, None)

    on_exit = stop if place.allow_exit else None
    app = build_app(model, contract=place.contract, limits=limits, rows=rows, on_exit=on_exit)
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, timeout_keep_alive=KEEP_ALIVE_SECONDS,
        server_header=False,
    )  # fmt: skip
    server = DrainingServer(app, config, drain_seconds=place.drain_seconds)
    signal.signal(signal.SIGTERM, lambda *_: None)  # uvicorn sends it again, to whoever was before
    port = listening.getsockname()[1]
    sys.stdout.write(f"listening on http://{place.host}:{port}\n")
    sys.stdout.flush()
    server.run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.socket(family)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(BACKLOG)
    except OSError as error:
        raise UserError(
            f"--host {host} --port {port}: cannot listen there ({error.strerror}); name another"
        ) from None
    return listening
