"""What can be known of a configuration without starting it: models, thresholds, folders, passwords, programs, pins."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bittern.config.schema import AlarmConfig, DecisionConfig, WatchConfig
from bittern.config.toml_file import KeyPath, Parsed, Problem
from bittern.decision.decision import check_label, settings_of
from bittern.delivery import outbox
from bittern.delivery.sinks import webhook
from bittern.errors import ConfigurationError
from bittern.model import catalog, manifest
from bittern.model.manifest import Head

# Table: the library that its sink needs, and the extra that brings it.
_EXTRAS = {
    "mqtt": ("paho.mqtt", "mqtt"),
    "gpio": ("gpiozero", "gpio"),
    "health": ("prometheus_client", "metrics"),
}


class Found(NamedTuple):
    """Something wrong with a value of a configuration that has the right shape."""

    path: KeyPath
    message: str
    warning: bool = False


class Instance(NamedTuple):
    """A file without errors, to be compared with others: several cameras are several instances."""

    file: Path
    parsed: Parsed[WatchConfig]
    source: str


def check(config: WatchConfig, source: str, wrong: Sequence[KeyPath] = ()) -> Iterator[Found]:
    """Everything that is wrong, or suspicious, beyond the file itself.

    Args:
        config: of the right shape.
        source: what its events will call the camera.
        wrong: what was left out of it because it has not the right shape: nothing is said of what depends on it.
    """
    tables = {path[:2] if path[:1] == ("alarm",) else path[:1] for path in wrong}
    if ("models",) not in tables:
        yield from _without(tables, _models(config, default_known=("decision",) not in tables))
    for found in (*_folders(config, source), *_secrets(config), *_programs(config), *_sinks(config, wrong)):
        # What is merely suspicious may only seem so: another key of the table, which was left out, may have its reason.
        if found.path not in wrong and not (found.warning and found.path[:1] in tables):
            yield found


def _without(tables: set[KeyPath], found: Iterator[Found]) -> Iterator[Found]:
    return (one for one in found if one.path[:1] not in tables and one.path[:2] not in tables)


def across(instances: Sequence[Instance]) -> Iterator[tuple[Instance, Problem]]:
    """What several instances must not share, each said at the later one of two."""
    taken: dict[tuple[str, str], Instance] = {}
    for one in instances:
        for what, value, path in _claims(one):
            first = taken.setdefault((what, value), one)
            # The outbox of a name goes with the name.
            if first is not one and (what != "outbox" or first.source != one.source):
                message = f"{value} is the {what} of {first.file} too: expected another one for each camera"
                yield one, one.parsed.problem(path, message)


def _claims(one: Instance) -> Iterator[tuple[str, str, KeyPath]]:
    """What an instance must have for itself."""
    config = one.parsed.value
    assert config is not None
    yield "name", one.source, ("name",)
    yield "outbox", str(_real(outbox.folder(config.outbox, one.source))), ("outbox", "folder")
    if config.snapshots is not None and config.snapshots.folder:
        yield "folder of snapshots", str(_real(Path(config.snapshots.folder))), ("snapshots", "folder")
    if config.health is not None and config.health.port:
        yield "health port", str(config.health.port), ("health", "port")
    if config.mqtt is not None and config.mqtt.topic:
        yield "MQTT topic", f"{config.mqtt.host}/{config.mqtt.topic}", ("mqtt", "topic")
    if config.gpio is not None:
        yield "pin", str(config.gpio.pin), ("gpio", "pin")


def _models(config: WatchConfig, *, default_known: bool) -> Iterator[Found]:
    heads: dict[str, Sequence[Head]] = {}
    whole = True
    for i, model in enumerate(config.models):
        path = ("models", i)
        try:
            folder = catalog.find(model)
            if not folder.is_dir():
                whole = False
                yield Found(path, f"{folder}: no manifest, so that no label of it raises an alarm: expected a folder")
                continue
            said = manifest.read(folder)
        except (ConfigurationError, OSError, ValueError) as error:
            whole = False
            yield Found(path, str(error))
            continue
        if said.name in heads:
            yield Found(path, f"model {said.name!r} is there twice")
        if not (folder / said.file).is_file():
            yield Found(path, f"{folder / said.file}: no such file, but the manifest names it")
        heads[said.name] = said.heads
    if whole:
        yield from _decisions(config, heads, default_known)


def _decisions(config: WatchConfig, heads: Mapping[str, Sequence[Head]], default_known: bool) -> Iterator[Found]:
    # `settings_of` stops at the first mistake; one by one, none hides the next.
    default = config.decision
    for name, of in heads.items():
        try:
            settings_of({name: of}, config.decision, ())
        except ConfigurationError as error:
            yield _placed(error, ("decision",), "decision", ("models",))
            default_known, default = False, DecisionConfig()
    alarming = {name: of for name, of in heads.items() if any(head.alarm for head in of)}
    for i, entry in enumerate(config.alarm):
        # What it leaves to a `[decision]` that is wrong cannot be judged, the names can.
        judged = entry if default_known else AlarmConfig(model=entry.model, label=entry.label)
        try:
            settings_of(alarming, default, [judged])
        except ConfigurationError as error:
            yield _placed(error, ("alarm", i), "alarm 1", ("models",))
    if config.gpio is not None and config.gpio.label is not None:
        try:
            check_label("gpio", config.gpio.label, heads)
        except ConfigurationError as error:
            yield _placed(error, ("gpio", "label"), "gpio", ("models",))


def _placed(error: ConfigurationError, path: KeyPath, word: str, other: KeyPath) -> Found:
    """An error of `settings_of` with its path: it begins with "decision.off", or "alarm 1"."""
    at = re.match(rf"{word}\b(?:\.(\w+))?[:,]? ?", str(error))
    return Found((*path, *filter(None, [at[1]])), str(error)[at.end() :]) if at else Found(other, str(error))


def _folders(config: WatchConfig, source: str) -> Iterator[Found]:
    try:
        folders: list[tuple[KeyPath, Path]] = [(("outbox", "folder"), outbox.folder(config.outbox, source))]
    except ConfigurationError as error:
        yield Found(("outbox", "folder"), str(error))
        folders = []
    if config.snapshots is not None and config.snapshots.folder:
        folders.append((("snapshots", "folder"), Path(config.snapshots.folder)))
    for path, folder in folders:
        try:
            there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
            if not there.is_dir():
                yield Found(path, f"{there} is no folder")
            elif os.statvfs(there).f_flag & os.ST_RDONLY:
                yield Found(path, f"{there} is on a read-only file system")
            elif not os.access(there, os.W_OK | os.X_OK):
                who = "this user (the daemon may be another one)"
                yield Found(path, f"{there}: {who} may not write there", warning=True)
        except (OSError, ValueError) as error:
            yield Found(path, f"{folder}: {error}")


def _secrets(config: WatchConfig) -> Iterator[Found]:
    files: list[tuple[KeyPath, str, bool]] = []
    if config.mqtt is not None:
        files += [
            (("mqtt", "password_file"), config.mqtt.password_file, True),
            (("mqtt", "ca_file"), config.mqtt.ca_file, False),
        ]
    if config.webhook is not None:
        files.append((("webhook", "secret_file"), config.webhook.secret_file, True))
    for path, name, secret in files:
        if not name:
            continue
        try:
            with Path(name).open("rb") as opened:
                first = opened.readline(4096)
                mode = os.fstat(opened.fileno()).st_mode
        except (OSError, ValueError) as error:
            yield Found(path, f"{name}: {getattr(error, 'strerror', None) or error}: expected a file to read")
            continue
        if not stat.S_ISREG(mode):
            yield Found(path, f"{name}: expected a file")
        elif not first.strip():
            yield Found(path, f"{name}: its first line is empty")
        elif secret and mode & stat.S_IROTH:
            yield Found(path, f"{name}: everyone on this machine can read it: chmod 640 {name}", warning=True)


def _programs(config: WatchConfig) -> Iterator[Found]:
    programs: list[tuple[KeyPath, tuple[str, ...]]] = [
        (("recovery", "reboot_command"), config.recovery.reboot_command),
        (("command", "run"), config.command.run if config.command is not None else ()),
    ]
    for path, words in programs:
        if not words:
            continue
        if "\0" in "".join(words):
            yield Found(path, "a word of it has a NUL")
        elif shutil.which(words[0]) is None:
            yield Found(path, f"{words[0]!r}: no such program, or not executable")


def _sinks(config: WatchConfig, wrong: Sequence[KeyPath]) -> Iterator[Found]:
    for table, (module, extra) in _EXTRAS.items():
        if getattr(config, table) is not None and not _installed(module):
            yield Found((table,), f"needs {module}: pip install 'bittern[{extra}]'")
    if (mqtt := config.mqtt) is not None:
        if not re.fullmatch(r"[\w.:%-]+", mqtt.host):
            yield Found(("mqtt", "host"), f"expected the name or address of a broker, got {mqtt.host!r}")
        if mqtt.ca_file and not mqtt.tls and ("mqtt", "tls") not in wrong:
            yield Found(("mqtt", "ca_file"), "is for tls = true")
        if mqtt.password_file and not mqtt.user and ("mqtt", "user") not in wrong:
            yield Found(("mqtt", "password_file"), "a password needs a user too")
        if mqtt.user and not mqtt.tls and mqtt.host not in ("localhost", "127.0.0.1", "::1"):
            yield Found(("mqtt", "user"), "user and password go over the network as they are: tls = true", warning=True)
        if set(mqtt.topic + mqtt.discovery_prefix) & set("#+\0"):
            yield Found(("mqtt", "topic"), "a topic to publish to has no # and no +")
    if config.webhook is not None:
        try:
            webhook.parse_url(config.webhook.url)
        except ConfigurationError as error:
            yield Found(("webhook", "url"), str(error).removeprefix("webhook.url: "))
    if (gpio := config.gpio) is not None and gpio.pin > 27:
        yield Found(("gpio", "pin"), f"pin {gpio.pin} is not on the header of a Raspberry Pi: expected 0 to 27", True)
    if (health := config.health) is not None and 0 < health.port < 1024:
        yield Found(("health", "port"), f"port {health.port} is for root: expected one from 1024", True)


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of its parent
        return False


def _real(folder: Path) -> Any:
    try:
        return folder.resolve()
    except (OSError, RuntimeError, ValueError):  # a loop of links
        return folder
