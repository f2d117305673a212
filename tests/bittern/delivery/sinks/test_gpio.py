"""GPIO: a pin of gpiozero's mock factory, the double of the outside, follows the alarms."""

from __future__ import annotations

from collections.abc import Iterator

import gpiozero
import pytest
from gpiozero.pins.mock import MockFactory

from bittern.config.schema import GpioConfig
from bittern.delivery.sinks.base import Undelivered
from bittern.delivery.sinks.gpio import GpioSink
from bittern.errors import ConfigurationError
from bittern.events import Event, to_line, uuid7


@pytest.fixture
def pins() -> Iterator[MockFactory]:
    factory = MockFactory()
    gpiozero.Device.pin_factory = factory
    yield factory
    factory.close()
    gpiozero.Device.pin_factory = None


def event(kind: str, label: str = "stop", model: str = "stop_sign", state: str | None = None) -> Event:
    alarm = kind.startswith("alarm")
    return Event(
        id=uuid7(),
        type=kind,  # type: ignore[arg-type]
        time="2026-01-01T00:00:00.000Z",
        monotonic_ns=0,
        source="door",
        state=state,
        model=model if alarm else None,
        task=model if alarm else None,
        label=label if alarm else None,
    )


def deliver(sink: GpioSink, sent: Event) -> str:
    return sink.deliver(sent, to_line(sent)[:-1])


def test_it_is_on_while_any_alarm_is_on(pins: MockFactory) -> None:
    sink = GpioSink(GpioConfig(pin=17))
    assert not sink.durable
    assert pins.pin(17).state == 0
    assert deliver(sink, event("alarm.on")) == "pin 17 is on"
    assert pins.pin(17).state == 1
    deliver(sink, event("alarm.on", "damaged", "car_damage"))
    assert deliver(sink, event("alarm.off")) == "pin 17 is on"
    deliver(sink, event("state", state="blind"))
    assert pins.pin(17).state == 1
    assert deliver(sink, event("alarm.off", "damaged", "car_damage")) == "pin 17 is off"
    assert pins.pin(17).state == 0
    sink.close()


def test_the_same_label_of_two_models_is_two_alarms(pins: MockFactory) -> None:
    sink = GpioSink(GpioConfig(pin=17, label="stop"))
    deliver(sink, event("alarm.on", model="one"))
    deliver(sink, event("alarm.on", model="two"))
    deliver(sink, event("alarm.on", model="two"))  # delivered twice
    deliver(sink, event("alarm.off", model="two"))
    assert pins.pin(17).state == 1
    deliver(sink, event("alarm.off", model="one"))
    assert pins.pin(17).state == 0
    sink.close()


def test_only_the_label_that_was_asked_for(pins: MockFactory) -> None:
    sink = GpioSink(GpioConfig(pin=4, label="damaged"))
    deliver(sink, event("alarm.on"))
    assert pins.pin(4).state == 0
    deliver(sink, event("alarm.on", "damaged"))
    assert pins.pin(4).state == 1
    deliver(sink, event("alarm.off"))
    assert pins.pin(4).state == 1
    sink.close()


def test_a_relay_that_is_on_at_a_low_level(pins: MockFactory) -> None:
    sink = GpioSink(GpioConfig(pin=4, active_high=False))
    assert pins.pin(4).state == 1
    deliver(sink, event("alarm.on"))
    assert pins.pin(4).state == 0
    deliver(sink, event("alarm.off"))
    assert pins.pin(4).state == 1
    sink.close()


def test_a_process_that_starts_has_no_alarm(pins: MockFactory) -> None:
    sink = GpioSink(GpioConfig(pin=4))
    deliver(sink, event("alarm.on"))
    deliver(sink, event("state", state="started"))
    assert pins.pin(4).state == 0
    sink.close()


def test_close_switches_off_and_gives_the_pin_back(pins: MockFactory) -> None:
    sink = GpioSink(GpioConfig(pin=17))
    deliver(sink, event("alarm.on"))
    sink.close()
    assert [s.state for s in pins.pin(17).states][-2:] == [1, 0]
    sink.close()
    with pytest.raises(Undelivered, match="pin 17"):
        deliver(sink, event("alarm.on"))
    GpioSink(GpioConfig(pin=17)).close()


def test_a_pin_in_use_and_one_that_is_not_there_say_so_in_one_line(pins: MockFactory) -> None:
    first = GpioSink(GpioConfig(pin=17))
    with pytest.raises(ConfigurationError, match=r"^gpio\.pin 17: .*in use") as refused:
        GpioSink(GpioConfig(pin=17))
    assert "\n" not in str(refused.value)
    first.close()
    with pytest.raises(ConfigurationError, match=r"^gpio\.pin 53: "):
        GpioSink(GpioConfig(pin=53))


def test_a_machine_without_pins_says_so_in_one_line(
    monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    # A factory that fails as each of gpiozero's own does where there is no Raspberry Pi.
    monkeypatch.setenv("GPIOZERO_PIN_FACTORY", "absent")
    monkeypatch.setattr(gpiozero.Device, "pin_factory", None)
    with pytest.raises(ConfigurationError, match=r"^gpio\.pin 17: no pins on this machine.*python3-lgpio"):
        GpioSink(GpioConfig(pin=17))
    assert not recwarn.list


def test_no_permission_says_which_group(pins: MockFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(pins, "pin", refuse)
    with pytest.raises(ConfigurationError, match=r"^gpio\.pin 17: permission denied: is the user in group gpio\?$"):
        GpioSink(GpioConfig(pin=17))
