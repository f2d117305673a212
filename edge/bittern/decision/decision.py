"""From scores to alarms: hysteresis, N of the last M, cooldown and a minimum time off; pure, on the frames' clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import msgspec

from bittern.config.schema import AlarmConfig, DecisionConfig
from bittern.errors import ConfigurationError, did_you_mean
from bittern.model.manifest import Head

Change = Literal["on", "off"]


class Decision:
    """The state of one alarm label.

    The alarm goes on with a score that reaches `on`, when at least `votes` of the last `of` did, and the last alarm
    ended at least `cooldown_s` ago. It goes off when no score has reached `off` for `min_off_s`, and at least that long
    passed.
    """

    def __init__(self, *, on: float, off: float, votes: int, of: int, cooldown_s: float, min_off_s: float) -> None:
        """See the class.

        Args:
            on: score, 0 to 1.
            off: score, 0 to 1, at most `on`.
            votes: at least 1, at most `of`.
            of: frames that are looked back on.
            cooldown_s: seconds.
            min_off_s: seconds.

        Raises:
            ValueError: values out of these ranges.
        """
        if not 0 <= off <= on <= 1:
            raise ValueError(f"thresholds must be 0 <= off <= on <= 1, got off {off}, on {on}")
        if not 1 <= votes <= of:
            raise ValueError(f"expected 1 <= votes <= of, got votes {votes} of {of}")
        if cooldown_s < 0 or min_off_s < 0:
            raise ValueError("times must not be negative")
        self._on, self._off, self._votes = on, off, votes
        self._cooldown_ns, self._min_off_ns = int(cooldown_s * 1e9), int(min_off_s * 1e9)
        self._last: deque[bool] = deque(maxlen=of)
        self._high_ns = 0  # the last time the score reached `off` while the alarm was on
        self._low = False  # while the alarm is on: the last score did not reach `off`
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
        self._last.append(score >= self._on)
        if self.alarm:
            self._low = score < self._off
            if not self._low:
                self._high_ns = now_ns
            elif now_ns - self._high_ns >= self._min_off_ns:
                self.alarm = False
                self._ended_ns = now_ns
                self._last.clear()
                return "off"
            return None
        if score < self._on or sum(self._last) < self._votes:
            return None
        if self._ended_ns is not None and now_ns - self._ended_ns < self._cooldown_ns:
            return None
        self.alarm, self._low = True, False
        self._high_ns = now_ns
        return "on"

    @property
    def unsettled(self) -> bool:
        """Whether more frames like the last one may change the alarm: a vote is there, or the score fell below `off`.

        As long as it holds a scene has to be classified, even if nothing moves in it.
        """
        return self._low if self.alarm else True in self._last

    def hold(self, until_ns: int) -> None:
        """Take it that until then all frames looked like the last one, and were not scored for that reason.

        So an alarm that was on with a high score ends `min_off_s` after that moment, not after the last score.
        """
        if self.alarm and not self._low:
            self._high_ns = until_ns

    def blind(self, now_ns: int) -> None:
        """Take a frame on which nothing can be seen, in place of `update`: no alarm goes on or off.

        The votes are forgotten. An alarm that is on stays on, for whoever covers the camera must not end it; the
        `min_off_s` that it takes to end it begin with the first frame that shows something again.
        """
        self._last.clear()
        self._high_ns, self._low = now_ns, False

    def take_over(self, old: Decision) -> None:
        """Go on where another decision of this label stands: its alarm, votes and times, but with these thresholds."""
        self.alarm, self._low = old.alarm, old._low
        self._high_ns, self._ended_ns = old._high_ns, old._ended_ns
        self._last.extend(old._last)


class Settings(NamedTuple):
    """What a `Decision` of one alarm label of one model is made with."""

    on: float
    off: float
    votes: int
    of: int
    cooldown_s: float
    min_off_s: float

    def decision(self) -> Decision:
        """A new one."""
        return Decision(**self._asdict())


def settings_of(
    models: Mapping[str, Sequence[Head]], default: DecisionConfig, alarms: Sequence[AlarmConfig]
) -> dict[tuple[str, int, str], Settings]:
    """The settings of every alarm label: `[decision]`, with what the `[[alarm]]` that fits it best says otherwise.

    Args:
        models: the heads of every model, by its name.
        default: `[decision]`.
        alarms: every `[[alarm]]`; which one of several wins is said at `AlarmConfig`.

    Returns:
        By name of the model, number of the head, and label.

    Raises:
        ConfigurationError: a model without an alarm label, an entry that fits no alarm label, a threshold that a model
            does not have, or values that do not fit together.
    """
    for number, entry in enumerate(alarms, 1):
        _check_names(f"alarm {number}", entry, models)
    found = {}
    for model, heads in models.items():
        if not any(head.alarm for head in heads):
            raise ConfigurationError(f"model {model!r} has no label that raises an alarm: nothing to watch for")
        for at, head in enumerate(heads):
            for label in head.alarm:
                where, values = "decision", msgspec.structs.asdict(default)
                if best := _best(alarms, model, label):
                    where = f"alarm {best}"
                    told = msgspec.structs.asdict(alarms[best - 1])
                    values |= {k: v for k, v in told.items() if k in values and v is not None}
                found[model, at, label] = _settings(where, values, model, head)
    return found


def check_label(where: str, label: str, models: Mapping[str, Sequence[Head]]) -> None:
    """Whether a label can raise an alarm.

    Args:
        where: the key that names it.
        label: that it names.
        models: the heads of every model, by its name.

    Raises:
        ConfigurationError: no model has it, or it raises none.
    """
    _check_names(where, AlarmConfig(label=label), models)


def _best(alarms: Sequence[AlarmConfig], model: str, label: str) -> int:
    """The number (from 1) of the entry that names the most of a label, the later one of two alike; 0 for none."""
    fitting = [
        ((entry.model is not None) + (entry.label is not None), number)
        for number, entry in enumerate(alarms, 1)
        if entry.model in (None, model) and entry.label in (None, label)
    ]
    return max(fitting, default=(0, 0))[1]


def _check_names(where: str, entry: AlarmConfig, models: Mapping[str, Sequence[Head]]) -> None:
    if entry.model is not None and entry.model not in models:
        known = ", ".join(map(repr, models))
        raise ConfigurationError(f"{where}: no model {entry.model!r} among {known}{did_you_mean(entry.model, models)}")
    heads = [head for model, of in models.items() if entry.model in (None, model) for head in of]
    raising = dict.fromkeys(label for head in heads for label in head.alarm)
    if entry.label is not None and entry.label not in raising:
        of = f" of model {entry.model!r}" if entry.model is not None else ""
        known = ", ".join(map(repr, raising))
        if any(entry.label in head.labels for head in heads):
            raise ConfigurationError(f"{where}: label {entry.label!r}{of} raises no alarm, only {known} does")
        raise ConfigurationError(
            f"{where}: no label {entry.label!r}{of} among {known}{did_you_mean(entry.label, raising)}"
        )


def _settings(where: str, values: dict[str, object], model: str, head: Head) -> Settings:
    try:
        said = msgspec.convert(values, DecisionConfig)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"{where}, with what it leaves to decision: {error}") from None
    if isinstance(said.threshold, str):
        named = head.thresholds.get(said.threshold)
        if named is None:
            raise ConfigurationError(
                f"{where}.threshold: model {model!r} has no threshold {said.threshold!r}; "
                f"it has {', '.join(head.thresholds)}, or give a score from 0 to 1"
            )
        on, off = named.on, named.off if said.off is None else said.off
    else:
        on = said.threshold
        off = on / 2 if said.off is None else said.off
    if off > on:
        raise ConfigurationError(f"{where}.off {off:g} is above the threshold {on:g} of model {model!r}")
    return Settings(on, off, said.votes, said.of, said.cooldown_s, said.min_off_s)
