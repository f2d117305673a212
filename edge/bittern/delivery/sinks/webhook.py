"""The sink `[webhook]`: an HTTP POST for every event, with one time limit for the whole request."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import http.client
import io
import socket
import ssl
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from bittern.config import secret_file
from bittern.config.schema import WebhookConfig
from bittern.delivery.sinks.base import Sink, Undelivered
from bittern.errors import ConfigurationError, redacted
from bittern.events import Event
from bittern.version import __version__

# "Unprocessable content" (RFC 9110, 15.5.21): the only status that is about this event and that no proxy sends. Any
# other failure may be a wrong address, key or proxy: it is retried until somebody fixes that.
_FINAL = 422
_DRAIN_BYTES = 4096
_DRAIN_S = 1.0


class WebhookSink(Sink):
    """Posts the event's JSON; any 2xx status means accepted.

    Headers: `Idempotency-Key` is the event's id (a repeated delivery has the same one), `X-Bittern-Signature` is
    "sha256=" and the HMAC-SHA256 of the body in hex, if there is a secret. Redirects are never followed, because they
    would send events to an address that nobody configured. Every request uses a new connection.

    The peer's answer is its status, once the header is complete; the body of the answer is ignored.
    """

    name = "webhook"
    durable = True

    def __init__(self, config: WebhookConfig) -> None:
        """Check the address and read the secret; does not connect.

        Raises:
            ConfigurationError: an invalid address, or a secret that is missing.
        """
        self._timeout_s = config.timeout_s
        self._host, self._port, self._target, self._tls = parse_url(config.url)
        self._secret: bytes | None = None
        if config.secret_file:
            self._secret = secret_file.first_line(config.secret_file, "webhook.secret_file", "the key").strip()
        self._connection: _Connection | None = None
        self._closed = False

    def deliver(self, event: Event, body: bytes) -> str:
        """POST one event; see `Sink.deliver`. Time-outs of the name server come on top of `timeout_s`."""
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"bittern/{__version__}",
            "Idempotency-Key": event.id,
            "Connection": "close",
        }
        if self._secret is not None:
            headers["X-Bittern-Signature"] = f"sha256={hmac.new(self._secret, body, hashlib.sha256).hexdigest()}"
        connection = _Connection(self._host, self._port, self._timeout_s, self._tls)
        self._connection = connection
        if self._closed:
            raise Undelivered("closed")
        try:
            connection.request("POST", self._target, body, headers)
            with connection.getresponse() as answer:
                if connection.broken_off:
                    raise Undelivered(f"{self._address}: the answer ends in the middle of its header")
                status, location = answer.status, answer.getheader("Location", "")
                retry_after_s = _retry_after_s(answer)
                connection.drain(answer)
        except TimeoutError:
            raise Undelivered(
                f"no complete answer from {self._address} within {self._timeout_s:g} s", unsent=not connection.connected
            ) from None
        except (OSError, http.client.HTTPException) as error:
            # Not the text of an HTTPException: it quotes the peer, which may repeat the path.
            kind = type(error).__name__
            cause = error.strerror or str(error) or kind if isinstance(error, OSError) else f"no HTTP answer ({kind})"
            raise Undelivered(f"{self._address}: {cause}", unsent=not connection.connected) from None
        finally:
            self._connection = None
            connection.finish()
        # Not the words that the peer gives, which may repeat the path.
        text = f"{status} {http.client.responses.get(status, '')}".strip()
        if 200 <= status < 300:
            return text
        if 300 <= status < 400:
            target = redacted(location) if "://" in location else "another path"
            text += f" to {target}: redirects are not followed; put the final address into [webhook] url"
        raise Undelivered(
            f"{self._address} answered {text}", retry_after_s=retry_after_s, final=status == _FINAL, unsent=True
        )

    def close(self) -> None:
        """Abort a request in progress."""
        self._closed = True
        if (connection := self._connection) is not None:
            connection.break_off()

    @property
    def _address(self) -> str:
        return f"{self._host}:{self._port}"


class _Connection(http.client.HTTPConnection):
    """A connection with a time limit for everything, however slowly the peer sends."""

    def __init__(self, host: str, port: int, timeout_s: float, tls: ssl.SSLContext | None) -> None:
        super().__init__(host, port, timeout=timeout_s)
        if tls is not None:
            self.default_port = http.client.HTTPS_PORT  # the port that the header "Host" leaves out
        self._tls = tls
        self._end = time.monotonic() + timeout_s
        self._raw: socket.socket | None = None
        self._socket: _Socket | None = None

    def connect(self) -> None:
        """Try one address of the host after the other."""
        failed: OSError | None = None
        for family, kind, protocol, _, address in socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM):
            raw = None
            try:
                self._raw = raw = socket.socket(family, kind, protocol)
                raw.settimeout(self._left_s())
                raw.connect(address)
                raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self._tls is not None:
                    wrapped = self._tls.wrap_socket(raw, server_hostname=self.host, do_handshake_on_connect=False)
                    self._raw = raw = wrapped
                    wrapped.settimeout(self._left_s())
                    wrapped.do_handshake()
            except OSError as error:
                failed = error
                if raw is not None:
                    raw.close()
            else:
                self.sock = self._socket = _Socket(raw, self._left_s)
                return
        try:
            raise failed or OSError("no address")
        finally:
            failed = None  # its traceback refers to this frame: break the reference cycle

    @property
    def connected(self) -> bool:
        """Whether the peer may have received anything."""
        return self._socket is not None

    @property
    def broken_off(self) -> bool:
        """Whether the answer ended within its header, which `http.client` takes for a complete one."""
        return self._socket is not None and self._socket.ended

    def drain(self, answer: http.client.HTTPResponse) -> None:
        """Read the rest of a short answer: closing earlier would look like a reset to the peer."""
        self._end = min(self._end, time.monotonic() + _DRAIN_S)
        with contextlib.suppress(OSError, http.client.HTTPException):
            answer.read(_DRAIN_BYTES)

    def finish(self) -> None:
        """Close everything, and leave no reference cycle for the garbage collector."""
        self.close()
        self._socket = None
        if self._raw is not None:
            self._raw.close()

    def break_off(self) -> None:
        """Make a waiting operation fail; called from another thread."""
        self._end = 0.0
        if self._raw is not None:
            with contextlib.suppress(OSError):
                # Not the SSL socket's own method, which would first switch to plain text.
                socket.socket.shutdown(self._raw, socket.SHUT_RDWR)

    def _left_s(self) -> float:
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


class _Socket(io.RawIOBase):
    """The socket interface that `http.client` needs; every operation is limited to the remaining time."""

    def __init__(self, raw: socket.socket, left_s: Callable[[], float]) -> None:
        self._raw = raw
        self._left_s = left_s
        self.ended = False

    def sendall(self, data: bytes) -> None:
        self._raw.settimeout(self._left_s())
        self._raw.sendall(data)  # its time-out covers all of it

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        self._raw.settimeout(self._left_s())
        count = self._raw.recv_into(buffer)
        self.ended |= count == 0
        return count

    def close(self) -> None:
        """Does nothing: `http.client` calls it before the answer is read."""


def parse_url(url: str) -> tuple[str, int, str, ssl.SSLContext | None]:
    """Host, port, path with query, and the TLS context, of a URL.

    Raises:
        ConfigurationError: the URL is invalid.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        host.encode("idna")
    except ValueError as error:  # a port that is not a number, half an IPv6 address, an invalid name
        reason = "invalid port" if "port" in str(error).lower() else "invalid host"  # the text may quote the address
        raise ConfigurationError(f"webhook.url: {reason}: expected http://HOST:PORT/PATH") from None
    if not host or not (url.isascii() and url.isprintable() and " " not in url):
        raise ConfigurationError(
            f"webhook.url: {redacted(url)!r}: expected http://HOST/PATH or https://HOST/PATH in ASCII without spaces "
            "(write other characters as %XX)"
        )
    if "@" in parts.netloc:
        raise ConfigurationError(
            "webhook.url: user and password are not supported; let the peer verify the signature: see secret_file"
        )
    tls = ssl.create_default_context() if parts.scheme == "https" else None
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return host, port or (443 if tls else 80), target, tls


def _retry_after_s(answer: http.client.HTTPResponse) -> float | None:
    """Seconds of the header Retry-After, a number or a date (RFC 9110, 10.2.3)."""
    text = answer.getheader("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:10])
    try:
        # By the peer's own clock, if the answer has it: ours may be wrong.
        now_text = answer.getheader("Date")
        now = parsedate_to_datetime(now_text).timestamp() if now_text else time.time()
        return max(0.0, parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
