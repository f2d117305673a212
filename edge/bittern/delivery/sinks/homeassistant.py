"""A camera's MQTT topics, their retained states, and Home Assistant's discovery message; does no networking.

Field names are those of Home Assistant's MQTT integration (device discovery, since 2024.11):
https://www.home-assistant.io/integrations/mqtt/#device-discovery-payload, and the pages of its platforms sensor,
binary_sensor and image.
"""

from __future__ import annotations

import hashlib
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from bittern.events import AlarmKey, Event
from bittern.version import __version__

ONLINE, OFFLINE = b"online", b"offline"
NOTHING = "nothing"


def slug(text: str) -> str:
    """Lower-case letters, digits and single underscores, at most 64: "Haustür links" becomes "haustur_links"."""
    plain = unicodedata.normalize("NFKD", text.casefold()).encode("ascii", "ignore").decode()
    return re.sub("[^a-z0-9]+", "_", plain)[:64].strip("_")


def slugs(names: Iterable[str]) -> dict[str, str]:
    """A unique slug for each name: if two would have the same slug, or one an empty slug, a digest is added.

    It does not depend on the order of the names, so topics stay the same.
    """
    by_slug: dict[str, list[str]] = {}
    for name in set(names):
        by_slug.setdefault(slug(name), []).append(name)
    return {
        name: base if base and (len(same) == 1 or name == base) else f"{base}_{_digest(name)}".lstrip("_")
        for base, same in by_slug.items()
        for name in same
    }


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


class Entities:
    """The topics of one camera and their retained payloads. Not thread-safe.

    States follow the delivered events, in their order: after an outage the last one is right. An event
    `state: started` switches all alarms off: it comes from a new process, which starts with all of them off.

    Attributes:
        event: topic of the events.
        availability: topic that is "online" or "offline".
        image: topic of the last alarm's picture.
        diagnostics: topic of `Diagnostics` as JSON.
        id: id of the device: letters, digits and underscores.
    """

    def __init__(self, topic: str, name: str, alarms: Sequence[AlarmKey]) -> None:
        """See the class.

        Args:
            topic: prefix of every topic.
            name: display name of the camera.
            alarms: all possible alarms.
        """
        self.event = f"{topic}/event"
        self.availability = f"{topic}/availability"
        self.image = f"{topic}/image"
        self.diagnostics = f"{topic}/diagnostics"
        self.id = slug(topic) or _digest(topic)
        self._name = name
        self._state_topic = f"{topic}/state"
        self._state = "started"
        self._on: dict[AlarmKey, None] = {}  # in the order in which they went on
        self._topic = topic
        self._label_topics: dict[str, str] = {}  # by model
        self._alarm_topics: dict[AlarmKey, str] = {}
        self._alarm_names: dict[AlarmKey, str] = {}
        self._removed: set[str] = set()  # topics of labels and alarms that no longer exist
        self.expect(alarms)

    def expect(self, alarms: Sequence[AlarmKey]) -> None:
        """Set the possible alarms; those that are on and still possible stay on.

        Topics and entities of the others are removed. `retained` and `discovery` include the removal for the rest of
        this object's life, because the broker or Home Assistant may be offline at the time.
        """
        before = {*self._label_topics.values(), *self._alarm_topics.values()}
        models = slugs(alarm.model for alarm in alarms)
        self._label_topics = {model: f"{self._topic}/label/{models[model]}" for model in models}
        self._alarm_topics, self._alarm_names = {}, {}
        for model in models:
            names = _names([alarm for alarm in alarms if alarm.model == model])
            unique = slugs(names.values())
            for alarm, name in names.items():
                self._alarm_topics[alarm] = f"{self._topic}/alarm/{models[model]}/{unique[name]}"
                self._alarm_names[alarm] = f"{_spaced(model)} {_spaced(name)}"
        self._on = {alarm: None for alarm in self._on if alarm in self._alarm_topics}
        self._removed = (self._removed | before) - {*self._label_topics.values(), *self._alarm_topics.values()}

    def retained(self) -> dict[str, bytes]:
        """All topics with their payloads; an empty payload, which ends retention, for topics that were removed."""
        labels = dict.fromkeys(self._label_topics, NOTHING)
        labels |= {alarm.model: alarm.label for alarm in self._on}  # of several, the one that went on last
        return {
            self._state_topic: self._state.encode(),
            **{topic: labels[model].encode() for model, topic in self._label_topics.items()},
            **{topic: b"ON" if alarm in self._on else b"OFF" for alarm, topic in self._alarm_topics.items()},
            **dict.fromkeys(self._removed, b""),
        }

    def take(self, event: Event) -> dict[str, bytes]:
        """Follow one event. Returns the changes in `retained`."""
        before = self.retained()
        if event.type == "state" and event.state is not None:
            self._state = event.state
            if event.state == "started":
                self._on.clear()
        alarm = event.alarm
        if alarm is not None and alarm in self._alarm_topics:
            if event.type == "alarm.on":
                self._on.pop(alarm, None)
                self._on[alarm] = None
            elif event.type == "alarm.off":
                self._on.pop(alarm, None)
        return {topic: payload for topic, payload in self.retained().items() if before[topic] != payload}

    def discovery(self, prefix: str, interval_s: float, *, image: bool) -> tuple[str, bytes]:
        """Topic and payload of the one message that announces the device and its entities.

        Args:
            prefix: Home Assistant's discovery prefix, "homeassistant".
            interval_s: time between two sets of diagnostics, in seconds; they expire after three intervals.
            image: whether pictures are published.
        """
        components: dict[str, Mapping[str, Any]] = {
            "state": {
                "platform": "sensor",
                "name": "state",
                "state_topic": self._state_topic,
                "entity_category": "diagnostic",
            }
        }
        for model, topic in self._label_topics.items():
            components[self._key(topic)] = {
                "platform": "sensor",
                "name": _spaced(model),
                "state_topic": topic,
            }
        for alarm, topic in self._alarm_topics.items():
            components[self._key(topic)] = {
                "platform": "binary_sensor",
                "name": self._alarm_names[alarm],
                "state_topic": topic,
            }
        if image:
            components["image"] = {
                "platform": "image",
                "name": "last alarm",
                "image_topic": self.image,
                "content_type": "image/jpeg",
            }
        for key, name, extra in (
            ("fps", "frames per second", {"unit_of_measurement": "fps"}),
            ("latency_ms", "latency", {"device_class": "duration", "unit_of_measurement": "ms"}),
            ("temperature_c", "temperature", {"device_class": "temperature", "unit_of_measurement": "°C"}),
        ):
            components[key] = {
                "platform": "sensor",
                "name": name,
                "state_topic": self.diagnostics,
                "value_template": f"{{{{ value_json.{key} }}}}",
                "state_class": "measurement",
                "suggested_display_precision": 1,
                "entity_category": "diagnostic",
                "expire_after": math.ceil(3 * interval_s),
                **extra,
            }
        payload = {
            "device": {
                "identifiers": [self.id],
                "name": self._name,
                "manufacturer": "Bittern",
                "model": ", ".join(self._label_topics) or "camera",
                "sw_version": __version__,
            },
            "origin": {"name": "bittern", "sw_version": __version__},
            "availability_topic": self.availability,
            # Slugs contain no double underscore, so these are unique.
            "components": {
                f"{self.id}__{key}": {"unique_id": f"{self.id}__{key}", **component}
                for key, component in components.items()
            }
            # An entity with only a platform is removed.
            | {
                f"{self.id}__{key}": {"platform": "sensor" if key.startswith("label__") else "binary_sensor"}
                for key in map(self._key, sorted(self._removed))
            },
        }
        return f"{prefix}/device/{self.id}/config", msgspec.json.encode(payload)

    def _key(self, topic: str) -> str:
        """Key of the entity of a label's or an alarm's topic."""
        return topic.removeprefix(f"{self._topic}/").replace("/", "__")


def _names(alarms: Sequence[AlarmKey]) -> dict[AlarmKey, str]:
    """Names for the alarms of one model: the label, with the task in front if two tasks have that label."""
    labels = [label for _, label in {(alarm.task, alarm.label) for alarm in alarms}]
    return {alarm: alarm.label if labels.count(alarm.label) == 1 else f"{alarm.task} {alarm.label}" for alarm in alarms}


def _spaced(name: str) -> str:
    return name.replace("_", " ")
