"""The configuration of `bittern watch`: one TOML file a camera, plain data, unknown keys refused."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from bittern.errors import ConfigurationError

Seconds = Annotated[float, Meta(ge=0.0, le=86400.0)]
Offset = Annotated[int, Meta(ge=0)]
Length = Annotated[int, Meta(ge=1)]
Score = Annotated[float, Meta(ge=0.0, le=1.0)]


class DecisionConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """`[decision]`: when scores become an alarm, and when it ends.

    Attributes:
        threshold: a name among the model's thresholds, or a score that switches on.
        off: the score below which an alarm may end; None takes the named threshold's, or half of the score.
        votes: frames that must reach the threshold ...
        of: ... among this many last ones.
        cooldown_s: seconds from the end of an alarm to the next.
        min_off_s: seconds below `off` before an alarm ends.
    """

    threshold: str | Score = "default"
    off: Score | None = None
    votes: Annotated[int, Meta(ge=1, le=1000)] = 2
    of: Annotated[int, Meta(ge=1, le=1000)] = 3
    cooldown_s: Seconds = 5.0
    min_off_s: Seconds = 0.5

    def __post_init__(self) -> None:
        if self.votes > self.of:
            raise ValueError(f"votes {self.votes} is more than of {self.of}")
        if isinstance(self.threshold, float | int) and self.off is not None and self.off > self.threshold:
            raise ValueError(f"off {self.off} is above threshold {self.threshold}")


class WatchConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The whole file.

    Attributes:
        source: URI of the camera, see `bittern.sources`.
        name: what events call the source; None takes the source's own name.
        models: names or folders.
        fps: frames a second that are classified at most; recorded sources are read as fast as they can be. Not below
            0.1, because frames feed the watchdog, whose time is 30 s.
        threads: for one inference.
        timeout_s: seconds without a frame after which the source counts as lost.
        region: left, top, width, height in pixels of the frame: what to look at instead of the whole frame.
    """

    source: str = "picamera:"
    name: str | None = None
    models: Annotated[tuple[str, ...], Meta(min_length=1)] = ("stop_sign",)
    fps: Annotated[float, Meta(ge=0.1, le=240.0)] = 5.0
    threads: Annotated[int, Meta(ge=1, le=64)] = 1
    timeout_s: Annotated[float, Meta(gt=0.0, le=3600.0)] = 5.0
    region: tuple[Offset, Offset, Length, Length] | None = None
    decision: DecisionConfig = DecisionConfig()


def load(file: Path) -> WatchConfig:
    """Read a configuration file.

    Raises:
        ConfigurationError: no such file, no TOML (with the line), an unknown key (with the nearest known one), or a
            value of the wrong kind.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{file}: {error.strerror}") from None
    try:
        return msgspec.toml.decode(data, type=WatchConfig)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"{file}: {error}{_hint(str(error))}") from None


def _hint(message: str) -> str:
    found = re.search(r"unknown field `(.+?)`", message)
    if found is None:
        return ""
    tables = {"": WatchConfig.__struct_fields__, "decision": DecisionConfig.__struct_fields__}
    here = "decision" if "`$.decision`" in message else ""
    for table, keys in tables.items():
        if table != here and found[1] in keys:
            return f": it belongs {f'under [{table}]' if table else 'above every [table]'}"
    near = difflib.get_close_matches(found[1], tables[here], n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known keys: {', '.join(tables[here])}"
