"""What tests of the device side share: a folder for the command line, a quick delivery, a double of picamera2."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from tests.doubles import picamera2_double
from tests.doubles.drawn_pictures import folders
from tests.doubles.picamera2_double import World
from tests.doubles.tflite_files import COLOURS, channel_means, model_folder_of_means, with_files

from bittern.config.schema import OutboxConfig
from bittern.delivery import dispatch
from bittern.delivery.dispatch import Delivery
from bittern.delivery.sinks.base import Sink


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> Path:
    """A folder to work in: pictures of plain colours, a small model, a bare one, and a labelled set."""
    place = tmp_path_factory.mktemp("place")
    for name, bgr in (("red", (0, 0, 255)), ("green", (0, 255, 0)), ("blue", (255, 0, 0))):
        cv2.imwrite(str(place / f"{name}.png"), np.full((30, 40, 3), bgr, np.uint8))
    (place / "more/deep").mkdir(parents=True)
    cv2.imwrite(str(place / "more/a.jpg"), np.full((30, 40, 3), (0, 0, 255), np.uint8))
    cv2.imwrite(str(place / "more/deep/b.bmp"), np.full((30, 40, 3), (255, 0, 0), np.uint8))
    (place / "broken.png").write_bytes((place / "red.png").read_bytes()[:40])
    (place / "text.jpg").write_text("no picture")
    (place / "empty.jpg").write_bytes(b"")
    (place / "nothing").mkdir()
    model_folder_of_means(place / "means")
    (place / "bare.tflite").write_bytes(with_files(channel_means(), labels_txt="\n".join(COLOURS).encode()))
    (place / "unlabelled.tflite").write_bytes(channel_means())
    (place / "colours.txt").write_text("\n".join(COLOURS))
    folders(place / "set", 3)
    return place


@pytest.fixture
def interned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What goes into Python's table of interned strings during a test.

    pathlib puts every part of a path there. With a new name for every event the table grew by 2 MB at a time, and in
    CPython 3.12.1 by 120 bytes for each name, for good.
    """
    texts: list[str] = []

    def intern(text: str) -> str:
        texts.append(text)
        return text

    monkeypatch.setattr(sys, "intern", intern)
    return texts


@pytest.fixture
def quick_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    """Back-off as it is, but in tenths of a second."""
    real = dispatch._backoff_s
    monkeypatch.setattr(dispatch, "_backoff_s", lambda failures: real(failures) / 20)
    monkeypatch.setattr(dispatch, "QUIET_S", dispatch.QUIET_S / 200)


@pytest.fixture
def start_delivery(tmp_path: Path, quick_backoff: None) -> Iterator[Callable[..., Delivery]]:
    """Starts a delivery to sinks, whose outbox is in a folder of the test; afterwards no thread of it has died."""
    made = []

    def start_(*sinks: Sink, max_events: int = 1000, folder: Path = tmp_path / "state") -> Delivery:
        made.append(Delivery(OutboxConfig(folder=str(folder), max_events=max_events), sinks, "cam"))
        return made[-1]

    yield start_
    for one in made:
        one.close(2)
        assert one.failed is None


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """What the double of picamera2, now installed, does and was asked."""
    return picamera2_double.install(monkeypatch)
