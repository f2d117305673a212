"""The errors that reach a user: one line that says what was expected, what came and what to do."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable


class BitternError(Exception):
    """A failure that the user can fix; the command line prints the message and exits with `exit_code`."""

    exit_code = 1


class ConfigurationError(BitternError):
    """A wrong option, key, name or model: nothing was started."""

    exit_code = 2


class ModelRefused(ConfigurationError):
    """A model file or folder that does not fulfil the contract."""


class PictureError(BitternError):
    """A picture that cannot be read, or is larger than allowed."""


class SourceError(BitternError):
    """A source of frames that is absent or `busy` (exit code 2), or was lost while running (exit code 1)."""

    def __init__(self, message: str, *, exit_code: int = 1, busy: bool = False) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.busy = busy


def one_line(error: BaseException) -> str:
    """The message of an error on one line; its type where it has no message."""
    return " ".join(str(error).split()) or type(error).__name__


_HOST = r"\w(?:[\w.-]*\w)?|\[[0-9A-Fa-f:.]+(?:%[\w.~-]+)?\]"
# An @ after the first slash: a password with a slash in it, so that what stands for the host is a part of it.
_NETWORK = rf"([A-Za-z][\w+.-]*)://(?:[^/?#]*@)?({_HOST})(:[0-9]{{1,5}})?(?:[/?#][^@]*)?"
_DEVICE = r"(?:[a-z]{2,12}:)?(?:[0-9]{0,2}|/dev/[\w./:+-]+)"
_PATH = r"/?[\w.~+,-]+(?:/[\w.~+,-]+)*/?"
HIDDEN = "..."


def redacted(address: str) -> str:
    """What may be shown of an address: the one place that decides it, for logs, names, events and errors.

    Scheme, host and port of a network address, because user, path and query may all be the secret; the number or the
    path of a device; a path up to its first part that does not exist. Anything else, such as an address that is
    mistyped, may hold a secret anywhere: "...".
    """
    if os.path.exists(address):  # noqa: PTH110 - Path.exists raises
        return address
    if match := re.fullmatch(_NETWORK, address, re.DOTALL):
        return f"{match[1].lower()}://{match[2]}{match[3] or ''}"
    if re.fullmatch(_DEVICE, address):
        return address
    if not re.fullmatch(_PATH, address):
        return HIDDEN
    end = 0
    while end < len(address):
        end = address.find("/", end + 1) if "/" in address[end + 1 :] else len(address)
        if not os.path.exists(address[:end]):  # noqa: PTH110
            break
    return address if end >= len(address.rstrip("/")) else f"{address[:end]}/{HIDDEN}"


def printable(text: str) -> str:
    """A text on one line, without anything that a terminal obeys: "\\n", "\\x1b", "\\u202e".

    Bytes that are not UTF-8, as Python has them in the names of files, become "\\xNN".
    """
    if text.isprintable():
        return text
    return "".join(map(_printable, text))


def _printable(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    # Kept as well: the no-break and the wide space, and the two joiners of Arabic, Indic scripts and emoji.
    if character.isprintable() or code in (0xA0, 0x3000, 0x200C, 0x200D):
        return character
    return character.encode("unicode_escape").decode()


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name, `; did you mean 'stop_sign'?`, or nothing if no known one is near."""
    import difflib  # only where something is misspelt: it is not needed to start

    nearest = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {nearest[0]!r}?" if nearest else ""
