"""The interface of `elastic serve`: a Starlette application, the same in every worker process.

It answers only requests that name it as it is called and do not come from another site's page, takes files of limited
size within a limited time, a few requests at once, and repeats nothing of a request in an answer.
"""

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable, MutableMapping
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

from elastic_cnn.extras import require
from elastic_cnn.serve.engine import Engine, ServeOptions
from elastic_cnn.serve.openapi import describe

VARIABLE = "ELASTIC_SERVE"  # holds the options for worker processes, as JSON
UPLOAD_SECONDS = 60  # for all of a request's body
DRAIN_SECONDS = 5  # for what is thrown away of a refused one, so that its sender gets to read the refusal
MOST_DRAINED = 64 * 2**20
ENVELOPE = 64 * 2**10  # bytes that multipart adds to a request, and each of its parts
MOST_TOP = 1000
PAGE = {"/": ("index.html", "text/html; charset=utf-8"), "/serve.css": ("serve.css", "text/css; charset=utf-8"),
        "/serve.js": ("serve.js", "text/javascript; charset=utf-8")}  # fmt: skip
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Declined(Exception):
    """A request that is not answered; status and message, in words of ours alone."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


def from_environment() -> Any:
    """The application of a worker process."""
    values = json.loads(os.environ[VARIABLE])
    return make_app(Engine(ServeOptions(**{**values, "hosts": tuple(values["hosts"])})))


def make_app(engine: Engine) -> Any:
    """The ASGI application: `POST /predict`, `GET /health`, `/model`, `/openapi.json`, and the page."""
    applications = require("starlette.applications", "serve")
    routing, responses = require("starlette.routing", "serve"), require("starlette.responses", "serve")
    service = _Service(engine)
    static, icon = files("elastic_cnn.serve") / "static", files("elastic_cnn.policy.explorer") / "static" / "icon.svg"
    routes = [
        routing.Route("/predict", service.predict, methods=["POST"]),
        routing.Route("/health", service.health),
        routing.Route("/model", service.model),
        routing.Route("/openapi.json", service.openapi),
    ]
    routes.append(routing.Route("/icon.svg", _constant(responses.Response, icon.read_bytes(), "image/svg+xml")))
    for path, (name, kind) in PAGE.items():
        body = (static / name).read_bytes()
        routes.append(routing.Route(path, _constant(responses.Response, body, kind)))
    errors = {404: _plain(404, "There is nothing here."), 405: _plain(405, "This is not done here.")}
    return _Guard(applications.Starlette(routes=routes, exception_handlers=errors), engine.options.hosts)


def _constant(response: Any, body: bytes, kind: str) -> Any:
    async def answer(request: Any) -> Any:
        return response(body, media_type=kind)

    return answer


def _plain(status: int, message: str) -> Any:
    async def answer(request: Any, error: Exception) -> Any:
        return _json({"error": message}, status)

    return answer


def _json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Any:
    return require("starlette.responses", "serve").JSONResponse(value, status, headers)


class _Service:
    """What the routes do."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.options = engine, engine.options
        self.waiting = 0

    async def health(self, request: Any) -> Any:
        return _json({"status": "ok", "network": self.engine.subject.name, "waiting": self.waiting})

    async def model(self, request: Any) -> Any:
        return _json(self.engine.about())

    async def openapi(self, request: Any) -> Any:
        return _json(describe(self.options.max_bytes, self.options.max_photos, self.options.top))

    async def predict(self, request: Any) -> Any:
        if self.waiting >= self.options.max_waiting:
            return await self._decline(request, Declined(503, "Too many photos are waiting: try again in a moment."))
        self.waiting += 1
        try:
            top, threshold = _numbers(request.query_params, self.options.top)
            photos, single = await self._photos(request)
            started = time.perf_counter()
            results = await asyncio.to_thread(self.engine.answer, photos, top, threshold)
        except Declined as declined:
            return await self._decline(request, declined)
        finally:
            self.waiting -= 1
        if single and "error" in results[0]:
            return _json(results[0], 415)
        seconds = time.perf_counter() - started
        return _json({"network": self.engine.subject.name, "results": results, "seconds": seconds})

    async def _photos(self, request: Any) -> tuple[list[bytes], bool]:
        """The photo files of a request, and whether it is one as it is, in no form."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        form = kind == "multipart/form-data"
        limit = self.options.max_bytes
        if form:
            limit = limit * self.options.max_photos + ENVELOPE * (1 + self.options.max_photos)
        length = request.headers.get("content-length", "")
        if length.isdecimal() and (len(length) > 15 or int(length) > limit):
            raise Declined(413, f"This is too large; the limit is {self.options.max_bytes / 2**20:.3g} MB a photo.")
        try:
            with require("anyio", "serve").fail_after(UPLOAD_SECONDS):
                return (await self._form(request, limit), False) if form else ([await self._body(request, limit)], True)
        except TimeoutError as error:
            raise Declined(408, "The photo took too long to come.") from error

    async def _body(self, request: Any, limit: int) -> bytes:
        parts, size = [], 0
        try:
            async for part in request.stream():
                size += len(part)
                if size > limit:
                    raise Declined(413, f"This is too large; the limit is {limit / 2**20:.3g} MB a photo.")
                parts.append(part)
        except require("starlette.requests", "serve").ClientDisconnect as error:
            raise Declined(400, "The photo came cut short.") from error
        if not size:
            raise Declined(400, "There is no photo in this request: send a file as its body, or a form with files.")
        return b"".join(parts)

    async def _form(self, request: Any, limit: int) -> list[bytes]:
        """The files of a form, whatever its fields are called."""
        requests, formparsers = require("starlette.requests", "serve"), require("starlette.formparsers", "serve")
        most = self.options.max_photos
        parser = formparsers.MultiPartParser(
            request.headers, _up_to(request.stream(), limit), max_files=most, max_fields=most
        )
        photos = []
        try:
            for _, value in (await parser.parse()).multi_items():
                if isinstance(value, str):
                    continue
                photos.append(await value.read(self.options.max_bytes + 1))
                await value.close()
        except requests.ClientDisconnect as error:
            raise Declined(400, "The photos came cut short.") from error
        except (formparsers.MultiPartException, KeyError, ValueError) as error:
            raise Declined(400, f"This form cannot be read; it may hold up to {most} files.") from error
        if not photos:
            raise Declined(400, "There is no file in this form.")
        if max(map(len, photos)) > self.options.max_bytes:
            raise Declined(413, f"A photo is too large; the limit is {self.options.max_bytes / 2**20:.3g} MB each.")
        return photos

    async def _decline(self, request: Any, declined: Declined) -> Any:
        left = MOST_DRAINED
        with require("anyio", "serve").move_on_after(DRAIN_SECONDS):
            while left > 0:
                message = await request.receive()
                left -= len(message.get("body", b""))
                if message["type"] != "http.request" or not message.get("more_body"):
                    break
        headers = {"connection": "close"} | ({"retry-after": "1"} if declined.status == 503 else {})
        return _json({"error": declined.message}, declined.status, headers)


async def _up_to(stream: Any, limit: int) -> Any:
    size = 0
    async for part in stream:
        size += len(part)
        if size > limit:
            raise Declined(413, "This form is too large.")
        yield part


def _numbers(query: Any, top: int) -> tuple[int, float]:
    """`top` and `threshold` of a request's query."""
    try:
        count, threshold = int(query.get("top", top)), float(query.get("threshold", 0.5))
    except ValueError as error:
        raise Declined(422, "`top` is a whole number, `threshold` a probability.") from error
    if not 1 <= count <= MOST_TOP or not 0 <= threshold < 1:
        raise Declined(422, f"`top` is 1 to {MOST_TOP}, `threshold` 0 to below 1.")
    return count, threshold


class _Guard:
    """Around the application: who may ask, headers on every answer, and no fault of ours told to the asker."""

    def __init__(self, app: Any, hosts: tuple[str, ...]) -> None:
        self.app, self.hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                added = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message.get("headers", ()), *added]
            await send(message)

        if not self._is_ours(dict(scope["headers"])):
            refusal = _json({"error": "This server answers under its own address only."}, 403, {"connection": "close"})
            await refusal(scope, receive, with_headers)
            return
        await self.app(scope, receive, with_headers)

    def _is_ours(self, headers: dict[bytes, bytes]) -> bool:
        host = headers.get(b"host", b"").decode("latin-1")
        name = urlsplit(f"//{host}").hostname if host else None
        if "*" not in self.hosts and name not in self.hosts:
            return False
        origin = headers.get(b"origin")
        return origin is None or origin.decode("latin-1").partition("://")[2] == host
