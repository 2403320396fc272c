"""The explorer's server under load and from outside: where it listens, how many it serves, how long it waits."""

import http.client
import socket
import threading

import pytest
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
