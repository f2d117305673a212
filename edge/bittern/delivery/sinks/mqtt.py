"""The sink `[mqtt]`: events to an MQTT broker, with retained states and Home Assistant's discovery."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import secrets
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from bittern.config.schema import MqttConfig
from bittern.delivery.sinks import announced
from bittern.delivery.sinks.base import Controls, Diagnostics, Sink, SinkContext, Undelivered
from bittern.delivery.sinks.controls import Allowance, KeptControls
from bittern.delivery.sinks.homeassistant import (
    OFFLINE,
    ONLINE,
    PATTERNS,
    Entities,
    Publication,
    default_topic,
    device_id,
    discovery_topic,
    old_device,
    to_json,
)
from bittern.delivery.sinks.mqtt_connection import Connection
from bittern.delivery.sinks.withdrawal import Withdrawals
from bittern.delivery.snapshots import jpeg_of
from bittern.errors import ConfigurationError, one_line
from bittern.events import AlarmKey, Event
from bittern.frames import Frame

if TYPE_CHECKING:
    from paho.mqtt import client as paho

_log = logging.getLogger("bittern")

# Minimum time between announcements on one connection, in seconds, however often the broker reports that Home Assistant
# is online.
_PAUSE_S = 1.0
# Interval at which a broker that does not read is looked at.
_POLL_S = 0.1
# Changes that may wait for the publisher; with more, everything is published once instead.
_MAX_CHANGES = 256
# Another daemon with these topics is reported, and answered, at most this often.
_PRESENCE_S = 60.0
# How long Home Assistant may take to note what it is reminded of, in seconds.
_REMINDER_S = 5.0
# Commands to restart are ignored for so long after the start, in seconds: nobody can keep the daemon from watching.
_RESTART_S = 20.0
# How long the last changes may take when the sink is closed, in seconds.
_FAREWELL_S = 0.3
# Of pictures of the camera, on OpenCV's scale.
_QUALITY = 80
# For so long after it has connected, `retained_of` takes what the broker has retained.
_RETAINED_S = 1.0


class Presence(msgspec.Struct, frozen=True):
    """How daemons that use the same topics notice each other.

    Attributes:
        id: random, of one process.
        host: its name.
        pid: process id.
    """

    id: str
    host: str
    pid: int


class MqttSink(Sink):
    """See the module. A delivery returns with the broker's acknowledgement (QoS 1).

    Events go to the event topic, in order and each once at least. States do not wait for them: they are what holds now.
    Retained topics are published at QoS 0, and all of them again at every connection and when Home Assistant starts:
    so a message lost with a connection is corrected, and no old message is repeated after a newer one. "online" is
    published last, so nobody takes a state of an earlier run for one of this.
    """

    name = "mqtt"
    durable = True

    def __init__(
        self,
        config: MqttConfig,
        info: SinkContext,
        diagnostics: Callable[[], Diagnostics],
        *,
        announce: bool = True,
    ) -> None:
        """Start to connect in the background.

        Args:
            config: the table of the configuration.
            info: what sinks are told of the source.
            diagnostics: called every `config.interval_s`, from a thread of its own.
            announce: false only delivers events: no availability, states or discovery, so that a second process can
                test the broker while a daemon runs, without reporting the daemon as "offline".

        Raises:
            ConfigurationError: invalid topics, user, password or certificates; or paho-mqtt is missing.
        """
        self._topic, prefix = topics_of(config, info.name)
        if not config.image:
            info = info._replace(snapshots=None)
        self._config, self._info = config, info
        self._diagnostics = diagnostics
        self._announces = announce
        self._status = f"{prefix}/status"
        self._ignored = 0
        self._presence = Presence(secrets.token_hex(8), socket.gethostname()[:100], os.getpid())
        self._others_s = -_PRESENCE_S  # when another daemon was last reported
        self._confirmed = self._scores_sent = False
        self._fresh = False  # nothing was announced on this connection
        # Discovery topics of earlier runs, to be withdrawn, with the platforms of their components.
        self._old_discoveries: dict[str, dict[str, str]] = {}
        self._home_started = False  # Home Assistant has started, and may know what was removed before
        self._discovery = discovery_topic(prefix, device_id(self._topic)) if config.discovery else ""
        self._temperature = False
        pictures = config.image and (config.commands or config.picture_every_s is not None)
        self._kept = KeptControls(info.memory if config.commands and announce else None)
        self._allowance = Allowance()
        self._started_s = time.monotonic()
        self._scores: Mapping[AlarmKey, float] = {}
        self._frame: Frame | None = None  # a copy, to be published
        self._frame_s = -math.inf  # when it was taken
        self._frame_wanted = config.picture_every_s is not None and pictures
        self._states = threading.Lock()  # guards the next four
        self._entities = Entities(self._topic, info, commands=config.commands, picture=pictures)
        self._entities.controls = self._kept.controls
        self._picture: str | None = None  # of the last alarm, if it is to be published
        self._following = False  # everything was announced on this connection: only changes have to be published
        self._changes: deque[Publication] = deque()
        self._closing = threading.Event()
        self._wake = threading.Event()
        self._announce_requested = False  # set before `_wake`
        self._withdrawals = Withdrawals()
        self._publisher = threading.Thread(target=self._publish, name="mqtt-states", daemon=True)
        will = Publication(self._entities.availability, OFFLINE, True)
        heard = [self._entities.availability, self._entities.presence]
        if config.discovery:
            heard.append(self._status)
        if config.commands:
            heard.append(f"{self._entities.commands}/#")
        self._connection = Connection(
            config,
            self._entities.id,
            will=(will.topic, will.payload) if announce else None,
            subscribe=heard if announce else (),
            connected=self._connected,
            received=self._received,
        )
        if announce:
            self._publisher.start()

    @property
    def ignored(self) -> int:
        """Number of received messages that were ignored."""
        return self._ignored + self._connection.oversized

    @property
    def confirmed(self) -> bool:
        """Whether the broker has confirmed everything that is to be announced, and withdrawn."""
        return self._confirmed and not self._announce_requested

    @property
    def controls(self) -> Controls | None:  # type: ignore[override]
        """See `Sink`."""
        return self._kept.controls if self._announces and self._config.commands else None

    def agree(self, controls: Controls) -> None:
        """See `Sink.agree`."""
        if self.controls is None:
            return
        with self._states:
            self._entities.controls = self._kept.controls = controls
            if self._following:
                self._changes += self._entities.changes(time.monotonic())
        self._wake.set()

    @property
    def connections(self) -> int:  # type: ignore[override]
        """See `Sink`."""
        return self._connection.connections

    def deliver(self, event: Event, body: bytes) -> str:
        """See `Sink.deliver`; waits 10 s at most."""
        self._connection.send_acknowledged(event.id, self._entities.event, body)
        return f"acknowledged by {self._connection.address}"

    def check(self) -> str:
        """Whether the broker lets this user announce the camera; Home Assistant ignores the message. See `Sink`."""
        if not self._discovery:
            return ""
        self._connection.send_acknowledged(self._discovery, self._discovery, b"bittern sinks --test")
        return f"and {self._discovery} may be written"

    def follow(self, event: Event) -> None:
        """Have the states that an event changes published at once; see `Sink.follow`."""
        now_s = time.monotonic()
        with self._states:
            triggers = self._entities.follow(event, now_s)
            if event.snapshot is not None:
                self._picture = event.snapshot
            if self._following:
                self._changes += [*self._entities.changes(now_s), *triggers]
            if len(self._changes) > _MAX_CHANGES:
                self._following, self._announce_requested = False, True
        self._wake.set()

    def see(self, frame: Frame, scores: Mapping[AlarmKey, float]) -> None:
        """Keep the scores, and a copy of the frame if one is to be published; see `Sink.see`."""
        if scores:
            first, self._scores = not self._scores, scores
            if first:
                self._wake.set()
        every_s, now_s = self._config.picture_every_s, time.monotonic()
        due = every_s is not None and self._config.image and now_s - self._frame_s >= every_s
        if not (due or self._frame_wanted) or not self._following:
            return
        self._frame_wanted, self._frame_s = False, now_s
        with contextlib.suppress(MemoryError):  # then without it
            self._frame = msgspec.structs.replace(frame, pixels=frame.pixels.copy())
            self._wake.set()

    def expect(self, alarms: Mapping[AlarmKey, float]) -> None:
        """Soon announce new alarms and withdraw those that no longer exist; see `Sink.expect`."""
        with self._states:
            self._entities.expect(alarms)
            self._following = False
        self._announce_requested = True
        self._wake.set()

    def close(self) -> None:
        """Publish "offline" and disconnect, within two seconds, whatever the broker does."""
        self._closing.set()
        self._wake.set()
        self._withdrawals.close()
        if self._publisher.is_alive():
            self._publisher.join(_FAREWELL_S)
        self._connection.close((self._entities.availability, OFFLINE) if self._announces else None)

    # Called by paho's thread.

    def _connected(self) -> None:
        self._following = False
        self._fresh = True
        self._announce_requested = True
        self._wake.set()

    def _received(self, topic: str | None, payload: bytes) -> None:
        # "offline" for this camera is the word of a connection that the broker has given up only now, or of another
        # daemon.
        if (topic, payload) in ((self._status, ONLINE), (self._entities.availability, OFFLINE)):
            self._home_started |= topic == self._status
            self._announce_requested = True
            self._wake.set()
        elif topic == self._entities.presence:
            self._meet(payload)
        elif topic is not None and topic.startswith(f"{self._entities.commands}/"):
            self._obey(topic, payload)
        elif (topic, payload) not in ((self._status, OFFLINE), (self._entities.availability, ONLINE)):
            self._ignored += 1

    def _obey(self, topic: str, payload: bytes) -> None:
        """Take a command, if it is one, and not one of too many."""
        if not self._allowance.take(time.monotonic()):
            self._ignored += 1
            return
        if topic == f"{self._entities.commands}/snapshot" and payload == b"PRESS" and self._config.image:
            self._frame_wanted = True
            return
        with self._states:
            controls = self._entities.command(topic, payload)
            if controls is not None and controls.restart and time.monotonic() - self._started_s < _RESTART_S:
                controls = None
            if controls is not None:
                self._entities.controls = self._kept.controls = controls
                if self._following:
                    self._changes += self._entities.changes(time.monotonic())
        if controls is None:
            self._ignored += 1
        else:
            _log.info("mqtt: command: %s %s", topic.removeprefix(f"{self._entities.commands}/"), payload.decode())
        self._wake.set()

    def _meet(self, payload: bytes) -> None:
        """Another daemon has these topics, too."""
        try:
            other = msgspec.json.decode(payload, type=Presence)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            self._ignored += 1
            return
        now_s = time.monotonic()
        if other.id == self._presence.id or now_s - self._others_s < _PRESENCE_S:
            return
        self._others_s = now_s
        self._announce_requested = True  # which says the same to the other one
        _log.warning(
            "mqtt: another daemon, process %d on host %.100s, publishes as %r too, so each shows the other's states: "
            "give each camera a name of its own, or mqtt.topic",
            other.pid,
            ascii(other.host)[1:-1],
            self._topic,
        )
        self._wake.set()

    # The publisher's thread.

    def _publish(self) -> None:
        """Body of the thread, which nothing but the end of the sink ends."""
        memory: announced.Memory | None = None
        while not self._closing.is_set():
            try:
                if memory is None:
                    memory = announced.Memory(self._info.memory, self._info.config_file)
                    self._begin_withdrawals(memory)
                self._publish_with(memory)
            except Exception as error:  # no memory, no file descriptors
                _log.error("mqtt: the states are late: %s", one_line(error))
                self._announce_requested = True
                self._closing.wait(_PAUSE_S)

    def _publish_with(self, memory: announced.Memory) -> None:
        """Announce on request, then publish changes, and diagnostics every `interval_s`, until the end."""
        announce_s = diagnostics_s = 0.0  # when each may, or must, come next
        barrier: paho.MQTTMessageInfo | None = None
        while not self._closing.is_set():
            now_s = time.monotonic()
            wait_s = self._config.interval_s
            self._kept.save()
            if not self._connection.connected:
                self._following = False
            elif not self._connection.ready:  # the broker does not read, or not yet
                wait_s = _POLL_S
            elif self._announce_requested and (self._fresh or now_s >= announce_s):
                self._announce_requested = self._fresh = False
                if self._home_started:
                    self._home_started = False
                    if self._remind():  # and announce when it has taken note of that
                        announce_s, self._announce_requested = now_s + _REMINDER_S, True
                        continue
                barrier = self._announce(memory)
                self._confirmed = False
                self._announce_requested |= barrier is None
                announce_s, diagnostics_s = now_s + _PAUSE_S, now_s + self._config.interval_s
                continue
            else:
                self._send_changes(now_s)
                if now_s >= diagnostics_s or (self._scores and not self._scores_sent):
                    diagnostics_s = now_s + self._config.interval_s
                    self._send_diagnostics(self._measure())
                if barrier is not None and barrier.is_published():
                    barrier = None
                    memory.remove(self._own(memory)[1:])
                    self._confirmed = True
                wait_s = min(diagnostics_s - now_s, self._entities.due_s(now_s))
                if barrier is not None:
                    wait_s = min(wait_s, _POLL_S)
                if self._announce_requested:
                    wait_s = min(wait_s, announce_s - now_s)
            self._wake.wait(max(wait_s, 0.001))
            self._wake.clear()
        # What is retained is what was true at the end.
        if self._following and self._connection.connected:
            self._send_changes(time.monotonic())
        self._kept.save()

    def _begin_withdrawals(self, memory: announced.Memory) -> None:
        """Prepare to withdraw what earlier runs announced and what exists no longer."""
        own = self._own(memory)
        self._withdrawals.begin([record for record in memory.records if record not in own], memory)
        with self._states:
            for record in own:
                same = record.discovery == self._discovery
                self._entities.forget(record.topics, dict(record.components) if same else {})
                if record.discovery and not same:
                    self._old_discoveries[record.discovery] = dict(record.components)

    def _own(self, memory: announced.Memory) -> list[announced.Announced]:
        """The records of this broker."""
        return [record for record in memory.records if record.same_broker(self._config)]

    def _announce(self, memory: announced.Memory) -> paho.MQTTMessageInfo | None:
        """Publish everything.

        Returns:
            What tells when the broker has confirmed all of it.
        """
        diagnostics, send = self._measure(), self._connection.send
        self._temperature |= diagnostics.temperature_c is not None
        now_s = time.monotonic()
        with self._states:
            discovery = self._entities.discovery(self._config.interval_s, temperature=self._temperature)
            components = self._entities.components(self._config.interval_s, temperature=self._temperature)
            topics = self._entities.topics()
            states = self._entities.retained(now_s)
            self._entities.changes(now_s)
            self._changes.clear()
            self._following = True
        platforms = {key: str(component["platform"]) for key, component in components.items()}
        memory.add(announced.record(self._config, self._discovery, platforms if self._discovery else {}, topics))
        for topic in self._old_discoveries:
            send(topic, b"", retain=True, qos=1)
        if self._discovery:
            send(self._discovery, to_json(discovery), retain=True, qos=1)
        for topic, payload in states.items():
            send(topic, payload, retain=True)
        self._send_diagnostics(diagnostics)
        self._send_picture()
        send(self._entities.availability, ONLINE, retain=True)
        return send(self._entities.presence, msgspec.json.encode(self._presence), retain=False, qos=1)

    def _remind(self) -> bool:
        """Tell a Home Assistant that has just started of what no longer exists, so that it takes that out.

        Returns:
            Whether there is anything of that kind.
        """
        with self._states:
            message = self._entities.reminder(self._config.interval_s, temperature=self._temperature)
        reminders = [(self._discovery, message)] if message is not None and self._discovery else []
        for topic, components in self._old_discoveries.items():
            reminders.append((topic, old_device(topic.split("/")[-2], components)))
        for topic, reminder in reminders:
            # Not retained: what is retained is without them.
            self._connection.send(topic, to_json(reminder), retain=False, qos=1)
        return bool(reminders)

    def _measure(self) -> Diagnostics:
        diagnostics = self._diagnostics()
        if diagnostics.temperature_c is not None and not self._temperature:  # a sensor that was not there before
            self._announce_requested = True
        return diagnostics

    def _send_changes(self, now_s: float) -> None:
        with self._states:
            changes = [*self._changes, *self._entities.changes(now_s)]
            self._changes.clear()
        for message in changes:
            self._connection.send(message.topic, message.payload, retain=message.retain)
        self._send_picture()

    def _send_diagnostics(self, diagnostics: Diagnostics) -> None:
        self._connection.send(self._entities.diagnostics, msgspec.json.encode(diagnostics), retain=True)
        scores = self._scores
        self._scores_sent = bool(scores)
        self._connection.send(self._entities.scores, self._entities.scores_of(scores), retain=True)

    def _send_picture(self) -> None:
        """Publish the picture of the last alarm, once: each time Home Assistant takes it for a new alarm.

        Publish what the camera shows, too, if that is wanted.
        """
        frame, self._frame = self._frame, None
        if frame is not None:
            jpeg = jpeg_of(frame.pixels, frame.order, _QUALITY)
            self._connection.send(self._entities.picture, jpeg, retain=True)
        picture, self._picture = self._picture, None
        if self._info.snapshots is None or picture is None:
            return
        # It may have been deleted already, to make room for newer ones.
        with contextlib.suppress(OSError):
            # Not with pathlib: see `fileio.atomic`.
            with open(f"{self._info.snapshots}/{picture}", "rb") as stream:  # noqa: PTH123
                data = stream.read()
            # At QoS 1: a connection that is about to be lost would take it along, and it is published only once.
            self._connection.send(self._entities.image, data, retain=True, qos=1)


def topics_of(config: MqttConfig, name: str) -> tuple[str, str]:
    """The prefix of a camera's topics, and Home Assistant's discovery prefix.

    Raises:
        ConfigurationError: one of them cannot be a topic.
    """
    topic = _valid("topic", config.topic or default_topic(name))
    return topic, _valid("discovery_prefix", config.discovery_prefix)


def retained_of(config: MqttConfig, name: str, patience_s: float = 10.0) -> announced.Announced:
    """What a broker retains of a camera, whatever is remembered of it.

    Args:
        config: the table of the configuration.
        name: of the camera, see `SinkContext`.
        patience_s: how long the broker may take to connect, in seconds.

    Raises:
        ConfigurationError: invalid topics, user, password or certificates.
        Undelivered: the broker cannot be reached.
    """
    topic, prefix = topics_of(config, name)
    entities = Entities(topic, SinkContext(name, snapshots=Path()), commands=True, picture=True)
    topics = set(entities.topics())
    connected = threading.Event()
    connection = Connection(
        config,
        entities.id,
        will=None,
        subscribe=[f"{topic}/{pattern}" for pattern in PATTERNS],
        retained=True,
        connected=connected.set,
        received=lambda topic, _: topics.add(topic) if topic is not None else None,
    )
    try:
        if not connected.wait(patience_s):
            raise Undelivered(f"{connection.address}: {connection.trouble}")
        # What is retained follows the subscription at once.
        time.sleep(_RETAINED_S)
    finally:
        connection.close(None)
    return announced.record(config, discovery_topic(prefix, entities.id), {}, sorted(topics))


def _valid(key: str, topic: str) -> str:
    levels = topic.split("/")
    if not all(levels) or not topic.isprintable() or set(topic) & set("+#") or topic[0] == "$" or len(topic) > 200:
        raise ConfigurationError(
            f"mqtt.{key} {topic!r}: expected words separated by slashes, without + and #, at most 200 characters"
        )
    return topic
