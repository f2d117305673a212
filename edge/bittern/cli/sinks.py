"""`bittern sinks`: lists a configuration's sinks with the number of waiting events, or sends each a test event."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from bittern.cli.common import print_json, warn
from bittern.errors import printable

if TYPE_CHECKING:
    from bittern.config.schema import WatchConfig
    from bittern.delivery.sinks.base import Sink

# Configuration and state of the instances of the systemd unit.
_ETC, _STATE = Path("/etc/bittern"), Path("/var/lib/bittern")
# How long a broker may take to forget.
_FORGET_S = 20.0


@click.command(
    short_help="List the sinks and how many events wait, or test them.",
    epilog="Example: bittern sinks --config /etc/bittern/porch.toml --test",
)
@click.option(
    "--config", "config_file", type=click.Path(path_type=Path), required=True, help="TOML file, as in bittern watch."
)
@click.option("--test", is_flag=True, help="Send a test event (type state, state test) to every sink.")
@click.option(
    "--forget", is_flag=True, help="Take everything of this camera off the MQTT broker; the daemon must not run."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object per sink.")
@click.pass_context
def sinks(ctx: click.Context, config_file: Path, test: bool, forget: bool, as_json: bool) -> None:
    """List the configured sinks and how many events wait for each in the outbox; or test every sink.

    With --forget, the device disappears from Home Assistant, and the broker retains nothing of it.

    stdout always gets every event and is not listed. Exit code 1 if a sink did not accept the test event, or the
    outbox cannot be read.
    """
    from bittern.config import schema
    from bittern.sources import registry

    settings = schema.with_source(schema.load(config_file))
    if test and forget:
        raise click.UsageError("expected --test or --forget, not both")
    name = settings.name or registry.check_source(settings.source, settings.camera).name
    if forget:
        if not _forget(settings, name, config_file, as_json):
            ctx.exit(1)
        return
    if not _targets(settings):
        warn("no sink is configured: events go to stdout only")
        return
    if not (_test(settings, name, as_json) if test else _list(settings, name, config_file, as_json)):
        ctx.exit(1)


def _list(settings: WatchConfig, name: str, config_file: Path, as_json: bool) -> bool:
    from bittern.delivery import outbox_file
    from bittern.delivery.sinks.registry import DURABLE

    folder = _state_folder(settings, name, config_file)
    file, error_line = folder / outbox_file.NAME, ""
    waiting: dict[str, int] = {}
    try:
        if file.exists():
            waiting = outbox_file.count_waiting(file)
    except OSError as error:
        error_line = str(error)
    for sink, target in _targets(settings).items():
        durable = sink in DURABLE
        depth = waiting.get(sink, 0) if durable and not error_line else None
        if as_json:
            print_json({"sink": sink, "target": target, "durable": durable, "waiting": depth})
        else:
            queue = "best effort" if not durable else "waiting: unknown" if depth is None else f"{depth} waiting"
            click.echo(printable(f"{sink}  {target}  {queue}"))
    if error_line:
        warn(error_line)
    elif not as_json and any(sink in DURABLE for sink in _targets(settings)):
        waits = max(waiting.values(), default=0)
        click.echo(printable(f"outbox  {file}  {waits} of {settings.outbox.max_events} events"))
    return not error_line


def _state_folder(settings: WatchConfig, name: str, config_file: Path) -> Path:
    """The state folder of the daemon with this configuration, which may be an instance of the systemd unit."""
    from bittern.delivery import outbox

    instance = _STATE / config_file.stem
    if not settings.outbox.folder and config_file.absolute().parent == _ETC and instance.is_dir():
        return instance
    return outbox.folder(settings.outbox, name)


def _forget(settings: WatchConfig, name: str, config_file: Path, as_json: bool) -> bool:
    """Withdraw everything that was announced, and what is retained below the topics of this configuration."""
    import logging

    from bittern.delivery.outbox_file import InUse, OutboxFile
    from bittern.delivery.sinks import announced, mqtt
    from bittern.delivery.sinks.base import Undelivered
    from bittern.delivery.sinks.registry import display_name
    from bittern.delivery.sinks.withdrawal import Withdrawal
    from bittern.errors import BitternError, ConfigurationError
    from bittern.sources import registry

    logging.basicConfig(level=logging.ERROR)  # what the connection warns of is in the answers
    folder = _state_folder(settings, name, config_file)
    lock = OutboxFile(folder)
    if folder.is_dir():
        try:
            lock.lock()
        except InUse as error:
            holder = str(error).partition(": ")[0]
            raise ConfigurationError(f"{holder}: stop the daemon first, else it announces everything again") from None
    memory = announced.Memory(folder if folder.is_dir() else None, config_file)
    records = list(memory.records)
    if settings.mqtt is not None:
        source = registry.check_source(settings.source, settings.camera).name
        try:
            records.append(mqtt.retained_of(settings.mqtt, display_name(settings, source)))
        except Undelivered as error:
            raise BitternError(f"mqtt: {error.reason}") from None
    if not records:
        warn("no [mqtt] is configured, and nothing was announced")
        return True
    all_ok = True
    for record in records:
        withdrawal = Withdrawal(record, memory)
        try:
            ok = withdrawal.wait(_FORGET_S)
        finally:
            withdrawal.close()
        all_ok &= ok
        target = record.broker().address
        answer = f"{len(record.topics)} topics emptied" if ok else withdrawal.error or "no answer"
        if as_json:
            print_json({"sink": "mqtt", "target": target, "ok": ok, "answer": answer, "topics": list(record.topics)})
        else:
            click.echo(f"mqtt  {target}  {'forgotten' if ok else 'FAILED'}: {answer}")
    lock.close()
    return all_ok


def _test(settings: WatchConfig, name: str, as_json: bool) -> bool:
    import logging
    import time

    import msgspec

    from bittern.delivery.sinks.base import Diagnostics, SinkContext, Undelivered
    from bittern.delivery.sinks.registry import display_name, open_sinks
    from bittern.errors import ConfigurationError
    from bittern.events import Event, new_id, rfc3339, to_line
    from bittern.sources import registry
    from bittern.system import log

    log.begin(logging.WARNING)
    targets = _targets(settings)
    info = SinkContext(display_name(settings, registry.check_source(settings.source, settings.camera).name))
    all_ok = True
    for sink, target in targets.items():
        only_this = msgspec.structs.replace(settings, **{other: None for other in targets if other != sink})
        event = Event(
            id=new_id(),
            type="state",
            time=rfc3339(time.time_ns()),
            monotonic_ns=time.monotonic_ns(),
            source=name,
            state="test",
            detail="sent by bittern sinks --test",
        )
        opened: list[Sink] = []
        start = time.monotonic()
        try:
            opened = open_sinks(only_this, info, Diagnostics, announce=False)
            answer = " ".join(filter(None, (opened[0].deliver(event, to_line(event)[:-1]), opened[0].check())))
            ok = True
        except (Undelivered, ConfigurationError, OSError) as error:
            answer, ok = str(error), False
        finally:
            for one in opened:
                one.close()
        time_ms = round((time.monotonic() - start) * 1000, 1)
        all_ok &= ok
        if as_json:
            print_json({"sink": sink, "target": target, "ok": ok, "answer": answer, "time_ms": time_ms, "id": event.id})
        else:
            click.echo(printable(f"{sink}  {target}  {'ok' if ok else 'FAILED'}: {answer}"))
    return all_ok


def _targets(settings: WatchConfig) -> dict[str, str]:
    """Every configured sink with its destination."""
    from bittern.errors import redacted

    targets = {}
    if settings.mqtt is not None:
        targets["mqtt"] = settings.mqtt.address
    if settings.webhook is not None:
        targets["webhook"] = redacted(settings.webhook.url)  # its path may be the secret
    if settings.command is not None:
        targets["command"] = redacted(settings.command.run[0])  # its arguments may be secret
    if settings.gpio is not None:
        targets["gpio"] = f"pin {settings.gpio.pin}"
    return targets
