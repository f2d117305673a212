"""A camera's MQTT topics, their retained states, and Home Assistant's discovery message; does no networking.

Field names are those of Home Assistant's MQTT integration (device discovery, since 2024.11):
https://www.home-assistant.io/integrations/mqtt/#device-discovery-payload, and the pages of its platforms.
"""

from __future__ import annotations

import hashlib
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from bittern.delivery.sinks.base import Controls, SinkContext
from bittern.events import AlarmKey, Event
from bittern.version import __version__

ONLINE, OFFLINE = b"online", b"offline"
NOTHING = "nothing"
# Below the prefix of the topics, those whose names depend on the models.
PATTERNS = ("label/+", "alarm/+/+", "threshold/+/+")
# States that begin and are over at once: they are shown for this many seconds, and then again what holds.
MOMENTARY_S = 2.0
# When a camera is back, an alarm that was on before counts again only if it is still on after this many seconds: the
# first frames decide about it.
RETURN_S = 3.0
# What the state may be, for Home Assistant's list of options.
STATES = (
    *("starting", "started", "camera_ok", "camera_stalled", "camera_lost", "camera_absent", "camera_busy"),
    *("camera_frozen", "reboot_needed", "blind", "seeing", "moved", "models_loaded", "models_refused"),
    *("paused", "resumed"),
)
# Device class of Home Assistant and icon of an alarm, by the task.
_LOOKS: Mapping[str, Mapping[str, str]] = {
    "stop_sign": {"icon": "mdi:alert-octagon"},
    "face_mask": {"device_class": "safety", "icon": "mdi:face-mask"},
    "car_damage": {"device_class": "problem", "icon": "mdi:car-wrench"},
    "cars_tanks": {"icon": "mdi:tank"},
    "gtsrb": {"icon": "mdi:sign-caution"},
}
_OTHER_LOOK = {"icon": "mdi:eye-check"}


class Publication(NamedTuple):
    """A message to publish."""

    topic: str
    payload: bytes
    retain: bool


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
        name: base if base and (len(same) == 1 or name == base) else _with_digest(base, name)
        for base, same in by_slug.items()
        for name in same
    }


def default_topic(name: str) -> str:
    """The topics' prefix of a camera: no two names have the same.

    A name that is not its own slug gets a digest: "Front door" and "front-door" would have the same slug.
    """
    base = slug(name)
    return f"bittern/{base if base and base == name else _with_digest(base, name)}"


def device_id(topic: str) -> str:
    """Id of a device, lower-case letters, digits and underscores: no two prefixes of topics have the same.

    Slashes become underscores; a digest is added where another prefix could become the same.
    """
    base, levels = slug(topic), topic.split("/")
    default = len(levels) == 2 and levels[0] == "bittern"
    plain = base == topic.replace("/", "_") and (default or ("_" not in topic and levels[0] != "bittern"))
    return base if plain else _with_digest(base, topic)


def _with_digest(base: str, text: str) -> str:
    return f"{base}_{_digest(text)}".lstrip("_")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


class Entities:
    """The topics of one camera and their retained payloads. Not thread-safe.

    States follow the events as they are raised. An event `state: started` switches all alarms off: it comes from a new
    process, which starts with all of them off.

    Alarms and labels are answers only while the camera gives pictures that show something. `watching` says so: Home
    Assistant shows them as unavailable otherwise.

    Attributes:
        event: topic of the events.
        availability: topic that is "online" or "offline": the daemon.
        watching: topic that is "online" or "offline": the camera.
        image: topic of the last alarm's picture.
        diagnostics: topic of `Diagnostics` as JSON.
        picture: topic of what the camera shows, now and then.
        scores: topic of the scores of each alarm as JSON.
        commands: prefix of the topics that take commands.
        controls: what the owner wants.
        presence: topic on which daemons with the same topics notice each other.
        id: id of the device: letters, digits and underscores.
    """

    def __init__(self, topic: str, info: SinkContext, *, commands: bool = False, picture: bool = False) -> None:
        """See the class.

        Args:
            topic: prefix of every topic.
            info: what sinks are told of the source.
            commands: whether the owner may change `controls`.
            picture: whether what the camera shows is published.
        """
        self.picture = f"{topic}/picture"
        self.scores = f"{topic}/scores"
        self.commands = f"{topic}/set"
        self.controls = Controls()
        self._commands, self._pictures = commands, picture
        self._detection = f"{topic}/detection"
        self._thresholds: Mapping[AlarmKey, float] = info.alarms
        self._paused = False
        self.event = f"{topic}/event"
        self.availability = f"{topic}/availability"
        self.watching = f"{topic}/watching"
        self.image = f"{topic}/image"
        self.diagnostics = f"{topic}/diagnostics"
        self.presence = f"{topic}/daemon"
        self.id = device_id(topic)
        self._info = info
        self._state_topic = f"{topic}/state"
        self._source = "starting"  # the state of the camera, or of the recording
        self._blind = False
        self._momentary, self._momentary_until_s = "", 0.0
        self._answering, self._answering_from_s = False, 0.0
        self._on: dict[AlarmKey, None] = {}  # in the order in which they went on
        self._topic = topic
        self._label_topics: dict[str, str] = {}  # by model
        self._alarm_topics: dict[AlarmKey, str] = {}
        self._alarm_names: dict[AlarmKey, str] = {}
        self._removed: set[str] = set()  # topics that no longer exist
        self._removed_components: dict[str, str] = {}  # platform by key
        self._shown: dict[str, bytes] = {}
        self.expect(info.alarms)

    def expect(self, alarms: Mapping[AlarmKey, float]) -> None:
        """Set the possible alarms; those that are on and still possible stay on.

        Topics and entities of the others are removed. `retained` and `discovery` include the removal for the rest of
        this object's life, because the broker or Home Assistant may be offline at the time.
        """
        before = {*self._label_topics.values(), *self._threshold_topics(), *self._alarm_topics.values()}
        components = self._platforms()
        self._thresholds = alarms
        models = slugs(alarm.model for alarm in alarms)
        self._label_topics = {model: f"{self._topic}/label/{models[model]}" for model in models}
        self._alarm_topics = {}
        for model in models:
            names = _names([alarm for alarm in alarms if alarm.model == model])
            unique = slugs(names.values())
            for alarm, name in names.items():
                self._alarm_topics[alarm] = f"{self._topic}/alarm/{models[model]}/{unique[name]}"
        self._alarm_names = _titles(list(self._alarm_topics))
        self._on = {alarm: None for alarm in self._on if alarm in self._alarm_topics}
        now = {*self._label_topics.values(), *self._threshold_topics(), *self._alarm_topics.values()}
        self._removed_components |= components
        self._removed = (self._removed | before) - now

    def _platforms(self) -> dict[str, str]:
        """The platforms of the entities that depend on the models, by key."""
        return {key: c["platform"] for key, c in self.components(1.0, temperature=False).items()}

    def forget(self, topics: Iterable[str], components: Mapping[str, str]) -> None:
        """Remove topics and components of an earlier run that exist no longer.

        Args:
            topics: that are retained.
            components: their platforms, by the key in the discovery message.
        """
        self._removed |= set(topics) - set(self.topics())
        self._removed_components |= components

    def follow(self, event: Event, now_s: float) -> list[Publication]:
        """Follow one event.

        Args:
            event: the event.
            now_s: now, on any monotonic clock in seconds.

        Returns:
            What triggers automations, if it is an alarm's. It is published as it happens or never: an alarm of an hour
            ago, which the topic `event` tells of, is no reason to switch on a light now.
        """
        if event.type == "state" and event.state is not None:
            self._begin(event.state, now_s)
        alarm = event.alarm
        if alarm is None or alarm not in self._alarm_topics or event.type not in ("alarm.on", "alarm.off"):
            return []
        self._on.pop(alarm, None)
        if event.type == "alarm.on":
            self._on[alarm] = None
        trigger = {"event_type": event.type.removeprefix("alarm."), "score": event.score, "time": event.time}
        return [Publication(self._trigger(alarm), msgspec.json.encode(trigger), False)]

    def command(self, topic: str, payload: bytes) -> Controls | None:
        """What the owner wants after a command.

        Args:
            topic: below `commands`.
            payload: of the message.

        Returns:
            None if it is no command.
        """
        name = topic.removeprefix(f"{self.commands}/")
        if name == "detection" and payload in (b"ON", b"OFF"):
            return msgspec.structs.replace(self.controls, detection=payload == b"ON")
        if name == "restart" and payload == b"PRESS":
            return msgspec.structs.replace(self.controls, restart=True)
        alarms = {self._below("threshold", alarm): alarm for alarm in self._alarm_topics}
        alarm = alarms.get(f"{self._topic}/{name}")
        if alarm is None or re.fullmatch(rb"[0-9.]{1,10}", payload) is None or payload.count(b".") > 1:
            return None
        value = float(payload) if payload != b"." else 0.0
        if not 0.0 < value <= 1.0:
            return None
        return msgspec.structs.replace(self.controls, thresholds={**self.controls.thresholds, alarm: value})

    def scores_of(self, scores: Mapping[AlarmKey, float]) -> bytes:
        """The payload of `scores`."""
        return msgspec.json.encode({self._score_key(a): round(scores[a], 3) for a in self._alarm_topics if a in scores})

    def _score_key(self, alarm: AlarmKey) -> str:
        return self._key(self._alarm_topics[alarm]).removeprefix("alarm__")

    def _below(self, kind: str, alarm: AlarmKey) -> str:
        """The topic of another kind than "alarm"."""
        return self._alarm_topics[alarm].replace(f"{self._topic}/alarm/", f"{self._topic}/{kind}/", 1)

    def _threshold_topics(self) -> dict[str, AlarmKey]:
        return {self._below("threshold", alarm): alarm for alarm in self._alarm_topics} if self._commands else {}

    def _trigger(self, alarm: AlarmKey) -> str:
        return self._below("trigger", alarm)

    def _begin(self, state: str, now_s: float) -> None:
        if state == "started":
            self._on.clear()
        if state in ("started", "reboot_needed") or state.startswith("camera_"):
            self._source = state
        elif state in ("blind", "seeing"):
            self._blind = state == "blind"
        elif state in ("paused", "resumed"):
            self._paused = state == "paused"
        if state not in ("blind", "paused", "started", "reboot_needed") and not state.startswith("camera_"):
            self._momentary, self._momentary_until_s = state, now_s + MOMENTARY_S
        answering = self._source == ("camera_ok" if self._info.live else "started")
        answering = answering and not (self._blind or self._paused)
        if answering and not self._answering:
            self._answering_from_s = now_s + RETURN_S if self._on else now_s
        self._answering = answering

    def retained(self, now_s: float) -> dict[str, bytes]:
        """All topics with their payloads, except for `availability`, in the order in which to publish them.

        An empty payload ends retention: topics that were removed.
        """
        labels = dict.fromkeys(self._label_topics, NOTHING)
        labels |= {alarm.model: alarm.label for alarm in self._on}  # of several, the one that went on last
        momentary = self._momentary if now_s < self._momentary_until_s else ""
        answering = self._answering and not (self._on and now_s < self._answering_from_s)
        return {
            **dict.fromkeys(sorted(self._removed), b""),
            self._state_topic: (momentary or self._state()).encode(),
            **self._control_states(),
            **{topic: labels[model].encode() for model, topic in self._label_topics.items()},
            **{topic: b"ON" if alarm in self._on else b"OFF" for alarm, topic in self._alarm_topics.items()},
            self.watching: ONLINE if answering else OFFLINE,
        }

    def _state(self) -> str:
        """The state that holds."""
        if self._paused:
            return "paused"
        return "blind" if self._blind else self._source

    def _control_states(self) -> dict[str, bytes]:
        if not self._commands:
            return {}
        thresholds = {**self._thresholds, **self.controls.thresholds}
        return {
            self._detection: b"ON" if self.controls.detection else b"OFF",
            **{topic: f"{thresholds[alarm]:.4g}".encode() for topic, alarm in self._threshold_topics().items()},
        }

    def changes(self, now_s: float) -> list[Publication]:
        """What has changed in `retained` since the last call."""
        shown, self._shown = self._shown, self.retained(now_s)
        return [Publication(t, payload, True) for t, payload in self._shown.items() if shown.get(t) != payload]

    def due_s(self, now_s: float) -> float:
        """When `retained` changes without an event: seconds from now, infinite if it does not."""
        ends = (self._momentary_until_s, self._answering_from_s)
        return min((end - now_s for end in ends if end > now_s), default=math.inf)

    def topics(self) -> list[str]:
        """Every topic that may be retained, of those that exist now."""
        image = [self.image] if self._info.snapshots is not None else []
        picture = [self.picture] if self._pictures else []
        others = (self.availability, self.diagnostics, self.scores)
        return [*self.retained(0.0).keys() - self._removed, *others, *image, *picture]

    def discovery(self, interval_s: float, *, temperature: bool) -> dict[str, Any]:
        """The message that announces the device and its entities.

        Args:
            interval_s: time between two sets of diagnostics, in seconds; they expire after three intervals.
            temperature: whether there is a sensor.
        """
        components = self.components(interval_s, temperature=temperature)
        device = {
            "identifiers": [self.id],
            "name": self._info.name,
            "manufacturer": "Bittern",
            "model": ", ".join(self._label_topics) or "camera",
            "sw_version": __version__,
        }
        if self._info.page is not None:
            device["configuration_url"] = self._info.page
        removed = {k: {"platform": p} for k, p in sorted(self._removed_components.items()) if k not in components}
        return {
            "device": device,
            "origin": {"name": "bittern", "sw_version": __version__},
            # An entity with only a platform is removed.
            "components": components | removed,
        }

    def reminder(self, interval_s: float, *, temperature: bool) -> dict[str, Any] | None:
        """Like `discovery`, but with the least description of each entity that was removed; None if there is none.

        A Home Assistant that was not running then still has it in its registry, and takes out only what it has been
        told of since its start: so it is told of it once more.
        """
        components = self.components(interval_s, temperature=temperature)
        removed = {key: platform for key, platform in self._removed_components.items() if key not in components}
        if not removed:
            return None
        message = self.discovery(interval_s, temperature=temperature)
        return message | {"components": components | least(removed)}

    def components(self, interval_s: float, *, temperature: bool) -> dict[str, dict[str, Any]]:
        """The entities of `discovery`, by key."""
        components: dict[str, dict[str, Any]] = {
            "state": {
                "platform": "sensor",
                "name": "State",
                "state_topic": self._state_topic,
                "device_class": "enum",
                "options": list(STATES),
                "entity_category": "diagnostic",
                "icon": "mdi:state-machine",
            }
        }
        answer = {
            "availability": [{"topic": self.availability}, {"topic": self.watching}],
            "availability_mode": "all",
        }
        for model, topic in self._label_topics.items():
            labels = [alarm.label for alarm in self._alarm_topics if alarm.model == model]
            components[self._key(topic)] = {
                "platform": "sensor",
                "name": f"{_title(model)} label",
                "state_topic": topic,
                "device_class": "enum",
                "options": list(dict.fromkeys((NOTHING, *labels))),
                "icon": "mdi:label",
                **answer,
            }
        for alarm, topic in self._alarm_topics.items():
            components[self._key(topic)] = {
                "platform": "binary_sensor",
                "name": self._alarm_names[alarm],
                "state_topic": topic,
                **_LOOKS.get(alarm.task, _OTHER_LOOK),
                **answer,
            }
            components[f"score__{self._score_key(alarm)}"] = {
                "platform": "sensor",
                "name": f"{self._alarm_names[alarm]} score",
                "state_topic": self.scores,
                "value_template": f"{{{{ value_json.get('{self._score_key(alarm)}') }}}}",
                "state_class": "measurement",
                "suggested_display_precision": 2,
                "icon": "mdi:gauge",
                **answer,
            }
            if self._commands:
                components[f"threshold__{self._score_key(alarm)}"] = {
                    "platform": "number",
                    "name": f"{self._alarm_names[alarm]} threshold",
                    "state_topic": self._below("threshold", alarm),
                    "command_topic": self._below("set/threshold", alarm),
                    "min": 0.01,
                    "max": 1.0,
                    "step": 0.01,
                    "mode": "box",
                    "entity_category": "config",
                    "icon": "mdi:tune",
                }
            trigger, name = self._trigger(alarm), self._alarm_names[alarm]
            components[self._key(trigger)] = {
                "platform": "event",
                "name": f"{name} event",
                "state_topic": trigger,
                "event_types": ["on", "off"],
                "icon": _LOOKS.get(alarm.task, _OTHER_LOOK)["icon"],
            }
            for kind in ("on", "off"):
                components[f"{self._key(trigger)}__{kind}"] = {
                    "platform": "device_automation",
                    "automation_type": "trigger",
                    "type": f"alarm_{kind}",
                    "subtype": name,
                    "topic": trigger,
                    "value_template": "{{ value_json.event_type }}",
                    "payload": kind,
                }
        if self._info.snapshots is not None:
            components["image"] = {
                "platform": "image",
                "name": "Last alarm",
                "image_topic": self.image,
                "content_type": "image/jpeg",
            }
        if self._pictures:
            components["picture"] = {"platform": "camera", "name": "Picture", "topic": self.picture}
        if self._commands:
            components["detection"] = {
                "platform": "switch",
                "name": "Detection",
                "state_topic": self._detection,
                "command_topic": f"{self.commands}/detection",
                "icon": "mdi:eye",
            }
            components["restart"] = {
                "platform": "button",
                "name": "Restart",
                "command_topic": f"{self.commands}/restart",
                "device_class": "restart",
                "entity_category": "config",
            }
            if self._pictures:
                components["snapshot"] = {
                    "platform": "button",
                    "name": "Snapshot now",
                    "command_topic": f"{self.commands}/snapshot",
                    "icon": "mdi:camera",
                }
        sensors: list[tuple[str, str, dict[str, str]]] = [
            ("fps", "Frames per second", {"unit_of_measurement": "fps", "icon": "mdi:filmstrip"}),
            ("latency_ms", "Latency", {"device_class": "duration", "unit_of_measurement": "ms"}),
        ]
        if temperature:
            celsius = {"device_class": "temperature", "unit_of_measurement": "°C"}
            sensors.append(("temperature_c", "Temperature", celsius))
        for key, name, extra in sensors:
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
        # Slugs contain no double underscore, so these are unique.
        return {
            f"{self.id}__{key}": component
            if component["platform"] == "device_automation"
            else {"unique_id": f"{self.id}__{key}", "availability": [{"topic": self.availability}], **component}
            for key, component in components.items()
        }

    def _key(self, topic: str) -> str:
        """Key of the entity of a label's or an alarm's topic."""
        return topic.removeprefix(f"{self._topic}/").replace("/", "__")


# What an entity of each platform cannot be without; the topics are those of nothing.
_LEAST: Mapping[str, Mapping[str, Any]] = {
    "binary_sensor": {"state_topic": "bittern/nothing"},
    "button": {"command_topic": "bittern/nothing"},
    "camera": {"topic": "bittern/nothing"},
    "event": {"state_topic": "bittern/nothing", "event_types": ["on"]},
    "image": {"image_topic": "bittern/nothing"},
    "number": {"command_topic": "bittern/nothing"},
    "sensor": {"state_topic": "bittern/nothing"},
    "switch": {"command_topic": "bittern/nothing"},
}


def least(components: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The least description of entities, whose platforms are given by key; of those that are in a registry."""
    return {
        key: {"platform": platform, "unique_id": key, **_LEAST[platform]}
        for key, platform in components.items()
        if platform in _LEAST
    }


def old_device(device: str, components: Mapping[str, str]) -> dict[str, Any]:
    """The least message that announces a device of an earlier run; see `Entities.reminder`."""
    return {
        "device": {"identifiers": [device], "name": device},
        "origin": {"name": "bittern", "sw_version": __version__},
        "components": least(components),
    }


def discovery_topic(prefix: str, device: str) -> str:
    """Topic of a device's discovery message."""
    return f"{prefix}/device/{device}/config"


def to_json(message: Mapping[str, Any]) -> bytes:
    """A discovery message as it is sent."""
    return msgspec.json.encode(message)


def _names(alarms: Sequence[AlarmKey]) -> dict[AlarmKey, str]:
    """Names for the alarms of one model: the label, with the task in front if two tasks have that label."""
    labels = [label for _, label in {(alarm.task, alarm.label) for alarm in alarms}]
    return {alarm: alarm.label if labels.count(alarm.label) == 1 else f"{alarm.task} {alarm.label}" for alarm in alarms}


def _titles(alarms: Sequence[AlarmKey]) -> dict[AlarmKey, str]:
    """What people call each alarm: the model if that says what the label says ("Stop sign"), else the label.

    If two would be called the same, each has model, task and label in its name.
    """
    titles = {alarm: _title(alarm.model if _within(alarm.label, alarm.model) else alarm.label) for alarm in alarms}
    several = {title for title in titles.values() if list(titles.values()).count(title) > 1}
    full = {a: f"{_title(a.model)}: {_spaced(a.task)} {_spaced(a.label)}" for a in alarms}
    return {alarm: full[alarm] if title in several else title for alarm, title in titles.items()}


def _within(label: str, model: str) -> bool:
    """Whether each word of a label begins like one of the model's name: "damaged" in "car_damage"."""
    words = _spaced(model).casefold().split()
    return all(
        any(part.startswith(word) or word.startswith(part) for word in words)
        for part in _spaced(label).casefold().split()
    )


def _title(name: str) -> str:
    spaced = _spaced(name)
    return spaced[:1].upper() + spaced[1:]


def _spaced(name: str) -> str:
    return name.replace("_", " ")
