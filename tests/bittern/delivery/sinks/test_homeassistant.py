"""What MQTT shows of a camera: topics, retained states and the discovery message, without a broker."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bittern.delivery.sinks.homeassistant import Entities, slug, slugs
from bittern.events import AlarmKey, Event

STOP = AlarmKey("stop_sign", "stop_sign", "stop")
DENT = AlarmKey("car_damage", "car_damage", "damaged")
# The keys that Home Assistant's schemas know, of those that could be meant here (homeassistant/components/mqtt:
# schemas.py, sensor.py, binary_sensor.py, image.py, as of 2025). It ignores others in an entity without a word, and
# refuses the whole message for others in `device` and `origin`.
DEVICE = {"identifiers", "name", "manufacturer", "model", "sw_version"}
ENTITY = {"platform", "unique_id", "name", "entity_category"}
KEYS = {
    "sensor": ENTITY
    | {"state_topic", "value_template", "device_class", "state_class", "unit_of_measurement", "expire_after"}
    | {"suggested_display_precision"},
    "binary_sensor": ENTITY | {"state_topic"},
    "image": ENTITY | {"image_topic", "content_type"},
}


def event(kind: str, alarm: AlarmKey = STOP, **fields: Any) -> Event:
    named = {"model": alarm.model, "task": alarm.task, "label": alarm.label} if kind.startswith("alarm") else {}
    return Event(id="x", type=kind, time="", monotonic_ns=0, source="door", **named, **fields)  # type: ignore[arg-type]


def discovered(entities: Entities, *, image: bool = True) -> tuple[str, dict[str, Any]]:
    topic, payload = entities.discovery("homeassistant", 30.0, image=image)
    return topic, json.loads(payload)


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
    entities = Entities("bittern/door", "door", alarms)
    topics = [topic for topic in entities.retained() if "/alarm/" in topic]
    assert len(set(topics)) == 3
    assert "bittern/door/alarm/m/no_entry" in topics
    entities.take(event("alarm.on", alarms[0]))
    assert [payload for topic, payload in entities.retained().items() if "/alarm/" in topic] == [b"ON", b"OFF", b"OFF"]


def test_two_tasks_of_a_model_may_have_the_same_label() -> None:
    both = [AlarmKey("m", "front", "damaged"), AlarmKey("m", "rear", "damaged"), AlarmKey("m", "rear", "dirty")]
    retained = Entities("t", "door", both).retained()
    assert {"t/alarm/m/front_damaged", "t/alarm/m/rear_damaged", "t/alarm/m/dirty"} < retained.keys()


@given(st.lists(st.tuples(*[st.text(max_size=4)] * 3), unique=True, max_size=6), st.text(min_size=1, max_size=20))
def test_every_entity_has_an_id_and_a_topic_of_its_own(alarms: list[tuple[str, str, str]], topic: str) -> None:
    entities = Entities(topic, "door", [AlarmKey(*alarm) for alarm in alarms])
    where, payload = discovered(entities)
    components = payload["components"]
    assert len(components) == 5 + len({model for model, _, _ in alarms}) + len(alarms)
    assert all(component["unique_id"] == key for key, component in components.items())
    topics = [c["state_topic"] for c in components.values() if c["platform"] == "binary_sensor"]
    assert len(set(topics)) == len(alarms)
    assert all(topic in entities.retained() for topic in topics)
    assert re.fullmatch("homeassistant/device/[a-zA-Z0-9_-]+/config", where), "Home Assistant's own pattern"


def test_discovery_has_only_fields_that_home_assistant_knows() -> None:
    where, payload = discovered(Entities("bittern/door", "Front door", [STOP, DENT]))
    assert where == "homeassistant/device/bittern_door/config"
    assert payload.keys() == {"device", "origin", "availability_topic", "components"}
    assert payload["device"].keys() <= DEVICE
    assert payload["device"]["identifiers"] == ["bittern_door"]
    assert payload["device"]["name"] == "Front door"
    assert payload["origin"].keys() == {"name", "sw_version"}
    assert payload["availability_topic"] == "bittern/door/availability"
    for component in payload["components"].values():
        assert component.keys() <= KEYS[component["platform"]]
        assert {"platform", "unique_id", "name"} <= component.keys()


def test_discovery_announces_what_is_published() -> None:
    entities = Entities("bittern/door", "door", [STOP])
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
    assert "bittern_door__image" not in discovered(entities, image=False)[1]["components"]


def test_states_follow_the_events() -> None:
    entities = Entities("t", "door", [STOP, DENT])
    assert entities.retained() == {
        "t/state": b"started",
        "t/label/stop_sign": b"nothing",
        "t/label/car_damage": b"nothing",
        "t/alarm/stop_sign/stop": b"OFF",
        "t/alarm/car_damage/damaged": b"OFF",
    }
    assert entities.take(event("alarm.on")) == {"t/label/stop_sign": b"stop", "t/alarm/stop_sign/stop": b"ON"}
    assert entities.take(event("alarm.on")) == {}, "delivered twice"
    assert entities.take(event("state", state="blind")) == {"t/state": b"blind"}
    assert entities.take(event("dropped", count=3)) == {}
    assert entities.take(event("alarm.on", DENT)).keys() == {"t/label/car_damage", "t/alarm/car_damage/damaged"}
    assert entities.take(event("alarm.off")) == {"t/label/stop_sign": b"nothing", "t/alarm/stop_sign/stop": b"OFF"}
    assert entities.retained()["t/alarm/car_damage/damaged"] == b"ON"


def test_of_several_alarms_the_label_is_the_one_that_went_on_last() -> None:
    red, blue = AlarmKey("m", "t", "red"), AlarmKey("m", "t", "blue")
    entities = Entities("t", "door", [red, blue])
    labels = []
    for kind, alarm in (("on", red), ("on", blue), ("off", blue), ("on", blue), ("off", red), ("off", blue)):
        entities.take(event(f"alarm.{kind}", alarm))
        labels.append(entities.retained()["t/label/m"].decode())
    assert labels == ["red", "blue", "red", "blue", "blue", "nothing"]


def test_events_of_an_outage_in_their_order_end_in_the_right_state() -> None:
    late = [event("alarm.on"), event("alarm.off"), event("alarm.on"), event("alarm.off")]
    for length in range(5):
        entities = Entities("t", "door", [STOP])
        for one in late[:length]:
            entities.take(one)
        assert entities.retained()["t/alarm/stop_sign/stop"] == (b"ON" if length % 2 else b"OFF")


def test_what_a_killed_process_left_on_ends_with_the_next_start() -> None:
    entities = Entities("t", "door", [STOP])
    entities.take(event("alarm.on"))  # still in the outbox when the process before was killed
    assert entities.take(event("state", state="started"))["t/alarm/stop_sign/stop"] == b"OFF"


def test_an_alarm_that_nobody_announced_has_no_topic() -> None:
    entities = Entities("t", "door", [STOP])
    assert entities.take(event("alarm.on", AlarmKey("other", "other", "x"))) == {}


def test_other_alarms_end_the_old_ones_and_keep_what_stays_on() -> None:
    red, blue, green = (AlarmKey("m", "t", label) for label in ("red", "blue", "green"))
    entities = Entities("t", "door", [red, blue, STOP])
    for alarm in (red, blue):
        entities.take(event("alarm.on", alarm))
    for _ in range(2):  # again and again is the same
        entities.expect([blue, green])
        assert entities.retained() == {
            "t/state": b"started",
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
    assert entities.take(event("alarm.off", red)) == {}, "the end of what is gone"
    assert entities.take(event("alarm.on", green))["t/alarm/m/green"] == b"ON"
    entities.expect([red, blue, green])
    assert entities.retained()["t/alarm/m/red"] == b"OFF", "back again, and off"
    assert discovered(entities)[1]["components"]["t__alarm__m__red"].keys() > {"platform"}
