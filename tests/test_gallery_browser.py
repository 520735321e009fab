"""The gallery in a browser: chromium without a window, a page from the disk, no network."""

import io
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from galleries import options, write_rendered_run
from PIL import Image

from scaledreamer.gallery import media
from scaledreamer.gallery.job import write_gallery
from scaledreamer.render.names import name_of

pytestmark = pytest.mark.browser
PATIENCE = 60_000
"""Milliseconds until what should be there counts as missing: machines that test are busy."""
HOSTILE = '</script><script>hacked = 1</script> <img src=x onerror="hacked = 1"> \'quoted\' "twice" & on'
RED, BLUE = (0.9, 0.1, 0.1), (0.1, 0.2, 0.9)
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, drawing WebGL on the CPU."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is installed")
    drawing = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
    root = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with sync_api.sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=path, args=[*drawing, *root], timeout=PATIENCE)
        yield chromium
        chromium.close()


class Visit:
    """A page that is looked at, and what it asks for and complains of meanwhile."""

    def __init__(self, browser: Any, file: Path, *, hash: str = "", **context: Any) -> None:
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.context = browser.new_context(viewport={"width": 1200, "height": 800}, **context)
        self.context.set_offline(True)
        self.page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE)
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", lambda line: line.type == "error" and self.complaints.append(line.text))
        self.page.goto(file.as_uri() + hash)
        self.page.wait_for_selector("body[data-ready]")

    def prompts(self) -> list[str]:
        """Those that are shown, in order."""
        return self.page.locator("#list > li:not([hidden]) .prompt").all_text_contents()

    def search(self, words: str) -> list[str]:
        """Prompts that are left."""
        before = self.page.locator("#count").text_content()
        self.page.fill("#search", words)
        self.page.wait_for_function("before => byId('count').value !== before", arg=before)
        return self.prompts()

    def open(self, prompt: str) -> Any:
        """Click on a prompt; the part of the page that shows its object, once it is drawn."""
        self.page.locator(".card").filter(has=self.page.locator(f".prompt:text-is({prompt!r})")).click()
        self.page.wait_for_selector("#panels .view[data-ready]")
        return self.page.locator("#panels .view").first

    def close(self) -> None:
        """Nothing came from elsewhere, and nothing went wrong."""
        self.context.close()
        assert [url for url in self.requests if not url.startswith(("file:", "blob:", "data:"))] == []
        assert self.complaints == []


@pytest.fixture
def visit(browser) -> Iterator[Callable[..., Visit]]:
    """Opens pages."""
    visits: list[Visit] = []

    def opened(file: Path, **more: Any) -> Visit:
        visits.append(Visit(browser, file, **more))
        return visits[-1]

    yield opened
    for one in visits:
        one.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    """Four prompts of a run."""
    prompts = {"a red duck": ("train",), "a blue robot": ("train",), "a tree": ("test",), HOSTILE: ("test",)}
    scores = {"a red duck": 0.25, "a blue robot": 0.75, "a tree": 0.5}
    folder = tmp_path_factory.mktemp("one") / "run <b>"
    return write_gallery(options(write_rendered_run(folder, prompts, color=RED, scores=scores, size=64)))


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> Path:
    """Two runs."""
    folder = tmp_path_factory.mktemp("two")
    first = write_rendered_run(folder / "a", {"a cat": ("train",), "a dog": ("test",)}, color=RED, config={"lr": 1})
    other = write_rendered_run(folder / "b", {"a cat": ("train",)}, color=BLUE, config={"lr": "<i>2</i>"})
    return write_gallery(options([first, other]))


def pixels(part: Any) -> np.ndarray:
    """What a part of the page looks like: [H, W, 3]."""
    return np.asarray(Image.open(io.BytesIO(part.screenshot())).convert("RGB")).astype(int)


def share_of(picture: np.ndarray, color: tuple[float, float, float]) -> float:
    """Of the pixels that have a colour, to four steps of 255."""
    return float((np.abs(picture - 255 * np.asarray(color)).max(-1) <= 4).mean())


def test_search_and_filter(page, visit):
    seen = visit(page)
    everything = seen.prompts()
    assert sorted(everything) == sorted(["a red duck", "a blue robot", "a tree", HOSTILE])
    assert seen.search("RED du") == ["a red duck"]
    assert seen.page.locator("#count").text_content() == "1 of 4"
    assert seen.search("no such thing") == []
    seen.page.click("#reset")
    assert seen.prompts() == everything
    seen.page.locator("#filter label", has_text="Unseen").click()
    assert sorted(seen.prompts()) == sorted(["a tree", HOSTILE])
    seen.page.keyboard.press("ArrowLeft")
    assert sorted(seen.prompts()) == ["a blue robot", "a red duck"]


def test_order_and_address(page, visit):
    seen = visit(page)
    seen.page.select_option("#order", "high")
    assert seen.prompts() == ["a blue robot", "a tree", "a red duck", HOSTILE]
    seen.page.select_option("#order", "low")
    assert seen.prompts() == ["a red duck", "a tree", "a blue robot", HOSTILE]
    seen.search("du")
    address = seen.page.evaluate("location.hash")
    again = visit(page, hash=address)
    assert again.prompts() == seen.prompts() == ["a red duck"]
    assert again.page.locator("#order").input_value() == "low"


def test_the_viewer_draws_and_turns(page, visit):
    seen = visit(page, reduced_motion="reduce")  # it rests until it is turned
    assert not any("model-viewer" in url or url.endswith("-viewer.js") for url in seen.requests)
    view = seen.open("a red duck")
    assert seen.page.locator("#panels model-viewer").count() == 1
    resting = pixels(view)
    assert share_of(resting, RED) > 0.2  # the cube, in the very colour of the render
    assert share_of(resting, RED) < 0.8
    assert np.array_equal(resting, pixels(view))
    box = view.bounding_box()
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    seen.page.mouse.move(*middle)
    seen.page.mouse.down()
    seen.page.mouse.move(middle[0] + 90, middle[1] + 30, steps=6)
    seen.page.mouse.up()
    turned = seen.page.wait_for_function(
        "() => Math.abs(document.querySelector('model-viewer').getCameraOrbit().theta) > 0.3"
    )
    assert turned
    end = time.monotonic() + PATIENCE / 1000  # until that is drawn as well
    while share_of(np.abs(pixels(view) - resting), (0, 0, 0)) >= 0.99:
        assert time.monotonic() < end, "it has turned, and looks the same"
    # The scores of this prompt, and its file.
    assert seen.page.locator("#panels .figures td").all_text_contents() == ["0.250"]
    with seen.page.expect_download() as download:
        seen.page.click("#panels .tools a")
    file = Path(download.value.path())
    name = name_of("a red duck")
    assert download.value.suggested_filename == f"{name}.glb"
    assert file.read_bytes() == (page.parents[1] / "render" / "meshes" / f"{name}.glb").read_bytes()


def test_one_viewer_at_a_time_with_keys(page, visit):
    seen = visit(page, reduced_motion="reduce")  # objects that turn meanwhile keep a busy machine from its keys
    order = seen.prompts()
    seen.open(order[0])
    seen.page.locator("#next").focus()
    for prompt in (order[1], order[2]):
        seen.page.keyboard.press("ArrowRight")
        seen.page.wait_for_function("text => byId('stage-title').textContent === text", arg=prompt)
        seen.page.wait_for_selector("#panels .view[data-ready]")
        assert seen.page.locator("model-viewer").count() == 1
    seen.page.keyboard.press("Escape")
    # The page hears that the dialog is closed some time after it is.
    seen.page.wait_for_function("() => !document.querySelector('#stage[open], model-viewer, #stage video')")
    seen.page.wait_for_function(
        "text => document.activeElement.querySelector('.prompt')?.textContent === text", arg=order[2]
    )


def test_thumbnails_play_under_the_mouse_alone(page, visit):
    seen = visit(page)
    assert seen.page.locator("video").count() == 0
    assert not any(url.endswith((".mp4", ".js")) and "/media/" in url for url in seen.requests)
    seen.page.locator(".card").nth(1).hover()
    seen.page.wait_for_selector(".card video")
    seen.page.wait_for_function("() => document.querySelector('.card video').currentTime > 0")
    assert seen.page.locator("video").count() == 1
    assert seen.page.locator(".card").nth(1).locator("video").count() == 1
    seen.page.locator("h1").hover()
    seen.page.wait_for_function("() => !document.querySelector('video')")


def test_prompts_are_text(page, visit):
    seen = visit(page)
    seen.page.locator(".card").filter(has_text="hacked").click()
    seen.page.wait_for_selector("#panels .view[data-ready]")
    assert seen.page.locator("#stage-title").text_content() == HOSTILE
    assert seen.page.locator(".card").filter(has_text="hacked").locator(".prompt").text_content() == HOSTILE
    assert seen.page.locator("#title").text_content().endswith("run <b>")
    assert seen.page.evaluate("typeof hacked") == "undefined"
    assert seen.page.locator(".card img[src=x], #title b").count() == 0


def test_two_runs_side_by_side(pair, visit):
    seen = visit(pair, reduced_motion="reduce")
    assert seen.page.locator("#heads span").all_text_contents() == ["a", "b"]
    assert seen.page.locator(".card").first.locator(".picture img").count() == 2
    assert seen.page.locator(".card").last.locator(".nothing").text_content() == "not made"
    seen.page.locator(".card").first.click()
    seen.page.wait_for_function("() => document.querySelectorAll('#panels .view[data-ready]').length === 2")
    views = [seen.page.locator("#panels .view").nth(i) for i in (0, 1)]
    for view, color in zip(views, (RED, BLUE), strict=True):
        assert share_of(pixels(view), color) > 0.2
    # They turn together.
    seen.page.keyboard.press("Tab")  # from the button that closes, into the first viewer
    for _ in range(4):
        seen.page.keyboard.press("ArrowLeft")
    seen.page.wait_for_function(
        """() => { const [a, b] = [...document.querySelectorAll('model-viewer')].map((one) => one.getCameraOrbit());
        return Math.abs(a.theta) > 0.2 && Math.abs(a.theta - b.theta) < 1e-3; }"""
    )
    seen.page.keyboard.press("Escape")
    seen.page.click("#show-settings")
    rows = seen.page.locator("#settings-content tbody tr:not([hidden])")
    assert rows.all_inner_texts() == ["name\ta\tb", "lr\t1\t<i>2</i>"]
    assert rows.locator("i").count() == 0
    seen.page.uncheck("#differs")
    assert rows.count() == 5  # generator._target_, generator.widths, seed


@pytest.mark.parametrize("width", [360, 1200])
def test_nothing_is_wider_than_the_page(page, pair, visit, width):
    for file in (page, pair):
        seen = visit(file, color_scheme="dark")
        seen.page.set_viewport_size({"width": width, "height": 700})
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= width
        seen.page.locator(".card").first.click()
        seen.page.wait_for_selector("#panels .view[data-ready]")
        assert seen.page.evaluate("byId('stage').scrollWidth <= byId('stage').clientWidth")


def test_415_prompts(tmp_path, visit, monkeypatch):
    # An encoder would have to start once for each.
    monkeypatch.setattr(media, "first_frame", lambda path: torch.full((64, 64, 3), 99, dtype=torch.uint8))
    prompts = {f"a toy number {i} on a shelf": ("train",) if i % 5 else ("test",) for i in range(415)}
    seen = visit(write_gallery(options(write_rendered_run(tmp_path / "run", prompts))))
    assert len(seen.prompts()) == 415
    posters = [url for url in seen.requests if url.endswith(".webp")]
    assert 0 < len(posters) < 150  # those in sight and a little more
    assert not [url for url in seen.requests if "/media/" in url and not url.endswith(".webp")]
    assert not [url for url in seen.requests if "model-viewer" in url]
    assert seen.page.evaluate("document.querySelectorAll('*').length") < 415 * 12
    assert len(seen.search("number 41")) == 9  # 41, 141, 241, 341 and 410 to 414
    seen.search("")
    seen.page.locator(".card").last.scroll_into_view_if_needed()
    seen.page.wait_for_function("() => [...document.querySelectorAll('.card img')].at(-1).naturalWidth === 64")
