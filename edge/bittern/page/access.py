"""Who may use the page: a token, kept only as its hash, with a limit on wrong ones; sessions of browsers."""

from __future__ import annotations

import collections
import hashlib
import hmac
import secrets
import time
from pathlib import Path

from bittern.errors import ConfigurationError
from bittern.system import fileio

FILE = "token"
# A session of a browser; its cookie is forgotten when the server ends or the token changes.
SESSION_S = 30 * 86400.0
_MOST_SESSIONS = 100
# Wrong tokens within a minute: from one address, and from all.
WRONG_A_MINUTE = 10
_WRONG_BY_ALL = 200
_MINUTE_S = 60.0
_MAX_BYTES = 4096


def new_token(folder: Path) -> str:
    """Make a token of 256 random bits and keep its hash, in the place of an older one.

    A random token needs no slow hash: there is nothing to guess.

    Raises:
        OSError: it cannot be written.
    """
    token = secrets.token_urlsafe(32)
    fileio.write(folder / FILE, f"sha256 {_hash(token)}\n".encode())
    return token


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


class TooManyWrong(Exception):
    """Too many wrong tokens: none is looked at for `seconds`."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"too many wrong tokens: try again in {seconds} s")
        self.seconds = seconds


class Access:
    """Checks tokens and cookies.

    Args:
        folder: holds the file with the hash.

    Raises:
        ConfigurationError: there is none, or it cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / FILE
        self._stamp: tuple[int, int] | None = None
        self._expected = ""
        self._sessions: dict[str, float] = {}
        self._wrong: dict[str, collections.deque[float]] = {}
        self._refresh()

    def _refresh(self) -> None:
        """Read the hash again if the file has changed; sessions of an older token end."""
        try:
            status = self._file.stat()
            stamp = (status.st_mtime_ns, status.st_ino)
            if stamp == self._stamp:
                return
            kind, _, value = fileio.read_regular(self._file, _MAX_BYTES).decode().strip().partition(" ")
        except FileNotFoundError:
            raise ConfigurationError("there is no token yet: bittern serve --new-token") from None
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{self._file}: cannot read the token's hash ({error})") from None
        if kind != "sha256" or len(value) != 64:
            raise ConfigurationError(f"{self._file}: no hash of a token: bittern serve --new-token")
        self._stamp, self._expected = stamp, value
        self._sessions.clear()

    def has_token(self, token: str, client: str) -> bool:
        """Whether a token is the right one.

        Raises:
            TooManyWrong: there were too many wrong ones, from this address or from all.
        """
        now = time.monotonic()
        self._wrong = {c: t for c, t in self._wrong.items() if t and now - t[-1] < _MINUTE_S}
        times = self._wrong.get(client, collections.deque(maxlen=WRONG_A_MINUTE))
        for recent, most in ((times, WRONG_A_MINUTE), (self._latest(), _WRONG_BY_ALL)):
            if len(recent) >= most and now - recent[-most] < _MINUTE_S:
                raise TooManyWrong(round(_MINUTE_S - (now - recent[-most])) + 1)
        if self._is_there() and hmac.compare_digest(_hash(token), self._expected):
            return True
        times.append(now)
        self._wrong[client] = times
        return False

    def _latest(self) -> list[float]:
        return sorted(time for times in self._wrong.values() for time in times)

    def _is_there(self) -> bool:
        try:
            self._refresh()
        except ConfigurationError:  # taken away while the server runs: nobody gets in
            return False
        return True

    @property
    def cookie(self) -> str:
        """Name of the cookie: of this page alone, because browsers send cookies to all ports and paths of a host."""
        return f"bittern_{_hash(self._expected)[:8]}"

    def new_session(self) -> str:
        """A cookie's value, for a browser that gave the right token."""
        now = time.monotonic()
        self._sessions = {key: end for key, end in self._sessions.items() if end > now}
        while len(self._sessions) >= _MOST_SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        value = secrets.token_urlsafe(32)
        self._sessions[_hash(value)] = now + SESSION_S
        return value

    def has_session(self, value: str) -> bool:
        """Whether a cookie's value is that of a session."""
        return self._is_there() and self._sessions.get(_hash(value), 0.0) > time.monotonic()
