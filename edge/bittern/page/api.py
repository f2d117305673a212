"""The HTTP interface: classify pictures; the models; and what the page keeps. Described by `static/openapi.json`."""

from __future__ import annotations

import asyncio
import io
import json
import re
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.routing import Route

from bittern.page.history import KeptPicture, PictureHistory
from bittern.page.uploads import Bodies, small_body
from bittern.page.workers import RequestFailed, WorkerPool
from bittern.version import __version__

_MAX_LABEL = 100
_MAX_JSON_BYTES = 64 * 1024


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
        keep = _flag(request, "keep")
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
        most = number(request, "most", 50, 1, 500)
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
        side = number(request, "side", 640, 16, 2048)
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
        task, label = given.get("task"), given.get("label")
        if not isinstance(task, str) or task not in {row["task"] for row in picture.answers}:
            raise HTTPException(400, "task: expected one of the picture's answers")
        if label is not None and not is_label(label):
            raise HTTPException(400, f"label: expected a text of 1 to {_MAX_LABEL} characters, or null")
        answers = {row["model"]: row["label"] for row in picture.answers if row["task"] == task}
        columns = {"source": "page", "name": picture.name, "answer": "; ".join(f"{m}: {a}" for m, a in answers.items())}
        ask = {
            "do": "correct",
            "folder": str(self._sets / folder_name(task)),
            "file": str(self._history.file(picture)),
            "name": f"{picture.id}{_suffix(self._history.file(picture))}",
            "label": label,
            "columns": columns,
        }
        async with self._changing:
            await self._answered(ask | {"keep": task not in self._begun})
            self._begun.add(task)
            await run_in_threadpool(self._history.correct, picture, task, label)
        return as_json({"corrected": picture.corrected})

    async def export(self, request: Request) -> Response:
        """GET /api/export.zip: a folder for each label of a `task`: given by a person, else (`all`) answered."""
        task = request.query_params.get("task", "")
        if not task:
            raise HTTPException(400, "task: say of which task the labels are")
        chosen = []
        for picture in self._history.all():
            label = picture.corrected.get(task)
            if label is None and _flag(request, "all"):
                label = next((row["label"] for row in picture.answers if row["task"] == task), None)
            if label is not None:
                chosen.append((label, picture))
        if not chosen:
            raise HTTPException(404, "nothing to export: no picture has a label of this task")
        file = self._history.folder / "export.zip.part"
        async with self._changing:
            await run_in_threadpool(_pack, file, [(label, p, self._history.file(p)) for label, p in chosen])
            opened = file.open("rb")
            file.unlink()
        name = f"attachment; filename*=utf-8''{quote(folder_name(task))}.zip"
        return StreamingResponse(_parts(opened), media_type="application/zip", headers={"content-disposition": name})

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
            raise HTTPException(404, "no such model here")
        return str(name)

    async def _ask(self, request: Request, ask: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        return await self._answered(ask | {"file": str(self._history.file(self._kept(request)))})

    async def _answered(self, ask: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        try:
            return await self._pool.ask(ask)
        except RequestFailed as error:
            raise HTTPException(error.status, str(error)) from None


# A picture of the history, and what is computed from it, never changes under its id.
_CACHED = {"cache-control": "private, max-age=86400, immutable"}


def _parts(file: io.BufferedReader) -> Iterator[bytes]:
    with file:
        while part := file.read(1 << 18):
            yield part


def _pack(file: Path, pictures: list[tuple[str, KeptPicture, Path]]) -> None:
    """A zip with a folder for each label; pictures are compressed already."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for label, picture, source in pictures:
            archive.write(source, f"{folder_name(label)}/{picture.id}{_suffix(source)}")


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


def folder_name(text: str) -> str:
    """A label or task as the name of a folder: what a file system or an unzip program might trip over becomes "_"."""
    name = re.sub(r'[\x00-\x1f\x7f<>:"/\\|?*]', "_", text).strip(" .")
    return name or "_"


def is_label(value: object) -> bool:
    """Whether something can be a label: a text on one line that is not too long and has something to see in it."""
    return isinstance(value, str) and 0 < len(value) <= _MAX_LABEL and value.isprintable() and value.strip() == value


async def read_json(request: Request) -> dict[str, Any]:
    """The JSON object of a small body.

    Raises:
        HTTPException: 400 where there is none, and see `small_body`.
    """
    body = await small_body(request, _MAX_JSON_BYTES)
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise HTTPException(400, "expected a JSON object") from None


def _labels(picture: KeptPicture) -> dict[str, str]:
    return {f"{row['model']}\n{row['task']}": row["label"] for row in picture.answers} | picture.corrected


def _matches(picture: KeptPicture, text: str) -> bool:
    """Whether a text is in the name, or in a label."""
    text = text.casefold()
    return any(text in value.casefold() for value in (picture.name, *_labels(picture).values()))


def _flag(request: Request, name: str) -> bool:
    value = request.query_params.get(name, "0")
    if value not in ("0", "1"):
        raise HTTPException(400, f"{name}: expected 0 or 1, got {value!r}")
    return value == "1"


def number(request: Request, name: str, default: int, least: int, most: int) -> int:
    """A parameter of the address that is a whole number.

    Raises:
        HTTPException: 400 where it is something else, or out of its range.
    """
    text = request.query_params.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 10 and least <= int(text) <= most):
        raise HTTPException(400, f"{name}: expected a number from {least} to {most}, got {text!r}")
    return int(text)


def as_json(value: Any, status: int = 200) -> Response:
    """A value as the answer."""
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def _header(message: dict[str, Any]) -> str:
    """JSON in a header, which takes only ASCII."""
    return json.dumps(message)
