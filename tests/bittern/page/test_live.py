"""The page of a running daemon over real HTTP: picture, events, scores, thresholds, review; and its process."""

from __future__ import annotations

import http.client
import io
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from tests.doubles.command import bittern, one_line
from tests.doubles.films import frames_of
from tests.doubles.served import Site
from tests.doubles.waiting import until, within
from tests.doubles.watched import Daemon, Viewer, watched

from bittern import Classifier
from bittern.config.schema import PageConfig, WatchConfig
from bittern.daemon.health import Health
from bittern.delivery.sinks.base import Controls, SinkContext
from bittern.evaluation import dataset
from bittern.events import AlarmKey, Event, new_id, rfc3339, uuid7
from bittern.frames import Frame
from bittern.page import live_sink
from bittern.page.app import STATIC
from bittern.page.live_api import LiveInterface
from bittern.page.live_sink import PageSink

OPENAPI = json.loads((STATIC / "live.json").read_text())
RED = {"model": "means", "task": "colour_1", "label": "red"}


def jpeg_of(bgr: tuple[int, int, int]) -> bytes:
    return bytes(cv2.imencode(".jpg", np.full((48, 64, 3), bgr, np.uint8))[1].tobytes())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The daemon's folders, with three snapshots of earlier alarms."""
    folder = tmp_path_factory.mktemp("daemon")
    (folder / "snapshots").mkdir()
    now = time.time_ns()
    for i, bgr in enumerate([(0, 0, 255), (0, 255, 0), (255, 0, 0)]):
        (folder / f"snapshots/{uuid7(now - (3 - i) * 10**9)}.jpg").write_bytes(jpeg_of(bgr))
    return folder


@pytest.fixture(scope="module")
def daemon(folder: Path, means: Path) -> Iterator[Daemon]:
    with watched(folder, f'source = "demo:?seed=1"\nname = "the gate"\nfps = 20\nmodels = ["{means}"]\n') as daemon:
        yield daemon


def post(site: Site, path: str, **values: Any) -> Any:
    reply = site.ask(path, json.dumps(values).encode(), {"content-type": "application/json"})
    return reply.json | {"status": reply.status}


def test_the_openapi_file_names_the_routes_and_no_others() -> None:
    interface = LiveInterface("", None, None, None)  # type: ignore[arg-type]  # only its routes
    routes = {(r.path, m.lower()) for r in interface.routes() for m in (r.methods or set()) - {"HEAD"}}
    assert routes == {(path, method) for path, methods in OPENAPI["paths"].items() for method in methods}
    text = (STATIC.parent / "live_api.py").read_text()
    read = set(re.findall(r'query(?:_params)?\.get\("(\w+)"|(?:flag|whole_number)\(request, "(\w+)"', text))
    operations = [o for methods in OPENAPI["paths"].values() for o in methods.values()]
    named = {p["name"] for o in operations for p in o.get("parameters", ()) if p["in"] == "query"}
    assert {one or other for one, other in read} | {"model", "task", "label"} == named


def test_health_and_models(daemon: Daemon) -> None:
    until(lambda: daemon.ask("/api/health").json["status"] == "ok")
    health = daemon.ask("/api/health").json
    assert health["name"] == "the gate"
    assert health["models"][0]["name"] == "means"
    assert health["frames"] > 0
    assert health["sinks"]["page"]["dropped"] == 0
    tasks = {head["task"]: head["labels"] for head in daemon.ask("/api/models").json}
    assert set(tasks) == {"colour_0", "colour_1"}
    assert "red" in tasks["colour_1"]


def test_a_snapshot_is_the_next_frame(daemon: Daemon) -> None:
    reply = daemon.ask("/api/snapshot.jpg")
    assert (reply.status, reply.headers["content-type"]) == (200, "image/jpeg")
    picture = cv2.imdecode(np.frombuffer(reply.body, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    assert picture.shape == (480, 640, 3)
    assert picture.std() > 10, "the street"


def test_four_viewers_see_it_move_and_a_fifth_is_told_so(daemon: Daemon) -> None:
    viewers = [Viewer(daemon) for _ in range(4)]
    try:
        for viewer in viewers:
            assert viewer.status() == 200
            frames = viewer.frames(3)
            assert len(set(frames)) == 3
            assert all(frame.startswith(b"\xff\xd8") for frame in frames)
        fifth = daemon.ask("/api/live.mjpg")
        assert fifth.status == 503
        assert "4 look" in fifth.json["error"]
        viewers.pop().close()
        until(lambda: is_let_in(daemon))
    finally:
        for viewer in viewers:
            viewer.close()


def test_the_page_and_its_headers(daemon: Daemon) -> None:
    page = daemon.ask("/")
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert daemon.ask("/api/health", headers={"host": "evil.example"}).status == 421
    assert daemon.ask("/api/detection", b'{"on": false}', {"origin": "http://evil.example"}).status == 403
    assert daemon.ask("/api/review/..%2f..%2fwatch.toml.jpg").status == 404


def is_let_in(daemon: Daemon) -> bool:
    viewer = Viewer(daemon)
    try:
        return viewer.status() == 200
    finally:
        viewer.close()


class Follower(threading.Thread):
    """Reads server-sent events."""

    def __init__(self, site: Site) -> None:
        super().__init__(daemon=True)
        self._connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=60)
        self._connection.request("GET", "/api/stream")
        self._answer = self._connection.getresponse()
        assert self._answer.headers["content-type"].startswith("text/event-stream")
        self.messages: list[tuple[str, Any]] = []
        self._stop_reading = False
        self.start()

    def run(self) -> None:
        kind = ""
        for line in self._answer:
            name, _, value = line.decode().strip().partition(": ")
            if name == "event":
                kind = value
            elif name == "data":
                self.messages.append((kind, json.loads(value)))
            if self._stop_reading:
                break
        self._answer.close()
        self._connection.close()

    def close(self) -> None:
        """Read no more."""
        self._stop_reading = True
        self.join()


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("application/octet-stream", "application/octet-stream"),
        ("text/event-stream", "text/event-stream; charset=utf-8"),
        ("*/*", "text/event-stream; charset=utf-8"),
    ],
)
def test_the_stream_is_bytes_for_those_who_ask_for_bytes(daemon: Daemon, accept: str, kind: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=60)
    connection.request("GET", "/api/stream", headers={"accept": accept})
    answer = connection.getresponse()
    assert (answer.headers["content-type"], answer.readline()) == (kind, b": here\n")
    connection.close()


def test_pausing_and_resuming_is_followed_by_events(daemon: Daemon, folder: Path) -> None:
    follower = Follower(daemon)
    until(lambda: any(kind == "scores" for kind, _ in follower.messages))
    rows = next(data for kind, data in follower.messages if kind == "scores")
    assert all(len(row) == 3 and 0 <= row[1] <= 1 for row in rows), "two heads"
    assert post(daemon, "/api/detection", on=False)["detection"] is False
    until(lambda: any(kind == "event" and data.get("state") == "paused" for kind, data in follower.messages))
    until(lambda: daemon.ask("/api/health").json["status"] == "paused")
    assert json.loads((folder / "state/controls.json").read_text())["detection"] is False, "survives a restart"
    assert daemon.ask("/api/snapshot.jpg").status == 200, "it can be looked at all the same"
    post(daemon, "/api/detection", on=True)
    until(lambda: any(kind == "event" and data.get("state") == "resumed" for kind, data in follower.messages))
    follower.close()
    states = [event["state"] for event in daemon.ask("/api/events").json if event["type"] == "state"]
    assert states[0] == "started"
    assert states[-2:] == ["paused", "resumed"]
    assert post(daemon, "/api/detection", on="yes")["status"] == 400


def test_a_threshold_is_tried_and_set_and_given_back(daemon: Daemon, folder: Path) -> None:
    until(lambda: len(daemon.ask("/api/scores?seconds=60").json["rows"]) > 20)
    query = "&".join(f"{key}={value}" for key, value in RED.items())
    high = daemon.ask(f"/api/trial?{query}&threshold=1").json
    low = daemon.ask(f"/api/trial?{query}&threshold=0.01").json
    assert high["alarms"] == 0
    assert low["alarms"] >= 1
    assert low["seconds"] > 0.5
    settings = post(daemon, "/api/thresholds", **RED, threshold=0.125)
    assert [a["threshold"] for a in settings["alarms"] if a["task"] == "colour_1"] == [0.125]
    until(lambda: "thresholds set by the owner: means red 0.125" in (folder / "log").read_text())
    settings = post(daemon, "/api/thresholds", **RED, threshold=None)
    assert [a["set"] for a in settings["alarms"]] == [False, False]
    for wrong in (0, 1.5, "high", True):
        assert post(daemon, "/api/thresholds", **RED, threshold=wrong)["status"] == 400
    assert post(daemon, "/api/thresholds", model="means", task="colour_1", label="blue", threshold=0.5)["status"] == 404


def test_a_snapshot_that_is_labelled_is_in_the_set_and_in_the_zip(daemon: Daemon, folder: Path) -> None:
    first = daemon.ask("/api/review?most=2").json
    assert first["n"] >= 3
    assert first["more"]
    items = daemon.ask("/api/review?kind=alarm").json["items"]
    ids = [item["id"] for item in items if (folder / f"snapshots/{item['id']}.jpg").exists()][-3:]
    assert ids == sorted(ids, reverse=True)
    done = post(daemon, "/api/review", ids=[*ids[:2], uuid7()], task="colour_1", label="red")
    assert done["labelled"] == 2
    assert len(done["gone"]) == 1
    post(daemon, "/api/review", ids=[ids[2]], task="colour_1", label="blue")
    rows = {item.path.stem: item for item in dataset.read(folder / "state/page/sets/colour_1")}
    assert {name: rows[name].label for name in ids} == {ids[0]: "red", ids[1]: "red", ids[2]: "blue"}
    assert rows[ids[0]].columns["camera"] == "the gate"
    original = (folder / f"snapshots/{ids[0]}.jpg").read_bytes()
    assert rows[ids[0]].path.read_bytes() == original
    reply = daemon.ask("/api/export.zip?task=colour_1")
    assert reply.status == 200
    with zipfile.ZipFile(io.BytesIO(reply.body)) as archive:
        assert sorted(archive.namelist()) == sorted([f"red/{ids[0]}.jpg", f"red/{ids[1]}.jpg", f"blue/{ids[2]}.jpg"])
        assert archive.read(f"red/{ids[0]}.jpg") == original
    labelled = {item["id"]: item["labels"] for item in daemon.ask("/api/review").json["items"]}
    assert labelled[ids[2]] == {"colour_1": "blue"}
    assert not {item["id"] for item in daemon.ask("/api/review?todo=1").json["items"]} & set(ids)
    post(daemon, "/api/review", ids=ids, task="colour_1", label=None)
    assert not (folder / "state/page/sets/colour_1/index.csv").exists(), "taken back"
    assert daemon.ask("/api/export.zip?task=colour_1").status == 404
    mistakes: list[dict[str, Any]] = [{"ids": []}, {"ids": ids, "task": "x"}]
    for wrong in (*mistakes, {"ids": ids, "task": "colour_1", "label": "a\nb"}):
        assert post(daemon, "/api/review", **wrong)["status"] == 400


def test_a_page_that_is_killed_comes_back_and_the_daemon_does_not_notice(daemon: Daemon, folder: Path) -> None:
    before = daemon.ask("/api/health").json
    pid = daemon.page_process()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    # The socket is the daemon's: nobody is refused meanwhile.
    after = daemon.ask("/api/health").json
    assert daemon.page_process() not in (None, pid)
    assert after["frames"] > before["frames"]
    assert after["camera_restarts"] == before["camera_restarts"]
    until(lambda: any(event.get("state") == "started" for event in daemon.ask("/api/events").json))
    assert "another one starts" in (folder / "log").read_text()


def test_the_examples_of_the_docs(daemon: Daemon, folder: Path, tmp_path: Path) -> None:
    """Each `curl` line of docs/page.md that is for a daemon."""
    page = (Path(__file__).parents[3] / "docs/page.md").read_text()
    examples = [line for line in page.splitlines() if line.startswith("curl") and ":8770/" in line]
    assert len(examples) >= 5
    clip = f"{uuid7()}.avi"
    (folder / "snapshots/clips" / clip).write_bytes(b"RIFF")
    for line in examples:
        command = line.replace("http://127.0.0.1:8770/", daemon.url) + " --fail-with-body -sS"
        command = command.replace("model=stop_sign&task=stop_sign&label=stop", "model=means&task=colour_1&label=red")
        command = command.replace("ID.avi", clip)
        done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True)
        # 28: the time is over, which is how a stream without an end ends.
        assert done.returncode == (28 if "--max-time" in line else 0), (line, done.stdout, done.stderr)
    assert (tmp_path / "now.jpg").read_bytes().startswith(b"\xff\xd8")
    post(daemon, "/api/detection", on=True)


# --- the sink by itself -----------------------------------------------------------------------------------------------


@pytest.fixture
def sink(tmp_path: Path, means: Path) -> Iterator[PageSink]:
    classifier = Classifier(means)
    config = WatchConfig(page=PageConfig(port=0))
    health = Health()
    sink = PageSink(
        config,
        SinkContext("here", memory=tmp_path, snapshots=tmp_path / "snapshots"),
        lambda: [classifier],
        health.reading,
    )
    yield sink
    sink.close()


def frame(number: int, red: int = 0) -> Frame:
    pixels = np.full((30, 40, 3), (10, 10, red), np.uint8)
    return Frame(pixels, "BGR", number * 200_000_000, time.time_ns(), number, "film")


SCORES = {AlarmKey("means", "colour_0", "red"): 0.25, AlarmKey("means", "colour_1", "red"): 0.75}


def test_a_page_that_hangs_is_replaced_and_nothing_waits_for_it(
    sink: PageSink, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    site = Site(sink.url, None)  # type: ignore[arg-type]
    assert site.ask("/api/health").json["status"] == "starting"
    (pid,) = [int(p) for p in Path(f"/proc/self/task/{sink._thread.native_id}/children").read_text().split()]
    os.kill(pid, signal.SIGSTOP)
    silence_s = live_sink.SILENCE_S
    monkeypatch.setattr(live_sink, "SILENCE_S", 1.0)
    with within():
        for number in range(50_000):
            sink.see(frame(number), SCORES)
        for _ in range(2000):
            now = time.time_ns()
            sink.follow(Event(id=new_id(now), type="state", time=rfc3339(now), monotonic_ns=0, source="x", state="ok"))
    assert len(sink._rows) <= 5000
    until(lambda: "no sign of life" in caplog.text)
    monkeypatch.setattr(live_sink, "SILENCE_S", silence_s)  # the next one may take its time to start
    until(lambda: len(site.ask("/api/events").json) == 500)  # the newest ones


def test_another_owner_is_followed(sink: PageSink) -> None:
    site = Site(sink.url, None)  # type: ignore[arg-type]
    sink.agree(Controls(detection=False, thresholds={AlarmKey("means", "colour_1", "red"): 0.875}))
    until(lambda: site.ask("/api/thresholds").json["detection"] is False)
    assert [alarm["threshold"] for alarm in site.ask("/api/thresholds").json["alarms"]] == [0.5, 0.875]


def test_frames_are_copied_only_while_somebody_looks_and_may_change_their_size(sink: PageSink) -> None:
    site = Site(sink.url, None)  # type: ignore[arg-type]
    sink.see(frame(0), SCORES)
    assert sink._show._fd is None
    viewer = Viewer(site)
    sizes: set[tuple[int, ...]] = set()
    stop = threading.Event()

    def show() -> None:
        for number in itertools.count(1):
            pixels = np.full((20, 60, 3) if sizes else (30, 40, 3), number % 256, np.uint8)
            sink.see(Frame(pixels, "BGR", number, 0, number, "film"), SCORES)
            if stop.wait(0.02):
                return

    thread = threading.Thread(target=show)
    thread.start()
    try:
        with within(60.0):
            while len(sizes) < 2:
                for jpeg in viewer.frames(1):
                    picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
                    assert picture is not None
                    sizes.add(picture.shape)
        assert sizes == {(30, 40, 3), (20, 60, 3)}
        viewer.close()
        until(lambda: sink._show._fd is None)
    finally:
        stop.set()
        thread.join()


def alarm_at(number: int) -> Event:
    now = time.time_ns()
    ns = number * 200_000_000
    return Event(
        id=new_id(now), type="alarm.on", time=rfc3339(now), monotonic_ns=ns, source="x", label="red", score=0.75
    )


def test_the_clip_of_an_alarm_can_be_downloaded(sink: PageSink, tmp_path: Path) -> None:
    site = Site(sink.url, None)  # type: ignore[arg-type]
    follower = Follower(site)
    assert site.ask("/api/clips").json == []
    for number in range(70):
        sink.see(frame(number, red=3 * number), SCORES)
    event = alarm_at(40)
    assert site.ask(f"/api/clips/{event.id}.avi").status == 404
    sink.follow(event)
    until(lambda: any(kind == "clip" and data == {"id": event.id} for kind, data in follower.messages))
    follower.close()
    assert site.ask("/api/clips").json == [event.id]
    reply = site.ask(f"/api/clips/{event.id}.avi")
    assert (reply.status, reply.headers["content-type"]) == (200, "video/x-msvideo")
    assert re.fullmatch(r'attachment; filename="\d{8}T\d{6}Z\.avi"', reply.headers["content-disposition"])
    film = tmp_path / "clip.avi"
    film.write_bytes(reply.body)
    assert [round(p[..., 2].mean() / 3) for p in frames_of(film)] == pytest.approx(list(range(15, 66)), abs=1.5)
    for name in ("..%2f..%2fpage%2ftoken", "x", uuid7()):
        assert site.ask(f"/api/clips/{name}.avi").status == 404


# --- who gets in ------------------------------------------------------------------------------------------------------


def config_of(tmp_path: Path, means: Path, page: str) -> Path:
    file = tmp_path / "watch.toml"
    file.write_text(
        f'source = "demo:?laps=1"\nmodels = ["{means}"]\n[outbox]\nfolder = "{tmp_path / "state"}"\n[page]\n{page}'
    )
    return file


def test_off_loopback_it_does_not_start_without_a_token(tmp_path: Path, means: Path) -> None:
    done = bittern("watch", "--config", config_of(tmp_path, means, 'port = 0\nhost = "0.0.0.0"\n'))
    line = one_line(done, 2, "0.0.0.0", "bittern serve --new-token --data")
    assert str(tmp_path / "state/page") in line


def test_a_port_that_is_taken_is_named(tmp_path: Path, means: Path, daemon: Daemon) -> None:
    done = bittern("watch", "--config", config_of(tmp_path, means, f"port = {daemon.port}\n"))
    one_line(done, 2, str(daemon.port), "page.port")


def test_a_daemon_without_a_page_imports_nothing_of_it(tmp_path: Path, means: Path) -> None:
    (tmp_path / "film").mkdir()
    (tmp_path / "film/a.jpg").write_bytes(jpeg_of((0, 0, 255)))
    code = (
        "import sys\nfrom bittern.cli.main import main\n"
        "try:\n main()\nexcept SystemExit:\n pass\n"
        "print([m for m in sys.modules if m.startswith(('bittern.page', 'starlette', 'uvicorn'))], file=sys.stderr)"
    )
    words = ["watch", "--source", str(tmp_path / "film"), "--model", str(means)]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr.splitlines()[-1] == "[]"
