"""The configuration of `bittern watch`: one TOML file per camera, plain data, unknown keys refused."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from bittern.config import secret_file
from bittern.config.toml_file import read
from bittern.errors import ConfigurationError
from bittern.stated import PixelKind, ScoreRule

Seconds = Annotated[float, Meta(ge=0.0, le=86400.0)]
Offset = Annotated[int, Meta(ge=0)]
Length = Annotated[int, Meta(ge=1)]
Score = Annotated[float, Meta(ge=0.0, le=1.0)]
Evidence = Annotated[float, Meta(ge=0.0, le=1000.0)]
Frames = Annotated[int, Meta(ge=1, le=1000)]
# File names cannot contain NUL.
Folder = Annotated[str, Meta(pattern=r"^[^\x00]*\Z", description="the path of a folder")]
# Left, top, width, height in pixels.
Rectangle = Annotated[
    tuple[Offset, Offset, Length, Length],
    Meta(description="four whole numbers: left, top, width, height (the last two at least 1)"),
]
Side = Annotated[int, Meta(ge=1, le=4096)]
SideBySide = Annotated[str, Meta(pattern=r"^[0-9]{1,4}x[0-9]{1,4}\Z", description='"WIDTHxHEIGHT"')]
Views = Annotated[tuple[Literal["center", "left", "right", "moving"], ...], Meta(min_length=1, max_length=4)]


# A value that may hold a password, or be one: no message shows it.
SECRET = {"secret": True}
Secret = Annotated[str, Meta(extra=SECRET)]


def check_views(views: Views) -> None:
    """Raises ValueError if a view is named twice."""
    for view in views:
        if views.count(view) > 1:
            raise ValueError(f'views: "{view}" is listed twice')


# What an alarm takes if nothing else is said: at five frames a second two that are well above the threshold.
EVIDENCE = 2.0


class DecisionConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """`[decision]`: when scores raise an alarm, and when it ends.

    Attributes:
        threshold: the name of one of the model's thresholds, a promise ("at most 1 false alarm a day", or "an hour"),
            which picks the lowest threshold that kept to it on the model's streams, or a score from 0 to 1.
        off: the score below which an alarm may end; left out: the named threshold's own, or half of the score.
        evidence: how much evidence an alarm needs: scores above the threshold add to it and scores below it take it
            away, as differences of log-odds, one frame in 0.2 s at most 1.5; 0 needs none; left out: 2.0, or 0 if
            `votes` or `of` is set.
        votes: how many of the last `of` frames must reach the threshold; left out: 1, or with `of` 2.
        of: how many of the last frames are considered for `votes`; left out: 1, or with `votes` 3.
        cooldown_s: seconds from the end of an alarm to the next.
        min_off_s: seconds below `off` before an alarm ends.
    """

    threshold: str | Score = "default"
    off: Score | None = None
    evidence: Evidence | None = None
    votes: Frames | None = None
    of: Frames | None = None
    cooldown_s: Seconds = 5.0
    min_off_s: Seconds = 0.5

    def rule(self) -> tuple[float, int, int]:
        """The evidence and the votes that an alarm takes, and the number of frames that votes are counted over.

        Votes alone are counted without evidence, as before there was any.
        """
        if self.votes is None and self.of is None:
            return EVIDENCE if self.evidence is None else self.evidence, 1, 1
        votes = 2 if self.votes is None else self.votes
        return self.evidence or 0.0, votes, 3 if self.of is None else self.of

    def __post_init__(self) -> None:
        _, votes, of = self.rule()
        if votes > of:
            raise ValueError(f"votes ({votes}) must not exceed of ({of})")
        if isinstance(self.threshold, float | int) and self.off is not None and self.off > self.threshold:
            raise ValueError(f"off ({self.off}) must not exceed threshold ({self.threshold})")


class AlarmConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """`[[alarm]]`: overrides `[decision]` for one model, one label, or one label of one model.

    If several tables match, one that names both model and label wins over one that names only one of them; otherwise
    the last one wins.

    Attributes:
        model: name of a model; left out: every model.
        label: an alarm label; left out: every label.
        threshold: as in `[decision]`; if it or one of the next six is left out, the value of `[decision]` applies.
        off: as in `[decision]`.
        evidence: as in `[decision]`.
        votes: as in `[decision]`.
        of: as in `[decision]`.
        cooldown_s: as in `[decision]`.
        min_off_s: as in `[decision]`.
    """

    model: str | None = None
    label: str | None = None
    threshold: str | Score | None = None
    off: Score | None = None
    evidence: Evidence | None = None
    votes: Frames | None = None
    of: Frames | None = None
    cooldown_s: Seconds | None = None
    min_off_s: Seconds | None = None


class ModelConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """`[[model]]`: one model; the other keys are for a bare .tflite file, of what it does not say itself.

    Attributes:
        path: name, folder or .tflite file.
        labels: file with the labels: one a line, numbered or not, CSV, or JSON; left out: those packed into the model.
        pixels: what the network takes for the bytes of a picture; left out: as the file says.
        scores_by: how its outputs become scores; left out: as the file says.
        score_of: which of two labels has the score, where the network gives a single value.
        size: side of the input in pixels, or "WIDTHxHEIGHT", where the file leaves it free.
        alarm: labels that raise an alarm.
        nothing: labels that mean that nothing of interest is there.
        threshold: score from which an alarm is on; left out: 0.5. `[decision]` has others.
    """

    path: Annotated[str, Meta(min_length=1)]
    labels: str | None = None
    pixels: PixelKind | None = None
    scores_by: ScoreRule | None = None
    score_of: str | None = None
    size: Side | SideBySide | None = None
    alarm: tuple[str, ...] = ()
    nothing: tuple[str, ...] = ()
    threshold: Score | None = None


class GateConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """`[gate]`: a still scene is not classified again.

    Attributes:
        enabled: classify only while something moves; false classifies every frame.
        threshold: how much a thumbnail must change, in grey levels of 255, for a frame to count as motion.
        heartbeat_s: the interval at which even a still scene is classified.
        linger_s: how long every frame is classified after the last motion.
    """

    enabled: bool = True
    threshold: Annotated[float, Meta(gt=0.0, le=255.0)] = 10.0
    heartbeat_s: Annotated[float, Meta(gt=0.0, le=20.0)] = 5.0
    linger_s: Seconds = 2.0


class RecoveryConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """`[recovery]`: how to handle a camera that fails.

    Attributes:
        warm_up_frames: the first frames of a camera, dark or green until it has settled, are not classified.
        blind_after_s: seconds of a black, white or flat picture after which the camera counts as blind.
        reboot_command: run once if a camera's process does not end even with SIGKILL; empty runs nothing. The unit
            bittern@ may not reboot: touch a file for bittern-reboot@.path (docs/raspberry-pi.md).
    """

    warm_up_frames: Annotated[int, Meta(ge=0, le=1000)] = 5
    blind_after_s: Annotated[float, Meta(ge=0.1, le=3600.0)] = 3.0
    reboot_command: tuple[str, ...] = ()


class SnapshotConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """`[snapshots]`: a JPEG of every alarm, in a ring of files.

    Attributes:
        folder: where they are stored; "" takes $RUNTIME_DIRECTORY (systemd) or $XDG_RUNTIME_DIR, which are in memory,
            not on the SD card.
        budget_mb: the oldest are deleted when all together exceed this size.
        quality: JPEG quality on OpenCV's scale.
    """

    folder: Folder = ""
    budget_mb: Annotated[float, Meta(ge=0.1, le=1e6)] = 16.0
    quality: Annotated[int, Meta(ge=1, le=100)] = 85


class KeepConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """`[keep]`: frames to learn from, in the folder `kept` of the state folder: of many frames the one that the models
    were least sure of, and those with which an alarm began or ended; of one scene only one.

    Attributes:
        every: of this many classified frames the one that the models were least sure of is kept.
        sure: the score from which an answer is sure: such a frame is kept only if an alarm begins or ends with it.
        budget_mb: the oldest are deleted when all together exceed this size.
        max_frames: the oldest are deleted when there are more.
        quality: JPEG quality on OpenCV's scale.
    """

    every: Annotated[int, Meta(ge=1, le=10_000_000)] = 300
    sure: Score = 0.95
    budget_mb: Annotated[float, Meta(ge=0.1, le=1e6)] = 64.0
    max_frames: Annotated[int, Meta(ge=1, le=10_000)] = 500
    quality: Annotated[int, Meta(ge=1, le=100)] = 90


class OutboxConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """`[outbox]`: events on their way to network sinks.

    Attributes:
        folder: folder of outbox.sqlite; "" takes $STATE_DIRECTORY (systemd), or ~/.local/state/bittern/NAME.
        max_events: when more events wait, the oldest are dropped and counted.
    """

    folder: Folder = ""
    max_events: Annotated[int, Meta(ge=1, le=10_000_000)] = 100_000


class MqttConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """`[mqtt]`: events to a broker, with Home Assistant's discovery.

    Attributes:
        host: name or address of the broker.
        port: port of the broker; left out: 1883, or 8883 with TLS.
        user: user name to log in with; "" logs in without one.
        password_file: a file whose first line is the password; "" uses none. The password itself must not be in this
            file, so that it can be shown to others.
        tls: encrypt, and verify the broker's certificate.
        ca_file: certificates to trust instead of the system's; "" trusts the system's.
        topic: events go to TOPIC/event, states to TOPIC/...; "" takes bittern/NAME.
        discovery: announce entities to Home Assistant.
        discovery_prefix: Home Assistant's discovery topic.
        image: publish the snapshot of an alarm (needs `[snapshots]`).
        interval_s: time between two sets of diagnostics (frames per second, latency, temperature, scores).
        commands: let Home Assistant pause detection, set thresholds, ask for a picture and restart the daemon.
        picture_every_s: time between two pictures of the camera, whatever it shows; left out: none.
    """

    host: Annotated[str, Meta(min_length=1, extra=SECRET)]
    port: Annotated[int, Meta(ge=1, le=65535)] | None = None
    user: Secret = ""
    password_file: Secret = ""
    tls: bool = False
    ca_file: Secret = ""
    topic: str = ""
    discovery: bool = True
    discovery_prefix: Annotated[str, Meta(min_length=1)] = "homeassistant"
    image: bool = True
    interval_s: Annotated[float, Meta(ge=1.0, le=86400.0)] = 30.0
    commands: bool = True
    picture_every_s: Annotated[float, Meta(ge=1.0, le=86400.0)] | None = None

    @property
    def broker_port(self) -> int:
        """The port to connect to."""
        return self.port or (8883 if self.tls else 1883)

    @property
    def address(self) -> str:
        """Host and port.

        Raises:
            ConfigurationError: `host` is something else, such as "mqtt://user:password@host", which is not shown.
        """
        if not re.fullmatch(r"\w(?:[\w.-]*\w)?\.?", self.host):
            try:
                ipaddress.IPv6Address(self.host)
            except ValueError:
                raise ConfigurationError(
                    "mqtt.host: expected the name or address of a broker and nothing else: port, user and "
                    "password_file are keys of their own"
                ) from None
        return f"{self.host}:{self.broker_port}"


class WebhookConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """`[webhook]`: an HTTP POST for every event, redirects refused.

    Attributes:
        url: http:// or https://.
        secret_file: a file whose first line is the key that signs the body (HMAC-SHA256, header X-Bittern-Signature);
            "" does not sign.
        timeout_s: time limit of one request, including its response.
    """

    url: Annotated[
        str, Meta(pattern="^https?://", description="a URL that begins with http:// or https://", extra=SECRET)
    ]
    secret_file: Secret = ""
    timeout_s: Annotated[float, Meta(gt=0.0, le=300.0)] = 10.0


class CommandConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """`[command]`: a program that is run for every event, with its JSON on stdin; no shell.

    Attributes:
        run: program and arguments.
        timeout_s: time after which the program is killed.
    """

    run: Annotated[tuple[str, ...], Meta(min_length=1, extra=SECRET)]
    timeout_s: Annotated[float, Meta(gt=0.0, le=3600.0)] = 10.0


class GpioConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """`[gpio]`: a pin that is on while an alarm is on.

    Attributes:
        pin: Broadcom (BCM) number of the pin, as in gpiozero.
        label: label of the alarm; left out: any alarm.
        active_high: whether a high level means on; false for a relay that switches on at a low level.
    """

    pin: Annotated[int, Meta(ge=0, le=53)]
    label: str | None = None
    active_high: bool = True


class HealthConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """`[health]`: metrics for Prometheus, and whether the daemon makes progress.

    Attributes:
        port: port of http://HOST:PORT/metrics and /health; 0 takes a free one and logs it.
        host: address to listen on; 127.0.0.1 is reachable from this machine only.
    """

    port: Annotated[int, Meta(ge=0, le=65535)]
    host: str = "127.0.0.1"


class PageConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """`[page]`: a page for the browser: live picture, scores, events, review.

    Attributes:
        port: port of the page http://HOST:PORT/; 0 takes a free one and logs it.
        host: address to listen on; one that others can reach needs a token (docs/page.md).
        names: further host names by which the page is asked for, such as those of a reverse proxy; needs a token too.
    """

    port: Annotated[int, Meta(ge=0, le=65535)]
    host: Annotated[str, Meta(min_length=1)] = "127.0.0.1"
    names: tuple[str, ...] = ()


class ReloadConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """`[reload]`: when SIGHUP may replace a model.

    Attributes:
        max_slowdown: a candidate is refused if its inference takes more than this many times as long as that of the
            running model of the same name; models of different names are not compared.
        timeout_s: time limit for checking one candidate in a process of its own, including the start of the process.
    """

    max_slowdown: Annotated[float, Meta(ge=1.0, le=100.0)] = 1.5
    timeout_s: Annotated[float, Meta(ge=1.0, le=3600.0)] = 120.0


class WatchConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The whole file.

    Attributes:
        source: URI of the camera, see `bittern.sources`.
        source_file: a file whose first line is the URI instead; "" takes `source`. An address with a password is kept
            out of this file by it, so that it can be shown to others.
        camera: options of the source, the same ones that its URI takes after a question mark.
        name: name of the source in events; left out: the source's own name.
        models: names, folders or .tflite files of the models; left out: those of the `[[model]]` tables, and without
            these "stop_sign".
        fps: how many frames per second are looked at at most; of a recording by its own clock, as fast as possible. At
            least 0.1, because frames feed the watchdog, which waits 30 s.
        threads: number of threads for one inference.
        timeout_s: seconds without a frame after which the camera is restarted.
        region: left, top, width, height in pixels of the part of the frame to classify instead of the whole frame.
        views: squares of the frame to classify: "center"; for wide scenes also "left" and "right", or "moving", the
            square around what moves. Each one costs an inference; the highest score of a label counts.
        model: models beside `models`, with what is stated about them; this and the following are tables.
        decision: for every alarm. Sinks without a table are off.
    """

    source: Secret = "picamera:"
    source_file: Secret = ""
    camera: dict[str, str | int | float | bool] = {}
    name: str | None = None
    models: Annotated[tuple[str, ...], Meta(min_length=1)] | None = None
    fps: Annotated[float, Meta(ge=0.1, le=240.0)] = 5.0
    threads: Annotated[int, Meta(ge=1, le=64)] = 1
    timeout_s: Annotated[float, Meta(gt=0.0, le=3600.0)] = 2.0
    region: Rectangle | None = None
    views: Views = ("center",)
    model: tuple[ModelConfig, ...] = ()
    decision: DecisionConfig = DecisionConfig()
    alarm: tuple[AlarmConfig, ...] = ()
    gate: GateConfig = GateConfig()
    recovery: RecoveryConfig = RecoveryConfig()
    reload: ReloadConfig = ReloadConfig()
    outbox: OutboxConfig = OutboxConfig()
    snapshots: SnapshotConfig | None = None
    keep: KeepConfig | None = None
    mqtt: MqttConfig | None = None
    webhook: WebhookConfig | None = None
    command: CommandConfig | None = None
    gpio: GpioConfig | None = None
    health: HealthConfig | None = None
    page: PageConfig | None = None

    @property
    def all_models(self) -> tuple[ModelConfig, ...]:
        """Those of `models`, then those with tables of their own."""
        names = self.models if self.models is not None else () if self.model else ("stop_sign",)
        return (*(ModelConfig(path=name) for name in names), *self.model)

    def __post_init__(self) -> None:
        check_views(self.views)
        if self.source_file and self.source != "picamera:":
            raise ValueError("source_file: the source is in this file too: leave one of them out")
        if self.name is not None and re.search(r"//|:.*@", self.name):
            raise ValueError('name: expected a name such as "garden", not an address: every event shows it')


def with_source(config: WatchConfig) -> WatchConfig:
    """The configuration with the source that is in `source_file`, if it names one.

    Raises:
        ConfigurationError: the file cannot be read.
    """
    if not config.source_file:
        return config
    line = secret_file.first_line(config.source_file, "source_file", "the URI of the camera").strip()
    try:
        return msgspec.structs.replace(config, source=line.decode(), source_file="")
    except UnicodeDecodeError:
        raise ConfigurationError("source_file: expected text in UTF-8") from None


def load(file: Path) -> WatchConfig:
    """Read a configuration file; `with_source` also reads the file that may hold the source.

    Raises:
        ConfigurationError: no such file, or the first of its errors: FILE:LINE: KEY: what was expected and what came.
            `bittern.config.toml_file.read` returns all of them.
    """
    parsed = read(file, WatchConfig)
    if parsed.value is not None:
        return parsed.value
    more = f"; and {len(parsed.problems) - 1} more, see: bittern config --check" if len(parsed.problems) > 1 else ""
    raise ConfigurationError(parsed.problems[0].text(file) + more)
