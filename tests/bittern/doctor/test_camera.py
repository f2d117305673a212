"""The doctor and the camera: what it says of each fault, on faked Raspberry Pis and with the real probe."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.doubles import picamera2_double
from tests.doubles.capture_double import write_video
from tests.doubles.pi_machines import CONFIG, PACKAGES, PYTHON, Pi, finding_of, look, pi, step

from bittern.doctor import probe_camera
from bittern.doctor.examine import examine
from bittern.doctor.probe_camera import colour_of
from bittern.errors import ConfigurationError
from bittern.frames import Frame, Order
from bittern.sources.demo import DemoSource
from bittern.system.commands import CommandResult

NO_CAMERA = "SourceError: picamera:0: no camera found: check the ribbon cable, then `rpicam-hello --list-cameras`"


@pytest.fixture
def pi4(tmp_path: Path) -> Pi:
    return pi(tmp_path, "pi4", "bookworm")


def broken(fake: Pi, error: str, failing: str = "open") -> None:
    names = list(fake.camera)
    fake.camera = {name: fake.camera[name] for name in names[: names.index(failing)]}
    fake.camera[failing] = step(failing, error=error)


@pytest.mark.parametrize(
    ("error", "fix"),
    [
        (NO_CAMERA, "rpicam-hello --list-cameras   (after pressing"),
        ("SourceError: picamera:0: Python has no module picamera2: apt install", "include-system-site-packages"),
        ("SourceError: picamera:0: picamera2 does not load: numpy.dtype size changed", "pip uninstall -y numpy"),
        ("SourceError: picamera:0: picamera2 does not load: libcamera.so.0.3", "--reinstall -y python3-picamera2"),
        ("SourceError: picamera:0: the camera is busy: held by process 812 (motion)", "sudo kill 812"),
        ("SourceError: picamera:0: the camera is busy: no process of this user", "sudo fuser -v /dev/media*"),
        ("SourceError: picamera:0: the camera does not start: Cannot allocate memory", "sudo reboot"),
        ("SourceError: usb:0: no permission to use /dev/video0: sudo ...", "sudo usermod -aG video $USER"),
        ("SourceError: picamera:0: libcamera gives pixel format R8 instead of RGB888", "rpicam-hello --list-cameras"),
        ("ConfigurationError: size '3': expected WIDTHxHEIGHT", "bittern doctor --source"),
    ],
)
def test_a_camera_that_does_not_open(pi4: Pi, error: str, fix: str) -> None:
    broken(pi4, error)
    examination = look(pi4)
    assert not examination.ok
    finding = finding_of(examination, "camera")
    assert (finding.status, finding.finding) == ("failure", error.partition("Error: ")[2])
    assert finding.fix is not None
    assert fix in finding.fix
    assert finding_of(examination, "colours").status == "skipped"


@pytest.mark.parametrize(
    ("error", "fix"),
    [
        ("SourceError: ...: no answer within 8 s: does an RTSP camera listen on port 554?", "ping -c 3 porch.lan "),
        ("SourceError: ...: Connection refused: check host and port 554", "ping -c 3 porch.lan "),
        ("SourceError: ...: the camera wants a user", "bittern doctor --source rtsp://USER:PASSWORD@porch.lan/PATH "),
        ("ImportError: libGL.so.1", "v4l2-ctl"),
        ("no answer within 45 s", "sudo reboot"),
    ],
)
def test_a_camera_of_the_network(pi4: Pi, error: str, fix: str) -> None:
    broken(pi4, error)
    finding = finding_of(look(pi4, "rtsp://anna:secret@porch.lan/live"), "camera")
    assert finding.fix is not None
    assert finding.fix.startswith(fix)
    assert "secret" not in str(finding)


def test_no_frame_comes(pi4: Pi) -> None:
    broken(pi4, "SourceError: picamera:0: no new frame within 5 s: the camera hangs or came loose", failing="frame")
    finding = finding_of(look(pi4), "camera")
    assert finding.status == "failure"
    assert finding.fix is not None
    assert finding.fix.startswith("sudo reboot")


@pytest.mark.parametrize("hanging", ["open", "frame"])
def test_a_driver_that_hangs(pi4: Pi, hanging: str) -> None:
    pi4.camera = {"open": pi4.camera["open"], hanging: step(hanging)}
    pi4.ends["probe_camera"] = (None, "")
    finding = finding_of(look(pi4), "camera")
    assert (finding.status, finding.finding) == ("failure", "no answer within 45 s")
    assert finding.fix is not None
    assert finding.fix.startswith("sudo reboot")


def test_picamera2_is_not_installed(pi4: Pi) -> None:
    (pi4.root / PACKAGES[1:] / "picamera2").unlink()
    broken(pi4, "SourceError: picamera:0: Python has no module libcamera: apt install ...")
    assert finding_of(look(pi4), "camera").fix == "sudo apt install -y --no-install-recommends python3-picamera2"


def test_the_detection_of_cameras_is_off(pi4: Pi) -> None:
    broken(pi4, NO_CAMERA)
    pi4.write("boot/firmware/config.txt", CONFIG.replace("camera_auto_detect=1", "#camera_auto_detect=1"))
    assert finding_of(look(pi4), "camera").fix == (
        "echo camera_auto_detect=1 | sudo tee -a /boot/firmware/config.txt && sudo reboot"
    )
    pi4.write("boot/firmware/config.txt", CONFIG.replace("camera_auto_detect=1", "dtoverlay=imx477"))
    finding = finding_of(look(pi4), "camera")
    assert finding.fix is not None
    assert "rpicam-hello" in finding.fix


def test_the_daemon_may_have_the_camera(pi4: Pi) -> None:
    broken(pi4, "SourceError: picamera:0: the camera is busy: no process of this user is seen holding it")
    pi4.write("proc/900/cmdline", "/usr/bin/python3\0/usr/local/bin/bittern\0doctor\0")  # ourselves
    pi4.write("proc/901/cmdline", "/usr/bin/watch\0vcgencmd\0measure_temp\0")
    assert finding_of(look(pi4), "camera").status == "failure"
    python = "/opt/bittern/current/venv/bin/python3"
    pi4.write("proc/977/cmdline", f"{python}\0{python.replace('python3', 'bittern')}\0watch\0--config\0x.toml\0")
    examination = look(pi4)
    assert examination.ok
    assert finding_of(examination, "camera").finding == "in use by Bittern's daemon (process 977)"
    assert "sudo systemctl stop 'bittern@*'" in finding_of(examination, "colours").finding


@pytest.mark.parametrize(
    ("colour", "status", "says"),
    [
        ("red", "ok", "the object in front of the camera is red (declared B, G, R)"),
        ("blue", "failure", "red and blue are swapped"),
        (None, "warning", "no clear red"),
    ],
)
def test_red_is_red(pi4: Pi, colour: str | None, status: str, says: str) -> None:
    pi4.camera["red"] = step("red", {"colour": colour})
    finding = finding_of(look(pi4, red=True), "colours")
    assert finding.status == status
    assert says in finding.finding
    assert (finding.fix is None) is (status == "ok")


def test_the_user_is_told_when_to_hold_something(pi4: Pi) -> None:
    pi4.camera["red"] = step("red", {"colour": "red"})
    notices: list[str] = []
    examine(red=True, notice=notices.append, root=pi4.root, runner=pi4, python=PYTHON)
    assert len(notices) == 1
    assert "red" in notices[0]


def test_a_machine_that_is_no_pi_has_no_camera_unless_named(tmp_path: Path) -> None:
    def nothing(command: object, timeout_s: float = 5.0, stdin: str = "") -> CommandResult:
        return CommandResult(None, err="gone")

    examination = examine(root=tmp_path, runner=nothing, python=PYTHON)
    assert finding_of(examination, "camera").status == finding_of(examination, "colours").status == "skipped"
    with pytest.raises(ConfigurationError, match="--source"):
        examine(red=True, root=tmp_path, runner=nothing, python=PYTHON)


# The real probe, with doubles of the camera only.


def printed(capsys: pytest.CaptureFixture[str], fake: Pi, uri: str, *, red: bool = False) -> None:
    """Let the real probe run in this process, and give the fake machine what it printed."""
    probe_camera.main(uri, look_for_red=red)
    fake.camera = {"all": capsys.readouterr().out.splitlines()}


def test_picamera(pi4: Pi, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    world = picamera2_double.install(monkeypatch)
    printed(capsys, pi4, "picamera:")
    examination = look(pi4)
    camera = finding_of(examination, "camera")
    assert camera.finding == "picamera:0: received a frame of 640x480, libcamera gives RGB888"
    assert finding_of(examination, "colours").status == "ok"
    assert world.opened == 0, "the camera was given back"


def test_picamera_that_is_busy(pi4: Pi, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    world = picamera2_double.install(monkeypatch)
    world.open_error = RuntimeError("Failed to acquire camera: Device or resource busy")
    printed(capsys, pi4, "picamera:")
    finding = finding_of(look(pi4), "camera")
    assert finding.status == "failure"
    assert finding.finding.startswith("picamera:0: the camera is busy")


@pytest.mark.parametrize("given", ["RGB888", "BGR888", "NV12", "XBGR8888"])
@pytest.mark.parametrize(
    ("rgb", "status"), [((200, 20, 20), "ok"), ((20, 20, 200), "failure"), ((99, 99, 99), "warning")]
)
def test_what_is_held_before_a_picamera(
    pi4: Pi,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    given: str,
    rgb: tuple[int, int, int],
    status: str,
) -> None:
    world = picamera2_double.install(monkeypatch)
    monkeypatch.setattr(probe_camera, "HOLD_S", 0.3)
    world.adjust = {"format": given}
    world.array = picamera2_double.array_of(np.full((480, 640, 3), rgb, np.uint8), given)
    printed(capsys, pi4, "picamera:?fps=100", red=True)
    assert finding_of(look(pi4, red=True), "colours").status == status


def test_the_demonstration() -> None:
    """The real probe in a real process: the sign that the street draws is red in the order that is declared."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "bittern.doctor.probe_camera"],
        input="demo:?fps=5&size=320x240",
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert '{"step": "sign", "result": {"colour": "red"}}' in done.stdout


def test_the_demonstration_with_its_order_declared_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], pi4: Pi
) -> None:
    real = DemoSource.read

    def swapped(self: DemoSource) -> Frame | None:
        if self._start_ns is None:
            self._start_ns = time.monotonic_ns() - 6 * 10**9  # half of the lap is over: the sign is near
        frame = real(self)
        assert frame is not None
        return msgspec.structs.replace(frame, order="BGR")

    monkeypatch.setattr(DemoSource, "read", swapped)
    printed(capsys, pi4, "demo:?fps=5&size=320x240")
    finding = finding_of(look(pi4, "demo:"), "colours")
    assert finding.status == "failure"
    assert "swapped" in finding.finding


def test_a_recording(pi4: Pi, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    printed(capsys, pi4, str(write_video(tmp_path / "clip.avi", 5)))
    examination = look(pi4)
    assert finding_of(examination, "camera").status == "ok"
    assert finding_of(examination, "colours").status == "skipped"


COLOURS = {"red": (210, 25, 30), "dark red": (120, 10, 20), "blue": (25, 40, 205), "green": (20, 160, 30)}


@pytest.mark.parametrize("order", ["BGR", "RGB"])
@pytest.mark.parametrize(("name", "expected"), [("red", "red"), ("dark red", "red"), ("blue", "blue"), ("green", None)])
def test_colours(order: Order, name: str, expected: str | None) -> None:
    rgb = np.full((24, 32, 3), COLOURS[name], np.uint8)
    noise = np.random.default_rng(1).integers(-10, 11, rgb.shape)
    pixels = np.clip(rgb + noise, 0, 255).astype(np.uint8)
    assert colour_of(pixels if order == "RGB" else pixels[..., ::-1], order) == expected


@pytest.mark.parametrize(("rows", "expected"), [(0, None), (9, None), (13, "red"), (24, "red")])
@pytest.mark.parametrize("rest", [(120, 120, 120), (20, 160, 30)])
def test_a_colour_fills_at_least_half(rows: int, expected: str | None, rest: tuple[int, int, int]) -> None:
    pixels = np.full((24, 32, 3), rest, np.uint8)
    pixels[:rows] = COLOURS["red"]
    assert colour_of(pixels, "RGB") == expected


def test_half_red_and_half_blue_is_neither() -> None:
    pixels = np.full((24, 32, 3), COLOURS["red"], np.uint8)
    pixels[12:] = COLOURS["blue"]
    assert colour_of(pixels, "RGB") is None


@given(hue=st.integers(0, 255), level=st.integers(0, 255))
def test_grey_and_skin_are_no_clear_red(hue: int, level: int) -> None:
    assert colour_of(np.full((8, 8, 3), level, np.uint8), "RGB") is None
    skin = cv2.cvtColor(np.full((8, 8, 3), (10, 90, level), np.uint8), cv2.COLOR_HSV2RGB).astype(np.uint8)
    assert colour_of(skin, "RGB") is None


@given(st.tuples(*[st.integers(0, 255)] * 3))
def test_swapping_the_ends_of_red_gives_blue_and_never_red(rgb: tuple[int, int, int]) -> None:
    pixels = np.full((8, 8, 3), rgb, np.uint8)
    colours = {colour_of(pixels, "RGB"), colour_of(pixels, "BGR")}
    assert colours in ({None}, {"red", "blue"}, {"red", None}, {"blue", None})
