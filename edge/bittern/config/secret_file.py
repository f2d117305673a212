"""Reads a secret from a file of its own: a password, a key, the address of a camera."""

from __future__ import annotations

import os

from bittern.errors import HIDDEN, ConfigurationError, redacted
from bittern.system import fileio

MAX_BYTES = 64 * 1024
_MAX_CERTIFICATES = 4 << 20


def first_line(file: str, key: str, what: str) -> bytes:
    """The first line of a file, without its end.

    Args:
        file: its path. Errors show it only if it is one: what was written there may be the secret itself.
        key: of the configuration, for errors.
        what: the first line is, in words.

    Raises:
        ConfigurationError: there is no such file, it cannot be read, or its first line is empty.
    """
    line = _read(file, key, what, MAX_BYTES).split(b"\n", 1)[0].removesuffix(b"\r")
    if not line.strip():
        raise ConfigurationError(f"{key}: {file}: the first line must be {what}, but it is empty")
    return line


def certificates(file: str, key: str) -> str:
    """The text of a file with certificates in PEM format, which are not checked.

    Raises:
        ConfigurationError: there is no such file, or it cannot be read.
    """
    # The comments between them, of a bundle, may be in any language and encoding.
    return _read(file, key, "certificates", _MAX_CERTIFICATES).decode("ascii", "ignore")


def _read(file: str, key: str, what: str, limit: int) -> bytes:
    try:
        return fileio.read_regular(file, limit)
    except OSError as error:
        is_path = os.path.lexists(file) or (os.path.dirname(file) not in ("", "/") and redacted(file) == file)  # noqa: PTH120
        name = file if is_path else HIDDEN
        raise ConfigurationError(f"{key}: {name}: {error.strerror}: expected the path of a file with {what}") from None
