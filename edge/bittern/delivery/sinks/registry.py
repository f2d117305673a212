"""Opens the sinks that a configuration names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from bittern.config.schema import WatchConfig
from bittern.delivery.sinks.base import Diagnostics, Sink
from bittern.events import AlarmKey

# Names (those of their tables) of the sinks behind the outbox: network and programs.
DURABLE = ("mqtt", "webhook", "command")


def open_sinks(
    config: WatchConfig,
    name: str,
    diagnostics: Callable[[], Diagnostics],
    *,
    alarms: Sequence[AlarmKey] = (),
    snapshots: Path | None = None,
    announce: bool = True,
) -> list[Sink]:
    """Open the sinks that have a table in the configuration. Only their modules are imported.

    Args:
        config: the configuration.
        name: name of the source in events.
        diagnostics: called now and then, from another thread.
        alarms: every alarm that can go on, for a sink that announces them.
        snapshots: the folder of the snapshots, for a sink that publishes them; None if there are none.
        announce: false only delivers events, so that a second process can test a peer while a daemon runs.

    Raises:
        ConfigurationError: a table with invalid values, or a missing library.
    """
    sinks: list[Sink] = []
    try:
        if config.mqtt is not None:
            from bittern.delivery.sinks.mqtt import MqttSink

            sinks.append(MqttSink(config.mqtt, name, alarms, diagnostics, snapshots, announce=announce))
        if config.webhook is not None:
            from bittern.delivery.sinks.webhook import WebhookSink

            sinks.append(WebhookSink(config.webhook))
        if config.command is not None:
            from bittern.delivery.sinks.command import CommandSink

            sinks.append(CommandSink(config.command))
        if config.gpio is not None:
            from bittern.delivery.sinks.gpio import GpioSink

            sinks.append(GpioSink(config.gpio))
    except BaseException:
        for sink in sinks:
            sink.close()
        raise
    return sinks
