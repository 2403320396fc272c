"""A small server on this machine: shows an explorer's folder and, with a network, takes photos that are dropped there.

It answers only requests that name it by its own address (no other site can reach it through a browser), only files
below its folder, and photos of limited size, a few at a time. What a request holds is never repeated in an answer.
"""

import io
import json
import socket
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from elastic_cnn.policy.explorer.columns import script
from elastic_cnn.policy.explorer.predict import MOST_PIXELS, Predictor, Refused, photo_types, photo_types_in_words

MAX_BYTES = 20 * 2**20
MOST_REQUESTS = 32  # connections at a time
MOST_WAITING = 4  # photos that are looked at or wait
TIMEOUT = 20  # seconds without a byte, and for the whole head of a request
UPLOAD_SECONDS = 120  # for a whole photo
DRAIN_SECONDS = 5  # for what is thrown away of a refused one
MOST_DIGITS = 12  # of a length
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".webp": "image/webp",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
LOOPBACK = ("127.0.0.1", "localhost")
MOST_DRAINED = 64 * 2**20  # of a refused upload, read and thrown away so that the browser gets to read the refusal


class ExplorerServer(ThreadingHTTPServer):
    """Serves `folder`; with `predictor`, `live/predict` as well. Port 0 takes a free one; `url` tells it."""

    daemon_threads = True
    request_queue_size = 16

    def __init__(
        self,
        folder: str | Path,
        predictor: Predictor | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        max_bytes: int = MAX_BYTES,
        log: Callable[[str], None] = lambda line: None,
    ):
        self.folder = Path(folder).resolve()
        if not (self.folder / "index.html").is_file():
            raise ValueError(f"{folder} is no explorer's folder: write one with `elastic explore POLICY -o DIR`")
        self.predictor = predictor
        self.max_bytes = max_bytes
        self.log = log
        self.waiting = threading.BoundedSemaphore(MOST_WAITING)
        self.connections = threading.BoundedSemaphore(MOST_REQUESTS)
        try:
            super().__init__((host, port), _Handler)
        except OSError as error:
            raise OSError(f"cannot listen at {host} port {port} ({error}): choose another --port") from error

    @property
    def url(self) -> str:
        host, port = self.socket.getsockname()[:2]
        return f"http://{host}:{port}/"

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self.connections.acquire(blocking=False):  # too many: hang up, rather than queue without bound
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.connections.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        self.log("a request broke off")

    def live_script(self) -> bytes:
        """The data file that tells the page what it may send."""
        if self.predictor is None:
            return script("live", None).encode("ascii")
        about = {
            "network": self.predictor.name,
            "max_bytes": self.max_bytes,
            "max_pixels": MOST_PIXELS,
            "types": list(photo_types().values()),
            "kinds": photo_types_in_words(),
        }
        return script("live", about).encode("ascii")


class _Reads(io.RawIOBase):
    """What comes over a connection, up to a deadline: a request that drips in byte by byte loses its place."""

    def __init__(self, connection: socket.socket, timeout: float) -> None:
        self.connection, self.timeout = connection, timeout
        self.allow(timeout)

    def allow(self, seconds: float) -> None:
        """All that is read next must be there in so many seconds."""
        self.deadline = time.monotonic() + seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the request took too long")
        self.connection.settimeout(min(left, self.timeout))
        try:
            return self.connection.recv_into(buffer)
        finally:
            self.connection.settimeout(self.timeout)


class _Handler(BaseHTTPRequestHandler):
    server: ExplorerServer
    raw_requestline: bytes
    server_version = "elastic-explorer"
    sys_version = ""
    protocol_version = "HTTP/1.1"
    timeout = TIMEOUT

    def setup(self) -> None:
        super().setup()
        self.rfile.close()
        self.reads = _Reads(self.connection, self.timeout)
        self.rfile = io.BufferedReader(self.reads)

    def handle_one_request(self) -> None:
        self.reads.allow(self.timeout)
        super().handle_one_request()

    def parse_request(self) -> bool:
        words = self.raw_requestline.split()
        if len(words) == 2 or words[-1:] == [b"HTTP/0.9"]:  # no head follows, and no answer could have one
            self.requestline = ""
            self.send_error(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)
            return False
        return super().parse_request()

    def do_GET(self) -> None:
        if self._is_ours():
            self._send_file()

    do_HEAD = do_GET

    def do_POST(self) -> None:
        if not self._is_ours():
            return
        if self.path != "/live/predict" or self.server.predictor is None:
            self._refuse(HTTPStatus.NOT_FOUND, "There is nothing here.")
        elif self.headers.get("X-Elastic-Explorer") != "1":  # other sites' pages cannot send it without our leave
            self._refuse(HTTPStatus.FORBIDDEN, "Photos are taken from the explorer's own page only.")
        else:
            self._predict(self.server.predictor)

    def _is_ours(self) -> bool:
        """Whether the request names this server and, where it tells, comes from its own page."""
        port = self.server.server_address[1]
        allowed = {f"{name}:{port}" for name in (*LOOPBACK, self.connection.getsockname()[0])}
        origin = self.headers.get("Origin")
        if self.headers.get("Host") not in allowed or (origin and origin.removeprefix("http://") not in allowed):
            self._refuse(HTTPStatus.FORBIDDEN, "This server answers under its own address only.")
            return False
        return True

    def _send_file(self) -> None:
        path = unquote(self.path.split("?", 1)[0], errors="replace").lstrip("/") or "index.html"
        if path == "data/live.js":
            self._send(HTTPStatus.OK, self.server.live_script(), TYPES[".js"])
            return
        try:
            file = (self.server.folder / path).resolve()
            known = file.is_relative_to(self.server.folder) and file.suffix in TYPES and file.is_file()
        except (OSError, ValueError, RuntimeError):  # a null byte, too long a name, a loop of links
            known = False
        if known:
            self._send(HTTPStatus.OK, file.read_bytes(), TYPES[file.suffix])
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "There is nothing here.")

    def _predict(self, predictor: Predictor) -> None:
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()) or self.headers.get("Transfer-Encoding"):
            self._refuse(HTTPStatus.LENGTH_REQUIRED, "The photo's length must be told.")
        elif len(length.lstrip("0")) > MOST_DIGITS or int(length) > self.server.max_bytes:
            limit = self.server.max_bytes / 2**20
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"This file is too large; the limit is {limit:.3g} MB.")
        elif not self.server.waiting.acquire(blocking=False):
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "Other photos are being looked at: try again in a moment.")
        else:
            try:
                self.reads.allow(UPLOAD_SECONDS)
                self._answer(predictor, self.rfile.read(int(length)), int(length))
            finally:
                self.server.waiting.release()

    def _answer(self, predictor: Predictor, data: bytes, length: int) -> None:
        if len(data) < length:
            self._refuse(HTTPStatus.BAD_REQUEST, "The photo came cut short.")
            return
        try:
            answer = predictor.answer(data)
        except Refused as error:
            self._refuse(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, str(error))
        except Exception as error:  # a fault of ours ends one request, not the server; told to the terminal alone
            self.server.log(f"a photo could not be looked at: {type(error).__name__}: {error}")
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, "The network could not look at this photo.")
        else:
            self._send(HTTPStatus.OK, json.dumps(answer).encode("ascii"), "application/json; charset=utf-8")

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        """An answer in words of ours; the connection ends, for what was not read of a request must not be the next."""
        self.close_connection = True
        self._send(status, json.dumps({"error": message}).encode("ascii"), "application/json; charset=utf-8")
        if self.command == "POST":
            self._drain()

    def _drain(self) -> None:
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_WR)
        self.reads.allow(DRAIN_SECONDS)
        left = MOST_DRAINED
        while left > 0 and (chunk := self.rfile.read1(2**16)):
            left -= len(chunk)

    def _send(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        self.send_response(status)
        for name, value in {**HEADERS, "Content-Type": kind, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the parser refuses, without the standard page, which repeats the request."""
        self.command = getattr(self, "command", None) or "GET"
        self.request_version = "HTTP/1.1"  # else the answer has no headers
        self._refuse(HTTPStatus(code), "This request is not understood.")

    def log_message(self, format: str, *args: Any) -> None:
        return
