"""Published prompt files: placed by hand, downloaded, broken off, wrong. The server is on this machine."""

import hashlib
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from scaledreamer.corpora.download import download, sha256_of
from scaledreamer.corpora.sources import DataFile
from scaledreamer.errors import UserError

CONTENT = json.dumps({"train": [f"prompt {i}" for i in range(20_000)]}).encode()
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves ``content``; ``breaks`` connections are cut after ``cut`` bytes; ``statuses`` come first."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.ranges, self.breaks, self.cut, self.delay = CONTENT, True, 0, 100_000, 0.0
        self.statuses: list[int] = []
        self.asked: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/prompts.json"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.asked.append(asked)
        if self.server.statuses:
            return self.send_error(self.server.statuses.pop(0))
        content, begin = self.server.content, 0
        if asked and self.server.ranges:
            begin = int(asked.removeprefix("bytes=").removesuffix("-"))
            if begin >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                return self.end_headers()
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        body = content[begin:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.server.breaks:
            self.server.breaks -= 1
            body = body[: self.server.cut]
        time.sleep(self.server.delay)
        self.wfile.write(body)
        return None

    def log_message(self, *arguments) -> None:
        pass


@pytest.fixture
def server():
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def target(tmp_path, monkeypatch):
    """Where the data folder's file belongs."""
    monkeypatch.setenv("SCALEDREAMER_DATA", str(tmp_path))
    return tmp_path / "corpora" / "prompts.json"


def source(url: str | None = "http://127.0.0.1:1/", **other) -> DataFile:
    return DataFile(file="prompts.json", **{"sha256": SHA256, "url": url, **other})


def part_of(target):
    return target.with_name("prompts.json.part")


def fetch(server, target, **other):
    target.parent.mkdir(parents=True, exist_ok=True)
    download(server.url, target, **{"sha256": SHA256, "wait": 0.01, **other})


def test_placed_by_hand_needs_no_network(target):
    target.parent.mkdir()
    target.write_bytes(CONTENT)
    assert len(source().load().train) == 20_000


def test_downloads_once(server, target):
    assert len(source(server.url).load().train) == 20_000
    assert len(source(server.url).load().train) == 20_000
    assert server.asked == [None]
    assert target.read_bytes() == CONTENT
    assert not part_of(target).exists()


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_connection_is_continued(server, target, ranges):
    server.ranges, server.breaks = ranges, 2
    fetch(server, target)
    assert sha256_of(target) == SHA256
    second = "bytes=200000-" if ranges else "bytes=100000-"
    assert server.asked == [None, "bytes=100000-", second]


def test_gives_up_without_progress_and_goes_on_later(server, target):
    server.breaks, server.cut = 1, 1000
    server.statuses = []
    with pytest.raises(UserError, match=r"it has 1000 bytes of it and will go on from there"):
        fetch(server, target, attempts=0)
    assert not target.exists()
    assert part_of(target).stat().st_size == 1000
    fetch(server, target)
    assert server.asked == [None, "bytes=1000-"]
    assert target.read_bytes() == CONTENT


def test_whole_part_needs_no_byte_more(server, target):
    target.parent.mkdir()
    part_of(target).write_bytes(CONTENT)
    fetch(server, target)
    assert target.read_bytes() == CONTENT
    assert len(server.asked) == 1


@pytest.mark.parametrize("old", [b"x" * 1000, b"x" * (len(CONTENT) + 1)])
def test_part_of_another_version_is_fetched_anew(server, target, old):
    target.parent.mkdir()
    part_of(target).write_bytes(old)
    fetch(server, target)
    assert target.read_bytes() == CONTENT


def test_server_trouble_is_retried_and_a_refusal_is_not(server, target):
    server.statuses = [503, 429]
    fetch(server, target)
    assert len(server.asked) == 3
    target.unlink()
    server.asked.clear()
    server.statuses = [404]
    with pytest.raises(UserError, match="HTTP 404"):
        fetch(server, target)
    assert len(server.asked) == 1


def test_wrong_content_is_kept_aside(server, target):
    server.content = b'{"train": ["other"]}'
    with pytest.raises(UserError, match=r"is not the published file any more") as caught:
        fetch(server, target)
    kept = target.with_name("prompts.unexpected.json")
    assert kept.read_bytes() == server.content
    for part in (SHA256, hashlib.sha256(server.content).hexdigest(), str(kept), str(target)):
        assert part in str(caught.value)
    assert not target.exists()
    server.content = CONTENT
    fetch(server, target)  # not held up by what was kept


def test_offline_says_which_file_goes_where(target, monkeypatch):
    monkeypatch.setattr("scaledreamer.corpora.download.time.sleep", lambda seconds: None)
    with pytest.raises(UserError, match=r"Without a network, put that file at") as caught:
        source("http://127.0.0.1:1/prompts.json").load()
    assert str(target) in str(caught.value)
    assert SHA256 in str(caught.value)


def test_many_processes_download_once(server, target):
    server.delay = 0.1
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: fetch(server, target), range(4)))
    assert len(server.asked) == 1
    assert target.read_bytes() == CONTENT


def test_wrong_file_in_the_data_folder_is_an_error_and_stays(target):
    target.parent.mkdir()
    target.write_text('{"train": ["mine"]}')
    with pytest.raises(UserError, match="is not the published file") as caught:
        source().load()
    for part in (str(target), SHA256, sha256_of(target), "remove it", f"corpus.path={target}"):
        assert part in str(caught.value)
    assert target.exists()
    assert source(sha256=None, url=None).load().train == ["mine"]


def test_a_file_to_build_says_how(target):
    with pytest.raises(UserError, match=r"prompts\.json is missing; build it with: make it"):
        source(None, sha256=None, build="make it").load()
