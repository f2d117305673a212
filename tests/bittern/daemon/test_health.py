"""Counters that cost nothing, snapshots from another thread, and what a real scrape sees of them."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from tests.doubles.waiting import until, within

from bittern import __version__
from bittern.config.schema import HealthConfig
from bittern.daemon.health import BOUNDS_S, RECENT_FRAMES, Health, Histogram, ModelInfo, SinkMetrics
from bittern.daemon.prometheus import MetricsServer
from bittern.errors import ConfigurationError


class Clock:
    """A monotonic clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock, tmp_path: Path) -> Health:
    """On a machine with a thermometer, and power that is not enough."""
    zone = tmp_path / "sys/class/thermal/thermal_zone0"
    zone.mkdir(parents=True)
    (zone / "type").write_text("cpu-thermal\n")
    (zone / "temp").write_text("48312\n")
    firmware = tmp_path / "sys/devices/platform/soc/soc:firmware"
    firmware.mkdir(parents=True)
    (firmware / "get_throttled").write_text("50005\n")
    return Health([ModelInfo("stop_sign", "1", "xnnpack")], clock=clock, root=tmp_path)


def frames(health: Health, clock: Clock, count: int, every_s: float, age_s: float = 0.02) -> None:
    for _ in range(count):
        clock.now += every_s
        health.frame(clock.now, 0.01, dropped=2)
        health.answer(clock.now, age_s, 0.0002, 0.004, 0.00005)
        health.progress(clock.now)


# --- counters ---------------------------------------------------------------------------------------------------------


def test_a_new_one(health: Health) -> None:
    reading = health.reading()
    assert (reading.frames, reading.fps, reading.latency_ms, reading.frame_age_s, reading.camera) == (
        0,
        0,
        None,
        None,
        "starting",
    )
    assert (reading.progress_age_s, reading.uptime_s) == (0, 0)


def test_figures_of_the_last_ten_seconds(health: Health, clock: Clock) -> None:
    frames(health, clock, 15, 0.2, age_s=1.0)
    frames(health, clock, 50, 0.2)
    reading = health.reading()
    assert reading.fps == pytest.approx(5, rel=0.05)
    assert reading.latency_ms == pytest.approx(20)
    assert (reading.frames, reading.classified, reading.dropped) == (65, 65, 130)
    clock.now += 5
    reading = health.reading()
    assert reading.fps == pytest.approx(2.5, rel=0.05)
    assert reading.frame_age_s == reading.progress_age_s == pytest.approx(5)
    clock.now += 6
    reading = health.reading()
    assert (reading.fps, reading.latency_ms) == (0, None)
    assert reading.frame_age_s == pytest.approx(11)


@pytest.mark.parametrize("fps", [0.5, 1, 30, 240, 2000])
def test_any_rate_is_told_right(fps: float, health: Health, clock: Clock) -> None:
    frames(health, clock, round(fps * 12), 1 / fps)
    assert health.reading().fps == pytest.approx(fps, rel=0.21 if fps < 1 else 0.11)
    assert len(health._recent) <= RECENT_FRAMES


def test_a_short_start_is_not_a_low_rate(health: Health, clock: Clock) -> None:
    frames(health, clock, 5, 0.2)
    assert health.reading().fps == pytest.approx(5)


def test_events_sinks_and_board(health: Health) -> None:
    for kind in ("alarm.on", "alarm.off", "alarm.on"):
        health.event(kind)
    health.sinks = lambda: {"mqtt": SinkMetrics(waiting=3, delivered=2)}
    health.camera = "camera_stalled"
    reading = health.reading()
    assert reading.events == {"alarm.on": 2, "alarm.off": 1}
    assert reading.sinks["mqtt"] == (3, 2, 0, 0)
    assert reading.camera == "camera_stalled"
    assert reading.board.temperature_c == 48.312
    assert reading.board.throttled == ("under-voltage", "throttled")


def test_the_board_is_asked_every_few_seconds_only(health: Health, clock: Clock, tmp_path: Path) -> None:
    assert health.board().temperature_c == 48.312
    (tmp_path / "sys/class/thermal/thermal_zone0/temp").write_text("50000\n")
    clock.now += 4
    assert health.board().temperature_c == 48.312
    clock.now += 2
    assert health.board().temperature_c == 50.0


@given(st.lists(st.floats(0, 100) | st.sampled_from(BOUNDS_S), max_size=50))
def test_histogram_counts_what_is_at_most_each_bound(seconds: list[float]) -> None:
    histogram = Histogram()
    for value in seconds:
        histogram.add(value)
    assert sum(histogram.counts) == len(seconds)
    for i, bound in enumerate(BOUNDS_S):
        assert sum(histogram.counts[: i + 1]) == sum(value <= bound for value in seconds)
    assert histogram.sum == pytest.approx(sum(seconds))


# --- the page ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def page(health: Health) -> Iterator[MetricsServer]:
    server = MetricsServer(health, HealthConfig(port=0))
    yield server
    server.close()


def scrape(page: MetricsServer, path: str = "/metrics", accept: str = "") -> str:
    request = urllib.request.Request(f"http://127.0.0.1:{page.port}{path}", headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return str(answer.read().decode())


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    values = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = sample.name, frozenset(sample.labels.items())
            assert key not in values
            values[key] = sample.value
    return values


def value(text: str, name: str, **labels: str) -> float:
    return samples(text)[name, frozenset(labels.items())]


def test_a_scrape_sees_every_figure(health: Health, clock: Clock, page: MetricsServer) -> None:
    frames(health, clock, 10, 0.2)
    health.event("alarm.on")
    health.skipped, health.errors, health.camera_restarts, health.reloads, health.reloads_refused = 4, 1, 2, 3, 5
    health.camera = "camera_ok"
    health.sinks = lambda: {"mqtt": SinkMetrics(waiting=3, delivered=2, refused=1, dropped=7)}
    clock.now += 1.5
    text = scrape(page)
    for name, expected in {
        "bittern_frames_total": 10,
        "bittern_frames_classified_total": 10,
        "bittern_frames_skipped_total": 4,
        "bittern_frames_dropped_total": 20,
        "bittern_inference_errors_total": 1,
        "bittern_camera_restarts_total": 2,
        "bittern_reloads_total": 3,
        "bittern_reloads_refused_total": 5,
        "bittern_uptime_seconds": 3.5,
        "bittern_frame_age_seconds": 1.5,
        "bittern_progress_age_seconds": 1.5,
        "bittern_temperature_celsius": 48.312,
        "bittern_latency_seconds_count": 10,
        "bittern_latency_seconds_sum": 0.2,
    }.items():
        assert value(text, name) == pytest.approx(expected), name
    assert value(text, "bittern_events_total", type="alarm.on") == 1
    assert value(text, "bittern_camera_state", state="camera_ok") == 1
    assert value(text, "bittern_outbox_events", sink="mqtt") == 3
    for result, expected in (("delivered", 2), ("refused", 1), ("dropped", 7)):
        assert value(text, "bittern_sink_events_total", sink="mqtt", result=result) == expected
    assert value(text, "bittern_model_info", model="stop_sign", version="1", path="xnnpack") == 1
    assert value(text, "bittern_throttled", reason="under-voltage") == 1
    assert value(text, "bittern_throttled", reason="frequency capped") == 0
    assert value(text, "bittern_stage_seconds_bucket", stage="invoke", le="0.0025") == 0
    assert value(text, "bittern_stage_seconds_bucket", stage="invoke", le="0.005") == 10
    assert value(text, "bittern_stage_seconds_bucket", stage="invoke", le="+Inf") == 10
    build = [dict(labels) for name, labels in samples(text) if name == "bittern_build_info"]
    assert [row["version"] for row in build] == [__version__]
    assert value(text, "bittern_process_resident_memory_bytes") > 1e6


def test_names_and_units_are_those_of_prometheus(health: Health, clock: Clock, page: MetricsServer) -> None:
    frames(health, clock, 3, 0.2)
    text = scrape(page)
    families = list(text_string_to_metric_families(text))
    assert len(families) > 15
    for family in families:
        assert family.name.startswith("bittern_")
        assert family.documentation
        assert not re.search(r"_(ms|milliseconds|minutes|percent|mb)\b", family.name)
        if family.type == "counter":
            assert all(sample.name.endswith("_total") for sample in family.samples)
    if promtool := shutil.which("promtool"):
        done = subprocess.run([promtool, "check", "metrics"], input=text, text=True, capture_output=True, timeout=30)
        assert (done.returncode, done.stderr) == (0, "")


def test_open_metrics_and_other_paths(page: MetricsServer) -> None:
    assert scrape(page, accept="application/openmetrics-text; version=1.0.0").endswith("# EOF\n")
    assert "bittern_frames_total" in scrape(page, "/metrics?x=1")
    for path in ("/", "/metrics/..", "/etc/passwd"):
        with pytest.raises(urllib.error.HTTPError) as caught:
            scrape(page, path)
        assert caught.value.code == 404
        caught.value.close()


def test_health_is_whether_there_is_progress(page: MetricsServer, health: Health, clock: Clock) -> None:
    url = f"http://127.0.0.1:{page.port}/health"
    health.progress(clock.now)
    health.camera = "camera_absent"  # which the loop takes care of
    clock.now += 30
    with urllib.request.urlopen(url, timeout=5) as answer:
        assert answer.read() == b"progress 30.0 s ago, camera: camera_absent\n"
    clock.now += 0.1
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(url, timeout=5)
    assert caught.value.code == 503
    assert caught.value.read() == b"progress 30.1 s ago, camera: camera_absent\n"
    caught.value.close()
    health.progress(clock.now)
    with urllib.request.urlopen(url, timeout=5) as answer:
        assert answer.status == 200


def test_a_port_that_is_taken_is_one_line(page: MetricsServer, health: Health) -> None:
    with pytest.raises(ConfigurationError) as caught:
        MetricsServer(health, HealthConfig(port=page.port))
    assert str(caught.value) == (
        f"health: cannot listen on 127.0.0.1 port {page.port}: Address already in use: "
        "expected a free port, one for each camera"
    )
    assert caught.value.exit_code == 2
    with pytest.raises(ConfigurationError, match=r"cannot listen on nowhere\.invalid port 0: "):
        MetricsServer(health, HealthConfig(port=0, host="nowhere.invalid"))


def test_snapshots_while_the_loop_runs(page: MetricsServer, health: Health) -> None:
    """Counters never go back, and the buckets of a histogram always fit its count."""
    stop = threading.Event()

    def loop() -> None:
        now = 1000.0
        while not stop.is_set():
            now += 0.001
            health.frame(now, 0.01, 1)
            health.event(f"type{int(now * 1000) % 7}")
            health.answer(now, 0.02, 0.001, 0.003, 0.0001)

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        last = 0.0
        for _ in range(20):
            text = scrape(page)
            assert value(text, "bittern_frames_total") >= last
            last = value(text, "bittern_frames_total")
            for stage in ("wait", "invoke", "decide", "preprocess"):
                count = value(text, "bittern_stage_seconds_count", stage=stage)
                assert count == value(text, "bittern_stage_seconds_bucket", stage=stage, le="+Inf")
    finally:
        stop.set()
        thread.join()
    assert last > 0


def test_clients_that_hold_on_do_not_keep_a_scrape_out(page: MetricsServer) -> None:
    before = threading.active_count()
    with contextlib.ExitStack() as held:
        for i in range(60):
            client = held.enter_context(contextlib.closing(socket.create_connection(("127.0.0.1", page.port), 5)))
            client.sendall(b"GET /metrics HTTP/1.1\r\nX-Slow: " if i % 2 else b"")
        with within():
            assert "bittern_frames_total" in scrape(page)
        until(lambda: threading.active_count() - before <= 8)  # one too many is closed, but not in no time
    until(lambda: threading.active_count() <= before)


@pytest.mark.parametrize(
    "sent",
    [b"", b"\0" * 9000, b"GET\r\n\r\n", b"POST /metrics HTTP/1.1\r\n\r\n", b"GET /" + b"a" * 70_000 + b"\r\n\r\n"],
    ids=["nothing", "zeros", "half", "post", "long"],
)
def test_what_is_no_scrape_is_survived(sent: bytes, page: MetricsServer, capfd: pytest.CaptureFixture[str]) -> None:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", page.port), 5) as client:
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        client.recv(4096)
    assert "bittern_frames_total" in scrape(page)
    assert capfd.readouterr().err == ""


def test_many_scrapes_and_closing_leave_nothing_behind(page: MetricsServer, health: Health) -> None:
    threads, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(30):
        scrape(page)
    other = MetricsServer(health, HealthConfig(port=0))
    connection = http.client.HTTPConnection("127.0.0.1", other.port, timeout=5)
    connection.connect()
    time.sleep(0.05)
    other.close()
    other.close()
    connection.close()
    with pytest.raises(OSError):
        scrape(other)
    until(lambda: (threading.active_count(), len(os.listdir("/proc/self/fd"))) == (threads, descriptors))  # noqa: PTH208
