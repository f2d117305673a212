"""What every sink keeps to."""

from __future__ import annotations

import abc
from collections.abc import Sequence

import msgspec

from bittern.events import AlarmKey, Event


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

    def expect(self, alarms: Sequence[AlarmKey]) -> None:  # noqa: B027 - most sinks need not know
        """Other alarms can be on from now on; of those that are gone, what waits may still be delivered.

        Called by the main loop: it must not wait.

        Args:
            alarms: every alarm that can go on.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Let go of everything; a second call does nothing. A `deliver` that is still waiting fails soon after."""
