"""Files on a web server, read in parts by HTTP range requests over connections that stay open; nothing is stored.

A reader may be copied to other processes: each process opens its own connections. What breaks is asked for again.
"""

import http.client
import io
import os
import threading
import time
from urllib.parse import urljoin, urlsplit

AHEAD = 64 * 2**10  # bytes that a sequential reader asks for at a time
ATTEMPTS = 4
TIMEOUT = 30  # seconds without a byte
MOST_REDIRECTS = 5
_idle: dict[tuple[int, str, str], list[http.client.HTTPConnection]] = {}  # by process, scheme and server
_lock = threading.Lock()


def is_url(text: str) -> bool:
    return text.startswith(("http://", "https://"))


def read_range(url: str, offset: int, size: int) -> bytes:
    """`size` bytes of the file at `url` from `offset` on.

    Raises `OSError`, naming the URL and the reason, where the server does not answer after four attempts, has no such
    file, does not answer range requests, or its file ends before.
    """
    if size == 0:
        return b""
    status, headers, body = _get(url, {"Range": f"bytes={offset}-{offset + size - 1}"})
    if status == 200 and int(headers.get("Content-Length", -1)) != size:
        raise OSError(f"{url}: the server does not answer range requests: serve the shards by one that does")
    if len(body) != size:
        raise OSError(f"{url} ends before byte {offset + size}: it changed, or is not whole")
    return body


def read_whole(url: str) -> bytes:
    """All of a small file. `OSError` as above."""
    return _get(url, {})[2]


def describe(url: str) -> tuple[int, str]:
    """(size in bytes, what tells its versions apart: ETag or date). `OSError` as above."""
    status, headers, _ = _get(url, {"Range": "bytes=0-0"})
    total = headers.get("Content-Range", "").rpartition("/")[2]
    if status != 206 or not total.isdigit():
        raise OSError(f"{url}: the server does not answer range requests: serve the shards by one that does")
    return int(total), headers.get("ETag") or headers.get("Last-Modified") or ""


class RemoteFile(io.RawIOBase):
    """A file at a URL as Python's file objects are: readable, seekable; asks for `AHEAD` bytes at a time."""

    def __init__(self, url: str) -> None:
        self.url, self.position = url, 0
        self.size, self.version = describe(url)
        self._start, self._ahead = 0, b""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.size}[whence]
        return self.position

    def readinto(self, buffer) -> int:
        wanted = min(len(buffer), self.size - self.position)
        if wanted <= 0:
            return 0
        if not self._start <= self.position < self._start + len(self._ahead):
            self._start = self.position
            self._ahead = read_range(self.url, self.position, min(max(AHEAD, wanted), self.size - self.position))
        begin = self.position - self._start
        piece = self._ahead[begin : begin + wanted]
        buffer[: len(piece)] = piece
        self.position += len(piece)
        return len(piece)


def _get(url: str, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
    """(status, headers, body) of a GET with redirects followed. `OSError` after the last attempt."""
    for attempt in range(ATTEMPTS):
        try:
            for _ in range(MOST_REDIRECTS):
                status, found, body = _request(url, headers)
                if status not in (301, 302, 303, 307, 308):
                    break
                url = urljoin(url, found["Location"])
            if status in (200, 206):
                return status, found, body
            if status < 500 and status != 429:
                raise FileNotFoundError(f"{url}: the server answers {status}: check the address and your access")
            reason: object = f"the server answers {status}"
        except FileNotFoundError:
            raise
        except (OSError, http.client.HTTPException) as error:
            reason = str(error) or type(error).__name__
            close_connections()  # a server that hung up once has likely done so on the others
        if attempt + 1 < ATTEMPTS:
            time.sleep(0.1 * 4**attempt)
    raise OSError(f"{url} cannot be read after {ATTEMPTS} attempts: {reason}")


def _request(url: str, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
    """One GET over a connection that is open already, where there is one; it is kept open where all went well."""
    parts = urlsplit(url)
    key = (os.getpid(), parts.scheme, parts.netloc)  # a forked worker must not share its parent's connections
    with _lock:
        idle = _idle.setdefault(key, [])
        connection = idle.pop() if idle else None
    if connection is None:
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(parts.netloc, timeout=TIMEOUT)
    try:
        connection.request("GET", parts.path + (f"?{parts.query}" if parts.query else ""), headers=headers)
        reply = connection.getresponse()
        result = reply.status, dict(reply.headers), reply.read()
    except BaseException:
        connection.close()
        raise
    if reply.will_close:
        connection.close()
    else:
        with _lock:
            idle.append(connection)
    return result


def close_connections() -> None:
    """Close what this process holds open; the next read opens anew."""
    with _lock:
        for connections in _idle.values():
            while connections:
                connections.pop().close()
