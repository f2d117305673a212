"""Fault 31: any byte of the outbox or of its log changed; the file deleted or replaced while a daemon uses it."""

from __future__ import annotations

import logging
import random
import resource
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from tests.doubles.http_peer import Peer, status
from tests.doubles.outboxes import body, box_in
from tests.doubles.repetitions import times
from tests.faults.test_daemon import Daemon

from bittern.delivery.outbox import Outbox
from bittern.delivery.outbox_file import NAME
from bittern.events import Event

Record = Callable[..., None]
COUNT, TAKEN = 60, 30  # events; how many of them sink b has
# In one place, which SQLite, a count or the log's checksums tell; and in many, after which it must only open.
SMALL, LARGE = ("bit", "bit", "byte"), ("bytes", "run", "zeros", "swap", "short")


def fill(folder: Path) -> Outbox:
    """An outbox with events that wait, in many commits; a small log and a large file, after a few."""
    box = box_in(folder, "a", "b")
    choose = random.Random(31)
    for n in range(COUNT):
        box.put(body(n, choose.choice((0, 300, 3000))))
        if n % 3 == 0:
            box.flush()
    box.flush()
    for _ in range(TAKEN):
        box.read("b")
        box.done("b")
    box.flush()
    return box


def mutated(data: bytes, kind: str, choose: random.Random) -> bytes:
    changed = bytearray(data)
    offset = choose.randrange(len(data))
    if kind == "bit":
        changed[offset] ^= 1 << choose.randrange(8)
    elif kind == "byte":
        changed[offset] = choose.randrange(256)
    elif kind == "bytes":
        for _ in range(choose.randrange(1, 50)):
            changed[choose.randrange(len(data))] = choose.randrange(256)
    elif kind in ("run", "zeros"):
        length = len(changed[offset : offset + choose.randrange(1, 5000)])
        changed[offset : offset + length] = choose.randbytes(length) if kind == "run" else bytes(length)
    elif kind == "swap":
        pages = [data[start : start + 4096] for start in range(0, len(data), 4096)]
        first, second = choose.randrange(len(pages)), choose.randrange(len(pages))
        pages[first], pages[second] = pages[second], pages[first]
        changed[:] = b"".join(pages)
    else:
        del changed[offset:]
    return bytes(changed)


def deliver_all(box: Outbox) -> tuple[dict[str, int], bool]:
    """What the daemon's threads do: how many events each sink got, and whether one said that something is lost."""
    counts, reported = {"a": 0, "b": 0}, False
    box.put(body(COUNT))
    box.flush()
    for sink in counts:
        while (encoded := box.read(sink)) is not None or box.dirty:
            if encoded is None:
                box.flush()
                if (encoded := box.read(sink)) is None:
                    break
            try:
                event = msgspec.json.decode(encoded, type=Event)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                reported = True  # refused, with a line in the log
            else:
                reported |= event.type == "dropped" or event.state == "outbox_damaged"
                counts[sink] += event.type == "state" and event.state is None
            box.done(sink)
    box.flush()
    return counts, reported


@pytest.mark.fuzz
def test_any_byte_may_be_wrong(tmp_path: Path, record: Record, caplog: pytest.LogCaptureFixture) -> None:
    """It opens or is set aside; what comes afterwards is kept; what was lost is told."""
    n = times(10_000, 60)
    caplog.set_level(logging.WARNING)
    memory = Path("/dev/shm")  # many small files that are synced
    place = Path(shutil.copytree(tmp_path, memory / tmp_path.name)) if memory.is_dir() else tmp_path
    try:
        fill(place / "closed").close()
        open_box = fill(place / "open")
        shutil.copytree(place / "open", place / "killed", ignore=shutil.ignore_patterns("*-shm"))
        open_box.close()
        assert (place / "killed" / f"{NAME}-wal").stat().st_size > 50_000
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        choose, outcomes, longest = random.Random(31), Counter[str](), 0.0
        for i in range(n):
            folder = Path(shutil.copytree(place / choose.choice(("closed", "killed", "killed")), place / "box"))
            file = choose.choice(sorted(folder.iterdir()))
            kind = choose.choice(SMALL + LARGE)
            file.write_bytes(mutated(file.read_bytes(), kind, choose))
            caplog.clear()
            begun = time.monotonic()
            box = box_in(folder, "a", "b")
            counts, reported = deliver_all(box)
            box.close()
            longest = max(longest, time.monotonic() - begun)
            reported |= bool(caplog.records)
            whole = counts["a"] > COUNT and counts["b"] > COUNT - TAKEN
            assert whole or reported or kind in LARGE, f"{i}: {kind} in {file.name}: {counts} of {COUNT + 1}"
            outcomes["whole" if whole else "less, told" if reported else "less"] += 1
            shutil.rmtree(folder)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    finally:
        if place != tmp_path:
            shutil.rmtree(place)
    assert longest < 5.0
    assert grown < 500
    figure = f"{dict(outcomes)}; at most {longest:.1f} s and {grown:.0f} MB"
    record(31, "outbox and log mutated", n, figure, "opens or is set aside and told; never an exit")


def remove(state: Path) -> None:
    (state / NAME).unlink()


def remove_with_log(state: Path) -> None:
    for file in state.iterdir():
        file.unlink()


def remove_folder(state: Path) -> None:
    shutil.rmtree(state)


def rename(state: Path) -> None:
    (state / NAME).rename(state / "elsewhere")


def replace_by_another(state: Path) -> None:
    box = box_in(state.parent / "another", "webhook")
    box.put(body(1))
    box.flush()
    box.close()
    (state.parent / "another" / NAME).rename(state / NAME)


def replace_by_text(state: Path) -> None:
    (state.parent / "text").write_text("no database" * 1000)
    (state.parent / "text").rename(state / NAME)


def overwrite(state: Path) -> None:
    box = box_in(state.parent / "over", "webhook")
    box.flush()
    box.close()
    shutil.copyfile(state.parent / "over" / NAME, state / NAME)


def remove_log(state: Path) -> None:
    (state / f"{NAME}-wal").unlink()


CHANGES = (
    remove, remove_with_log, remove_folder, rename, replace_by_another, replace_by_text, overwrite, remove_log,
)  # fmt: skip


@pytest.mark.parametrize(
    "change", [CHANGES[0], *(pytest.param(change, marks=pytest.mark.slow) for change in CHANGES[1:])]
)
def test_deleted_or_replaced_while_running(
    tmp_path: Path, peer: Peer, record: Record, change: Callable[[Path], None]
) -> None:
    """Everything that the daemon printed arrives or is counted; and it says what happened."""
    n = times(10, 1)
    for i in range(n):
        peer.requests.clear()
        peer.answer = lambda _: status(503)
        daemon = Daemon(tmp_path / str(i), peer, fps=10.0)
        try:
            daemon.read(lambda daemon=daemon: len(daemon.alarms()) >= 3 and len(peer.requests) > 0)  # type: ignore[misc]
            change(daemon.folder / "state")
            taken: list[dict[str, object]] = []

            def take(request: object, taken: list[dict[str, object]] = taken) -> bytes:
                taken.append(request.event)  # type: ignore[attr-defined]
                return status(200)

            peer.answer = take
            more = len(daemon.alarms()) + 3
            daemon.read(lambda daemon=daemon, more=more: len(daemon.alarms()) >= more)  # type: ignore[misc]
            daemon.read(
                lambda taken=taken: any(event.get("state") == "outbox_damaged" for event in taken)  # type: ignore[misc]
            )
            daemon.end(signal.SIGTERM)
            assert daemon.process.returncode == 0, daemon.errors.read_text()
            ids = {str(event["id"]) for event in taken} | daemon.in_outbox()
            missing = set(daemon.alarms()) - ids
            counted = sum(int(str(event.get("count", 0))) for event in taken)
            assert len(missing) <= counted, f"{len(missing)} lost, {counted} told"
            assert not missing or change == overwrite
            assert "outbox: " in daemon.errors.read_text()
        finally:
            daemon.close()
    record(31, f"{change.__name__.replace('_', ' ')} while running", n, "0 lost in silence", "noticed, told, goes on")
