"""The HTTP interface of a running daemon: live picture, events, scores, thresholds, review. See `static/live.json`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from bittern.errors import BitternError
from bittern.evaluation.dataset import Item
from bittern.events import uuid7_time_ms
from bittern.page.http import as_json, as_zip, flag, label_of, read_json, whole_number
from bittern.page.live_state import MOST_VIEWERS, Full, Known
from bittern.page.review import Review, ids_in, is_id
from bittern.version import __version__

# A viewer that takes nothing for so long is dropped, in seconds.
STALL_S = 5.0
# How long a snapshot waits for a frame, in seconds.
_FRAME_S = 5.0
# Without progress of the loop for so long it is not well, in seconds.
_STUCK_S = 30.0
_MOST_SECONDS = 86_400
# Snapshots that are waited for at a time, besides those who look.
_MOST_SNAPSHOTS = 8
_MOST_AT_ONCE = 100
_MARK = b"bittern-frame"
_BYTES = "application/octet-stream"


class LiveInterface:
    """The routes, and what they share.

    Args:
        name: what people call the camera.
        known: the daemon.
        review: the pictures.
        clips: the folder of the clips around alarms.
    """

    def __init__(self, name: str, known: Known, review: Review, clips: Path) -> None:
        self._name, self._known, self._review, self._clips = name, known, review, clips
        self._reviewing = asyncio.Lock()
        self._trying = asyncio.Lock()

    def routes(self) -> list[Route]:
        """What the application answers."""
        return [
            Route("/api/health", self.health),
            Route("/api/models", self.models),
            Route("/api/live.mjpg", self.live),
            Route("/api/snapshot.jpg", self.snapshot),
            Route("/api/events", self.events),
            Route("/api/clips", self.clips),
            Route("/api/clips/{id}.avi", self.clip),
            Route("/api/stream", self.stream),
            Route("/api/scores", self.scores),
            Route("/api/thresholds", self.thresholds),
            Route("/api/thresholds", self.set_threshold, methods=["POST"]),
            Route("/api/trial", self.trial),
            Route("/api/detection", self.set_detection, methods=["POST"]),
            Route("/api/review", self.review),
            Route("/api/review", self.label, methods=["POST"]),
            Route("/api/review/{id}.jpg", self.picture),
            Route("/api/export.zip", self.export),
            Route("/api/openapi.json", self.openapi),
        ]

    async def health(self, _request: Request) -> Response:
        """GET /api/health: the daemon's metrics; 503 if it does not answer, or makes no progress."""
        reading = await self._known.metrics()
        status = self._status(reading)
        body = {"status": status, "version": __version__, "name": self._name} | (reading or {})
        return as_json(body, 503 if status in ("no_answer", "stuck") else 200)

    def _status(self, reading: dict[str, Any] | None) -> str:
        if reading is None:
            return "no_answer"
        if reading["progress_age_s"] > _STUCK_S:
            return "stuck"
        camera = str(reading["camera"])
        if camera not in ("starting", "camera_ok"):
            return camera
        if reading["frame_age_s"] is None:
            return "starting"
        return "ok" if self._known.detection else "paused"

    async def models(self, _request: Request) -> Response:
        """GET /api/models: the heads of the models that run."""
        return as_json(self._known.heads)

    async def live(self, _request: Request) -> Response:
        """GET /api/live.mjpg: the live picture, for an <img>; 503 for the fifth viewer."""
        looking = contextlib.ExitStack()
        _enter(looking, self._known, MOST_VIEWERS)
        return _Stream(self._frames(looking), f"multipart/x-mixed-replace; boundary={_MARK.decode()}", looking)

    async def _frames(self, looking: contextlib.ExitStack) -> AsyncGenerator[bytes, None]:
        with looking:
            number = self._known.picture.number
            yield b"--" + _MARK + b"\r\n"
            while True:
                try:
                    async with asyncio.timeout(1.0):
                        number, jpeg = await self._known.picture.next(number)
                except TimeoutError:
                    yield b""
                    continue
                head = b"Content-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(jpeg)
                # With the mark after it, so that a browser shows it at once.
                yield head + jpeg + b"\r\n--" + _MARK + b"\r\n"

    async def snapshot(self, _request: Request) -> Response:
        """GET /api/snapshot.jpg: the next frame; 503 if none comes."""
        with contextlib.ExitStack() as looking:
            _enter(looking, self._known, MOST_VIEWERS + _MOST_SNAPSHOTS)
            try:
                async with asyncio.timeout(_FRAME_S):
                    _, jpeg = await self._known.picture.next(self._known.picture.number)
            except TimeoutError:
                raise HTTPException(503, "no frame came: see /api/health") from None
        return Response(jpeg, media_type="image/jpeg")

    async def events(self, _request: Request) -> Response:
        """GET /api/events: the newest events, oldest first, as `bittern watch` prints them."""
        return as_json(list(self._known.events))

    async def clips(self, _request: Request) -> Response:
        """GET /api/clips: the ids of the alarms of which there is a clip, oldest first."""
        return as_json(await run_in_threadpool(lambda: sorted(ids_in(self._clips, ".avi"))))

    async def clip(self, request: Request) -> Response:
        """GET /api/clips/ID.avi: the seconds around an alarm."""
        name = request.path_params["id"]
        if not is_id(name) or not (file := self._clips / f"{name}.avi").is_file():
            raise HTTPException(404, "no clip: it is written seconds after the alarm, and newer ones take its place")
        taken = datetime.fromtimestamp(uuid7_time_ms(name) / 1000, UTC)
        return FileResponse(file, media_type="video/x-msvideo", filename=f"{taken:%Y%m%dT%H%M%SZ}.avi")

    async def stream(self, request: Request) -> Response:
        """GET /api/stream: server-sent events; by another name for who asks for that.

        Home Assistant's ingress (of 2026.2, and others before) compresses whatever is text, and so holds events back.
        """
        kind = _BYTES if request.headers.get("accept") == _BYTES else "text/event-stream"
        messages = self._known.follow()
        try:
            first = await anext(messages)
        except Full:
            raise HTTPException(503, "too many pages are open: close one") from None

        async def all_of_them() -> AsyncGenerator[bytes, None]:
            async with contextlib.aclosing(messages):
                yield first
                async for message in messages:
                    yield message

        return _Stream(all_of_them(), kind)

    async def scores(self, request: Request) -> Response:
        """GET /api/scores: of the last `seconds`; the highest ones where there are too many."""
        seconds = whole_number(request, "seconds", 300, 1, _MOST_SECONDS)
        alarms = self._known.controls()["alarms"]
        rows = await run_in_threadpool(self._known.log.series, seconds)
        return as_json({"alarms": alarms, "rows": rows})

    async def thresholds(self, _request: Request) -> Response:
        """GET /api/thresholds: of every alarm, and whether frames are classified."""
        return as_json(self._known.controls())

    async def set_threshold(self, request: Request) -> Response:
        """POST /api/thresholds {"model", "task", "label", "threshold": a score, or null for the configuration's}."""
        given = await read_json(request)
        number = self._number(given)
        value = given.get("threshold")
        if value is not None and not _is_threshold(value):
            raise HTTPException(400, "threshold: expected a score above 0, at most 1, or null")
        key = self._known.alarms[number].key
        thresholds = {k: v for k, v in self._known.thresholds.items() if k != key}
        if value is not None:
            thresholds[key] = float(value)
        return await self._want(self._known.detection, thresholds)

    async def set_detection(self, request: Request) -> Response:
        """POST /api/detection {"on": true or false}: resume or pause."""
        on = (await read_json(request)).get("on")
        if not isinstance(on, bool):
            raise HTTPException(400, "on: expected true or false")
        return await self._want(on, self._known.thresholds)

    async def _want(self, detection: bool, thresholds: Any) -> Response:
        if not self._known.want(detection, thresholds):
            raise HTTPException(503, "the daemon does not answer: try again")
        self._known.detection, self._known.thresholds = detection, dict(thresholds)
        return as_json(self._known.controls())

    async def trial(self, request: Request) -> Response:
        """GET /api/trial: how many alarms a `threshold` would have raised in the scores that are known."""
        query = request.query_params
        number = self._number(query)
        try:
            threshold = float(query.get("threshold", ""))
        except ValueError:
            threshold = 0.0
        if not _is_threshold(threshold):
            raise HTTPException(400, "threshold: expected a score above 0, at most 1")
        async with self._trying:
            trial = await run_in_threadpool(self._known.log.trial, number, self._known.settings(number, threshold))
        return as_json(trial._asdict())

    def _number(self, given: Any) -> int:
        names = tuple(given.get(key) for key in ("model", "task", "label"))
        for number, alarm in enumerate(self._known.alarms):
            if tuple(alarm.key) == names:
                return number
        raise HTTPException(404, "no such alarm: expected model, task and label of one in /api/thresholds")

    async def review(self, request: Request) -> Response:
        """GET /api/review: alarms and doubtful frames, newest first; `most` after the id `before`."""
        query = request.query_params
        most = whole_number(request, "most", 20, 1, _MOST_AT_ONCE)
        kind = query.get("kind", "")
        if kind not in ("", "alarm", "unsure"):
            raise HTTPException(400, f"kind: expected alarm or unsure, got {kind!r}")
        todo = flag(request, "todo")
        async with self._reviewing:
            sets = await run_in_threadpool(self._review.sets, self._tasks())
            items = await run_in_threadpool(self._review.items, list(self._known.events), sets)
        items = [item for item in items if kind in ("", item.kind) and not (todo and item.labels)]
        before = query.get("before")
        after = [item for item in items if not before or item.id < before]
        rows = [msgspec.to_builtins(item) for item in after[:most]]
        return as_json({"n": len(items), "more": len(after) > most, "items": rows, "sets": _sizes(sets)})

    async def label(self, request: Request) -> Response:
        """POST /api/review {"ids": [...], "task", "label": a label or null}: into the task's set, or out of it."""
        given = await read_json(request)
        ids, task = given.get("ids"), given.get("task")
        if not (isinstance(ids, list) and 0 < len(ids) <= _MOST_AT_ONCE and all(isinstance(i, str) for i in ids)):
            raise HTTPException(400, f"ids: expected a list of 1 to {_MOST_AT_ONCE} ids")
        if task not in self._tasks():
            raise HTTPException(400, "task: expected one of /api/models")
        label = label_of(given)
        names = list(dict.fromkeys(ids))
        try:
            async with self._reviewing:
                gone = await run_in_threadpool(self._review.label, names, str(task), label, self._name)
                sets = await run_in_threadpool(self._review.sets, self._tasks())
        except BitternError as error:
            raise HTTPException(409, str(error)) from None
        except OSError as error:
            raise HTTPException(507, f"the label cannot be kept: {error.strerror}") from None
        return as_json({"labelled": len(names) - len(gone), "gone": gone, "sets": _sizes(sets)})

    async def picture(self, request: Request) -> Response:
        """GET /api/review/ID.jpg: the picture of an item, or of an event."""
        file = self._review.file(request.path_params["id"])
        if file is None:
            raise HTTPException(404, "this picture is gone: newer ones took its place")
        return FileResponse(file, media_type="image/jpeg", headers={"cache-control": "private, max-age=86400"})

    async def export(self, request: Request) -> Response:
        """GET /api/export.zip: the set of a `task`, a folder for each label."""
        task = request.query_params.get("task", "")
        sets = await run_in_threadpool(self._review.sets, self._tasks())
        if task not in sets:
            raise HTTPException(404, "nothing to export: no picture has a label of this task")
        pictures = [(item.label or "", item.path.name, item.path) for item in sets[task]]
        return await as_zip(task, pictures, self._review.folder_of(task))

    async def openapi(self, _request: Request) -> Response:
        """GET /api/openapi.json."""
        return FileResponse(Path(__file__).parent / "static" / "live.json", media_type="application/json")

    def _tasks(self) -> list[str]:
        return list(dict.fromkeys(head.task for head in self._known.heads))


class _Stream(Response):
    """An answer without an end, to one who takes it: a peer that takes nothing for a while is dropped."""

    def __init__(
        self, parts: AsyncGenerator[bytes, None], media_type: str, looking: contextlib.ExitStack | None = None
    ) -> None:
        self._parts, self._looking = parts, looking
        super().__init__(media_type=media_type, headers={"x-accel-buffering": "no"})
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gone = asyncio.create_task(_disconnected(receive))
        try:
            async with asyncio.timeout(STALL_S):
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            async with contextlib.aclosing(self._parts) as parts:
                async for part in parts:
                    if gone.done():
                        return
                    if part:
                        async with asyncio.timeout(STALL_S):
                            await send({"type": "http.response.body", "body": part, "more_body": True})
        except (TimeoutError, OSError):
            logging.getLogger("bittern").info("page: a viewer that takes nothing was dropped")
        finally:
            gone.cancel()
            if self._looking is not None:
                self._looking.close()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _enter(looking: contextlib.ExitStack, known: Known, most: int) -> None:
    try:
        looking.enter_context(known.picture.looking(most))
    except Full:
        raise HTTPException(
            503, f"{known.picture.viewers} look at the camera already: close another view", {"retry-after": "5"}
        ) from None


def _is_threshold(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 1


def _sizes(sets: Mapping[str, Sequence[Item]]) -> dict[str, int]:
    return {task: len(items) for task, items in sets.items()}
