"""MQTT, with a real mosquitto: events, retained states, pictures, discovery and topics."""

from __future__ import annotations

import json
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import cv2
import numpy as np
import pytest
from tests.doubles.mosquitto import Broker, Listener, needs_mosquitto
from tests.doubles.mqtt_sinks import ALARM, CONFIG, LABEL, STOP, Opens, deliver, delivered, event
from tests.doubles.waiting import until

from bittern.delivery.sinks import mqtt
from bittern.delivery.sinks.base import Controls, Diagnostics, Undelivered
from bittern.delivery.sinks.homeassistant import device_id
from bittern.errors import ConfigurationError
from bittern.events import AlarmKey, to_line
from bittern.frames import Frame

pytestmark = needs_mosquitto


def test_an_event_arrives_as_it_is_and_the_states_follow(broker: Broker, opened: Opens) -> None:
    with Listener(broker.port, "#") as listener:
        sink = opened(broker.port)
        on, off = event(), event("alarm.off")
        assert deliver(sink, on) == f"acknowledged by 127.0.0.1:{broker.port}"
        until(lambda: listener.last(ALARM) == b"ON" and listener.last(LABEL) == b"stop")
        until(lambda: listener.last("bittern/door/availability") == b"online")
        deliver(sink, off)
        until(lambda: listener.last(ALARM) == b"OFF" and listener.last(LABEL) == b"nothing")
        assert listener.payloads("bittern/door/event") == [to_line(on)[:-1], to_line(off)[:-1]]
        diagnostics = listener.last("bittern/door/diagnostics")
        assert diagnostics is not None
        assert json.loads(diagnostics) == {"fps": 4.5, "latency_ms": None, "temperature_c": None}


def test_what_is_retained_greets_who_comes_later_and_nothing_else_does(
    broker: Broker, opened: Opens, tmp_path: Path, interned: list[str]
) -> None:
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8 a picture \x00")
    interned.clear()
    with Listener(broker.port, "bittern/door/#", name="early") as early:
        sink = opened(broker.port, snapshots=tmp_path)
        deliver(sink, event(snapshot="a.jpg"))
        deliver(sink, event("state", state="camera_ok"))
        deliver(sink, event("state", state="blind"))
        # States are not sent by the thread that delivers; `watching` is the last of them.
        until(
            lambda: early.last("bittern/door/state") == b"blind" and early.last("bittern/door/watching") == b"offline"
        )
        until(lambda: early.payloads("bittern/door/diagnostics") and early.payloads("bittern/door/image"))
    assert "a.jpg" not in interned
    deliver(sink, event("dropped", count=1))  # acknowledged after everything before it
    with Listener(broker.port, "#") as listener:
        until(lambda: len([topic for topic, _, retained in list(listener.received) if retained]) >= 11)
        assert {topic: payload for topic, payload, retained in listener.received if retained} == {
            ALARM: b"ON",
            LABEL: b"stop",
            "bittern/door/state": b"blind",
            "bittern/door/watching": b"offline",
            "bittern/door/detection": b"ON",
            "bittern/door/threshold/stop_sign/stop": b"0.5",
            "bittern/door/scores": b"{}",
            "bittern/door/availability": b"online",
            "bittern/door/diagnostics": b'{"fps":4.5,"latency_ms":null,"temperature_c":null}',
            "bittern/door/image": b"\xff\xd8 a picture \x00",
            CONFIG: listener.last(CONFIG),
        }
        assert not listener.payloads("bittern/door/event")


def test_diagnostics_come_again_and_again(broker: Broker, opened: Opens) -> None:
    with Listener(broker.port, "bittern/door/diagnostics") as listener:
        opened(broker.port, interval_s=1.0)
        until(lambda: len(listener.received) >= 3, 10)


def test_home_assistant_that_starts_later_is_told_everything_again(broker: Broker, opened: Opens) -> None:
    with Listener(broker.port, "#") as listener:
        sink = opened(broker.port)
        deliver(sink, event())
        until(lambda: len(listener.payloads(CONFIG)) == 1 and bool(listener.payloads("bittern/door/diagnostics")))
        listener.say("homeassistant/status", b"offline")
        time.sleep(0.2)
        assert len(listener.payloads(CONFIG)) == 1
        before = len(listener.payloads(ALARM))
        listener.say("homeassistant/status", b"online")
        until(lambda: len(listener.payloads(CONFIG)) == 2)
        until(lambda: len(listener.payloads(ALARM)) > before)
        assert listener.last(ALARM) == b"ON"
        assert sink.ignored == 0


@pytest.mark.parametrize("pause_s", [0.5, 3600.0])
def test_a_hundred_starts_of_home_assistant_are_one_announcement_after_the_pause(
    broker: Broker, opened: Opens, monkeypatch: pytest.MonkeyPatch, pause_s: float
) -> None:
    monkeypatch.setattr("bittern.delivery.sinks.mqtt._PAUSE_S", pause_s)
    with Listener(broker.port, CONFIG) as listener:
        sink = opened(broker.port)
        until(lambda: len(listener.received) == 1)
        for _ in range(100):
            listener.client.publish("homeassistant/status", b"online")
        listener.say("homeassistant/status", b"online")
        if pause_s < 1:
            until(lambda: len(listener.received) >= 2)
        else:
            until(lambda: sink._announce_requested)
            listener.say(CONFIG, b"")  # what was published before it has come when it comes
            until(lambda: not listener.received[-1][1])
            assert len(listener.received) == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_retained_topics_are_right_after_the_broker_was_away(
    broker: Broker, opened: Opens, number: signal.Signals
) -> None:
    sink = opened(broker.port)
    deliver(sink, event("state", state="camera_ok"))
    deliver(sink, event())
    broker.stop(number)
    for sent in (event("alarm.off"), event(), event("alarm.off")):
        with pytest.raises(Undelivered, match=f"127.0.0.1:{broker.port}: connection (lost|refused)"):
            deliver(sink, sent)
    broker.start()
    with Listener(broker.port, "#") as listener:
        until(lambda: listener.last(ALARM) == b"OFF")  # what holds now, before any of the events is delivered
        until(lambda: listener.last("bittern/door/availability") == b"online")
        # Perhaps what the broker had retained, and then no more than that, however often it is said.
        assert b"ON" not in listener.payloads(ALARM)[1:], "not one after the other"
        until(lambda: listener.last("bittern/door/state") == b"camera_ok")
        assert len(listener.payloads("bittern/door/event")) <= 1, "one may have been on its way when the broker went"
        delivered(sink, event())
        until(lambda: listener.last(ALARM) == b"ON")


def test_a_daemon_that_is_killed_or_closed_is_offline(broker: Broker, opened: Opens) -> None:
    with Listener(broker.port, "bittern/door/availability") as listener:
        sink = opened(broker.port)
        until(lambda: listener.last("bittern/door/availability") == b"online")
        # As a killed process does it: no farewell.
        client = sink._connection._client
        sock = client.socket()
        assert sock is not None
        sock.shutdown(socket.SHUT_RDWR)  # type: ignore[attr-defined]
        until(lambda: listener.last("bittern/door/availability") == b"offline")  # the broker's own word
        until(lambda: listener.last("bittern/door/availability") == b"online")
        sink.close()
        until(lambda: listener.last("bittern/door/availability") == b"offline")


def test_a_trial_beside_a_daemon_says_nothing_for_it(broker: Broker, opened: Opens) -> None:
    with Listener(broker.port, "#") as listener:
        opened(broker.port)
        until(lambda: listener.payloads("bittern/door/daemon"))
        before = len(listener.received)
        trial = opened(broker.port, announce=False)
        sent = event()
        deliver(trial, sent)
        trial.close()
        until(lambda: len(listener.received) > before)
        time.sleep(0.3)
        assert listener.received[before:] == [("bittern/door/event", to_line(sent)[:-1], False)]


def calls_of(function: Callable[[], object]) -> set[str]:
    """The names of all functions that this thread calls meanwhile."""
    names: set[str] = set()

    def note(frame: FrameType, kind: str, called: Any) -> None:
        names.add(called.__name__ if kind.startswith("c_") else frame.f_code.co_name)

    sys.setprofile(note)
    try:
        function()
    finally:
        sys.setprofile(None)
    return names


def test_other_alarms_while_the_broker_is_away_are_right_when_it_is_back(broker: Broker, opened: Opens) -> None:
    sink = opened(broker.port)
    deliver(sink, event())
    broker.stop(signal.SIGTERM)
    calls = calls_of(lambda: sink.expect({AlarmKey("stop_sign", "stop_sign", "halt"): 0.5}))
    assert "expect" in calls
    assert not calls & {"wait", "wait_for", "join", "sleep", "select", "publish", "send", "connect"}, (
        "it only notes them"
    )
    broker.start()
    delivered(sink, event("alarm.off"))  # of the label that is gone
    delivered(sink, event(label="halt"))
    halt = "bittern/door/alarm/stop_sign/halt"
    with Listener(broker.port, "#") as listener:
        until(lambda: listener.last(halt) == b"ON" and listener.last(LABEL) == b"halt")
        until(lambda: b"__halt" in (listener.last(CONFIG) or b""))
    for _ in range(2):  # the first is followed after the whole announcement, the second acknowledged after that
        deliver(sink, event("state", state="seeing"))
    with Listener(broker.port, "bittern/door/alarm/#", name="later") as later:
        until(lambda: later.last(halt) == b"ON")
        assert ALARM not in [topic for topic, _, retained in list(later.received) if retained], "retained no more"


def test_without_discovery_nothing_is_announced_and_nothing_heard(broker: Broker, opened: Opens) -> None:
    with Listener(broker.port, "#") as listener:
        sink = opened(broker.port, discovery=False)
        until(lambda: listener.payloads("bittern/door/diagnostics"))
        listener.say("homeassistant/status", b"nonsense")
        time.sleep(0.2)
        assert not listener.payloads(CONFIG)
        assert sink.ignored == 0


def test_a_picture_that_the_ring_has_dropped_is_left_out(broker: Broker, opened: Opens, tmp_path: Path) -> None:
    with Listener(broker.port, "#") as listener:
        sink = opened(broker.port, snapshots=tmp_path)
        deliver(sink, event(snapshot="gone.jpg"))
        until(lambda: listener.last(ALARM) == b"ON")
        assert not listener.payloads("bittern/door/image")


def test_topics_of_ones_own(broker: Broker, opened: Opens) -> None:
    with Listener(broker.port, "#") as listener:
        sink = opened(broker.port, topic="Haus/Tür 1", discovery_prefix="ha")
        deliver(sink, event())
        until(lambda: listener.last("Haus/Tür 1/alarm/stop_sign/stop") == b"ON")
        until(lambda: listener.payloads(f"ha/device/{device_id('Haus/Tür 1')}/config"))


@pytest.mark.parametrize("topic", ["a/#", "+", "/a", "a/", "a//b", "$SYS/x", "a\x00b", "a\nb", "a" * 201])
def test_topics_that_cannot_be(opened: Opens, topic: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^mqtt\.topic .*: expected words separated by slashes"):
        opened(1, topic=topic)
    with pytest.raises(ConfigurationError, match=r"^mqtt\.discovery_prefix"):
        opened(1, discovery_prefix=topic)


def test_online_is_the_last_word_of_an_announcement(broker: Broker, opened: Opens) -> None:
    states = {ALARM, LABEL, "bittern/door/state", "bittern/door/watching", CONFIG}
    with Listener(broker.port, "#") as listener:
        sink = opened(broker.port)
        deliver(sink, event())
        for _ in range(2):
            until(lambda: listener.last("bittern/door/availability") == b"online")
            topics = [topic for topic, _, _ in listener.received]
            assert states <= set(topics[: topics.index("bittern/door/availability")])
            client = sink._connection._client
            sock = client.socket()
            assert sock is not None
            sock.shutdown(socket.SHUT_RDWR)  # type: ignore[attr-defined]
            until(lambda: listener.last("bittern/door/availability") == b"offline")
            while listener.received and listener.received[-1][1] != b"offline":
                time.sleep(0.01)
            listener.received.clear()


def test_the_picture_changes_with_an_alarm_only(broker: Broker, opened: Opens, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"a picture")
    image = "bittern/door/image"
    with Listener(broker.port, "#") as listener:
        sink = opened(broker.port, snapshots=tmp_path)
        deliver(sink, event(snapshot="a.jpg"))
        # Both: states and picture may come before the first announcement, which a second one could replace.
        until(lambda: listener.payloads(image) and listener.last("bittern/door/availability") == b"online")
        listener.say("homeassistant/status", b"online")
        until(lambda: len(listener.payloads(CONFIG)) >= 2)
        client = sink._connection._client
        sock = client.socket()
        assert sock is not None
        sock.shutdown(socket.SHUT_RDWR)  # type: ignore[attr-defined]
        until(lambda: len(listener.payloads(CONFIG)) >= 3)  # one that was on its way may come twice
        until(lambda: listener.last("bittern/door/availability") == b"online")
        assert len(listener.payloads(image)) == 1
        (tmp_path / "b.jpg").write_bytes(b"another picture")
        broker.stop(signal.SIGTERM)
        sink.follow(event(snapshot="b.jpg"))
        broker.start()
        until(lambda: b"another picture" in listener.payloads(image))  # of the alarm that came meanwhile
    with Listener(broker.port, image, name="late") as late:
        until(lambda: late.last(image) == b"another picture")


def test_the_late_word_of_an_old_connection_is_corrected(broker: Broker, opened: Opens) -> None:
    with Listener(broker.port, "bittern/door/availability") as listener:
        opened(broker.port)
        until(lambda: listener.last("bittern/door/availability") == b"online")
        listener.say("bittern/door/availability", b"offline", retain=True)
        until(lambda: listener.payloads("bittern/door/availability")[-2:] == [b"offline", b"online"])


def test_two_daemons_with_the_same_topics_say_so(
    broker: Broker, opened: Opens, caplog: pytest.LogCaptureFixture
) -> None:
    def warnings() -> list[str]:
        return [record.message for record in caplog.records if "another daemon" in record.message]

    with Listener(broker.port, "bittern/door/daemon") as listener:
        opened(broker.port)
        until(lambda: listener.received)
        opened(broker.port)
        until(lambda: len(warnings()) == 2)  # each of the two
        assert all("publishes as 'bittern/door' too" in line and "mqtt.topic" in line for line in warnings())
        before = len(listener.received)
        time.sleep(2.5)
        assert len(warnings()) == 2, "and not again and again"
        assert len(listener.received) <= before + 2


def test_a_hello_that_is_none_is_ignored(broker: Broker, opened: Opens, caplog: pytest.LogCaptureFixture) -> None:
    with Listener(broker.port, CONFIG) as listener:
        sink = opened(broker.port)
        until(lambda: listener.received)
        for payload in (b"", b"{}", b"\xff", b'{"id":1}', b"x" * 900):
            listener.say("bittern/door/daemon", payload)
        until(lambda: sink.ignored == 5)
        listener.say("bittern/door/daemon", b'{"id":"x","host":"a\\nb\\u001b[31m","pid":1}')
        until(lambda: "a\\nb\\x1b[31m" in caplog.text)


class Announcer:
    """Starts sinks one after the other, as runs of a daemon do, and tells what the broker has retained."""

    def __init__(self, broker: Broker, opened: Opens, memory: Path) -> None:
        self._broker, self._opened, self._memory = broker, opened, memory
        self._count = 0

    def run(self, *, alarms: dict[AlarmKey, float] | None = None, kill: bool = False, **config: Any) -> None:
        sink = self._opened(self._broker.port, memory=self._memory, alarms=alarms, **config)
        until(lambda: sink.confirmed)
        if kill:  # no farewell, nothing is written any more
            sink._closing.set()
            sock = sink._connection._client.socket()
            assert sock is not None
            sink._connection._client.loop_stop()
            sock.close()
        else:
            sink.close()

    def retained(self) -> dict[str, bytes]:
        self._count += 1
        with Listener(self._broker.port, "#", name=f"announced{self._count}") as listener:
            time.sleep(0.3)
            return {topic: payload for topic, payload, kept in listener.received if kept}


HALT = AlarmKey("stop_sign", "stop_sign", "halt")
DENT = AlarmKey("car_damage", "car_damage", "damaged")


@pytest.mark.parametrize("kill", [False, True])
@pytest.mark.parametrize("change", ["name", "models", "labels", "snapshots", "discovery", "prefix"])
def test_what_is_gone_after_an_edit_is_withdrawn(
    broker: Broker, opened: Opens, tmp_path: Path, change: str, kill: bool
) -> None:
    (tmp_path / "a.jpg").write_bytes(b"a picture")
    runs = Announcer(broker, opened, tmp_path / "memory")
    with Listener(broker.port, "nothing") as other:  # what belongs to others stays
        other.say("bittern/garden/state", b"camera_ok", retain=True)
        other.say("bittern/door/image", b"a picture", retain=True)
        runs.run(alarms={STOP: 0.5, DENT: 0.5}, snapshots=tmp_path, kill=kill)
        before = runs.retained()
        both: dict[str, Any] = {"alarms": {STOP: 0.5, DENT: 0.5}, "snapshots": tmp_path}
        edits: dict[str, dict[str, Any]] = {
            "name": both | {"name": "porch"},
            "models": both | {"alarms": {STOP: 0.5}},
            "labels": both | {"alarms": {HALT: 0.5, DENT: 0.5}},
            "snapshots": both | {"snapshots": None},
            "discovery": both | {"discovery": False},
            "prefix": both | {"discovery_prefix": "ha"},
        }
        runs.run(**edits[change])
        after = runs.retained()
        fresh = Announcer(broker, opened, tmp_path / "other")
        for topic in after:
            if topic != "bittern/garden/state":
                other.say(topic, b"", retain=True)
        if change != "snapshots":
            other.say("bittern/door/image" if change != "name" else "nothing/x", b"a picture", retain=change != "name")
        fresh.run(**edits[change])
        expected = fresh.retained()
    assert after.keys() == expected.keys()
    assert before.keys() != after.keys()
    gone = {"models": ["label__car_damage", "alarm__car_damage__damaged"], "labels": ["alarm__stop_sign__stop"]}
    components = json.loads(after.get(CONFIG, b"{}")).get("components", {})
    gone["snapshots"] = ["image"]
    for key in gone.get(change, []):
        assert components[f"bittern_door__{key}"].keys() == {"platform"}, "so that Home Assistant removes it"


def test_commands_are_obeyed_kept_and_limited(broker: Broker, opened: Opens, tmp_path: Path) -> None:
    threshold = "bittern/door/threshold/stop_sign/stop"
    with Listener(broker.port, "bittern/door/#") as listener:
        sink = opened(broker.port, memory=tmp_path)
        assert sink.controls == Controls()
        until(lambda: sink.confirmed)
        listener.say("bittern/door/set/threshold/stop_sign/stop", b"0.9")
        listener.say("bittern/door/set/detection", b"OFF")
        until(lambda: sink.controls == Controls(False, {STOP: 0.9}))
        until(lambda: listener.last(threshold) == b"0.9" and listener.last("bittern/door/detection") == b"OFF")
        listener.say("bittern/door/set/restart", b"PRESS")  # only just started
        listener.say("bittern/door/set/nothing", b"PRESS")
        until(lambda: sink.ignored == 2)
        until((tmp_path / "controls.json").exists)
        sink.close()
        # A command that somebody has had retained is not one for ever.
        listener.say("bittern/door/set/detection", b"ON", retain=True)
        again = opened(broker.port, memory=tmp_path)
        until(lambda: again.confirmed)
        assert again.controls == Controls(False, {STOP: 0.9})
        for _ in range(100):
            listener.say("bittern/door/set/detection", b"ON")
            listener.say("bittern/door/set/detection", b"OFF")
        until(lambda: again.ignored > 150)
        again.close()
        deaf = opened(broker.port, memory=tmp_path, commands=False)
        until(lambda: deaf.confirmed)
        listener.say("bittern/door/set/detection", b"OFF")
        time.sleep(0.3)
        assert deaf.controls is None
        assert listener.last(threshold) == listener.last("bittern/door/detection") == b"", "withdrawn"


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff", b'{"detection":1,"thresholds":[]}', b"x" * 2_000_000])
def test_controls_that_cannot_be_read_are_told_and_forgotten(
    opened: Opens, tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    (tmp_path / "controls.json").write_bytes(content)
    (tmp_path / "mqtt.json").write_bytes(content)
    assert opened(1, memory=tmp_path).controls == Controls()
    assert "what was set before is lost" in caplog.text
    until(lambda: "what was announced before stays on the broker" in caplog.text)


def test_pictures_on_request_and_now_and_then(broker: Broker, opened: Opens) -> None:
    picture = "bittern/door/picture"
    frame = Frame(np.full((48, 64, 3), 200, np.uint8), "RGB", 0, 0, 0, "door")
    with Listener(broker.port, "bittern/door/#") as listener:
        sink = opened(broker.port)
        until(lambda: sink.confirmed)
        sink.see(frame, {STOP: 0.25})
        until(lambda: listener.last("bittern/door/scores") == b'{"stop_sign__stop":0.25}')
        listener.say("bittern/door/set/snapshot", b"PRESS")
        until(lambda: sink._frame_wanted)
        assert not listener.payloads(picture)
        for _ in range(3):
            sink.see(frame, {})
        until(lambda: listener.payloads(picture))
        decoded = cv2.imdecode(np.frombuffer(listener.payloads(picture)[0], np.uint8), cv2.IMREAD_COLOR)
        assert decoded is not None
        assert decoded.shape == (48, 64, 3)
        sink.close()
        often = opened(broker.port, picture_every_s=1.0, commands=False)
        until(lambda: often.confirmed)
        listener.received.clear()

        def has_two() -> bool:
            often.see(frame, {})
            return len(listener.payloads(picture)) >= 2

        until(has_two)
        seldom = opened(broker.port, picture_every_s=3600.0, commands=False)
        until(lambda: seldom.confirmed)
        seldom._frame_wanted, seldom._frame_s = False, time.monotonic()
        seldom.see(frame, {})
        assert not seldom._frame_wanted
        assert seldom._frame is None
        often.close()
        never = opened(broker.port, picture_every_s=1.0, image=False)
        until(lambda: never.confirmed)
        listener.received.clear()
        listener.say("bittern/door/set/snapshot", b"PRESS")
        until(lambda: never.ignored == 1)
        never.see(frame, {})
        time.sleep(0.3)
        assert not any(listener.payloads(picture)), "pictures do not leave the machine"


def test_what_is_on_another_broker_is_withdrawn_there(
    broker: Broker, opened: Opens, tmp_path: Path, broker_folder: Path
) -> None:
    other = tmp_path / "other broker"
    other.mkdir()
    runs = Announcer(broker, opened, tmp_path / "memory")
    runs.run(kill=True)
    assert len(runs.retained()) > 5
    with Broker(other) as moved:
        broker.stop(signal.SIGTERM)  # and it is away when the daemon starts
        sink = opened(moved.port, memory=tmp_path / "memory")
        until(lambda: sink.confirmed)
        broker.start()
        until(lambda: not runs.retained())
        until(lambda: len(json.loads((tmp_path / "memory/mqtt.json").read_bytes())["announced"]) == 1)
        sink.close()


def test_the_last_states_are_retained_when_the_daemon_ends(broker: Broker, opened: Opens) -> None:
    for _ in range(5):
        sink = opened(broker.port)
        until(lambda: sink.confirmed)  # noqa: B023
        sink.follow(event())
        sink.follow(event("alarm.off"))
        sink.follow(event())
        sink.close()
        with Listener(broker.port, ALARM) as listener:
            until(lambda: listener.received)
            assert listener.last(ALARM) == b"ON"


def test_the_state_folder_of_another_name_is_taken_over(broker: Broker, opened: Opens, tmp_path: Path) -> None:
    file = tmp_path / "camera.toml"
    runs = Announcer(broker, opened, tmp_path / "state/door")
    runs.run(kill=True, config_file=file)
    Announcer(broker, opened, tmp_path / "state/other").run(name="other", config_file=tmp_path / "other.toml")
    Announcer(broker, opened, tmp_path / "state/porch").run(name="porch", config_file=file)
    topics = runs.retained()
    assert {topic.split("/")[1] for topic in topics if topic.startswith("bittern/")} == {"porch", "other"}
    assert {topic for topic in topics if topic.endswith("/config")} == {
        f"homeassistant/device/bittern_{name}/config" for name in ("porch", "other")
    }
    assert not (tmp_path / "state/door/mqtt.json").exists()


def test_home_assistant_that_starts_is_reminded_of_what_is_gone(
    broker: Broker, opened: Opens, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mqtt, "_REMINDER_S", 0.2)
    runs = Announcer(broker, opened, tmp_path)
    runs.run(alarms={STOP: 0.5, DENT: 0.5})
    runs.run(name="porch", alarms={STOP: 0.5, DENT: 0.5})
    with Listener(broker.port, "homeassistant/device/#") as listener:
        sink = opened(broker.port, name="porch", memory=tmp_path)
        until(lambda: sink.confirmed)
        sink.expect({STOP: 0.5})
        porch, gone = "homeassistant/device/bittern_porch/config", "bittern_porch__alarm__car_damage__damaged"
        until(lambda: b'"platform":"binary_sensor"}' in (listener.last(porch) or b""))
        before = len(listener.received)
        listener.say("homeassistant/status", b"online")
        until(lambda: len(listener.received) == before + 2)
        reminder, announcement = (
            json.loads(payload)["components"][gone] for _, payload, _ in listener.received[before:]
        )
        assert reminder.keys() > {"platform", "unique_id"}
        assert announcement == {"platform": "binary_sensor"}
        sink.close()
    with Listener(broker.port, porch, name="late") as late:
        until(lambda: late.last(porch))
        assert json.loads(late.last(porch) or b"")["components"][gone] == {"platform": "binary_sensor"}, (
            "what is retained"
        )


def test_states_go_on_after_a_moment_without_memory(
    broker: Broker, opened: Opens, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with Listener(broker.port, "bittern/door/#") as listener:
        sink = opened(broker.port)
        until(lambda: sink.confirmed)
        failures = iter([OSError(24, "Too many open files")])

        def diagnostics() -> Diagnostics:
            for failure in failures:
                raise failure
            return Diagnostics(fps=9.0)

        monkeypatch.setattr(sink, "_diagnostics", diagnostics)
        listener.say("homeassistant/status", b"online")
        until(lambda: "mqtt: the states are late: [Errno 24] Too many open files" in caplog.text)
        sink.follow(event())
        until(lambda: listener.last(ALARM) == b"ON")
