"""The camera as the daemon has it: what its frames are, how it waits and ends, what it keeps to itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from tests.doubles.camera_process import Double, children, descriptors, gone, next_frame, read_until
from tests.doubles.waiting import within

from bittern.camera.supervisor import Camera, Timing
from bittern.config.schema import RecoveryConfig
from bittern.errors import ConfigurationError, SourceError
from bittern.scene.street import Street
from bittern.sources.registry import Value
from bittern.system.stop import Stop

DEMO = "demo:?fps=30&size=64x48"


@pytest.fixture
def double(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Double]:
    fds, processes = descriptors(), children()
    yield Double(tmp_path, monkeypatch)
    assert (children(), descriptors()) == (processes, fds)


def test_the_process_of_a_pi_camera_does_without_opencv() -> None:
    """Some 30 MB of a Zero 2 W (measured on x86-64: 69 to 39 MB resident)."""
    code = "import bittern.camera.child, bittern.sources.picamera, sys; print('cv2' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


# --- frames ------------------------------------------------------------------------------------------------------


def test_frames_are_those_of_the_source(double: Double) -> None:
    earliest = time.monotonic_ns()
    recovery = RecoveryConfig(warm_up_frames=0)
    street = Street(4, (64, 48))
    with double.camera(DEMO + "&seed=4", recovery=recovery) as camera:
        assert (camera.name, camera.live, camera.unreadable) == ("demo", True, 0)
        frames = []
        for _ in range(5):
            frame = next_frame(camera)
            assert np.array_equal(frame.pixels, street.render(frame.number / 30).pixels)
            assert not frame.pixels.flags.writeable
            assert (frame.order, frame.source) == ("RGB", "demo")
            assert earliest <= frame.monotonic_ns <= time.monotonic_ns()
            assert abs(time.time_ns() - frame.time_ns) < 60e9
            frames.append((frame.number, frame.monotonic_ns))
        assert frames[0][0] == 0
        assert all(b > a for a, b in pairwise(frames))
        assert camera.dropped == frames[-1][0] + 1 - len(frames)
    assert double.names == ["camera_ok"]
    assert double.detail("camera_ok") == "frames of 64x48"


def test_the_first_frames_are_dropped(double: Double) -> None:
    double.say(show="count", fps=60)
    for warm_up in (0, 7):
        with Camera("picamera:?size=64x48&fps=60", recovery=RecoveryConfig(warm_up_frames=warm_up)) as camera:
            frame = next_frame(camera)
            assert 101 + warm_up <= int(frame.pixels[0, 0, 0]) <= 105 + warm_up
            assert frame.number + 101 + warm_up == int(frame.pixels[0, 0, 0])


def test_the_newest_frame_wins_and_stays_until_the_next_read(double: Double) -> None:
    double.say(show="count", fps=100)
    with Camera("picamera:?size=64x48&fps=100") as camera:
        frame = next_frame(camera)
        dropped = camera.dropped
        for _ in range(10):
            value = int(frame.pixels[0, 0, 0])
            time.sleep(0.1)  # some ten frames come meanwhile
            assert (frame.pixels == value).all()
            following = next_frame(camera)
            dropped += following.number - frame.number - 1
            frame = following
        assert camera.dropped == dropped > 10, "what came meanwhile, but for the newest"


def test_numbers_go_on_over_a_restart(double: Double) -> None:
    with double.camera("picamera:?size=64x48&fps=30") as camera:
        last = next_frame(camera).number
        assert camera.pid is not None
        os.kill(camera.pid, signal.SIGKILL)
        read_until(camera, lambda: double.names[-1] == "camera_ok" and camera.restarts == 1, 6)
        frame = next_frame(camera)
        assert last < frame.number < last + 200


# --- waiting and ending ------------------------------------------------------------------------------------------


def test_a_read_waits_as_long_as_it_may(double: Double) -> None:
    double.say(fps=0.01)
    with Camera("picamera:?size=64x48", recovery=RecoveryConfig(warm_up_frames=0)) as camera:
        next_frame(camera)
        for timeout_s in (0.0, 0.05, 0.4):
            begin = time.monotonic()
            assert camera.read(timeout_s) is None
            assert time.monotonic() - begin >= timeout_s


def test_waiting_costs_no_time_of_the_processor(double: Double) -> None:
    double.say(fps=0.01)
    with Camera("picamera:?size=64x48", recovery=RecoveryConfig(warm_up_frames=0)) as camera:
        next_frame(camera)
        begin = time.process_time()
        assert camera.read(1.0) is None
        assert time.process_time() - begin < 0.3, "not a loop that asks all the time"


@pytest.mark.parametrize("when", ["starting", "running"])
def test_a_signal_ends_a_read(double: Double, when: str) -> None:
    double.say(fps=0.01)
    stop = Stop()
    with stop.signals(), Camera("picamera:?size=64x48", recovery=RecoveryConfig(warm_up_frames=0), stop=stop) as camera:
        if when == "running":
            next_frame(camera)
        signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with within():
            assert camera.read(20) is None
        assert stop.asked
        assert camera.read(20) is None


def test_closing_gives_the_camera_back(double: Double) -> None:
    with Camera("picamera:?size=64x48") as camera:
        next_frame(camera)
        pid = camera.pid
        assert pid is not None
        with within():
            camera.close()
        assert gone(pid)
        camera.close()
        assert camera.read(1) is None
    assert [what for _, _, what in double.log()] == ["look", "open", "close"]


@pytest.mark.parametrize("what", ["hang", "stopped", "not started", "starting"])
def test_closing_does_not_wait_for_a_camera_that_hangs(double: Double, what: str) -> None:
    camera = Camera("picamera:?size=64x48")
    if what == "starting":
        double.say(open="hang")
        camera.read(0.5)
    elif what != "not started":
        next_frame(camera)
        double.say(do="hang")
        time.sleep(0.2)
    if what == "stopped" and camera.pid is not None:
        os.kill(camera.pid, signal.SIGSTOP)
    with within():
        camera.close()


def test_signals_for_the_whole_group_are_left_to_the_parent(double: Double) -> None:
    with double.camera("picamera:?size=64x48&fps=30") as camera:
        next_frame(camera)
        assert camera.pid is not None
        assert os.getpgid(camera.pid) == camera.pid, "Ctrl-C does not reach it"
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(camera.pid, number)
        time.sleep(0.3)
        next_frame(camera)
        assert camera.restarts == 0
    assert [what for _, _, what in double.log()] == ["look", "open", "close"]


def test_a_rest_keeps_the_frame_and_watches_over_the_camera(double: Double) -> None:
    double.say(show="count", fps=60)
    with double.camera("picamera:?size=64x48&fps=60", timeout_s=0.5) as camera:
        frame = next_frame(camera)
        value = int(frame.pixels[0, 0, 0])
        busy, begin = time.process_time(), time.monotonic()
        camera.rest(0.5)
        assert time.monotonic() - begin >= 0.5
        assert time.process_time() - busy < 0.15, "not a loop that asks all the time"
        assert (frame.pixels == value).all()
        double.say(do="hang")
        camera.rest(1.5)
        assert double.names == ["camera_ok", "camera_stalled"]
        assert camera.restarts == 1
        assert (frame.pixels == value).all()
        assert camera.read(0.0) is None


def test_a_rest_ends_with_a_signal_and_loses_no_last_frame(double: Double) -> None:
    stop = Stop()
    recovery = RecoveryConfig(warm_up_frames=0)
    # One lap takes 12 s of the street's time; a frame in four seconds of it.
    with stop.signals(), Camera("demo:?fps=0.25&size=64x48&laps=1", recovery=recovery, stop=stop) as camera:
        next_frame(camera)
        camera.rest(12.5)  # all there is to come comes meanwhile
        frame = camera.read(1)
        assert frame is not None
        assert frame.number == 2
        assert not camera.ended
        assert camera.read(1) is None
        assert camera.ended
        assert camera.restarts == 0
        signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with within():
            camera.rest(20)


# --- states ------------------------------------------------------------------------------------------------------


def test_a_camera_that_fails_again_and_again_does_not_flap(double: Double) -> None:
    timing = Timing(settled_s=60.0)
    with double.camera("picamera:?size=64x48&fps=30", timing=timing) as camera:
        next_frame(camera)
        for restart in range(1, 4):
            assert camera.pid is not None
            os.kill(camera.pid, signal.SIGKILL)
            read_until(camera, lambda restart=restart: camera.restarts == restart, 8)  # type: ignore[misc]
            next_frame(camera)
    assert double.names == ["camera_ok", "camera_lost", "camera_ok", "camera_lost"], "well only once it has settled"


def test_a_frame_that_lay_there_does_not_make_a_hung_camera_well(double: Double) -> None:
    with double.camera("picamera:?size=64x48&fps=30", timeout_s=0.5) as camera:
        next_frame(camera)
        time.sleep(0.3)
        double.say(do="hang")
        time.sleep(1.0)
        camera.read(0.1)
        assert double.names == ["camera_ok", "camera_stalled"]


def test_a_size_that_changes_restarts_it(double: Double) -> None:
    program = (
        "import numpy as np, time\n"
        "from bittern.frames import Frame, Source, wall_clock_of\n"
        "from bittern.sources import demo\n"
        "def render(self, t):\n"
        "    return type('Drawn', (), {'pixels': np.zeros((48, 64 + 32 * (t > 1), 3), np.uint8)})\n"
        "demo.Street.render = render\n"
    )
    (double.file.parent / "sitecustomize.py").write_text(program)
    os.environ["PYTHONPATH"] += os.pathsep + str(double.file.parent)
    with double.camera(DEMO) as camera:
        read_until(camera, lambda: "camera_lost" in double.names, 6)
    assert double.detail("camera_lost") == "demo: frames of 64x48 became 96x48"


def test_what_a_driver_raises_is_one_line(double: Double) -> None:
    double.say(world={"array": []})
    with pytest.raises(SourceError) as caught, Camera("picamera:?size=64x48", once=True) as camera:
        camera.read(10)
    assert "\n" not in str(caught.value)


# --- configuration and secrets -----------------------------------------------------------------------------------


def test_options_reach_the_source(double: Double) -> None:
    options: dict[str, Value] = {"size": "96x64", "rotation": 90, "hflip": True}
    with Camera("picamera:?fps=30", options, recovery=RecoveryConfig(warm_up_frames=0)) as camera:
        assert next_frame(camera).pixels.shape == (96, 64, 3)


@pytest.mark.parametrize(
    ("uri", "options", "says"),
    [
        ("picamera:?size=64x48", {"size": "64x48"}, "'size' is also in"),
        ("picamera:", {"colour": True}, "unknown option 'colour'"),
        ("usb:front", {}, "expected the number of a camera"),
        ("carrot:", {}, "unknown source"),
        (".", {}, "source '.' is a recording, not a camera"),
    ],
)
def test_a_wrong_configuration_starts_nothing(uri: str, options: dict[str, str | bool], says: str) -> None:
    before = children()
    with pytest.raises(ConfigurationError, match=says):
        Camera(uri, options)
    assert children() == before


def test_an_option_that_the_camera_cannot_follow_ends_it(double: Double) -> None:
    with double.camera("picamera:?lens_position=2") as camera:
        with pytest.raises(ConfigurationError, match="no control AfMode") as caught:
            camera.read(10)
        assert caught.value.exit_code == 2
    assert double.names == []


def test_a_password_is_nowhere_to_be_seen(double: Double, capfd: pytest.CaptureFixture[str]) -> None:
    secret = "hunter2"
    with double.camera(f"rtsp://admin:{secret}@127.0.0.1:9/stream?token={secret}") as camera:
        camera.read(0.0)
        pid = camera.pid
        assert pid is not None
        assert secret not in Path(f"/proc/{pid}/cmdline").read_text()
        assert secret not in Path(f"/proc/{pid}/environ").read_text()
        assert camera.name == "rtsp://127.0.0.1:9"
        read_until(camera, lambda: bool(double.names), 10)
    assert double.names == ["camera_absent"]
    assert "Connection refused" in double.detail("camera_absent")
    output = capfd.readouterr()
    assert secret not in f"{output}{double.states}"


def test_descriptors_that_run_out_are_told_and_survived(double: Double) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with double.camera("picamera:?size=64x48") as camera:
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors() + 2, hard))
        try:
            assert camera.read(0.2) is None
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert double.names == ["camera_lost"]
        assert "Too many open files" in double.detail("camera_lost")
        read_until(camera, lambda: double.names[-1] == "camera_ok", 6)
