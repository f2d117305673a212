"""The loop: frame, classify, decide, event. The only place that knows cameras, classifiers, decisions and sinks."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from bittern.camera.supervisor import Camera
from bittern.config.schema import WatchConfig
from bittern.daemon.health import Health, ModelInfo
from bittern.decision.pipeline import Pipeline
from bittern.decision.pipeline import Seen as Seen
from bittern.delivery.outlet import Outlet
from bittern.errors import BitternError, ConfigurationError, one_line
from bittern.events import Event
from bittern.frames import Frame, Source
from bittern.model.candidate import Reload
from bittern.model.classifier import Classifier
from bittern.system.notify import Watchdog
from bittern.system.stop import Stop

_log = logging.getLogger("bittern")

# A camera that is away is looked after this often, and so is everything else that has to be done beside frames.
_LOOK_S = 0.5


class Summary(NamedTuple):
    """What a loop did."""

    frames: int
    skipped: int
    dropped: int
    events: int
    seconds: float


class Watch:
    """Watches until the source ends, `stop` is asked, or enough frames came.

    Attributes:
        health: its figures.
    """

    def __init__(
        self,
        source: Source | Camera,
        classifiers: Sequence[Classifier],
        config: WatchConfig,
        outlet: Outlet,
        stop: Stop,
        health: Health,
        states: deque[tuple[str, str]],
        *,
        frames: int | None = None,
        observe: Callable[[Seen], None] | None = None,
        models: Callable[[], Sequence[str]] = tuple,
        broken: Callable[[], str | None] = lambda: None,
        begun: Callable[[], None] = lambda: None,
        exchanged: Callable[[Sequence[Classifier]], None] = lambda _: None,
    ) -> None:
        """Nothing is read yet.

        Args:
            source: where frames come from. It is not closed here.
            classifiers: all of them see every frame.
            config: see there.
            outlet: takes every event, in order.
            stop: see `Stop`.
            health: to be kept up to date.
            states: the camera puts its states there, each with a detail, while it is read.
            frames: how many to take at most.
            observe: called once a classified frame and model.
            models: says which models to load when a reload is asked.
            broken: why the loop must not go on, for example because a thread beside it died.
            begun: called once, when the source was read for the first time.
            exchanged: called with the models of a reload, before there is any event of theirs.

        Raises:
            ConfigurationError: the decision does not fit the model.
        """
        self._source, self._config, self._outlet, self._stop = source, config, outlet, stop
        self._most = frames
        self._models, self._broken = models, broken
        self._classifiers = list(classifiers)
        self.health, self._states = health, states
        self._pipeline = Pipeline(classifiers, config, self._event, observe)
        self._watchdog = Watchdog()
        self._reload = Reload(
            threads=config.threads, max_slowdown=config.reload.max_slowdown, timeout_s=config.reload.timeout_s
        )
        self._state = ""
        self._last_number = -1
        # Of the last frame of a recording, whose clock is not the machine's; an empty one stands at 0.
        self._recorded_ns: int | None = None if source.live else 0
        self._failed = False
        self._events = 0
        self._begun, self._tell_begun = False, begun
        self._tell_exchanged = exchanged

    def _tell(self, state: str, detail: str) -> None:
        """A state begins: in the log, in the figures, and as an event."""
        _log.log(
            logging.INFO if state in ("camera_ok", "seeing", "models_loaded") else logging.WARNING,
            "%s: %s%s",
            *(self._config.name or self._source.name, state.replace("_", " "), f": {detail}" if detail else ""),
        )
        if state.startswith("camera_") or state == "reboot_needed":
            self.health.camera = self._state = state
        self._outlet.seeing(None)
        self.health.event("state")
        self._outlet.state(state, detail, self._recorded_ns)

    def run(self) -> Summary:
        """Do it.

        Raises:
            ConfigurationError: the camera cannot follow an option.
            BitternError: a part of the daemon broke.
            SourceError: a recorded source was lost, or the camera cannot be opened at the start and was not to be
                tried again.
        """
        health, stop, source = self.health, self._stop, self._source
        start = time.monotonic()
        try:
            while not stop.asked and (self._most is None or health.frames < self._most):
                began = time.monotonic()
                frame = source.read(_LOOK_S) if isinstance(source, Camera) else stop.wait(source.read)
                now = time.monotonic()
                if frame is not None and not source.live:
                    self._recorded_ns = frame.monotonic_ns
                if isinstance(source, Camera):
                    health.camera_restarts = source.restarts
                known = frame is not None or self._states or not isinstance(source, Camera)
                if known and not self._begun and not stop.asked:
                    self._begin()
                while self._states:
                    self._tell(*self._states.popleft())
                if frame is not None and not stop.asked:
                    self._take(frame, began, now)
                elif not isinstance(source, Camera) or source.ended or stop.asked:
                    break
                else:
                    self._without_frame(now)
                self._outlet.clock.look()
                if (reason := self._broken()) is not None:
                    raise BitternError(f"{reason}: to be started again")
                self._see_to_reload()
                if source.live and health.frames != self._most:
                    rest = began + 1 / self._config.fps - time.monotonic()
                    if frame is not None and rest > 0:
                        if isinstance(source, Camera):
                            source.rest(rest)  # which sees to it meanwhile
                        else:
                            stop.wait(partial(time.sleep, rest))
        finally:
            self._reload.close()
        self._watchdog.stopping()
        seconds = time.monotonic() - start
        return Summary(health.frames, health.skipped, health.dropped, self._events, seconds)

    def _begin(self) -> None:
        """There is a source, or it was tried once: from here on there are events."""
        self._begun = True
        self._tell_begun()
        # Sinks that show states begin anew: a run that was killed may have left an alarm on.
        running = ", ".join(f"{c.name} {c.version} on {c.path}" for c in self._classifiers)
        self._outlet.state("started", running, self._recorded_ns)

    def _take(self, frame: Frame, began: float, now: float) -> None:
        """One frame: counted, and looked at."""
        health, source = self.health, self._source
        health.frame(now, now - began, max(0, frame.number - self._last_number - 1) if self._last_number >= 0 else 0)
        self._last_number = frame.number
        self._outlet.seeing(frame)
        try:
            self._pipeline.step(frame, blind=isinstance(source, Camera) and source.blind)
        except (BitternError, OSError):  # a region that does not fit; stdout is gone
            raise
        except Exception as error:
            # The runtime's, OpenCV's, or no memory for a moment. The frame is lost and counted, and the watchdog is
            # not fed: what lasts is for systemd.
            health.errors += 1
            if not self._failed:
                _log.error("a frame could not be classified: %s", one_line(error))
            self._failed = True
            return
        if self._failed:
            _log.warning("frames are classified again; %d were not", health.errors)
            self._failed = False
        done = time.monotonic()
        if self._pipeline.skipped:
            health.skipped += 1
        else:
            times = self._pipeline.times
            # A recorded source has a clock of its own.
            age_s = done - frame.monotonic_ns / 1e9 if source.live else done - now
            health.answer(done, age_s, times.preprocess / 1e9, times.invoke / 1e9, times.decide / 1e9)
        health.progress(done)
        self._watchdog.frame(self._status)

    def _without_frame(self, now: float) -> None:
        """The camera gave none for a while: it is slow, or it is away and being seen to, which is progress too."""
        self.health.progress(now)
        self._watchdog.outage(
            f"{self._config.name or self._source.name}: {self._state.replace('_', ' ') or 'starting'}"
        )

    def _status(self) -> str:
        fps, age_s = self.health.rate()
        late = "" if age_s is None else f", {1000 * age_s:.0f} ms old when classified"
        return f"{self._config.name or self._source.name}: {fps:.1f} frames a second{late}, {self._events} events"

    def _event(self, event: Event) -> None:
        self._events += 1
        self.health.event(event.type)
        self._outlet.take(event)

    def _see_to_reload(self) -> None:
        if self._stop.reload and not self._reload.busy:
            self._stop.reload = False
            try:
                models = self._models()
            except ConfigurationError as error:
                self._refused(str(error))
                return
            self._watchdog.reloading()
            self._reload.start(models, self._classifiers)
        outcome = self._reload.poll()
        if outcome is None:
            return
        if not isinstance(outcome, str):
            try:
                self._pipeline.replace(outcome)
            except ConfigurationError as error:
                outcome = str(error)
        if isinstance(outcome, str):
            self._refused(outcome)
            return
        self._classifiers = outcome
        self._tell_exchanged(outcome)
        self.health.models = infos(outcome)
        self.health.reloads += 1
        self._watchdog.reloaded(self._status())
        self._tell("models_loaded", ", ".join(f"{c.name} {c.version} on {c.path}" for c in outcome))

    def _refused(self, reason: str) -> None:
        self.health.reloads_refused += 1
        self._watchdog.reloaded(self._status())
        self._tell("models_refused", f"the old ones go on: {reason}")


def infos(classifiers: Sequence[Classifier]) -> tuple[ModelInfo, ...]:
    """What the figures say of models."""
    return tuple(ModelInfo(c.name, c.version, c.path) for c in classifiers)
