"""Fetches pictures from web servers: politely, within limits of bytes and time, never twice what is there."""

from __future__ import annotations

import time
from collections.abc import Callable
from urllib.parse import urlsplit
from urllib.robotparser import RobotFileParser

import requests

from bittern.errors import BitternError, redacted
from bittern.version import __version__

USER_AGENT = f"bittern/{__version__}"
_ROBOTS_BYTES = 500 * 1024  # what RFC 9309 asks crawlers to read at least
_TRIES = 3
# Seconds to wait for a server that asks for patience: what it says, but no longer than this.
_LONGEST_WAIT_S = 120.0
_PART = 64 * 1024


class FetchError(BitternError):
    """A picture that could not be had; the message shows no query and no password."""


class Fetcher:
    """Fetches files from web servers one after the other."""

    def __init__(
        self,
        *,
        max_bytes: int,
        timeout_s: float,
        pause_s: float,
        robots: bool = True,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """See the class.

        Args:
            max_bytes: a larger file is refused.
            timeout_s: a server that is silent for so long has failed; the whole file may take ten times as long.
            pause_s: seconds between two requests to one host; more if its robots.txt says so.
            robots: whether robots.txt is obeyed.
            sleep: waits for so many seconds.
            clock: seconds that only grow.
        """
        self._max_bytes, self._timeout_s, self._pause_s = max_bytes, timeout_s, pause_s
        self._obeys, self._sleep, self._clock = robots, sleep, clock
        self._robots: dict[str, RobotFileParser] = {}
        self._asked: dict[str, float] = {}
        self._session = requests.Session()
        self._session.headers["User-Agent"] = USER_AGENT

    def fetch(self, url: str) -> bytes:
        """A file.

        Raises:
            FetchError: it cannot be had, is too large, or robots.txt forbids it.
        """
        try:
            parts = urlsplit(url)
            plain = parts.scheme in ("http", "https") and parts.hostname is not None
        except ValueError:  # half an IPv6 address
            plain = False
        if not plain:
            raise FetchError(f"{redacted(url)}: expected an address that begins with http:// or https://")
        host = f"{parts.scheme}://{parts.netloc}"
        pause_s = self._pause_s
        if self._obeys:
            rules = self._rules(host)
            if not rules.can_fetch(USER_AGENT, url):
                raise FetchError(f"{shown(url)}: robots.txt of the server forbids it")
            pause_s = max(pause_s, float(rules.crawl_delay(USER_AGENT) or 0))
        return self._get(url, host, self._max_bytes, pause_s)

    def _rules(self, host: str) -> RobotFileParser:
        if host not in self._robots:
            rules = RobotFileParser()
            try:
                text = self._get(f"{host}/robots.txt", host, _ROBOTS_BYTES, 0)
                rules.parse(text.decode("utf-8", "replace").splitlines())
            except _Status as error:
                # RFC 9309: no such file allows everything, a broken server nothing.
                rules.parse(["User-agent: *", "Disallow: /" if error.code >= 500 or error.code == 429 else "Disallow:"])
            except FetchError:
                rules.parse(["User-agent: *", "Disallow: /"])
            self._robots[host] = rules
        return self._robots[host]

    def _get(self, url: str, host: str, max_bytes: int, pause_s: float) -> bytes:
        wait_s = 1.0
        for attempt in range(1, _TRIES + 1):
            due = self._asked.get(host, 0.0) + pause_s - self._clock()
            if due > 0:
                self._sleep(due)
            try:
                return self._get_once(url, max_bytes)
            except _Patience as error:
                if attempt == _TRIES:
                    raise
                self._sleep(min(wait_s if error.after_s is None else error.after_s, _LONGEST_WAIT_S))
                wait_s *= 4
            finally:
                self._asked[host] = self._clock()
        raise AssertionError("the last attempt returns or raises")

    def _get_once(self, url: str, max_bytes: int) -> bytes:
        ends = self._clock() + 10 * self._timeout_s
        try:
            with self._session.get(url, stream=True, timeout=self._timeout_s) as response:
                if response.status_code in (429, 500, 502, 503, 504):
                    raise _Patience(url, response.status_code, response.headers.get("Retry-After"))
                if response.status_code != 200:
                    raise _Status(url, response.status_code)
                stated = response.headers.get("Content-Length", "")
                data = bytearray()
                for part in response.iter_content(_PART):
                    data += part
                    if len(data) > max_bytes or (stated.isdigit() and int(stated) > max_bytes):
                        raise FetchError(f"{shown(url)}: larger than the limit of {max_bytes / 2**20:g} MiB")
                    if self._clock() > ends:
                        raise FetchError(f"{shown(url)}: not there after {10 * self._timeout_s:g} s")
                return bytes(data)
        except requests.Timeout:
            raise FetchError(f"{shown(url)}: no answer within {self._timeout_s:g} s") from None
        except (requests.RequestException, ValueError) as error:
            raise FetchError(f"{shown(url)}: {_reason(error)}") from None


class _Status(FetchError):
    """An answer without the file."""

    def __init__(self, url: str, code: int) -> None:
        super().__init__(f"{shown(url)}: the server answers {code}")
        self.code = code


class _Patience(_Status):
    """The server asks to come back later."""

    def __init__(self, url: str, code: int, after: str | None) -> None:
        super().__init__(url, code)
        self.after_s = float(after) if after is not None and after.isdigit() else None


def shown(url: str) -> str:
    """The address without user, password and query, which may be secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _reason(error: Exception) -> str:
    """What went wrong, without the texts of requests, which hold the whole address."""
    kinds = {
        requests.exceptions.ChunkedEncodingError: "the connection broke off",
        requests.exceptions.ContentDecodingError: "the server sends something else than it says",
        requests.exceptions.SSLError: "its certificate is not accepted",
        requests.exceptions.ConnectionError: "no connection",
        requests.exceptions.TooManyRedirects: "redirected again and again",
    }
    return next((text for kind, text in kinds.items() if isinstance(error, kind)), "not an address that can be fetched")
