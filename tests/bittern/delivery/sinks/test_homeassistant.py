"""What MQTT shows of a camera: topics, retained states and the discovery message, without a broker."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bittern.delivery.sinks.base import Controls, SinkContext
from bittern.delivery.sinks.homeassistant import (
    MOMENTARY_S,
    RETURN_S,
    STATES,
    Entities,
    default_topic,
    device_id,
    discovery_topic,
    slug,
    slugs,
)
from bittern.events import AlarmKey, Event

STOP = AlarmKey("stop_sign", "stop_sign", "stop")
DENT = AlarmKey("car_damage", "car_damage", "damaged")
# The keys that Home Assistant's schemas know, of those that could be meant here (homeassistant/components/mqtt:
# schemas.py, sensor.py, binary_sensor.py, image.py, as of 2025). It ignores others in an entity without a word, and
# refuses the whole message for others in `device` and `origin`.
DEVICE = {"identifiers", "name", "manufacturer", "model", "sw_version"}
ENTITY = {"platform", "unique_id", "name", "entity_category", "icon", "availability", "availability_mode"}
KEYS = {
    "sensor": ENTITY
    | {"state_topic", "value_template", "device_class", "state_class", "unit_of_measurement", "expire_after"}
    | {"suggested_display_precision", "options"},
    "binary_sensor": ENTITY | {"state_topic", "device_class"},
    "image": ENTITY | {"image_topic", "content_type"},
    "event": ENTITY | {"state_topic", "event_types"},
    "number": ENTITY | {"state_topic", "command_topic", "min", "max", "step", "mode"},
    "switch": ENTITY | {"state_topic", "command_topic"},
    "button": ENTITY | {"command_topic", "device_class"},
    "camera": ENTITY | {"topic"},
    "device_automation": {"platform", "automation_type", "type", "subtype", "topic", "value_template", "payload"},
}


def event(kind: str, alarm: AlarmKey = STOP, **fields: Any) -> Event:
    named = {"model": alarm.model, "task": alarm.task, "label": alarm.label} if kind.startswith("alarm") else {}
    return Event(id="x", type=kind, time="", monotonic_ns=0, source="door", **named, **fields)  # type: ignore[arg-type]


def entities_of(topic: str, alarms: Sequence[AlarmKey], name: str = "door", *, image: bool = True) -> Entities:
    snapshots = Path("snapshots") if image else None
    return Entities(topic, SinkContext(name, dict.fromkeys(alarms, 0.5), snapshots=snapshots))


def discovered(entities: Entities) -> tuple[str, dict[str, Any]]:
    message = entities.discovery(30.0, temperature=True)
    return discovery_topic("homeassistant", entities.id), json.loads(json.dumps(message))


def retained(entities: Entities) -> dict[str, bytes]:
    """All topics but that of the camera, which has tests of its own."""
    states = entities.retained(0.0)
    del states[entities.watching]
    return states


def take(entities: Entities, event: Event) -> dict[str, bytes]:
    """What an event changes, at time 0."""
    before = entities.retained(0.0)
    entities.follow(event, 0.0)
    return {topic: payload for topic, payload in retained(entities).items() if before[topic] != payload}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("stop_sign", "stop_sign"),
        ("Haustür links", "haustur_links"),
        ("Straße #1/+", "strasse_1"),
        ("a\x00b\n", "a_b"),
        ("__a__", "a"),
        ("猫", ""),
        ("x" * 500, "x" * 64),
    ],
)
def test_a_slug_can_stand_in_a_topic(name: str, expected: str) -> None:
    assert slug(name) == expected


@given(st.sets(st.one_of(st.text(), st.sampled_from(["a b", "a_b", "A b", "ä b", "a-b", "猫", "犬", ""]))))
def test_slugs_are_unique_valid_and_do_not_depend_on_the_order(names: set[str]) -> None:
    slug_of = slugs(names)
    assert slug_of.keys() == names
    assert len(set(slug_of.values())) == len(names)
    assert all(re.fullmatch("[a-z0-9]+(_[a-z0-9]+)*", slug) for slug in slug_of.values())
    assert slugs(sorted(names, reverse=True)) == slug_of


def test_labels_that_would_share_a_topic_do_not() -> None:
    alarms = [AlarmKey("m", "t", "no entry"), AlarmKey("m", "t", "no_entry"), AlarmKey("m", "t", "No Entry!")]
    entities = entities_of("bittern/door", alarms)
    topics = [topic for topic in retained(entities) if "/alarm/" in topic]
    assert len(set(topics)) == 3
    assert "bittern/door/alarm/m/no_entry" in topics
    take(entities, event("alarm.on", alarms[0]))
    assert [payload for topic, payload in retained(entities).items() if "/alarm/" in topic] == [b"ON", b"OFF", b"OFF"]


def test_two_tasks_of_a_model_may_have_the_same_label() -> None:
    both = [AlarmKey("m", "front", "damaged"), AlarmKey("m", "rear", "damaged"), AlarmKey("m", "rear", "dirty")]
    topics = retained(entities_of("t", both))
    assert {"t/alarm/m/front_damaged", "t/alarm/m/rear_damaged", "t/alarm/m/dirty"} < topics.keys()


@given(st.lists(st.tuples(*[st.text(max_size=4)] * 3), unique=True, max_size=6), st.text(min_size=1, max_size=20))
def test_every_entity_has_an_id_and_a_topic_of_its_own(alarms: list[tuple[str, str, str]], topic: str) -> None:
    entities = entities_of(topic, [AlarmKey(*alarm) for alarm in alarms])
    where, payload = discovered(entities)
    components = payload["components"]
    assert len(components) == 5 + len({model for model, _, _ in alarms}) + 5 * len(alarms)
    assert all(c["unique_id"] == key for key, c in components.items() if c["platform"] != "device_automation")
    topics = [c["state_topic"] for c in components.values() if c["platform"] == "binary_sensor"]
    assert len(set(topics)) == len(alarms)
    assert all(topic in retained(entities) for topic in topics)
    assert re.fullmatch("homeassistant/device/[a-zA-Z0-9_-]+/config", where), "Home Assistant's own pattern"


def test_discovery_has_only_fields_that_home_assistant_knows() -> None:
    where, payload = discovered(entities_of("bittern/door", [STOP, DENT], "Front door"))
    assert where == "homeassistant/device/bittern_door/config"
    assert payload.keys() == {"device", "origin", "components"}
    assert payload["device"].keys() <= DEVICE
    assert payload["device"]["identifiers"] == ["bittern_door"]
    assert payload["device"]["name"] == "Front door"
    assert payload["origin"].keys() == {"name", "sw_version"}
    for component in payload["components"].values():
        assert component.keys() <= KEYS[component["platform"]]
        if component["platform"] == "device_automation":
            assert component.keys() == KEYS["device_automation"]
            continue
        assert {"topic": "bittern/door/availability"} in component["availability"]
        assert {"platform", "unique_id", "name"} <= component.keys()


def test_discovery_announces_what_is_published() -> None:
    entities = entities_of("bittern/door", [STOP])
    components = discovered(entities)[1]["components"]
    assert components["bittern_door__label__stop_sign"]["state_topic"] == "bittern/door/label/stop_sign"
    alarm = components["bittern_door__alarm__stop_sign__stop"]
    assert alarm["platform"] == "binary_sensor"
    assert alarm["state_topic"] == "bittern/door/alarm/stop_sign/stop"
    assert components["bittern_door__image"]["image_topic"] == entities.image == "bittern/door/image"
    for key in ("fps", "latency_ms", "temperature_c"):
        sensor = components[f"bittern_door__{key}"]
        assert sensor["state_topic"] == entities.diagnostics
        assert sensor["value_template"] == "{{ value_json." + key + " }}"
        assert sensor["entity_category"] == "diagnostic"
        assert sensor["expire_after"] == 90
    assert "bittern_door__image" not in discovered(entities_of("bittern/door", [STOP], image=False))[1]["components"]


def test_states_follow_the_events() -> None:
    entities = entities_of("t", [STOP, DENT])
    assert retained(entities) == {
        "t/state": b"starting",
        "t/label/stop_sign": b"nothing",
        "t/label/car_damage": b"nothing",
        "t/alarm/stop_sign/stop": b"OFF",
        "t/alarm/car_damage/damaged": b"OFF",
    }
    assert take(entities, event("alarm.on")) == {"t/label/stop_sign": b"stop", "t/alarm/stop_sign/stop": b"ON"}
    assert take(entities, event("alarm.on")) == {}, "delivered twice"
    assert take(entities, event("state", state="blind")) == {"t/state": b"blind"}
    assert take(entities, event("dropped", count=3)) == {}
    assert take(entities, event("alarm.on", DENT)).keys() == {"t/label/car_damage", "t/alarm/car_damage/damaged"}
    assert take(entities, event("alarm.off")) == {"t/label/stop_sign": b"nothing", "t/alarm/stop_sign/stop": b"OFF"}
    assert retained(entities)["t/alarm/car_damage/damaged"] == b"ON"


def test_of_several_alarms_the_label_is_the_one_that_went_on_last() -> None:
    red, blue = AlarmKey("m", "t", "red"), AlarmKey("m", "t", "blue")
    entities = entities_of("t", [red, blue])
    labels = []
    for kind, alarm in (("on", red), ("on", blue), ("off", blue), ("on", blue), ("off", red), ("off", blue)):
        take(entities, event(f"alarm.{kind}", alarm))
        labels.append(retained(entities)["t/label/m"].decode())
    assert labels == ["red", "blue", "red", "blue", "blue", "nothing"]


def test_events_of_an_outage_in_their_order_end_in_the_right_state() -> None:
    late = [event("alarm.on"), event("alarm.off"), event("alarm.on"), event("alarm.off")]
    for length in range(5):
        entities = entities_of("t", [STOP])
        for one in late[:length]:
            take(entities, one)
        assert retained(entities)["t/alarm/stop_sign/stop"] == (b"ON" if length % 2 else b"OFF")


def test_what_a_killed_process_left_on_ends_with_the_next_start() -> None:
    entities = entities_of("t", [STOP])
    take(entities, event("alarm.on"))  # still in the outbox when the process before was killed
    assert take(entities, event("state", state="started"))["t/alarm/stop_sign/stop"] == b"OFF"


def test_an_alarm_that_nobody_announced_has_no_topic() -> None:
    entities = entities_of("t", [STOP])
    assert take(entities, event("alarm.on", AlarmKey("other", "other", "x"))) == {}


def test_other_alarms_end_the_old_ones_and_keep_what_stays_on() -> None:
    red, blue, green = (AlarmKey("m", "t", label) for label in ("red", "blue", "green"))
    entities = entities_of("t", [red, blue, STOP])
    for alarm in (red, blue):
        take(entities, event("alarm.on", alarm))
    for _ in range(2):  # again and again is the same
        entities.expect({blue: 0.5, green: 0.5})
        assert retained(entities) == {
            "t/state": b"starting",
            "t/label/m": b"blue",
            "t/alarm/m/blue": b"ON",
            "t/alarm/m/green": b"OFF",
            "t/alarm/m/red": b"",
            "t/alarm/stop_sign/stop": b"",
            "t/label/stop_sign": b"",
        }
        components = discovered(entities)[1]["components"]
        assert components["t__alarm__m__red"] == {"platform": "binary_sensor"}
        assert components["t__label__stop_sign"] == {"platform": "sensor"}
        assert components["t__alarm__m__green"]["state_topic"] == "t/alarm/m/green"
    assert take(entities, event("alarm.off", red)) == {}, "the end of what is gone"
    assert take(entities, event("alarm.on", green))["t/alarm/m/green"] == b"ON"
    entities.expect({red: 0.5, blue: 0.5, green: 0.5})
    assert retained(entities)["t/alarm/m/red"] == b"OFF", "back again, and off"
    assert discovered(entities)[1]["components"]["t__alarm__m__red"].keys() > {"platform"}


def state(name: str) -> Event:
    return event("state", state=name)


def test_a_momentary_state_gives_way_to_what_holds() -> None:
    entities = entities_of("t", [STOP])
    for held, momentary in (("camera_ok", "models_loaded"), ("camera_ok", "moved"), ("blind", "models_refused")):
        entities.follow(state(held), 0.0)
        entities.follow(state(momentary), 10.0)
        assert entities.retained(10.0)["t/state"] == momentary.encode()
        assert entities.due_s(10.0) == MOMENTARY_S
        assert entities.retained(10.0 + MOMENTARY_S)["t/state"] == held.encode()
    entities.follow(state("seeing"), 20.0)
    assert entities.retained(20.0)["t/state"] == b"seeing"
    assert entities.retained(20.0 + MOMENTARY_S)["t/state"] == b"camera_ok", "no longer blind"


@pytest.mark.parametrize(
    "away",
    ["camera_absent", "camera_busy", "camera_lost", "camera_stalled", "camera_frozen", "reboot_needed", "blind"],
)
def test_alarms_are_no_answer_while_the_camera_is_away(away: str) -> None:
    entities = entities_of("t", [STOP])
    back = "seeing" if away == "blind" else "camera_ok"
    assert entities.retained(0.0)["t/watching"] == b"offline", "before the first frame"
    for begun in ("started", "camera_ok"):
        entities.follow(state(begun), 0.0)
    assert entities.retained(0.0)["t/watching"] == b"online"
    entities.follow(event("alarm.on"), 0.0)
    entities.follow(state(away), 1.0)
    assert entities.retained(1.0)["t/watching"] == b"offline"
    entities.follow(state(back), 100.0)
    assert entities.retained(100.0)["t/watching"] == b"offline", "frames have to say whether the alarm is still on"
    assert entities.due_s(100.0 + MOMENTARY_S) == RETURN_S - MOMENTARY_S
    assert entities.retained(100.0 + RETURN_S)["t/watching"] == b"online"
    entities.follow(event("alarm.off"), 101.0)
    assert entities.retained(101.0)["t/watching"] == b"online", "it has ended: nothing to wait for"


def test_a_recording_answers_from_its_start() -> None:
    entities = Entities("t", SinkContext("clip", {STOP: 0.5}, live=False))
    assert entities.retained(0.0)["t/watching"] == b"offline"
    entities.follow(state("started"), 0.0)
    assert entities.retained(0.0)["t/watching"] == b"online"


def test_what_is_unavailable_while_the_camera_is_away_is_what_it_answers() -> None:
    components = discovered(entities_of("t", [STOP]))[1]["components"]
    both = [{"topic": "t/availability"}, {"topic": "t/watching"}]
    for key, component in components.items():
        if component["platform"] == "device_automation":
            continue
        answer = any(kind in key for kind in ("__alarm__", "__label__", "__score__"))
        assert component["availability"] == (both if answer else both[:1]), key
        assert component.get("availability_mode") == ("all" if answer else None)


def test_the_states_are_those_that_the_documentation_lists() -> None:
    page = (Path(__file__).parents[4] / "docs/daemon.md").read_text(encoding="utf-8")
    table = page.partition("| state | meaning |")[2].partition("\n\n")[0]
    listed = {name for line in table.splitlines()[2:] for name in re.findall("`([a-z_]+)`", line.split("|")[1])}
    assert {"starting", *listed} - {"outbox_damaged"} == set(STATES)


NAMES = st.one_of(st.text(max_size=6), st.sampled_from(["a b", "a_b", "A b", "ä b", "a-b", "猫", "犬", "", "x" * 70]))


@given(st.sets(NAMES))
def test_no_two_names_have_the_same_topics_or_the_same_device(names: set[str]) -> None:
    topics = [default_topic(name) for name in names]
    assert len(set(topics)) == len(names)
    assert all(re.fullmatch("bittern/[a-z0-9_]+", topic) for topic in topics)
    assert len({device_id(topic) for topic in topics}) == len(names)
    assert default_topic("front_door") == "bittern/front_door", "a name that is a slug stays as it is"


TOPICS = st.lists(st.sampled_from(["a", "b", "a_b", "bittern", "A", "ä"]), min_size=1, max_size=4).map("/".join)


@given(st.sets(TOPICS))
def test_no_two_topics_have_the_same_device(topics: set[str]) -> None:
    ids = {device_id(topic) for topic in topics}
    assert len(ids) == len(topics)
    assert all(re.fullmatch("[a-z0-9_]+", one) for one in ids)
    assert (device_id("bittern/front_door"), device_id("home/porch")) == ("bittern_front_door", "home_porch")


def test_names_are_what_people_say() -> None:
    mask = AlarmKey("face_mask", "face_mask", "no_mask")
    components = discovered(entities_of("t", [STOP, DENT, mask]))[1]["components"]
    names = {c["name"] for c in components.values() if c["platform"] == "binary_sensor"}
    assert names == {"Stop sign", "Car damage", "No mask"}
    same = [AlarmKey("front", "door", "open"), AlarmKey("rear", "door", "open")]
    components = discovered(entities_of("t", same))[1]["components"]
    names = {c["name"] for c in components.values() if c["platform"] == "binary_sensor"}
    assert names == {"Front: door open", "Rear: door open"}


def test_an_alarm_triggers_automations_as_it_happens() -> None:
    entities = entities_of("t", [STOP])
    (message,) = entities.follow(event("alarm.on", score=0.75), 0.0)
    assert (message.topic, message.retain) == ("t/trigger/stop_sign/stop", False)
    assert json.loads(message.payload) == {"event_type": "on", "score": 0.75, "time": ""}
    assert entities.follow(state("blind"), 0.0) == []
    components = discovered(entities)[1]["components"]
    assert components["t__trigger__stop_sign__stop"]["event_types"] == ["on", "off"]
    triggers = [c for c in components.values() if c["platform"] == "device_automation"]
    assert {(c["type"], c["subtype"], c["payload"]) for c in triggers} == {
        ("alarm_on", "Stop sign", "on"),
        ("alarm_off", "Stop sign", "off"),
    }
    assert all(message.topic == c["topic"] for c in triggers)


def test_commands_say_what_the_owner_wants() -> None:
    entities = Entities("t", SinkContext("door", {STOP: 0.625, DENT: 0.5}), commands=True, picture=True)
    assert entities.retained(0.0)["t/detection"] == b"ON"
    assert entities.retained(0.0)["t/threshold/stop_sign/stop"] == b"0.625", "of the configuration"
    controls = entities.command("t/set/threshold/stop_sign/stop", b"0.9")
    assert controls == Controls(thresholds={STOP: 0.9})
    entities.controls = controls
    controls = entities.command("t/set/detection", b"OFF")
    assert controls == Controls(detection=False, thresholds={STOP: 0.9})
    entities.controls = controls
    assert entities.command("t/set/restart", b"PRESS") == Controls(False, {STOP: 0.9}, restart=True)
    retained = entities.retained(0.0)
    assert retained["t/detection"] == b"OFF"
    assert retained["t/threshold/stop_sign/stop"] == b"0.9"
    assert retained["t/threshold/car_damage/damaged"] == b"0.5"
    components = discovered(entities)[1]["components"]
    assert components["t__threshold__stop_sign__stop"]["command_topic"] == "t/set/threshold/stop_sign/stop"
    assert all(component.keys() <= KEYS[component["platform"]] for component in components.values())
    assert {"t__detection", "t__restart", "t__snapshot", "t__picture"} <= components.keys()
    entities.follow(state("camera_ok"), 0.0)
    assert entities.retained(0.0)["t/watching"] == b"online"
    entities.follow(state("paused"), 0.0)
    assert (entities.retained(0.0)["t/watching"], entities.retained(0.0)["t/state"]) == (b"offline", b"paused")
    entities.follow(state("resumed"), 0.0)
    assert entities.retained(MOMENTARY_S)["t/state"] == b"camera_ok"
    entities.expect({DENT: 0.5})
    assert entities.retained(0.0)["t/threshold/stop_sign/stop"] == b""
    assert discovered(entities)[1]["components"]["t__threshold__stop_sign__stop"] == {"platform": "number"}


@pytest.mark.parametrize(
    ("topic", "payload"),
    [
        ("detection", b""), ("detection", b"on"), ("detection", b"ON\n"), ("restart", b""), ("restart", b"ON"),
        *(
            ("threshold/stop_sign/stop", value)
            for value in [*b" . 0 0.0 -0.5 1.01 nan inf 1e-3 0.5.5 \xff".split(b" "), b"5" * 400]
        ),
        ("threshold/stop_sign/other", b"0.5"), ("threshold/stop_sign", b"0.5"), ("", b"ON"), ("x/detection", b"ON"),
    ],
)  # fmt: skip
def test_what_is_no_command(topic: str, payload: bytes) -> None:
    entities = Entities("t", SinkContext("door", {STOP: 0.625}), commands=True)
    assert entities.command(f"t/set/{topic}", payload) is None


def test_without_commands_there_is_nothing_to_command() -> None:
    entities = entities_of("t", [STOP])
    assert not any("detection" in topic or "threshold" in topic for topic in entities.retained(0.0))
    platforms = {c["platform"] for c in discovered(entities)[1]["components"].values()}
    assert not platforms & {"switch", "number", "button", "camera"}


def test_scores_are_published_by_alarm() -> None:
    entities = entities_of("t", [STOP, DENT])
    assert json.loads(entities.scores_of({STOP: 0.87654, AlarmKey("x", "y", "z"): 1.0})) == {"stop_sign__stop": 0.877}
    component = discovered(entities)[1]["components"]["t__score__stop_sign__stop"]
    assert component["value_template"] == "{{ value_json.get('stop_sign__stop') }}"
