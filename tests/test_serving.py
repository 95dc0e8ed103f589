"""`serve`: TensorFlow Serving's form, a page, and clients that mean no good."""

import asyncio
import base64
import concurrent.futures
import dataclasses
import http.client
import io
import json
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import psutil
import pytest
from PIL import Image

from tfgraphreg import cli, compat
from tfgraphreg.config import TrainConfig
from tfgraphreg.errors import ConfigError, MissingExtraError
from tfgraphreg.recipes.server import check_server, serve_run
from tfgraphreg.recipes.train import train
from tfgraphreg.runs.folder import read_run
from tfgraphreg.runs.outputs import load_data

pytest.importorskip("uvicorn", reason="the extra serve is not installed")
from tfgraphreg.serving.limits import MEBI, Limits

# As the defaults, but clients that stall are waited for less long.
LIMITS = Limits(head_seconds=2.0, body_seconds=2.0, body=4 * MEBI)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A run of digits, its test images, and the port at which it is served."""
    folder = tmp_path_factory.mktemp("serving")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TFGRAPHREG_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        config = TrainConfig(dataset="digits", backbone="fcnn", epochs=1, alpha=0, run_dir="digits")
        run = train(config)
        images = np.asarray(load_data(run.config, lambda *_: None).test.images)
        ready, found = threading.Event(), {}

        def started(server, port):
            found.update(server=server, port=port)
            ready.set()

        thread = threading.Thread(
            target=serve_run,
            args=(read_run("digits"),),
            kwargs={"port": 0, "limits": LIMITS, "started": started},
        )
        thread.start()
        assert ready.wait(60)
        yield run, images, found["port"]
        found["server"].should_exit = True
        thread.join(20)
        assert not thread.is_alive()


def ask(port, path, body=None, method=None, **headers):
    """Status and answer of one request."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        connection.request(method or ("GET" if body is None else "POST"), path, content, headers)
        reply = connection.getresponse()
        text = reply.read()
        kind = reply.headers.get("Content-Type", "")
        return reply.status, json.loads(text) if "json" in kind else text.decode()
    finally:
        connection.close()


def file_of(image, form="PNG"):
    content = io.BytesIO()
    Image.fromarray(image[..., 0]).save(content, form)
    return {"b64": base64.b64encode(content.getvalue()).decode()}


MODEL = "/v1/models/digits"


def test_status_and_metadata_are_tensorflow_servings(served):
    _, _, port = served
    assert ask(port, MODEL) == (
        200,
        {
            "model_version_status": [
                {
                    "version": "1",
                    "state": "AVAILABLE",
                    "status": {"error_code": "OK", "error_message": ""},
                }
            ]
        },
    )
    assert ask(port, f"{MODEL}/versions/1")[0] == 200
    status, found = ask(port, f"{MODEL}/metadata")
    inputs = found["metadata"]["signature_def"]["signature_def"]["serving_default"]["inputs"]
    sizes = [each["size"] for each in inputs["image"]["tensor_shape"]["dim"]]
    assert status == 200 and sizes == ["-1", "8", "8", "1"]


@pytest.mark.parametrize("form", ["rows", "named rows", "columns", "named columns", "files"])
def test_predictions_are_the_models(served, form):
    run, images, port = served
    images, expected = images[:3], run.predictor(images[:3])
    pixels = images.tolist()
    body = {
        "rows": {"instances": pixels},
        "named rows": {"instances": [{"image": one} for one in pixels]},
        "columns": {"inputs": pixels},
        "named columns": {"inputs": {"image": pixels}, "signature_name": "serving_default"},
        "files": {
            "instances": [file_of(one) for one in images],
            "signature_name": "serving_encoded",
        },
    }[form]
    status, found = ask(port, f"{MODEL}:predict", body)
    assert status == 200
    if "columns" in form:
        answers = found["outputs"]
    else:
        rows = found["predictions"]
        answers = {name: [row[name] for row in rows] for name in rows[0]}
    for name in ("probabilities", "embedding"):
        np.testing.assert_allclose(answers[name], expected[name], atol=1e-5)


def test_search_finds_what_the_search_command_finds(served):
    run, images, port = served
    from tfgraphreg.visualize.search import Searcher

    body = {"instances": [file_of(one) for one in images[:2]], "k": 3, "thumbnails": True}
    status, found = ask(port, f"{MODEL}:search", body)
    assert status == 200
    searcher = Searcher.load(run.folder.export_path)
    expected = searcher.search(run.predictor(images[:2])["embedding"], k=3)
    assert [[one["id"] for one in row] for row in found["neighbors"]] == expected.ids.tolist()
    assert [[one["label"] for one in row] for row in found["neighbors"]] == expected.labels.tolist()
    assert [vote["label"] for vote in found["votes"]] == expected.vote()[0].tolist()
    assert "unknown" not in found  # the index has no limit
    picture = found["neighbors"][0][0]["thumbnail"].removeprefix("data:image/png;base64,")
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture))).convert("L"))
    np.testing.assert_array_equal(pixels, searcher.thumbnails[expected.positions[0, 0]][..., 0])


PIXELS = [[[0]] * 8] * 8
REFUSED = [
    (b"", "no JSON"),
    (b"\xff\xfe", "no UTF-8"),
    (b'{"instances": [1', "no JSON"),
    (b"[" * 100_000, "no JSON"),
    (b'{"instances": [' + b"9" * 5000 + b"]}", "no JSON"),
    ([], "must be a JSON object"),
    ({}, "`instances` or `inputs`"),
    ({"instances": [PIXELS], "inputs": [PIXELS]}, "one of them"),
    ({"instances": []}, "at least one image"),
    ({"instances": 3}, "at least one image"),
    ({"instances": [PIXELS], "model": "x"}, "unknown key: 'model'"),
    ({"instances": [PIXELS], "signature_name": "other"}, "serving_default or serving_encoded"),
    ({"instances": [PIXELS], "signature_name": ["x"]}, "serving_default or serving_encoded"),
    ({"instances": [PIXELS], "signature_name": "serving_encoded"}, "this is the other"),
    ({"instances": [PIXELS] * 65}, "may have 64 images, this one has 65"),
    ({"instances": [PIXELS[:7]]}, "whole numbers, 8 x 8 x 1"),
    ({"instances": [PIXELS, PIXELS[:7]]}, "whole numbers"),
    ({"instances": [[[[0.5]] * 8] * 8]}, "whole numbers"),
    ({"instances": [[[["a"]] * 8] * 8]}, "whole numbers"),
    ({"instances": [[[[True]] * 8] * 8]}, "whole numbers"),
    ({"instances": [[[[256]] * 8] * 8]}, "from 0 to 255"),
    ({"instances": [[[[-1]] * 8] * 8]}, "from 0 to 255"),
    ({"instances": [{"b64": "%%%"}]}, "no base64"),
    ({"instances": [{"b64": ""}]}, "is empty"),
    ({"instances": [{"b64": "aGFsbG8="}]}, "is no image"),
    ({"instances": [{"b64": 5}]}, 'must be {"b64": FILE}'),
    ({"instances": [{"b64": "", "x": 1}]}, 'must be {"b64": FILE}'),
]


@pytest.mark.parametrize(("body", "words"), REFUSED)
def test_what_is_no_question_is_refused_in_a_sentence(served, body, words):
    status, found = ask(served[2], f"{MODEL}:predict", body)
    assert status == 400 and words in found["error"] and "\n" not in found["error"]


def test_options_of_a_search_are_checked(served):
    for options, words in (({"k": 0}, "from 1 to 100"), ({"k": 101}, "from 1 to 100")):
        status, found = ask(served[2], f"{MODEL}:search", {"instances": [PIXELS], **options})
        assert status == 400 and words in found["error"]
    for options in ({"k": True}, {"k": "3"}, {"thumbnails": 1}):
        assert ask(served[2], f"{MODEL}:search", {"instances": [PIXELS], **options})[0] == 400
    assert ask(served[2], f"{MODEL}:predict", {"instances": [PIXELS], "k": 3})[0] == 400


def test_an_enormous_picture_is_refused_by_its_header(served):
    content = io.BytesIO()
    Image.new("1", (8000, 8000)).save(content, "PNG")
    body = {"instances": [{"b64": base64.b64encode(content.getvalue()).decode()}]}
    status, found = ask(served[2], f"{MODEL}:predict", body)
    assert status == 400 and "more than 16,000,000" in found["error"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/models/other", 404),
        ("GET", "/v1/models/digitsx", 404),
        ("GET", "/nothing", 404),
        ("GET", "/v1/models/digits/../../../etc/passwd", 404),
        ("GET", f"{MODEL}:predict", 405),
        ("POST", MODEL, 405),
        ("PUT", MODEL, 405),
    ],
)
def test_addresses_that_are_none(served, method, path, status):
    found = ask(served[2], path, method=method)
    assert found[0] == status and "error" in found[1]


def test_pages_of_other_hosts_are_refused(served):
    port, body = served[2], {"instances": [PIXELS]}
    assert ask(port, f"{MODEL}:predict", body, Host="evil.example")[0] == 403
    assert ask(port, f"{MODEL}:predict", body, Origin="http://evil.example")[0] == 403
    assert ask(port, "/", Host="evil.example:80")[0] == 403
    own = {"Host": f"localhost:{port}", "Origin": f"http://localhost:{port}"}
    assert ask(port, f"{MODEL}:predict", body, **own)[0] == 200


def raw(port, *parts, wait=0.0, most=30.0):
    """What comes back for bytes that are sent part by part; "" where the connection is closed."""
    with socket.create_connection(("127.0.0.1", port), timeout=most) as line:
        found = b""
        try:
            for part in parts:
                line.sendall(part)
                time.sleep(wait)
            while block := line.recv(65536):
                found += block
        except (ConnectionError, BrokenPipeError):
            pass
        return found.decode(errors="replace")


HEAD = f"POST {MODEL}:predict HTTP/1.1\r\nHost: localhost\r\n".encode()


def hostile(number):
    """One of eight ways to be a bad client; gives what must be in the reply."""
    ways = [
        ((HEAD + b"Content-Length: 99999999999\r\n\r\n",), 0, "413"),
        (
            (
                HEAD + b"Transfer-Encoding: chunked\r\n\r\n",
                *[b"80000\r\n" + b"x" * 0x80000 + b"\r\n"] * 10,
            ),
            0,
            "",
        ),
        ((HEAD + b"Content-Length: 1000\r\n\r\n{",), 0, "408"),
        ((b"POST /v1/mod",), 0, ""),
        ((b"", b"G", b"E", b"T"), 0.4, ""),
        ((b"\x00\x01\x02garbage\r\n\r\n",), 0, "400"),
        (
            (
                HEAD
                + b"Content-Encoding: gzip\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello",
            ),
            0,
            "415",
        ),
        ((HEAD + b"Content-Length: 5\r\nConnection: close\r\n\r\nhello",), 0, "400"),
    ]
    return ways[number % len(ways)]


@pytest.mark.parametrize("number", range(8))
def test_a_bad_client_is_answered_or_cut_off(served, number):
    parts, wait, expected = hostile(number)
    begun = time.perf_counter()
    assert expected in raw(served[2], *parts, wait=wait)[:40]
    assert time.perf_counter() - begun < 25
    assert ask(served[2], MODEL)[0] == 200


def test_many_clients_lose_nothing_beside_hostile_ones(served):
    run, images, port = served
    expected = run.predictor(images[:20])["probabilities"]

    def good(number):
        place = number % 20
        image = images[place]
        one = file_of(image) if number % 2 else image.tolist()
        status, found = ask(port, f"{MODEL}:predict", {"instances": [one]})
        assert status == 200, found
        np.testing.assert_allclose(
            found["predictions"][0]["probabilities"], expected[place], atol=1e-5
        )
        return True

    def bad(number):
        parts, wait, words = hostile(number)
        return words in raw(port, *parts, wait=wait)[:40]

    def round_of(good_ones, bad_ones):
        with concurrent.futures.ThreadPoolExecutor(100) as pool:
            jobs = [pool.submit(good, n) for n in range(good_ones)]
            jobs += [pool.submit(bad, n) for n in range(bad_ones)]
            return [job.result() for job in jobs]

    process = psutil.Process()
    round_of(40, 16)
    before = process.memory_info().rss
    answers = round_of(200, 50)
    after = process.memory_info().rss
    assert len(answers) == 250 and all(answers)
    assert after - before < 100 * MEBI
    assert ask(port, MODEL)[0] == 200


def test_bodies_that_are_held_at_once_are_bounded(served):
    from tfgraphreg.serving.app import App

    limits = dataclasses.replace(LIMITS, bodies=100)

    async def ask_app(app, receive):
        sent = []

        async def send(message):
            sent.append(message)

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/models/m:predict",
            "headers": [(b"host", b"localhost")],
            "query_string": b"",
        }
        await app.asgi()(scope, receive, send)
        return sent[0]["status"]

    async def whole():
        return {"type": "http.request", "body": b"x" * 60, "more_body": False}

    async def run():
        app, go_on = App(served[0].predictor, None, "m", limits=limits), asyncio.Event()
        parts = [b"x" * 60, b""]

        async def slow():
            if len(parts) == 1:
                await go_on.wait()
            return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

        first = asyncio.create_task(ask_app(app, slow))
        await asyncio.sleep(0.2)
        second = await ask_app(app, whole)
        go_on.set()
        return await first, second, await ask_app(app, whole), app._held

    # The first and the third are read and are no JSON.
    assert asyncio.run(run()) == (400, 503, 400, 0)


def test_a_dropped_image_shows_classes_and_neighbors(served, browser):
    run, images, port = served
    page = browser.new_page(viewport={"width": 1000, "height": 800})
    asked, wrong = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: wrong.append(message.text))
    page.goto(f"http://127.0.0.1:{port}/")
    drop = """([name, text]) => {
        const bytes = Uint8Array.from(atob(text), c => c.charCodeAt(0));
        const data = new DataTransfer();
        data.items.add(new File([bytes], name));
        document.dispatchEvent(new DragEvent("drop", {dataTransfer: data, bubbles: true}));
    }"""
    page.evaluate(drop, ["a.png", file_of(images[0])["b64"]])
    page.wait_for_selector("#near img")
    scores = run.predictor(images[:1])["probabilities"][0]
    first = page.inner_text("#classes tr:first-child")
    assert first.split()[0] == run.predictor.class_names[int(scores.argmax())]
    assert f"{100 * scores.max():.1f} %" in first
    assert page.locator("#near li").count() == 5
    assert page.evaluate("[...document.images].every(one => one.complete && one.naturalWidth)")
    page.screenshot(path=str(pathlib.Path(run.path).resolve() / "page.png"))
    page.evaluate(drop, ["b.png", base64.b64encode(b"no image").decode()])
    page.wait_for_selector("#error:not(:empty)")
    assert "is no image" in page.inner_text("#error") and not page.is_visible("#answer")
    # The file chooser, by keyboard alone.
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "file"
    page.set_input_files(
        "#file",
        {
            "name": "c.png",
            "mimeType": "image/png",
            "buffer": base64.b64decode(file_of(images[1])["b64"]),
        },
    )
    page.wait_for_selector("#near img")
    assert not page.inner_text("#error").strip()
    page.set_viewport_size({"width": 360, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.close()
    own = (f"http://127.0.0.1:{port}/", "data:", "blob:")
    assert asked and all(url.startswith(own) for url in asked)
    assert all("400" in text for text in wrong), wrong


@pytest.mark.slow
def test_the_command_says_where_and_stops_quietly(served):
    run = served[0]
    command = [sys.executable, "-m", "tfgraphreg", "serve", "--run", str(run.path.resolve())]
    with subprocess.Popen(
        [*command, "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=run.path.resolve().parent,
    ) as process:
        try:
            line = process.stdout.readline()
            port = int(re.search(r"http://127\.0\.0\.1:(\d+)/ ", line)[1])
            assert ask(port, MODEL)[0] == 200
            process.send_signal(signal.SIGINT)
            rest = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, rest) == (0, ("", ""))


def test_what_cannot_be_served_is_one_line(served, capsys, monkeypatch):
    run, _, port = served
    words = ["--run", str(run.path), "--port"]
    assert cli.run_command("serve", [*words, str(port)]) == 2
    assert "`--port` cannot be listened on" in capsys.readouterr().err
    assert cli.run_command("serve", [*words, "70000"]) == 2
    assert "must be from 0 to 65535" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="must be above 0"):
        Limits(batch=0)
    found = compat.importlib.util.find_spec
    monkeypatch.setattr(
        compat.importlib.util, "find_spec", lambda name: None if name == "uvicorn" else found(name)
    )
    with pytest.raises(MissingExtraError, match=r"uvicorn.*tfgraphreg\[serve\]"):
        check_server(0)
