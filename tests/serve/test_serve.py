"""`elastic serve` over real connections: answers beside the network's own, what is refused, how long it waits."""

import http.client
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import elastic_cnn
from elastic_cnn.cli import main
from elastic_cnn.data.transforms import eval_transform
from elastic_cnn.zoo.checkpoint import InputSpec, NetworkCard, load_checkpoint, save_checkpoint

uvicorn = pytest.importorskip("uvicorn", reason="the extra `serve` brings it")

from elastic_cnn.serve import app as app_module  # noqa: E402
from elastic_cnn.serve import run as run_module  # noqa: E402
from elastic_cnn.serve.engine import Engine, ServeOptions  # noqa: E402

CLASSES = ("ant", "bee", "<script>cat")
NARROW = {"num_classes": 3, "channels": [8, 8, 8, 8], "layers": [2, 2, 1, 1]}


def save(path, task: str = "classification", name: str = "resnext_small_elastic"):
    torch.manual_seed(0)
    network = elastic_cnn.create_model(name, **NARROW)
    spec = InputSpec(size=(32, 32), crop_pct=1.0)
    return save_checkpoint(path, network, NetworkCard(name, NARROW, task=task, classes=CLASSES, input=spec))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save(tmp_path_factory.mktemp("serve") / "best.safetensors")


@pytest.fixture(scope="module")
def engine(checkpoint):
    return Engine(ServeOptions(str(checkpoint), max_bytes=100_000, max_photos=3, max_waiting=2))


@contextmanager
def serving(engine):
    """The port of a server in a thread of this process."""
    port = run_module.free_port("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app_module.make_app(engine), **run_module.settings("127.0.0.1", port)))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        end = time.monotonic() + 20
        while not server.started:
            assert time.monotonic() < end
            time.sleep(0.01)
        yield port
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def port(engine):
    with serving(engine) as port:
        yield port


def encoded(seed: int = 0, kind: str = "PNG", size: tuple[int, int] = (60, 44)) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def ask(port, method="GET", path="/health", body=None, headers=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(method, path, body, headers or {}, encode_chunked=True)
        reply = connection.getresponse()
        return reply.status, dict(reply.headers), reply.read()
    finally:
        connection.close()


def form(photos) -> tuple[bytes, dict[str, str]]:
    parts = [
        f'--XX\r\nContent-Disposition: form-data; name="file"; filename="<b>{i}.png"\r\n\r\n'.encode() + photo + b"\r\n"
        for i, photo in enumerate(photos)
    ]
    return b"".join(parts) + b"--XX--\r\n", {"Content-Type": "multipart/form-data; boundary=XX"}


def expected(checkpoint, data: bytes) -> torch.Tensor:
    network, card = load_checkpoint(checkpoint)
    prepare = eval_transform(card.input.size, card.input.mean, card.input.std, card.input.interpolation, crop_pct=1.0)
    with torch.no_grad():
        return network.eval()(prepare(Image.open(io.BytesIO(data)).convert("RGB")).unsqueeze(0)).softmax(1)[0]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_one_photo_as_the_body(port, checkpoint, kind):
    data = encoded(kind=kind)
    status, headers, body = ask(port, "POST", "/predict?top=2", data, {"Content-Type": "image/png"})
    assert (status, headers["content-type"]) == (200, "application/json")
    (answer,) = json.loads(body)["results"]
    assert (answer["width"], answer["height"]) == (60, 44)
    best = expected(checkpoint, data).sort(descending=True)
    assert [entry["class"] for entry in answer["classes"]] == [CLASSES[number] for number in best.indices[:2]]
    found = torch.tensor([entry["probability"] for entry in answer["classes"]])
    torch.testing.assert_close(found, best.values[:2], rtol=1e-3, atol=1e-4)


def test_several_photos_in_a_form_broken_ones_too(port, checkpoint):
    photos = [encoded(1), b"no photo", encoded(2)]
    body, headers = form(photos)
    status, _, answer = ask(port, "POST", "/predict", body, headers)
    assert status == 200
    assert b"<b>" not in answer
    results = json.loads(answer)["results"]
    assert "no JPEG" in results[1]["error"]
    for number in (0, 2):
        probabilities = {entry["class"]: entry["probability"] for entry in results[number]["classes"]}
        found = torch.tensor([probabilities[name] for name in CLASSES])
        torch.testing.assert_close(found, expected(checkpoint, photos[number]), rtol=1e-3, atol=1e-4)


def test_several_labels_a_photo_are_those_above_the_threshold(tmp_path):
    engine = Engine(ServeOptions(str(save(tmp_path / "m.safetensors", task="multilabel"))))
    (all_of_them,), (none,) = engine.answer([encoded()], 3, 0.0), engine.answer([encoded()], 3, 0.999)
    assert all_of_them["labels"] == list(CLASSES)
    assert none["labels"] == []


@pytest.mark.parametrize(
    ("path", "body", "headers", "status", "words"),
    [
        ("/predict", b"no photo", {}, 415, "no JPEG"),
        ("/predict", b"", {}, 400, "no photo in this request"),
        ("/predict", encoded()[:200], {}, 415, "broken"),
        ("/predict", b"x" * 100_001, {}, 413, "0.0954 MB"),
        ("/predict", iter([b"x" * 60_000, b"x" * 60_000]), {"Transfer-Encoding": "chunked"}, 413, "0.0954 MB"),
        ("/predict?top=0", encoded(), {}, 422, "`top`"),
        ("/predict?top=many", encoded(), {}, 422, "`top`"),
        ("/predict?threshold=nan", encoded(), {}, 422, "`threshold`"),
        ("/predict", *form([encoded()] * 4), 400, "up to 3 files"),
        ("/predict", *form([]), 400, "no file"),
        ("/predict", *form([b"x" * 100_001]), 413, "too large"),
        ("/predict", *form([b"x" * 250_000] * 3), 413, "too large"),
        ("/predict", b"--XX\r\nbroken", {"Content-Type": "multipart/form-data; boundary=XX"}, 400, "form"),
        ("/predict", b"x", {"Content-Type": "multipart/form-data"}, 400, "form"),
        ("/elsewhere", b"", {}, 404, "nothing here"),
        ("/health", b"x", {}, 405, "not done"),
    ],
)
def test_what_is_refused(port, path, body, headers, status, words):
    found, _, answer = ask(port, "POST", path, body, headers)
    assert (found, words in json.loads(answer)["error"]) == (status, True), answer
    assert ask(port)[0] == 200  # it goes on


def test_answers_under_its_own_name_and_to_its_own_page(port):
    assert ask(port, headers={"Host": f"localhost:{port}"})[0] == 200
    assert ask(port, headers={"Host": "evil.example"})[0] == 403
    for origin, status in ((f"http://127.0.0.1:{port}", 200), ("http://evil.example", 403), ("null", 403)):
        assert ask(port, "POST", "/predict", encoded(), {"Origin": origin})[0] == status
    _, headers, _ = ask(port, path="/")
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "server" not in headers
    assert not any(name.startswith("access-control") for name in headers)


def test_too_many_requests_are_told_to_come_again(engine, monkeypatch):
    release = threading.Event()
    monkeypatch.setattr(Engine, "answer", lambda self, photos, top, threshold: release.wait(20) and [{}])
    with serving(engine) as port:
        waiting = [threading.Thread(target=ask, args=(port, "POST", "/predict", encoded())) for _ in range(2)]
        for thread in waiting:
            thread.start()
        while json.loads(ask(port)[2])["waiting"] < 2:
            time.sleep(0.01)
        status, headers, _ = ask(port, "POST", "/predict", encoded())
        assert (status, headers["retry-after"]) == (503, "1")
        release.set()
        for thread in waiting:
            thread.join()
        assert ask(port, "POST", "/predict", encoded())[0] == 200


def test_a_fault_is_not_told_to_the_asker(engine, monkeypatch):
    with serving(engine) as port, monkeypatch.context() as patch:
        patch.setattr(Engine, "answer", lambda self, photos, top, threshold: 1 / 0)
        status, _, body = ask(port, "POST", "/predict", encoded())
        assert (status, b"Zero" in body) == (500, False)


def closed(connection) -> bool:
    try:
        return connection.recv(4096) == b""
    except ConnectionError:
        return True


@pytest.mark.parametrize("begin", [b"", b"GET /health HTTP/1.1\r\nA: "])
def test_a_head_that_drips_in_loses_its_place(engine, monkeypatch, begin):
    monkeypatch.setattr(run_module, "HEAD_SECONDS", 0.4)
    with serving(engine) as port, socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(begin)
        connection.settimeout(0.05)
        for _ in range(200):
            try:
                if closed(connection):
                    return
            except TimeoutError:
                try:
                    connection.sendall(b"a")
                except ConnectionError:
                    return
        pytest.fail("it still holds its place")


def test_a_body_that_drips_in_is_given_up(engine, monkeypatch):
    monkeypatch.setattr(app_module, "UPLOAD_SECONDS", 0.3)
    monkeypatch.setattr(app_module, "DRAIN_SECONDS", 0.2)
    with serving(engine) as port, socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 900\r\n\r\n".encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 408")


def test_the_description_fits_what_is_answered(port):
    description = json.loads(ask(port, path="/openapi.json")[2])
    schemas = description["components"]["schemas"]
    asked = {"/health": "Health", "/model": "Model"}
    assert set(description["paths"]) == {*asked, "/predict"}
    for path, schema in asked.items():
        answer = json.loads(ask(port, path=path)[2])
        assert set(answer) == set(schemas[schema]["properties"])
    answer = json.loads(ask(port, "POST", "/predict", encoded())[2])
    assert set(answer) == set(schemas["Answers"]["properties"])
    assert set(answer["results"][0]) <= set(schemas["Answer"]["properties"])
    assert json.loads(ask(port, path="/model")[2])["classes"] == list(CLASSES)
    used = set(re.findall(r"Declined\(\s*(\d{3})", Path(app_module.__file__).read_text("utf-8")))
    assert used <= set(description["paths"]["/predict"]["post"]["responses"])


def test_dropping_photos_on_the_page(browser, port, tmp_path):
    page = browser.new_page()
    problems, requests = [], []
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(f"http://127.0.0.1:{port}/")
    page.wait_for_selector("html[data-ready='1']")
    for number in range(2):
        (tmp_path / f"<i>{number}.png").write_bytes(encoded(number))
    page.set_input_files("#files", [tmp_path / "<i>0.png", tmp_path / "<i>1.png"])
    page.wait_for_selector("#results > li")
    assert page.locator("#results > li").count() == 2
    assert set(page.locator("#results bdi").all_inner_texts()) == set(CLASSES)
    assert "2 photos in" in page.inner_text("#message")
    (tmp_path / "large.png").write_bytes(b"x" * 100_001)
    page.set_input_files("#files", tmp_path / "large.png")
    assert "too large" in page.inner_text("#message")
    assert problems == []
    assert all(url.startswith((f"http://127.0.0.1:{port}/", "blob:")) for url in requests)
    page.close()


def test_bad_input_is_said_before_anything_listens(tmp_path, checkpoint, capsys):
    segments = save(tmp_path / "s.safetensors", task="segmentation")
    for words, said in (
        ([str(tmp_path / "none.safetensors")], "none.safetensors"),
        ([str(segments)], "elastic segment"),
        ([str(checkpoint), "--port", "70000"], "70000"),
        ([str(checkpoint), "--workers", "0"], "--workers"),
        ([str(checkpoint), "--max-photos", "0"], "max_photos"),
    ):
        assert main(["serve", *words]) == 2
        assert said in capsys.readouterr().err
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert main(["serve", str(checkpoint), "--port", str(taken.getsockname()[1])]) == 2
    assert "--port" in capsys.readouterr().err


def test_two_workers_answer_and_end(checkpoint):
    words = [sys.executable, "-m", "elastic_cnn", "serve", str(checkpoint), "--port", "0", "--workers", "2"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=os.environ, start_new_session=True)
    try:
        line = process.stdout.readline()
        port = int(re.search(r":(\d+)/", line)[1])
        end = time.monotonic() + 120
        while True:
            try:
                assert ask(port, "POST", "/predict", encoded())[0] == 200
                break
            except OSError:
                assert time.monotonic() < end
                time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) in (0, 130)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.stdout.close()
