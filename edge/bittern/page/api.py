"""The HTTP interface: classify pictures; the models; and what the page keeps. Described by `static/openapi.json`."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from bittern.errors import BitternError
from bittern.page import corrections
from bittern.page.history import KeptPicture, PictureHistory
from bittern.page.http import as_json, as_zip, flag, folder_name, label_of, read_json, whole_number
from bittern.page.messages import RequestFailed
from bittern.page.uploads import Bodies
from bittern.page.workers import WorkerPool
from bittern.version import __version__


class Interface:
    """The routes, and what they share.

    Args:
        pool: the workers.
        data: a folder: `history` and `sets/TASK` are in it.
    """

    def __init__(self, pool: WorkerPool, data: Path) -> None:
        self._pool = pool
        self._sets = data / "sets"
        self._history = PictureHistory(data / "history")
        self._bodies = Bodies()
        self._begin = time.monotonic()
        self._changing = asyncio.Lock()  # one change of history or index at a time, in a thread: the disk may be slow
        self._begun: set[str] = set()

    def routes(self) -> list[Route]:
        """What the application answers."""
        return [
            Route("/api/classify", self.classify, methods=["POST"]),
            Route("/api/models", self.models),
            Route("/api/health", self.health),
            Route("/api/history", self.history),
            Route("/api/history/{id}", self.forget, methods=["DELETE"]),
            Route("/api/history/{id}/preview.jpg", self.preview),
            Route("/api/history/{id}/square.png", self.square),
            Route("/api/history/{id}/heat.png", self.heat),
            Route("/api/history/{id}/label", self.label, methods=["POST"]),
            Route("/api/export.zip", self.export),
            Route("/api/openapi.json", self.openapi),
        ]

    async def classify(self, request: Request) -> Response:
        """POST /api/classify: one object per picture and head, or an error per picture."""
        if unknown := sorted({*request.query_params} - {"keep", "name"}):
            raise HTTPException(400, f"unknown parameter {unknown[0]}: expected keep or name; every model answers")
        keep = flag(request, "keep")
        rows: list[dict[str, Any]] = []
        worst = 0
        async with self._bodies.files(request) as uploads:
            for upload in uploads:
                try:
                    answer, _ = await self._pool.ask({"do": "classify", "name": upload.name}, upload.data)
                except RequestFailed as error:
                    rows.append({"path": upload.name, "error": str(error)})
                    worst = max(worst, error.status)
                    continue
                picture = None
                if keep:
                    picture = await self._keep(upload.name, upload.data, answer)
                rows += [row | ({"id": picture.id} if picture else {}) for row in answer["rows"]]
        failed = all("error" in row for row in rows)
        return as_json(rows, worst if failed else 200)

    async def _keep(self, name: str, data: bytes, answer: dict[str, Any]) -> KeptPicture:
        try:
            async with self._changing:
                return await run_in_threadpool(
                    self._history.add, name, data, answer["width"], answer["height"], answer["rows"]
                )
        except OSError as error:
            raise HTTPException(507, f"the picture cannot be kept: {error.strerror}") from None

    async def models(self, _request: Request) -> Response:
        """GET /api/models: as `bittern models --json`, without folders; and each model's default thresholds."""
        return as_json(self._pool.models)

    async def health(self, _request: Request) -> Response:
        """GET /api/health."""
        models = [model["name"] for model in self._pool.models]
        uptime_s = round(time.monotonic() - self._begin, 1)
        return as_json({"status": "ok", "version": __version__, "models": models, "uptime_s": uptime_s})

    async def history(self, request: Request) -> Response:
        """GET /api/history: newest first, filtered by `q`, `label`, `state`, and before the id `before`."""
        query = request.query_params
        most = whole_number(request, "most", 50, 1, 500)
        matching = [picture for picture in self._history.all() if _matches(picture, query.get("q", ""))]
        if label := query.get("label"):
            matching = [picture for picture in matching if label in _labels(picture).values()]
        state = query.get("state", "")
        if state not in ("", "corrected", "alarm"):
            raise HTTPException(400, f"state: expected corrected or alarm, got {state!r}")
        if state == "corrected":
            matching = [picture for picture in matching if picture.corrected]
        elif state == "alarm":
            matching = [picture for picture in matching if any(row["alarm"] for row in picture.answers)]
        before = query.get("before")
        shown = [picture for picture in matching if not before or picture.id < before]
        rows = [msgspec.to_builtins(picture) for picture in shown[:most]]
        return as_json({"n": len(matching), "more": len(shown) > most, "pictures": rows})

    async def forget(self, request: Request) -> Response:
        """DELETE /api/history/ID."""
        async with self._changing:
            await run_in_threadpool(self._history.remove, self._kept(request).id)
        return Response(status_code=204)

    async def preview(self, request: Request) -> Response:
        """GET /api/history/ID/preview.jpg: at most `side` pixels."""
        side = whole_number(request, "side", 640, 16, 2048)
        _, data = await self._ask(request, {"do": "preview", "side": side})
        return Response(data, media_type="image/jpeg", headers=_CACHED)

    async def square(self, request: Request) -> Response:
        """GET /api/history/ID/square.png: what the network sees of a `view`; header X-Answer has the answers to it."""
        view = request.query_params.get("view", "center")
        if view not in ("center", "left", "right"):
            raise HTTPException(400, f"view: expected center, left or right, got {view!r}")
        message, data = await self._ask(request, {"do": "square", "view": view, "model": self._model(request)})
        return Response(data, media_type="image/png", headers=_CACHED | {"x-answer": _header(message)})

    async def heat(self, request: Request) -> Response:
        """GET /api/history/ID/heat.png: what the answer depends on; header X-Answer has the figures."""
        model = self._model(request)
        task = request.query_params.get("task", "")
        message, data = await self._ask(request, {"do": "heat", "model": model, "task": task})
        return Response(data, media_type="image/png", headers=_CACHED | {"x-answer": _header(message)})

    async def label(self, request: Request) -> Response:
        """POST /api/history/ID/label {"task": ..., "label": ... or null}: into the set of the task, or out of it."""
        picture = self._kept(request)
        given = await read_json(request)
        task = given.get("task")
        if not isinstance(task, str) or task not in {row["task"] for row in picture.answers}:
            raise HTTPException(400, "task: expected one of the picture's answers")
        label = label_of(given)
        answers = {row["model"]: row["label"] for row in picture.answers if row["task"] == task}
        columns = {"source": "page", "name": picture.name, "answer": "; ".join(f"{m}: {a}" for m, a in answers.items())}
        try:
            async with self._changing:
                await run_in_threadpool(self._correct, picture, task, label, columns)
        except FileNotFoundError:
            raise HTTPException(404, "the file of this picture is gone") from None
        except BitternError as error:
            raise HTTPException(409, str(error)) from None
        except OSError as error:
            raise HTTPException(507, f"the label cannot be kept: {error.strerror}") from None
        return as_json({"corrected": picture.corrected})

    def _correct(self, picture: KeptPicture, task: str, label: str | None, columns: dict[str, str]) -> None:
        folder, file = self._sets / folder_name(task), self._history.file(picture)
        name, keep = f"{picture.id}{_suffix(file)}", task not in self._begun
        if label is None:
            corrections.remove(folder, [name], keep=keep)
        elif corrections.add(folder, {name: file}, label, columns, keep=keep):
            raise FileNotFoundError(file)
        self._begun.add(task)
        self._history.correct(picture, task, label)

    async def export(self, request: Request) -> Response:
        """GET /api/export.zip: a folder for each label of a `task`: given by a person, else (`all`) answered."""
        task = request.query_params.get("task", "")
        if not task:
            raise HTTPException(400, "task: expected the name of a task")
        chosen = []
        for picture in self._history.all():
            label = picture.corrected.get(task)
            if label is None and flag(request, "all"):
                label = next((row["label"] for row in picture.answers if row["task"] == task), None)
            if label is not None:
                chosen.append((label, picture.id, self._history.file(picture)))
        if not chosen:
            raise HTTPException(404, "nothing to export: no picture has a label of this task")
        async with self._changing:  # no picture is forgotten meanwhile
            pictures = ((label, f"{identity}{_suffix(file)}", file) for label, identity, file in chosen)
            return await as_zip(task, pictures, self._history.folder)

    async def openapi(self, _request: Request) -> Response:
        """GET /api/openapi.json."""
        return FileResponse(Path(__file__).parent / "static" / "openapi.json", media_type="application/json")

    # --- what they share ---

    def _kept(self, request: Request) -> KeptPicture:
        picture = self._history.get(request.path_params["id"])
        if picture is None:
            raise HTTPException(404, "no such picture")
        return picture

    def _model(self, request: Request) -> str:
        names = [model["name"] for model in self._pool.models]
        name = request.query_params.get("model", names[0])
        if name not in names:
            raise HTTPException(404, "no such model: expected one of /api/models")
        return str(name)

    async def _ask(self, request: Request, ask: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        try:
            return await self._pool.ask(ask | {"file": str(self._history.file(self._kept(request)))})
        except RequestFailed as error:
            raise HTTPException(error.status, str(error)) from None


# A picture of the history, and what is computed from it, never changes under its id.
_CACHED = {"cache-control": "private, max-age=86400, immutable"}


_SUFFIXES = {
    b"\xff\xd8\xff": ".jpg",
    b"\x89PNG": ".png",
    b"RIFF": ".webp",
    b"BM": ".bmp",
    b"GIF8": ".gif",
    b"II": ".tif",
    b"MM": ".tif",
}


def _suffix(file: Path) -> str:
    """The suffix of a picture by its first bytes; the name that it came with may say anything."""
    with file.open("rb") as opened:
        head = opened.read(16)
    if head[4:8] == b"ftyp":
        return ".avif" if b"avi" in head[8:16] else ".heic"
    if head[:1] == b"P" and head[1:2].isdigit():
        return ".ppm"
    return next((suffix for start, suffix in _SUFFIXES.items() if head.startswith(start)), ".picture")


def _labels(picture: KeptPicture) -> dict[str, str]:
    return {f"{row['model']}\n{row['task']}": row["label"] for row in picture.answers} | picture.corrected


def _matches(picture: KeptPicture, text: str) -> bool:
    """Whether a text is in the name, or in a label."""
    text = text.casefold()
    return any(text in value.casefold() for value in (picture.name, *_labels(picture).values()))


def _header(message: dict[str, Any]) -> str:
    """JSON in a header, which takes only ASCII."""
    return json.dumps(message)
