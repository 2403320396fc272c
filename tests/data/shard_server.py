"""WebDataset shards as their own library writes them, and a web server that answers range requests."""

import re
from contextlib import AbstractContextManager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from threaded_server import in_thread

CLASSES = ("red", "green", "blue")


def write_shards(folder: Path, split: str, count: int, each: int) -> None:
    """`count` photos in shards of `each`, classes in turn; a photo's number stands in its first pixel (red, green)."""
    webdataset = pytest.importorskip("webdataset")
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(count)
    with webdataset.ShardWriter(f"{folder}/{split}-%04d.tar", maxcount=each, verbose=0) as writer:
        for number in range(count):
            pixels = rng.integers(0, 120, (36, 40, 3), dtype=np.uint8)
            pixels[..., number % 3] += 120
            pixels[0, 0] = (number // 256, number % 256, 0)
            writer.write({"__key__": f"{split}{number:05d}", "png": pixels, "cls": number % 3})


class Handler(BaseHTTPRequestHandler):
    """GET of the server's folder, whole or a range; `server.faults` are acted out first, one a request."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.requests.append(self.path)
        fault = self.server.faults.pop(0) if self.server.faults else ""
        if fault == "drop":
            self.close_connection = True
            return
        path = Path(self.server.folder, self.path.lstrip("/"))
        if fault.isdecimal() or not path.is_file():
            self.answer(int(fault) if fault else 404, b"")
            return
        content = path.read_bytes()
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if match is None or not self.server.ranges:
            self.answer(200, content)
            return
        first, last = int(match[1]), min(int(match[2]), len(content) - 1)
        piece = content[first : last + 1]
        if fault == "short":
            self.answer(206, piece, announced=len(piece) + 1)
            self.close_connection = True
            return
        self.answer(206, piece, f"bytes {first}-{last}/{len(content)}")

    def answer(self, status: int, body: bytes, span: str = "", announced: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if announced is None else announced))
        self.send_header("ETag", '"one"')
        if span:
            self.send_header("Content-Range", span)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        return


def serving(folder: Path, ranges: bool = True) -> AbstractContextManager[Any]:
    """`server.url`; `server.requests`: paths asked for; `server.faults`: "drop", "short", or a status, to come."""
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.folder, server.ranges, server.requests, server.faults = folder, ranges, [], []
    server.url = f"http://127.0.0.1:{server.server_address[1]}"
    return in_thread(server)
