"""Who reaches the page to try a generator: what the guard lets through, and where the server listens."""

import asyncio
import logging
import socket

import pytest
from omegaconf import OmegaConf

from scaledreamer.config import CONF
from scaledreamer.errors import UserError
from scaledreamer.serve.guard import HEADERS, MOST, Guard
from scaledreamer.serve.options import ServeOptions
from scaledreamer.serve.server import address_of, is_local, listening

# -- who may ask -------------------------------------------------------------------------------------------------


def passed(kind: str = "http", hosts=("localhost", "127.0.0.1", "::1"), body=(b"",), **headers: str) -> list[dict]:
    """What a request is answered by an application that reads it whole and says 200, behind the guard."""
    sent: list[dict] = []
    chunks = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in body]
    chunks[-1]["more_body"] = False

    async def application(scope, receive, send):
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
            return
        while (await receive())["more_body"]:
            pass
        await send({"type": "http.response.start", "status": 200, "headers": [(b"referrer-policy", b"same-origin")]})
        await send({"type": "http.response.body", "body": b"ok"})

    async def receive():
        return chunks.pop(0)

    async def send(message):
        sent.append(message)

    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    asyncio.run(Guard(application, hosts=hosts)({"type": kind, "headers": named}, receive, send))
    return sent


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost:7860", "LOCALHOST", "[::1]:7860"])
@pytest.mark.parametrize("origin", [None, "http://{}"])
def test_this_machine_is_answered(host, origin):
    headers = {"host": host} | ({"origin": origin.format(host)} if origin else {})
    start = passed(**headers)[0]
    assert start["status"] == 200
    answered = dict(start["headers"])
    assert answered[b"content-security-policy"] == HEADERS["content-security-policy"].encode()
    assert answered[b"referrer-policy"] == b"same-origin"  # the application's own
    assert passed("websocket", **headers) == [{"type": "websocket.accept"}]


OTHERS = {
    "another name, that was made to point here": ({"host": "evil.example:7860"}, 421),
    "no name": ({}, 421),
    "no name at all": ({"host": "[::1"}, 421),
    "a page of a stranger": ({"host": "127.0.0.1:7860", "origin": "https://evil.example"}, 403),
    "a page of another server here": ({"host": "127.0.0.1:7860", "origin": "http://127.0.0.1:8000"}, 403),
    "a page without an origin of its own": ({"host": "127.0.0.1:7860", "origin": "null"}, 403),
    "too long": ({"host": "localhost", "content_length": str(MOST + 1)}, 413),
    "of no length": ({"host": "localhost", "content_length": "-1"}, 413),
}


@pytest.mark.parametrize("who", OTHERS)
def test_others_are_refused(who):
    headers, status = OTHERS[who]
    assert passed(**headers)[0]["status"] == status
    (closed,) = passed("websocket", **headers)
    assert (closed["type"], closed["code"]) == ("websocket.close", 1008)


def test_with_another_host_any_name_will_do_but_not_any_page():
    assert passed(hosts=None, host="gpu-7.example:7860")[0]["status"] == 200
    assert passed(hosts=None, host="gpu-7:7860", origin="http://evil.example")[0]["status"] == 403


def test_a_request_that_does_not_say_how_long_it_is_is_counted():
    half = b"x" * (MOST // 2)
    assert passed(host="localhost", body=(half, half))[0]["status"] == 200
    sent = passed(host="localhost", body=(half, half, b"x"))
    assert [message.get("status") for message in sent] == [413, None]


# -- listening ---------------------------------------------------------------------------------------------------


def test_the_page_is_for_this_machine_alone():
    host = OmegaConf.load(CONF / "serve.yaml").host
    assert host == ServeOptions.host
    with listening(host, 0) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"
        assert is_local(listener)
        assert address_of(listener) == f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_every_network_is_another_host():
    with listening("0.0.0.0", 0) as listener:
        assert not is_local(listener)
        assert address_of(listener).startswith("http://127.0.0.1:")


def test_a_port_that_is_taken_is_left_for_the_next(caplog):
    with listening("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with caplog.at_level(logging.INFO), listening("127.0.0.1", port) as second:
            found = second.getsockname()[1]
            assert port < found < port + 20
        assert f"Port {port} is taken, this is {found}." in caplog.text


def test_no_port_is_one_line(monkeypatch):
    class Taken(socket.socket):
        def bind(self, address):
            raise OSError(98, "Address already in use")

    monkeypatch.setattr("scaledreamer.serve.server.socket.socket", Taken)
    with pytest.raises(UserError, match=r"^port: 65530 to 65535 are taken; choose another one, or port=0 for any"):
        listening("127.0.0.1", 65530)


def test_a_host_of_others_is_one_line():
    with pytest.raises(UserError, match=r"^host: 203\.0\.113\.7: .*; 127\.0\.0\.1 is this machine\.$"):
        listening("203.0.113.7", 0)
    with pytest.raises(UserError, match=r"^host: no such\.host is no name of a machine \(.*\); 127\.0\.0\.1 is this"):
        listening("no such.host", 0)
