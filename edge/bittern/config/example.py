"""Generates the commented example configuration: from the structs, their docstrings and the reasons to change a key."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterator
from typing import Any

import msgspec

from bittern.config import toml_file
from bittern.config.schema import WatchConfig

_WIDTH = 100
_HEAD = (
    "The configuration of one camera: bittern watch --config FILE. Every key is listed with its default, which also "
    'applies if the key is left out. "Why" gives a reason to change it. Lines that begin with # and a letter are '
    "settings that are off: remove the # to use them. Each camera has its own file and its own daemon. Check files "
    "with: bittern config --check FILE..."
)

# The reason to change a key, by its path. A test checks that exactly the existing keys are listed.
WHY: dict[str, str] = {
    "source": "another camera, or a recording to try things on",
    "source_file": "the address holds a password",
    "camera": "the picture is upside down, too dark, or out of focus",
    "name": "several cameras: their events are told apart by it",
    "models": "another task, or several at once",
    "fps": "more to catch things that pass quickly, less to save power",
    "threads": "2 to 4 make one inference faster on a Pi with nothing else to do",
    "timeout_s": "more for a network camera on a weak connection",
    "region": "only part of the picture matters: nothing outside of it raises an alarm",
    "views": "a wide scene, in which things pass at the edge or are small; each view costs one more inference",
    "model.path": "a model of another tool, or of your own",
    "model.labels": "the file has no labels in it",
    "model.pixels": "the file does not say what it was trained with",
    "model.scores_by": "the file's outputs are no scores, and are taken for some, or the other way round",
    "model.score_of": "a network with one output",
    "model.size": "a network that takes pictures of any size",
    "model.alarm": "without one, the model raises no alarm",
    "model.nothing": "of several views, the one that shows something decides",
    "model.threshold": "it was measured on your pictures: bittern adopt",
    "decision.threshold": "another threshold from the model's card; higher for fewer false alarms, lower to miss less",
    "decision.off": "an alarm flickers: a lower value keeps it on",
    "decision.evidence": "more for fewer false alarms, less for faster ones; 0 raises an alarm at the first frame",
    "decision.votes": "to count frames, however high their scores are",
    "decision.of": "more to count frames that are further apart towards the same alarm",
    "decision.cooldown_s": "more if one event per visit is enough",
    "decision.min_off_s": "more if a thing that is detected on and off should stay one alarm",
    "alarm.model": "the rule is for one model only",
    "alarm.label": "the rule is for one label only",
    "alarm.threshold": "this alarm is too sensitive, or misses too much",
    "alarm.off": "this alarm flickers",
    "alarm.evidence": "this alarm should be more certain, or faster",
    "alarm.votes": "frames of this alarm should be counted",
    "alarm.of": "this alarm needs a longer, or shorter, memory",
    "alarm.cooldown_s": "this alarm repeats too often",
    "alarm.min_off_s": "this alarm breaks up into several",
    "gate.enabled": "the thing to detect stands still for hours and appears without any motion",
    "gate.threshold": "lower if slow or small things are missed, higher if rain and leaves count as motion",
    "gate.heartbeat_s": "less to detect things that appear without motion sooner, more to save power",
    "gate.linger_s": "more if a thing that has just stopped is missed",
    "recovery.warm_up_frames": "more for a camera that settles slowly",
    "recovery.blind_after_s": "more where a lorry may cover the lens for a while",
    "recovery.reboot_command": "nobody is nearby to pull the plug",
    "reload.max_slowdown": "a larger model is expected to take longer",
    "reload.timeout_s": "a large model on a small Pi",
    "outbox.folder": "another disk",
    "outbox.max_events": "less for a small card, more for long network outages",
    "snapshots.folder": "a folder on a disk keeps them across a restart",
    "snapshots.budget_mb": "more to keep a longer history",
    "snapshots.quality": "less for more pictures in the same space",
    "keep.every": "less to keep more frames, more to write less to the card",
    "keep.sure": "1.0 keeps frames that the models are sure of too, for mistakes that they make with a high score",
    "keep.budget_mb": "more to fetch them less often",
    "keep.max_frames": "more to fetch them less often",
    "keep.quality": "less for more frames in the same space",
    "mqtt.host": "your broker",
    "mqtt.port": "a broker that listens on another port",
    "mqtt.user": "a broker that requires one",
    "mqtt.password_file": "a broker that requires one",
    "mqtt.tls": "the broker is reached over a network that you do not control",
    "mqtt.ca_file": "the broker's certificate is your own",
    "mqtt.topic": "the broker is shared with others",
    "mqtt.discovery": "there is no Home Assistant",
    "mqtt.discovery_prefix": "it was changed in Home Assistant",
    "mqtt.image": "pictures must not leave the machine",
    "mqtt.interval_s": "less to see trouble sooner, more on a metered connection",
    "mqtt.commands": "others can write to the broker, and must not pause the camera",
    "mqtt.picture_every_s": "a look at the camera now and then; everybody who can read from the broker sees it",
    "webhook.url": "your server",
    "webhook.secret_file": "the server should verify who sent it",
    "webhook.timeout_s": "a slow server",
    "command.run": "your program",
    "command.timeout_s": "a slow program",
    "gpio.pin": "the pin that is wired",
    "gpio.label": "each label has a lamp of its own",
    "gpio.active_high": "the relay is on when it should be off",
    "health.port": "Prometheus should monitor this camera; each camera needs its own port",
    "health.host": "0.0.0.0 for a Prometheus on another machine: anyone on the network can then read the metrics",
    "page.port": "a look at the camera, and a review of its alarms, in a browser; each camera needs its own port",
    "page.host": "0.0.0.0 for browsers on other machines: they are asked for a token",
    "page.names": "the page stands behind a reverse proxy",
}
# The unit of a number, by its key's path, its name, or the end of its name.
UNITS: dict[str, str] = {
    "_s": "seconds",
    "_mb": "megabytes",
    "_frames": "frames",
    "_events": "events",
    "every": "frames",
    "sure": "a score",
    "fps": "frames per second",
    "evidence": "log-odds",
    "votes": "frames",
    "of": "frames",
    "off": "a score",
    "model.size": "pixels",
    "region": "pixels",
    "gate.threshold": "grey levels",
    "max_slowdown": "times",
}
# A value to show where the default is none.
EXAMPLES: dict[str, Any] = {
    "models": ["stop_sign"],
    "camera": {"size": "640x480"},
    "name": "garden",
    "region": [0, 0, 640, 480],
    "model.path": "gate.tflite",
    "model.labels": "labels.txt",
    "model.pixels": "0..1",
    "model.scores_by": "softmax",
    "model.score_of": "gate_open",
    "model.size": 224,
    "model.threshold": 0.8,
    "decision.off": 0.25,
    "decision.evidence": 2.0,
    "decision.votes": 2,
    "decision.of": 3,
    "alarm.model": "stop_sign",
    "alarm.label": "stop",
    "alarm.threshold": 0.9,
    "alarm.off": 0.5,
    "alarm.evidence": 4.0,
    "alarm.votes": 3,
    "alarm.of": 5,
    "alarm.cooldown_s": 60.0,
    "alarm.min_off_s": 2.0,
    "mqtt.host": "broker.local",
    "mqtt.port": 1883,
    "mqtt.picture_every_s": 60.0,
    "webhook.url": "https://server.local/events",
    "command.run": ["/usr/local/bin/on-event"],
    "gpio.pin": 17,
    "gpio.label": "stop",
    "health.port": 9101,
    "page.port": 8770,
}


def example() -> str:
    """A complete file: as generated it equals the defaults; with every setting uncommented it is valid too."""
    return "\n".join((*_prose(_HEAD), *_table(WatchConfig, "", on=True))) + "\n"


def key_paths(struct: type[msgspec.Struct] = WatchConfig, table: str = "") -> list[str]:
    """The path of every key of a struct and of its tables, such as "mqtt.host"."""
    paths = []
    for field in msgspec.structs.fields(struct):
        path = f"{table}.{field.name}".removeprefix(".")
        inner, _ = toml_file.struct_of(field.type)
        paths += [path] if inner is None else key_paths(inner, path)
    return paths


def attributes(struct: type[msgspec.Struct]) -> dict[str, str]:
    """The description of each attribute in a struct's docstring, each as one line."""
    _, _, section = inspect.cleandoc(struct.__doc__ or "").partition("Attributes:\n")
    entries = re.findall(r"^    (\w+): (.*(?:\n     .*)*)", section, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}


def _table(struct: type[msgspec.Struct], table: str, *, on: bool) -> Iterator[str]:
    texts = attributes(struct)
    fields = msgspec.structs.fields(struct)
    plain = [field for field in fields if toml_file.struct_of(field.type)[0] is None and field.name != "camera"]
    for field in plain:
        path = f"{table}.{field.name}".removeprefix(".")
        none = field.required or field.default is None
        value = EXAMPLES[path] if none else field.default
        default = (
            "no default: required" if field.required else f"default {'none' if none else toml_file.format_value(value)}"
        )
        yield ""
        yield from _prose(_sentence(texts[field.name]))
        yield from _prose(f"Why: {WHY[path]}.")
        yield from _prose("; ".join((*_unit(path), toml_file.describe(field.type), default)))
        yield f"{'' if on and not none else '#'}{field.name} = {toml_file.format_value(value)}"
    if struct is WatchConfig:  # the options depend on the source
        yield ""
        yield from _prose(_sentence(texts["camera"]))
        yield from _prose(f"Why: {WHY['camera']}.")
        yield "#[camera]"
        yield from (f"#{name} = {toml_file.format_value(value)}" for name, value in EXAMPLES["camera"].items())
    for field in fields:
        inner, many = toml_file.struct_of(field.type)
        if inner is None:
            continue
        path = f"{table}.{field.name}".removeprefix(".")
        enabled = isinstance(field.default, msgspec.Struct)
        paragraphs = inspect.cleandoc(inner.__doc__ or "").partition("Attributes:")[0].split()
        yield ""
        yield from _prose(_sentence(" ".join(paragraphs).partition(": ")[2]))
        yield ("" if enabled else "#") + (f"[[{path}]]" if many else f"[{path}]")
        yield from _table(inner, path, on=enabled)


def _unit(path: str) -> list[str]:
    name = path.rpartition(".")[2]
    return [UNITS[end] for end in (path, name, f"_{name.rpartition('_')[2]}") if end in UNITS][:1]


def _sentence(text: str) -> str:
    if not text.startswith("http"):
        text = text[:1].upper() + text[1:]
    return text if text.endswith(".") else f"{text}."


def _prose(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent="# ", subsequent_indent="# ", break_long_words=False)
