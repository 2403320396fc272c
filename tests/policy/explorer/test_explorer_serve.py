"""The explorer's server: what it shows, what it refuses, and that answers are those of the network."""

import http.client
import io
import json
import socket
from dataclasses import asdict

import numpy as np
import pytest
import torch
from explorer_tables import wait_until
from PIL import Image
from threaded_server import in_thread

from elastic_cnn.data.image_folder import eval_transform
from elastic_cnn.policy import scale_policy
from elastic_cnn.policy.explorer.build import live_folder
from elastic_cnn.policy.explorer.predict import Predictor, Refused, photo_types, read_photo
from elastic_cnn.policy.explorer.serve import MOST_WAITING, ExplorerServer
from elastic_cnn.zoo.checkpoint import load_checkpoint

MARK = "<script>window.owned=1</script>"


def encoded(kind: str = "PNG", size: tuple[int, int] = (60, 44), **kwargs) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **kwargs)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def predictor(checkpoint) -> Predictor:
    network, card = load_checkpoint(checkpoint)
    return Predictor(network, card.network, card.task, card.classes, asdict(card.input))


def serving(folder, predictor=None, **kwargs):
    return in_thread(ExplorerServer(folder, predictor, **kwargs))


@pytest.fixture
def server(explorer, predictor):
    with serving(explorer.index.parent, predictor, max_bytes=100_000) as server:
        yield server


def ask(server, method: str = "GET", path: str = "/", body: bytes | None = None, **headers):
    """(status, headers, body) of one request."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=20)
    try:
        connection.putrequest(method, path, skip_host="Host" in headers)
        if body is not None:
            headers = {"Content-Length": str(len(body)), **headers}
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        reply = connection.getresponse()
        return reply.status, dict(reply.headers), reply.read()
    finally:
        connection.close()


def drop(server, body: bytes, **headers):
    status, _, answer = ask(server, "POST", "/live/predict", body, **{"X-Elastic-Explorer": "1", **headers})
    return status, json.loads(answer)


def test_shows_the_folder_with_headers_that_forbid_the_rest(server, explorer):
    for path in ("/", "/index.html", "/index.html?x=1"):
        status, headers, body = ask(server, path=path)
        assert (status, body) == (200, explorer.index.read_bytes())
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "Python" not in headers["Server"]
    assert ask(server, path="/thumbs/0000/0000000.webp")[1]["Content-Type"] == "image/webp"
    status, headers, body = ask(server, "HEAD", "/app.js")
    assert (status, body) == (200, b"")
    assert int(headers["Content-Length"]) == (explorer.index.parent / "app.js").stat().st_size


def test_no_path_leads_out_of_the_folder(tmp_path, predictor):
    folder = live_folder(tmp_path / "site") if (tmp_path / "site").mkdir() is None else None
    (tmp_path / "secret.js").write_text("secret")
    (folder / "link.js").symlink_to(tmp_path / "secret.js")
    (folder / "note.txt").write_text("of a type that is not shown")
    paths = ["/../secret.js", "/%2e%2e/secret.js", "/..%2fsecret.js", "//secret.js", f"/{tmp_path}/secret.js"]
    paths += ["/link.js", "/data/../../secret.js", "/note.txt", "/data", "/%00.js", "/" + "a" * 5000 + ".js"]
    paths += ["/%ff%fe.js", "/..\\secret.js", f"//{tmp_path}/secret.js", "/index.html/../../secret.js"]
    with serving(folder, predictor) as server:
        assert ask(server)[0] == 200
        for path in paths:
            status, _, body = ask(server, path=path)
            assert status == 404, path
            assert b"secret" not in body


def test_answers_only_under_its_own_address(server):
    port = server.server_address[1]
    assert ask(server, Host=f"localhost:{port}")[0] == 200
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1", "127.0.0.1:1"):
        assert ask(server, Host=host)[0] == 403
    for origin in ("http://evil.example", "null", f"https://127.0.0.1:{port}"):
        assert ask(server, Origin=origin)[0] == 403
        assert drop(server, encoded(), Origin=origin)[0] == 403
    assert drop(server, encoded(), Origin=f"http://127.0.0.1:{port}")[0] == 200
    status, _, answer = ask(server, "POST", "/live/predict", encoded())  # a plain form of another site sends no header
    assert status == 403
    assert "own page" in json.loads(answer)["error"]


def test_requests_are_not_repeated_in_answers(server):
    lines = [
        f"GET /{MARK} HTTP/1.1\r\nHost: {MARK}\r\n\r\n",
        f"GET /{MARK} HTTP/1.1\r\nHost: 127.0.0.1:{server.server_address[1]}\r\n\r\n",
        f"{MARK} / HTTP/1.1\r\n\r\n",
        f"GET / {MARK}\r\n\r\n",
        f"GET / HTTP/1.1\r\n{MARK}: {MARK}\r\n\r\n",
        f"DELETE /{MARK} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        "GET /" + "a" * 70_000 + " HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\n" + "".join(f"h{i}: x\r\n" for i in range(200)) + "\r\n",
    ]
    for line in lines:
        with socket.create_connection(server.server_address, timeout=20) as connection:
            connection.sendall(line.encode())
            connection.shutdown(socket.SHUT_WR)
            answer = b"".join(iter(lambda: connection.recv(4096), b""))
        assert b"owned" not in answer
        assert answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 5"))
    assert ask(server)[0] == 200  # and it is still there


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP"])
def test_a_photo_gets_the_networks_answer_at_several_sizes(server, predictor, kind):
    data = encoded(kind)
    status, answer = drop(server, data)
    assert status == 200
    assert (answer["width"], answer["height"]) == (60, 44)
    assert [(size["height"], size["width"]) for size in answer["sizes"]] == [(32, 32), (64, 64)]
    assert [size["trained"] for size in answer["sizes"]] == [True, False]
    photo = Image.open(io.BytesIO(data)).convert("RGB")
    for size in answer["sizes"]:
        preparation = {**predictor.preparation, "size": (size["height"], size["width"])}
        images = eval_transform(**preparation)(photo).unsqueeze(0)
        expected = scale_policy(predictor.network, images)[0]
        torch.testing.assert_close(torch.tensor(size["scores"]), expected)
        with torch.no_grad():
            best = predictor.network(images).softmax(1)[0]
        assert size["predictions"][0]["name"] == predictor.classes[int(best.argmax())]
        assert size["predictions"][0]["confidence"] == pytest.approx(float(best.max()), abs=1e-6)
    assert len(answer["blocks"]) == len(answer["sizes"][0]["scores"])


def test_a_plain_network_answers_without_a_policy(explorer, predictor, base_checkpoint):
    network, card = load_checkpoint(base_checkpoint)
    plain = Predictor(network, card.network, card.task, card.classes, asdict(card.input))
    answer = plain.answer(encoded())
    assert answer["blocks"] == []
    assert all(size["scores"] == [] and len(size["predictions"]) == 3 for size in answer["sizes"])


@pytest.mark.skipif("AVIF" not in photo_types(), reason="this Pillow reads no AVIF")
def test_formats_that_this_pillow_reads_are_taken(server):
    assert b'"image/avif"' in ask(server, path="/data/live.js")[2]
    status, answer = drop(server, encoded("AVIF"))
    assert (status, answer["width"], answer["height"]) == (200, 60, 44)


def test_uploads_are_limited(server, monkeypatch):
    status, answer = drop(server, b"x" * 100_001)
    assert (status, answer["error"]) == (413, "This file is too large; the limit is 0.0954 MB.")
    bodies = {b"": "no JPEG", b"text": "no JPEG", encoded()[:200]: "broken", encoded("GIF"): "no JPEG"}
    for body, word in bodies.items():
        status, answer = drop(server, body)
        assert status == 415
        assert word in answer["error"]
    assert drop(server, b"x", **{"Content-Length": "ten"})[0] == 411
    assert ask(server, "POST", "/live/predict", **{"X-Elastic-Explorer": "1"})[0] == 411
    assert ask(server, "POST", "/elsewhere", b"x", **{"X-Elastic-Explorer": "1"})[0] == 404
    monkeypatch.setattr("elastic_cnn.policy.explorer.predict.MOST_PIXELS", 1000)
    assert "megapixels" in drop(server, encoded())[1]["error"]


def test_a_photo_that_comes_cut_short_is_refused(server):
    request = f"POST /live/predict HTTP/1.1\r\nHost: 127.0.0.1:{server.server_address[1]}\r\nX-Elastic-Explorer: 1\r\n"
    with socket.create_connection(server.server_address, timeout=20) as connection:
        connection.sendall(f"{request}Content-Length: 50\r\n\r\nshort".encode())
        connection.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 400")


def test_only_a_few_photos_at_a_time(server):
    for _ in range(MOST_WAITING):
        assert server.waiting.acquire(blocking=False)
    status, answer = drop(server, encoded())
    assert (status, "try again" in answer["error"]) == (503, True)
    for _ in range(MOST_WAITING):
        server.waiting.release()
    assert drop(server, encoded())[0] == 200


def test_a_fault_ends_one_request_and_is_told_to_the_terminal_alone(explorer, predictor, monkeypatch):
    said = []
    with serving(explorer.index.parent, predictor, log=said.append) as server:
        monkeypatch.setattr(Predictor, "answer", lambda self, data: 1 / 0)
        status, answer = drop(server, encoded())
        assert (status, "division" in json.dumps(answer)) == (500, False)
        assert "ZeroDivisionError" in said[0]
        monkeypatch.undo()
        assert drop(server, encoded())[0] == 200


def test_without_a_network_no_photo_is_taken(explorer):
    with serving(explorer.index.parent) as server:
        assert drop(server, encoded())[0] == 404
        assert b'receive("live", null)' in ask(server, path="/data/live.js")[2]


def test_what_cannot_be_served_is_said(tmp_path, predictor, explorer):
    with pytest.raises(ValueError, match="no explorer's folder"):
        ExplorerServer(tmp_path)
    with pytest.raises(ValueError, match="segmentation"):
        Predictor(predictor.network, "n", "segmentation", predictor.classes, predictor.preparation)
    with pytest.raises(ValueError, match="classes"):
        Predictor(predictor.network, "n", "classification", (), predictor.preparation)
    with ExplorerServer(explorer.index.parent) as server, pytest.raises(OSError, match="--port"):
        ExplorerServer(explorer.index.parent, port=server.server_address[1])


@pytest.mark.parametrize("length", ["9" * 5000, "9" * 13, "000" + "9" * 12])
def test_lengths_beyond_all_bounds_are_answered(length, server):
    with socket.create_connection(server.server_address, timeout=20) as connection:
        head = f"POST /live/predict HTTP/1.1\r\nHost: 127.0.0.1:{server.server_address[1]}\r\nX-Elastic-Explorer: 1\r\n"
        connection.sendall(f"{head}Content-Length: {length}\r\n\r\n".encode())
        connection.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"too large; the limit is" in answer


def test_palette_and_deep_pictures_are_read():
    for image in (Image.new("P", (9, 9)), Image.new("I;16", (9, 9)), Image.new("CMYK", (9, 9))):
        buffer = io.BytesIO()
        image.save(buffer, "JPEG" if image.mode == "CMYK" else "PNG")
        assert read_photo(buffer.getvalue()).mode == "RGB"
    with pytest.raises(Refused):
        read_photo(b"%PDF-1.4")


def test_dropping_a_photo_in_the_browser(browser, server, tmp_path):
    context = browser.new_context()
    page = context.new_page()
    problems, requests = [], []
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(server.url)
    page.wait_for_selector("html[data-ready='1']")
    page.click("#open-live")
    photo = tmp_path / "<img src=x onerror=window.owned=1>.png"
    photo.write_bytes(encoded())
    page.set_input_files("#live-file", photo)
    page.wait_for_selector("#live .size")
    assert page.locator("#live .size").count() == 2
    assert "60 by 44 pixels" in page.inner_text("#live-message")
    assert problems == []
    photo.write_bytes(b"x" * 100_001)
    page.set_input_files("#live-file", photo)
    wait_until(page, "document.getElementById('live-message').textContent.includes('the limit is')")
    photo.write_bytes(b"not a picture")
    page.set_input_files("#live-file", photo)
    wait_until(page, "document.getElementById('live-message').textContent.includes('no JPEG')")
    assert all(url.startswith((server.url, "blob:")) for url in requests)
    assert page.evaluate("window.owned") is None
    context.close()
