"""Checks of the camera: is it there, does somebody hold it, does a frame come, is red red."""

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
from bittern.doctor.steps import Step, probe
from bittern.system import machine
from bittern.system.commands import Runner

# Imports on a Pi Zero 2 W, opening, and the first frame, which a source waits 5 s for.
TIMEOUT_S = 45.0
_ORDERS = {"BGR": "B, G, R", "RGB": "R, G, B"}
_STOP = "sudo systemctl stop 'bittern@*'"


def look(runner: Runner, python: str, source: str, red: bool) -> dict[str, Step]:
    """Probe in a child process.

    Args:
        runner: runs the probe.
        python: the interpreter for it.
        source: URI of the camera.
        red: whether something red is held before it.
    """
    timeout_s = TIMEOUT_S + (HOLD_S if red else DEMO_S if source.startswith("demo:") else 0.0)
    return probe(runner, python, "bittern.doctor.probe_camera", (source, *(["red"] if red else [])), timeout_s)


def check(steps: Mapping[str, Step], source: str, root: Path, there: Installation, is_pi: bool) -> list[Finding]:
    """What the steps of the probe mean; `root` holds `proc` and `boot`."""
    bad = next((s for s in steps.values() if s.error is not None), None)
    if bad is None:
        return [_camera(steps), _colours(steps)]
    said = re.fullmatch(r"(?:(\w+)Error: )?(.*)", bad.error or "")
    assert said is not None
    kind, error = said[1], said[2]
    if bad.step in ("red", "sign"):
        return [_camera(steps), failure("colours", error, "sudo dmesg | tail")]
    daemon = _daemon(root)
    if "busy" in error and daemon is not None:
        why = f"the daemon has it; to look: {_STOP}, and start it again afterwards"
        return [ok("camera", f"in use by Bittern's daemon (process {daemon})"), skipped("colours", why)]
    if kind == "Configuration":
        fix = "bittern doctor --source usb:0   (or picamera:, demo:, ...)"
    elif kind == "Source" and source.lower().startswith(("rtsp://", "rtsps://")):
        fix = _network_fix(source, error)
    else:
        fix = _fix(source, error, root, there, is_pi)
    return [failure("camera", error, fix), skipped("colours", "no frame to look at")]


def _camera(steps: Mapping[str, Step]) -> Finding:
    opened, frame = steps["open"].said, steps["frame"].said
    assert opened is not None
    assert frame is not None
    granted = f", libcamera gives {opened['format']}" if opened["format"] else ""
    return ok("camera", f"{opened['name']}: a frame of {frame['width']}x{frame['height']} came{granted}")


def _colours(steps: Mapping[str, Step]) -> Finding:
    opened, frame = steps["open"].said, steps["frame"].said
    assert opened is not None
    assert frame is not None
    declared = f"declared {_ORDERS[frame['order']]}"
    looked, what, wait_s = steps.get("sign"), "the drawn stop sign", DEMO_S
    if looked is None:
        looked, what, wait_s = steps.get("red"), "what was held before the camera", HOLD_S
    if looked is None:
        if not opened["live"]:
            return skipped("colours", "a recording, which OpenCV decodes")
        by = f"libcamera's {opened['format']}" if opened["format"] else "OpenCV's own order"
        return ok("colours", f"{declared}, as {by} is; not looked at: hold something red into view and say --red")
    assert looked.said is not None
    if looked.said["colour"] == "red":
        return ok("colours", f"{what} is red ({declared})")
    if looked.said["colour"] == "blue":
        fix = "no setting mends this; please report it: bittern doctor --red --report"
        return failure("colours", f"{what} is blue if it was red: red and blue are swapped ({declared})", fix)
    return warning(
        "colours",
        f"no clear red came into the middle of the picture within {wait_s:.0f} s",
        "bittern doctor --red   (with something evenly red that fills the middle of the picture, in good light)",
    )


def _daemon(root: Path) -> int | None:
    """Process number of a `bittern watch` of this machine, whoever's it is."""
    for process in sorted(root.glob("proc/[0-9]*")):
        words = (machine.text(process / "cmdline") or "").split("\0")
        if "watch" in words and any(Path(word).name == "bittern" for word in words):
            return int(process.name)
    return None


def _network_fix(source: str, error: str) -> str:
    """The command for what an RTSP source said (see `bittern.sources.rtsp`)."""
    parts = urlsplit(source)
    host = parts.hostname or "HOST"
    if "no answer" in error or "check host" in error:
        return f"ping -c 3 {shlex.quote(host)}   (if it answers, look for its RTSP port in the camera's settings)"
    return (
        f"bittern doctor --source {parts.scheme}://USER:PASSWORD@{host}/PATH   (all three as the camera's settings say)"
    )


def _fix(source: str, error: str, root: Path, there: Installation, is_pi: bool) -> str:
    """The command for what a source, or the probe, said."""
    if "no module" in error:
        return there.add("picamera2", "python3-picamera2", "picamera2") if is_pi else "bittern doctor --source usb:0"
    if "size changed" in error:
        return there.remove(None, "numpy")
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
        return "sudo reboot   (if it comes back: press the cable in at both ends, with the power off)"
    if source.startswith("picamera:") and "no camera found" in error:
        # Detection is the default of every image; cameras of other makers need a dtoverlay= line instead.
        config = machine.text(root / CONFIG.lstrip("/")) or ""
        if config and not re.search(r"^(camera_auto_detect=1|dtoverlay=(imx|ov|arducam))", config, re.MULTILINE):
            return f"echo camera_auto_detect=1 | sudo tee -a {CONFIG} && sudo reboot"
        return "rpicam-hello --list-cameras   (after pressing the cable in at both ends, with the power off)"
    if source.startswith("picamera:"):
        return "rpicam-hello --list-cameras"
    return "v4l2-ctl --list-devices   (from the package v4l-utils)"
