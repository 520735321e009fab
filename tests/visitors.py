"""Who asks a server of a trained generator: programs, and a browser that draws nothing."""

import asyncio
import html
import http.client
import json
import re
import time
import uuid
from collections.abc import Callable
from typing import Any

PATIENCE = 120.0
"""Seconds."""


class Reply:
    """An answer of the server, read."""

    def __init__(self, answer: http.client.HTTPResponse) -> None:
        self.status, self.headers, self.body = answer.status, answer.headers, answer.read()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(port: int, path: str, method: str = "GET", body: Any = None, **headers: str) -> Reply:
    """A request as it is written here: paths and headers are not tidied up as browsers do."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, named)
        return Reply(connection.getresponse())
    finally:
        connection.close()


def make(port: int, given: Any, **headers: str) -> Reply:
    body = given if isinstance(given, bytes) else json.dumps(given).encode()
    return ask(port, "/api/make", "POST", body, **{"content-type": "application/json"} | headers)


def until(true: Callable[[], Any]) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


class Browser:
    """What a browser does with the page, but for drawing it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.source = ask(port, "/").body.decode()
        listed = re.search(r"parseElements\(String\.raw`(.*?)`\)", self.source, flags=re.DOTALL)
        assert listed is not None
        self.elements: dict[str, dict] = json.loads(html.unescape(listed[1]))
        (self.client,) = re.findall(r"'client_id': '([0-9a-f-]+)'", self.source)
        self.messages: list[tuple[str, Any]] = []
        import socketio  # of the extra

        self.socket = socketio.AsyncClient()
        self.socket.on("*", self._take)

    async def __aenter__(self) -> "Browser":
        query = f"client_id={self.client}&next_message_id=0&implicit_handshake=true"
        query += f"&tab_id={uuid.uuid4()}&document_id={uuid.uuid4()}"
        await self.socket.connect(
            f"http://127.0.0.1:{self.port}?{query}",
            headers={"origin": f"http://127.0.0.1:{self.port}"},
            transports=["websocket"],
            socketio_path="/_nicegui_ws/socket.io",
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.socket.disconnect()

    def _take(self, event: str, data: Any) -> None:
        self.messages.append((event, data))
        if event == "update":
            for number, element in data.items():
                if isinstance(element, dict):
                    self.elements[number] = self.elements.get(number, {}) | element

    def find(self, shows: Callable[[dict], Any]) -> str:
        (number,) = [n for n, e in self.elements.items() if shows(e)]
        return number

    async def do(self, number: str, event: str, *arguments: Any) -> None:
        listeners = self.elements[number]["events"]
        told = {e["listener_id"] for e in listeners if ".".join([e["type"], *e["keys"]]) == event}
        assert told
        given = [json.dumps(argument) for argument in arguments]
        for listener in told:
            message = {"id": int(number), "client_id": self.client, "listener_id": listener, "args": given}
            await self.socket.emit("event", message)

    async def type(self, text: Any) -> None:
        field = self.find(lambda e: e.get("props", {}).get("aria-label") == "Prompt")
        await self.do(field, "update:value", text)
        await self.do(field, "keydown.enter", {})

    def visible(self, text: str) -> bool:
        """Whether an element that is shown has this text."""
        return any(
            str(text) in (e.get("text") or "") and "hidden" not in e.get("class", []) for e in self.elements.values()
        )

    def offered(self, suffix: str) -> str | None:
        """Address of the file of this kind that can be downloaded."""
        links = [e for e in self.elements.values() if e["tag"] == "nicegui-link" and "hidden" not in e["class"]]
        return next((e["props"]["href"] for e in links if e["props"]["href"].endswith(suffix)), None)

    async def until(self, true: Callable[[], Any]) -> None:
        end = time.monotonic() + PATIENCE
        while not true():
            assert time.monotonic() < end, self.messages[-5:]
            await asyncio.sleep(0.02)
