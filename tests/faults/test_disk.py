"""Fault 11 on a real small disk: full, or read-only, while events go on to be delivered."""

from __future__ import annotations

import contextlib
import logging
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from tests.doubles.deliveries import event
from tests.doubles.http_peer import Peer
from tests.doubles.repetitions import pass_mark, times
from tests.doubles.waiting import until

from bittern.config.schema import OutboxConfig, WebhookConfig
from bittern.delivery import dispatch as delivery_module
from bittern.delivery.dispatch import Delivery
from bittern.delivery.sinks.webhook import WebhookSink

Record = Callable[..., None]
MARK = "goes on classifying; says so once; recovers when it ends"


def mount(*words: str) -> None:
    done = subprocess.run(["mount", *words], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no right to mount a small disk: {done.stderr.strip()}")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MB: twice what the write-ahead log takes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount("-t", "tmpfs", "-o", "size=2m", "bittern-test", str(folder))
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk counts as well again after a second, not a minute."""
    monkeypatch.setattr(delivery_module, "QUIET_S", 1.0)


def send(delivery: Delivery, first: int, end: int) -> float:
    """Send some; the longest that the caller waited, in seconds."""
    longest = 0.0
    for number in range(first, end):
        begun = time.monotonic()
        delivery.send(event(number, "x" * 3000))
        longest = max(longest, time.monotonic() - begun)
        time.sleep(0.005)
    return longest


def fill(file: Path) -> None:
    """Take all the room that there is."""
    with contextlib.suppress(OSError), file.open("wb", buffering=0) as opened:
        while True:
            opened.write(bytes(512))


def arrived(peer: Peer, count: int) -> bool:
    return len(peer.requests) >= count


def messages(log: pytest.LogCaptureFixture) -> list[str]:
    return [record.message.split(" (")[0] for record in log.records if record.message.startswith("outbox: ")]


SAYS = ["outbox: the disk takes no events", "outbox: the disk takes events again"]


def recovers(delivery: Delivery, peer: Peer, log: pytest.LogCaptureFixture, first: int, end: int) -> None:
    """The disk takes events again: all that was ever sent arrives in order, and each change was logged once."""
    until(lambda: delivery.status().disk_error is None)
    until(lambda: SAYS[1] in messages(log))
    send(delivery, first, end)
    until(partial(arrived, peer, end))
    delivery.close()
    assert delivery.failed is None
    assert [e["monotonic_ns"] for e in peer.events] == list(range(end))
    assert messages(log) == SAYS


def test_a_full_disk(disk: Path, peer: Peer, record: Record, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    n = times(5, 1)
    for run in range(n):
        peer.requests.clear()
        caplog.clear()
        delivery = Delivery(
            OutboxConfig(folder=str(disk / str(run))), [WebhookSink(WebhookConfig(url=peer.url))], "cam"
        )
        send(delivery, 0, 5)
        until(partial(arrived, peer, 5))
        filler = disk / "filler"
        fill(filler)
        longest = send(delivery, 5, 105)
        until(partial(arrived, peer, 105))
        assert delivery.status().disk_error is not None, "the disk was not full after all"
        assert longest < pass_mark(0.5)
        filler.unlink()
        recovers(delivery, peer, caplog, 105, 110)
        for file_ in (disk / str(run)).iterdir():
            file_.unlink()
    record(11, "disk of the state full", n, f"{110 * n} events, all delivered, in order; said once", MARK)


def test_a_read_only_disk(disk: Path, peer: Peer, record: Record, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    n = times(5, 1)
    for _ in range(n):
        peer.requests.clear()
        caplog.clear()
        mount("-o", "remount,ro", str(disk))
        delivery = Delivery(OutboxConfig(folder=str(disk)), [WebhookSink(WebhookConfig(url=peer.url))], "cam")
        send(delivery, 0, 50)
        until(partial(arrived, peer, 50))
        assert delivery.status().disk_error is not None
        mount("-o", "remount,rw", str(disk))
        recovers(delivery, peer, caplog, 50, 60)
    record(11, "disk of the state read-only", n, f"{60 * n} events, all delivered, in order; said once", MARK)
