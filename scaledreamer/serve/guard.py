"""What is asked of every request, before anything else looks at it.

A server on one's own machine is reached by every page that its browser opens: a page of a stranger may send requests to
it, and, with a name that it lets point here, even read the answers. So requests must be for a name of this machine, and
those that a page sends must come from our own.
"""

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

LOCAL = ("localhost", "127.0.0.1", "::1")
"""Names of this machine that nobody else can give away."""

MOST = 2**16
"""Bytes of a request."""

HEADERS = {
    # What the page may load, and where it may send something to: here and nowhere else. Its framework compiles
    # templates in the browser, hence eval.
    "content-security-policy": "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; connect-src 'self' data: blob:; "
    "base-uri 'none'; object-src 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}


class Guard:
    """ASGI middleware.

    Args:
        app: what comes after it.
        hosts: names by which the server may be called; None for any.
    """

    def __init__(self, app: Application, *, hosts: Iterable[str] | None) -> None:
        self.app = app
        self.hosts = None if hosts is None else frozenset(host.lower() for host in hosts)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        refusal = self._refusal(headers)
        if refusal is not None:
            await _refuse(scope["type"], *refusal, send)
            return
        if scope["type"] == "websocket":
            await self.app(scope, receive, send)
            return
        answer = _Answer(send)
        try:
            await self.app(scope, _limited(receive), answer)
        except TooLong:
            if answer.begun:
                raise
            await _refuse("http", 413, "The request is too long.", send)

    def _refusal(self, headers: dict[bytes, str]) -> tuple[int, str] | None:
        host, origin = headers.get(b"host", ""), headers.get(b"origin")
        if self.hosts is not None and _name(host) not in self.hosts:
            return 421, "This server has another name."
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return 403, "Only this server's own page may ask for this."
        length = headers.get(b"content-length", "0")
        if not length.isdigit() or int(length) > MOST:
            return 413, "The request is too long."
        return None


class TooLong(Exception):
    """More bytes came than a request may have."""


def _limited(receive: Receive) -> Receive:
    """Counts what is received; a request need not say how long it is."""
    received = 0

    async def receiving() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > MOST:
            raise TooLong
        return message

    return receiving


class _Answer:
    """Sends an answer with our headers."""

    def __init__(self, send: Send) -> None:
        self._send, self.begun = send, False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.begun = True
            own = {name.lower() for name, _ in message.get("headers", [])}
            more = [(k.encode(), v.encode()) for k, v in HEADERS.items() if k.encode() not in own]
            message = {**message, "headers": [*message.get("headers", []), *more]}
        await self._send(message)


async def _refuse(kind: str, status: int, line: str, send: Send) -> None:
    if kind == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": line})
        return
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": line.encode() + b"\n"})


def _name(host: str) -> str:
    """The name in a Host header, without its port."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""
