"""What was announced on a broker, remembered in a file, so that it can be withdrawn when it exists no longer."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from bittern.config.schema import MqttConfig
from bittern.delivery.outbox_file import OutboxFile
from bittern.system import fileio

NAME = "mqtt.json"
# The largest file of a sink that is read: a record of a device with a hundred entities has some 20 kB.
MAX_BYTES = 1 << 20
# At most this many records are kept: a broker that is gone for good is forgotten in the end.
_MAX_RECORDS = 8
# What of a configuration says how to reach the broker.
_BROKER = ("host", "port", "user", "password_file", "tls", "ca_file")
_log = logging.getLogger("bittern")


class Announced(msgspec.Struct, frozen=True):
    """What one device has on one broker.

    Attributes:
        host: this and the next five say how to reach the broker; as in `MqttConfig`. There is no password in it.
        port: as there.
        user: as there.
        password_file: as there.
        tls: as there.
        ca_file: as there.
        discovery: topic of the discovery message; "" if there is none.
        components: keys of its entities in the discovery message, each with its platform.
        topics: that are retained.
    """

    host: str
    port: int | None = None
    user: str = ""
    password_file: str = ""
    tls: bool = False
    ca_file: str = ""
    discovery: str = ""
    components: tuple[tuple[str, str], ...] = ()
    topics: tuple[str, ...] = ()

    def broker(self) -> MqttConfig:
        """How to reach the broker."""
        return MqttConfig(**{key: getattr(self, key) for key in _BROKER})

    def same_broker(self, config: MqttConfig) -> bool:
        """Whether it is on the broker of a configuration."""
        return (self.host, self.broker().broker_port) == (config.host, config.broker_port)


class _File(msgspec.Struct, frozen=True):
    """The file: the path of the configuration that it belongs to, and the records."""

    config: str
    announced: tuple[Announced, ...]


def record(config: MqttConfig, discovery: str, components: Mapping[str, str], topics: Sequence[str]) -> Announced:
    """The record of a device on the broker of a configuration."""
    return Announced(
        **{key: getattr(config, key) for key in _BROKER},
        discovery=discovery,
        components=tuple(sorted(components.items())),
        topics=tuple(sorted(topics)),
    )


class Memory:
    """The records in a folder. Any thread may use it.

    A record is written before the broker gets what it names, and removed after the broker has confirmed that this is
    gone: a process that is killed in between leaves too much in the file, never too little.
    """

    def __init__(self, folder: Path | None, config_file: Path | None) -> None:
        """Read the file, and those of folders that this camera had under another name.

        Args:
            folder: where the file is; None remembers nothing.
            config_file: the configuration that the daemon was started with.
        """
        self._folder = folder
        self._config = str(config_file.absolute()) if config_file is not None else ""
        self._lock = threading.Lock()
        self._trouble = ""
        self._records: tuple[Announced, ...] = ()
        if folder is None:
            return
        own = _read(folder / NAME)
        self._records = tuple(dict.fromkeys(own.announced)) if own is not None else ()
        if self._config:
            for other in self._neighbours(folder):
                self._take_over(other)

    @property
    def records(self) -> tuple[Announced, ...]:
        """Everything that may still be on a broker."""
        return self._records

    def add(self, record: Announced) -> None:
        """Add a record, before it is announced; it becomes the first one."""
        with self._lock:
            records = tuple(dict.fromkeys((record, *self._records)))[:_MAX_RECORDS]
            if records != self._records:
                self._records = records
                self._write()

    def remove(self, records: Iterable[Announced]) -> None:
        """Remove records, after they were withdrawn."""
        with self._lock:
            gone = set(records)
            left = tuple(record for record in self._records if record not in gone)
            if left != self._records:
                self._records = left
                self._write()

    def _write(self) -> bool:
        if self._folder is None:
            return False
        try:
            fileio.write(self._folder / NAME, msgspec.json.encode(_File(self._config, self._records)))
        except OSError as error:
            trouble = f"{self._folder / NAME}: {error.strerror}"
            if trouble != self._trouble:
                _log.warning("mqtt: what is announced cannot be remembered, to be withdrawn one day: %s", trouble)
            self._trouble = trouble
            return False
        self._trouble = ""
        return True

    def _neighbours(self, folder: Path) -> list[Path]:
        """Files beside this one of the same configuration, which had another name then.

        Without systemd, and without `[outbox] folder`, the state of a camera is in a folder named after it.
        """
        try:
            others = [file for file in folder.parent.glob(f"*/{NAME}") if file.parent != folder]
        except OSError:
            return []
        return [file for file in others if (read := _read(file)) is not None and read.config == self._config]

    def _take_over(self, file: Path) -> None:
        """Take over the records of such a file, unless a daemon uses its folder: one with another source, say."""
        lock = OutboxFile(file.parent)
        try:
            lock.lock()
            read = _read(file)
            if read is not None:
                self._records = tuple(dict.fromkeys((*self._records, *read.announced)))
                if self._write():
                    file.unlink()
        except OSError:  # it is in use
            return
        finally:
            lock.close()


def _read(path: Path) -> _File | None:
    try:
        return msgspec.json.decode(fileio.read_regular(path, MAX_BYTES), type=_File)
    except FileNotFoundError:
        return None
    except OSError as error:
        reason = error.strerror
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        reason = str(error)
    _log.warning("mqtt: %s cannot be read: what was announced before stays on the broker: %s", path, reason)
    return None
