"""The daemon's metrics: plain counters that the main loop writes, and readings of them that other threads take."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

import msgspec

from bittern.delivery.sinks.base import Diagnostics
from bittern.model.classifier import Classifier
from bittern.system import machine

# What one frame goes through, each in seconds: waiting for it, making the tensor, the network, decision and events;
# and "age", from the capture of the frame to the end of all that.
STAGES = ("wait", "preprocess", "invoke", "decide", "age")
# Upper bounds of the histograms' buckets in seconds, from a decision on a fast machine to an inference on a Pi Zero W.
BOUNDS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
# The rate and the latency are those of the last 10 s, or of the last 512 frames if there were more.
RECENT_S = 10.0
RECENT_FRAMES = 512
# The board's temperature and power are read at this interval at most, in seconds.
_BOARD_S = 5.0


class Histogram:
    """Counts of times by `BOUNDS_S`; one thread writes."""

    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_S) + 1)  # the last bucket is above all bounds
        self.sum = 0.0

    def add(self, seconds: float) -> None:
        """Count one time, in seconds."""
        self.counts[bisect_left(BOUNDS_S, seconds)] += 1
        self.sum += seconds


class ModelInfo(NamedTuple):
    """A model that runs, and on which execution path."""

    name: str
    version: str
    path: str

    def __str__(self) -> str:
        return f"{self.name} {self.version} on {self.path}"


def model_infos(classifiers: Sequence[Classifier]) -> tuple[ModelInfo, ...]:
    """What the metrics say of the models that run."""
    return tuple(ModelInfo(c.name, c.version, c.path) for c in classifiers)


class SinkMetrics(NamedTuple):
    """Events of one sink: waiting now, and since the start delivered, refused by the peer, dropped unsent."""

    waiting: int = 0
    delivered: int = 0
    refused: int = 0
    dropped: int = 0


class Board(msgspec.Struct, frozen=True):
    """What the machine reports.

    Attributes:
        temperature_c: of the processor; None if it is not known.
        throttled: the reasons of `bittern.system.machine.Throttled` that hold now; None if they are not known.
    """

    temperature_c: float | None
    throttled: tuple[str, ...] | None


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """All metrics at one moment.

    Attributes:
        uptime_s: since the daemon started.
        fps: frames classified per second, over the last 10 s.
        latency_ms: median over the same time, from the capture of a frame to its events; None without a frame.
        frames: that came from the source.
        classified: of these.
        skipped: of these, because nothing moved.
        dropped: that the camera gave and that were never read, because a newer one had come.
        errors: inferences that failed.
        events: by type.
        camera: its state, "starting" before the first frame.
        camera_restarts: how often it was started again.
        frame_age_s: since the last frame came; None before the first.
        progress_age_s: since the main loop last made progress, which feeds systemd's watchdog.
        reloads: how often models were exchanged while running.
        reloads_refused: how often they were refused.
        models: that run now.
        sinks: by name.
        board: temperature and power.
    """

    uptime_s: float
    fps: float
    latency_ms: float | None
    frames: int
    classified: int
    skipped: int
    dropped: int
    errors: int
    events: dict[str, int]
    camera: str
    camera_restarts: int
    frame_age_s: float | None
    progress_age_s: float
    reloads: int
    reloads_refused: int
    models: tuple[ModelInfo, ...]
    sinks: dict[str, SinkMetrics]
    board: Board


class Health:
    """The metrics of one daemon. The main loop alone writes; any thread may take a `reading`.

    There is no lock: every metric is replaced in one step, so a reader gets each of them before or after a frame, never
    in between. Metrics that belong together may be one frame apart.

    Attributes:
        stages: times by name, see `STAGES`.
        frames: this and the next nine are the metrics of `Reading` of the same name.
        classified: as there.
        skipped: as there.
        dropped: as there.
        errors: as there.
        camera_restarts: as there.
        reloads: as there.
        reloads_refused: as there.
        camera: as there.
        models: as there.
        last_age_s: of the last frame that was classified, from its capture to its events.
        sinks: called for the metrics of every sink when a reading is taken, in the thread that takes it.
    """

    def __init__(
        self,
        models: Sequence[ModelInfo] = (),
        *,
        clock: Callable[[], float] = time.monotonic,
        root: Path = Path("/"),
    ) -> None:
        """See the class.

        Args:
            models: that run.
            clock: monotonic, in seconds; the main loop passes times of the same clock.
            root: the folder that has `sys`, for tests.
        """
        self._clock, self._root = clock, root
        self._start_s = self.progress_s = clock()
        self._frame_s: float | None = None
        self._recent: deque[tuple[float, float]] = deque(maxlen=RECENT_FRAMES)
        self._events: dict[str, int] = {}
        self._board: tuple[float, Board] | None = None
        self._board_lock = threading.Lock()
        self.stages = {stage: Histogram() for stage in STAGES}
        self.frames = self.skipped = self.dropped = self.errors = 0
        self.classified = self.camera_restarts = self.reloads = self.reloads_refused = 0
        self.last_age_s = 0.0
        self.camera = "starting"
        self.models = tuple(models)
        self.sinks: Callable[[], Mapping[str, SinkMetrics]] = dict

    def frame(self, now_s: float, wait_s: float, dropped: int = 0) -> None:
        """A frame came: when, after which wait, and how many were dropped before it."""
        self.frames += 1
        self.dropped += dropped
        self._frame_s = now_s
        self.stages["wait"].add(wait_s)

    def answer(self, now_s: float, age_s: float, preprocess_s: float, invoke_s: float, decide_s: float) -> None:
        """A frame was classified and its events were passed on; all in seconds, `age_s` since its capture."""
        self.classified += 1
        stages = self.stages
        stages["preprocess"].add(preprocess_s)
        stages["invoke"].add(invoke_s)
        stages["decide"].add(decide_s)
        stages["age"].add(age_s)
        self.last_age_s = age_s
        self._recent.append((now_s, age_s))

    def event(self, kind: str) -> None:
        """An event of this type was raised."""
        self._events = self._events | {kind: self._events.get(kind, 0) + 1}

    def progress(self, now_s: float) -> None:
        """The main loop made progress: a frame is done, or a camera that is away is being taken care of."""
        self.progress_s = now_s

    def progress_age_s(self) -> float:
        """Seconds since the main loop last made progress."""
        return self._clock() - self.progress_s

    def board(self) -> Board:
        """Temperature and power, a few seconds old at most. Runs a command on a Pi: not for the main loop."""
        with self._board_lock:
            now = self._clock()
            if self._board is None or now - self._board[0] >= _BOARD_S:
                throttled = machine.throttled(self._root)
                reasons = throttled.now if throttled is not None else None
                self._board = now, Board(machine.temperature_c(self._root), reasons)
            return self._board[1]

    def rate(self) -> tuple[float, float | None]:
        """Frames classified per second and their median age in seconds (None without a frame), over the last 10 s."""
        now = self._clock()
        recent = [(done_s, age_s) for done_s, age_s in self._recent.copy() if now - done_s <= RECENT_S]
        # A full deque may begin later than 10 s ago.
        span = RECENT_S if len(recent) < RECENT_FRAMES else max(now - recent[0][0], 1e-3)
        span = max(min(span, now - self._start_s), 1e-3)
        return len(recent) / span, median(age_s for _, age_s in recent) if recent else None

    def diagnostics(self) -> Diagnostics:
        """What sinks publish now and then. Reads files of `/sys`: not for the main loop."""
        fps, age_s = self.rate()
        latency_ms = None if age_s is None else round(1000 * age_s, 1)
        return Diagnostics(round(fps, 2), latency_ms, self.board().temperature_c)

    def reading(self) -> Reading:
        """All metrics now. Runs a command on a Pi: not for the main loop."""
        fps, age_s = self.rate()
        now = self._clock()
        frame_s = self._frame_s
        return Reading(
            uptime_s=now - self._start_s,
            fps=fps,
            latency_ms=None if age_s is None else 1000 * age_s,
            frames=self.frames,
            classified=self.classified,
            skipped=self.skipped,
            dropped=self.dropped,
            errors=self.errors,
            events=dict(self._events),
            camera=self.camera,
            camera_restarts=self.camera_restarts,
            frame_age_s=None if frame_s is None else now - frame_s,
            progress_age_s=self.progress_age_s(),
            reloads=self.reloads,
            reloads_refused=self.reloads_refused,
            models=self.models,
            sinks=dict(self.sinks()),
            board=self.board(),
        )
