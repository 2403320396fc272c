"""Uvicorn with deadlines: it runs the application in one process or several."""

import json
import os
import socket
from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from typing import Any

from elastic_cnn.extras import require
from elastic_cnn.serve.app import VARIABLE, make_app
from elastic_cnn.serve.engine import Engine, ServeOptions

HEAD_SECONDS = 10.0  # for the whole head of a request
MOST_CONNECTIONS = 64
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@cache
def protocol() -> type:
    """Uvicorn's HTTP with a deadline for the head of each request: one that drips in byte by byte loses its place."""
    base: Any = require("uvicorn.protocols.http.h11_impl", "serve").H11Protocol

    class Deadlines(base):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._arm()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._arm()

        def connection_lost(self, exc: Exception | None) -> None:
            self._timer.cancel()
            super().connection_lost(exc)

        def _arm(self) -> None:
            if timer := getattr(self, "_timer", None):
                timer.cancel()
            self._timer = self.loop.call_later(HEAD_SECONDS, self._late)

        def _late(self) -> None:
            if self.cycle is None or self.cycle.response_complete:  # no request is being answered
                self.transport.abort()

    return Deadlines


def __getattr__(name: str) -> Any:
    """`Deadlines`, by the name under which worker processes import it."""
    if name == "Deadlines":
        return protocol()
    raise AttributeError(name)


def settings(host: str, port: int) -> dict[str, Any]:
    """Uvicorn's settings."""
    return {
        "host": host,
        "port": port,
        "http": "elastic_cnn.serve.run:Deadlines",
        "ws": "none",
        "lifespan": "off",
        "access_log": False,
        "server_header": False,
        "date_header": False,
        "log_level": "warning",
        "limit_concurrency": MOST_CONNECTIONS,
        "timeout_keep_alive": 5,
        "timeout_graceful_shutdown": 10,
        "h11_max_incomplete_event_size": 32 * 2**10,
        "proxy_headers": False,
    }


def free_port(host: str, port: int) -> int:
    """`port`, or a free one for 0. `OSError` where nobody can listen there."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as place:
            place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            place.bind((host, port))
            return int(place.getsockname()[1])
    except OSError as error:
        raise OSError(f"cannot listen at {host} port {port} ({error}): choose another --port") from error


def serve(
    options: ServeOptions,
    host: str,
    port: int,
    workers: int = 1,
    started: Callable[[str, Engine], object] = lambda url, engine: None,
) -> None:
    """Serve until interrupted. `started` is called with the address and the engine before the first request.

    Raises `ValueError` for a checkpoint that cannot be served, before anything listens.
    """
    uvicorn = require("uvicorn", "serve")
    require("starlette", "serve")
    require("python_multipart", "serve")
    port = free_port(host, port)
    engine = Engine(options)
    started(f"http://{f'[{host}]' if ':' in host else host}:{port}/", engine)
    if workers == 1:
        uvicorn.run(make_app(engine), **settings(host, port))
        return
    os.environ[VARIABLE] = json.dumps(asdict(options))
    uvicorn.run("elastic_cnn.serve.app:from_environment", factory=True, workers=workers, **settings(host, port))
