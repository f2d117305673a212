"""Checks a configuration without starting it: models, thresholds, folders, passwords, programs, pins."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bittern.config import secret_file
from bittern.config.schema import AlarmConfig, DecisionConfig, WatchConfig
from bittern.config.toml_file import KeyPath, Parsed, Problem
from bittern.daemon import opening
from bittern.decision.decision import check_label, settings_of
from bittern.delivery import outbox
from bittern.delivery.sinks import webhook
from bittern.errors import ConfigurationError, redacted
from bittern.model import catalog, manifest
from bittern.model.bare import Bare
from bittern.model.manifest import Head
from bittern.system.hosts import is_loopback

# Table: the module that it imports, and its package with the command that installs it.
_PACKAGES = {
    "mqtt": ("paho.mqtt", "paho-mqtt 2 or later: pip install 'bittern[mqtt]'"),
    "gpio": ("gpiozero", "gpiozero: sudo apt install python3-gpiozero python3-lgpio"),
    "page": ("uvicorn", "starlette and uvicorn: pip install 'bittern[page]'"),
    "health": ("prometheus_client", "prometheus-client: pip install 'bittern[metrics]'"),
}


class Mistake(NamedTuple):
    """A value of the right type that is wrong, or with `warning` only suspicious."""

    path: KeyPath
    message: str
    warning: bool = False


class Instance(NamedTuple):
    """A file without errors, to be compared with the files of other cameras."""

    file: Path
    parsed: Parsed[WatchConfig]
    source: str


def check(config: WatchConfig, source: str, wrong: Sequence[KeyPath] = ()) -> Iterator[Mistake]:
    """Find what is wrong, or suspicious, although all types are right.

    Args:
        config: what could be read of the file.
        source: what its events will call the camera.
        wrong: keys that are missing in `config` because their values have the wrong type; what depends on them is not
            checked.
    """
    tables = {path[:2] if path[:1] == ("alarm",) else path[:1] for path in wrong}
    if ("models",) not in tables and ("model",) not in tables:
        yield from _without(tables, _models(config, default_known=("decision",) not in tables))
    for mistake in (*_folders(config, source), *_secrets(config), *_programs(config), *_sinks(config, wrong)):
        # A key that was left out of the table may explain what is only suspicious.
        if mistake.path not in wrong and not (mistake.warning and mistake.path[:1] in tables):
            yield mistake


def _without(tables: set[KeyPath], mistakes: Iterator[Mistake]) -> Iterator[Mistake]:
    return (mistake for mistake in mistakes if mistake.path[:1] not in tables and mistake.path[:2] not in tables)


def across(instances: Sequence[Instance]) -> Iterator[tuple[Instance, Problem]]:
    """Find what several instances must not share; each problem is that of the later instance."""
    owners: dict[tuple[str, str], Instance] = {}
    for instance in instances:
        for resource, value, path in _claims(instance):
            owner = owners.setdefault((resource, value), instance)
            # Instances of one name have one outbox: the name is the problem.
            if owner is not instance and (resource != "outbox" or owner.source != instance.source):
                message = f"{value} is the {resource} of {owner.file} too: expected a different one for each camera"
                yield instance, instance.parsed.problem(path, message)


def _claims(instance: Instance) -> Iterator[tuple[str, str, KeyPath]]:
    """What an instance must not share: kind, value, and the key that sets it."""
    config = instance.parsed.value
    assert config is not None
    yield "name", instance.source, ("name",)
    yield "outbox", str(_real(outbox.folder(config.outbox, instance.source))), ("outbox", "folder")
    if config.snapshots is not None and config.snapshots.folder:
        yield "folder of snapshots", str(_real(Path(config.snapshots.folder))), ("snapshots", "folder")
    if config.health is not None and config.health.port:
        yield "health port", str(config.health.port), ("health", "port")
    if config.page is not None and config.page.port:
        yield "page's port", str(config.page.port), ("page", "port")
    if config.mqtt is not None and config.mqtt.topic:
        with contextlib.suppress(ConfigurationError):
            yield "MQTT topic", f"{config.mqtt.address}/{config.mqtt.topic}", ("mqtt", "topic")
    if config.gpio is not None:
        yield "pin", str(config.gpio.pin), ("gpio", "pin")


def _models(config: WatchConfig, *, default_known: bool) -> Iterator[Mistake]:
    heads: dict[str, Sequence[Head]] = {}
    complete = True
    listed = len(config.models or ())
    for i, model in enumerate(config.all_models):
        path: KeyPath = ("models", i) if i < listed or not config.model else ("model", i - listed)
        try:
            folder = catalog.find(model.path)
            if not folder.is_dir():
                classifier = opening.open_model(model, config.threads)
                name, its_heads = classifier.name, classifier.heads
            else:
                contents = manifest.read(folder)
                name, its_heads = contents.name, contents.heads
                if not (folder / contents.file).is_file():
                    yield Mistake(path, f"{folder / contents.file}: no such file, but the manifest names it")
                if opening.stated(model) != Bare():
                    yield Mistake(path, f"{folder}: labels and all else are in its manifest: leave them out")
        except (ConfigurationError, OSError, ValueError) as error:
            complete = False
            yield Mistake(path, str(error))
            continue
        if name in heads:
            yield Mistake(path, f"model {name!r} is listed twice")
        heads[name] = its_heads
    if complete:
        yield from _decisions(config, heads, default_known)


def _decisions(config: WatchConfig, heads: Mapping[str, Sequence[Head]], default_known: bool) -> Iterator[Mistake]:
    # `settings_of` stops at the first mistake: it is called for each model and entry, so that none hides another.
    default = config.decision
    for model, its_heads in heads.items():
        try:
            settings_of({model: its_heads}, config.decision, ())
        except ConfigurationError as error:
            yield _placed(error, ("decision",), "decision", ("models",))
            default_known, default = False, DecisionConfig()
    with_alarms = {model: its_heads for model, its_heads in heads.items() if any(head.alarm for head in its_heads)}
    for i, entry in enumerate(config.alarm):
        # If `[decision]` is wrong, the values that an entry takes from there cannot be checked, but its names can.
        judged = entry if default_known else AlarmConfig(model=entry.model, label=entry.label)
        try:
            settings_of(with_alarms, default, [judged])
        except ConfigurationError as error:
            yield _placed(error, ("alarm", i), "alarm 1", ("models",))
    if config.gpio is not None and config.gpio.label is not None:
        try:
            check_label("gpio", config.gpio.label, heads)
        except ConfigurationError as error:
            yield _placed(error, ("gpio", "label"), "gpio", ("models",))


def _placed(error: ConfigurationError, path: KeyPath, word: str, other: KeyPath) -> Mistake:
    """An error of `settings_of` with its path: its text begins with "decision.off", or "alarm 1"."""
    prefix = re.match(rf"{word}\b(?:\.(\w+))?[:,]? ?", str(error))
    if prefix is None:
        return Mistake(other, str(error))
    return Mistake((*path, *filter(None, [prefix[1]])), str(error)[prefix.end() :])


def _folders(config: WatchConfig, source: str) -> Iterator[Mistake]:
    try:
        folders: list[tuple[KeyPath, Path]] = [(("outbox", "folder"), outbox.folder(config.outbox, source))]
    except ConfigurationError as error:
        yield Mistake(("outbox", "folder"), str(error))
        folders = []
    if config.snapshots is not None and config.snapshots.folder:
        folders.append((("snapshots", "folder"), Path(config.snapshots.folder)))
    for path, folder in folders:
        try:
            existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
            if not existing.is_dir():
                yield Mistake(path, f"{existing} is not a folder")
            elif os.statvfs(existing).f_flag & os.ST_RDONLY:
                yield Mistake(path, f"{existing} is on a read-only file system")
            elif not os.access(existing, os.W_OK | os.X_OK):
                user = "this user (the daemon may run as another one)"
                yield Mistake(path, f"{existing}: {user} may not write there", warning=True)
        except (OSError, ValueError) as error:
            yield Mistake(path, f"{folder}: {error}")


def _secrets(config: WatchConfig) -> Iterator[Mistake]:
    files: list[tuple[KeyPath, str, str]] = [(("source_file",), config.source_file, "the URI of the camera")]
    if config.mqtt is not None:
        files.append((("mqtt", "password_file"), config.mqtt.password_file, "the password"))
    if config.webhook is not None:
        files.append((("webhook", "secret_file"), config.webhook.secret_file, "the key"))
    for path, name, what in files:
        if not name:
            continue
        try:
            secret_file.first_line(name, "", what)
            mode = Path(name).stat().st_mode
        except (ConfigurationError, OSError) as error:
            yield Mistake(path, str(error).removeprefix(": "))
            continue
        if mode & stat.S_IROTH:
            yield Mistake(path, f"{name}: everyone on this machine can read it: chmod 640 {name}", warning=True)

    if config.mqtt is not None and config.mqtt.ca_file:
        try:
            secret_file.certificates(config.mqtt.ca_file, "")
        except ConfigurationError as error:
            yield Mistake(("mqtt", "ca_file"), str(error).removeprefix(": "))


def _programs(config: WatchConfig) -> Iterator[Mistake]:
    programs: list[tuple[KeyPath, tuple[str, ...]]] = [
        (("recovery", "reboot_command"), config.recovery.reboot_command),
        (("command", "run"), config.command.run if config.command is not None else ()),
    ]
    for path, words in programs:
        if not words:
            continue
        if "\0" in "".join(words):
            yield Mistake(path, "contains a NUL character")
        elif shutil.which(words[0]) is None:
            yield Mistake(path, f"{redacted(words[0])!r}: no such program, or not executable")


def _sinks(config: WatchConfig, wrong: Sequence[KeyPath]) -> Iterator[Mistake]:
    for table, (module, package) in _PACKAGES.items():
        if getattr(config, table) is not None and not _installed(module):
            yield Mistake((table,), f"needs {package}")
    if (mqtt := config.mqtt) is not None:
        try:
            _ = mqtt.address
        except ConfigurationError as error:
            yield Mistake(("mqtt", "host"), str(error).removeprefix("mqtt.host: "))
        if mqtt.ca_file and not mqtt.tls and ("mqtt", "tls") not in wrong:
            yield Mistake(("mqtt", "ca_file"), "has no effect without tls = true")
        if mqtt.password_file and not mqtt.user and ("mqtt", "user") not in wrong:
            yield Mistake(("mqtt", "password_file"), "a password needs a user too")
        if mqtt.user and not mqtt.tls and not is_loopback(mqtt.host):
            yield Mistake(("mqtt", "user"), "user and password are sent unencrypted: set tls = true", warning=True)
        if set(mqtt.topic + mqtt.discovery_prefix) & set("#+\0"):
            yield Mistake(("mqtt", "topic"), "a topic to publish to has no # and no +")
    if config.webhook is not None:
        try:
            webhook.parse_url(config.webhook.url)
        except ConfigurationError as error:
            yield Mistake(("webhook", "url"), str(error).removeprefix("webhook.url: "))
    if (gpio := config.gpio) is not None and gpio.pin > 27:
        yield Mistake(("gpio", "pin"), f"pin {gpio.pin} is not on the header of a Raspberry Pi: expected 0 to 27", True)
    for name, served in (("health", config.health), ("page", config.page)):
        if served is not None and 0 < served.port < 1024:
            yield Mistake((name, "port"), f"port {served.port} needs root: choose 1024 or above", True)


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
