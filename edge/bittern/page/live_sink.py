"""The daemon's side of its page: hands on scores, events and frames, and never waits for the page's process."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from bittern.camera import ring
from bittern.config.schema import PageConfig, WatchConfig
from bittern.decision.decision import settings_of
from bittern.delivery.sinks.base import Controls, Sink, SinkContext
from bittern.delivery.sinks.controls import KeptControls
from bittern.delivery.snapshots import default_folder
from bittern.errors import ConfigurationError, one_line
from bittern.events import AlarmKey, Event
from bittern.frames import Frame
from bittern.page import live_messages as messages
from bittern.page.address import Address, access_of, listen, url_of
from bittern.page.clips import Clips

if TYPE_CHECKING:
    from bittern.daemon.health import Reading
    from bittern.model.classifier import Classifier

_log = logging.getLogger("bittern")

# Frames are shown at most this often: a picture for people, not for the classifier.
_FRAME_S = 0.08
# Scores are sent at these intervals: while somebody looks, and else.
_SOON_S, _LATER_S = 0.1, 2.0
# Rows of scores that may wait; the oldest are dropped.
_WAITING_ROWS = 5000
# A process that says nothing for so long hangs, and is killed.
SILENCE_S = 30.0
# Back-off of its starts, in seconds: 1, 2, 4 ... 60.
_BACKOFF_MAX_S = 60.0
# How long the process may take to end, in seconds.
_END_S = 0.3


class PageSink(Sink):
    """Starts the process that serves the page, and starts it again when it dies or hangs.

    The loop's calls (`see`, `follow`, `expect`) only append to bounded queues, keep five small frames a second for
    clips, and copy a frame into shared memory while somebody looks; a thread does the rest.

    Attributes:
        url: of the page, for a browser on this machine.
    """

    name = "page"
    durable = False

    def __init__(
        self,
        config: WatchConfig,
        info: SinkContext,
        classifiers: Callable[[], Sequence[Classifier]],
        reading: Callable[[], Reading],
    ) -> None:
        """Listen, and start the process.

        Args:
            config: the whole configuration, with the table `[page]`.
            info: what sinks are told of the source.
            classifiers: the models that run now.
            reading: the daemon's metrics; called in this sink's thread.

        Raises:
            ConfigurationError: the address cannot be had, others can reach it and there is no token, or there is no
                folder for clips.
        """
        assert config.page is not None
        self._config, self._classifiers, self._reading = config, classifiers, reading
        if info.memory is None:
            raise ConfigurationError("page: no folder to keep its settings in: set outbox.folder")
        folder = info.memory / "page"
        address = address_of(config.page)
        try:
            access_of(address, folder)
        except ConfigurationError as error:
            raise ConfigurationError(f"page: {error} --data {folder}") from None
        # Beside the snapshots: by default in memory, not on the SD card.
        self._clips = Clips((info.snapshots or default_folder(info.name)) / "clips")
        self._begin = messages.Begin(
            name=info.name,
            data=str(folder),
            snapshots=str(info.snapshots) if info.snapshots is not None else None,
            kept=str(info.kept) if info.kept is not None else None,
            clips=str(self._clips.folder),
            names=config.page.names,
            open=address.is_open,
        )
        self._kept = KeptControls(info.memory)
        self._rows: deque[tuple[int, Mapping[AlarmKey, float]]] = deque(maxlen=_WAITING_ROWS)
        self._events: deque[Event] = deque(maxlen=messages.MOST_EVENTS)
        self._new_events: deque[Event] = deque(maxlen=messages.MOST_EVENTS)
        self._look = messages.Look(frames=False, scores=False)
        self._show = _Show()
        self._keys: list[AlarmKey] = []
        self._changed = threading.Event()  # the models, or what the owner wants
        self._closing = threading.Event()
        self._wake, self._woken = socket.socketpair()
        try:
            self._listener = listen(address)
        except BaseException:
            self._wake.close()
            self._woken.close()
            raise
        self.url = url_of(self._listener)
        _log.info("the page is at %s", self.url)
        # It starts the process, which ends with the thread that started it.
        self._thread = threading.Thread(target=self._work, name="page", daemon=True)
        self._thread.start()

    # --- what the loop calls ---

    @property
    def controls(self) -> Controls | None:  # type: ignore[override]
        """See `Sink`."""
        return self._kept.controls

    def agree(self, controls: Controls) -> None:
        """See `Sink`."""
        self._kept.controls = controls
        self._changed.set()

    def see(self, frame: Frame, scores: Mapping[AlarmKey, float]) -> None:
        """See `Sink`."""
        self._rows.append((frame.monotonic_ns, scores))
        self._clips.see(frame)
        if self._look.frames:
            self._show.write(frame)

    def follow(self, event: Event) -> None:
        """See `Sink`."""
        self._new_events.append(event)

    def deliver(self, event: Event, body: bytes) -> str:
        """See `Sink`."""
        return "shown"

    def expect(self, alarms: Mapping[AlarmKey, float]) -> None:
        """See `Sink`."""
        self._changed.set()

    def close(self) -> None:
        """See `Sink`."""
        if self._closing.is_set():
            return
        self._closing.set()
        with contextlib.suppress(OSError):
            self._wake.send(b"x")
        self._thread.join(2 * _END_S)
        self._kept.save()

    # --- the thread ---

    def _work(self) -> None:
        pause_s = 1.0
        while not self._closing.is_set():
            started = time.monotonic()
            try:
                reason = self._run()
            except Exception as error:  # no process, no memory, no file descriptor
                reason = one_line(error)
            self._look = messages.Look(frames=False, scores=False)
            if self._closing.is_set():
                break
            if time.monotonic() - started > _BACKOFF_MAX_S:
                pause_s = 1.0
            _log.warning("page: its process ended (%s): another one starts in %.0f s", reason, pause_s)
            self._closing.wait(pause_s)
            pause_s = min(2 * pause_s, _BACKOFF_MAX_S)
        self._show.end()
        # Not in `close`, which does not wait for ever for a process to end.
        for one in (self._listener, self._wake, self._woken):
            one.close()

    def _run(self) -> str:
        """Run one process until it ends; returns how it did."""
        link, other = messages.pair()
        with link:
            with other:
                fds = (other.fileno(), self._listener.fileno())
                child = subprocess.Popen(
                    # -P: no module is imported from the working directory.
                    [sys.executable, "-P", "-m", "bittern.page.live", *map(str, fds), str(os.getpid())],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,  # stdout is for events
                    pass_fds=fds,
                    start_new_session=True,  # Ctrl-C is for the daemon
                    env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
                )
            try:
                reason = self._serve(link)
            finally:
                link.close()  # which ends it
                try:
                    code = child.wait(_END_S)
                except subprocess.TimeoutExpired:
                    child.kill()
                    code = child.wait()
        return reason or f"exit code {code}"

    def _serve(self, link: socket.socket) -> str:
        """Send and receive until the process ends ("") or hangs."""
        messages.send(link, self._begin)
        self._show.end()
        self._changed.set()
        unsent: deque[Event] = deque(self._events, maxlen=messages.MOST_EVENTS)
        heard = sent = time.monotonic()
        while not self._closing.is_set():
            now = time.monotonic()
            if now - heard > SILENCE_S:
                return f"no sign of life for {SILENCE_S:.0f} s"
            period_s = _SOON_S if self._look.scores or self._look.frames else _LATER_S
            ready, _, _ = select.select([link, self._woken], [], [], max(0.0, sent + period_s - now))
            try:
                while link in ready and (message := messages.receive_in_daemon(link)) is not None:
                    heard = time.monotonic()
                    self._take(message, link)
            except EOFError:
                return ""
            if time.monotonic() - sent >= period_s or self._changed.is_set():
                sent = time.monotonic()
                self._send(link, unsent)
            for event_id in self._clips.write_due():
                messages.send(link, messages.ClipWritten(event_id))
        return "closed"

    def _take(self, message: messages.ToDaemon, link: socket.socket) -> None:
        if isinstance(message, messages.Look):
            self._look = message
            if not message.frames:
                self._show.end()
        elif isinstance(message, messages.AskMetrics):
            messages.send(link, messages.Metrics(_as_json(self._reading())))
        elif isinstance(message, messages.LiveSettings):
            controls = Controls(message.detection, dict(message.thresholds))
            if controls != self._kept.controls:
                self._kept.controls = controls
                self._changed.set()

    def _send(self, link: socket.socket, unsent: deque[Event]) -> None:
        """Send everything that is new; what the process does not take now is dropped, or sent later."""
        if self._changed.is_set():
            self._kept.save()
            description = self._description()
            controls = self._kept.controls
            settings = messages.LiveSettings(controls.detection, tuple(controls.thresholds.items()))
            self._changed.clear()
            if not (messages.send(link, description) and messages.send(link, settings)):
                self._changed.set()
            self._keys = [alarm.key for alarm in description.alarms]
        self._show.offer(link)
        while self._new_events:
            event = self._new_events.popleft()
            self._events.append(event)
            self._clips.expect(event)
            unsent.append(event)
        while unsent and messages.send(link, messages.Happened(msgspec.to_builtins(unsent[0]))):
            unsent.popleft()
        rows: list[Any] = []
        most = messages.MAX_BYTES // (40 + 30 * len(self._keys))
        while self._rows:
            time_ns, scores = self._rows.popleft()
            rows.append((time_ns, [scores[key] for key in self._keys] if self._fits(scores) else []))
            if len(rows) >= most or not self._rows:
                messages.send(link, messages.Scores(tuple(rows)))
                rows = []

    def _fits(self, scores: Mapping[AlarmKey, float]) -> bool:
        """Whether a frame was scored by the models that are described."""
        return bool(scores) and len(scores) == len(self._keys) and all(key in scores for key in self._keys)

    def _description(self) -> messages.Description:
        classifiers = self._classifiers()
        heads = {c.name: c.heads for c in classifiers}
        settings = settings_of(heads, self._config.decision, self._config.alarm)
        return messages.Description(
            tuple(
                messages.ModelHead(c.name, c.version, h.task, tuple(h.labels[: messages.MOST_LABELS]))
                for c in classifiers
                for h in c.heads
            ),
            tuple(messages.LiveAlarm(*alarm) for alarm in settings.items()),
        )


class _Show:
    """Frames for the page's process, in shared memory; made when somebody looks for the first time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._fd: int | None = None
        self._writer: ring.Writer | None = None
        self._shape: tuple[int, ...] = ()
        self._sent = False
        self._next_s = 0.0
        self._number = 0

    def write(self, frame: Frame) -> None:
        """Copy a frame, unless the last one is hardly older. Never waits."""
        now = time.monotonic()
        if now < self._next_s or not self._lock.acquire(blocking=False):
            return
        try:
            if self._writer is None or frame.pixels.shape != self._shape:
                self._end()
                self._fd = ring.create()
                self._shape = frame.pixels.shape
                self._writer = ring.Writer(self._fd, self._shape[0], self._shape[1])
            self._number += 1
            self._writer.write(
                frame.pixels,
                frame.order,
                number=self._number,
                monotonic_ns=frame.monotonic_ns,
                time_ns=frame.time_ns,
            )
            self._next_s = now + _FRAME_S
        except (OSError, MemoryError) as error:
            self._end()
            self._next_s = now + 10.0
            _log.warning("page: no frame can be shown: %s", one_line(error))
        finally:
            self._lock.release()

    def offer(self, link: socket.socket) -> None:
        """Send the ring to the process, if it does not have it yet."""
        with self._lock:
            if self._fd is not None and not self._sent:
                self._sent = messages.send(link, messages.Ring(), (self._fd,))

    def end(self) -> None:
        """Give the memory back: nobody looks, or another process begins anew."""
        with self._lock:
            self._end()

    def _end(self) -> None:
        self._writer = None
        if self._fd is not None:
            os.close(self._fd)
        self._fd, self._sent = None, False


def _as_json(reading: Reading) -> dict[str, Any]:
    """All metrics, by their names."""
    values: dict[str, Any] = msgspec.to_builtins(reading)
    values["models"] = [model._asdict() for model in reading.models]
    values["sinks"] = {name: metrics._asdict() for name, metrics in reading.sinks.items()}
    return values


def address_of(config: PageConfig) -> Address:
    """Where the page of a daemon listens."""
    return Address(config.host, config.port, config.names, ("page.host", "page.port"))
