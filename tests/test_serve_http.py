"""The page to try a generator over HTTP and its web socket, as browsers and programs reach it."""

import asyncio
import contextlib
import http.client
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from commands import environment
from serving import HOSTILE, MARKUP, TEST, TRAIN, open_small
from visitors import PATIENCE, Browser, Reply, ask, make, until

from scaledreamer.serve import server
from scaledreamer.serve.guard import LOCAL, MOST
from scaledreamer.serve.server import listening

pytest.importorskip("nicegui", reason="the extra 'serve' is not installed: pip install -e '.[serve]'")
import uvicorn

from scaledreamer.serve.app import application

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def desk(served_run):
    made = open_small(served_run, "waiting=2")
    yield made
    made.close()


@pytest.fixture(scope="module")
def port(desk) -> Any:
    """Where a server answers."""
    with listening("127.0.0.1", 0) as listener:
        answering = uvicorn.Server(uvicorn.Config(application(desk, hosts=LOCAL), log_config=None, ws_max_size=MOST))
        thread = threading.Thread(target=answering.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        answering.should_exit = True
        thread.join(PATIENCE)


# -- for programs ------------------------------------------------------------------------------------------------


def test_what_is_served_is_told(port):
    about = ask(port, "/api").json
    assert (about["step"], about["device"], about["latent"], about["longest"]) == (2, "cpu", 64, 200)
    assert [example["prompt"] for example in about["examples"]] == [*TRAIN, *TEST[1:]]


def test_a_prompt_becomes_files(port):
    reply = make(port, {"prompt": "a blue car"})
    assert reply.status == 200
    found = reply.json
    assert (found["prompt"], found["seen"], found["variation"]) == ("a blue car", True, 0)
    assert list(found["seconds"]) == ["text", "object", "mesh", "file", "video"]
    mesh, video = ask(port, found["mesh"]), ask(port, found["video"])
    assert mesh.body.startswith(b"glTF")
    assert mesh.headers["content-type"] == "model/gltf-binary"
    assert re.fullmatch(r'attachment; filename="a-blue-car-[0-9a-f]{12}\.glb"', mesh.headers["content-disposition"])
    assert video.body[4:8] == b"ftyp"
    assert ask(port, found["video"], range="bytes=0-7").body == video.body[:8]  # as browsers ask for videos
    assert make(port, {"prompt": "a blue car", "variation": 3}).json["mesh"].endswith("-3.glb")


@pytest.mark.parametrize("kind", ["markup", "traversal", "nul", "surrogate", "lines"])
def test_hostile_prompts_are_nothing_but_text(port, desk, kind):
    reply = make(port, {"prompt": HOSTILE[kind]})
    assert reply.status == 200
    assert re.fullmatch(r"/files/[a-z0-9-]+\.glb", reply.json["mesh"])
    assert ask(port, reply.json["mesh"]).body.startswith(b"glTF")
    assert all(path.suffix in (".glb", ".mp4") for path in desk.shelf.folder.rglob("*"))


WRONG = {
    "too long": (b'{"prompt": "' + b"x" * 500 + b'"}', 400, "A prompt may have 200 characters, this one has 500."),
    "blank": (b'{"prompt": " "}', 400, "Write what you want to see."),
    "a number": (b'{"prompt": 7}', 400, "A prompt is text."),
    "no JSON": (b"prompt=a+cat", 400, 'Send {"prompt": TEXT}, and '),
    "no prompt": (b"{}", 400, 'Send {"prompt": TEXT}, and '),
    "a list": (b'["a cat"]', 400, 'Send {"prompt": TEXT}, and '),
    "more": (b'{"prompt": "a cat", "path": "/etc/passwd"}', 400, 'Send {"prompt": TEXT}, and '),
    "too deep": (b'{"prompt": ' + b"[" * 30_000, 400, 'Send {"prompt": TEXT}, and '),
    "no text": (b'{"prompt": "\xff"}', 400, 'Send {"prompt": TEXT}, and '),
    "no variation": (b'{"prompt": "a cat", "variation": NaN}', 400, "A variation is a whole number from 0 to "),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_no_request_is_answered_in_a_line(port, what):
    body, status, line = WRONG[what]
    reply = make(port, body)
    assert reply.status == status
    assert reply.json["error"].startswith(line)


def test_a_megabyte_is_refused_before_it_is_sent(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    connection.putrequest("POST", "/api/make")
    connection.putheader("content-type", "application/json")
    connection.putheader("content-length", str(2**20))
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()
    with contextlib.suppress(ConnectionError):  # the server hangs up rather than read more
        chunks = iter([b'{"prompt": "', *[b"x" * MOST] * 16, b'"}'])  # without saying how much
        assert ask(port, "/api/make", "POST", chunks, content_type="application/json").status == 413
    assert make(port, {"prompt": "a dog"}).status == 200


def test_a_form_of_a_strangers_page_is_refused(port):
    assert make(port, {"prompt": "a cat"}, **{"content-type": "text/plain"}).status == 415
    assert make(port, {"prompt": "a cat"}, origin="https://evil.example").status == 403
    assert ask(port, "/", host="evil.example").status == 421
    assert ask(port, "/", host=f"localhost:{port}").status == 200


def test_files_elsewhere_are_refused(port, desk):
    (desk.shelf.folder / "secret.glb").write_text("x")
    for path in (
        "/files/secret.glb",
        "/files/../../../../../etc/passwd",
        "/files/..%2f..%2f..%2f..%2fetc%2fpasswd",
        "/files/%2e%2e/%2e%2e/etc/passwd",
        f"/files/{desk.shelf.folder / 'secret.glb'}",
        "/files//etc/passwd",
        "/files/%00",
        "/files/",
        "/etc/passwd",
        "/../../etc/passwd",
        "/docs",
        "/openapi.json",
    ):
        reply = ask(port, path)
        assert reply.status == 404, path
        assert b"root:" not in reply.body
    (desk.shelf.folder / "secret.glb").unlink()


def test_an_error_does_not_end_the_server_and_others_wait_for_their_turn(port, desk, monkeypatch):
    begun, go = threading.Event(), threading.Event()

    def slow(field, device):
        begun.set()
        assert go.wait(PATIENCE)
        raise MemoryError("a mesh as large as the world")

    monkeypatch.setattr(desk.workshop, "extractor", slow)
    replies: list[Reply] = []
    askers = [
        threading.Thread(target=lambda n=n: replies.append(make(port, {"prompt": f"a cat of {n}"}))) for n in range(3)
    ]
    askers[0].start()
    assert begun.wait(PATIENCE)
    for asker in askers[1:]:
        asker.start()
    waiting = desk.line._waiting
    while len(waiting) < 2:
        time.sleep(0.01)
    full = make(port, {"prompt": "one too many"})
    assert (full.status, full.json["error"]) == (503, "2 prompts are waiting already; try again in a while.")
    go.set()
    for asker in askers:
        asker.join(PATIENCE)
    assert [reply.status for reply in replies] == [500] * 3
    assert all(reply.json["error"].startswith("Something went wrong") for reply in replies)
    monkeypatch.undo()
    assert make(port, {"prompt": "a cat of 0"}).status == 200


def test_who_goes_away_is_not_waited_for(port, desk, monkeypatch):
    begun, go, seen = threading.Event(), threading.Event(), []

    def slow(field, device):
        begun.set()
        assert go.wait(PATIENCE)
        return [None]

    monkeypatch.setattr(desk.workshop, "extractor", slow)
    monkeypatch.setattr(desk.workshop, "_video", lambda *_: seen.append("video"))
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    connection.request("POST", "/api/make", b'{"prompt": "never mind"}', {"content-type": "application/json"})
    assert begun.wait(PATIENCE)
    job = desk.line._current
    connection.close()
    until(lambda: job.cancelled)
    go.set()
    assert job.over.wait(PATIENCE)
    assert not seen


# -- the page ----------------------------------------------------------------------------------------------------


def test_the_page_makes_what_is_typed(port):
    async def visit():
        async with Browser(port) as browser:
            assert browser.visible("Type a prompt, or choose one.")
            assert browser.offered(".glb") is None
            await browser.do(browser.find(lambda e: e["tag"] == "nicegui-scene"), "init", {})
            await browser.type("a green bird on a rock")
            await browser.until(lambda: browser.offered(".glb") and browser.offered(".mp4"))
            assert browser.visible("★ not trained on")
            assert not browser.visible("Type a prompt")
            assert ask(port, str(browser.offered(".glb"))).body.startswith(b"glTF")
            calls = [data["code"] for event, data in browser.messages if event == "run_javascript"]
            assert sum("gltf" in code and str(browser.offered(".glb")) in code for code in calls) == 1  # in the scene
            assert sum("autoRotate = true" in code for code in calls) == 1
            for text, line in (("", "Write what you want to see."), ("x" * 300, "A prompt may have 200 characters")):
                await browser.type(text)
                await browser.until(lambda line=line: browser.visible(line))
            chip = browser.find(lambda e: e.get("text") == "a red house")
            await browser.do(chip, "click", {})
            await browser.until(lambda: (browser.offered(".glb") or "").startswith("/files/a-red-house-"))

    asyncio.run(visit())


def test_markup_is_shown_as_text(port):
    async def visit():
        async with Browser(port) as browser:
            assert "<b>bold" not in browser.source
            assert "<script>alert" not in browser.source
            assert browser.visible(f"{MARKUP} ★")
            await browser.type(HOSTILE["markup"])
            await browser.until(lambda: browser.offered(".glb"))
            assert browser.visible(HOSTILE["markup"])
            for event, data in browser.messages:
                assert event != "run_javascript" or "onerror" not in json.dumps(data)
            holders = [e for e in browser.elements.values() if "onerror" in json.dumps(e)]
            assert all("innerHTML" not in json.dumps(e) for e in holders)
            await browser.type({"not": "text"})
            await browser.until(lambda: browser.visible("A prompt is text."))

    asyncio.run(visit())


def test_nothing_on_the_page_comes_from_elsewhere(port):
    reply = ask(port, "/")
    page = reply.body.decode()
    assert "default-src 'self'" in reply.headers["content-security-policy"]
    addresses = re.findall(r"""(?:src|href)=["']([^"']+)|url\(["']?([^"')]+)|from ["']([^"']+)""", page)
    named = [address for found in addresses for address in found if address]
    assert len(named) > 5
    named += json.loads(re.search(r'{"imports": ({.*?})}', page, flags=re.DOTALL)[1]).values()
    for address in named:
        assert address.startswith(("/", "data:")) or address in ("vue",) or not re.match(r"\w+:|//", address), address
        if address.startswith("/_nicegui") and "." in address.rpartition("/")[2]:
            assert ask(port, address).status == 200


@pytest.mark.parametrize(("origin", "status"), [("http://127.0.0.1:{}", 101), ("http://evil.example", 403)])
def test_a_strangers_page_cannot_listen(port, origin, status):
    upgrade = {"connection": "Upgrade", "upgrade": "websocket", "sec_websocket_version": "13"}
    key = {"sec_websocket_key": "dGhlIHNhbXBsZSBub25jZQ==", "origin": origin.format(port)}
    path = "/_nicegui_ws/socket.io/?EIO=4&transport=websocket"
    assert ask(port, path, **upgrade, **key).status == status


# -- the command -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("host", "names"), [("127.0.0.1", {*LOCAL}), ("0.0.0.0", None)])
def test_a_server_for_others_says_so(monkeypatch, caplog, host, names):
    asked = []
    monkeypatch.setattr("scaledreamer.serve.app.application", lambda desk, hosts: asked.append(hosts))
    monkeypatch.setattr(uvicorn.Server, "run", lambda self, sockets: None)
    monkeypatch.setattr("webbrowser.open", lambda address: pytest.fail("no one asked for a browser"))
    options = SimpleNamespace(host=host, open=False)
    with caplog.at_level(logging.INFO), listening(host, 0) as listener:
        server._answer(None, listener, options)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    assert (None if asked[0] is None else set(asked[0])) == names
    assert f"Try it: {address} (Ctrl-C ends it)" in caplog.text
    warned = f"host={host}: everyone who reaches this machine over the network can use this page" in caplog.text
    assert warned == (names is None)


@pytest.mark.skipif(os.name != "posix", reason="signals are told otherwise there")
def test_the_command_answers_and_leaves_nothing_behind(served_run, tmp_path):
    temporary, cwd = tmp_path / "temporary", tmp_path / "cwd"
    temporary.mkdir()
    cwd.mkdir()
    with listening("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        given = [f"run={served_run}", "device=cpu", f"port={port}", "mesh.resolution=12", "frames=2", "image_size=16"]
        process = subprocess.Popen(
            [sys.executable, "-m", "scaledreamer.serve", *given],
            cwd=cwd,
            env=environment(tmp_path) | {"TMPDIR": str(temporary), "PYTHONPATH": str(Path(__file__).parents[1])},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        deadline = threading.Timer(5 * PATIENCE, process.kill)
        deadline.start()
        try:
            assert process.stdout is not None
            said = []
            for line in process.stdout:
                said.append(line)
                if line.startswith("Try it: "):
                    break
            address = said[-1].split()[2]
            assert address != f"http://127.0.0.1:{port}"
            assert f"Port {port} is taken, this is {address.rpartition(':')[2]}.\n" in said
            assert make(int(address.rpartition(":")[2]), {"prompt": "a cat"}).status == 200
            assert len(list(temporary.glob("scaledreamer-*/*.mp4"))) == 1
            with urllib.request.urlopen(address, timeout=PATIENCE) as page:
                assert b"scaledreamer" in page.read()
            process.send_signal(signal.SIGINT)
            rest, _ = process.communicate(timeout=PATIENCE)
        finally:
            deadline.cancel()
            process.kill()
    assert process.returncode == 0, rest
    assert rest.endswith("Stopped.\n")
    assert "Traceback" not in rest
    assert not list(temporary.glob("scaledreamer-*"))
    assert not list(cwd.iterdir())
