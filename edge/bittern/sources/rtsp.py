"""The source `rtsp`: a network camera, through OpenCV's FFmpeg."""

from __future__ import annotations

import os
import re
import socket
from typing import Annotated
from urllib.parse import unquote, urlsplit

import cv2
from msgspec import Meta

from bittern.errors import ConfigurationError, SourceError, redacted
from bittern.sources.capture import CaptureSource, silence_logs
from bittern.sources.orientation import OrientationOptions

_PORTS = {"rtsp": 554, "rtsps": 322}  # RFC 7826, section 4.2
_STATUS_BYTES = 4096


class RtspSource(CaptureSource):
    """An RTSP camera, over TCP; live.

    User and password are part of the address, `rtsp://user:password@host/path`; no name, message or event shows them.

    Raises:
        SourceError: exit code 2 if nothing answers, or access is refused.
    """

    class Options(OrientationOptions, forbid_unknown_fields=True):
        """Options of `[camera]`; the query of the address belongs to the camera.

        Attributes:
            open_timeout_s: time-out for the first frame.
            read_timeout_s: time-out for every further frame.
        """

        open_timeout_s: Annotated[float, Meta(gt=0, le=60)] = 8.0
        read_timeout_s: Annotated[float, Meta(gt=0, le=60)] = 5.0

    @classmethod
    def check(cls, address: str, options: Options) -> str:
        """The name of the source: scheme, host and port. Raises `ConfigurationError` for an invalid address."""
        name = redacted(address)
        if any(character.isspace() for character in address):
            raise ConfigurationError(f"source {name!r}: expected rtsp://host/path, without white space")
        if "://" not in name:
            why = (
                "has an @ after the first /, ? or #: in the password write @ as %40, / as %2F, ? as %3F and # as %23"
                if re.match(r"\w+://[^/?#]*[/?#].*@", address)
                else "expected rtsp://user:password@host:554/path"
            )
            raise ConfigurationError(f"source {name!r}: {why}")
        try:
            _ = urlsplit(address).port
        except ValueError:  # its text may quote the password
            raise ConfigurationError(f"source {name!r}: invalid port: expected rtsp://host:554/path") from None
        return name

    def __init__(self, address: str, options: Options) -> None:
        name = self.check(address, options)
        silence_logs()
        # OpenCV's default since 3.4, set explicitly in case it changes. A user's own setting takes precedence.
        os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", "rtsp_transport;tcp")
        open_ms, read_ms = round(options.open_timeout_s * 1000), round(options.read_timeout_s * 1000)
        timeouts = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, open_ms, cv2.CAP_PROP_READ_TIMEOUT_MSEC, read_ms]
        capture = cv2.VideoCapture(address, cv2.CAP_FFMPEG, timeouts)
        if not capture.isOpened():
            capture.release()
            raise SourceError(f"{name}: {_diagnose(address, options.open_timeout_s)}", exit_code=2)
        super().__init__(name, capture, options, "the stream ended or stalled: is the camera on the network?")


def _diagnose(address: str, timeout_s: float) -> str:
    """Why FFmpeg could not open an address: it does not say, so ask again with one DESCRIBE (RFC 2326, 10.2)."""
    parts = urlsplit(address)
    host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
    target = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    try:
        with socket.create_connection((host, port), timeout=timeout_s) as connection:
            if parts.scheme == "rtsps":
                return f"port {port} answers, but no stream can be opened there"
            connection.settimeout(timeout_s)
            connection.sendall(f"DESCRIBE {target} RTSP/1.0\r\nCSeq: 1\r\nAccept: application/sdp\r\n\r\n".encode())
            answer = connection.recv(_STATUS_BYTES)
    except TimeoutError:
        return f"no answer within {timeout_s:g} s: is an RTSP camera listening on port {port}?"
    except (OSError, UnicodeError) as error:
        return f"{getattr(error, 'strerror', None) or error}: check host and port {port}"
    status = answer.partition(b"\r\n")[0].decode("ascii", "replace")
    words = status.split(maxsplit=2)
    if len(words) < 2 or not words[0].startswith("RTSP/"):
        return f"port {port} does not speak RTSP"
    if words[1] == "401":
        if unquote(parts.username or ""):
            return "the camera refuses user and password"
        return "the camera requires user and password: rtsp://user:password@host/path"
    if words[1] == "404":
        return "the camera answers, but has no such path (404): see its manual for the path of its stream"
    if words[1] == "200":
        return "the camera answers, but gives no stream that FFmpeg can read"
    # Not the words after the number: they are the camera's, and may repeat what was asked for.
    return f"the camera answers with status {words[1][:3]}"
