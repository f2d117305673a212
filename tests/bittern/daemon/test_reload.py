"""A reload that brings other labels: the whole daemon goes over to them, or goes on as it was and says why."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gpiozero
import numpy as np
import pytest
from gpiozero.pins.mock import MockFactory
from tests.doubles.command import OFTEN
from tests.doubles.model_files import altered
from tests.doubles.mosquitto import Broker, Listener, needs_mosquitto
from tests.doubles.tflite_files import model_folder_of_means
from tests.doubles.waiting import until

from bittern import Classifier
from bittern.config.schema import load
from bittern.daemon import run
from bittern.errors import ConfigurationError
from bittern.system.stop import Stop

CONFIG = "homeassistant/device/bittern_door/config"


def renamed(fields: dict[str, Any]) -> None:
    """Version 8: what was "red" is "crimson", and the second head is called otherwise, too."""
    fields["version"] = "8"
    for head, task in zip(fields["heads"], ("colour_0", "shade"), strict=True):
        labels = ["crimson" if label == "red" else label for label in head["labels"]]
        head.update(task=task, labels=labels, alarm=["crimson"])


class Run:
    """The daemon in this process, with a camera whose frames are red and dark in turn; every event is told."""

    def __init__(self, folder: Path, more: str = "") -> None:
        self.model = model_folder_of_means(folder / "means")
        frames = np.random.default_rng(1).integers(0, 60, (2, 48, 64, 3), np.uint8)
        frames[0, ..., 0] += 190
        np.save(folder / "frames.npy", frames)
        self.file = folder / "door.toml"
        self.file.write_text(
            f'source = "bench:{folder}/frames.npy?fps=20"\nname = "door"\nfps = 200.0\nmodels = ["{self.model}"]\n'
            f'[recovery]\nwarm_up_frames = 0\n[outbox]\nfolder = "{folder}/state"\n{OFTEN}{more}'
        )
        self.stop = Stop()
        self.events: list[dict[str, Any]] = []
        self._steps: Iterator[Callable[[], bool]] = iter(())
        self._until: Callable[[], bool] | None = None

    def __call__(self, *steps: Callable[[], bool]) -> None:
        """Run until each of the steps in turn has become true; they are asked after every event."""
        self._steps = iter(steps)
        self._until = next(self._steps)
        with run.opened(load(self.file), [Classifier(self.model)], self._take, self.stop, file=self.file) as daemon:
            for _ in daemon.steps():
                pass
        assert self._until is None, f"a step was never true; states {self.states()}, last event {self.events[-1]}"

    def reload(self) -> bool:
        """A step: as SIGHUP does it."""
        self.stop.reload = True
        return True

    def alarms(self, label: str) -> int:
        return sum(event.get("label") == label for event in self.events)

    def states(self) -> list[str]:
        return [event["state"] for event in self.events if event["type"] == "state"]

    def _take(self, line: bytes) -> None:
        self.events.append(json.loads(line))
        while self._until is not None and self._until():
            self._until = next(self._steps, None)
        if self._until is None or len(self.events) > 800:
            self.stop.asked = True


def components(listener: Listener) -> dict[str, Any]:
    """What Home Assistant knows of, without its ids; {} if there is nothing yet."""
    announcement = listener.last(CONFIG)
    announced = json.loads(announcement)["components"] if announcement else {}
    return {key.removeprefix("bittern_door__"): component for key, component in announced.items()}


@needs_mosquitto
def test_other_labels_are_announced_and_those_that_are_gone_removed(tmp_path: Path) -> None:
    with Broker(tmp_path) as broker, Listener(broker.port, "#") as listener:
        run = Run(tmp_path, f'[mqtt]\nhost = "127.0.0.1"\nport = {broker.port}\n')
        old, new = "bittern/door/alarm/means/colour_0_red", "bittern/door/alarm/means/colour_0_crimson"
        run(
            lambda: run.alarms("red") >= 4 and "alarm__means__colour_0_red" in components(listener),
            lambda: listener.last(old) == b"ON",
            lambda: altered(run.model, renamed) is not None and run.reload(),
            lambda: "models_loaded" in run.states() and run.alarms("crimson") >= 4,
            lambda: "alarm__means__colour_0_crimson" in components(listener),
            lambda: listener.last(old) == b"" and listener.last(new) == b"ON",
        )
        entities = components(listener)
        assert entities["alarm__means__colour_0_crimson"]["state_topic"] == new
        assert "alarm__means__shade_crimson" in entities
        assert entities["label__means"]["state_topic"] == "bittern/door/label/means"
        for gone in ("alarm__means__colour_0_red", "alarm__means__colour_1_red"):
            assert entities[gone] == {"platform": "binary_sensor"}, "so Home Assistant removes an entity"
        with Listener(broker.port, "bittern/door/alarm/#", name="later") as later:
            until(lambda: later.last(new) is not None)
            assert {topic for topic, _, retained in list(later.received) if retained} == {
                new,
                "bittern/door/alarm/means/shade_crimson",
            }
        states = listener.payloads("bittern/door/label/means")
        assert b"crimson" in states[states.index(b"red") :]


def test_an_alarm_that_is_on_ends_and_the_pin_follows_the_new_label(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pins = MockFactory()
    monkeypatch.setattr(gpiozero.Device, "pin_factory", pins)
    run = Run(tmp_path, "[gpio]\npin = 17\n")
    pin = pins.pin(17)
    levels: set[int] = set()

    def both_levels() -> bool:
        levels.add(pin.state)
        return len(levels) == 2

    run(
        lambda: run.alarms("red") >= 4,
        lambda: run.events[-1]["type"] == "alarm.on",
        lambda: altered(run.model, renamed) is not None and run.reload(),
        lambda: run.alarms("crimson") >= 4,
        both_levels,
    )
    assert "models_loaded" in run.states()
    on = {"red": 0, "crimson": 0}
    for event in run.events:
        if event["type"].startswith("alarm"):
            on[event["label"]] += 1 if event["type"] == "alarm.on" else -1
        elif event["state"] == "models_loaded":
            assert on == {"red": 0, "crimson": 0}, "what was on has ended, on the record"
    assert {event["model_version"] for event in run.events if event.get("label") == "crimson"} == {"8"}


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ('[[alarm]]\nlabel = "red"\nvotes = 1\nof = 1\n', "alarm 1: no alarm label 'red': expected 'crimson'"),
        ('[gpio]\npin = 17\nlabel = "red"\n', "gpio.label: no alarm label 'red': expected 'crimson'"),
    ],
    ids=["alarm", "gpio"],
)
def test_a_table_for_a_label_that_the_new_model_lacks_refuses_it(
    more: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpiozero.Device, "pin_factory", MockFactory())
    run = Run(tmp_path, more)
    before = 0

    def refused() -> bool:
        nonlocal before
        before = run.alarms("red")
        return "models_refused" in run.states()

    run(
        lambda: run.alarms("red") >= 4,
        lambda: altered(run.model, renamed) is not None and run.reload(),
        refused,
        lambda: run.alarms("red") >= before + 4,
    )
    (detail,) = [event["detail"] for event in run.events if event.get("state") == "models_refused"]
    assert f"the old ones stay in use: {says}" in detail
    assert "\n" not in detail
    assert run.alarms("crimson") == 0
    assert {event["model_version"] for event in run.events if event.get("label") == "red"} == {"7"}


def test_a_pin_for_a_label_that_no_model_has_is_refused_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpiozero.Device, "pin_factory", MockFactory())
    run = Run(tmp_path, '[gpio]\npin = 17\nlabel = "redd"\n')
    with pytest.raises(
        ConfigurationError, match=r"^gpio.label: no alarm label 'redd': expected 'red'; did you mean 'red'\?$"
    ):
        run(lambda: True)
