"""Events to an MQTT broker, with retained states and Home Assistant's discovery."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from bittern.config.schema import MqttConfig
from bittern.delivery.sinks.base import Diagnostics, Sink
from bittern.delivery.sinks.homeassistant import OFFLINE, ONLINE, Entities, slug
from bittern.delivery.sinks.mqtt_connection import Connection
from bittern.errors import ConfigurationError
from bittern.events import AlarmKey, Event

# Announcements are at least so far apart, in seconds, however often the broker says that Home Assistant came.
_PAUSE_S = 1.0


class MqttSink(Sink):
    """See the module. A delivery returns with the broker's acknowledgement (QoS 1).

    Retained topics go out at QoS 0, because they are all published anew at every connection, and when Home Assistant
    starts: what is lost with a connection cannot stay wrong, and nothing old is sent again after something new.
    """

    name = "mqtt"
    durable = True

    def __init__(
        self,
        config: MqttConfig,
        name: str,
        alarms: Sequence[AlarmKey],
        diagnostics: Callable[[], Diagnostics],
        snapshots: Path | None,
        *,
        announce: bool = True,
    ) -> None:
        """Begin to connect, in the background.

        Args:
            config: the table of the configuration.
            name: of the camera.
            alarms: every alarm that can go on.
            diagnostics: asked every `config.interval_s` from a thread of its own.
            snapshots: the folder of the pictures; None publishes none.
            announce: false only delivers events: no availability, states or discovery, so that a second process can
                try the broker beside a daemon without saying "offline" for it.

        Raises:
            ConfigurationError: topics, user, password or certificates that cannot be right; paho-mqtt is missing.
        """
        topic = _valid("topic", config.topic or f"bittern/{slug(name) or 'camera'}")
        self._prefix = _valid("discovery_prefix", config.discovery_prefix)
        self._config = config
        self._diagnostics = diagnostics
        self._snapshots = snapshots if config.image else None
        self._announces = announce
        self._status = f"{self._prefix}/status"
        self._ignored = 0
        self._states = threading.Lock()  # guards the next two, and the order in which they are published
        self._entities = Entities(topic, name, alarms)
        self._picture: str | None = None
        self._expected: deque[Sequence[AlarmKey]] = deque(maxlen=1)  # to be taken over by whoever publishes next
        self._closing = threading.Event()
        self._wake = threading.Event()
        self._wanted = False  # a whole announcement; set before `_wake` is
        self._speaker = threading.Thread(target=self._speak, name="mqtt-states", daemon=True)
        self._connection = Connection(
            config,
            self._entities.id,
            will=(self._entities.availability, OFFLINE) if announce else None,
            subscribe=self._status if announce and config.discovery else None,
            connected=self._want,
            received=self._received,
        )
        if announce:
            self._speaker.start()

    @property
    def ignored(self) -> int:
        """Messages that came and meant nothing here."""
        return self._ignored + self._connection.oversized

    def deliver(self, event: Event, body: bytes) -> str:
        """See `Sink.deliver`; waits for 10 s at most."""
        self._connection.acknowledged(event.id, self._entities.event, body)
        if self._announces:
            self._follow(event)
        return f"acknowledged by {self._connection.address}"

    def expect(self, alarms: Sequence[AlarmKey]) -> None:
        """Announce other alarms soon, and remove those that are gone; see `Sink.expect`."""
        self._expected.append(alarms)
        self._want()

    def close(self) -> None:
        """Say "offline" and disconnect, within two seconds, whatever the broker does."""
        self._closing.set()
        self._wake.set()
        self._connection.close((self._entities.availability, OFFLINE) if self._announces else None)
        if self._speaker.is_alive():
            self._speaker.join(_PAUSE_S / 2)

    def _follow(self, event: Event) -> None:
        """Publish what an event changed."""
        with self._states:
            self._take_over()
            for topic, said in self._entities.take(event).items():
                self._connection.send(topic, said, retain=True)
            if event.snapshot is not None:
                self._picture = event.snapshot
                self._send_picture()

    def _received(self, topic: str | None, payload: bytes) -> None:
        if topic == self._status and payload == ONLINE:
            self._want()
        elif topic != self._status or payload != OFFLINE:
            self._ignored += 1

    def _want(self) -> None:
        """Let everything be announced soon."""
        self._wanted = True
        self._wake.set()

    def _speak(self) -> None:
        """The thread that announces when it is asked to, and publishes diagnostics every `interval_s`."""
        while not self._closing.is_set():
            self._wake.wait(self._config.interval_s - _PAUSE_S)
            self._wake.clear()
            if self._connection.ready:
                if self._wanted:
                    self._wanted = False
                    self._announce()
                said = msgspec.json.encode(self._diagnostics())
                self._connection.send(self._entities.diagnostics, said, retain=False)
            elif self._wanted:
                self._wake.set()
            self._closing.wait(_PAUSE_S)

    def _take_over(self) -> None:
        """Go over to the alarms that are expected by now; the caller holds `_states`, and announces soon."""
        while self._expected:
            self._entities.expect(self._expected.popleft())

    def _announce(self) -> None:
        with self._states:
            self._take_over()
            if self._config.discovery:
                found = self._entities.discovery(
                    self._prefix, self._config.interval_s, image=self._snapshots is not None
                )
                self._connection.send(*found, retain=True)
            self._connection.send(self._entities.availability, ONLINE, retain=True)
            for topic, said in self._entities.retained().items():
                self._connection.send(topic, said, retain=True)
            self._send_picture()

    def _send_picture(self) -> None:
        if self._snapshots is None or self._picture is None:
            return
        try:
            # Not by pathlib: see `fileio.atomic`.
            with open(f"{self._snapshots}/{self._picture}", "rb") as opened:  # noqa: PTH123
                picture = opened.read()
        except OSError:  # the ring has moved on
            self._picture = None
        else:
            self._connection.send(self._entities.image, picture, retain=True)


def _valid(key: str, topic: str) -> str:
    words = topic.split("/")
    if not all(words) or not topic.isprintable() or set(topic) & set("+#") or topic[0] == "$" or len(topic) > 200:
        raise ConfigurationError(
            f"mqtt.{key} {topic!r}: expected words with slashes between them, without + and #, at most 200 characters"
        )
    return topic
