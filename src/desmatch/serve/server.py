"""The service on a port: it starts, it drains, it stops."""

from __future__ import annotations

import asyncio
import signal
import socket
from typing import TYPE_CHECKING

import uvicorn

from desmatch.errors import UserError
from desmatch.serve.app import Contract, build_app

if TYPE_CHECKING:
    from types import FrameType

    from fastapi import FastAPI

    from desmatch.serve.contracts import Limits
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


def serve(
    model: ServedModel,
    *,
    host: str,
    port: int,
    contract: Contract = "v1",
    limits: Limits | None = None,
    allow_exit: bool = False,
    drain_seconds: float = 1.0,
) -> None:
    """Serve a model until told to stop (SIGTERM, Ctrl-C).

    Args:
        model: Loaded.
        host: Address to listen on.
        port: Port; 0: any that is free.
        contract: gaiic adds the contest's route.
        limits: Of a call.
        allow_exit: Whether the contest's body `exit` stops the service.
        drain_seconds: From SIGTERM to the closing of the port.

    Raises:
        UserError: The port is taken or not ours to take.
    """
    listening = _listen(host, port)

    def stop() -> None:
        server.handle_exit(signal.SIGTERM, None)

    app = build_app(
        model, contract=contract, limits=limits, on_exit=stop if allow_exit else None
    )
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, timeout_keep_alive=KEEP_ALIVE_SECONDS,
        server_header=False,
    )  # fmt: skip
    server = DrainingServer(app, config, drain_seconds=drain_seconds)
    print(f"listening on http://{host}:{listening.getsockname()[1]}", flush=True)  # noqa: T201
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
