"""The sink `[mqtt]`: events to an MQTT broker, with retained states and Home Assistant's discovery."""

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

# Minimum time between announcements, in seconds, however often the broker reports that Home Assistant is online.
_PAUSE_S = 1.0


class MqttSink(Sink):
    """See the module. A delivery returns with the broker's acknowledgement (QoS 1).

    Retained topics are published at QoS 0, and all of them again at every connection and when Home Assistant starts:
    so a message lost with a connection is corrected, and no old message is repeated after a newer one.
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
        """Start to connect in the background.

        Args:
            config: the table of the configuration.
            name: name of the camera.
            alarms: every alarm that can go on.
            diagnostics: called every `config.interval_s`, from a thread of its own.
            snapshots: the folder of the pictures; None publishes none.
            announce: false only delivers events: no availability, states or discovery, so that a second process can
                test the broker while a daemon runs, without reporting the daemon as "offline".

        Raises:
            ConfigurationError: invalid topics, user, password or certificates; or paho-mqtt is missing.
        """
        topic = _valid("topic", config.topic or f"bittern/{slug(name) or 'camera'}")
        self._prefix = _valid("discovery_prefix", config.discovery_prefix)
        self._config = config
        self._diagnostics = diagnostics
        self._snapshots = snapshots if config.image else None
        self._announces = announce
        self._status = f"{self._prefix}/status"
        self._ignored = 0
        self._states = threading.Lock()  # guards the next two and the order in which they are published
        self._entities = Entities(topic, name, alarms)
        self._picture: str | None = None
        self._new_alarms: deque[Sequence[AlarmKey]] = deque(maxlen=1)  # applied by the next thread that publishes
        self._closing = threading.Event()
        self._wake = threading.Event()
        self._announce_requested = False  # set before `_wake`
        self._publisher = threading.Thread(target=self._publish_states, name="mqtt-states", daemon=True)
        self._connection = Connection(
            config,
            self._entities.id,
            will=(self._entities.availability, OFFLINE) if announce else None,
            subscribe=self._status if announce and config.discovery else None,
            connected=self._request_announcement,
            received=self._received,
        )
        if announce:
            self._publisher.start()

    @property
    def ignored(self) -> int:
        """Number of received messages that were ignored."""
        return self._ignored + self._connection.oversized

    def deliver(self, event: Event, body: bytes) -> str:
        """See `Sink.deliver`; waits 10 s at most."""
        self._connection.send_acknowledged(event.id, self._entities.event, body)
        if self._announces:
            self._follow(event)
        return f"acknowledged by {self._connection.address}"

    def expect(self, alarms: Sequence[AlarmKey]) -> None:
        """Soon announce new alarms and withdraw those that no longer exist; see `Sink.expect`."""
        self._new_alarms.append(alarms)
        self._request_announcement()

    def close(self) -> None:
        """Publish "offline" and disconnect, within two seconds, whatever the broker does."""
        self._closing.set()
        self._wake.set()
        self._connection.close((self._entities.availability, OFFLINE) if self._announces else None)
        if self._publisher.is_alive():
            self._publisher.join(_PAUSE_S / 2)

    def _follow(self, event: Event) -> None:
        """Publish the states that an event changes."""
        with self._states:
            self._update_alarms()
            for topic, payload in self._entities.take(event).items():
                self._connection.send(topic, payload, retain=True)
            if event.snapshot is not None:
                self._picture = event.snapshot
                self._send_picture()

    def _received(self, topic: str | None, payload: bytes) -> None:
        if topic == self._status and payload == ONLINE:
            self._request_announcement()
        elif topic != self._status or payload != OFFLINE:
            self._ignored += 1

    def _request_announcement(self) -> None:
        """Have everything announced soon."""
        self._announce_requested = True
        self._wake.set()

    def _publish_states(self) -> None:
        """Body of the thread: announce on request, and publish diagnostics every `interval_s`."""
        while not self._closing.is_set():
            self._wake.wait(self._config.interval_s - _PAUSE_S)
            self._wake.clear()
            if self._connection.ready:
                if self._announce_requested:
                    self._announce_requested = False
                    self._announce()
                payload = msgspec.json.encode(self._diagnostics())
                self._connection.send(self._entities.diagnostics, payload, retain=False)
            elif self._announce_requested:
                self._wake.set()
            self._closing.wait(_PAUSE_S)

    def _update_alarms(self) -> None:
        """Apply the alarms of the last `expect`; the caller holds `_states` and announces soon."""
        while self._new_alarms:
            self._entities.expect(self._new_alarms.popleft())

    def _announce(self) -> None:
        with self._states:
            self._update_alarms()
            if self._config.discovery:
                topic, payload = self._entities.discovery(
                    self._prefix, self._config.interval_s, image=self._snapshots is not None
                )
                self._connection.send(topic, payload, retain=True)
            self._connection.send(self._entities.availability, ONLINE, retain=True)
            for topic, payload in self._entities.retained().items():
                self._connection.send(topic, payload, retain=True)
            self._send_picture()

    def _send_picture(self) -> None:
        if self._snapshots is None or self._picture is None:
            return
        try:
            # Not with pathlib: see `fileio.atomic`.
            with open(f"{self._snapshots}/{self._picture}", "rb") as stream:  # noqa: PTH123
                picture = stream.read()
        except OSError:  # already deleted to make room for newer ones
            self._picture = None
        else:
            self._connection.send(self._entities.image, picture, retain=True)


def _valid(key: str, topic: str) -> str:
    levels = topic.split("/")
    if not all(levels) or not topic.isprintable() or set(topic) & set("+#") or topic[0] == "$" or len(topic) > 200:
        raise ConfigurationError(
            f"mqtt.{key} {topic!r}: expected words separated by slashes, without + and #, at most 200 characters"
        )
    return topic
