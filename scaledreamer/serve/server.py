"""Listening: an address, a port that is free, and an orderly end."""

import errno
import importlib.util
import ipaddress
import logging
import signal
import socket
import sys
import threading
import webbrowser
from types import FrameType

from scaledreamer.errors import UserError
from scaledreamer.render.source import open_trained
from scaledreamer.serve.book import PromptBook
from scaledreamer.serve.desk import Desk
from scaledreamer.serve.guard import LOCAL, MOST
from scaledreamer.serve.options import ServeOptions
from scaledreamer.serve.shelf import Shelf
from scaledreamer.serve.workshop import Workshop
from scaledreamer.training.build import build

log = logging.getLogger(__name__)

TRIES = 20
"""Ports that are tried, one after the other."""


def require_packages() -> None:
    """Raise :class:`UserError` unless the packages of the extra ``serve`` are there."""
    missing = [name for name in ("nicegui", "fastapi", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"there is no package {missing[0]}; pip install -c constraints.txt -e '.[serve]'")


def serve(options: ServeOptions) -> None:
    """Open the generator and answer requests until the process is told to end.

    Raises:
        UserError: there is no such generator, or nothing to listen at.
    """
    require_packages()
    listener = listening(options.host, options.port)
    # SIGTERM would end the process at once, and leave the temporary folder.
    signal.signal(signal.SIGTERM, _leave)
    with listener:
        desk = open_desk(options)
        try:
            _answer(desk, listener, options)
        except KeyboardInterrupt:  # which uvicorn passes on when it has ended
            pass
        finally:
            desk.close()
    log.info("Stopped.")


def open_desk(options: ServeOptions) -> Desk:
    """The generator that the options name, ready for prompts.

    Raises:
        UserError: it is not there, or not of this version.
    """
    trained = open_trained(options)
    book = PromptBook(trained, examples=options.examples, longest=options.longest)
    workshop = Workshop(
        trained,
        extractor=build(options.mesh),  # pyright: ignore[reportArgumentType]
        frames=options.frames,
        fps=options.fps,
        image_size=options.image_size,
    )
    unseen = next((example.prompt for example in book.examples if not example.seen), None)
    if unseen is not None:
        try:
            trained.embed([unseen])  # now, so that the first one who asks need not wait for the text encoder
        except UserError as error:
            log.warning("Only prompts that were trained on can be made: %s", error)
    return Desk(book=book, workshop=workshop, shelf=Shelf(keep=options.keep), waiting=options.waiting)


def listening(host: str, port: int) -> socket.socket:
    """A socket at the port, or at the next free one.

    Raises:
        UserError: the address is none of this machine's, or no port is free or allowed.
    """
    try:
        kind, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise UserError(f"host: {host} is no name of a machine ({error}); 127.0.0.1 is this one.") from error
    last = min(port + TRIES, 2**16) - 1 if port else 0
    for candidate in range(port, last + 1):
        listener = socket.socket(kind, socket.SOCK_STREAM)
        if sys.platform != "win32":  # there it would share a port that is taken
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((address[0], candidate, *address[2:]))
            listener.listen(64)
        except OSError as error:
            listener.close()
            if isinstance(error, PermissionError):
                raise UserError(f"port: {candidate} is not for everyone; choose one from 1024 on.") from error
            if error.errno != errno.EADDRINUSE:
                raise UserError(f"host: {host}: {error.strerror}; 127.0.0.1 is this machine.") from error
            continue
        if candidate != port:
            log.info("Port %d is taken, this is %d.", port, candidate)
        return listener
    raise UserError(f"port: {port} to {last} are taken; choose another one, or port=0 for any that is free.")


def is_local(listener: socket.socket) -> bool:
    """Whether only this machine reaches a socket."""
    return ipaddress.ip_address(listener.getsockname()[0].partition("%")[0]).is_loopback


def address_of(listener: socket.socket) -> str:
    """Where a browser of this machine finds the page."""
    host, port = listener.getsockname()[:2]
    parsed = ipaddress.ip_address(host.partition("%")[0])
    if parsed.is_unspecified:
        host = "127.0.0.1" if parsed.version == 4 else "::1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _answer(desk: Desk, listener: socket.socket, options: ServeOptions) -> None:
    import uvicorn

    from scaledreamer.serve.app import application

    local, address = is_local(listener), address_of(listener)
    app = application(desk, hosts=(*LOCAL, options.host) if local else None)
    config = uvicorn.Config(
        app,
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        ws_max_size=MOST,
        timeout_graceful_shutdown=2,
    )
    if not local:
        log.warning(
            "host=%s: everyone who reaches this machine over the network can use this page, without a password.",
            options.host,
        )
    log.info("Try it: %s (Ctrl-C ends it)", address)
    if options.open:
        threading.Timer(1.0, webbrowser.open, [address]).start()
    uvicorn.Server(config).run(sockets=[listener])


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)
