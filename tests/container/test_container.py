"""The image: what is in it, what its user may do, the daemon and the page in it, and both beside a broker.

`make test-container` builds it and sets BITTERN_CONTAINER. Figures go to build/container.txt.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from tests.bittern.sources.test_rtsp import Server
from tests.container.boxes import CACHE, ENGINE, IMAGE, Box, files, has_containers, image, memory_mb, podman, run
from tests.doubles.http_peer import Peer
from tests.doubles.mosquitto import free_port
from tests.doubles.waiting import until

from bittern.scene import street

pytestmark = pytest.mark.skipif("BITTERN_CONTAINER" not in os.environ, reason="make test-container runs it")
REPO = Path(__file__).parents[2]
COMPOSE = REPO / "deploy/container/compose.yaml"
MOST_MB = 400


@pytest.fixture(scope="module")
def figure() -> Iterator[list[str]]:
    """Lines for build/container.txt."""
    lines = [
        f"{os.uname().machine}, in {'a container' if has_containers() else 'a chroot: containers are denied here'}"
    ]
    yield lines
    (REPO / "build").mkdir(exist_ok=True)
    (REPO / "build/container.txt").write_text("\n".join(lines) + "\n")


def test_it_is_small_and_says_how_it_is_run(figure: list[str]) -> None:
    size_mb = image()["Size"] / 1e6
    figure.append(f"image: {size_mb:.0f} MB of at most {MOST_MB}")
    assert size_mb < MOST_MB
    config = image()["Config"]
    assert config["User"] == "10001:10001"
    assert image()["Healthcheck"]["Test"] == ["CMD", "healthy"]
    assert list(config["Volumes"]) == ["/var/lib/bittern"]


def test_it_holds_no_tensorflow_and_nothing_of_the_machine_that_built_it() -> None:
    root = files()
    packages = {path.name for path in next(root.glob("opt/bittern/lib/python3*/site-packages")).iterdir()}
    assert {
        "bittern",
        "cv2",
        "numpy",
        "ai_edge_litert",
        "paho",
        "prometheus_client",
        "starlette",
        "uvicorn",
    } <= packages
    assert not {"tensorflow", "keras", "pip", "hatchling", "pytest"} & packages
    assert not (root / "etc/pip.conf").exists()
    assert not (root / "src").exists()
    assert not [path for path in root.glob("usr/bin/*") if path.name.startswith(("pip", "gcc", "cc"))]
    secret = re.compile("index-url|run/certificates.crt", re.IGNORECASE)
    assert not secret.search(podman("history", "--no-trunc", "--format={{.CreatedBy}}", IMAGE))
    assert not secret.search(json.dumps(image()["Config"]))
    for folder in ("root", "var", "tmp", "run", "opt/bittern/etc"):
        for path in (root / folder).rglob("*"):
            assert path.is_symlink() or not path.is_file() or not secret.search(path.read_text(errors="replace")), path


def test_its_user_can_write_only_what_is_kept() -> None:
    code, out = run("id -u; touch /var/lib/bittern/x /tmp/x && echo kept; cat /proc/self/status")
    assert code == 0, out
    assert out.startswith("10001\nkept\n")
    status = dict(line.split(":\t", 1) for line in out.splitlines() if ":\t" in line)
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    for place in ("/opt/bittern/x", "/etc/bittern/x", "/x", "/usr/bin/x"):
        code, out = run(f"touch {place}")
        assert code == 1
        assert "Read-only file system" in out


def test_opencv_has_what_usb_and_rtsp_cameras_need() -> None:
    code, out = run("python -c 'import cv2; print(cv2.getBuildInformation())'")
    assert code == 0
    assert re.search(r"v4l/v4l2: +YES", out)
    assert re.search(r"FFMPEG: +YES", out)


def test_the_daemon_raises_an_alarm_and_ends_on_sigterm(tmp_path: Path, peer: Peer, figure: list[str]) -> None:
    port = free_port()
    config = f'source = "demo:"\nname = "drawn"\n[webhook]\nurl = "{peer.url}"\n[health]\nport = {port}\n'
    with Box(tmp_path, "watch", "--config", "/etc/bittern/camera.toml", config=config) as box:
        until(lambda: box.has_event("state", "camera_ok"))
        figure.append(f"start to the first frame: {time.monotonic() - box.begin_s:.1f} s")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            assert answer.status == 200
        until(lambda: box.has_event("type", "alarm.on"))
        until(lambda: any(event["type"] == "alarm.on" for event in peer.events))
        figure.append(f"memory of the daemon, stop_sign, 640 x 480: {memory_mb():.0f} MB")
        assert box.stop() == 0, box.errors
    assert box.errors.splitlines()[-1].endswith("alarm events")
    assert (box.state / "outbox.sqlite").stat().st_uid == 10001


def test_the_page_of_the_daemon_asks_for_a_token(tmp_path: Path) -> None:
    with Box(tmp_path, "serve", "--new-token", "--data", "/var/lib/bittern/page") as box:
        assert box.wait() == 0, box.errors
        token = box.out.strip()
    port = free_port()
    config = f'source = "demo:"\n[page]\nport = {port}\nhost = "0.0.0.0"\n'
    with Box(tmp_path, "watch", "--config", "/etc/bittern/camera.toml", config=config) as box:
        until(lambda: box.has_event("state", "camera_ok"))
        until(lambda: answers(port))
        snapshot = urllib.request.Request(f"http://127.0.0.1:{port}/api/snapshot.jpg")
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(snapshot, timeout=30)
        assert refused.value.code == 401
        refused.value.close()
        snapshot.add_header("Authorization", f"Bearer {token}")
        with urllib.request.urlopen(snapshot, timeout=30) as answer:
            picture = cv2.imdecode(np.frombuffer(answer.read(), np.uint8), cv2.IMREAD_COLOR)
        assert picture is not None
        assert picture.shape == (480, 640, 3)
        assert box.stop() == 0, box.errors


def answers(port: int) -> bool:
    """Whether something listens."""
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def test_the_daemon_watches_a_network_camera(tmp_path: Path) -> None:
    server = Server()
    try:
        with Box(tmp_path, "watch", "--source", f"rtsp://127.0.0.1:{server.port}/red") as box:
            until(lambda: box.has_event("state", "camera_ok"))
            assert box.stop() == 0, box.errors
    finally:
        server.close()


def test_a_usb_camera_that_is_missing_is_a_state(tmp_path: Path) -> None:
    with Box(tmp_path, "watch", "--source", "usb:/dev/video77") as box:
        until(lambda: box.has_event("state", "camera_absent"))
        assert box.stop() == 0, box.errors


def test_a_configuration_that_is_missing_is_one_line(tmp_path: Path) -> None:
    with Box(tmp_path, "watch", "--config", "/etc/bittern/other.toml") as box:
        assert box.wait() == 2
    assert "other.toml" in box.errors
    assert len(box.errors.splitlines()) == 1


def test_the_commands_of_docs(tmp_path: Path) -> None:
    """Those about the image and the daemon, in the order of docs/container.md."""
    if not has_containers():
        pytest.skip("containers are denied on this machine")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/podman").write_text(f'#!/bin/sh\nPATH="$OWN_PATH" exec "{ENGINE}" "{CACHE}" podman "$@"\n')
    (tmp_path / "bin/podman").chmod(0o755)
    (tmp_path / "holiday").mkdir()
    (tmp_path / "holiday/street.jpg").write_bytes(street_jpeg())
    page = (REPO / "docs/container.md").read_text(encoding="utf-8")
    lines = [line for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL) for line in block.splitlines()]
    commands = [line for line in lines if line.startswith("podman ") and "serve" not in line]
    path = os.environ["PATH"]
    environment = os.environ | {"PATH": f"{tmp_path}/bin:{path}", "OWN_PATH": path}

    def shell(command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True)

    try:
        for command in commands:
            if "healthcheck" in command:
                until(lambda: shell("podman healthcheck run garden").returncode == 0)
            done = shell(command)
            assert done.returncode == 0, done.stderr
            if "config --example" in command:
                assert "[health]" in (tmp_path / "camera.toml").read_text()
                (tmp_path / "camera.toml").write_text('source = "demo:"\n[health]\nport = 9100\n')
            elif "classify" in command:
                assert " stop " in done.stdout
        assert podman("inspect", "--format={{.State.ExitCode}}", "garden").strip() == "0"
    finally:
        podman("rm", "--force", "--ignore", "garden")
        podman("volume", "rm", "--force", "garden")
    assert len(commands) == 6


def street_jpeg() -> bytes:
    """A picture with a stop sign, as a file."""
    ok, data = cv2.imencode(".jpg", np.ascontiguousarray(street.Street(seed=1).render(9.4).pixels[:, :, ::-1]))
    assert ok
    return data.tobytes()


class Composed:
    """compose.yaml, started under a name of its own."""

    def __init__(self, port: int) -> None:
        self._environment = os.environ | {"PAGE_PORT": str(port)}
        self.port = port
        self.project = f"bittern-{os.getpid()}"

    def compose(self, *words: str) -> str:
        command = [str(ENGINE), CACHE, "compose", "-p", self.project, "-f", str(COMPOSE), *words]
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return str(done.stdout)

    def name(self, service: str) -> str:
        return f"{self.project}_{service}_1"

    def is_healthy(self, service: str) -> bool:
        command = [str(ENGINE), CACHE, "podman", "healthcheck", "run", self.name(service)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.fixture
def composed() -> Iterator[Composed]:
    if not has_containers():
        pytest.skip("containers are denied on this machine")
    composed = Composed(free_port())
    yield composed
    composed.compose("down", "-v")


def test_the_composed_daemon_publishes_to_the_broker(composed: Composed) -> None:
    composed.compose("up", "-d", "mqtt", "garden")
    topic = ("mosquitto_sub", "-t", "bittern/garden/event", "-W", "60", "-C")
    event = {"type": ""}
    while event["type"] != "alarm.on":  # states come first; mosquitto_sub fails after a minute without an event
        event = json.loads(podman("exec", composed.name("mqtt"), *topic, "1"))
    assert (event["source"], event["label"]) == ("garden", "stop")
    assert composed.is_healthy("garden")
    podman("stop", composed.name("garden"))
    assert podman("inspect", "--format={{.State.ExitCode}}", composed.name("garden")).strip() == "0"
    assert not composed.is_healthy("garden")


def test_the_composed_page_asks_for_a_token_and_classifies(composed: Composed, figure: list[str]) -> None:
    (token,) = re.findall(r"^[\w-]{43}$", composed.compose("run", "--rm", "page", "serve", "--new-token"), re.MULTILINE)
    composed.compose("up", "-d", "page")
    until(lambda: composed.is_healthy("page"))
    classify = urllib.request.Request(f"http://127.0.0.1:{composed.port}/api/classify", data=street_jpeg())
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(classify, timeout=30)
    assert refused.value.code == 401
    refused.value.close()
    classify.add_header("Authorization", f"Bearer {token}")
    with urllib.request.urlopen(classify, timeout=30) as answer:
        (result,) = json.load(answer)
    assert (result["label"], result["alarm"]) == ("stop", True)
    figure.append(f"memory of the page, stop_sign: {memory_mb():.0f} MB")
    podman("stop", composed.name("page"))
    assert podman("inspect", "--format={{.State.ExitCode}}", composed.name("page")).strip() == "0"
