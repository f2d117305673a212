"""Messages between the camera's process and its parent: one line of JSON each."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from bittern.sources.registry import Value


class Request(msgspec.Struct, frozen=True):
    """What to open; it goes to the child's stdin, because an address may hold a password.

    Attributes:
        uri: of the source.
        options: of the source.
        warm_up_frames: first frames that are dropped.
        timeout_s: how long the source may wait for one frame before it counts itself as lost.
    """

    uri: str
    options: dict[str, Value]
    warm_up_frames: Annotated[int, msgspec.Meta(ge=0)]
    timeout_s: float


class Opened(msgspec.Struct, frozen=True, tag="opened"):
    """The first frame came, and the ring is laid out.

    Attributes:
        name: of the source.
        height: of the frames, in pixels.
        width: of the frames, in pixels.
    """

    name: str
    height: int
    width: int


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The source could not be opened, or was lost.

    Attributes:
        why: "configuration", "busy", "absent" (any other reason why it does not open), or "lost" after it was open.
        text: one line.
    """

    why: Literal["configuration", "busy", "absent", "lost"]
    text: str


class Ended(msgspec.Struct, frozen=True, tag="ended"):
    """The source has no more frames, and that is no fault: the demonstration's last lap."""


Message = Opened | Failed | Ended
