"""What the page's process knows of its daemon, who looks at it, and the picture that they see."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections import deque
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import msgspec

from bittern.camera import ring
from bittern.decision.decision import Settings
from bittern.delivery.snapshots import jpeg_of
from bittern.events import AlarmKey
from bittern.frames import Order, Pixels
from bittern.page import live_messages as messages
from bittern.page.score_log import ScoreLog

# Viewers of the live picture, and pages that follow the events, at a time.
MOST_VIEWERS, MOST_FOLLOWERS = 4, 16
# What may wait for one follower; one that is slower is sent away, and begins anew.
_MOST_WAITING = 200
# How often a new frame is looked for while somebody looks, and at least something is sent to a viewer, in seconds.
_POLL_S, _QUIET_S = 0.04, 1.0
# Metrics this old are asked for again; how long the daemon may take, in seconds.
_METRICS_S, _ANSWER_S = 0.2, 3.0
# Of the live picture, on OpenCV's scale, and its longest side in pixels.
_QUALITY, _MOST_SIDE = 75, 1280


class Full(Exception):
    """Too many look already."""


class Known:
    """The state that messages of the daemon make.

    Attributes:
        events: the newest, oldest first.
        heads: of the models that run.
        alarms: with their settings.
        detection: whether frames are classified.
        thresholds: those that differ from the configuration.
        log: the scores of the last day.
    """

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self.events: deque[dict[str, Any]] = deque(maxlen=messages.MOST_EVENTS)
        self.heads: tuple[messages.ModelHead, ...] = ()
        self.alarms: tuple[messages.LiveAlarm, ...] = ()
        self.detection = True
        self.thresholds: dict[AlarmKey, float] = {}
        self.log = ScoreLog(0)
        self._blind = False
        self._followers: set[asyncio.Queue[tuple[str, Any] | None]] = set()
        self._metrics: tuple[float, dict[str, Any]] | None = None
        self._metrics_came = asyncio.Event()
        self.picture = LivePicture(self._look)

    # --- from the daemon ---

    def take(self, message: messages.ToPage, fds: list[int]) -> None:
        """Take a message."""
        if isinstance(message, messages.Scores):
            for time_ns, scores in message.rows:
                if self.alarms:
                    self.log.add(time_ns, scores, blind=self._blind)
            rows = [[time_ns // 1_000_000, *scores] for time_ns, scores in message.rows if scores]
            if rows and self._followers:
                self._tell("scores", rows)
        elif isinstance(message, messages.Happened):
            self.events.append(message.event)
            if (state := message.event.get("state")) in ("blind", "seeing"):
                self._blind = state == "blind"
            self._tell("event", message.event)
        elif isinstance(message, messages.ClipWritten):
            self._tell("clip", {"id": message.id})
        elif isinstance(message, messages.Metrics):
            self._metrics = time.monotonic(), message.reading
            self._metrics_came.set()
        elif isinstance(message, messages.LiveSettings):
            self.detection, self.thresholds = message.detection, dict(message.thresholds)
            self._tell("settings", self.controls())
        elif isinstance(message, messages.Description):
            if [alarm.key for alarm in message.alarms] != [alarm.key for alarm in self.alarms]:
                self.log = ScoreLog(len(message.alarms))
            self.heads, self.alarms = message.heads, message.alarms
            self._tell("models", None)
        elif isinstance(message, messages.Ring):
            self.picture.use(fds[0])

    # --- to the daemon ---

    def want(self, detection: bool, thresholds: dict[AlarmKey, float]) -> bool:
        """Tell the daemon what the owner wants; False if that cannot be told now."""
        return messages.send(self._link, messages.LiveSettings(detection, tuple(thresholds.items())))

    async def metrics(self) -> dict[str, Any] | None:
        """The daemon's metrics, a fifth of a second old at most; None if it does not answer."""
        if self._metrics is None or time.monotonic() - self._metrics[0] > _METRICS_S:
            self._metrics_came.clear()
            messages.send(self._link, messages.AskMetrics())
            try:
                async with asyncio.timeout(_ANSWER_S):
                    await self._metrics_came.wait()
            except TimeoutError:
                return None
        assert self._metrics is not None
        return self._metrics[1]

    def _look(self) -> None:
        messages.send(self._link, messages.Look(frames=self.picture.viewers > 0, scores=bool(self._followers)))

    # --- to the page ---

    def controls(self) -> dict[str, Any]:
        """What the owner wants, and the thresholds that this gives."""
        return {"detection": self.detection, "alarms": [self.describe(alarm) for alarm in self.alarms]}

    def describe(self, alarm: messages.LiveAlarm) -> dict[str, Any]:
        """An alarm with its threshold."""
        return alarm.key._asdict() | {
            "threshold": self.thresholds.get(alarm.key, alarm.settings.on),
            "configured": alarm.settings.on,
            "set": alarm.key in self.thresholds,
        }

    def settings(self, number: int, threshold: float) -> Settings:
        """The settings of an alarm with another threshold, as the daemon would use them."""
        return self.alarms[number].settings.with_threshold(threshold)

    def _tell(self, kind: str, data: Any) -> None:
        for queue in list(self._followers):
            if queue.qsize() >= _MOST_WAITING:
                self._followers.discard(queue)
                while not queue.empty():
                    queue.get_nowait()
                queue.put_nowait(None)
            else:
                queue.put_nowait((kind, data))

    async def follow(self) -> AsyncGenerator[bytes, None]:
        """Server-sent events: "event", "clip", "scores", "settings", "models"; a comment where nothing happens.

        Raises:
            Full: too many follow.
        """
        queue: asyncio.Queue[tuple[str, Any] | None] = asyncio.Queue()
        if len(self._followers) >= MOST_FOLLOWERS:
            raise Full
        self._followers.add(queue)
        self._look()
        try:
            yield b": here\n\n"
            while True:
                try:
                    async with asyncio.timeout(_QUIET_S):
                        message = await queue.get()
                except TimeoutError:
                    yield b":\n\n"
                    continue
                if message is None:
                    return
                kind, data = message
                name = f"id: {data['id']}\n" if kind == "event" else ""
                yield f"{name}event: {kind}\ndata: {msgspec.json.encode(data).decode()}\n\n".encode()
        finally:
            self._followers.discard(queue)
            self._look()


class LivePicture:
    """The newest frame as a JPEG, encoded once for all who look, and not at all while nobody does.

    Attributes:
        viewers: how many look.
    """

    def __init__(self, changed: Any) -> None:
        self._changed = changed
        self.viewers = 0
        self._reader: ring.Reader | None = None
        self._fd: int | None = None
        self._jpeg = b""
        self._serial = 0
        self._came = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None
        self._busy = False
        self._old: list[int] = []

    def use(self, fd: int) -> None:
        """Read frames from this ring from now on."""
        if self._fd is not None:
            self._old.append(self._fd)
        self._fd = fd
        self._reader = ring.Reader(fd)
        self._close_old()

    def _close_old(self) -> None:
        if not self._busy:
            for fd in self._old:
                os.close(fd)
            self._old.clear()

    @contextlib.contextmanager
    def looking(self, most: int) -> Iterator[None]:
        """Look while the block runs.

        Args:
            most: how many may look at a time, with this one.

        Raises:
            Full: too many look.
        """
        if self.viewers >= most:
            raise Full
        self.viewers += 1
        if self.viewers == 1:
            self._changed()
            self._task = asyncio.create_task(self._encode())
        try:
            yield
        finally:
            self.viewers -= 1
            if not self.viewers:
                assert self._task is not None
                self._task.cancel()
                self._changed()
                if self._fd is not None:
                    self._old.append(self._fd)
                self._reader = self._fd = None
                self._jpeg = b""

    async def next(self, after: int) -> tuple[int, bytes]:
        """A picture that is newer than the one with this number, with its own; call it while `looking`."""
        async with self._came:
            await self._came.wait_for(lambda: self._serial > after and self._jpeg)
            return self._serial, self._jpeg

    @property
    def number(self) -> int:
        """Of the last picture."""
        return self._serial

    async def _encode(self) -> None:
        while True:
            self._close_old()
            shared = self._reader.take() if self._reader is not None else None
            if shared is None:
                await asyncio.sleep(_POLL_S)
                continue
            self._busy = True
            # Not cancelled halfway: the pixels must stay until it is done.
            work = asyncio.ensure_future(asyncio.to_thread(_jpeg, shared.pixels, shared.order))
            work.add_done_callback(self._idle)
            jpeg = await asyncio.shield(work)
            async with self._came:
                self._serial += 1
                self._jpeg = jpeg
                self._came.notify_all()

    def _idle(self, _work: Any) -> None:
        self._busy = False
        self._close_old()


def _jpeg(pixels: Pixels, order: Order) -> bytes:
    import cv2

    cv2.setNumThreads(1)
    height, width = pixels.shape[:2]
    if max(height, width) > _MOST_SIDE:
        scale = _MOST_SIDE / max(height, width)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    return jpeg_of(pixels, order, _QUALITY)
