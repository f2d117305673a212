"""What goes between a daemon and the process of its page: small structs as JSON, one datagram each."""

from __future__ import annotations

import socket
from typing import Any

import msgspec

from bittern.decision.decision import Settings
from bittern.events import AlarmKey

# Of one datagram; the socket's buffers hold several.
MAX_BYTES = 96 * 1024
# How many events the page shows, and how many labels of a head.
MOST_EVENTS, MOST_LABELS = 500, 1000


class ModelHead(msgspec.Struct, frozen=True):
    """A head of a model that runs, with all its labels."""

    model: str
    version: str
    task: str
    labels: tuple[str, ...]


class LiveAlarm(msgspec.Struct, frozen=True):
    """An alarm with the settings of the configuration."""

    key: AlarmKey
    settings: Settings


class Begin(msgspec.Struct, frozen=True, tag=True):
    """The first message to the process.

    Attributes:
        name: what people call the camera.
        data: folder of the page: token, sets.
        snapshots: folder of the snapshots; None if there are none.
        kept: folder of the kept frames; None if none are kept.
        clips: folder of the clips around alarms.
        names: further host names of the page.
        open: whether others than this machine can reach it, so that a token is needed.
    """

    name: str
    data: str
    snapshots: str | None
    kept: str | None
    clips: str
    names: tuple[str, ...]
    open: bool


class Description(msgspec.Struct, frozen=True, tag=True):
    """The models that run; sent again when they are exchanged. Scores come in the order of `alarms`."""

    heads: tuple[ModelHead, ...]
    alarms: tuple[LiveAlarm, ...]


class LiveSettings(msgspec.Struct, frozen=True, tag=True):
    """What the owner wants, in both directions; see `bittern.delivery.sinks.base.Controls`.

    Attributes:
        detection: whether frames are classified.
        thresholds: those that differ from the configuration.
    """

    detection: bool
    thresholds: tuple[tuple[AlarmKey, float], ...]


class Scores(msgspec.Struct, frozen=True, tag=True):
    """What frames scored, in order.

    Attributes:
        rows: the frame's monotonic time in ns, and the score of each alarm; none if the frame decided nothing.
    """

    rows: tuple[tuple[int, tuple[float, ...]], ...]


class Happened(msgspec.Struct, frozen=True, tag=True):
    """An event, as `bittern watch` prints it."""

    event: dict[str, Any]


class ClipWritten(msgspec.Struct, frozen=True, tag=True):
    """The clip around an alarm is in its folder; `id` is that of the event."""

    id: str


class Metrics(msgspec.Struct, frozen=True, tag=True):
    """The answer to `AskMetrics`: a `bittern.daemon.health.Reading`."""

    reading: dict[str, Any]


class Ring(msgspec.Struct, frozen=True, tag=True):
    """Frames come in the ring whose file descriptor is sent with this."""


ToPage = Begin | Description | LiveSettings | Scores | Happened | ClipWritten | Metrics | Ring


class Look(msgspec.Struct, frozen=True, tag=True):
    """Whether anybody looks: then frames are shown, and scores come at once."""

    frames: bool
    scores: bool


class AskMetrics(msgspec.Struct, frozen=True, tag=True):
    """Asks for `Metrics`."""


class Alive(msgspec.Struct, frozen=True, tag=True):
    """The process has not hung: sent every few seconds."""


ToDaemon = Look | AskMetrics | Alive | LiveSettings

_TO_PAGE = msgspec.json.Decoder(ToPage)
_TO_DAEMON = msgspec.json.Decoder(ToDaemon)


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected sockets that keep the bounds of messages, and never wait."""
    sockets = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for one in sockets:
        one.setblocking(False)
    return sockets


def send(to: socket.socket, message: ToPage | ToDaemon, fds: tuple[int, ...] = ()) -> bool:
    """Send a message, with file descriptors; False if the other side does not keep up, or has ended."""
    data = msgspec.json.encode(message)
    if len(data) > MAX_BYTES:
        return False
    try:
        if fds:
            socket.send_fds(to, [data], list(fds))
        else:
            to.send(data)
    except OSError:
        return False
    return True


def receive_in_page(link: socket.socket) -> tuple[ToPage, list[int]] | None:
    """The next message with its file descriptors; None if there is none now.

    Raises:
        EOFError: the daemon has ended.
    """
    try:
        data, fds, _, _ = socket.recv_fds(link, MAX_BYTES, 1)
    except BlockingIOError:
        return None
    except ConnectionError:
        raise EOFError from None
    if not data:
        raise EOFError
    return _TO_PAGE.decode(data), list(fds)


def receive_in_daemon(link: socket.socket) -> ToDaemon | None:
    """The next message; None if there is none now, or one that makes no sense.

    Raises:
        EOFError: the page's process has ended.
    """
    try:
        data = link.recv(MAX_BYTES)
    except BlockingIOError:
        return None
    except ConnectionError:
        raise EOFError from None
    if not data:
        raise EOFError
    try:
        return _TO_DAEMON.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
