"""What the page of `bittern data label` asks for: pictures, decisions, what the model thinks."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import secrets
from typing import Any, NamedTuple

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bittern.errors import BitternError
from bittern.page import likeness
from bittern.page.http import as_json, is_label, read_json, whole_number
from bittern.page.labelling import Decided, Labelling, PixelBox
from bittern.page.messages import RequestFailed
from bittern.page.workers import WorkerPool

# Of thumbnails and pictures that were made smaller.
_CACHE_BYTES = 64 * 2**20
# Decisions go into the index when none was made for this long.
_QUIET_S = 2.0


class Thumbnail(NamedTuple):
    """A small picture: width and height of the whole one in pixels, and the bytes of a JPEG file."""

    width: int
    height: int
    jpeg: bytes


class LabelInterface:
    """The routes, and what they share.

    Args:
        labelling: the session.
        pool: makes thumbnails.
        background: looks at all pictures, one after the other; has the model of the suggestions.
        labels: offered from the start, in the order of their keys.
    """

    def __init__(self, labelling: Labelling, pool: WorkerPool, background: WorkerPool, labels: tuple[str, ...]) -> None:
        self._labelling = labelling
        self._pool = pool
        self._background = background
        self._labels = labels
        self._session = secrets.token_hex(4)
        self._cache: collections.OrderedDict[tuple[int, int], Thumbnail] = collections.OrderedDict()
        self._cached = 0
        self._changing = asyncio.Lock()
        self._quiet: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._features: list[bytes] = []
        self._thoughts: list[tuple[int, str, float]] = []
        self._order: list[int] | None = None
        self._looking: asyncio.Task[None] | None = None
        self._failed: str | None = None

    def routes(self) -> list[Route]:
        """What the application answers."""
        return [
            Route("/api/labels", self.all),
            Route("/api/labels/changes", self.changes),
            Route("/api/labels/order", self.order),
            Route("/api/labels/decide", self.decide, methods=["POST"]),
            Route("/api/labels/undo", self.undo, methods=["POST"]),
            Route("/api/labels/{position:int}/picture.jpg", self.picture),
        ]

    def start(self) -> None:
        """Begin to look at the pictures."""
        self._looking = asyncio.get_running_loop().create_task(self._look())

    async def _look(self) -> None:
        """What every picture looks like, and what the model thinks; then their order."""
        for position, item in enumerate(self._labelling.items):
            message: dict[str, Any] = {}
            features = bytes(likeness.FEATURES)  # of a picture that cannot be read
            with contextlib.suppress(RequestFailed):
                message, features = await self._background.ask({"do": "look", "file": str(item.path)})
            self._features.append(features)
            if message:
                self._thoughts.append((position, message["label"], message["score"]))
        self._order = list(range(len(self._labelling.items)))
        with contextlib.suppress(RequestFailed):  # then in the order of their names
            message, _ = await self._background.ask({"do": "order"}, b"".join(self._features))
            self._order = message["order"]
        self._features.clear()

    # --- routes ---

    async def all(self, _request: Request) -> Response:
        """GET /api/labels: every picture's name and what is decided about it."""
        session = self._labelling
        return as_json(
            {
                "session": self._session,
                "names": [item.name for item in session.items],
                "changes": [session.change(i) for i, one in enumerate(session.decided) if one.state],
                "number": session.number,
                "labels": list(dict.fromkeys([*self._labels, *session.labels()])),
                "model": self._background.models[0]["name"] if self._background.models else None,
            }
        )

    async def changes(self, request: Request) -> Response:
        """GET /api/labels/changes: what was decided, and thought, `since` a change and a number of `thoughts`."""
        since = whole_number(request, "since", 0, 0, 10**8)
        thoughts = whole_number(request, "thoughts", 0, 0, 10**8)
        n = len(self._labelling.items)
        looked = n if self._order is not None else min(len(self._features), n - 1)
        new = self._thoughts[thoughts : thoughts + 5000]
        return as_json(self._answer(since) | {"looked": looked, "n": n, "thoughts": new})

    async def order(self, request: Request) -> Response:
        """GET /api/labels/order: positions `by` likeness, or by doubt; 409 until every picture was looked at."""
        by = request.query_params.get("by")
        if by not in ("likeness", "doubt"):
            raise HTTPException(400, f"by: expected likeness or doubt, got {by!r}")
        if by == "doubt":
            return as_json({"order": [position for position, _, _ in sorted(self._thoughts, key=lambda one: one[2])]})
        if self._order is None:
            raise HTTPException(409, "the pictures are not sorted yet: try again")
        return as_json({"order": self._order})

    async def decide(self, request: Request) -> Response:
        """POST /api/labels/decide: answered when it is on the disk."""
        given = await read_json(request)
        tab, since = str(given.get("tab", ""))[:40], given.get("since")
        decision = _decision(given)
        versions = given.get("seen")
        n = len(self._labelling.items)
        if not isinstance(since, int) or not isinstance(versions, list):
            raise HTTPException(400, "expected since, a number, and seen, a list")
        for one in versions:
            whole = isinstance(one, list) and len(one) == 2 and all(type(value) is int for value in one)
            if not whole or not 0 <= one[0] < n:
                raise HTTPException(400, "seen: expected pairs of a position and a number")
        if decision.box is not None:
            if len(versions) != 1:
                raise HTTPException(400, f"box: expected one picture in seen, got {len(versions)}")
            await self._crop(versions[0][0], decision.box)
        async with self._changing:
            try:
                conflicts = await run_in_threadpool(self._labelling.decide, tab, versions, decision)
            except OSError as error:
                raise HTTPException(507, f"cannot be written: {error.strerror}") from None
        self._save_soon()
        return as_json(self._answer(since) | {"conflicts": conflicts})

    async def undo(self, request: Request) -> Response:
        """POST /api/labels/undo: takes back the last decision of a tab."""
        given = await read_json(request)
        since = given.get("since")
        if not isinstance(since, int):
            raise HTTPException(400, "since: expected a number")
        async with self._changing:
            try:
                undone = await run_in_threadpool(self._labelling.undo, str(given.get("tab", ""))[:40])
            except OSError as error:
                raise HTTPException(507, f"cannot be written: {error.strerror}") from None
        self._save_soon()
        return as_json(self._answer(since) | {"undone": undone})

    async def picture(self, request: Request) -> Response:
        """GET /api/labels/POSITION/picture.jpg: at most `side` pixels; of a session `s`, for the browser's cache."""
        position = request.path_params["position"]
        if position >= len(self._labelling.items):
            raise HTTPException(404, "no such picture")
        side = whole_number(request, "side", 192, 16, 2048)
        shown = self._cache.get((position, side))
        if shown is None:
            file = self._labelling.items[position].path
            try:
                message, jpeg = await self._pool.ask({"do": "preview", "file": str(file), "side": side})
            except RequestFailed as error:
                raise HTTPException(error.status, str(error)) from None
            shown = Thumbnail(message["width"], message["height"], jpeg)
            self._remember((position, side), shown)
        else:
            self._cache.move_to_end((position, side))
        headers = {"cache-control": "private, max-age=86400, immutable", "x-size": f"{shown.width} {shown.height}"}
        return Response(shown.jpeg, media_type="image/jpeg", headers=headers)

    def _remember(self, key: tuple[int, int], shown: Thumbnail) -> None:
        """Put a thumbnail into the cache, in the place of one that another request has made meanwhile."""
        before = self._cache.pop(key, None)
        self._cached += len(shown.jpeg) - (len(before.jpeg) if before is not None else 0)
        self._cache[key] = shown
        while self._cached > _CACHE_BYTES:
            self._cached -= len(self._cache.popitem(last=False)[1].jpeg)

    # --- what they share ---

    def _answer(self, since: int) -> dict[str, Any]:
        session = self._labelling
        return {"number": session.number, "changes": session.since(since), "failed": self._failed}

    async def _crop(self, position: int, box: PixelBox) -> None:
        out = self._labelling.region_file(position, box)
        file = self._labelling.items[position].path
        ask = {"do": "crop", "file": str(file), "box": box, "out": str(out)}
        try:
            await self._pool.ask(ask)
        except RequestFailed as error:
            raise HTTPException(error.status, str(error)) from None

    def _save_soon(self) -> None:
        if self._quiet is not None:
            self._quiet.cancel()
        self._quiet = asyncio.get_running_loop().call_later(_QUIET_S, self._begin_to_save)

    def _begin_to_save(self) -> None:
        task = asyncio.get_running_loop().create_task(self._save())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _save(self) -> None:
        async with self._changing:
            if not self._labelling.unsaved:
                return
            try:
                await run_in_threadpool(self._labelling.save)
                self._failed = None
            except (BitternError, OSError) as error:  # the journal has every decision
                self._failed = str(error)

    async def close(self) -> None:
        """Look at no more pictures, and wait for what is being saved."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait([self._looking])
        if self._quiet is not None:
            self._quiet.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)


def _decision(given: dict[str, Any]) -> Decided:
    state, label, box = given.get("state"), given.get("label", ""), given.get("box")
    if state in ("", "rejected", "skipped"):
        return Decided(state)
    if state != "labelled" or not is_label(label):
        raise HTTPException(400, "expected a state: labelled with a label, rejected, skipped, or nothing")
    if box is not None and not (isinstance(box, list) and len(box) == 4 and all(type(value) is int for value in box)):
        raise HTTPException(400, "box: expected left, top, right, bottom in pixels")
    return Decided("labelled", label, tuple(box) if box is not None else None)
