"""Faults 26 to 30 with a real Home Assistant: what it shows of a camera, read over its REST and websocket API.

`make test-homeassistant` makes its root file system and sets BITTERN_HOMEASSISTANT.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.doubles.door import Door
from tests.doubles.mosquitto import Broker, needs_mosquitto
from tests.doubles.repetitions import times
from tests.doubles.waiting import until
from tests.homeassistant.home import Home, cache

pytestmark = [
    needs_mosquitto,
    pytest.mark.skipif("BITTERN_HOMEASSISTANT" not in os.environ, reason="make test-homeassistant runs it"),
]
RED = "binary_sensor.door_means_colour_0_red"
LABEL = "sensor.door_means_label"
COUNT = "counter.alarms"
AUTOMATIONS: list[dict[str, Any]] = [
    {
        "id": "phantoms",
        "triggers": [{"trigger": "state", "entity_id": RED, "to": "on"}],
        "actions": [{"action": "counter.increment", "target": {"entity_id": COUNT}}],
        "mode": "queued",
        "max": 100,
    },
]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with Broker(tmp_path_factory.mktemp("broker")) as running:
        yield running


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, broker: Broker) -> Iterator[Home]:
    home = Home(cache(), tmp_path_factory.mktemp("home"))
    home.automations(AUTOMATIONS)
    with home.start():
        home.onboard()
        home.add_mqtt(broker.port)
        yield home


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory, broker: Broker) -> Iterator[Door]:
    with Door(tmp_path_factory.mktemp("door"), broker.port) as door:
        yield door


@pytest.fixture
def running(home: Home, door: Door) -> Door:
    """The daemon, whose alarm is off."""
    door.show("calm")
    if door.process is None:
        door.start()
    until(lambda: home.state(RED) == "off")
    home.act("counter", "reset", COUNT)
    until(lambda: home.state(COUNT) == "0")
    return door


def test_everything_is_announced_and_nothing_is_complained_of(home: Home, running: Door) -> None:
    device = home.devices()["door"]
    assert device["model"] == "means"
    until(lambda: home.entities("door").keys() <= home.states().keys())
    for entity in home.entities("door"):
        until(lambda: home.state(entity) != "unavailable")  # noqa: B023
    until(lambda: home.state("sensor.door_frames_per_second") != "unknown", 10)  # diagnostics are filled at once
    running.show("red")
    until(lambda: home.state(RED) == "on")
    assert home.state(LABEL) == "red"
    assert home.states()[LABEL]["attributes"]["options"] == ["nothing", "red"]
    until(lambda: home.state("image.door_last_alarm") not in ("unknown", ""))
    assert home.complaints() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_fault_26_no_phantom_alarm(home: Home, running: Door, number: signal.Signals) -> None:
    for still_there in [False, True] * times(10, 1):
        home.act("counter", "reset", COUNT)
        running.show("red")
        until(lambda: home.state(RED) == "on")
        until(lambda: home.state(COUNT) == "1")
        home.act("counter", "reset", COUNT)
        running.stop(number)
        until(lambda: home.state(RED) == "unavailable")
        running.show("red" if still_there else "calm")
        running.start()
        until(lambda: home.state(RED) == ("on" if still_there else "off"))  # noqa: B023
        time.sleep(1.0)
        assert home.state(COUNT) == str(int(still_there)), "the alarm that is really on, once"
        running.show("calm")
        until(lambda: home.state(RED) == "off")


@pytest.mark.parametrize("away_s", [50, 140])
def test_fault_27_the_truth_after_an_outage(home: Home, broker: Broker, running: Door, away_s: int) -> None:
    seconds = times(away_s, away_s // 10)
    for live in (False, True):
        home.act("counter", "reset", COUNT)
        broker.stop(signal.SIGTERM)
        until(lambda: home.state(RED) == "unavailable")
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for show in ("red", "calm"):
                running.show(show)
                time.sleep(1.0)
        running.show("red" if live else "calm")
        time.sleep(1.0)
        broker.start()
        until(lambda: home.state(RED) == ("on" if live else "off"))  # noqa: B023
        time.sleep(2.0)
        assert home.state(COUNT) == str(int(live)), "one edge at most, and not one for each alarm of the outage"
        running.show("calm")
        until(lambda: home.state(RED) == "off")


@pytest.mark.parametrize("edit", ["name", "sink", "snapshots"])
def test_fault_28_no_ghosts(home: Home, running: Door, edit: str) -> None:
    tables, lines = dict(running.tables), dict(running.lines)
    assert home.state("image.door_last_alarm")
    running.stop(signal.SIGKILL)
    if edit == "name":
        running.lines["name"] = '"porch"'
    else:
        del running.tables["mqtt" if edit == "sink" else edit]
    running.start()
    if edit == "name":
        until(lambda: "porch" in home.devices() and "door" not in home.devices())
        assert home.state(RED) == ""
    elif edit == "sink":
        until(lambda: not home.devices())
    else:
        until(lambda: home.state("image.door_last_alarm") == "")
        assert "image.door_last_alarm" not in home.entities("door")
    running.stop()
    running.tables, running.lines = tables, lines
    running.start()
    until(lambda: home.state(RED) == "off")
    assert list(home.devices()) == ["door"]


def test_fault_28_no_ghosts_in_a_home_assistant_that_was_not_running(home: Home, running: Door) -> None:
    tables, lines = dict(running.tables), dict(running.lines)
    for edit in ("snapshots", "name"):
        assert home.entities("door").keys() >= {"image.door_last_alarm", RED}
        running.stop()
        home.stop()
        if edit == "name":
            running.lines["name"] = '"porch"'
        else:
            del running.tables[edit]
        running.start()
        time.sleep(5.0)
        home.start()
        if edit == "name":
            until(lambda: "porch" in home.devices() and "door" not in home.devices())
        else:
            until(lambda: "image.door_last_alarm" not in home.entities("door"))
            until(lambda: home.state(RED) == "off")
        running.stop()
        running.tables, running.lines = dict(tables), dict(lines)
        running.start()
        until(lambda: home.state(RED) == "off")
        until(lambda: home.state("image.door_last_alarm"))


def test_fault_29_a_camera_that_is_away(home: Home, running: Door) -> None:
    for _ in range(times(10, 1)):
        for what in ({"do": "raise"}, {"do": "hang"}, {"show": "black"}, {"do": "raise", "absent": True}):
            running.show("red")
            until(lambda: home.state(RED) == "on")
            running.show(**what)
            until(lambda: home.state(RED) == home.state(LABEL) == "unavailable", 20)
            home.act("counter", "reset", COUNT)
            running.show("calm")
            until(lambda: home.state(RED) == "off", 60)
            assert home.state(COUNT) == "0"
            until(lambda: home.state("sensor.door_state") == "camera_ok")
    running.stop()
    running.show(absent=True)
    running.start()
    until(lambda: home.state("sensor.door_state") == "camera_absent")
    assert home.state(RED) == home.state(LABEL) == "unavailable"
    running.show("calm")
    until(lambda: home.state(RED) == "off")


def test_fault_30_two_cameras_are_two_devices(home: Home, broker: Broker, running: Door, tmp_path: Path) -> None:
    doors = [Door(tmp_path / str(k), broker.port, name) for k, name in enumerate(("猫", "犬"))]
    try:
        for one in doors:
            one.start()
        until(lambda: {"猫", "犬", "door"} == set(home.devices()))
    finally:
        for one in doors:
            one.stop()


def test_the_picture_changes_with_an_alarm_only(home: Home, running: Door) -> None:
    running.show("red")
    until(lambda: home.state(RED) == "on")
    time.sleep(1.0)
    picture = home.state("image.door_last_alarm")
    running.stop()
    running.show("calm")
    running.start()
    until(lambda: home.state(RED) == "off")
    assert home.state("image.door_last_alarm") == picture
    home.call("GET", "/api/image_proxy/image.door_last_alarm")


def test_the_owner_pauses_sets_looks_and_restarts(home: Home, running: Door) -> None:
    switch, threshold = "switch.door_detection", "number.door_means_colour_0_red_threshold"
    assert home.state(switch) == "on"
    home.act("switch", "turn_off", switch)
    until(lambda: home.state("sensor.door_state") == "paused")
    until(lambda: home.state(RED) == "unavailable")
    running.show("red")
    time.sleep(2.0)
    assert home.state(RED) == "unavailable"
    home.act("number", "set_value", threshold, value=0.99)
    until(lambda: home.state(threshold) == "0.99")
    # Both survive a restart, of Bittern and of Home Assistant's knowledge of it.
    running.stop()
    until(lambda: home.state(switch) == "unavailable")
    running.start()
    until(lambda: home.state(switch) == "off")
    assert home.state(threshold) == "0.99"
    until(lambda: home.state("sensor.door_state") == "paused")
    home.act("switch", "turn_on", switch)
    until(lambda: home.state(RED) == "off")
    time.sleep(2.0)
    assert home.state(RED) == "off", "the score is below the threshold"
    home.act("number", "set_value", threshold, value=0.5)
    until(lambda: home.state(RED) == "on")
    until(lambda: float(home.state("sensor.door_means_colour_0_red_score")) > 0.5)
    before = home.call("GET", "/api/states/camera.door_picture")["attributes"].get("entity_picture")
    assert before
    home.act("button", "press", "button.door_snapshot_now")
    until(lambda: picture(home)[:3] == b"\xff\xd8\xff")
    time.sleep(20.0)  # so long a restart is refused after a start
    assert running.process is not None
    pid, starts = running.process.pid, running.log.read_text().count("watching door")
    home.act("button", "press", "button.door_restart")
    until(lambda: running.log.read_text().count("watching door") == starts + 1)
    assert running.process.poll() is None
    assert running.process.pid == pid
    until(lambda: home.state(RED) == "on")


def picture(home: Home) -> bytes:
    try:
        return bytes(home.call("GET", "/api/camera_proxy/camera.door_picture"))
    except OSError:
        return b""


def test_an_event_and_device_triggers_as_an_alarm_happens(home: Home, running: Door) -> None:
    number = home.devices()["door"]["id"]
    triggers = home.ask({"type": "device_automation/trigger/list", "device_id": number})
    names = {(one["type"], one["subtype"]) for one in triggers if one["domain"] == "mqtt"}
    assert ("alarm_on", "Means: colour 0 red") in names
    entity = "event.door_means_colour_0_red_event"
    before = home.state(entity)
    running.show("red")
    until(lambda: home.state(entity) != before)
    assert home.states()[entity]["attributes"]["event_type"] == "on"
    running.show("calm")
    until(lambda: home.states()[entity]["attributes"]["event_type"] == "off")
