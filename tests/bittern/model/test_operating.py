"""Thresholds by what they promise."""

from __future__ import annotations

import math

import msgspec
import pytest

from bittern.errors import ConfigurationError
from bittern.model import operating
from bittern.model.manifest import Head, StreamPoint, Streams, Tail, Threshold

# 100 alarms an hour at 1/256, each step of log-odds a tenth of them.
POINTS = tuple(
    StreamPoint(on=i / 256, found=1 - i / 512, false_an_hour=100 * math.exp(-0.8 * (math.log(i / (256 - i)) + 5.54)))
    for i in range(1, 256)
)
TAIL = Tail(on=0.5, false_an_hour=4.0, scale=0.7, peaks=20)
STREAMS = Streams(hours=2.0, passings=96, points=POINTS, tail=TAIL)
DEFAULT = Threshold(on=0.6, off=0.3, chosen_for="a test")


def head(streams: Streams | None = STREAMS) -> Head:
    return Head(
        task="signs",
        output="scores",
        labels=("none", "stop"),
        alarm=("stop",),
        scale=1 / 256,
        zero_point=0,
        thresholds={"default": DEFAULT},
        streams=streams,
    )


def test_a_name_is_the_models_own_threshold() -> None:
    assert operating.threshold_for(head(), "default") == DEFAULT
    assert operating.threshold_for(head(None), "default") == DEFAULT


def test_a_bound_within_the_hours_is_counted() -> None:
    chosen = operating.threshold_for(head(), "at most 3 false alarms an hour")
    kept = [point.on for point in POINTS if point.false_an_hour <= 3]
    assert chosen.on == min(kept)
    assert "counted in 120 min of streams" in chosen.chosen_for
    assert f"{1 - chosen.on / 2:.1%} of 96 passings found" in chosen.chosen_for


def test_all_thresholds_above_a_counted_one_keep_to_the_bound() -> None:
    """Two alarms of one threshold may be one long one of a lower threshold, which is no better."""
    points = tuple(
        msgspec.structs.replace(point, false_an_hour=5.0 if point.on == 0.75 else min(point.false_an_hour, 2.0))
        for point in POINTS
    )
    merged = msgspec.structs.replace(STREAMS, points=points)
    assert operating.threshold_for(head(merged), "at most 3 false alarms an hour").on == 0.75 + 1 / 256


def test_a_bound_below_what_the_hours_show_is_extrapolated_and_says_so() -> None:
    chosen = operating.threshold_for(head(), "at most 1 false alarm a day")
    assert operating.rate(TAIL, chosen.on) <= 1 / 24 < operating.rate(TAIL, chosen.on - 1 / 256)
    assert chosen.chosen_for.startswith(
        "at most 1 false alarm a day, extrapolated from the 20 highest peaks of 120 min"
    )
    assert chosen.off <= chosen.on
    assert chosen.on * 256 == round(chosen.on * 256)
    looser = operating.threshold_for(head(), "at most 9 false alarms a day")
    assert TAIL.on <= looser.on < chosen.on


@pytest.mark.parametrize(
    ("streams", "text", "message"),
    [
        (STREAMS, "queit", "has no threshold 'queit'; it has default, or give 'at most N false alarms an hour'"),
        (STREAMS, "at most 0 false alarms a day", "has no threshold that promises 'at most 0 false alarms a day'"),
        (
            msgspec.structs.replace(STREAMS, tail=msgspec.structs.replace(TAIL, scale=3.0)),
            "at most 1 false alarm a day",
            r"not even 0\.996 would keep to it; it has default",
        ),
        (msgspec.structs.replace(STREAMS, tail=None), "at most 1 false alarm a day", "has no threshold that promises"),
        (None, "at most 1 false alarm a day", "was not measured on streams"),
    ],
)
def test_what_cannot_be_promised_is_refused_in_one_line(streams: Streams | None, text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        operating.threshold_for(head(streams), text)
    assert "\n" not in str(caught.value)


def test_the_manifest_keeps_them_and_can_do_without() -> None:
    again = msgspec.json.decode(msgspec.json.encode(head()), type=Head)
    assert again == head()
    old = msgspec.json.decode(msgspec.json.encode(head()), type=dict[str, object])
    del old["stills"], old["streams"]
    assert msgspec.convert(old, Head).streams is None
