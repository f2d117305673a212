"""One frame's step: what is skipped, decided and raised, and models that are exchanged in between."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.doubles.model_files import altered
from tests.doubles.tflite_files import model_folder_of_means

from bittern import Classifier
from bittern.config.schema import AlarmConfig, DecisionConfig, GateConfig, WatchConfig, load
from bittern.decision.pipeline import Pipeline, Step, Times
from bittern.errors import ConfigurationError
from bittern.events import AlarmKey, Event
from bittern.frames import Frame, Pixels

S = 1_000_000_000
EAGER = DecisionConfig(votes=1, of=1, cooldown_s=0.0, min_off_s=0.0)
OFF = GateConfig(enabled=False)


class Run:
    """A pipeline, and what came out of it."""

    def __init__(self, *models: Classifier, **config: Any) -> None:
        self.events: list[Event] = []
        self.pipeline = Pipeline(models, WatchConfig(**({"decision": EAGER, "gate": OFF} | config)))
        self._number = 0

    def see(self, red: int | Pixels, at_s: float | None = None, *, blind: bool = False) -> Step:
        pixels = np.full((20, 30, 3), (red, 9, 9), np.uint8) if isinstance(red, int) else red
        now = round((self._number if at_s is None else at_s) * S)
        self._number += 1
        step = self.pipeline.step(Frame(pixels, "RGB", now, now, self._number - 1, "film"), blind=blind)
        self.events += step.events
        return step

    def replace(self, *models: Classifier) -> list[Event]:
        events = self.pipeline.replace(models)
        self.events += events
        return events

    def changes(self, task: str = "colour_0") -> list[tuple[str, int | None]]:
        return [(event.type, event.frame) for event in self.events if event.task == task]


def made(folder: Path, **changes: Any) -> Classifier:
    return Classifier(altered(model_folder_of_means(folder), lambda manifest: manifest.update(changes)))


@pytest.fixture(scope="module")
def means(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    return Classifier(model_folder_of_means(tmp_path_factory.mktemp("m") / "means"))


def test_what_is_known_after_a_step(means: Classifier) -> None:
    run = Run(means, gate=GateConfig(linger_s=0.0))
    assert list(run.pipeline.alarms) == [AlarmKey("means", "colour_0", "red"), AlarmKey("means", "colour_1", "red")]
    step = run.see(255)
    assert [(event.type, event.alarm) for event in step.events] == [("alarm.on", key) for key in run.pipeline.alarms]
    assert not step.skipped
    assert step.frame.number == 0
    assert all(ns > 0 for ns in step.times)
    (answer,) = step.answers
    assert answer.classifier is means
    assert [result.label for result in answer.results] == ["red", "red"]
    assert answer.tensor.shape == (1, means.size, means.size, 3)
    assert answer.alarm
    assert step.scores == dict.fromkeys(run.pipeline.alarms, 1.0)
    still = run.see(255)
    assert still.skipped
    assert (still.events, still.answers, still.scores) == ([], [], {})
    assert still.times == Times(still.times.gate, 0, 0, 0)
    assert still.times.gate > 0


def test_the_gate_looks_at_what_the_views_see(means: Classifier) -> None:
    still, moved = np.zeros((40, 120, 3), np.uint8), np.zeros((40, 120, 3), np.uint8)
    moved[:, :30] = 200
    for views, skips in ((("center",), True), (("center", "left"), False), (("center", "right"), True)):
        run = Run(means, gate=GateConfig(linger_s=0.0), views=views)
        run.see(still)
        assert run.see(moved).skipped == skips, views
    run = Run(means, gate=GateConfig(linger_s=0.0), region=(0, 0, 60, 40))
    run.see(still)
    assert not run.see(moved).skipped


def test_each_label_has_its_own_settings(tmp_path: Path) -> None:
    one, other = made(tmp_path / "one", name="one"), made(tmp_path / "other", name="other")
    run = Run(one, other, alarm=(AlarmConfig(model="other", threshold=0.9, votes=2, of=2),))
    for red in (200, 255, 255, 255):
        run.see(red)
    assert [(e.model, e.task, e.frame) for e in run.events] == [
        ("one", "colour_0", 0),
        ("one", "colour_1", 0),
        ("other", "colour_0", 2),
        ("other", "colour_1", 2),
    ]


def test_two_models_of_one_name_are_refused(means: Classifier) -> None:
    with pytest.raises(ConfigurationError, match="models: expected different names"):
        Run(means, means)


def test_blind_frames_decide_nothing(means: Classifier) -> None:
    run = Run(means)
    step = run.see(255, blind=True)
    assert (step.events, step.scores) == ([], {})
    assert step.times.invoke > 0, "the model still runs"
    assert not step.answers[0].alarm
    run.see(255)
    run.see(0, blind=True)
    assert run.changes() == [("alarm.on", 1)]
    run.see(0)
    assert run.changes() == [("alarm.on", 1), ("alarm.off", 3)]


def test_an_event_names_the_view(means: Classifier) -> None:
    frame = np.zeros((40, 120, 3), np.uint8)
    frame[:, 80:, 0] = 255
    run = Run(means, views=("center", "left", "right"))
    run.see(frame)
    run.see(np.zeros_like(frame))
    assert [(e.type, e.view, e.score) for e in run.events if e.task == "colour_0"] == [
        ("alarm.on", "right", 1.0),
        ("alarm.off", None, 0.0),
    ]


def test_each_label_takes_its_own_best_view(tmp_path: Path) -> None:
    heads = [
        {"task": f"colour_{i}", "output": f"means_{i}", "labels": ["red", "green", "blue"], "alarm": ["red", "green"]}
        | {"scale": 1 / 255, "zero_point": 0, "thresholds": {"default": {"on": 0.5, "off": 0.4, "chosen_for": "x"}}}
        for i in range(2)
    ]
    run = Run(made(tmp_path / "m", heads=heads), views=("left", "right"))
    frame = np.zeros((40, 120, 3), np.uint8)
    frame[:, :40, 0], frame[:, 80:, 1] = 255, 200
    run.see(frame)
    assert [(e.label, e.view) for e in run.events if e.task == "colour_0"] == [("red", "left"), ("green", "right")]


def test_views_of_a_frame_that_is_not_wide_are_logged_once(means: Classifier, caplog: pytest.LogCaptureFixture) -> None:
    run = Run(means, views=("left", "right"))
    with caplog.at_level(logging.WARNING, logger="bittern"):
        for _ in range(3):
            run.see(np.full((50, 40, 3), 200, np.uint8))
    assert len(caplog.records) == 1
    assert "left, right: the frame or region has 40 x 50 pixels" in caplog.text
    assert {event.view for event in run.events} == {None}


def test_views_are_distinct(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text('views = ["left", "left"]\n')
    with pytest.raises(ConfigurationError, match='views: "left" is listed twice'):
        load(tmp_path / "c.toml")


# --- replace ---------------------------------------------------------------------------------------------------------


def test_decisions_outlive_their_model(means: Classifier, tmp_path: Path) -> None:
    newer = made(tmp_path / "newer", version="8")
    run = Run(means, decision=DecisionConfig(votes=2, of=2, cooldown_s=0.0, min_off_s=0.0))
    run.see(255)
    assert run.replace(newer) == []
    assert run.pipeline.classifiers == (newer,)
    run.see(255)
    assert [(e.type, e.frame, e.model_version) for e in run.events] == [("alarm.on", 1, "8")] * 2, "the votes add up"
    assert run.replace(means) == []
    run.see(255)
    run.see(0)
    assert run.changes() == [("alarm.on", 1), ("alarm.off", 3)], "once on, once off"


def test_an_alarm_whose_label_is_gone_ends(means: Classifier, tmp_path: Path) -> None:
    run = Run(means, name="gate")
    run.see(255, 7.0)
    ended = run.replace(made(tmp_path / "other", name="other"))
    assert [(e.type, e.model, e.task, e.label, e.score) for e in ended] == [
        ("alarm.off", "means", "colour_0", "red", None),
        ("alarm.off", "means", "colour_1", "red", None),
    ]
    assert {(e.frame, e.monotonic_ns, e.source) for e in ended} == {(0, 7 * S, "gate")}
    run.see(0, 8.0)
    assert len(run.events) == 4


def test_a_label_that_is_gone_without_an_alarm_is_no_event(means: Classifier, tmp_path: Path) -> None:
    run = Run(means)
    run.see(0)
    assert run.replace(made(tmp_path / "other", name="other")) == []


def test_models_that_do_not_fit_change_nothing(means: Classifier, tmp_path: Path) -> None:
    run = Run(means, alarm=(AlarmConfig(model="means", votes=1),))
    run.see(255)
    with pytest.raises(ConfigurationError, match="model 'means' is not configured: models has 'other'"):
        run.replace(made(tmp_path / "other", name="other"))
    run.see(0)
    assert run.changes() == [("alarm.on", 0), ("alarm.off", 1)]


def test_a_new_model_sees_the_scene_that_stands_still(means: Classifier, tmp_path: Path) -> None:
    run = Run(means, gate=GateConfig(linger_s=0.0))
    run.see(0)
    assert run.see(0).skipped
    run.replace(made(tmp_path / "newer", version="8"))
    assert not run.see(0).skipped


def test_thresholds_of_the_owner_replace_those_of_the_configuration(means: Classifier) -> None:
    run = Run(means)
    first, second = run.pipeline.alarms
    run.pipeline.set_thresholds({first: 0.9, AlarmKey("other", "task", "label"): 0.1})
    assert run.pipeline.alarms == {first: 0.9, second: 0.5}
    run.see(200)  # a score of 0.78
    assert [event.alarm for event in run.events] == [second]
    run.replace(means)
    run.see(200)
    assert [event.alarm for event in run.events] == [second], "the next models have them too"
    run.pipeline.set_thresholds({first: 0.7})
    run.see(200)
    assert [(event.type, event.alarm) for event in run.events] == [("alarm.on", second), ("alarm.on", first)]
    run.pipeline.set_thresholds({})
    run.see(200)
    assert len(run.events) == 2, "an alarm that is on stays on"
    run.pipeline.set_thresholds({first: 0.2})  # below the lower threshold, 0.4
    run.see(40)  # 0.16: above half of it
    assert (run.events[-1].type, run.events[-1].alarm) == ("alarm.off", second)


def test_alarms_that_are_ended_begin_anew(means: Classifier) -> None:
    run = Run(means)
    run.see(255)
    ended = run.pipeline.end_alarms()
    assert [(event.type, event.alarm, event.score) for event in ended] == [
        ("alarm.off", key, None) for key in run.pipeline.alarms
    ]
    assert run.pipeline.end_alarms() == []
    run.see(255)
    assert [event.type for event in run.events] == ["alarm.on"] * 4
