"""The page: a prompt, the object that turns, its files.

Everything that someone typed is shown as text, never as markup; scripts and fonts come from this server. Its look is in
:mod:`scaledreamer.serve.look`.
"""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from nicegui import ui

from scaledreamer.errors import UserError
from scaledreamer.serve import look
from scaledreamer.serve.book import Example
from scaledreamer.serve.desk import VARIATIONS, Desk
from scaledreamer.serve.line import Full, Job
from scaledreamer.serve.shelf import Made
from scaledreamer.serve.workshop import STAGES

if TYPE_CHECKING:
    from fastapi import FastAPI

EARLIER = 12
"""Objects that a page offers to show again."""


def mount(app: "FastAPI", desk: Desk) -> None:
    """Put the page at ``/``."""

    @ui.page("/", title="scaledreamer")
    def page() -> None:
        Page(desk)

    ui.run_with(app, show_welcome_message=False, favicon=look.ICON, reconnect_timeout=30.0)


class Page:
    """One open page, in the browser of one person.

    Args:
        desk: takes the prompts.
    """

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.job: Job | None = None
        self._shown: set[str] = set()
        self._earlier: dict[str, Made] = {}
        ui.add_css(look.STYLE)
        ui.colors(primary=look.ACCENT)
        ui.context.client.on_delete(self._cancel)
        with ui.column().classes("w-full max-w-6xl mx-auto px-4 py-6 gap-5"):
            self._header()
            self._form()
            with ui.element("div").classes("w-full grid grid-cols-1 lg:grid-cols-5 gap-5"):
                self._viewer()
                self._facts()
        self._timer = ui.timer(0.15, self._refresh, active=False)

    # -- what there is -----------------------------------------------------------------------------------------

    def _header(self) -> None:
        about = self.desk.workshop.describe()
        with ui.row().classes("w-full items-baseline gap-3"):
            ui.label("scaledreamer").classes("text-2xl font-semibold tracking-tight")
            ui.label(f"{about['name']} · {about['generator']} · step {about['step']:,} · {about['device']}").classes(
                "text-sm text-slate-500"
            )

    def _form(self) -> None:
        book = self.desk.book
        with ui.column().classes("card w-full p-5 gap-3"):
            with ui.row().classes("w-full items-center gap-3 no-wrap"):
                self.prompt = (
                    ui.input(placeholder="What do you want to see?")
                    .props(f"outlined dense clearable maxlength={book.longest} aria-label=Prompt")
                    .classes("grow text-base")
                    .on("keydown.enter", self.make)
                )
                self.variation = ui.number("Variation", value=0, min=0, max=VARIATIONS - 1, precision=0)
                self.variation.props("outlined dense").classes("w-28")
                self.variation.set_visibility(bool(self.desk.workshop.trained.system.generator.latent_dim))
                self.button = ui.button("Make", on_click=self.make).props("unelevated no-caps").classes("px-6")
            self.error = ui.label().classes("text-sm text-red-700").props("role=alert")
            self.error.set_visibility(False)
            if book.examples:
                with ui.row().classes("gap-2 items-center"):
                    for example in book.examples:
                        self._example(example)
                    if any(not example.seen for example in book.examples):
                        ui.label("★ not trained on").classes("text-xs text-slate-500")
            self.words = ui.expansion("What it knows").props("dense").classes("words w-full")
            self.words.set_visibility(book.sentence is not None)
            with self.words, ui.column().classes("gap-0"):
                ui.label(f"Toys alone: {book.sentence}.")
                for role, words in book.words.items():
                    ui.label(f"{role.upper()}: {', '.join(words)}").classes("text-xs text-slate-500")

    def _example(self, example: Example) -> None:
        text = example.prompt if example.seen else f"{example.prompt} ★"
        _chip(text, "grey-8" if example.seen else "primary", lambda: self._ask(example.prompt))

    def _viewer(self) -> None:
        cameras = self.desk.workshop.trained.system.cameras
        height = cameras.test_distance * math.sin(math.radians(cameras.test_elevation))
        away = cameras.test_distance * math.cos(math.radians(cameras.test_elevation))
        with ui.element("div").classes("card stage lg:col-span-3 w-full overflow-hidden relative"):
            self.scene = ui.scene(
                grid=False,
                camera=ui.scene.perspective_camera(fov=cameras.test_fovy),
                background_color=look.STAGE,
                fps=40,
                click_events=[],
            ).classes("w-full h-full")
            self.scene.move_camera(x=0, y=-away, z=height, look_at_x=0, look_at_y=0, look_at_z=0, duration=0)
            self.scene.on("init", self._turn)
            self.hint = ui.label("Type a prompt, or choose one.").classes("hint")
            with ui.row().classes("progress items-center gap-2 no-wrap") as self.progress:
                ui.spinner(size="sm")
                self.stage = ui.label().classes("text-sm text-slate-700")
            self.progress.set_visibility(False)

    def _facts(self) -> None:
        with ui.column().classes("lg:col-span-2 w-full gap-4"):
            with ui.column().classes("card w-full p-4 gap-3") as self.facts:
                with ui.column().classes("w-full gap-0"):
                    self.title = ui.label().classes("text-base font-medium break-words w-full")
                    self.origin = ui.label().classes("text-xs text-slate-500")
                self.video = ui.video("", controls=False, autoplay=True, muted=True, loop=True)
                self.video.props("playsinline").classes("w-full rounded-lg")
                with ui.row().classes("w-full gap-x-5 gap-y-1"):
                    self.times = {stage: self._time(stage) for stage in STAGES}
                with ui.row().classes("gap-2 items-center"):
                    self.glb, self.mp4 = self._download("Download GLB"), self._download("Video")
                    self.size = ui.label().classes("text-xs text-slate-500")
            self.facts.set_visibility(False)
            with ui.column().classes("card w-full p-4 gap-2") as self.history:
                ui.label("Earlier").classes("text-xs text-slate-500")
                self.earlier = ui.row().classes("gap-2")
            self.history.set_visibility(False)

    def _time(self, stage: str) -> ui.label:
        with ui.column().classes("gap-0"):
            ui.label(stage).classes("text-xs text-slate-500")
            return ui.label("...").classes("time")

    def _download(self, text: str) -> ui.link:
        link = ui.link(text, "").classes("download").props("download")
        link.set_visibility(False)
        return link

    # -- what happens ------------------------------------------------------------------------------------------

    def make(self) -> None:
        """Hand in what the fields say."""
        self._ask(self.prompt.value, self.variation.value)

    def _ask(self, text: str | None, variation: float | None = 0) -> None:
        self.prompt.value, self.variation.value = text or "", variation or 0
        try:
            made = self.desk.read(text or "", variation or 0)
        except UserError as error:  # what was asked for before goes on
            self._say(str(error))
            self.words.open()
            return
        self._cancel()
        try:
            self.job = self.desk.add(made)
        except Full as error:
            self._say(str(error))
            return
        self._say(None)
        self._shown.clear()
        self.title.text = made.title
        self.origin.text = {True: "trained on", False: "★ not trained on", None: ""}[made.seen]
        self.scene.clear()
        self.facts.set_visibility(True)
        for part in (self.video, self.glb, self.mp4, self.hint):
            part.set_visibility(False)
        self._timer.activate()
        self._refresh()

    def _cancel(self) -> None:
        if self.job is not None and not self.job.over.is_set():
            self.desk.line.cancel(self.job)
        self.job = None
        self.progress.set_visibility(False)

    def _say(self, mistake: str | None) -> None:
        self.error.text = mistake or ""
        self.error.set_visibility(mistake is not None)

    def _refresh(self) -> None:
        """Show what there is of the job by now."""
        job = self.job
        if job is None:
            self._timer.deactivate()
            return
        over, made = job.over.is_set(), job.made
        mesh, video = made.address("mesh"), made.address("video")
        if mesh is not None and "mesh" not in self._shown:
            self._show_mesh(mesh)
        if video is not None and "video" not in self._shown:
            self._shown.add("video")
            self.video.set_source(video)
            self.video.set_visibility(True)
            _offer(self.mp4, video)
        for stage, label in self.times.items():
            label.text = f"{made.seconds[stage]:.2f} s" if stage in made.seconds else "..."
        self.size.text = f"{made.triangles:,} triangles" if mesh is not None else ""
        self.progress.set_visibility(not over)
        self.stage.text = self._words(job)
        if over:
            self._timer.deactivate()
            if job.error is not None:
                self._say(job.error)
            elif made.whole:
                if mesh is None:
                    self._say("There is no surface here to make a mesh of: the object is empty.")
                self._remember(made)

    def _show_mesh(self, address: str) -> None:
        self._shown.add("mesh")
        _offer(self.glb, address)
        self.scene.clear()
        with self.scene:
            self.scene.gltf(address).rotate(math.pi / 2, 0, 0)  # glTF is +y up, the scene +z

    def _turn(self) -> None:
        """Let the camera go round until someone takes hold of it."""
        ui.run_javascript(
            f"const s = getElement({self.scene.id}); s.controls.autoRotate = true; s.controls.autoRotateSpeed = -3;"
            "s.controls.enablePan = false;"
            "s.controls.addEventListener('start', () => { s.controls.autoRotate = false; });"
        )

    def _words(self, job: Job) -> str:
        ahead = self.desk.line.ahead(job)
        if ahead:
            return f"{ahead} before you"
        return look.DOING.get(job.stage, job.stage)

    def _remember(self, made: Made) -> None:
        self._earlier.pop(made.name, None)
        self._earlier[made.name] = made
        for name in list(self._earlier)[:-EARLIER]:
            del self._earlier[name]
        self.history.set_visibility(True)
        self.earlier.clear()
        with self.earlier:
            for one in reversed(self._earlier.values()):
                _chip(one.title, "grey-8", lambda one=one: self._ask(one.prompt, one.variation))


def _chip(text: str, color: str, chosen: Callable[[], None]) -> None:
    ui.chip(text, on_click=chosen, color=color).props("outline square dense").classes("example")


def _offer(link: ui.link, address: str) -> None:
    link.props["href"] = address
    link.update()
    link.set_visibility(True)
