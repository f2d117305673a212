"""The registry of sources: one table of URI schemes."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

import msgspec

from bittern.errors import HIDDEN, ConfigurationError, did_you_mean, redacted
from bittern.frames import Source
from bittern.sources.uri import NETWORK

# scheme: (module, class, example). A module is imported only when used: each has heavy imports of its own.
SCHEMES: dict[str, tuple[str, str, str]] = {
    "demo": ("bittern.sources.demo", "DemoSource", "demo:?laps=1&seed=1"),
    "clip": ("bittern.sources.clip", "ClipSource", "the folder of a recording"),
    "folder": ("bittern.sources.folder", "FolderSource", "a folder of pictures"),
    "video": ("bittern.sources.video", "VideoSource", "a video file"),
    "usb": ("bittern.sources.usb", "UsbSource", "usb:0?size=640x480"),
    "rtsp": ("bittern.sources.rtsp", "RtspSource", "rtsp://user:password@host/path"),
    "rtsps": ("bittern.sources.rtsp", "RtspSource", "rtsps://host/path"),
    "bench": ("bittern.sources.npy", "BenchSource", "bench:frames.npy?fps=30"),
    "picamera": ("bittern.sources.picamera", "PicameraSource", "picamera:?size=640x480&fps=15&rotation=180"),
}

LOCAL = tuple(f"{scheme}:" for scheme in SCHEMES if scheme not in NETWORK)
# Which FFmpeg could read, but has no time-outs for.
_STREAMS = ("udp", "rtp", "srt", "rtmp", "tcp")
# Schemes whose sources are called by their path alone.
_PATHS = ("clip", "folder", "video")

# A value of the table [camera] in the configuration; in a URI every value is a string.
Value = str | int | float | bool


class SourceInfo(NamedTuple):
    """What is known about a source without opening it.

    Attributes:
        name: its name in frames and events.
        live: whether it is a camera, see `bittern.frames.Source`.
    """

    name: str
    live: bool


def open_source(uri: str, options: Mapping[str, Value] | None = None) -> Source:
    """Open `picamera:`, `usb:0`, `rtsp://host/path`, `demo:`, a video file, a recording or a folder of pictures.

    Options follow a question mark as in a web address, `usb:0?size=1280x720&fps=10`, or are given in `options`; those
    of `rtsp` only there, because its query belongs to the camera's own address.

    Raises:
        ConfigurationError: unknown scheme or option, a value of the wrong type, or an option given in both places.
        SourceError: the source does not exist or is busy.
    """
    cls, address, converted = _resolve(uri, options or {})
    return cls(address, converted)


def check_source(uri: str, options: Mapping[str, Value] | None = None) -> SourceInfo:
    """Check scheme, address and options like `open_source`, without opening anything.

    Raises:
        ConfigurationError: as `open_source`.
    """
    cls, address, converted = _resolve(uri, options or {})
    return SourceInfo(cls.check(address, converted), cls.live)


def _resolve(uri: str, options: Mapping[str, Value]) -> tuple[type[Source], str, msgspec.Struct]:
    """Class, address and options of a source."""
    scheme, address, query = _split(uri)
    source = redacted(address) if scheme in (*NETWORK, *_PATHS) else redacted(f"{scheme}:{address}")
    for key in options:
        if key in query:
            raise ConfigurationError(
                f"source {source!r}: the option {redacted(key)!r} is also in [camera]: leave one of them out"
            )
    module, name, _ = SCHEMES[scheme]
    cls: type[Source] = getattr(import_module(module), name)
    return cls, address, _convert(source, cls.Options, {**query, **options})


def _split(uri: str) -> tuple[str, str, dict[str, str]]:
    try:
        path, parts = Path(uri), urlsplit(uri)
        if path.is_dir():
            from bittern.sources.clip import is_clip  # which imports OpenCV, as every source of pictures

            return "clip" if is_clip(path) else "folder", uri, {}
        if path.is_char_device():
            raise ConfigurationError(f"{uri} is a device: a camera is usb:{uri}")
        if path.exists():
            return "video", uri, {}
        name, _, query = uri.partition("?")
        if query and Path(name).exists():
            return _split(name)[0], name, dict(parse_qsl(query, keep_blank_values=True))
    except ValueError:  # a NUL character, half an IPv6 address; the error's text quotes it
        raise ConfigurationError(f"source {redacted(uri)!r}: neither a path nor an address") from None
    except OSError as error:  # a name that is too long
        raise ConfigurationError(f"source {redacted(uri)!r}: {error.strerror}") from None
    if parts.scheme in NETWORK:
        return parts.scheme, uri, {}
    if parts.scheme in SCHEMES:
        options = parse_qsl(parts.query, keep_blank_values=True)
        if parts.netloc:
            raise ConfigurationError(f"source {redacted(uri)!r}: leave out the // after {parts.scheme}:")
        if len(dict(options)) < len(options):
            raise ConfigurationError(f"source {redacted(f'{parts.scheme}:{parts.path}')!r}: an option is given twice")
        if parts.scheme in _PATHS and not Path(parts.path).exists():
            raise ConfigurationError(f"no such file or folder: {redacted(parts.path)}")
        return parts.scheme, parts.path, dict(options)
    if parts.scheme in ("http", "https") and parts.netloc:
        raise ConfigurationError(
            f"{redacted(uri)} is not a source: most IP cameras have an rtsp:// address, see their settings"
        )
    if parts.scheme in _STREAMS:
        raise ConfigurationError(
            f"{redacted(uri)} is not a source: expected rtsp://; a server such as MediaMTX gives a {parts.scheme} "
            "stream out by RTSP"
        )
    if uri.isdecimal() and len(uri) < 4:
        raise ConfigurationError(f"{uri} is not a source: the camera of this number is usb:{uri}")
    if name in SCHEMES and name not in ("bench", *_PATHS):
        raise ConfigurationError(
            f"no such file or folder: {redacted(uri)}; the source {name} is written with a colon: {SCHEMES[name][2]}"
        )
    known = [f"{scheme}:" for scheme in SCHEMES if scheme != "bench"]  # which is for `bittern bench` alone
    hint = did_you_mean(f"{parts.scheme}:", known) if parts.scheme else ""
    if not hint and redacted(uri) != HIDDEN and (not parts.scheme or "/" in uri or "." in uri):
        raise ConfigurationError(f"no such file or folder: {redacted(uri)}")
    raise ConfigurationError(
        f"unknown source {redacted(uri)!r}: expected a folder, a video file, or one of {', '.join(known)}{hint}"
    )


def _convert(source: str, options_type: type[msgspec.Struct], values: Mapping[str, Value]) -> msgspec.Struct:
    known = options_type.__struct_fields__
    for key in values:
        if key not in known:
            raise ConfigurationError(
                f"source {source!r}: unknown option {redacted(key)!r}: expected {', '.join(known) or 'none'}"
                f"{did_you_mean(key, known)}"
            )
    try:
        return msgspec.convert(values, options_type, strict=False)
    except msgspec.ValidationError as error:
        kinds = typing.get_type_hints(options_type, include_extras=True)
        wrong = [k for k in values if not _fits(values[k], kinds[k])]
        if not wrong:
            raise ConfigurationError(f"source {source!r}: {error}") from None
    from bittern.config import toml_file

    key = wrong[0]
    expected, got = toml_file.describe(kinds[key]), toml_file.format_safely(values[key])
    raise ConfigurationError(f"source {source!r}: {key}: expected {expected}, got {got}")


def _fits(value: Value, kind: Any) -> bool:
    try:
        msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError:
        return False
    return True
