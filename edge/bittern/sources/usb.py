"""The source `usb`: a V4L2 camera, through OpenCV."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Annotated, Any

import cv2
from msgspec import Meta

from bittern.errors import ConfigurationError, SourceError, redacted
from bittern.sources.capture import CaptureSource, silence_logs
from bittern.sources.devices import held_by
from bittern.sources.orientation import OrientationOptions
from bittern.sources.uri import parse_size

_log = logging.getLogger("bittern")
# An item of V4L2_CID_EXPOSURE_AUTO's menu; OpenCV passes it on unchanged.
_EXPOSURE_MANUAL = 1


class UsbSource(CaptureSource):
    """A V4L2 camera; live.

    Run with vivid, the kernel's virtual camera (`make test-pi`), and with doubles of `cv2.VideoCapture`; not yet with a
    real USB camera: how a real driver handles the settings is untested.

    Raises:
        ConfigurationError: a setting that this camera does not have.
        SourceError: exit code 2 if the camera is missing, not permitted or busy.
    """

    class Options(OrientationOptions, forbid_unknown_fields=True):
        """Options of the URI or of `[camera]`.

        Attributes:
            size: width and height in pixels; the camera takes the nearest that it has.
            fps: frames per second; the camera takes the nearest that it has.
            exposure_us: a fixed exposure in microseconds; None is automatic.
            gain: a fixed gain in the camera's own unit (`v4l2-ctl --list-ctrls` shows its range).
            white_balance_k: a fixed colour temperature in kelvin; None is automatic.
            focus: a fixed focus in the camera's own unit; None is automatic.
        """

        size: str = "640x480"
        fps: Annotated[float, Meta(gt=0, le=1000)] = 15.0
        exposure_us: Annotated[int, Meta(ge=100, le=10_000_000)] | None = None
        gain: Annotated[float, Meta(ge=0, le=65535)] | None = None
        white_balance_k: Annotated[int, Meta(ge=1000, le=20000)] | None = None
        focus: Annotated[float, Meta(ge=0, le=65535)] | None = None

    @classmethod
    def check(cls, address: str, options: Options) -> str:
        """The name of the source. Raises `ConfigurationError` for an invalid address or option."""
        if not (address.isdecimal() or (address.startswith("/") and redacted(address) == address)):
            raise ConfigurationError(
                f"source {redacted(f'usb:{address}')!r}: expected the number of a camera (usb:0 is /dev/video0) or the "
                "path of its device (usb:/dev/v4l/by-id/...)"
            )
        parse_size(options.size)
        return f"usb:{address}"

    def __init__(self, address: str, options: Options) -> None:
        name = self.check(address, options)
        silence_logs()
        capture = _open_device(f"/dev/video{address}" if address.isdecimal() else address, name)
        try:
            _set_format(capture, name, options)
            _set_controls(capture, name, options)
        except BaseException:
            capture.release()
            raise
        super().__init__(
            name, capture, options, "the camera gives no more frames: unplugged, or too little power? See `dmesg`"
        )


def _set_format(capture: Any, name: str, options: UsbSource.Options) -> None:
    """Request size and frame rate; a camera takes the nearest that it has."""
    width, height = parse_size(options.size)
    requested = {
        cv2.CAP_PROP_FRAME_WIDTH: width,
        cv2.CAP_PROP_FRAME_HEIGHT: height,
        cv2.CAP_PROP_FPS: options.fps,
    }
    for prop, value in requested.items():
        capture.set(prop, value)
    actual = [capture.get(prop) for prop in requested]
    if actual != list(requested.values()):
        _log.warning(
            "%s: requested %dx%d at %g frames per second, the camera gives %dx%d at %g",
            name,
            *requested.values(),
            *actual,
        )


def _set_controls(capture: Any, name: str, options: UsbSource.Options) -> None:
    """Set the configured controls; an automatic that would change one again is switched off first."""
    controls: tuple[tuple[str, float | None, tuple[tuple[int, float], ...]], ...] = (
        (
            "exposure_us",
            options.exposure_us,
            # V4L2_CID_EXPOSURE_ABSOLUTE is in units of 100 µs.
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
    for option, value, settings in controls:
        if value is not None and not all(capture.set(prop, setting) for prop, setting in settings):
            raise ConfigurationError(
                f"{name}: {option}={value:g}: this camera does not accept it: see `v4l2-ctl --list-ctrls`, or leave "
                "out the option"
            )


def _open_device(device: str, name: str) -> Any:
    if not Path(device).exists():
        devices = ", ".join(sorted(map(str, Path("/dev").glob("video*"))))
        reason = f"; found {devices}" if devices else ": no camera is connected (there is no /dev/video*)"
        raise SourceError(
            f"{name}: no {device}{reason}: check the plug, then `v4l2-ctl --list-devices`",
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
            f"{name}: {device} does not open as a camera: busy ({held_by(device)}), or not a device that gives "
            "pictures: see `v4l2-ctl --list-devices`",
            exit_code=2,
            busy=True,
        )
    return capture
