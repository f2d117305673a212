"""The study "decision": every rule does what its name says, and the counts are those of `bittern replay`."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from tests.doubles.tflite_files import model_folder_of_means

from bittern.cli.replay import replay
from bittern.decision.decision import MOST_EVIDENCE, Settings
from bittern.errors import ConfigurationError
from bittern.evaluation import tuning
from bittern.evaluation.tuning import LabelledInterval, Track
from bittern.model.operating import log_odds
from bittern_convert import results
from bittern_train import decision_chart
from bittern_train import decision_study as studying
from bittern_train.cli import study
from bittern_train.decision_rules import RULES, SHIPPED, Average, Decider, SequentialTest, SpreadVotes, wald
from bittern_train.decision_study import RuleFigures, Take, figures

ON = 0.7
SETTINGS = Settings(ON, 0.35, cooldown_s=1.0, min_off_s=0.5, evidence=9.0, votes=7, of=8)
FPS = 25
SCORES = st.lists(st.floats(0, 1), min_size=1, max_size=60)
# Seconds between frames.
STEPS = st.lists(st.floats(0.02, 0.5), min_size=60, max_size=60)


def alarms(track: Track, decider: Decider) -> list[tuple[float, float]]:
    return tuning.periods(decider.update, track.times_ns.tolist(), track.scores.tolist())


def track(scores: Sequence[float], steps: Sequence[float] | float = 0.2) -> Track:
    steps = [steps] * len(scores) if isinstance(steps, float) else steps[: len(scores)]
    times = np.round(np.cumsum([0.0, *steps[1:]]) * 1e9).astype(np.int64)
    return Track("m", "t", "red", times, np.array(scores, float), float(times[-1]) / 1e9)


def begins(name: str, scores: Sequence[float], step: float = 0.2) -> list[float]:
    return [round(on, 3) for on, _ in alarms(track(scores, step), RULES[name](SETTINGS))]


@pytest.mark.parametrize("name", RULES)
@given(scores=SCORES, steps=STEPS)
def test_no_rule_starts_an_alarm_below_the_threshold(name: str, scores: list[float], steps: list[float]) -> None:
    of = track(scores, steps)
    on = dict(zip((of.times_ns / 1e9).tolist(), scores, strict=True))
    assert all(on[start] >= ON for start, _ in alarms(of, RULES[name](SETTINGS)))


@given(scores=SCORES, steps=STEPS)
def test_one_frame_is_the_threshold_alone(scores: list[float], steps: list[float]) -> None:
    """So that no rule finds more, or sooner."""
    of = track(scores, steps)
    first = next((t / 1e9 for t, score in zip(of.times_ns.tolist(), scores, strict=True) if score >= ON), None)
    got = alarms(of, RULES["1 frame"](SETTINGS))
    assert (got[0][0] if got else None) == first
    for name, rule in RULES.items():
        later = alarms(of, rule(SETTINGS))
        assert not later or later[0][0] >= got[0][0], name


def test_votes_count_frames_and_spread_votes_count_time() -> None:
    burst = [0.0] * 5 + [0.9] * 6 + [0.0] * 20
    assert begins("2 of 3 frames", burst) == [1.2]
    assert begins("3 of 5 frames", burst) == [1.4]
    assert begins("2 frames 0.3 s apart, within 0.6 s", burst) == [1.4]
    # The same six frames at 25 a second are a quarter of a second.
    assert begins("2 of 3 frames", burst, 0.04) == [0.24]
    assert begins("2 frames 0.3 s apart, within 0.6 s", burst, 0.04) == []
    assert begins(SHIPPED, burst, 0.04) == []


@given(scores=SCORES, steps=STEPS)
def test_two_frames_apart(scores: list[float], steps: list[float]) -> None:
    rule, votes, now = SpreadVotes(ON, 0.3, 0.6), list[float](), 0.0
    for score, step in zip(scores, steps, strict=False):
        now += step
        want = score >= ON and any(0.3 - 5e-4 <= now - vote <= 0.6 + 5e-4 for vote in votes)
        if not any(abs(now - vote - bound) < 1e-3 for vote in votes for bound in (0.3, 0.6)):  # else: rounding
            assert rule.update(score, step) == want
        else:
            rule.update(score, step)
        votes += [now] * (score >= ON)


@given(score=st.floats(0.75, 0.99), step=st.sampled_from([0.04, 0.1, 0.2]), time_constant_s=st.sampled_from([0.4, 1.0]))
def test_an_average_takes_the_same_time_at_every_rate(score: float, step: float, time_constant_s: float) -> None:
    rule, frames = Average(ON, time_constant_s), 1
    while not rule.update(score, step):
        frames += 1
    takes_s = -time_constant_s * math.log(1 - log_odds(ON) / log_odds(score))
    assert takes_s - 1e-9 <= frames * step <= takes_s + step + 1e-9


@given(scores=st.lists(st.floats(0.4, 0.88), min_size=1, max_size=60), steps=STEPS)
def test_without_high_scores_the_clipped_sum_is_the_plain_one(scores: list[float], steps: list[float]) -> None:
    assert all(abs(log_odds(score) - log_odds(ON)) < MOST_EVIDENCE for score in (0.4, 0.88))
    of = track(scores, steps)
    clipped, plain = (alarms(of, RULES[name](SETTINGS)) for name in (SHIPPED, f"{SHIPPED}, unclipped"))
    assert clipped == plain


@given(scores=SCORES)
def test_the_sequential_test_is_walds(scores: list[float]) -> None:
    """It accepts what is more likely than not by the odds of its errors, either way, and starts again."""
    lower, upper = wald(0.05)
    assert (lower, upper) == pytest.approx((-math.log(19), math.log(19)))
    rule, odds = SequentialTest(ON, lower, upper), 0.0
    for score in scores:
        odds += log_odds(score) - log_odds(ON)
        accepted = rule.update(score, 0.2)
        assert accepted == (odds >= upper)
        odds = 0.0 if odds <= lower else min(odds, upper)


def test_one_certain_frame_is_no_evidence_of_two() -> None:
    scores = [0.05] * 5 + [0.996] + [0.05] * 5
    assert begins(f"{SHIPPED}, unclipped", scores) == [1.0]
    assert begins(SHIPPED, scores) == []


def test_figures_are_counts_over_all_takes() -> None:
    takes = [
        Take(track([0.0] * 5 + [0.9] * 5 + [0.0] * 20), [LabelledInterval(0.8, 2.0, "red")]),
        Take(track([0.0] * 5 + [0.9] * 5 + [0.0] * 20), []),
        Take(track([0.6] * 30), [LabelledInterval(0.8, 2.0, "red")]),
    ]
    assert figures(takes, SETTINGS, RULES["1 frame"]) == RuleFigures(1, 1, 0.2)
    assert figures(takes, SETTINGS, RULES["2 of 3 frames"]) == RuleFigures(1, 1, 0.4)
    assert figures(takes[2:], SETTINGS, RULES["1 frame"]) == RuleFigures(0, 0, None)


def film(file: Path, seed: int, seconds: float) -> None:
    """More and less of red, which is its score; the corner makes it a picture, not a covered camera."""
    rng = np.random.default_rng(seed)
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*"MJPG"), FPS, (64, 48))
    knots = rng.uniform(-80, 330, round(seconds) + 1)
    for now in np.arange(0, seconds, 1 / FPS):
        pixels = np.full((48, 64, 3), 10, np.uint8)
        pixels[:, :, 2] = np.clip(np.interp(now, np.arange(len(knots)), knots) + rng.normal(0, 30), 0, 255)
        pixels[:16, :16, 1] = 255
        writer.write(pixels)
    writer.release()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model with one alarm label, "red", and three clips."""
    root = tmp_path_factory.mktemp("decision")
    model = model_folder_of_means(root / "means", on=0.6, off=0.3)
    manifest = json.loads((model / "manifest.json").read_text())
    manifest["heads"][1]["alarm"] = []
    (model / "manifest.json").write_text(json.dumps(manifest))
    model_folder_of_means(root / "two", name="two")
    (root / "clips/labels").mkdir(parents=True)
    for seed in range(3):
        film(root / f"clips/{seed}.avi", seed, 40)
        rows = "2,4,red\n8,12,red\n20,24,red\n30,34,red\n" if seed else ""
        (root / f"clips/labels/{seed}.csv").write_text(f"start_s,end_s,label\n{rows}")
    (root / "still.toml").write_text("[gate]\nenabled = false\n")
    return root


@pytest.fixture(scope="module")
def result(world: Path) -> dict[str, Any]:
    """What the command writes, without streets for the most part."""
    words = ["decision", str(world / "means"), "--clips", str(world / "clips"), "--minutes", "1"]
    done = CliRunner().invoke(study, [*words, "--labels", str(world / "clips/labels"), "--out", str(world / "out")])
    assert done.exit_code == 0, done.output
    assert done.stdout == f"{world / 'out/decision-means.json'}\n"
    made: dict[str, Any] = json.loads((world / "out/decision-means.json").read_text())
    return made


@pytest.mark.parametrize(("part", "words"), [("clips", []), ("clips, every frame", ["--every-frame"])])
def test_the_shipped_rule_counts_as_replay_does(
    world: Path, result: dict[str, Any], part: str, words: list[str]
) -> None:
    options = ["--model", str(world / "means"), "--config", str(world / "still.toml"), "--json", *words]
    labels = ["--labels", str(world / "clips/labels")]
    done = CliRunner().invoke(replay, [str(world / "clips"), *labels, *options])
    total = json.loads(done.stdout.splitlines()[0])
    (rule,) = (rule for rule in result["rules"] if rule["rule"] == SHIPPED)
    assert rule[part]["default"] == {name: total[name] for name in ("found", "false_alarms", "mean_delay_s")}
    extent = result["footage"][part]
    assert (extent["intervals"], extent["n"]) == (total["intervals"], total["clips"])
    assert extent["hours"] == pytest.approx(total["hours"], rel=0.01)
    assert min(total["found"], total["false_alarms"]) > 1, "there is something to count"


def test_every_rule_is_swept_over_all_footage(result: dict[str, Any]) -> None:
    assert [rule["rule"] for rule in result["rules"]] == list(RULES)
    assert result["footage"]["streets"] == {
        "n": 5,
        "frames": 300,
        "hours": pytest.approx(59 / 3600, rel=1e-3),
        "intervals": 0,
    }
    for rule in result["rules"]:
        both, clips, streets = (rule[part] for part in ("clips and streets", "clips", "streets"))
        assert both["found"] == [a + b for a, b in zip(clips["found"], streets["found"], strict=True)]
        assert both["false_alarms"] == [
            a + b for a, b in zip(clips["false_alarms"], streets["false_alarms"], strict=True)
        ]
        assert len(both["found"]) == len(result["thresholds"])


def test_the_page_and_the_picture_show_every_model(world: Path, result: dict[str, Any]) -> None:
    page = results.render([], world / "out")
    rows = [line for line in page.splitlines() if line.startswith("| means |")]
    assert len(rows) == len(RULES)
    (shipped,) = (row for row in rows if f"**{SHIPPED}**, shipped" in row)
    default = next(rule for rule in result["rules"] if rule["rule"] == SHIPPED)["clips and streets"]["default"]
    assert f"| {default['found']} of 8 (" in shipped
    assert f"n = {default['false_alarms']}) |" in shipped
    svg = (world / "out/decision.svg").read_text()
    rings = 1 + (default["found"] / 8 >= 0.9)  # the delay is drawn where nearly all are found
    assert svg.count("<circle") == rings
    assert "means" in svg
    without = result | {"model": "other", "label": "x"}
    without["footage"] = {part: extent | {"intervals": 0} for part, extent in result["footage"].items()}
    both = decision_chart.draw([result, without])
    assert both.count("<circle") == rings + 1
    assert "nothing of \u201cx\u201d to find" in both


def test_the_drawn_street_has_a_sign_in_every_third_lap(model_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    film(tmp_path / "a.avi", 1, 1)
    made = studying.study(model_folder, tmp_path, tmp_path / "labels", minutes=0.6, seed=1, progress=Quiet())
    assert (made["label"], made["footage"]["streets"]["n"], made["footage"]["streets"]["intervals"]) == ("stop", 3, 1)


class Quiet:
    def __call__(self, step: str, done: int, total: int) -> None: ...

    def say(self, line: str) -> None: ...


def test_what_does_not_fit_is_refused(world: Path, tmp_path: Path) -> None:
    def run(model: str, clips: Path) -> None:
        studying.study(world / model, clips, world / "clips/labels", minutes=1, seed=1, progress=Quiet())

    with pytest.raises(ConfigurationError, match="model 'two': expected one alarm label, got 2"):
        run("two", world / "clips")
    with pytest.raises(ConfigurationError, match="no clip"):
        run("means", tmp_path)
