"""What the tests of MQTT share: events, and sinks that are closed in the end."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bittern.config.schema import MqttConfig
from bittern.delivery.sinks.base import Diagnostics, SinkContext, Undelivered
from bittern.delivery.sinks.mqtt import MqttSink
from bittern.events import AlarmKey, Event, to_line, uuid7

STOP = AlarmKey("stop_sign", "stop_sign", "stop")
ALARMS = {STOP: 0.5}
INFO = SinkContext("door", ALARMS)
ALARM, LABEL, CONFIG = (
    "bittern/door/alarm/stop_sign/stop",
    "bittern/door/label/stop_sign",
    "homeassistant/device/bittern_door/config",
)


def event(kind: str = "alarm.on", **fields: Any) -> Event:
    if kind.startswith("alarm"):
        fields = {"model": "stop_sign", "task": "stop_sign", "label": "stop", **fields}
    return Event(id=uuid7(), type=kind, time="2026-01-01T00:00:00.000Z", monotonic_ns=0, source="door", **fields)  # type: ignore[arg-type]


def deliver(sink: MqttSink, sent: Event) -> str:
    """Raise an event, and deliver it."""
    sink.follow(sent)
    return sink.deliver(sent, to_line(sent)[:-1])


def delivered(sink: MqttSink, sent: Event, seconds: float = 20.0) -> None:
    """Raise an event, and try to deliver it as often as it takes, as the outbox does."""
    end = time.monotonic() + seconds
    sink.follow(sent)
    while True:
        try:
            sink.deliver(sent, to_line(sent)[:-1])
        except Undelivered:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
        else:
            return


class Opens:
    """Opens sinks, and closes them in the end."""

    def __init__(self) -> None:
        self._sinks: list[MqttSink] = []

    def __call__(
        self,
        port: int,
        *,
        snapshots: Path | None = None,
        memory: Path | None = None,
        config_file: Path | None = None,
        name: str = "door",
        alarms: Mapping[AlarmKey, float] | None = None,
        announce: bool = True,
        **config: Any,
    ) -> MqttSink:
        config = {"host": "127.0.0.1", **config}
        info = SinkContext(
            name,
            ALARMS if alarms is None else alarms,
            snapshots=snapshots,
            memory=memory,
            config_file=config_file,
        )
        sink = MqttSink(MqttConfig(port=port, **config), info, lambda: Diagnostics(fps=4.5), announce=announce)
        self._sinks.append(sink)
        return sink

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for sink in self._sinks:
            sink.close()
