"""A configuration file is right, or refused in one line that says where and what was meant."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from bittern.config import DecisionConfig, WatchConfig, load
from bittern.errors import ConfigurationError

WHOLE = """
source = "usb:0?size=640x480"
name = "gate"
models = ["stop_sign", "mask"]
fps = 2
threads = 2
timeout_s = 3.5

[decision]
threshold = "quiet"
off = 0.25
votes = 3
of = 5
cooldown_s = 30
min_off_s = 0.5
"""


def written(folder: Path, text: str | bytes) -> Path:
    file = folder / "gate.toml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def test_every_key(tmp_path: Path) -> None:
    decision = DecisionConfig(threshold="quiet", off=0.25, votes=3, of=5, cooldown_s=30.0, min_off_s=0.5)
    assert load(written(tmp_path, WHOLE)) == WatchConfig(
        source="usb:0?size=640x480",
        name="gate",
        models=("stop_sign", "mask"),
        fps=2.0,
        threads=2,
        timeout_s=3.5,
        decision=decision,
    )


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    assert load(written(tmp_path, "")) == WatchConfig()
    assert load(written(tmp_path, "[decision]\nthreshold = 0.8")).decision == DecisionConfig(threshold=0.8)
    assert load(written(tmp_path, "[decision]\nthreshold = 1")).decision == DecisionConfig(threshold=1)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("modles = ['a']", "unknown field `modles`; did you mean 'models'?"),
        ("[decision]\ncooldwn_s = 3", "unknown field `cooldwn_s` - at `$.decision`; did you mean 'cooldown_s'?"),
        ("[decison]\nvotes = 1", "unknown field `decison`; did you mean 'decision'?"),
        ("zzz = 1", "unknown field `zzz`; known keys: source, name, models"),
        ("fps 3", "line 1"),
        ("fps = 3\n\nname = open\nthreads = 1\n", "line 3"),
        ("fps = 3\nfps = 4\nthreads = 1", "line 2"),
        ("fps = 'fast'", "Expected `float`, got `str` - at `$.fps`"),
        ("fps = true", "$.fps"),
        ("fps = 0", "Expected `float` >= 0.1 - at `$.fps`"),
        ("fps = nan", "$.fps"),
        ("fps = inf", "$.fps"),
        ("threads = 1.5", "$.threads"),
        ("threads = 65", "$.threads"),
        ("timeout_s = 0", "$.timeout_s"),
        ("source = 0", "Expected `str`, got `int` - at `$.source`"),
        ("models = 'stop_sign'", "Expected `array`, got `str` - at `$.models`"),
        ("models = []", "$.models"),
        ("models = [1]", "$.models[0]"),
        ("decision = 3", "$.decision"),
        ("[decision]\nvotes = 4", "votes 4 is more than of 3"),
        ("[decision]\nvotes = 0", "$.decision.votes"),
        ("[decision]\nthreshold = 1.5", "$.decision.threshold"),
        ("[decision]\nthreshold = nan", "$.decision.threshold"),
        ("[decision]\nthreshold = true", "$.decision.threshold"),
        ("[decision]\nthreshold = 0.4\noff = 0.5", "off 0.5 is above threshold 0.4"),
        ("[decision]\ncooldown_s = -1", "$.decision.cooldown_s"),
        ("[decision]\ncooldown_s = nan", "$.decision.cooldown_s"),
        (b"name = '\xff'", ""),
        ("x = " + "[" * 20_000, ""),
        ("x = " + "{a = " * 20_000, ""),
        ("\0", ""),
    ],
    ids=lambda v: str(v)[:40],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, text: str | bytes, says: str) -> None:
    file = written(tmp_path, text)
    with pytest.raises(ConfigurationError) as caught:
        load(file)
    message = str(caught.value)
    assert message.startswith(f"{file}: ")
    assert says in message
    assert "\n" not in message


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for path, says in ((tmp_path / "absent.toml", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(ConfigurationError, match=says):
            load(path)


def test_mutated_files_load_or_are_refused(tmp_path: Path) -> None:
    rng = random.Random(6)
    told = []
    for _ in range(10_000):
        data = bytearray(WHOLE.encode())
        for _ in range(rng.randint(1, 6)):
            at = rng.randrange(len(data))
            data[at : at + rng.randint(0, 3)] = bytes(rng.choices(b"=[]{}\"'\n .,0159abcs_\xff\0", k=rng.randint(0, 3)))
        try:
            load(written(tmp_path, bytes(data)))
        except ConfigurationError as error:
            told.append(str(error))
    assert 100 < len(told) < 9_900
    assert not any("\n" in line for line in told)
