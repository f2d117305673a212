"""Faults 26 to 30, over MQTT: what an owner sees of restarts, outages, edits, a camera that is away, and twins.

`make test-homeassistant` plays them with a real Home Assistant; here `View` follows its rules. The tests of the sink
play most of it without a daemon, so all but one of these wait for `make test-faults` and `make test-slow`.
"""

from __future__ import annotations

import json
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.doubles.door import UNAVAILABLE, Door, View, retained
from tests.doubles.mosquitto import Broker, needs_mosquitto
from tests.doubles.repetitions import pass_mark, times
from tests.doubles.waiting import until

pytestmark = needs_mosquitto
SLOW = pytest.mark.slow
Record = Callable[[int, str, int, str, str], None]
CONNECTED = "mqtt: connected to "
RED, LABEL = "__alarm__means__colour_0_red", "__label__means"


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    folder = tmp_path / "broker"
    folder.mkdir()
    with Broker(folder) as running:
        yield running


def rises(states: list[str]) -> int:
    """How often an automation on `to: "on"` was run: after the first state, which is the one before."""
    return states[1:].count("on")


@SLOW
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_fault_26_restart_during_an_alarm(
    broker: Broker, tmp_path: Path, record: Record, number: signal.Signals
) -> None:
    n = times(10, 1)
    phantoms = shown = 0
    with Door(tmp_path / "door", broker.port) as door, View(broker.port) as view:
        for still_there in (False, True):
            for _ in range(n):
                door.show("red")
                door.start()
                until(lambda: view.state(RED) == "on")
                door.stop(number)
                until(lambda: view.state(RED) == UNAVAILABLE)
                view.forget(RED)
                door.show("red" if still_there else "calm")
                door.start()
                until(lambda: view.state(RED) == ("on" if still_there else "off"))  # noqa: B023
                time.sleep(0.5)
                count = rises(view.states(RED))
                phantoms += count - still_there
                shown += still_there
                door.stop()
                until(lambda: view.state(RED) == UNAVAILABLE)
    assert phantoms == 0
    figure = f"{phantoms} phantom alarms, {shown} of {n} real ones shown once"
    record(26, f"restart by {number.name} during an alarm", 2 * n, figure, "0 counted, the real one once")


@SLOW
@pytest.mark.parametrize("away_s", [50, 140])
def test_fault_27_broker_away(broker: Broker, tmp_path: Path, record: Record, away_s: int) -> None:
    n = times(5, 1)
    seconds = times(away_s, away_s // 20)
    late_s = 0.0
    with Door(tmp_path / "door", broker.port) as door, View(broker.port) as view:
        door.start()
        until(lambda: view.state(RED) == "off")
        for live in [True, False, True, False, True][:n] if n > 1 else [away_s == 50]:
            before = len(door.events())
            broker.stop(signal.SIGTERM)
            until(lambda: view.state(RED) == UNAVAILABLE)
            view.forget(RED)
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                for show in ("red", "calm"):
                    door.show(show)
                    time.sleep(min(1.0, seconds / 6))
            door.show("red" if live else "calm")
            time.sleep(1.0)
            raised = [event for event in door.events()[before:] if event["type"].startswith("alarm")]
            heard, connections = len(view.events), door.log.read_text().count(CONNECTED)
            broker.start()
            until(lambda: door.log.read_text().count(CONNECTED) > connections)  # noqa: B023
            connected_s = time.monotonic()
            until(lambda: view.state(RED) == ("on" if live else "off"))  # noqa: B023
            settled_s = view.history[view.key(RED)][-1][0]
            late_s = max(late_s, settled_s - connected_s)
            ids = [event["id"] for event in raised]
            until(lambda: {e["id"] for e in view.events[heard:]} >= set(ids))  # noqa: B023
            arrived = [e for e in view.events[heard:] if e["id"] in set(ids)]
            assert list(dict.fromkeys(e["id"] for e in arrived)) == ids, "in order"
            times_of = {event["id"]: event["time"] for event in raised}
            assert all(e["time"] == times_of[e["id"]] for e in arrived), "each with its own time"
            assert len(raised) >= 4
            assert rises(view.states(RED)) == live, "no edge but that of what holds"
    assert late_s <= pass_mark(2.0)
    figure = f"the live state at most {late_s:.2f} s after the connection, one edge at most, backlog in order"
    record(27, f"broker away for {seconds} s, alarms meanwhile", n, figure, "2 s, one edge, in order, own times")


EDITS = ["name", *(pytest.param(edit, marks=SLOW) for edit in ("model", "sink", "snapshots", "label"))]


@pytest.mark.parametrize("edit", EDITS)
def test_fault_28_edited_while_stopped(broker: Broker, tmp_path: Path, record: Record, edit: str) -> None:
    with Door(tmp_path / "door", broker.port) as door, View(broker.port) as view:
        second = tmp_path / "second"
        with Door(second, broker.port) as other:
            manifest = json.loads((other.model / "manifest.json").read_text())
            manifest["name"] = "second"
            (other.model / "manifest.json").write_text(json.dumps(manifest))
            door.lines["models"] = json.dumps([str(door.model), str(other.model)])
        door.show("red")
        door.start()
        until(lambda: view.state(RED) == "on" and view.state("__second__colour_0_red") == "on")
        until(lambda: any(topic.endswith("/image") for topic in list(view.topics)))
        door.stop(signal.SIGKILL)
        before = retained(broker.port)
        tables, lines = dict(door.tables), dict(door.lines)
        if edit == "model":
            door.lines["models"] = json.dumps([str(door.model)])
        elif edit == "label":
            manifest = json.loads((other.model / "manifest.json").read_text())
            for head in manifest["heads"]:
                head["labels"] = ["crimson" if label == "red" else label for label in head["labels"]]
                head["alarm"] = ["crimson"]
            (other.model / "manifest.json").write_text(json.dumps(manifest))
            labels = other.model / "labels.txt"
            if labels.exists():
                labels.write_text(labels.read_text().replace("red", "crimson"))
        elif edit == "name":
            door.lines["name"] = '"porch"'
        else:
            del door.tables["mqtt" if edit == "sink" else edit]
        door.show("calm")
        door.start()
        gone = {
            "model": ["/second/", "/label/second"], "label": ["second/colour_0_red"], "name": ["door"],
            "sink": [""], "snapshots": ["/image"],
        }[edit]  # fmt: skip
        assert any(part in topic for part in gone for topic in before)
        until(lambda: not any(part in topic for part in gone for topic in retained(broker.port)))
        if edit != "sink":
            until(lambda: view.state(RED) == "off")
        if edit in ("name", "sink"):
            assert view.devices == ({"bittern_porch": "porch"} if edit == "name" else {})
        if edit in ("model", "label"):
            assert view.state("__second__colour_0_red") == "", "no such entity any more"
        # And back again.
        door.stop()
        door.tables, door.lines = tables, lines
        if edit == "sink":
            door.start()
            until(lambda: view.state(RED) == "off")
    record(
        28, f"edited while stopped by SIGKILL: {edit}", 1, "withdrawn at the start", "nothing of what is gone is left"
    )


AWAY: dict[str, dict[str, Any]] = {
    "camera_lost": {"do": "raise"}, "camera_absent": {"do": "raise", "absent": True}, "blind": {"show": "black"},
    "camera_stalled": {"do": "hang"},
}  # fmt: skip


def away(state: str) -> bool:
    return state in ("camera_lost", "camera_absent", "camera_stalled", "blind")


@SLOW
def test_fault_29_camera_away(broker: Broker, tmp_path: Path, record: Record) -> None:
    n = times(10, 1)
    late_s, count = 0.0, 0
    with Door(tmp_path / "door", broker.port) as door, View(broker.port) as view:
        door.show(absent=True)
        door.start()
        until(lambda: view.state("__state") == "camera_absent")
        assert set(view.states(RED)) == set(view.states(LABEL)) == {UNAVAILABLE}, "absent from the start"
        door.show("red")
        until(lambda: view.state(RED) == "on")
        for _ in range(n):
            for state, what in AWAY.items():
                door.show(**what)
                until(
                    lambda: (
                        view.state("__state").startswith(("camera_", "blind")) and view.state("__state") != "camera_ok"
                    )
                )
                until(lambda: view.state(RED) == view.state(LABEL) == UNAVAILABLE)
                begun_s = next(
                    s for s, name in view.history[view.key("__state")][::-1] if name not in ("camera_ok", "seeing")
                )
                late_s = max(late_s, view.history[view.key(RED)][-1][0] - begun_s)
                view.forget(RED)
                door.show("calm")
                until(lambda: view.state(RED) == "off")
                assert rises(view.states(RED)) == 0, f"{state}: it had ended"
                door.show("red")
                until(lambda: view.state(RED) == "on")
                count += 1
    assert late_s <= pass_mark(2.0)
    record(
        29, "camera away during an alarm, and from the start", count, f"unavailable after {late_s:.2f} s at most", "2 s"
    )


@SLOW
def test_fault_30_twins(broker: Broker, tmp_path: Path, record: Record) -> None:
    kinds: list[tuple[str | None, str | None]] = [
        ("door", "door"),
        ("猫", "犬"),
        ("Front door", "front-door"),
        (None, None),
    ]
    warned = apart = 0
    for i, names in enumerate(kinds):
        with View(broker.port) as view:
            doors = [Door(tmp_path / f"{i}{k}", broker.port, name) for k, name in enumerate(names)]
            try:
                for door in doors:
                    door.start()
                if names[0] != names[1]:
                    until(lambda: len(view.devices) == 2)
                    assert set(view.devices.values()) == set(names)
                    apart += 1
                else:
                    until(lambda: all("another daemon" in door.log.read_text() for door in doors))  # noqa: B023
                    warned += 1
                    assert len(view.devices) == 1
                    if names[0] is None:
                        assert socket.gethostname() in next(iter(view.devices.values()))
            finally:
                for door in doors:
                    door.stop()
        for topic in retained(broker.port):
            empty(broker.port, topic)
    assert (apart, warned) == (2, 2)
    record(
        30,
        "two daemons that look alike",
        4,
        f"{apart} times two devices, {warned} times a warning",
        "two devices, or a warning",
    )


def empty(port: int, topic: str) -> None:
    from paho.mqtt import publish

    publish.single(topic, b"", retain=True, hostname="127.0.0.1", port=port)
