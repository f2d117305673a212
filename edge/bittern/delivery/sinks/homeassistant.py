"""What MQTT shows of a camera: topics, their retained states, Home Assistant's discovery; no network in here.

Names of fields are those of Home Assistant's MQTT integration (device discovery, since 2024.11):
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
    """Small letters, digits and single underscores, at most 64 of them: "Haustür links" becomes "haustur_links"."""
    plain = unicodedata.normalize("NFKD", text.casefold()).encode("ascii", "ignore").decode()
    return re.sub("[^a-z0-9]+", "_", plain)[:64].strip("_")


def slugs(names: Iterable[str]) -> dict[str, str]:
    """A slug for each name, no two alike: names whose slugs would be the same, or empty, get a digest of their own.

    It does not depend on the order of the names, so that a topic stays what it is.
    """
    names = set(names)
    same: dict[str, list[str]] = {}
    for name in names:
        same.setdefault(slug(name), []).append(name)
    return {
        name: found if found and (len(alike) == 1 or name == found) else f"{found}_{_digest(name)}".lstrip("_")
        for found, alike in same.items()
        for name in alike
    }


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


class Entities:
    """The topics of one camera, and what is retained under them. Not for several threads at once.

    States come from the events that were delivered, in their order: after an outage the last one is right. An event
    `state: started` says that a process began, whose alarms are all off: what the one before left on, ends there.

    Attributes:
        event: topic of the events.
        availability: topic that says "online" or "offline".
        image: topic of the last alarm's picture.
        diagnostics: topic of `Diagnostics` as JSON.
        id: of the device, of letters, digits and underscores.
    """

    def __init__(self, topic: str, name: str, alarms: Sequence[AlarmKey]) -> None:
        """See the class.

        Args:
            topic: what every topic begins with.
            name: of the camera, for people.
            alarms: those that can be on.
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
        self._gone: set[str] = set()  # topics of labels and alarms of before
        self.expect(alarms)

    def expect(self, alarms: Sequence[AlarmKey]) -> None:
        """From now on these alarms can be on; of those that are on, the ones among them stay on.

        Topics and entities of the others end: they are among `retained` and in `discovery` as long as this lives,
        because broker or Home Assistant may be away when it happens.
        """
        before = {*self._label_topics.values(), *self._alarm_topics.values()}
        models = slugs(alarm.model for alarm in alarms)
        self._label_topics = {model: f"{self._topic}/label/{models[model]}" for model in models}
        self._alarm_topics, self._alarm_names = {}, {}
        for model in models:
            names = _names([alarm for alarm in alarms if alarm.model == model])
            unique = slugs(names.values())
            for alarm, said in names.items():
                self._alarm_topics[alarm] = f"{self._topic}/alarm/{models[model]}/{unique[said]}"
                self._alarm_names[alarm] = f"{_spaced(model)} {_spaced(said)}"
        self._on = {alarm: None for alarm in self._on if alarm in self._alarm_topics}
        self._gone = (self._gone | before) - {*self._label_topics.values(), *self._alarm_topics.values()}

    def retained(self) -> dict[str, bytes]:
        """Topics and what they must say now; nothing at all, which ends their being retained, where they are gone."""
        labels = dict.fromkeys(self._label_topics, NOTHING)
        labels |= {alarm.model: alarm.label for alarm in self._on}  # of several, the one that went on last
        return {
            self._state_topic: self._state.encode(),
            **{topic: labels[model].encode() for model, topic in self._label_topics.items()},
            **{topic: b"ON" if alarm in self._on else b"OFF" for alarm, topic in self._alarm_topics.items()},
            **dict.fromkeys(self._gone, b""),
        }

    def take(self, event: Event) -> dict[str, bytes]:
        """Follow one event; what changed of `retained`."""
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
        return {topic: said for topic, said in self.retained().items() if before[topic] != said}

    def discovery(self, prefix: str, interval_s: float, *, image: bool) -> tuple[str, bytes]:
        """Topic and payload of the one message that announces the device and its entities.

        Args:
            prefix: of Home Assistant's discovery, "homeassistant".
            interval_s: between two sets of diagnostics, in seconds; they expire after three.
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
            ("fps", "frames a second", {"unit_of_measurement": "fps"}),
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
            # Slugs hold no double underscore: no two of these can be the same.
            "components": {
                f"{self.id}__{key}": {"unique_id": f"{self.id}__{key}", **component}
                for key, component in components.items()
            }
            # An entity with its platform only is removed.
            | {
                f"{self.id}__{key}": {"platform": "sensor" if key.startswith("label__") else "binary_sensor"}
                for key in map(self._key, sorted(self._gone))
            },
        }
        return f"{prefix}/device/{self.id}/config", msgspec.json.encode(payload)

    def _key(self, topic: str) -> str:
        """Of the entity that a label's or an alarm's topic belongs to."""
        return topic.removeprefix(f"{self._topic}/").replace("/", "__")


def _names(alarms: Sequence[AlarmKey]) -> dict[AlarmKey, str]:
    """What the alarms of one model are called: by the label, and by the task too where two tasks have that label."""
    labels = [label for _, label in {(alarm.task, alarm.label) for alarm in alarms}]
    return {alarm: alarm.label if labels.count(alarm.label) == 1 else f"{alarm.task} {alarm.label}" for alarm in alarms}


def _spaced(name: str) -> str:
    return name.replace("_", " ")
