"""The interface of every sink."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from bittern.events import AlarmKey, Event
from bittern.frames import Frame


class Undelivered(Exception):
    """One attempt to deliver failed.

    Attributes:
        reason: the cause, in a few words.
        retry_after_s: seconds that the peer asked to wait; None leaves it to the back-off.
        final: the peer will never accept this event: it is counted as refused and skipped.
        unsent: the peer certainly did not receive the event, so a count in it may still be corrected. Otherwise it
            must not change.
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
    """Metrics of the daemon, for sinks that publish them; None if unknown (yet).

    Attributes:
        fps: frames classified per second.
        latency_ms: time from the capture of a frame to its events, in ms.
        temperature_c: temperature of the processor, in °C.
    """

    fps: float | None = None
    latency_ms: float | None = None
    temperature_c: float | None = None


class SinkContext(NamedTuple):
    """What sinks are told of the source that is watched.

    Attributes:
        name: for people, such as the name of the camera.
        alarms: every alarm that can go on, with its threshold, a score from 0 to 1.
        live: a camera, which may be away; else a recording.
        snapshots: the folder of the snapshots; None if there are none.
        kept: the folder of the kept frames; None if none are kept.
        memory: a folder for what a sink has to remember over a restart; None remembers nothing.
        config_file: where the configuration was read; None if it was not a file.
        page: address of a page about the daemon; None if there is none.
    """

    name: str
    alarms: Mapping[AlarmKey, float] = {}
    live: bool = True
    snapshots: Path | None = None
    kept: Path | None = None
    memory: Path | None = None
    config_file: Path | None = None
    page: str | None = None


class Controls(msgspec.Struct, frozen=True):
    """What an owner wants of the running daemon, from the sink that was told last.

    Attributes:
        detection: whether frames are classified.
        thresholds: by alarm, instead of those of the configuration; scores above 0, at most 1.
        restart: end, and start again.
    """

    detection: bool = True
    thresholds: dict[AlarmKey, float] = {}
    restart: bool = False


class Sink(abc.ABC):
    """A destination of events. One thread calls `deliver`, another one `follow` and `expect`, any thread `close`.

    Attributes:
        name: the name of its table in the configuration, such as "mqtt" or "webhook".
        durable: events pass through the outbox. False: best effort, for sinks where only the newest state matters
            (GPIO).
        controls: what the owner wants, from a sink that can be told; a new object whenever that changes.
        connections: how often it has connected to its peer. When it grows, a delivery that failed is tried again at
            once. It stays 0 in sinks that do not keep a connection.
    """

    name: str
    durable: bool
    connections: int = 0
    controls: Controls | None = None

    @abc.abstractmethod
    def deliver(self, event: Event, body: bytes) -> str:
        """Deliver one event and wait for the answer, at most for the sink's time-out.

        Args:
            event: the event.
            body: the event as JSON, without a line break.

        Returns:
            The peer's answer, in a few words.

        Raises:
            Undelivered: the peer did not accept the event.
        """

    def follow(self, event: Event) -> None:  # noqa: B027 - most sinks show no states
        """Take note of an event when it is raised, long before `deliver` if the peer is away; must not block.

        Args:
            event: the event, in their order.
        """

    def see(self, frame: Frame, scores: Mapping[AlarmKey, float]) -> None:  # noqa: B027 - most sinks show no pictures
        """Look at a frame; must not block.

        Args:
            frame: its pixels are valid until this returns.
            scores: of each alarm; empty if the frame decided nothing.
        """

    def expect(self, alarms: Mapping[AlarmKey, float]) -> None:  # noqa: B027 - most sinks need not know
        """Set the alarms that are possible from now on; waiting events of removed ones may still be delivered.

        Called by the main loop, so it must not block.

        Args:
            alarms: every alarm that can go on, with its threshold.
        """

    def agree(self, controls: Controls) -> None:  # noqa: B027 - most sinks cannot be told
        """Take over what the owner wants, which another sink was told.

        Called by the main loop, so it must not block.

        Args:
            controls: what `controls` is from now on.
        """

    def check(self) -> str:
        """Try whatever else the peer must accept; waits as `deliver` does.

        Returns:
            What it accepted, in a few words; "" if there is nothing else.

        Raises:
            Undelivered: the peer did not accept it.
        """
        return ""

    @abc.abstractmethod
    def close(self) -> None:
        """Release everything; a second call does nothing. A `deliver` that is still waiting fails soon after."""
