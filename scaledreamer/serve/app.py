"""The web application: files, the interface for programs, and the page at ``/``.

=====================  =========================================================================================
``GET /``              the page
``GET /api``           what is served: name, step, example prompts, words that are understood
``POST /api/make``     JSON ``{"prompt": TEXT, "variation": 0}`` -> what was made, when it is whole
``GET /files/NAME``    a GLB or a video that an answer has named, as long as it is kept
=====================  =========================================================================================

Answers that are none have ``{"error": LINE}``: 400 for a prompt that is not understood, 503 while too many wait.
"""

import asyncio
import json
from collections.abc import Iterable
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse, JSONResponse

from scaledreamer.errors import UserError
from scaledreamer.serve.desk import Desk
from scaledreamer.serve.guard import Guard
from scaledreamer.serve.line import Full, Job
from scaledreamer.serve.page import mount

MEDIA = {".glb": "model/gltf-binary", ".mp4": "video/mp4"}
LOOK = 0.05
"""Seconds between looks at a job."""


def application(desk: Desk, *, hosts: Iterable[str] | None) -> FastAPI:
    """The application around a desk.

    Args:
        desk: takes the prompts.
        hosts: names by which the server may be called; None for any.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)  # the pages that it would make load from elsewhere

    @app.get("/api")
    def about() -> dict[str, Any]:
        return described(desk)

    @app.post("/api/make")
    async def make(request: Request) -> Response:
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return _error(415, "Send JSON: content-type: application/json.")
        try:
            given = json.loads(await request.body())
        except (ValueError, RecursionError):
            given = None
        if not isinstance(given, dict) or not given.keys() <= {"prompt", "variation"} or "prompt" not in given:
            return _error(400, 'Send {"prompt": TEXT}, and "variation": NUMBER where it shall be another than 0.')
        try:
            job = desk.order(given["prompt"], given.get("variation", 0))
        except Full as error:
            return _error(503, str(error))
        except UserError as error:
            return _error(400, str(error), **({"words": desk.book.words} if desk.book.words else {}))
        await _over(job, desk, request)
        if job.error is not None or not job.made.whole:
            return _error(500, job.error or "It was cancelled.")
        return JSONResponse(job.made.as_dict())

    @app.get("/files/{name}")
    def file(name: str) -> Response:
        path = desk.shelf.file(name)
        if path is None or not path.is_file():
            return _error(404, "There is no such file, or it is not kept any more.")
        kind = "inline" if path.suffix == ".mp4" else "attachment"
        return FileResponse(path, media_type=MEDIA[path.suffix], filename=path.name, content_disposition_type=kind)

    mount(app, desk)
    app.add_middleware(Guard, hosts=hosts)
    return app


def described(desk: Desk) -> dict[str, Any]:
    """What is served, in words and numbers."""
    book = desk.book
    examples = [{"prompt": example.prompt, "seen": example.seen} for example in book.examples]
    return {**desk.workshop.describe(), "longest": book.longest, "examples": examples, "words": book.words}


async def _over(job: Job, desk: Desk, request: Request) -> None:
    """Wait for a job; one that nobody waits for any more is cancelled."""
    while not job.over.is_set():
        if await request.is_disconnected():
            desk.line.cancel(job)
            return
        await asyncio.sleep(LOOK)


def _error(status: int, line: str, **more: Any) -> JSONResponse:
    return JSONResponse({"error": line, **more}, status_code=status)
