"""The explorer's server under load and from outside: where it listens, how many it serves, how long it waits."""

import http.client
import io
import socket
import threading

import pytest
from PIL import Image
from threaded_server import in_thread

from elastic_cnn.cli import make_parser
from elastic_cnn.policy.explorer import serve
from elastic_cnn.policy.explorer.build import live_folder
from elastic_cnn.policy.explorer.predict import Refused, read_photo


def serving(folder, connections: int | None = None):
    server = serve.ExplorerServer(folder)
    if connections is not None:
        server.connections = threading.BoundedSemaphore(connections)
    return in_thread(server)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "site").mkdir()
    return live_folder(tmp_path / "site")


def status_of(server) -> int:
    connection = http.client.HTTPConnection(*server.server_address[:2], timeout=20)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status
    finally:
        connection.close()


def test_listens_on_loopback_unless_told_otherwise(folder):
    args = make_parser(["explore", "x", "--serve"]).parse_args(["explore", "x", "--serve"])
    assert args.host == "127.0.0.1"
    with serve.ExplorerServer(folder) as server:
        assert server.socket.getsockname()[0] == "127.0.0.1"
    with serve.ExplorerServer(folder, host="0.0.0.0") as server:
        assert server.socket.getsockname()[0] == "0.0.0.0"


def test_connections_beyond_the_limit_are_hung_up(folder):
    with serving(folder, connections=2) as server:
        held = [socket.create_connection(server.server_address, timeout=20) for _ in range(2)]
        for connection in held:  # each is being served: half a request
            connection.sendall(b"GET / HTTP/1.1\r\n")
        with socket.create_connection(server.server_address, timeout=20) as third:
            assert third.recv(1) == b""
        for connection in held:
            connection.close()
        for _ in range(200):
            try:
                if status_of(server) == 200:
                    break
            except (ConnectionError, http.client.HTTPException):
                continue
        assert status_of(server) == 200


def test_a_silent_connection_is_hung_up(folder, monkeypatch):
    monkeypatch.setattr(serve._Handler, "timeout", 0.2)
    with serving(folder) as server:
        for begin in (b"", b"GET / HT", b"POST /live/predict HTTP/1.1\r\nHost: x\r\n"):
            with socket.create_connection(server.server_address, timeout=20) as connection:
                connection.sendall(begin)
                assert connection.recv(1) == b""


def test_a_decompression_bomb_is_refused_by_its_size():
    import struct
    import zlib

    side = 20_000
    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    chunks = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in ((b"IHDR", head), (b"IDAT", zlib.compress(bytes(side * (1 + side // 8)), 9)), (b"IEND", b""))
    )
    with pytest.raises(Refused, match="megapixels"):
        read_photo(b"\x89PNG\r\n\x1a\n" + chunks)


@pytest.mark.parametrize("begin", [b"", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nA: "])
def test_a_request_that_drips_in_loses_its_place(begin, folder, monkeypatch):
    """Every byte comes in time, the whole head does not; as many as there are places shut nobody out for long."""
    monkeypatch.setattr(serve._Handler, "timeout", 0.4)
    with serving(folder, connections=2) as server:
        dripping = [socket.create_connection(server.server_address, timeout=20) for _ in range(2)]
        for connection in dripping:
            connection.sendall(begin)
        ended = 0
        for _ in range(100):
            for connection in list(dripping):
                try:
                    connection.sendall(b"a")
                    connection.settimeout(0.05)
                    closed = connection.recv(1) == b""
                except TimeoutError:
                    closed = False
                except ConnectionError:
                    closed = True
                if closed:
                    connection.close()
                    dripping.remove(connection)
                    ended += 1
            if not dripping:
                break
        assert ended == 2
        for _ in range(200):
            try:
                if status_of(server) == 200:
                    return
            except (ConnectionError, http.client.HTTPException):
                continue
        pytest.fail("the places were not given back")


@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        ("GET /\r\n", b"505"),
        ("GET /index.html\r\n\r\n", b"505"),
        ("POST /live/predict\r\n", b"505"),
        ("GET / HTTP/0.9\r\nHost: x\r\n\r\n", b"505"),
        ("GET / HTTP/9.1\r\n\r\n", b"505"),
    ],
)
def test_requests_of_the_first_protocol_are_refused_at_once(request_text, status, folder):
    with serving(folder) as server, socket.create_connection(server.server_address, timeout=20) as connection:
        connection.sendall(request_text.encode())
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert b"<html" not in answer


@pytest.mark.parametrize("size", [(1_000_000, 1), (2, 40_000)])
def test_a_photo_far_too_long_is_refused(size):
    buffer = io.BytesIO()
    Image.new("1", size).save(buffer, "PNG")
    with pytest.raises(Refused, match="too large or far too long"):
        read_photo(buffer.getvalue())
