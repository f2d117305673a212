"""The main loop: reads frames, steps the pipeline, passes events on, and reloads models between two frames."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from bittern.config.schema import WatchConfig
from bittern.daemon.feed import Feed
from bittern.daemon.health import Health, model_infos
from bittern.daemon.reloader import Reloader
from bittern.decision.pipeline import Pipeline, Step
from bittern.delivery.outlet import Outlet
from bittern.delivery.sinks.base import Controls
from bittern.errors import BitternError, one_line
from bittern.events import Event, State
from bittern.frames import Frame
from bittern.system.notify import Watchdog
from bittern.system.stop import Stop

_log = logging.getLogger("bittern")

# Without a frame the loop turns at this interval, to do everything else that is due.
_TURN_S = 0.5


class Summary(NamedTuple):
    """What a loop did.

    Attributes:
        frames: that came.
        skipped: of these, because nothing moved.
        dropped: that the camera gave and that were never read, because a newer one had come.
        events: of alarms.
        seconds: that it ran.
        unreadable: pictures of a recording that could not be read.
        left_out: frames of a recording that were not looked at, to keep to `fps`.
    """

    frames: int
    skipped: int
    dropped: int
    events: int
    seconds: float
    unreadable: int
    left_out: int


class Loop:
    """Watches until the feed ends, a stop is requested, or enough frames came. It closes nothing."""

    def __init__(
        self,
        feed: Feed,
        pipeline: Pipeline,
        config: WatchConfig,
        outlet: Outlet,
        reloader: Reloader,
        health: Health,
        stop: Stop,
    ) -> None:
        """Nothing is read yet.

        Args:
            feed: where frames come from.
            pipeline: what each frame goes through.
            config: rate at which frames of a camera are taken at most.
            outlet: takes every event, in order; names the source.
            reloader: exchanges the models when `stop.reload` asks for it.
            health: is kept up to date.
            stop: see `Stop`.
        """
        self._feed, self._pipeline, self._outlet, self._reloader = feed, pipeline, outlet, reloader
        self._health, self._stop = health, stop
        self._period_s = 1 / config.fps
        self._name = outlet.source
        self._watchdog = Watchdog()
        self._state = "starting"
        self._last_number = -1
        # Of the last frame of a recording, whose clock is not the machine's; an empty one stays at 0.
        self._recorded_ns: int | None = None if feed.live else 0
        self._begun = False
        self._controls = Controls()
        self._failing = False
        self._events = 0
        self._seconds = 0.0

    @property
    def summary(self) -> Summary:
        """What it did; complete when `run` has ended."""
        health, feed = self._health, self._feed
        return Summary(
            health.frames,
            health.skipped,
            health.dropped,
            self._events,
            self._seconds,
            feed.unreadable,
            feed.left_out,
        )

    def run(self, frames: int | None = None) -> Iterator[Step | None]:
        """Run until the end.

        Args:
            frames: how many to take at most.

        Yields:
            The step of each frame, after its events were passed on; None if no frame came for half a second, or if it
            could not be classified.

        Raises:
            ConfigurationError: the camera cannot follow an option, or a frame does not contain the configured region.
            SourceError: see `Feed.read`.
            OSError: events cannot be written to stdout.
            BitternError: events cannot be passed on for another reason.
        """
        feed, health, stop = self._feed, self._health, self._stop
        start = time.monotonic()
        while not stop.asked and (frames is None or health.frames < frames):
            began = time.monotonic()
            frame = feed.read(_TURN_S)
            now = time.monotonic()
            if frame is not None and not feed.live:
                self._recorded_ns = frame.monotonic_ns
            health.camera_restarts = feed.restarts
            states = feed.states()
            # A recording without a frame is watched too; a camera that ends before its first one is not.
            begins = frame is not None or states or (feed.ended and not feed.live)
            if begins and not self._begun and not stop.asked:
                self._begin()
            for state in states:
                self._begin_state(state)
            if self._begun and not stop.asked:
                self._control()
            step = None
            if frame is not None and not stop.asked:
                step = self._take(frame, began, now)
            elif feed.ended or stop.asked:
                break
            else:
                self._outage(now)
            self._outlet.clock.look()
            self._reload()
            yield step
            rest = began + self._period_s - time.monotonic()
            if feed.live and frame is not None and rest > 0 and health.frames != frames:
                feed.rest(rest)
        self._watchdog.stopping()
        self._seconds = time.monotonic() - start

    def _begin(self) -> None:
        """The source gave a frame, or its first start failed: events begin."""
        self._begun = True
        models = ", ".join(map(str, self._health.models))
        _log.info("watching %s with %s; Ctrl-C ends it", self._name, models)
        # Sinks that show states start afresh: a run that was killed may have left an alarm on.
        self._outlet.state(State("started", models), self._recorded_ns)

    def _begin_state(self, state: State) -> None:
        """A state begins: in the log, in the metrics, and as an event."""
        good = state.name in ("camera_ok", "seeing", "models_loaded", "paused", "resumed")
        text = state.name.replace("_", " ") + (f": {state.detail}" if state.detail else "")
        _log.log(logging.INFO if good else logging.WARNING, "%s: %s", self._name, text)
        if state.name.startswith("camera_") or state.name == "reboot_needed":
            self._health.camera = self._state = state.name
        self._health.event("state")
        self._outlet.state(state, self._recorded_ns)

    def _take(self, frame: Frame, began: float, now: float) -> Step | None:
        """Count a frame and take its step, which is None if it cannot be classified."""
        health = self._health
        # Of a recording nothing is dropped: a gap is as old as the recording, or frames were left out.
        gap = self._feed.live and self._last_number >= 0
        dropped = max(0, frame.number - self._last_number - 1) if gap else 0
        health.frame(now, now - began, dropped)
        self._last_number = frame.number
        if not self._controls.detection:
            self._outlet.see(frame, {})
            health.progress(now)
            self._watchdog.frame(self._status)
            return None
        try:
            step = self._pipeline.step(frame, blind=self._feed.blind)
        except BitternError:  # a region that does not fit
            raise
        except Exception as error:
            # The runtime's, OpenCV's, or no memory for a moment. The frame is lost and counted, and the watchdog is
            # not fed: an error that lasts is systemd's to handle.
            health.errors += 1
            if not self._failing:
                _log.error("a frame could not be classified: %s", one_line(error))
            self._failing = True
            return None
        decided = time.monotonic()
        self._pass_on(step.events, frame)
        self._outlet.see(frame, step.scores)
        if self._failing:
            _log.warning("frames are classified again; %d were not", health.errors)
            self._failing = False
        done = time.monotonic()
        if step.skipped:
            health.skipped += 1
        else:
            times = step.times
            # A recording has a clock of its own.
            age_s = done - frame.monotonic_ns / 1e9 if self._feed.live else done - now
            decide_s = times.decide / 1e9 + done - decided
            health.answer(done, age_s, times.preprocess / 1e9, times.invoke / 1e9, decide_s)
        health.progress(done)
        self._watchdog.frame(self._status)
        return step

    def _pass_on(self, events: Sequence[Event], frame: Frame | None) -> None:
        failure: BitternError | OSError | None = None
        for event in events:
            self._events += 1
            self._health.event(event.type)
            try:
                self._outlet.take(event, frame)
            except (BitternError, OSError) as error:  # stdout is gone; the outbox may still take the other events
                failure = failure or error
            except Exception as error:  # no memory for a moment
                self._health.errors += 1
                _log.error("event %s (%s) could not be passed on: %s", event.id, event.type, one_line(error))
        if failure is not None:
            raise failure

    def _outage(self, now: float) -> None:
        """No frame came for a while: the camera is slow, or being restarted, which counts as progress."""
        self._health.progress(now)
        self._watchdog.outage(self._status() if self._last_number < 0 else f"{self._name}: {self._state_text}")

    def _control(self) -> None:
        """Do what the owner wants, if that has changed."""
        controls, before = self._outlet.controls, self._controls
        if controls is None or controls is before:
            return
        self._controls = controls
        if controls.thresholds != before.thresholds:
            self._pipeline.set_thresholds(controls.thresholds)
            values = (f"{a.model} {a.label} {on:g}" for a, on in controls.thresholds.items())
            _log.info("thresholds set by the owner: %s", ", ".join(values) or "none")
        if controls.detection != before.detection:
            if not controls.detection:
                self._pass_on(self._pipeline.end_alarms(), None)
            self._begin_state(State("resumed" if controls.detection else "paused", "by the owner"))
        if controls.restart:
            _log.warning("restarting, as the owner wants")
            self._stop.restart = self._stop.asked = True

    def _reload(self) -> None:
        """Begin a reload that was requested; put the models of one that has ended in place."""
        if self._stop.reload and not self._reloader.busy:
            self._stop.reload = False
            self._watchdog.reloading()
            self._reloader.start(self._pipeline.classifiers)
        exchange = self._reloader.finish(self._pipeline)
        if exchange is None:
            return
        self._pass_on(exchange.events, None)
        if exchange.done:
            self._health.models = model_infos(self._pipeline.classifiers)
            self._health.reloads += 1
        else:
            self._health.reloads_refused += 1
        self._watchdog.reloaded(self._status())
        self._begin_state(exchange.state)

    @property
    def _state_text(self) -> str:
        return self._state.replace("_", " ")

    def _status(self) -> str:
        if self._last_number < 0:
            return f"{self._name}: waiting for the camera ({self._state_text})"
        fps, age_s = self._health.rate()
        age = "" if age_s is None else f", {1000 * age_s:.0f} ms old when classified"
        return f"{self._name}: {fps:.1f} frames per second{age}, {self._events} events"
