"""Faults 23 and 24 at the page of a daemon: viewers that never read, and requests without a token."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.doubles.tflite_files import model_folder_of_means
from tests.doubles.waiting import until
from tests.doubles.watched import Daemon, Viewer, watched

from bittern import Classifier
from bittern.config.schema import PageConfig, WatchConfig
from bittern.daemon.health import Health
from bittern.delivery.sinks.base import SinkContext
from bittern.events import uuid7
from bittern.page.access import new_token
from bittern.page.app import STATIC
from bittern.page.live_sink import PageSink

Record = Callable[[int, str, int, str, str], None]


@pytest.fixture(scope="module")
def means(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder_of_means(tmp_path_factory.mktemp("models") / "means")


def rate(daemon: Daemon) -> float:
    """Frames classified per second, over twenty frames at least."""
    before = daemon.ask("/api/health").json
    until(lambda: daemon.ask("/api/health").json["classified"] >= before["classified"] + 20)
    after = daemon.ask("/api/health").json
    return float((after["classified"] - before["classified"]) / (after["uptime_s"] - before["uptime_s"]))


def test_23_four_viewers_that_never_read(tmp_path: Path, means: Path, record: Record) -> None:
    with watched(
        tmp_path, f'source = "demo:?seed=1"\nfps = 10\nmodels = ["{means}"]\n[gate]\nenabled = false\n'
    ) as daemon:
        page = daemon.page_process()
        alone = rate(daemon)
        stalled = [Viewer(daemon) for _ in range(4)]
        try:
            assert [viewer.status() for viewer in stalled] == [200] * 4
            assert daemon.ask("/api/live.mjpg").status == 503
            watched_rate = rate(daemon)
            begin = time.monotonic()
            entered: list[Viewer] = []

            def let_in() -> bool:
                viewer = Viewer(daemon)
                if viewer.status() == 200:
                    entered.append(viewer)
                    return True
                viewer.close()
                return False

            until(let_in)  # the stalled ones were dropped
            seconds = time.monotonic() - begin
            assert len(set(entered[0].frames(2))) == 2
            entered[0].close()
        finally:
            for viewer in stalled:
                viewer.close()
        assert daemon.page_process() == page, "it was not started again"
    figure = f"dropped within {seconds:.0f} s; {alone:.1f} frames a second before, {watched_rate:.1f} with them"
    record(23, "4 viewers of a daemon that never read", 4, figure, "dropped; the daemon goes on")


def test_24_the_page_of_a_daemon_without_a_token(tmp_path: Path, means: Path, record: Record) -> None:
    token = new_token(tmp_path / "page")
    classifier = Classifier(means)
    config = WatchConfig(page=PageConfig(port=0, names=("camera.example.org",)))
    sink = PageSink(
        config,
        SinkContext("the gate", memory=tmp_path, snapshots=tmp_path / "snapshots"),
        lambda: [classifier],
        Health().reading,
    )
    try:
        daemon = Daemon(sink.url, None)  # type: ignore[arg-type]  # it is in this process
        answers = set()
        paths = json.loads((STATIC / "live.json").read_text())["paths"]
        routes = [
            (path.replace("{id}", uuid7()), method.upper()) for path, methods in paths.items() for method in methods
        ]
        for path, method in [*routes, ("/api/nothing", "GET"), ("/static/live.js", "GET")]:
            reply = daemon.ask(path, method=method)
            answers.add((reply.status, reply.body))
        assert answers == {(401, b"a token is needed\n")}
        assert daemon.ask("/api/models", headers={"authorization": f"Bearer {token}"}).status == 200
    finally:
        sink.close()
    record(
        24, "routes of a daemon's page without a token", len(routes) + 2, "all 401, all alike", "401, no information"
    )
