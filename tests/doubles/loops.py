"""The loop without camera process and sinks, for tests that bring a source of their own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from bittern import Classifier
from bittern.config.schema import WatchConfig
from bittern.daemon.feed import Feed, Recording
from bittern.daemon.health import Health, model_infos
from bittern.daemon.loop import Loop, Summary
from bittern.daemon.reloader import Reloader
from bittern.decision.pipeline import Pipeline, Step
from bittern.delivery.outlet import Outlet
from bittern.events import Event
from bittern.frames import Source
from bittern.system.stop import Stop


class LiveFeed(Recording):
    """A camera outside, read in this process: a source whose frames come at the loop's rate."""

    live = True

    def rest(self, seconds: float) -> None:
        self._stop.wait(partial(time.sleep, seconds))


def feed_of(source: Source, stop: Stop) -> Feed:
    return LiveFeed(source, stop) if source.live else Recording(source, stop)


def loop_of(feed: Feed, classifiers: Sequence[Classifier], config: WatchConfig, outlet: Outlet, stop: Stop) -> Loop:
    health = Health(model_infos(classifiers))
    return Loop(feed, Pipeline(classifiers, config), config, outlet, Reloader(config), health, stop)


class Watched:
    """A loop over a source; its alarms go to a sink, its states nowhere."""

    def __init__(
        self,
        source: Source,
        classifiers: Sequence[Classifier],
        config: WatchConfig,
        stop: Stop | None = None,
        sink: Callable[[Event], None] = lambda _: None,
    ) -> None:
        self.stop = stop or Stop()
        outlet = Outlet([lambda event: sink(event) if event.type != "state" else None], "test")
        self._loop = loop_of(feed_of(source, self.stop), classifiers, config, outlet, self.stop)

    def steps(self, frames: int | None = None) -> Iterator[Step]:
        """Run until it ends by itself."""
        return (step for step in self._loop.run(frames) if step is not None)

    def run(self, frames: int | None = None) -> Summary:
        """Run until it ends by itself, whatever the steps are."""
        for _ in self.steps(frames):
            pass
        return self.summary

    @property
    def summary(self) -> Summary:
        return self._loop.summary
