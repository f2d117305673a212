"""The configuration of `bittern watch`: one TOML file a camera, plain data, unknown keys refused."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from bittern.config.toml_file import read
from bittern.errors import ConfigurationError

Seconds = Annotated[float, Meta(ge=0.0, le=86400.0)]
Offset = Annotated[int, Meta(ge=0)]
Length = Annotated[int, Meta(ge=1)]
Score = Annotated[float, Meta(ge=0.0, le=1.0)]
# No file system has a NUL in a name.
Folder = Annotated[str, Meta(pattern=r"^[^\x00]*\Z")]
# Left, top, width, height in pixels.
Rectangle = tuple[Offset, Offset, Length, Length]
Views = Annotated[tuple[Literal["center", "left", "right"], ...], Meta(min_length=1, max_length=3)]


def check_views(views: Views) -> None:
    """Raises ValueError when a view is named twice."""
    if len(set(views)) < len(views):
        raise ValueError(f"views {list(views)} are not distinct: each is an inference")


class DecisionConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """`[decision]`: when scores become an alarm, and when it ends.

    Attributes:
        threshold: a name among the model's thresholds, or a score that switches on.
        off: the score below which an alarm may end; left out: the named threshold's own, or half of the score.
        votes: frames that must reach the threshold, among the last `of`.
        of: how many of the last frames are looked at for `votes`.
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


class AlarmConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """`[[alarm]]`: what is different from `[decision]` for one model, one label, or one label of one model.

    Of several that fit, the one that names both wins over one that names one; of two alike, the later one.

    Attributes:
        model: name of a model; left out: every model.
        label: an alarm label; left out: every one.
        threshold: as in `[decision]`; left out, as for the next five: what stands there.
        off: as in `[decision]`.
        votes: as in `[decision]`.
        of: as in `[decision]`.
        cooldown_s: as in `[decision]`.
        min_off_s: as in `[decision]`.
    """

    model: str | None = None
    label: str | None = None
    threshold: str | Score | None = None
    off: Score | None = None
    votes: Annotated[int, Meta(ge=1, le=1000)] | None = None
    of: Annotated[int, Meta(ge=1, le=1000)] | None = None
    cooldown_s: Seconds | None = None
    min_off_s: Seconds | None = None


class GateConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """`[gate]`: a still scene is not classified again.

    Attributes:
        enabled: classify what moves only; false classifies every frame.
        threshold: how much a thumbnail must change, in grey levels of 255, for a frame to count as motion.
        heartbeat_s: a still scene is classified this often all the same.
        linger_s: every frame is classified for so long after the last motion.
    """

    enabled: bool = True
    threshold: Annotated[float, Meta(gt=0.0, le=255.0)] = 10.0
    heartbeat_s: Annotated[float, Meta(gt=0.0, le=20.0)] = 5.0
    linger_s: Seconds = 2.0


class RecoveryConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """`[recovery]`: a camera that fails.

    Attributes:
        warm_up_frames: the first frames of a camera, which are dark or green until it has settled: not classified.
        blind_after_s: seconds of a black, white or flat picture until the camera counts as blind.
        reboot_command: run once when a camera's process does not even end with SIGKILL; empty runs nothing.
    """

    warm_up_frames: Annotated[int, Meta(ge=0, le=1000)] = 5
    blind_after_s: Annotated[float, Meta(ge=0.1, le=3600.0)] = 3.0
    reboot_command: tuple[str, ...] = ()


class SnapshotConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """`[snapshots]`: a JPEG of every alarm, in a ring of files.

    Attributes:
        folder: where; "" takes $RUNTIME_DIRECTORY (systemd) or $XDG_RUNTIME_DIR, which is memory and not the SD card.
        budget_mb: the oldest are deleted beyond so many megabytes.
        quality: of the JPEG, as OpenCV counts it.
    """

    folder: Folder = ""
    budget_mb: Annotated[float, Meta(ge=0.1, le=1e6)] = 16.0
    quality: Annotated[int, Meta(ge=1, le=100)] = 85


class OutboxConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """`[outbox]`: events on their way to network sinks.

    Attributes:
        folder: of outbox.sqlite; "" takes $STATE_DIRECTORY (systemd), or ~/.local/state/bittern/NAME.
        max_events: the oldest are dropped, and counted, beyond so many.
    """

    folder: Folder = ""
    max_events: Annotated[int, Meta(ge=1, le=10_000_000)] = 100_000


class MqttConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """`[mqtt]`: events to a broker, with Home Assistant's discovery.

    Attributes:
        host: name or address of the broker.
        port: of the broker; left out: 1883, or 8883 with TLS.
        user: to log in as; "" logs in without one.
        password_file: a file whose first line is the password; "" none. Not the password itself, because this file
            is meant to be shown.
        tls: encrypt, and check the broker's certificate.
        ca_file: certificates to trust instead of the system's; "" trusts the system's.
        topic: events go to TOPIC/event, states to TOPIC/...; "" takes bittern/NAME.
        discovery: announce entities to Home Assistant.
        discovery_prefix: the topic that Home Assistant looks below.
        image: publish the snapshot of an alarm (needs `[snapshots]`).
        interval_s: between two sets of diagnostics (frames a second, latency, temperature).
    """

    host: Annotated[str, Meta(min_length=1)]
    port: Annotated[int, Meta(ge=1, le=65535)] | None = None
    user: str = ""
    password_file: str = ""
    tls: bool = False
    ca_file: str = ""
    topic: str = ""
    discovery: bool = True
    discovery_prefix: Annotated[str, Meta(min_length=1)] = "homeassistant"
    image: bool = True
    interval_s: Annotated[float, Meta(ge=1.0, le=86400.0)] = 30.0


class WebhookConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """`[webhook]`: an HTTP POST for every event, redirects refused.

    Attributes:
        url: http:// or https://.
        secret_file: a file whose first line signs the body (HMAC-SHA256, header X-Bittern-Signature); "" none.
        timeout_s: for one request, its answer included.
    """

    url: Annotated[str, Meta(pattern="^https?://")]
    secret_file: str = ""
    timeout_s: Annotated[float, Meta(gt=0.0, le=300.0)] = 10.0


class CommandConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """`[command]`: a program that is run for every event, with its JSON on stdin; no shell.

    Attributes:
        run: program and arguments.
        timeout_s: after which the program is killed.
    """

    run: Annotated[tuple[str, ...], Meta(min_length=1)]
    timeout_s: Annotated[float, Meta(gt=0.0, le=3600.0)] = 10.0


class GpioConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """`[gpio]`: a pin that is on while an alarm is on.

    Attributes:
        pin: by Broadcom's number, as gpiozero counts.
        label: of the alarm; left out: any alarm.
        active_high: whether a high level is on; false for a relay that switches on at a low one.
    """

    pin: Annotated[int, Meta(ge=0, le=53)]
    label: str | None = None
    active_high: bool = True


class HealthConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """`[health]`: figures for Prometheus.

    Attributes:
        port: of the page http://HOST:PORT/metrics; 0 takes a free one, which the log names.
        host: address to listen on; 127.0.0.1 is seen from this machine only.
    """

    port: Annotated[int, Meta(ge=0, le=65535)]
    host: str = "127.0.0.1"


class ReloadConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """`[reload]`: when SIGHUP may exchange a model.

    Attributes:
        max_slowdown: a candidate whose inference takes more than so many times that of the running model of its name
            is refused; one of another name is another choice, and is not compared.
        timeout_s: seconds for the check of one candidate in a process of its own, its start included.
    """

    max_slowdown: Annotated[float, Meta(ge=1.0, le=100.0)] = 1.5
    timeout_s: Annotated[float, Meta(ge=1.0, le=3600.0)] = 120.0


class WatchConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The whole file.

    Attributes:
        source: URI of the camera, see `bittern.sources`.
        camera: options of the source, the same that may follow the question mark of its URI.
        name: what events call the source; left out: the source's own name.
        models: names or folders.
        fps: frames a second that are classified at most; recorded sources are read as fast as they can be. Not below
            0.1, because frames feed the watchdog, whose time is 30 s.
        threads: of the processor, for one inference.
        timeout_s: seconds without a frame after which the camera is started again.
        region: left, top, width, height in pixels of the frame: what to look at instead of the whole frame.
        views: which squares of it: "center", and for wide scenes "left" and "right" beside it. Each is an inference;
            the highest score of a label counts.
        decision: for every alarm; and so on, a table each. Sinks that have no table are off.
    """

    source: str = "picamera:"
    camera: dict[str, str | int | float | bool] = {}
    name: str | None = None
    models: Annotated[tuple[str, ...], Meta(min_length=1)] = ("stop_sign",)
    fps: Annotated[float, Meta(ge=0.1, le=240.0)] = 5.0
    threads: Annotated[int, Meta(ge=1, le=64)] = 1
    timeout_s: Annotated[float, Meta(gt=0.0, le=3600.0)] = 2.0
    region: Rectangle | None = None
    views: Views = ("center",)
    decision: DecisionConfig = DecisionConfig()
    alarm: tuple[AlarmConfig, ...] = ()
    gate: GateConfig = GateConfig()
    recovery: RecoveryConfig = RecoveryConfig()
    reload: ReloadConfig = ReloadConfig()
    outbox: OutboxConfig = OutboxConfig()
    snapshots: SnapshotConfig | None = None
    mqtt: MqttConfig | None = None
    webhook: WebhookConfig | None = None
    command: CommandConfig | None = None
    gpio: GpioConfig | None = None
    health: HealthConfig | None = None

    def __post_init__(self) -> None:
        check_views(self.views)


def load(file: Path) -> WatchConfig:
    """Read a configuration file.

    Raises:
        ConfigurationError: no such file, or the first of its errors: FILE:LINE: KEY: what was expected, and what came.
            `bittern.config.toml_file.read` gives all of them.
    """
    parsed = read(file, WatchConfig)
    if parsed.value is not None:
        return parsed.value
    more = f"; and {len(parsed.problems) - 1} more, see: bittern config --check" if len(parsed.problems) > 1 else ""
    raise ConfigurationError(parsed.problems[0].text(file) + more)
