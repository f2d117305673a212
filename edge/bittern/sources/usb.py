"""The source `usb`: a camera of the kernel's V4L2 interface, through OpenCV."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Annotated, Any

import cv2
from msgspec import Meta

from bittern.errors import ConfigurationError, SourceError
from bittern.sources.capture import CaptureSource, quiet
from bittern.sources.devices import held_by
from bittern.sources.orientation import OrientationOptions
from bittern.sources.uri import parse_size

_log = logging.getLogger("bittern")
# Menu items of V4L2_CID_EXPOSURE_AUTO, which OpenCV hands through as they are.
_EXPOSURE_MANUAL = 1


class UsbSource(CaptureSource):
    """A camera of the kernel's V4L2 interface; live.

    No USB camera was at hand when this was written: it runs in the tests against a double of `cv2.VideoCapture` and
    against a video file; opening a real device, the kernel's time stamps, and what a driver makes of its settings have
    not been run.

    Raises:
        ConfigurationError: a setting that this camera does not have.
        SourceError: exit code 2 when the camera is absent, not allowed or busy.
    """

    class Options(OrientationOptions, forbid_unknown_fields=True):
        """Options of the URI or of `[camera]`.

        Attributes:
            size: in pixels; the camera takes its nearest.
            fps: frames a second; the camera takes its nearest.
            exposure_us: a fixed exposure in microseconds; None leaves the automatic on.
            gain: fixed, in the camera's own unit (`v4l2-ctl --list-ctrls` shows its range).
            white_balance_k: a fixed colour temperature in kelvin; None leaves the automatic on.
            focus: fixed, in the camera's own unit; None leaves the automatic on.
        """

        size: str = "640x480"
        fps: Annotated[float, Meta(gt=0, le=1000)] = 15.0
        exposure_us: Annotated[int, Meta(ge=100, le=10_000_000)] | None = None
        gain: Annotated[float, Meta(ge=0, le=65535)] | None = None
        white_balance_k: Annotated[int, Meta(ge=1000, le=20000)] | None = None
        focus: Annotated[float, Meta(ge=0, le=65535)] | None = None

    @classmethod
    def check(cls, address: str, options: Options) -> str:
        """The name of the source. Raises `ConfigurationError` for an address or options that cannot be."""
        if not (address.isdecimal() or address.startswith("/")):
            raise ConfigurationError(
                f"source usb:{address}: expected the number of a camera (usb:0 is /dev/video0) or the path "
                "of its device (usb:/dev/v4l/by-id/...)"
            )
        parse_size(options.size)
        return f"usb:{address}"

    def __init__(self, address: str, options: Options) -> None:
        name = self.check(address, options)
        quiet()
        capture = _open_device(f"/dev/video{address}" if address.isdecimal() else address, name)
        try:
            _ask(capture, name, options)
            _fix(capture, name, options)
        except BaseException:
            capture.release()
            raise
        super().__init__(
            name, capture, options, "the camera gives no more frames: unplugged, or too little power? See `dmesg`"
        )


def _ask(capture: Any, name: str, options: UsbSource.Options) -> None:
    """Size and frame rate, of which a camera takes its nearest."""
    width, height = parse_size(options.size)
    asked = {
        cv2.CAP_PROP_FRAME_WIDTH: width,
        cv2.CAP_PROP_FRAME_HEIGHT: height,
        cv2.CAP_PROP_FPS: options.fps,
    }
    for what, value in asked.items():
        capture.set(what, value)
    given = [capture.get(what) for what in asked]
    if given != list(asked.values()):
        _log.warning(
            "%s: asked for %dx%d at %g frames a second, the camera gives %dx%d at %g",
            *(name, *asked.values(), *given),
        )


def _fix(capture: Any, name: str, options: UsbSource.Options) -> None:
    """Settings, which a camera has or not; the automatic that would change one again is switched off first."""
    steps: tuple[tuple[str, float | None, tuple[tuple[int, float], ...]], ...] = (
        (
            "exposure_us",
            options.exposure_us,
            # V4L2_CID_EXPOSURE_ABSOLUTE counts in 100 µs.
            (
                (cv2.CAP_PROP_AUTO_EXPOSURE, _EXPOSURE_MANUAL),
                (cv2.CAP_PROP_EXPOSURE, round((options.exposure_us or 0) / 100)),
            ),
        ),
        ("gain", options.gain, ((cv2.CAP_PROP_GAIN, options.gain or 0.0),)),
        (
            "white_balance_k",
            options.white_balance_k,
            ((cv2.CAP_PROP_AUTO_WB, 0), (cv2.CAP_PROP_WB_TEMPERATURE, options.white_balance_k or 0)),
        ),
        ("focus", options.focus, ((cv2.CAP_PROP_AUTOFOCUS, 0), (cv2.CAP_PROP_FOCUS, options.focus or 0.0))),
    )
    for option, value, settings in steps:
        if value is not None and not all(capture.set(what, setting) for what, setting in settings):
            raise ConfigurationError(
                f"{name}: {option}={value:g}: this camera does not take it: see `v4l2-ctl --list-ctrls`, or leave "
                "the option out"
            )


def _open_device(device: str, name: str) -> Any:
    if not Path(device).exists():
        there = ", ".join(sorted(map(str, Path("/dev").glob("video*")))) or "no /dev/video* at all"
        raise SourceError(
            f"{name}: there is no {device}, but {there}: check the plug, then `v4l2-ctl --list-devices`",
            exit_code=2,
        )
    if not os.access(device, os.R_OK | os.W_OK):
        raise SourceError(
            f"{name}: no permission to use {device}: sudo usermod -aG video $USER, then log in again",
            exit_code=2,
        )
    capture = cv2.VideoCapture(device, cv2.CAP_V4L2)
    if not capture.isOpened():
        capture.release()
        raise SourceError(
            f"{name}: {device} does not open as a camera: busy ({held_by(device)}), or a device that gives "
            "no pictures: see `v4l2-ctl --list-devices`",
            exit_code=2,
            busy=True,
        )
    return capture
