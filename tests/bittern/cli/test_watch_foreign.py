"""Models of other tools in watch, replay, reload and the configuration: each with what is stated about it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from tests.doubles.command import bittern, one_line
from tests.doubles.foreign_models import LABELS, Kind, red_or_blue

from bittern.config import schema
from bittern.daemon import opening
from bittern.errors import ModelRefused
from bittern.model.bare import Bare
from bittern.model.candidate import check_candidate


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("watched")
    (folder / "gate.tflite").write_bytes(red_or_blue(Kind()))
    (folder / "fire.tflite").write_bytes(red_or_blue(Kind("int8", "int8", "0..1", shape=(1, 16, 24, 3))))
    (folder / "labels.txt").write_text("\n".join(LABELS))
    (folder / "other.txt").write_text("red\nblue")
    (folder / "frames").mkdir()
    for number in range(8):
        colour = (40, 60, 220) if 2 <= number < 5 else (220, 60, 40)
        picture = np.full((60, 80, 3), colour, np.uint8)
        picture[::2, ::2] = 128  # one colour throughout would be a camera that sees nothing
        cv2.imwrite(str(folder / "frames" / f"{number}.png"), picture)
    (folder / "a.toml").write_text(
        """
        [decision]
        evidence = 0.0
        [[model]]
        path = "gate.tflite"
        labels = "labels.txt"
        alarm = ["warm"]
        pixels = "-1..1"
        threshold = 0.7
        [[model]]
        path = "fire.tflite"
        labels = "other.txt"
        alarm = ["red"]
        """
    )
    return folder


def events(out: str) -> list[tuple[str, str, str]]:
    lines = [json.loads(line) for line in out.splitlines()]
    return [(e["type"], e["model"], e["label"]) for e in lines if e["type"].startswith("alarm")]


EXPECTED = [
    ("alarm.on", "gate", "warm"),
    ("alarm.on", "fire", "red"),
    ("alarm.off", "gate", "warm"),
    ("alarm.off", "fire", "red"),
]


def test_watch_and_replay_take_several_with_tables_of_their_own(place: Path) -> None:
    done = bittern("watch", "--config", "a.toml", "--source", "frames", "--sheet", "sheet.png", cwd=place)
    assert done.code == 0, done.err
    assert events(done.out) == EXPECTED
    assert cv2.imread(str(place / "sheet.png")) is not None
    replayed = bittern("replay", "frames", "--config", "a.toml", cwd=place)
    assert events(replayed.out) == EXPECTED
    checked = bittern("config", "--check", "a.toml", cwd=place)
    assert checked.code == 0, checked.out + checked.err


def test_watch_takes_one_by_options(place: Path) -> None:
    words = ("watch", "--source", "frames", "--model", "gate.tflite", "--labels", "labels.txt")
    one_line(bittern(*words, cwd=place), 2, "--pixels 0..1 or --pixels -1..1")
    one_line(bittern(*words, "--pixels", "-1..1", cwd=place), 2, "--alarm warm or --alarm cold")
    done = bittern(*words, "--pixels", "-1..1", "--alarm", "warm", cwd=place)
    assert events(done.out)[0] == ("alarm.on", "gate", "warm")


def test_replay_names_the_configuration(place: Path) -> None:
    refusal = bittern("replay", "frames", "--model", "gate.tflite", cwd=place)
    one_line(refusal, 2, 'labels = "FILE" in its [[model]] table of the configuration')


def test_the_check_of_a_configuration_finds_what_is_missing(place: Path) -> None:
    for table, says in (
        ("", 'labels = "FILE"'),
        ('labels = "labels.txt"', 'pixels = "0..1" or pixels = "-1..1"'),
        ('labels = "labels.txt"\npixels = "raw"', 'alarm = ["warm"] or alarm = ["cold"]'),
        ('labels = "labels.txt"\npixels = "raw"\nalarm = ["wrm"]', "did you mean 'warm'?"),
        ('pixels = "0..2"', 'expected one of "-1..1", "0..1", "caffe", "imagenet", "raw"'),
        ('size = "big"', 'expected a whole number from 1 to 4096 or "WIDTHxHEIGHT"'),
    ):
        (place / "b.toml").write_text(f'[[model]]\npath = "gate.tflite"\n{table}\n')
        done = bittern("config", "--check", "b.toml", cwd=place)
        assert done.code == 2
        assert says in done.out + done.err
    (place / "b.toml").write_text('[[model]]\npath = "stop_sign"\nlabels = "labels.txt"\n')
    assert "leave them out" in bittern("config", "--check", "b.toml", cwd=place).out


def test_without_models_it_is_the_stop_sign_and_beside_tables_nothing_else() -> None:
    paths = [model.path for model in schema.WatchConfig().all_models]
    assert paths == ["stop_sign"]
    table = (schema.ModelConfig(path="a.tflite"),)
    assert [model.path for model in schema.WatchConfig(model=table).all_models] == ["a.tflite"]
    both = schema.WatchConfig(models=("stop_sign",), model=table)
    assert [model.path for model in both.all_models] == ["stop_sign", "a.tflite"]


def test_a_size_is_width_x_height() -> None:
    assert opening.stated(schema.ModelConfig(path="a", size="320x240")).size == (240, 320)
    assert opening.stated(schema.ModelConfig(path="a", size=224)).size == (224, 224)


def test_a_reload_takes_a_bare_file_with_what_is_stated(place: Path) -> None:
    config = schema.load(place / "a.toml")
    model = schema.ModelConfig(
        path=str(place / "gate.tflite"), labels=str(place / "labels.txt"), pixels="-1..1", alarm=("warm",)
    )
    old = [opening.open_model(model, 1)]
    limits: dict[str, Any] = {"threads": 1, "max_slowdown": 50.0, "timeout_s": 120.0}
    new = check_candidate(model.path, old, bare=opening.stated(model), **limits)
    assert new.heads == old[0].heads
    with pytest.raises(ModelRefused, match=r'pixels = "0..1" or pixels = "-1..1" in its'):
        check_candidate(model.path, old, bare=Bare(labels=model.labels), **limits)
    assert len(config.model) == 2
