"""Where events go: what every sink keeps to, and which ones a configuration names."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from bittern.config import WatchConfig
from bittern.events import Event

# The names of the sinks that stand behind the outbox (network, programs); they are those of their tables.
DURABLE = ("mqtt", "webhook", "command")


class Undelivered(Exception):
    """One attempt to deliver failed.

    Attributes:
        reason: why, in a few words.
        retry_after_s: seconds that the peer asked to wait; None leaves it to the back-off.
        final: the peer will never take this event: it is counted as refused, and skipped.
        unsent: the peer certainly has not got it, so that a count in it may still be corrected; where that is not
            known, the event stays as it is.
    """

    def __init__(
        self, reason: str, *, retry_after_s: float | None = None, final: bool = False, unsent: bool = False
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after_s = retry_after_s
        self.final = final
        self.unsent = unsent


class Diagnostics(msgspec.Struct, frozen=True):
    """How the daemon is, for sinks that publish it; None is not known (yet).

    Attributes:
        fps: frames classified a second.
        latency_ms: from the capture of a frame to its events.
        temperature_c: of the processor.
    """

    fps: float | None = None
    latency_ms: float | None = None
    temperature_c: float | None = None


class Sink(abc.ABC):
    """One place that events go to. It is used by one thread only, but for `close`, which comes from another one.

    Attributes:
        name: "mqtt", "webhook", ... : the name of its table in the configuration.
        durable: it stands behind the outbox (network). False: best effort, where only the newest state matters (GPIO).
    """

    name: str
    durable: bool

    @abc.abstractmethod
    def deliver(self, event: Event, body: bytes) -> str:
        """Hand over one event and wait for the answer, for as long as the sink's time-out at most.

        Args:
            event: the event.
            body: the same as JSON, without a line break.

        Returns:
            What the peer answered, in a few words.

        Raises:
            Undelivered: it did not take the event.
        """

    def expect(self, alarms: Sequence[tuple[str, str, str]]) -> None:  # noqa: B027 - most sinks need not know
        """Other alarms can be on from now on; of those that are gone, what waits may still be delivered.

        Called by the main loop: it must not wait.

        Args:
            alarms: model, task and label of each.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Let go of everything; a second call does nothing. A `deliver` that is still waiting fails soon after."""


def open_sinks(
    config: WatchConfig,
    name: str,
    diagnostics: Callable[[], Diagnostics],
    *,
    alarms: Sequence[tuple[str, str, str]] = (),
    snapshots: Path | None = None,
    announce: bool = True,
) -> list[Sink]:
    """The sinks that have a table in the configuration, opened. Only their modules are imported.

    Args:
        config: the configuration.
        name: what events call the source.
        diagnostics: asked now and then, from another thread.
        alarms: model, task and label of every alarm that there can be, for a sink that announces them.
        snapshots: the folder of the snapshots, for a sink that sends them on; None if there are none.
        announce: false only delivers events, so that a second process can try a peer beside a daemon.

    Raises:
        ConfigurationError: a table that cannot be right, or a library that is missing.
    """
    sinks: list[Sink] = []
    try:
        if config.mqtt is not None:
            from bittern.sinks.mqtt import MqttSink

            sinks.append(MqttSink(config.mqtt, name, alarms, diagnostics, snapshots, announce=announce))
        if config.webhook is not None:
            from bittern.sinks.webhook import WebhookSink

            sinks.append(WebhookSink(config.webhook))
        if config.command is not None:
            from bittern.sinks.command import CommandSink

            sinks.append(CommandSink(config.command))
        if config.gpio is not None:
            from bittern.sinks.gpio import GpioSink

            sinks.append(GpioSink(config.gpio))
    except BaseException:
        for sink in sinks:
            sink.close()
        raise
    return sinks
