"""How a daemon closes its parts: in which order, and which of them at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from tests.doubles.deliveries import Device
from tests.doubles.tflite_files import model_folder_of_means
from tests.doubles.waiting import within

from bittern import Classifier
from bittern.config.schema import HealthConfig, OutboxConfig, PageConfig, WatchConfig
from bittern.daemon import run
from bittern.daemon.feed import Recording
from bittern.delivery.dispatch import Delivery
from bittern.delivery.outlet import Outlet
from bittern.frames import Frame, Source
from bittern.system.stop import Stop


class Peer(Device):
    """A peer whose connection closes only when something else has come to an end, too."""

    def __init__(self, closing: Callable[[], object]) -> None:
        super().__init__("peer")
        self._closing = closing

    def close(self) -> None:
        self._closing()


class Film(Source):
    """A source outside, whose device closes only when something else has come to an end, too."""

    name = "film"
    live = False

    def __init__(self, closing: Callable[[], object]) -> None:
        self._closing = closing

    @classmethod
    def check(cls, address: str, options: object) -> str:
        return cls.name

    def read(self) -> Frame | None:
        return None

    def close(self) -> None:
        self._closing()


def test_camera_and_events_are_closed_at_the_same_time() -> None:
    """Each waits for the other: one after the other, neither would end."""
    both, ended = threading.Barrier(2), []

    def closing() -> None:
        both.wait(20)
        ended.append(True)

    feed = Recording(Film(closing), Stop())
    delivery = Delivery(OutboxConfig(), [Peer(closing)], "test")
    run._close(feed, Outlet([delivery.send], "test"), delivery)
    assert ended == [True, True]


def test_a_peer_that_hangs_does_not_hold_up_the_end() -> None:
    wakes, ended = threading.Event(), []
    feed = Recording(Film(lambda: ended.append("feed")), Stop())
    delivery = Delivery(OutboxConfig(), [Peer(lambda: wakes.wait(60))], "test")
    with within():
        run._close(feed, Outlet([delivery.send], "test"), delivery)
    wakes.set()
    assert ended == ["feed"]


def test_a_check_of_models_ends_before_events_are_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recording has ended: nobody takes new models any more, and the last events may take a while."""
    model = model_folder_of_means(tmp_path / "means")
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for name in ("1.png", "2.png"):
        cv2.imwrite(str(pictures / name), np.zeros((48, 64, 3), np.uint8))
    running: list[bool] = []

    def reloading() -> bool:
        return any(thread.name == "reload" for thread in threading.enumerate())

    drain = Delivery.drain

    def watched(delivery: Delivery, ended: Callable[[], bool]) -> None:
        running.append(reloading())
        drain(delivery, ended)

    monkeypatch.setattr(Delivery, "drain", watched)
    config = WatchConfig(source=str(pictures), models=(str(model),) * 50)
    stop = Stop()
    stop.reload = True
    with run.opened(config, [Classifier(model)], lambda _: None, stop) as daemon:
        running.extend(reloading() for _ in daemon.steps())
    assert running[-2:] == [True, False], "a check ran to the end of the recording, and not after it"


@pytest.mark.parametrize(
    ("page", "health", "url"),
    [
        (None, None, None),
        (PageConfig(8770), HealthConfig(9100), None),
        (PageConfig(8770, "127.0.0.2"), HealthConfig(9100, "192.0.2.1"), "http://192.0.2.1:9100/metrics"),
        (PageConfig(8770, "2001:db8::1"), HealthConfig(9100, "192.0.2.1"), "http://[2001:db8::1]:8770/"),
        (PageConfig(0, "192.0.2.1"), None, None),
        (PageConfig(8770, names=("garden.example.org",)), None, None),
        (
            PageConfig(8770, names=("garden.example.org",)),
            HealthConfig(9100, "192.0.2.1"),
            "http://192.0.2.1:9100/metrics",
        ),
        (PageConfig(8770, "192.0.2.1", ("garden.example.org",)), None, "http://192.0.2.1:8770/"),
    ],
)
def test_the_address_that_sinks_tell_others(page: PageConfig | None, health: HealthConfig | None, url: str) -> None:
    assert run.page_url(WatchConfig(source="demo:", page=page, health=health)) == url
