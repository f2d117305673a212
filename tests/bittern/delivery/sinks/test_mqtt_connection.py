"""The connection to a real mosquitto: passwords, TLS, brokers that hang or are not there, and how it is closed."""

from __future__ import annotations

import gc
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.doubles.camera_process import descriptors
from tests.doubles.mosquitto import PASSWORD, USER, Broker, Listener, free_port, needs_mosquitto
from tests.doubles.mqtt_sinks import ALARM, INFO, Opens, deliver, delivered, event
from tests.doubles.waiting import until, within

from bittern.config.schema import MqttConfig
from bittern.delivery.sinks import mqtt_connection
from bittern.delivery.sinks.base import Diagnostics, Undelivered
from bittern.delivery.sinks.mqtt import MqttSink
from bittern.errors import ConfigurationError

pytestmark = [
    needs_mosquitto,
    # paho leaves the socket of a failed handshake to Python, which closes it at once, but says so.
    pytest.mark.filterwarnings("ignore:Exception ignored in. .*SSLSocket:pytest.PytestUnraisableExceptionWarning"),
]


# Who may come in.


def test_user_and_password(broker_folder: Path, opened: Opens, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(f"{PASSWORD}\n")
    wrong = tmp_path / "wrong"
    wrong.write_text("wrong\n")
    with Broker(broker_folder, password=True) as broker:
        sink = opened(broker.port, user=USER, password_file=str(secret))
        assert deliver(sink, event()).startswith("acknowledged")
        refused = r"^127\.0\.0\.1:\d+: not authorised: check user and password_file"
        logins: list[dict[str, Any]] = [{}, {"user": USER}, {"user": USER, "password_file": str(wrong)}]
        for config in logins:
            with within(), pytest.raises(Undelivered, match=refused):
                deliver(opened(broker.port, **config), event())


def test_a_password_that_cannot_be_read(opened: Opens, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    with pytest.raises(ConfigurationError, match=r"^mqtt\.password_file: .*/secret: No such file or directory: "):
        opened(1, user=USER, password_file=str(file))
    for content, expected in ((b"", "it is empty"), (b"\nx", "it is empty"), (b"\xff\xfe", "UTF-8")):
        file.write_bytes(content)
        with pytest.raises(ConfigurationError, match=f"password_file: .*{expected}"):
            opened(1, user=USER, password_file=str(file))
    with pytest.raises(ConfigurationError, match=r"mqtt\.user is not: set both"):
        opened(1, password_file=str(file))


def test_a_broker_that_lets_nobody_write_says_so_and_the_event_stays(broker_folder: Path, opened: Opens) -> None:
    acl = broker_folder / "acl"
    acl.write_text("topic read #\ntopic write bittern/door/state\n")
    acl.chmod(0o600)
    with Broker(broker_folder, f"acl_file {acl}") as broker:
        sink = opened(broker.port)
        for _ in range(2):
            with pytest.raises(Undelivered, match=r"/event: not authorised: .*lets this user write") as refused:
                deliver(sink, event())
            assert not refused.value.final


def test_rules_that_keep_discovery_away_are_said(
    broker_folder: Path, opened: Opens, caplog: pytest.LogCaptureFixture
) -> None:
    acl = broker_folder / "acl"
    acl.write_text("topic readwrite bittern/#\ntopic read homeassistant/#\n")
    acl.chmod(0o600)
    with Broker(broker_folder, f"acl_file {acl}") as broker:
        trial = opened(broker.port, announce=False)
        deliver(trial, event())
        with pytest.raises(Undelivered, match=r"homeassistant/device/bittern_door/config: not authorised"):
            trial.check()
        assert opened(broker.port, announce=False, discovery=False).check() == ""
        opened(broker.port)
        until(lambda: "homeassistant/device/bittern_door/config: not authorised" in caplog.text)


def test_tls_with_an_authority_of_ones_own(broker_folder: Path, opened: Opens, tmp_path: Path) -> None:
    with Broker(broker_folder, tls=True) as broker, Listener(broker.port, "#", tls=broker.ca_file) as listener:
        bundle = tmp_path / "bundle.pem"
        bundle.write_bytes("# Főtanúsítvány\n".encode() + broker.ca_file.read_bytes())
        sink = opened(broker.port, host="localhost", tls=True, ca_file=str(bundle))
        assert deliver(sink, event()) == f"acknowledged by localhost:{broker.port}"
        until(lambda: listener.last(ALARM) == b"ON")
        for config, expected in (
            ({"host": "localhost", "tls": True}, "certificate verify failed: "),
            (
                {"host": "127.0.0.1", "tls": True, "ca_file": str(broker.ca_file)},
                "certificate verify failed: IP address",
            ),
            ({"host": "localhost"}, "closed the connection without an answer: check whether it requires TLS"),
        ):
            with pytest.raises(Undelivered, match=expected):
                deliver(opened(broker.port, **config), event())
    gc.collect()  # a socket that is left open would be a warning here


def test_tls_where_there_is_none(broker: Broker, opened: Opens) -> None:
    with pytest.raises(Undelivered, match=rf"^127\.0\.0\.1:{broker.port}: "):
        deliver(opened(broker.port, tls=True), event())


def test_certificates_that_cannot_be_read(opened: Opens, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    with pytest.raises(ConfigurationError, match=r"^mqtt\.ca_file: .*/ca\.pem: No such file or directory: expected"):
        opened(1, tls=True, ca_file=str(file))
    for content in (b"no certificate", b"\xff\xfe"):
        file.write_bytes(content)
        with pytest.raises(ConfigurationError, match=r"^mqtt\.ca_file: .*: expected certificates in PEM format$"):
            opened(1, tls=True, ca_file=str(file))
    with pytest.raises(ConfigurationError, match=r"^mqtt\.ca_file is set, but mqtt\.tls is off"):
        opened(1, ca_file=str(file))


# Brokers that are not there, do not answer, or do not take everything.


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", "connection refused"),
        ("no-such-host.invalid", "name"),
        ("a..b", "a..b:|label"),
    ],
)
def test_a_broker_that_is_not_there_is_said_soon(opened: Opens, host: str, expected: str) -> None:
    sink = opened(free_port(), host=host)
    with within(), pytest.raises(Undelivered, match=f"(?i){expected}"):
        deliver(sink, event())
    sink.close()


def test_a_broker_that_hangs_gets_the_event_once_it_goes_on(
    broker: Broker, opened: Opens, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mqtt_connection, "_TIMEOUT_S", 0.5)
    with Listener(broker.port, "bittern/door/event") as listener:
        sink = opened(broker.port)
        deliver(sink, event())
        broker.send(signal.SIGSTOP)
        sent = event()
        for _ in range(4):
            with within(), pytest.raises(Undelivered, match=r"no acknowledgement within 0\.5 s"):
                deliver(sink, sent)
        broker.send(signal.SIGCONT)
        delivered(sink, sent)
        until(lambda: len(listener.received) == 2)
        time.sleep(0.3)
        assert len(listener.received) == 2, "asked five times, sent once"


def test_messages_that_wait_for_a_hung_broker_are_bounded(
    broker: Broker, opened: Opens, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mqtt_connection, "_TIMEOUT_S", 0.02)
    sink = opened(broker.port)
    delivered(sink, event())
    broker.send(signal.SIGSTOP)
    reasons = set()
    for _ in range(30):  # an outbox that drops its oldest asks for another one each time
        with pytest.raises(Undelivered) as why:
            deliver(sink, event())
        reasons.add(why.value.reason.partition(": ")[2])
    assert reasons == {"no acknowledgement within 0.02 s", "16 messages are waiting for the broker's acknowledgement"}
    broker.send(signal.SIGCONT)
    delivered(sink, event())


def test_an_event_larger_than_the_broker_takes_is_refused_for_good(
    broker_folder: Path, opened: Opens, tmp_path: Path
) -> None:
    (tmp_path / "large.jpg").write_bytes(bytes(5000))
    (tmp_path / "small.jpg").write_bytes(bytes(100))
    with Broker(broker_folder, "max_packet_size 4000") as broker, Listener(broker.port, "#") as listener:
        sink = opened(broker.port, snapshots=tmp_path)
        with pytest.raises(Undelivered, match="more than the broker accepts") as refused:
            deliver(sink, event(detail="x" * 5000))
        assert refused.value.final
        deliver(sink, event(snapshot="large.jpg"))
        deliver(sink, event(snapshot="small.jpg"))
        until(lambda: listener.last("bittern/door/image") == bytes(100))


# Threads and sockets.


def test_close_is_quick_and_leaves_neither_thread_nor_socket(broker: Broker) -> None:
    gc.collect()  # what other tests left
    before = set(threading.enumerate())
    opens = descriptors()
    for _ in range(5):
        sink = MqttSink(MqttConfig(host="127.0.0.1", port=broker.port), INFO, Diagnostics)
        deliver(sink, event())
        with within():
            sink.close()
            sink.close()
        with pytest.raises(Undelivered, match="closing"):
            deliver(sink, event())
    del sink
    until(lambda: set(threading.enumerate()) <= before)
    until(lambda: descriptors() <= opens)


@pytest.mark.parametrize("state", ["away", "hung", "silent"])
def test_close_is_quick_whatever_the_broker_does(broker: Broker, opened: Opens, state: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never answers
        sink = opened(silent.getsockname()[1] if state == "silent" else broker.port)
        if state != "silent":
            deliver(sink, event())
        if state == "away":
            broker.stop(signal.SIGKILL)
        elif state == "hung":
            broker.send(signal.SIGSTOP)
        time.sleep(0.3)
        with within():
            sink.close()


def test_close_ends_a_delivery_that_waits(opened: Opens) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        sink = opened(silent.getsockname()[1])
        with ThreadPoolExecutor(1) as thread:
            attempt = thread.submit(deliver, sink, event())
            time.sleep(0.3)
            sink.close()
            with pytest.raises(Undelivered, match=r": closing$"):
                attempt.result(20)


def test_importing_the_sink_says_how_to_get_paho() -> None:
    code = "import sys; sys.modules['paho.mqtt.enums'] = None\nimport bittern.delivery.sinks.mqtt"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert r"ConfigurationError: [mqtt] needs paho-mqtt 2 or later: pip install 'bittern[mqtt]'" in ended.stderr


def test_trouble_is_said_once(broker: Broker, opened: Opens, caplog: pytest.LogCaptureFixture) -> None:
    sink = opened(broker.port)
    deliver(sink, event())
    broker.stop(signal.SIGKILL)

    def troubles() -> list[str]:
        return [record.message.rpartition(": ")[2] for record in caplog.records if record.levelname == "WARNING"]

    until(lambda: len(troubles()) == 2)
    for _ in range(2):
        with pytest.raises(Undelivered):
            deliver(sink, event())
    assert troubles() == ["connection lost", "connection refused"]
