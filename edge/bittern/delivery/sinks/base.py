"""The interface of every sink."""

from __future__ import annotations

import abc
from collections.abc import Sequence

import msgspec

from bittern.events import AlarmKey, Event


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


class Sink(abc.ABC):
    """A destination of events. Used by one thread only, except for `close`, which another thread calls.

    Attributes:
        name: the name of its table in the configuration, such as "mqtt" or "webhook".
        durable: events pass through the outbox. False: best effort, for sinks where only the newest state matters
            (GPIO).
    """

    name: str
    durable: bool

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

    def expect(self, alarms: Sequence[AlarmKey]) -> None:  # noqa: B027 - most sinks need not know
        """Set the alarms that are possible from now on; waiting events of removed ones may still be delivered.

        Called by the main loop, so it must not block.

        Args:
            alarms: every alarm that can go on.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Release everything; a second call does nothing. A `deliver` that is still waiting fails soon after."""
