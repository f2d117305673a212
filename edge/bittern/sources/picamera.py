"""The source `picamera`: a Raspberry Pi camera, through picamera2 and libcamera."""

from __future__ import annotations

import logging
import os
import time
from concurrent.futures import CancelledError
from typing import Any

from bittern.errors import ConfigurationError, SourceError, one_line, redacted
from bittern.frames import Frame, Source, wall_clock_of
from bittern.sources.devices import held_by
from bittern.sources.orientation import oriented
from bittern.sources.picamera_controls import PicameraOptions, controls_of
from bittern.sources.pixel_formats import KNOWN_FORMATS, to_pixels
from bittern.sources.sensor_modes import choose_mode
from bittern.sources.uri import parse_size

_log = logging.getLogger("bittern")
_FORMAT = "RGB888"  # arrays in B, G, R order, as OpenCV has them: see pixel_formats
_DEVICES = ("/dev/media*", "/dev/video*")


class PicameraSource(Source):
    """A libcamera camera; live: `read` gives the newest frame, older ones are dropped.

    Attributes:
        pixel_format: the format that libcamera gives, which may differ from the requested one.
        size: width and height that libcamera gives, in pixels.

    Raises:
        SourceError: exit code 2 if picamera2 or the camera is missing, or the camera is busy or gives
            an unknown format.
        ConfigurationError: an option that this camera does not support.
    """

    live = True

    Options = PicameraOptions

    @classmethod
    def check(cls, address: str, options: PicameraOptions) -> str:
        """The name of the source. Raises `ConfigurationError` for an invalid address or option."""
        name = f"picamera:{options.camera}"
        if address:
            raise ConfigurationError(
                f"source {redacted(f'picamera:{address}')!r}: expected no address; a camera's number is an option: "
                "picamera:?camera=1"
            )
        parse_size(options.size)
        if options.sensor_mode is not None:
            parse_size(options.sensor_mode, "sensor_mode")
        if options.autofocus == "manual" and options.lens_position is None:
            raise ConfigurationError(f"{name}: autofocus=manual needs a lens_position")
        if options.autofocus in ("continuous", "off") and options.lens_position is not None:
            raise ConfigurationError(
                f"{name}: lens_position={options.lens_position:g} is a fixed focus, but autofocus={options.autofocus}: "
                "leave one of them out"
            )
        if options.exposure_us is not None and options.exposure_us > 1e6 / options.fps:
            raise ConfigurationError(
                f"{name}: exposure_us={options.exposure_us} is longer than a frame at fps={options.fps:g}, "
                f"{1e6 / options.fps:.0f} µs: lower fps"
            )
        return name

    def __init__(self, address: str, options: PicameraOptions) -> None:
        self.name = self.check(address, options)
        self._last_stamp = 0
        self._first_sequence: int | None = None
        self._count = 0
        self._due = 0.0
        self._camera: Any = None
        libcamera, picamera2 = _import_picamera2(self.name)
        self._camera = _open(picamera2.Picamera2, options.camera, self.name)
        try:
            self._configure(libcamera, parse_size(options.size), options)
            self._camera.start()
        except BaseException as error:
            self.close()
            if isinstance(error, RuntimeError):  # raised by libcamera's binding and picamera2
                raise SourceError(f"{self.name}: the camera does not start: {_reason(error)}", exit_code=2) from None
            raise

    def _configure(self, libcamera: Any, size: tuple[int, int], options: PicameraOptions) -> None:
        camera = self._camera
        # libcamera itself can turn by 180 degrees and mirror. 90 and 270 degrees are done here.
        half = options.rotation == 180
        quarter = options.rotation in (90, 270)
        hflip, vflip = (False, False) if quarter else (options.hflip != half, options.vflip != half)
        transform = libcamera.Transform(hflip=int(hflip), vflip=int(vflip))
        # picamera2 refuses controls that a camera does not have. Without this one, `read` spaces the frames.
        self._spacing = 0.0 if "FrameDurationLimits" in camera.camera_controls else 1.0 / options.fps
        controls = controls_of(self.name, libcamera.controls, camera.camera_controls, options)
        mode = choose_mode(camera, size, options.sensor_mode, self.name)
        camera.configure(
            camera.create_video_configuration(
                main={"format": _FORMAT, "size": size},
                raw=None,  # it would not be read; libcamera's virtual camera has none at all
                transform=transform,
                colour_space=libcamera.ColorSpace.Smpte170m(),  # the one that pixel_formats converts if it is YUV
                buffer_count=4,
                queue=False,  # a frame taken after the call, not one that waits in picamera2
                controls=controls,
                **({"sensor": mode} if mode else {}),
            )
        )
        # libcamera silently adjusts what it cannot do.
        actual = camera.camera_configuration()
        self.pixel_format = str(actual["main"]["format"])
        self.size = (int(actual["main"]["size"][0]), int(actual["main"]["size"][1]))
        applied = actual["transform"]
        # Rotation and mirroring that remain to be done here.
        self._remaining = (
            options.rotation if quarter else 0,
            options.hflip if quarter else hflip != bool(applied.hflip),
            options.vflip if quarter else vflip != bool(applied.vflip),
        )
        if self.pixel_format not in KNOWN_FORMATS:
            raise SourceError(
                f"{self.name}: libcamera gives pixel format {self.pixel_format} instead of {_FORMAT}: "
                f"expected one of {', '.join(KNOWN_FORMATS)}",
                exit_code=2,
            )
        if (self.pixel_format, self.size) != (_FORMAT, size):
            _log.warning(
                "%s: requested %s %dx%d, libcamera gives %s %dx%d: converted",
                self.name,
                _FORMAT,
                *size,
                self.pixel_format,
                *self.size,
            )
        sensor = actual.get("sensor")
        if mode and sensor and tuple(sensor["output_size"]) != tuple(mode["output_size"]):
            _log.warning(
                "%s: requested sensor mode %s, libcamera uses %s: the field of view may be cropped",
                self.name,
                mode["output_size"],
                sensor["output_size"],
            )

    def read(self) -> Frame | None:
        """The next frame that is newer than the last one; None once closed.

        `monotonic_ns` is libcamera's SensorTimestamp where there is one. `number` is libcamera's count of requests,
        which continues while no frame is read.

        Raises:
            SourceError: no new frame within `timeout_s`, or a frame that does not fit the configuration.
        """
        deadline = time.monotonic() + self.timeout_s
        while (camera := self._camera) is not None:
            if self._spacing:
                time.sleep(max(0.0, self._due - time.monotonic()))
                self._due = time.monotonic() + self._spacing
            try:
                request = self._next_request(camera, deadline)
                if request is None:
                    break
                try:
                    frame = self._frame_of(request)
                finally:
                    request.release()  # it holds one of four buffers; the stream stops without a free one
            except RuntimeError as error:
                raise SourceError(f"{self.name}: the frame cannot be read: {_reason(error)}") from None
            if frame is not None:
                return frame
            if time.monotonic() > deadline:
                raise SourceError(f"{self.name}: the camera gave the same frame for {self.timeout_s:g} s: it hangs")
        return None

    def _next_request(self, camera: Any, deadline: float) -> Any:
        """A completed request, or None when the source was closed meanwhile."""
        job = camera.capture_request(wait=False)
        try:
            return camera.wait(job, timeout=max(0.0, deadline - time.monotonic()))
        except CancelledError:
            return None
        except TimeoutError:
            pass
        # Otherwise the job would take the next buffer and never give it back: after four time-outs the stream stops
        # for good. So not `capture_request(wait=seconds)`, which does not give access to its job.
        camera.cancel_all_and_flush()
        try:
            return camera.wait(job, timeout=1.0)  # if it was just being completed
        except (CancelledError, TimeoutError):
            pass
        if self._camera is None:
            return None
        raise SourceError(
            f"{self.name}: no new frame within {self.timeout_s:g} s: the camera hangs or came loose; "
            "check the cable and `dmesg`"
        )

    def _frame_of(self, request: Any) -> Frame | None:
        """The frame in a completed request, or None if it is not newer than the last one."""
        metadata = request.get_metadata()
        stamp = metadata.get("SensorTimestamp")
        if stamp is not None:
            if stamp <= self._last_stamp:
                return None
            self._last_stamp = stamp
        monotonic_ns = time.monotonic_ns() if stamp is None else on_monotonic_clock(stamp)
        pixels, order = to_pixels(request.make_array("main"), self.pixel_format, self.size)
        return Frame(
            pixels=oriented(pixels, *self._remaining),
            order=order,
            monotonic_ns=monotonic_ns,
            time_ns=wall_clock_of(monotonic_ns),
            number=self._number(request),
            source=self.name,
        )

    def _number(self, request: Any) -> int:
        sequence = getattr(request.request, "sequence", None)
        if sequence is None:
            self._count += 1
            return self._count - 1
        if self._first_sequence is None:
            self._first_sequence = sequence
        return int(sequence) - self._first_sequence

    def close(self) -> None:
        """Stop the camera and release it; a `read` that waits in another thread returns."""
        camera, self._camera = self._camera, None
        if camera is not None:
            camera.cancel_all_and_flush()  # ends the wait of that `read`
            camera.close()  # stops it first


def on_monotonic_clock(stamp_ns: int) -> int:
    """Convert libcamera's SensorTimestamp (ns) to the monotonic clock (ns), never in the future.

    libcamera documents CLOCK_BOOTTIME; the kernel's V4L2 buffers, from which its pipelines copy it, carry
    CLOCK_MONOTONIC. The two differ by the time that the machine was suspended, and only CLOCK_BOOTTIME can lie in the
    future of the monotonic clock: that tells them apart. A stamp from neither clock counts as "now".
    """
    now = time.monotonic_ns()
    if stamp_ns > now:
        stamp_ns -= time.clock_gettime_ns(time.CLOCK_BOOTTIME) - now
    return stamp_ns if 0 < stamp_ns <= now else now


def _import_picamera2(name: str) -> tuple[Any, Any]:
    os.environ.setdefault("LIBCAMERA_LOG_LEVELS", "*:ERROR")  # read by libcamera when it is loaded
    # Bittern reports its errors in a line of its own.
    logging.getLogger("picamera2").addHandler(logging.NullHandler())
    try:
        import libcamera

        import picamera2
    except ModuleNotFoundError as error:
        raise SourceError(
            f"{name}: Python has no module {error.name}: apt install python3-picamera2 --no-install-recommends; "
            "a virtual environment needs --system-site-packages to see it; not a Raspberry Pi? Use --source usb:0",
            exit_code=2,
        ) from None
    except (ImportError, ValueError) as error:  # ValueError: "numpy.dtype size changed"
        raise SourceError(
            f"{name}: picamera2 does not load: {one_line(error)}; a virtual environment on a Raspberry Pi must not "
            "have its own numpy or OpenCV",
            exit_code=2,
        ) from None
    return libcamera, picamera2


def _open(picamera2_class: Any, number: int, name: str) -> Any:
    try:
        cameras = picamera2_class.global_camera_info()
        if not cameras:
            raise SourceError(
                f"{name}: no camera found: check the ribbon cable, then `rpicam-hello --list-cameras`",
                exit_code=2,
            )
        if number >= len(cameras):
            models = ", ".join(f"{i} ({info.get('Model', '?')})" for i, info in enumerate(cameras))
            raise SourceError(
                f"{name}: no camera {number}, only {models}; see `rpicam-hello --list-cameras`",
                exit_code=2,
            )
        return picamera2_class(number)
    except RuntimeError as error:
        reason = _reason(error)
        if "busy" in reason.lower():
            text = f"{name}: the camera is busy: {held_by(*_DEVICES)}"
            raise SourceError(text, exit_code=2, busy=True) from None
        raise SourceError(
            f"{name}: the camera does not open: {reason}; see `rpicam-hello --list-cameras`", exit_code=2
        ) from None


def _reason(error: BaseException) -> str:
    """The original error: picamera2 wraps libcamera's errors in less specific ones."""
    while error.__cause__ is not None:
        error = error.__cause__
    return one_line(error)
