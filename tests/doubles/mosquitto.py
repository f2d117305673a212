"""A real mosquitto on a free port of the loopback, to be stopped and killed; plain, with password, with TLS."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
import pytest
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from tests.doubles.waiting import until

MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
needs_mosquitto = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")
USER, PASSWORD = "bittern", "reeds and water"


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Broker:
    """mosquitto with a configuration of its own; what is persistent survives SIGKILL too, once it was saved.

    Attributes:
        port: on 127.0.0.1, the same at every start.
        ca_file: the authority that signed its certificate, with TLS.
    """

    def __init__(self, folder: Path, *lines: str, password: bool = False, tls: bool = False) -> None:
        assert MOSQUITTO is not None
        self.port = free_port()
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        lines = (
            f"listener {self.port} 127.0.0.1",
            "persistence true",
            f"persistence_location {folder}/",
            "autosave_on_changes true",
            "autosave_interval 1",
            "max_queued_messages 100000",  # 0, no limit, closes connections at a refused message in 2.0.11
            *lines,
        )
        if password:
            file = folder / "passwords"
            subprocess.run(["mosquitto_passwd", "-b", "-c", file, USER, PASSWORD], check=True, capture_output=True)
            lines += ("allow_anonymous false", f"password_file {file}")
        else:
            lines += ("allow_anonymous true",)
        if tls:
            self.ca_file = authority(folder)
            lines += (f"certfile {folder}/server.pem", f"keyfile {folder}/server.key")
        # Started by root it would become the user mosquitto, who may not write here.
        if os.geteuid() == 0:
            lines += ("user root",)
        self._conf = folder / "mosquitto.conf"
        self._conf.write_text("\n".join(lines) + "\n")

    def start(self) -> Self:
        with (self._folder / "mosquitto.log").open("ab") as log:
            self._process = subprocess.Popen([str(MOSQUITTO), "-v", "-c", self._conf], stdout=log, stderr=log)
        until(self._answers)
        return self

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "mosquitto.log").read_text()
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", self.port)) == 0

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.send_signal(signal.SIGCONT)
            self._process.wait(10)
            self._process = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop(signal.SIGKILL)


class Listener:
    """A subscriber that keeps everything, and whose session the broker keeps while either of them is away.

    Attributes:
        received: topic, payload and whether it was retained, in the order of arrival.
    """

    def __init__(self, port: int, *topics: str, name: str = "listener", tls: Path | None = None) -> None:
        self.received: list[tuple[str, bytes, bool]] = []
        self._ready = threading.Event()
        self._topics = topics
        self.client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=name,
            clean_session=False,
            protocol=MQTTProtocolVersion.MQTTv311,
        )
        if tls is not None:
            self.client.tls_set(str(tls))
        self.client.on_connect = lambda client, *_: client.subscribe([(topic, 1) for topic in topics])
        self.client.on_subscribe = lambda *_: self._ready.set()
        self.client.on_disconnect = lambda *_: self._ready.clear()
        self.client.on_message = lambda _client, _data, m: self.received.append((m.topic, bytes(m.payload), m.retain))
        self.client.reconnect_delay_set(1, 1)
        self.client.connect_async("localhost" if tls else "127.0.0.1", port)
        self.client.loop_start()
        assert self.ready()

    def ready(self) -> bool:
        """Wait until it hears."""
        return self._ready.wait(10)

    def payloads(self, topic: str) -> list[bytes]:
        return [payload for about, payload, _ in list(self.received) if about == topic]

    def last(self, topic: str) -> bytes | None:
        return next(iter(self.payloads(topic)[::-1]), None)

    def say(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        info = self.client.publish(topic, payload, qos=1, retain=retain)
        info.wait_for_publish(10)
        assert info.is_published()

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()
        for kind in ("connect", "subscribe", "disconnect", "message"):
            setattr(self.client, f"on_{kind}", None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def authority(folder: Path) -> Path:
    """A throw-away authority, and a certificate for localhost that it signed: ca.pem, server.pem, server.key."""
    ca, key = folder / "ca.pem", folder / "ca.key"
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    _openssl("req", "-x509", *curve, "-keyout", key, "-out", ca, "-days", "2", "-subj", "/CN=throw-away authority")
    _openssl("req", *curve, "-keyout", folder / "server.key", "-out", folder / "server.csr", "-subj", "/CN=localhost")
    names = folder / "names"
    names.write_text("subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n")
    signed = ("-CA", ca, "-CAkey", key, "-CAcreateserial", "-days", "2", "-extfile", names)
    _openssl("x509", "-req", "-in", folder / "server.csr", "-out", folder / "server.pem", *signed)
    return ca


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


def ids(payloads: Sequence[bytes]) -> list[str]:
    """The ids of events."""
    return [msgspec.json.decode(payload)["id"] for payload in payloads]
