"""Opens the sinks that a configuration names."""

from __future__ import annotations

import socket
from collections.abc import Callable

from bittern.config.schema import WatchConfig
from bittern.delivery.sinks.base import Diagnostics, Sink, SinkContext

# Names (those of their tables) of the sinks behind the outbox: network and programs.
DURABLE = ("mqtt", "webhook", "command")


def display_name(config: WatchConfig, source: str) -> str:
    """What people call the camera: its name, else the host and the name of the source."""
    return config.name or f"{socket.gethostname()} {source}"


def open_sinks(
    config: WatchConfig,
    info: SinkContext,
    diagnostics: Callable[[], Diagnostics],
    *,
    announce: bool = True,
) -> list[Sink]:
    """Open the sinks that have a table in the configuration. Only their modules are imported.

    Args:
        config: the configuration.
        info: what sinks are told of the source.
        diagnostics: called now and then, from another thread.
        announce: false only delivers events, so that a second process can test a peer while a daemon runs.

    Raises:
        ConfigurationError: a table with invalid values, or a missing library.
    """
    sinks: list[Sink] = []
    try:
        if config.mqtt is not None:
            from bittern.delivery.sinks.mqtt import MqttSink

            sinks.append(MqttSink(config.mqtt, info, diagnostics, announce=announce))
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
