"""The loop without camera process and sinks, for tests that bring a source of their own."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from bittern import Classifier
from bittern.config.schema import WatchConfig
from bittern.daemon.health import Health
from bittern.daemon.loop import Seen, Summary, Watch, infos
from bittern.delivery.outlet import Outlet
from bittern.events import Event
from bittern.frames import Source
from bittern.system.stop import Stop


def watch(
    source: Source,
    classifiers: Sequence[Classifier],
    config: WatchConfig,
    sink: Callable[[Event], None],
    stop: Stop,
    *,
    frames: int | None = None,
    observe: Callable[[Seen], None] | None = None,
) -> Summary:
    """Run it until it ends by itself; the sink gets alarms, not states."""
    outlet = Outlet([lambda event: sink(event) if event.type != "state" else None], "test")
    health = Health(infos(classifiers))
    return Watch(source, classifiers, config, outlet, stop, health, deque(), frames=frames, observe=observe).run()
