"""From scores to alarms: evidence over time, votes, hysteresis and cooldown; pure, on the frames' clock."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import msgspec

from bittern.config.schema import AlarmConfig, DecisionConfig
from bittern.errors import ConfigurationError, did_you_mean
from bittern.events import AlarmKey
from bittern.model.manifest import Head
from bittern.model.operating import log_odds, threshold_for

Change = Literal["on", "off"]


# The highest score adds at least this much, also above a threshold next to it, which could never be exceeded else.
_HEADROOM = 0.5
# The time that one frame's evidence stands for: frames that follow one another faster show much the same picture.
EVIDENCE_FRAME_NS = 200_000_000
# One frame (of that time) adds or takes away at most this much evidence: a single picture proves little, however high
# its score. It is the clipped log-likelihood ratio of robust sequential tests (Huber 1965, "A Robust Version of the
# Probability Ratio Test").
MOST_EVIDENCE = 1.5
# During the cooldown an alarm goes on all the same if its log-odds exceed the highest of the last alarm by this much
# (odds 7 times as high): what raised the last alarm may have been something else.
COOLDOWN_BREAK = 2.0


class Decision:
    """The state of one alarm.

    Evidence is summed over frames: the log-odds of the score less those of `on`, from 0 up to `evidence` (a one-sided
    CUSUM: Page 1954, "Continuous Inspection Schemes"). A frame counts in proportion to the time since the last one, at
    most as EVIDENCE_FRAME_NS, and for at most MOST_EVIDENCE.

    The alarm goes on when a score reaches `on`, the evidence has reached `evidence`, at least `votes` of the last `of`
    scores reached `on`, and the last alarm ended at least `cooldown_s` ago, or the score is much higher than any of
    that alarm (COOLDOWN_BREAK). It goes off when no score has reached `off` for `min_off_s`.

    Attributes:
        on: the threshold.
        alarm: whether the alarm is on.
    """

    def __init__(
        self,
        *,
        on: float,
        off: float,
        cooldown_s: float,
        min_off_s: float,
        evidence: float = 0.0,
        votes: int = 1,
        of: int = 1,
    ) -> None:
        """See the class.

        Args:
            on: score, 0 to 1.
            off: score, 0 to 1, at most `on`.
            cooldown_s: seconds.
            min_off_s: seconds.
            evidence: in units of log-odds; 0 asks for none.
            votes: at least 1, at most `of`.
            of: number of frames that votes are counted over.

        Raises:
            ValueError: a value is out of its range.
        """
        if not 0 <= off <= on <= 1:
            raise ValueError(f"thresholds must be 0 <= off <= on <= 1, got off {off}, on {on}")
        if not 1 <= votes <= of:
            raise ValueError(f"expected 1 <= votes <= of, got votes {votes}, of {of}")
        if cooldown_s < 0 or min_off_s < 0:
            raise ValueError("times must not be negative")
        if not 0 <= evidence < math.inf:
            raise ValueError(f"expected 0 <= evidence, got {evidence}")
        self.on, self._off, self._votes, self._needed = on, off, votes, evidence
        self._cooldown_ns, self._min_off_ns = int(cooldown_s * 1e9), int(min_off_s * 1e9)
        self._last: deque[bool] = deque(maxlen=of)
        self._evidence = 0.0
        self._now_ns: int | None = None  # time of the last score
        self._high_ns = 0  # the last time the score reached `off` while the alarm was on
        self._low = False  # while the alarm is on: the last score did not reach `off`
        self._peak = 0.0  # the highest score of the alarm that is on, or was the last one
        self._ended_ns: int | None = None
        self.alarm = False

    def update(self, score: float, now_ns: int) -> Change | None:
        """Take the score of one frame.

        Args:
            score: 0 to 1.
            now_ns: the frame's monotonic time in ns; never earlier than the one before.

        Returns:
            "on" or "off" if the alarm changed, else None.
        """
        self._last.append(score >= self.on)
        if self._needed:
            self._weigh(score, now_ns)
        if self.alarm:
            self._peak = max(self._peak, score)
            self._low = score < self._off
            if not self._low:
                self._high_ns = now_ns
            elif now_ns - self._high_ns >= self._min_off_ns:
                self.alarm = False
                self._ended_ns = now_ns
                self._forget()
                return "off"
            return None
        if score < self.on or self._evidence < self._needed or sum(self._last) < self._votes:
            return None
        if (
            self._ended_ns is not None
            and now_ns - self._ended_ns < self._cooldown_ns
            and log_odds(score) < log_odds(self._peak) + COOLDOWN_BREAK
        ):
            return None
        self.alarm, self._low, self._peak = True, False, score
        self._high_ns = now_ns
        return "on"

    def _weigh(self, score: float, now_ns: int) -> None:
        """Add the evidence of a score."""
        passed_ns = EVIDENCE_FRAME_NS if self._now_ns is None else now_ns - self._now_ns
        self._now_ns = now_ns
        self._evidence = min(self._needed, add_evidence(self._evidence, score, self.on, passed_ns))

    def _forget(self) -> None:
        """Forget votes and evidence."""
        self._last.clear()
        self._evidence = 0.0

    @property
    def unsettled(self) -> bool:
        """Whether more frames like the last one may change the alarm: votes, evidence, or a score below `off`.

        As long as this is true, a scene has to be classified even if nothing moves in it.
        """
        return self._low if self.alarm else self._evidence > 0 or True in self._last

    def hold(self, until_ns: int) -> None:
        """Assume that all frames up to this moment looked like the last one, which is why they were not scored.

        An alarm that was on with a high score so ends `min_off_s` after this moment, not after the last score.
        """
        if self.alarm and not self._low:
            self._high_ns = until_ns

    def blind(self, now_ns: int) -> None:
        """Take a frame that shows nothing, in place of `update`: no alarm goes on or off.

        Votes and evidence are forgotten. An alarm that is on stays on, because covering the camera must not end it; the
        `min_off_s` after which it may end begin with the first frame that shows something again.
        """
        self._forget()
        self._high_ns, self._low = now_ns, False

    def take_over(self, old: Decision) -> None:
        """Continue another decision of this alarm: its state, votes, evidence and times, but with these thresholds."""
        self.alarm, self._low, self._peak = old.alarm, old._low, old._peak
        self._high_ns, self._ended_ns, self._now_ns = old._high_ns, old._ended_ns, old._now_ns
        self._last.extend(old._last)
        self._evidence = min(old._evidence, self._needed)


def add_evidence(evidence: float, score: float, on: float, passed_ns: int) -> float:
    """The evidence after another frame, see `Decision`; not limited upwards.

    Args:
        evidence: until now.
        score: of the frame, 0 to 1.
        on: the threshold.
        passed_ns: since the last frame.
    """
    threshold = min(log_odds(on), log_odds(1.0) - _HEADROOM)
    excess = max(-MOST_EVIDENCE, min(MOST_EVIDENCE, log_odds(score) - threshold))
    return max(0.0, evidence + excess * min(passed_ns, EVIDENCE_FRAME_NS) / EVIDENCE_FRAME_NS)


class Settings(NamedTuple):
    """What the `Decision` of one alarm is made with; see there."""

    on: float
    off: float
    cooldown_s: float
    min_off_s: float
    evidence: float
    votes: int = 1
    of: int = 1

    def decision(self) -> Decision:
        """A new decision with these settings."""
        return Decision(**self._asdict())

    def with_threshold(self, on: float) -> Settings:
        """The same with another threshold, a score from 0 to 1; it ends lower than where it begins."""
        return self._replace(on=on, off=self.off if self.off <= on else on / 2)

    @property
    def rule(self) -> str:
        """What an alarm takes, in words."""
        votes = f"{self.votes} of {self.of} frames" if self.of > 1 else ""
        evidence = f"evidence {self.evidence:g}" if self.evidence else ""
        return " and ".join(filter(None, [evidence, votes])) or "one frame"


def settings_of(
    models: Mapping[str, Sequence[Head]], default: DecisionConfig, entries: Sequence[AlarmConfig]
) -> dict[AlarmKey, Settings]:
    """The settings of every alarm: `[decision]`, overridden by the `[[alarm]]` entry that fits the alarm best.

    Args:
        models: the heads of every model, by its name.
        default: `[decision]`.
        entries: every `[[alarm]]`; `AlarmConfig` says which one of several wins.

    Returns:
        In the order of the models, their heads and the alarm labels of each.

    Raises:
        ConfigurationError: a model without an alarm label, or with two heads for one task and alarm label; an entry
            that fits no alarm; a threshold that a model does not have; values that do not fit together.
    """
    for number, entry in enumerate(entries, 1):
        _check_names(f"alarm {number}", entry, models)
    settings: dict[AlarmKey, Settings] = {}
    for model, heads in models.items():
        if not any(head.alarm for head in heads):
            raise ConfigurationError(f"model {model!r} has no label that raises an alarm: nothing to watch for")
        for head in heads:
            for label in dict.fromkeys(head.alarm):
                key = AlarmKey(model, head.task, label)
                if key in settings:
                    raise ConfigurationError(
                        f"model {model!r} has two heads with task {head.task!r} and alarm label {label!r}: "
                        "their events could not be told apart"
                    )
                table, values = "decision", msgspec.structs.asdict(default)
                if best := _best(entries, model, label):
                    table = f"alarm {best}"
                    entry_values = msgspec.structs.asdict(entries[best - 1])
                    values |= {k: v for k, v in entry_values.items() if k in values and v is not None}
                settings[key] = _settings(table, values, model, head)
    return settings


def check_label(key: str, label: str, models: Mapping[str, Sequence[Head]]) -> None:
    """Check that a label can raise an alarm.

    Args:
        key: the configuration key that names the label, for the message.
        label: the label.
        models: the heads of every model, by its name.

    Raises:
        ConfigurationError: no model has the label, or it raises no alarm.
    """
    _check_names(key, AlarmConfig(label=label), models)


def _best(entries: Sequence[AlarmConfig], model: str, label: str) -> int:
    """The number (from 1) of the most specific entry that fits an alarm, the last one of equals; 0 for none."""
    fitting = [
        ((entry.model is not None) + (entry.label is not None), number)
        for number, entry in enumerate(entries, 1)
        if entry.model in (None, model) and entry.label in (None, label)
    ]
    return max(fitting, default=(0, 0))[1]


def _check_names(where: str, entry: AlarmConfig, models: Mapping[str, Sequence[Head]]) -> None:
    if entry.model is not None and entry.model not in models:
        known = ", ".join(map(repr, models))
        raise ConfigurationError(
            f"{where}: model {entry.model!r} is not configured: models has {known}{did_you_mean(entry.model, models)}"
        )
    candidates = [head for model, heads in models.items() if entry.model in (None, model) for head in heads]
    alarm_labels = dict.fromkeys(label for head in candidates for label in head.alarm)
    if entry.label is not None and entry.label not in alarm_labels:
        of_model = f" of model {entry.model!r}" if entry.model is not None else ""
        known = ", ".join(map(repr, alarm_labels))
        if any(entry.label in head.labels for head in candidates):
            raise ConfigurationError(
                f"{where}: label {entry.label!r}{of_model} does not raise an alarm; these do: {known}"
            )
        hint = did_you_mean(entry.label, alarm_labels)
        raise ConfigurationError(f"{where}: no alarm label {entry.label!r}{of_model}: expected {known}{hint}")


def _settings(table: str, values: dict[str, object], model: str, head: Head) -> Settings:
    try:
        config = msgspec.convert(values, DecisionConfig)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"{table}, with the rest from [decision]: {error}") from None
    if isinstance(config.threshold, str):
        try:
            threshold = threshold_for(head, config.threshold)
        except ConfigurationError as error:
            raise ConfigurationError(f"{table}.threshold: model {model!r} {error}") from None
        on, off = threshold.on, threshold.off if config.off is None else config.off
    else:
        on = config.threshold
        off = on / 2 if config.off is None else config.off
    if off > on:
        raise ConfigurationError(f"{table}.off {off:g} is above the threshold {on:g} of model {model!r}")
    evidence, votes, of = config.rule()
    return Settings(on, off, config.cooldown_s, config.min_off_s, evidence, votes, of)
