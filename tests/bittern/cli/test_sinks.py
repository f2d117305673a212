"""`bittern sinks` in a real process."""

from __future__ import annotations

import json
from pathlib import Path

from tests.doubles.command import bittern, one_line
from tests.doubles.door import Door, retained
from tests.doubles.http_peer import Peer, status
from tests.doubles.mosquitto import Broker, Listener, needs_mosquitto
from tests.doubles.waiting import until

from bittern.delivery.outbox import Outbox
from bittern.delivery.sinks.base import Sink
from bittern.delivery.sinks.command import CommandSink
from bittern.delivery.sinks.gpio import GpioSink
from bittern.delivery.sinks.mqtt import MqttSink
from bittern.delivery.sinks.registry import DURABLE
from bittern.delivery.sinks.webhook import WebhookSink


def config(tmp_path: Path, *lines: str) -> Path:
    file = tmp_path / "porch.toml"
    file.write_text("\n".join(['source = "demo:"', 'name = "porch"', *lines]))
    return file


def test_a_test_event_goes_through_every_sink(tmp_path: Path, peer: Peer) -> None:
    received = tmp_path / "received"
    file = config(
        tmp_path, "[webhook]", f'url = "{peer.url}"', "[command]", f'run = ["tee", "{received}"]',
        "[outbox]", f'folder = "{tmp_path / "state"}"',
    )  # fmt: skip
    done = bittern("sinks", "--config", file, "--test")
    assert done.code == 0, done.err
    assert done.out.splitlines() == [
        f"webhook  http://127.0.0.1:{peer.port}  ok: 200 OK",
        "command  tee  ok: exit code 0",
    ]
    (event,) = peer.events
    assert (event["type"], event["state"], event["source"]) == ("state", "test", "porch")
    assert json.loads(received.read_text())["state"] == "test"
    assert not (tmp_path / "state").exists(), "not by the outbox"


def test_one_that_fails_does_not_keep_the_others_from_being_tested(tmp_path: Path, peer: Peer) -> None:
    peer.answer = lambda _: status(301, "Moved", "Location: https://elsewhere/")
    file = config(tmp_path, "[webhook]", f'url = "{peer.url}"', "[command]", 'run = ["true"]')
    done = bittern("sinks", "--config", file, "--test", "--json")
    assert done.code == 1
    webhook, command = done.lines
    assert (webhook["sink"], webhook["ok"], command["sink"], command["ok"]) == ("webhook", False, "command", True)
    assert "redirects" in webhook["answer"]
    assert 0 < command["time_ms"] < 10_000
    assert set(webhook) == {"sink", "target", "ok", "answer", "time_ms", "id"}
    file = config(tmp_path, "[command]", 'run = ["no-such-program"]', "[webhook]", f'url = "{peer.url}"')
    done = bittern("sinks", "--config", file, "--test")
    assert done.code == 1
    assert "command  no-such-program  FAILED: command.run: " in done.out
    assert len(done.out.splitlines()) == 2


def test_the_list_says_what_waits(tmp_path: Path) -> None:
    state = tmp_path / "state"
    file = config(
        tmp_path, "[webhook]", 'url = "http://192.0.2.1/hook"', "[gpio]", "pin = 17",
        "[outbox]", f'folder = "{state}"', "max_events = 500",
    )  # fmt: skip
    done = bittern("sinks", "--config", file)
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == [
        "webhook  http://192.0.2.1  0 waiting",
        "gpio  pin 17  best effort",
        f"outbox  {state}/outbox.sqlite  0 of 500 events",
    ]
    assert not state.exists()
    box = Outbox(state, ["webhook"], "porch", 500)
    for _ in range(3):
        box.put(b"{}")
    box.flush()
    assert bittern("sinks", "--config", file).out.splitlines()[0] == "webhook  http://192.0.2.1  3 waiting"
    box.close()
    webhook, gpio = bittern("sinks", "--config", file, "--json").lines
    assert webhook == {"sink": "webhook", "target": "http://192.0.2.1", "durable": True, "waiting": 3}
    assert gpio == {"sink": "gpio", "target": "pin 17", "durable": False, "waiting": None}


def test_an_outbox_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "outbox.sqlite").write_text("no database" * 100)
    file = config(tmp_path, "[webhook]", 'url = "http://h/"', "[outbox]", f'folder = "{tmp_path}"')
    done = bittern("sinks", "--config", file)
    assert (done.code, done.out) == (1, "webhook  http://h  waiting: unknown\n")
    assert done.err == f"bittern: {tmp_path}/outbox.sqlite: file is not a database\n"


def test_no_sinks_and_a_wrong_file(tmp_path: Path) -> None:
    done = bittern("sinks", "--config", config(tmp_path))
    assert (done.code, done.out) == (0, "")
    assert done.err == "bittern: no sink is configured: events go to stdout only\n"
    one_line(bittern("sinks", "--config", tmp_path / "absent.toml"), 2, "absent.toml: No such file")
    one_line(bittern("sinks", "--config", config(tmp_path, "[webhook]")), 2, "porch.toml", "url")
    one_line(bittern("sinks"), 2, "--config")


def test_the_sinks_behind_the_outbox_are_those_that_say_so() -> None:
    sinks: list[type[Sink]] = [MqttSink, WebhookSink, CommandSink, GpioSink]
    assert [sink.name for sink in sinks if sink.durable] == list(DURABLE)


@needs_mosquitto
def test_forget_takes_everything_off_the_broker(tmp_path: Path) -> None:
    folder = tmp_path / "broker"
    folder.mkdir()
    with Broker(folder) as broker, Listener(broker.port, "nothing") as other:
        for topic in ("bittern/garden/state", "bittern/door/alarm/x/y/z", "bittern/doorbell/state"):
            other.say(topic, b"1", retain=True)  # of others
        keep = retained(broker.port)
        with Door(tmp_path / "door", broker.port) as door:
            door.start()
            until(lambda: retained(broker.port).get("bittern/door/availability") == b"online")
            file = door.folder / "door.toml"
            one_line(bittern("sinks", "--config", file, "--forget"), 2, "is used by process", "stop the daemon first")
            door.stop()
            assert len(retained(broker.port)) > 8
            done = bittern("sinks", "--config", file, "--forget")
            assert done.code == 0, done.err
            assert done.out.startswith(f"mqtt  127.0.0.1:{broker.port}  forgotten: ")
            assert retained(broker.port) == keep
            # Also what nobody remembers.
            for topic in ("bittern/door/alarm/old/red", "bittern/door/label/old", "bittern/door/image"):
                other.say(topic, b"x" * (3000 if "image" in topic else 1), retain=True)
            done = bittern("sinks", "--config", file, "--forget", "--json")
            assert [line["ok"] for line in done.lines] == [True]
            assert retained(broker.port) == keep
    one_line(bittern("sinks", "--config", file, "--forget"), 1, "mqtt: 127.0.0.1:", "connection refused")
    one_line(bittern("sinks", "--config", file, "--forget", "--test"), 2, "expected --test or --forget, not both")
