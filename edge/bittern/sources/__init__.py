"""Where frames come from: one table of URI schemes."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import msgspec

from bittern.errors import ConfigurationError
from bittern.frames import Source

# scheme: (module, class, example). The modules are imported when used: each brings its own heavy parts.
SCHEMES: dict[str, tuple[str, str, str]] = {
    "demo": ("bittern.sources.demo", "DemoSource", "demo:?laps=1&seed=1"),
    "folder": ("bittern.sources.folder", "FolderSource", "a folder of pictures"),
    "video": ("bittern.sources.video", "VideoSource", "a video file"),
    "usb": ("bittern.sources.video", "UsbSource", "usb:0?size=640x480"),
    "picamera": ("bittern.sources.picamera", "PicameraSource", "picamera:?size=640x480&fps=15&rotation=180"),
}


def open_source(uri: str) -> Source:
    """Open `picamera:`, `usb:0`, `demo:`, a video file or a folder of pictures.

    Options follow a question mark as in a web address: `usb:0?size=1280x720&fps=10`.

    Raises:
        ConfigurationError: unknown scheme or option, or a value of the wrong kind.
        SourceError: the source is not there, or is busy.
    """
    scheme, address, options = _split(uri)
    module, name, _ = SCHEMES[scheme]
    cls = getattr(import_module(module), name)
    return cls(address, _convert(uri, cls.Options, options))  # type: ignore[no-any-return]


def _split(uri: str) -> tuple[str, str, dict[str, str]]:
    try:
        path, parts = Path(uri), urlsplit(uri)
        if path.is_dir():
            return "folder", uri, {}
        if path.exists():
            return "video", uri, {}
    except (ValueError, OSError) as error:  # a NUL, half an IPv6 address, a name that is too long
        raise ConfigurationError(f"source {uri!r}: {error}") from None
    if parts.scheme in SCHEMES:
        options = parse_qsl(parts.query, keep_blank_values=True)
        if parts.netloc:
            raise ConfigurationError(f"source {uri!r}: leave the // out: {parts.scheme}:{parts.netloc}{parts.path}")
        if len(dict(options)) < len(options):
            raise ConfigurationError(f"source {uri!r}: an option is given twice")
        return parts.scheme, parts.path, dict(options)
    if not parts.scheme or "/" in uri or "." in uri:
        raise ConfigurationError(f"no such file or folder: {uri}")
    near = difflib.get_close_matches(parts.scheme, SCHEMES, n=1)
    hint = f"; did you mean {near[0]}:?" if near else ""
    known = ", ".join(f"{s}:" for s in SCHEMES)
    raise ConfigurationError(f"unknown source {uri!r}: expected a folder, a video file, or one of {known}{hint}")


def _convert(uri: str, options_type: type[msgspec.Struct], given: Mapping[str, str]) -> msgspec.Struct:
    known = options_type.__struct_fields__
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigurationError(
                f"source {uri!r}: unknown option {key!r}: expected {', '.join(known) or 'none'}{hint}"
            )
    try:
        return msgspec.convert(given, options_type, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"source {uri!r}: {error}") from None


def parse_size(text: str) -> tuple[int, int]:
    """Width and height, in pixels, of a text such as "640x480"; each from 32 to 8192.

    Raises:
        ConfigurationError: not two whole numbers with an x between them, or out of range.
    """
    found = re.fullmatch(r"([0-9]{1,5})x([0-9]{1,5})", text)
    width, height = (int(found[1]), int(found[2])) if found else (0, 0)
    if not (32 <= width <= 8192 and 32 <= height <= 8192):
        raise ConfigurationError(f"size {text!r}: expected WIDTHxHEIGHT, each 32 to 8192, such as 640x480")
    return width, height
