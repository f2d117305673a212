"""Opens the parts of a daemon one after the other, runs the loop, and closes them all."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bittern import events
from bittern.config.schema import OutboxConfig, WatchConfig
from bittern.daemon.feed import Feed, Recording
from bittern.daemon.health import Health, Reading, SinkMetrics, model_infos
from bittern.daemon.history import ModelHistory
from bittern.daemon.keeper import Keeper
from bittern.daemon.loop import Loop, Summary
from bittern.daemon.reloader import Reloader
from bittern.decision.pipeline import Pipeline, Step
from bittern.delivery.dispatch import Delivery
from bittern.delivery.outlet import Outlet
from bittern.delivery.sinks.base import Sink, SinkContext
from bittern.delivery.sinks.registry import DURABLE, display_name, open_sinks
from bittern.delivery.snapshots import SnapshotStore, default_folder
from bittern.errors import BitternError, ConfigurationError
from bittern.model.classifier import Classifier
from bittern.sources.registry import check_source, open_source
from bittern.system.hosts import http_url, is_loopback
from bittern.system.stop import Stop

if TYPE_CHECKING:
    from bittern.delivery.kept import KeptWriter
    from bittern.delivery.outbox import Outbox

_log = logging.getLogger("bittern")

# How many seconds the end of a recording waits for the last frames that are kept.
_DRAIN_S = 10.0


class Daemon:
    """The parts of a daemon, open and ready to run; made by `opened`."""

    def __init__(self, loop: Loop, outlet: Outlet, delivery: Delivery, keeper: Keeper | None = None) -> None:
        self._loop, self._outlet, self._delivery, self._keeper = loop, outlet, delivery, keeper

    def steps(self, frames: int | None = None) -> Iterator[Step]:
        """Run until a stop is requested, a recording ends, or enough frames came.

        Args:
            frames: how many to take at most.

        Yields:
            The step of every frame that was classified or skipped, after its events were passed on.

        Raises:
            BitternError: a part of the daemon broke.
            ConfigurationError, SourceError, OSError: see `Loop.run`.
        """
        for step in self._loop.run(frames):
            if (reason := self.failed) is not None:
                raise BitternError(f"{reason}; the daemon must be restarted")
            if step is not None:
                if self._keeper is not None:
                    self._keeper.look(step)
                yield step
        if self._keeper is not None:
            self._keeper.flush()

    @property
    def failed(self) -> str | None:
        """Why events cannot be passed on any more, for example because a thread died; None as long as they can."""
        return self._outlet.failed or self._delivery.failed

    @property
    def summary(self) -> Summary:
        """What it did; complete when `steps` has ended."""
        return self._loop.summary


@contextlib.contextmanager
def opened(
    config: WatchConfig,
    classifiers: Sequence[Classifier],
    out: Callable[[bytes], None],
    stop: Stop,
    *,
    file: Path | None = None,
    config_file: Path | None = None,
    once: bool = False,
    every_frame: bool = False,
    page: Callable[[SinkContext, Callable[[], Sequence[Classifier]], Callable[[], Reading]], Sink] | None = None,
) -> Iterator[Daemon]:
    """Open a daemon; at the end of the block, events are delivered and everything is closed.

    Args:
        config: the whole configuration.
        classifiers: the models that it names, opened.
        out: takes every event as a line of JSON, whatever other sinks there are.
        stop: see `Stop`.
        file: of the configuration, where a reload reads the names of the models; None keeps those of `config`.
        config_file: of the configuration; None if it is none.
        once: give up if the camera cannot be opened at the start.
        every_frame: take every frame of a recording, instead of `fps` a second by its clock.
        page: opens the sink of the page, given the context of sinks, the models that run, and the metrics; None if the
            configuration has no page.

    Raises:
        ConfigurationError: a table that cannot be right, decisions that do not fit the models, a library that is
            missing, a port that is taken, an outbox that another process uses.
        BitternError: events could not be passed on at the end.
    """
    source = check_source(config.source, config.camera)
    name = config.name or source.name
    pipeline = Pipeline(classifiers, config)
    health = Health(model_infos(classifiers))
    with contextlib.ExitStack() as stack:
        # First, before anything that a daemon with the same configuration may be doing already.
        unowned = stack.enter_context(contextlib.ExitStack())
        outbox = _claim_outbox(config, name, unowned)
        _serve_metrics(config, health, stack)
        snapshots = _open_snapshots(config, name)
        kept_folder = _state(name) / "kept" if config.keep is not None else None
        info = SinkContext(
            display_name(config, source.name),
            alarms=pipeline.alarms,
            live=source.live,
            snapshots=snapshots.folder if snapshots is not None else None,
            kept=kept_folder,
            memory=_memory(config, name),
            config_file=config_file,
            page=page_url(config),
        )
        sinks = open_sinks(config, info, health.diagnostics)
        if page is not None:
            try:
                sinks.append(page(info, lambda: pipeline.classifiers, health.reading))
            except BaseException:
                for sink in sinks:
                    sink.close()
                raise
        if config.mqtt is None:
            _withdraw(info, stack)
        delivery = Delivery(config.outbox, sinks, name, outbox)
        unowned.pop_all()  # from here on the delivery closes the outbox
        health.sinks = lambda: _sink_metrics(delivery)
        # The outbox first: an event that cannot be printed is not lost.
        outlet = Outlet([delivery.send, lambda event: out(events.to_line(event))], name, snapshots, sinks)
        feed = _open_feed(config, stop, live=source.live, once=once, every_frame=every_frame)
        kept = _open_kept(config, kept_folder, live=source.live)
        stack.callback(_close, feed, outlet, delivery, kept)
        # Which models ran is of interest for a camera that is set up, not for a look at a picture.
        past = stack.enter_context(contextlib.closing(_open_history(name, config_file)))
        reloader = stack.enter_context(contextlib.closing(Reloader(config, file, sinks, past)))
        past.note("started", classifiers)
        keeper = Keeper(config.keep, kept, name) if config.keep is not None and kept is not None else None
        daemon = Daemon(Loop(feed, pipeline, config, outlet, reloader, health, stop), outlet, delivery, keeper)
        yield daemon
        if not stop.asked:
            # It ended by itself and is in no hurry: a program that takes a while for an event is not killed.
            feed.close()
            reloader.close()
            outlet.drain(lambda: stop.asked)
            delivery.drain(lambda: stop.asked)
            if kept is not None:
                kept.close(_DRAIN_S)
            if (reason := daemon.failed) is not None:
                raise BitternError(reason)


def _claim_outbox(config: WatchConfig, name: str, stack: contextlib.ExitStack) -> Outbox | None:
    """The outbox, for this process alone; None if no sink stands behind one."""
    durable = [sink for sink in DURABLE if getattr(config, sink) is not None]
    if not durable:
        return None
    from bittern.delivery import outbox

    box = outbox.Outbox(outbox.folder(config.outbox, name), durable, name, config.outbox.max_events)
    stack.callback(box.close)
    box.claim()
    return box


def page_url(config: WatchConfig) -> str | None:
    """Address of the page, else of the metrics, if other machines can reach it.

    A page that listens on this machine only may stand behind a proxy, which alone knows under which address.
    """
    for table, path in ((config.page, ""), (config.health, "metrics")):
        if table is not None and table.port and not is_loopback(table.host):
            host = socket.gethostname() if table.host in ("0.0.0.0", "::", "") else table.host
            return f"{http_url(host, table.port)}{path}"
    return None


def _memory(config: WatchConfig, name: str) -> Path | None:
    """Where sinks remember what they have to; None if there is no such folder."""
    from bittern.delivery import outbox

    try:
        return outbox.folder(config.outbox, name)
    except ConfigurationError:  # no home folder, and no sink that needs one
        return None


def _state(name: str) -> Path:
    """The state folder, wherever the outbox is: `make pull` and `bittern models --history` look there.

    Raises:
        ConfigurationError: there is no home folder, and no $STATE_DIRECTORY.
    """
    from bittern.delivery import outbox

    return outbox.folder(OutboxConfig(), name)


def _open_history(name: str, config_file: Path | None) -> ModelHistory:
    folder = None
    if config_file is not None:
        with contextlib.suppress(ConfigurationError):  # no home folder: then without a history
            folder = _state(name)
    return ModelHistory(folder, name)


def _withdraw(info: SinkContext, stack: contextlib.ExitStack) -> None:
    """Take off a broker what was announced there when the configuration had `[mqtt]`."""
    if info.memory is None or not (info.memory / "mqtt.json").exists():
        return
    try:
        from bittern.delivery.sinks.announced import Memory
        from bittern.delivery.sinks.withdrawal import Withdrawals
    except ConfigurationError as error:
        _log.warning("what was announced over MQTT stays there: %s", error)
        return
    withdrawals = Withdrawals()
    stack.callback(withdrawals.close)
    memory = Memory(info.memory, info.config_file)
    withdrawals.begin(memory.records, memory)


def _serve_metrics(config: WatchConfig, health: Health, stack: contextlib.ExitStack) -> None:
    """The page for Prometheus, if it is configured."""
    if config.health is None:
        return
    from bittern.daemon.prometheus import MetricsServer

    server = MetricsServer(health, config.health)
    stack.callback(server.close)
    _log.info("metrics for Prometheus: http://%s:%d/metrics", config.health.host, server.port)


def _open_snapshots(config: WatchConfig, name: str) -> SnapshotStore | None:
    """Where the pictures of alarms go; None if none are kept."""
    if config.snapshots is None:
        return None
    chosen = Path(config.snapshots.folder) if config.snapshots.folder else default_folder(name)
    return SnapshotStore(chosen, config.snapshots.budget_mb, config.snapshots.quality)


def _open_kept(config: WatchConfig, folder: Path | None, *, live: bool) -> KeptWriter | None:
    """What writes frames to learn from; None if none are kept."""
    if config.keep is None or folder is None:
        return None
    from bittern.delivery.kept import KeptFrames, KeptWriter

    return KeptWriter(KeptFrames(folder, config.keep), live=live)


def _open_feed(config: WatchConfig, stop: Stop, *, live: bool, once: bool, every_frame: bool) -> Feed:
    """A camera in a process of its own, or a recording in this one."""
    if live:
        from bittern.camera.supervisor import Camera

        return Camera(
            config.source,
            config.camera,
            timeout_s=config.timeout_s,
            recovery=config.recovery,
            stop=stop,
            once=once,
        )
    source = open_source(config.source, config.camera)
    source.timeout_s = config.timeout_s
    if not every_frame:
        source.thin(config.fps)
    return Recording(source, stop)


def _close(feed: Feed, outlet: Outlet, delivery: Delivery, kept: KeptWriter | None = None) -> None:
    """Close camera and events at the same time: each may have to wait for what hangs, and all must end within 2 s."""

    def close_events() -> None:
        outlet.close(0.4)
        delivery.close(1.0)

    closing = threading.Thread(target=close_events, name="closing", daemon=True)
    closing.start()
    feed.close()
    if kept is not None:
        kept.close(0.5)
    closing.join(1.6)


def _sink_metrics(delivery: Delivery) -> dict[str, SinkMetrics]:
    return {
        sink.name: SinkMetrics(sink.waiting, sink.delivered, sink.refused, sink.dropped)
        for sink in delivery.status().sinks
    }
