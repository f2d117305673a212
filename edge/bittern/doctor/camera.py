"""Checks of the camera: whether it exists, is free, gives a frame, and has its colours right."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from bittern.doctor.findings import Finding, failure, ok, skipped, warning
from bittern.doctor.hardware import CONFIG
from bittern.doctor.probe_camera import DEMO_S, HOLD_S
from bittern.doctor.software import Installation
from bittern.doctor.steps import ProbeStep, probe
from bittern.errors import redacted
from bittern.system import machine
from bittern.system.commands import Runner

# For imports on a Pi Zero 2 W, opening the camera, and the first frame, for which a source waits 5 s.
TIMEOUT_S = 45.0
_ORDERS = {"BGR": "B, G, R", "RGB": "R, G, B"}
_STOP = "sudo systemctl stop 'bittern@*'"


def run_probe(runner: Runner, python: str, source: str, red: bool) -> dict[str, ProbeStep]:
    """Probe the camera in a child process.

    Args:
        runner: runs the probe.
        python: the interpreter for it.
        source: URI of the camera.
        red: whether something red is held in front of it.
    """
    timeout_s = TIMEOUT_S + (HOLD_S if red else DEMO_S if source.startswith("demo:") else 0.0)
    # On stdin, because an address may hold a password, and everybody can read the arguments of a process.
    return probe(runner, python, "bittern.doctor.probe_camera", ["red"] if red else [], timeout_s, source)


def check(
    steps: Mapping[str, ProbeStep], source: str, root: Path, installation: Installation, is_pi: bool
) -> list[Finding]:
    """Turn the steps of the probe into findings; `root` contains `proc` and `boot`."""
    failed = next((s for s in steps.values() if s.error is not None), None)
    if failed is None:
        return [_camera(steps), _colours(steps)]
    match = re.fullmatch(r"(?:(\w+)Error: )?(.*)", failed.error or "")
    assert match is not None
    kind, error = match[1], match[2]
    if failed.step in ("red", "sign"):
        return [_camera(steps), failure("colours", error, "sudo dmesg | tail")]
    daemon = _daemon(root)
    if "busy" in error and daemon is not None:
        reason = f"the daemon is using it; to check it: {_STOP}, and start it again afterwards"
        return [ok("camera", f"in use by Bittern's daemon (process {daemon})"), skipped("colours", reason)]
    if kind == "Configuration":
        fix = "bittern doctor --source usb:0   (or picamera:, demo:, ...)"
    elif kind == "Source" and source.lower().startswith(("rtsp://", "rtsps://")):
        fix = _network_fix(source, error)
    else:
        fix = _fix(source, error, root, installation, is_pi)
    return [failure("camera", error, fix), skipped("colours", "no frame to check")]


def _camera(steps: Mapping[str, ProbeStep]) -> Finding:
    opened, frame = steps["open"].result, steps["frame"].result
    assert opened is not None
    assert frame is not None
    pixel_format = f", libcamera gives {opened['format']}" if opened["format"] else ""
    return ok("camera", f"{opened['name']}: received a frame of {frame['width']}x{frame['height']}{pixel_format}")


def _colours(steps: Mapping[str, ProbeStep]) -> Finding:
    opened, frame = steps["open"].result, steps["frame"].result
    assert opened is not None
    assert frame is not None
    declared = f"declared {_ORDERS[frame['order']]}"
    test, subject, wait_s = steps.get("sign"), "the drawn stop sign", DEMO_S
    if test is None:
        test, subject, wait_s = steps.get("red"), "the object in front of the camera", HOLD_S
    if test is None:
        if not opened["live"]:
            return skipped("colours", "a recording, which OpenCV decodes")
        order = f"libcamera's {opened['format']}" if opened["format"] else "OpenCV's own order"
        return ok("colours", f"{declared}, like {order}; to test it, hold something red into view and use --red")
    assert test.result is not None
    if test.result["colour"] == "red":
        return ok("colours", f"{subject} is red ({declared})")
    if test.result["colour"] == "blue":
        fix = "no setting fixes this; please report it: bittern doctor --red --report"
        return failure("colours", f"{subject} appears blue: if it is red, red and blue are swapped ({declared})", fix)
    return warning(
        "colours",
        f"no clear red in the middle of the picture within {wait_s:.0f} s",
        "bittern doctor --red   (with something evenly red that fills the middle of the picture, in good light)",
    )


def _daemon(root: Path) -> int | None:
    """Process id of a `bittern watch` on this machine, of any user."""
    for process in sorted(root.glob("proc/[0-9]*")):
        arguments = (machine.text(process / "cmdline") or "").split("\0")
        if "watch" in arguments and any(Path(argument).name == "bittern" for argument in arguments):
            return int(process.name)
    return None


def _network_fix(source: str, error: str) -> str:
    """The command that fixes an error of an RTSP source (see `bittern.sources.rtsp`)."""
    scheme, _, host = redacted(source).partition("://")
    if "no answer" in error or "check host" in error:
        name = urlsplit(f"//{host}").hostname or "HOST"
        return f"ping -c 3 {shlex.quote(name)}   (if it answers, look for its RTSP port in the camera's settings)"
    return f"bittern doctor --source {scheme}://USER:PASSWORD@{host}/PATH   (see the camera's settings)"


def _fix(source: str, error: str, root: Path, installation: Installation, is_pi: bool) -> str:
    """The command that fixes an error of a source or of the probe."""
    if "no module" in error:
        return (
            installation.add("picamera2", "python3-picamera2", "picamera2")
            if is_pi
            else "bittern doctor --source usb:0"
        )
    if "size changed" in error:
        return installation.remove(None, "numpy")
    if "does not load" in error:
        return "sudo apt install --reinstall -y python3-picamera2 python3-libcamera"
    if "no permission" in error:
        return "sudo usermod -aG video $USER   (then log in again)"
    if "busy" in error:
        holder = re.search(r"held by process ([0-9]+)", error)
        return f"sudo kill {holder[1]}" if holder else "sudo fuser -v /dev/media* /dev/video*   (then sudo kill NUMBER)"
    if "allocate memory" in error:
        return "sudo reboot   (the contiguous memory is used up)"
    if any(word in error for word in ("no answer", "hangs", "crashed")):
        return "sudo reboot   (if it happens again: press in the cable at both ends, with the power off)"
    if source.startswith("picamera:") and "no camera found" in error:
        # Detection is on by default in every image; third-party cameras need a dtoverlay= line instead.
        config = machine.text(root / CONFIG.lstrip("/")) or ""
        if config and not re.search(r"^(camera_auto_detect=1|dtoverlay=(imx|ov|arducam))", config, re.MULTILINE):
            return f"echo camera_auto_detect=1 | sudo tee -a {CONFIG} && sudo reboot"
        return "rpicam-hello --list-cameras   (after pressing in the cable at both ends, with the power off)"
    if source.startswith("picamera:"):
        return "rpicam-hello --list-cameras"
    return "v4l2-ctl --list-devices   (from the package v4l-utils)"
