"""Opens what a configuration names (camera, sinks, snapshots, figures), runs the loop, and closes it all again."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bittern import events
from bittern.config import schema as configuration
from bittern.config.schema import WatchConfig
from bittern.daemon.health import Health, SinkFigures
from bittern.daemon.loop import Seen, Summary, Watch, infos
from bittern.delivery.dispatch import Delivery
from bittern.delivery.outlet import Outlet
from bittern.delivery.sinks.base import Diagnostics
from bittern.delivery.sinks.registry import DURABLE, open_sinks
from bittern.errors import BitternError
from bittern.model.classifier import Classifier
from bittern.sources.registry import check_source, open_source
from bittern.system.stop import Stop

if TYPE_CHECKING:
    from bittern.camera.supervisor import Camera
    from bittern.delivery.outbox import Outbox
    from bittern.frames import Source

_log = logging.getLogger("bittern")


def run(
    config: WatchConfig,
    classifiers: Sequence[Classifier],
    out: Callable[[bytes], None],
    stop: Stop,
    *,
    file: Path | None = None,
    frames: int | None = None,
    once: bool = False,
    observe: Callable[[Seen], None] | None = None,
    begun: Callable[[str], None] = lambda _: None,
) -> tuple[Summary, int]:
    """Watch until `stop` is asked, a recorded source ends, or enough frames came.

    Args:
        config: see there.
        classifiers: the models it names, opened.
        out: takes every event as a line of JSON, whatever other sinks there are.
        stop: see `Stop`.
        file: where the configuration was read: a reload looks there for the names of models.
        frames: how many to take at most.
        once: give up if the camera cannot be opened at the start.
        observe: called once a classified frame and model.
        begun: called with the name of the source when it was read for the first time.

    Returns:
        What the loop did, and how many pictures of a folder could not be read.

    Raises:
        ConfigurationError: a table that cannot be right, a library that is missing, a port that is taken, an outbox
            that another process uses.
        BitternError: a part of the daemon broke.
        SourceError: see `Watch.run`.
    """
    checked = check_source(config.source, config.camera)
    name = config.name or checked.name
    health = Health(infos(classifiers))
    with contextlib.ExitStack() as opened:
        # Before anything that a daemon of the same configuration may be doing already.
        box = _claimed(config, name)
        held = opened.enter_context(contextlib.ExitStack())
        if box is not None:
            held.callback(box.close)
        if config.health is not None:
            from bittern.daemon.prometheus import MetricsServer

            page = MetricsServer(health, config.health)
            opened.callback(page.close)
            _log.info("figures for Prometheus: http://%s:%d/metrics", config.health.host, page.port)
        ring = None
        if config.snapshots is not None:
            from bittern.delivery.snapshots import Ring, default_folder

            folder = Path(config.snapshots.folder) if config.snapshots.folder else default_folder(name)
            ring = Ring(folder, config.snapshots.budget_mb, config.snapshots.quality)
        sinks = open_sinks(
            config, name, lambda: _diagnostics(health), alarms=_alarms(classifiers),
            snapshots=ring.folder if ring else None,
        )  # fmt: skip
        delivery = Delivery(config.outbox, sinks, name, box)
        held.pop_all()  # from here on it is closed with the rest
        health.sinks = lambda: {
            s.name: SinkFigures(s.waiting, s.delivered, s.refused, s.dropped) for s in delivery.status().sinks
        }
        # The outbox first: an event that cannot be printed is not lost.
        outlet = Outlet([delivery.send, lambda event: out(events.to_line(event))], name, ring)
        states: deque[tuple[str, str]] = deque()
        source: Source | Camera
        if checked.live:
            from bittern.camera.supervisor import Camera

            source = Camera(
                config.source, config.camera, timeout_s=config.timeout_s, recovery=config.recovery, stop=stop,
                once=once, states=lambda state, detail: states.append((state, detail)),
            )  # fmt: skip
        else:
            source = open_source(config.source, config.camera)
            source.timeout_s = config.timeout_s
        opened.callback(_close, source, outlet, delivery)

        def exchanged(models: Sequence[Classifier]) -> None:
            for sink in sinks:
                sink.expect(_alarms(models))

        loop = Watch(
            source, classifiers, config, outlet, stop, health, states, frames=frames, observe=observe,
            models=lambda: (configuration.load(file) if file is not None else config).models,
            broken=lambda: outlet.failed or delivery.failed, begun=lambda: begun(name),
            exchanged=exchanged,
        )  # fmt: skip
        summary = loop.run()
        if not stop.asked:
            # It ended by itself, and is not in a hurry: a program that takes a while for an event need not be killed.
            source.close()
            outlet.drain(lambda: stop.asked)
            delivery.drain(lambda: stop.asked)
            if (why := outlet.failed or delivery.failed) is not None:
                raise BitternError(why)
        return summary, source.skipped


def _alarms(classifiers: Sequence[Classifier]) -> list[tuple[str, str, str]]:
    """Model, task and label of every alarm that there can be."""
    return [(c.name, head.task, label) for c in classifiers for head in c.heads for label in head.alarm]


def _claimed(config: WatchConfig, name: str) -> Outbox | None:
    """The outbox, for this process alone; None where no sink stands behind one."""
    durable = [sink for sink in DURABLE if getattr(config, sink) is not None]
    if not durable:
        return None
    from bittern.delivery import outbox

    box = outbox.Outbox(outbox.folder(config.outbox, name), durable, name, config.outbox.max_events)
    box.claim()
    return box


def _close(source: Source | Camera, outlet: Outlet, delivery: Delivery) -> None:
    """Camera and events at the same time: each may have to wait for what hangs, and all has to end within 2 s."""

    def end() -> None:
        outlet.close(0.4)
        delivery.close(1.0)

    ending = threading.Thread(target=end, name="closing", daemon=True)
    ending.start()
    source.close()
    ending.join(1.6)


def _diagnostics(health: Health) -> Diagnostics:
    fps, age_s = health.rate()
    return Diagnostics(round(fps, 2), None if age_s is None else round(1000 * age_s, 1), health.board().temperature_c)
