"""The source `rtsp` against a real server, and against peers that refuse, are mute, or talk something else."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from tests.doubles.camera_process import Double, next_frame, read_until
from tests.doubles.waiting import within

from bittern.errors import ConfigurationError, SourceError, redacted
from bittern.frames import Frame
from bittern.sources.registry import check_source, open_source

SERVER = Path(__file__).parents[2] / "doubles/rtsp_server.py"
PYTHON = shutil.which("python3", path="/usr/bin") or "python3"


class Server:
    """GStreamer's RTSP server, in a process of its own."""

    def __init__(self, *words: str) -> None:
        self.process = subprocess.Popen(
            [PYTHON, str(SERVER), *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.port = self.process.stdout.readline().strip()
        if not self.port:
            errors = self.process.communicate()[1]
            if "ModuleNotFoundError" in errors or "Namespace" in errors:
                pytest.skip("no RTSP server: apt install gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-good")
            pytest.fail(errors)

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


class Peer:
    """Accepts connections and answers every request with `answer`; None never answers."""

    def __init__(self, answer: bytes | None) -> None:
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(connection)
            if self._answer is not None:
                connection.recv(4096)
                connection.sendall(self._answer)
                connection.close()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        for connection in self._open:
            connection.close()


def refuse(uri: str, **options: float) -> str:
    with pytest.raises(SourceError) as caught:
        open_source(uri, {"open_timeout_s": 1.0, **options})
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    assert "s3cret" not in str(caught.value)
    return str(caught.value)


def bgr_of(frame: Frame) -> tuple[int, ...]:
    assert frame.order == "BGR"
    return tuple(int(v) for v in frame.pixels.reshape(-1, 3).mean(axis=0).round())


# --- a real server -----------------------------------------------------------------------------------------------


def test_frames_of_a_real_server(server: Server) -> None:
    earliest = time.monotonic_ns()
    with open_source(f"rtsp://127.0.0.1:{server.port}/red") as source:
        assert source.live
        assert source.name == f"rtsp://127.0.0.1:{server.port}"
        frames = []
        for _ in range(10):
            frame = source.read()
            assert frame is not None
            frames.append(frame)
    assert all(b.number > a.number and b.monotonic_ns > a.monotonic_ns for a, b in pairwise(frames))
    blue, green, red = bgr_of(frames[0])
    assert red > 200
    assert blue < 60
    assert green < 80
    assert frames[0].pixels.shape == (240, 320, 3)
    assert earliest <= frames[0].monotonic_ns < frames[-1].monotonic_ns <= time.monotonic_ns()


def test_user_and_password() -> None:
    server = Server("locked")
    address = f"127.0.0.1:{server.port}/red"
    try:
        assert "requires user and password" in refuse(f"rtsp://{address}")
        assert "refuses user and password" in refuse(f"rtsp://admin:s3cretwrong@{address}")
        with open_source(f"rtsp://admin:s3cret@{address}") as source:
            frame = source.read()
            assert frame is not None
            assert frame.source == f"rtsp://127.0.0.1:{server.port}"
    finally:
        server.close()


def test_a_path_that_is_not_there(server: Server) -> None:
    assert "no such path (404)" in refuse(f"rtsp://127.0.0.1:{server.port}/blue")


def test_turned_and_mirrored(server: Server) -> None:
    with open_source(f"rtsp://127.0.0.1:{server.port}/red", {"rotation": 90}) as source:
        frame = source.read()
        assert frame is not None
        assert frame.pixels.shape == (320, 240, 3)


def test_a_server_that_goes(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    double = Double(tmp_path, monkeypatch)
    with double.camera(f"rtsp://127.0.0.1:{server.port}/red", {"open_timeout_s": 2.0}) as camera:
        next_frame(camera)
        server.process.kill()
        read_until(camera, lambda: "camera_absent" in double.names, 8)
        assert double.names[:2] == ["camera_ok", "camera_lost"]
        assert "Connection refused" in double.detail("camera_absent")


def test_a_server_that_stands_still_is_a_stall(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    double = Double(tmp_path, monkeypatch)
    with double.camera(f"rtsp://127.0.0.1:{server.port}/red") as camera:
        next_frame(camera)
        server.process.send_signal(signal.SIGSTOP)
        read_until(camera, lambda: "camera_stalled" in double.names, 4)
        server.process.send_signal(signal.SIGCONT)
        read_until(camera, lambda: double.names[-1] == "camera_ok", 15)


# --- peers that are none -----------------------------------------------------------------------------------------


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert f"Connection refused: check host and port {port}" in refuse(f"rtsp://admin:s3cret@127.0.0.1:{port}/x")
    assert "check host and port 554" in refuse("rtsp://no-such-host.invalid/x")


@pytest.mark.parametrize("scheme", ["rtsp", "rtsps"])
def test_a_peer_that_never_answers_times_out(scheme: str) -> None:
    peer = Peer(None)
    try:
        with within():
            message = refuse(f"{scheme}://admin:s3cret@127.0.0.1:{peer.port}/x")
        assert ("no answer within 1 s" if scheme == "rtsp" else "no stream can be opened") in message
    finally:
        peer.close()


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak RTSP"),
        (b"\x00\xff" * 2000, "does not speak RTSP"),
        (b"", "does not speak RTSP"),
        (b"RTSP/1.0 454 Session Not Found\r\nCSeq: 1\r\n\r\n", "answers with status 454"),
        (b"RTSP/1.0 200 OK\r\nCSeq: 1\r\n\r\n", "no stream that FFmpeg can read"),
    ],
)
def test_peers_that_answer_something_else(answer: bytes, says: str) -> None:
    peer = Peer(answer)
    try:
        assert says in refuse(f"rtsp://admin:s3cret@127.0.0.1:{peer.port}/x")
    finally:
        peer.close()


# --- addresses ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("rtsp://host/path", "rtsp://host"),
        ("rtsp://user:s3cret@host:8554/path?token=s3cret#s3cret", "rtsp://host:8554"),
        ("RTSPS://user:s3cret@[2001:db8::1]:322/a/b", "rtsps://[2001:db8::1]:322"),
        ("rtsp://user@host", "rtsp://host"),
    ],
)
def test_names_have_no_secrets(uri: str, name: str) -> None:
    assert redacted(uri) == name
    assert check_source(uri) == (name, True)


@pytest.mark.parametrize(
    "uri",
    [
        "rtsp:",
        "rtsp://",
        "rtsp:///path",
        "rtsp://user:s3cret@/path",
        "rtsp://user:s3cret@host:port/path",
        "rtsp://user:s3cret@host:99999/path",
        "rtsp://user:s3cret@[::1/path",
        "rtsp://user:s3/cret@host/path",
        "rtsp://user:s3cret@host/a path",
    ],
)
def test_addresses_that_cannot_be(uri: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_source(uri)
    assert "\n" not in str(caught.value)
    assert "s3" not in str(caught.value)


def test_options_are_not_taken_from_the_address() -> None:
    assert check_source("rtsp://host/path?rotation=45").live
    with pytest.raises(ConfigurationError, match="rotation"):
        check_source("rtsp://host/path", {"rotation": 45})
    with pytest.raises(ConfigurationError, match="unknown option 'fps'"):
        check_source("rtsp://user:s3cret@host/path", {"fps": 5})
