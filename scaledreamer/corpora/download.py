"""Fetch one small file: checked, atomic, continued where it broke off, by one process at a time."""

import hashlib
import http.client
import logging
import os
import time
import urllib.error
import urllib.request
from pathlib import Path

from scaledreamer.errors import UserError
from scaledreamer.turns import PATIENCE, turn

log = logging.getLogger(__name__)


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def download(
    url: str,
    target: Path,
    *,
    sha256: str,
    attempts: int = 3,
    wait: float = 1.0,
    timeout: float = 30.0,
    patience: float = PATIENCE,
) -> None:
    """Put the file at ``url`` at ``target``, which appears only when it is whole and right.

    Of several processes (the ranks of a run, the jobs of a sweep) one downloads, and the others wait for its file.
    What a broken connection leaves is kept beside the target as ``.part`` and continued by the next call.

    Args:
        url: what to fetch.
        target: where it goes; nothing is done if it is there.
        sha256: what it must hash to.
        attempts: tries in a row without a new byte before giving up.
        wait: seconds before the second try; doubles with each further one.
        timeout: seconds a silent connection is waited for.
        patience: seconds another process is waited for without seeing its file grow.

    Raises:
        UserError: the network, the disk or the content is at fault, or another process makes no progress.
    """
    part = target.with_name(f"{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with turn(target, f"to download {target}", grown=lambda: _size(part), patience=patience):
            if target.exists():
                return
            log.info("downloading %s to %s", url, target)
            continued = _size(part) > 0
            _transfer(url, part, attempts, wait, timeout)
            if continued and sha256_of(part) != sha256:  # the beginning may be of another version of the file
                part.unlink()
                _transfer(url, part, attempts, wait, timeout)
            found = sha256_of(part)
            if found == sha256:
                os.replace(part, target)
                return
            kept = target.with_name(f"{target.stem}.unexpected{target.suffix}")
            os.replace(part, kept)
    except OSError as error:
        hint = f"; it has {_size(part)} bytes of it and will go on from there" if _size(part) else ""
        raise UserError(
            f"cannot download {url} ({_reason(error)}){hint}. Without a network, put that file at {target} "
            f"(sha256 {sha256})."
        ) from error
    raise UserError(
        f"{url} is not the published file any more: sha256 {found}, expected {sha256}. It is kept as {kept}; put the "
        f"right file at {target}, or train on this one as it is with corpus.path={kept}"
    )


def _transfer(url: str, part: Path, attempts: int, wait: float, timeout: float) -> None:
    """Try until the whole file is in ``part``; a try that brings new bytes sets the count back."""
    failures, most = 0, _size(part)
    while True:
        try:
            return _receive(url, part, timeout)
        except (OSError, http.client.HTTPException) as error:
            refused = isinstance(error, urllib.error.HTTPError) and error.code < 500 and error.code != 429
            failures = 0 if _size(part) > most else failures + 1
            if refused or failures >= attempts:
                raise error if isinstance(error, OSError) else OSError(repr(error)) from error
            most = max(most, _size(part))
            log.warning("%s: %s; trying again", url, _reason(error))
        time.sleep(wait * 2 ** max(failures - 1, 0))


def _receive(url: str, part: Path, timeout: float) -> None:
    have = _size(part)
    request = urllib.request.Request(url, headers={"User-Agent": "scaledreamer"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        response = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        if error.headers.get("Content-Range") != f"bytes */{have}":  # else all of it was there already
            part.unlink()  # longer than the file: not its beginning
            _receive(url, part, timeout)
        return
    with response:
        partial = getattr(response, "status", None) == 206
        if partial and not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            part.unlink(missing_ok=True)
            raise OSError("the server sent another part of the file than asked for")
        length, received = response.headers.get("Content-Length"), 0
        with part.open("ab" if partial else "wb") as file:
            while block := response.read(1 << 16):
                file.write(block)
                received += len(block)
            file.flush()
            os.fsync(file.fileno())
    if length is not None and received < int(length):
        raise OSError(f"the connection broke after {received} of {length} bytes")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _reason(error: BaseException) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code} {error.reason}"
    return str(getattr(error, "reason", "") or error)
