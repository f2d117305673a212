"""The file of the outbox: one process at a time, its size, damage, and where it is."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import msgspec
import pytest
from tests.doubles.outboxes import bodies, body, box_in, number, put, take, take_from_memory

from bittern.config.schema import OutboxConfig
from bittern.delivery.outbox import OutboxError, folder
from bittern.delivery.outbox_file import KEPT, NAME, count_waiting
from bittern.errors import ConfigurationError
from bittern.events import Event


def test_one_process_at_a_time(tmp_path: Path) -> None:
    box = box_in(tmp_path)
    put(box, 1)
    other = box_in(tmp_path)
    other.put(body(2))
    with pytest.raises(OutboxError, match=f"used by process {os.getpid()} "):
        other.flush()
    assert take_from_memory(other) == [2], "from memory meanwhile"
    box.close()
    put(other, 3)
    assert take(other) == [1, 2, 3], "at least once, and in order"


def test_the_file_shrinks_after_an_outage(tmp_path: Path) -> None:
    """Incremental vacuum: and so does the write-ahead log."""

    def size() -> int:
        return sum(file.stat().st_size for file in tmp_path.iterdir() if not file.name.endswith("-shm"))

    box = box_in(tmp_path, max_events=20_000)
    for _ in range(20):
        for n in range(500):
            box.put(body(n, 500))
        box.flush()
    full = size()
    assert full > 5_000_000
    count = 0
    while box.read("a") is not None:
        box.done("a")
        count += 1
        if count % 100 == 0:
            box.flush()
    assert count == 10_000
    box.flush()
    assert size() < 2_500_000, f"{full} before"
    box.close()
    assert (tmp_path / NAME).stat().st_size < 1_200_000


def test_the_file_does_not_grow_at_the_bound(tmp_path: Path) -> None:
    box = box_in(tmp_path, max_events=1000)
    sizes = []
    for _ in range(20):
        for n in range(1000):
            box.put(body(n, 300))
        box.flush()
        sizes.append(sum(file.stat().st_size for file in tmp_path.iterdir()))
    assert max(sizes[3:]) <= max(sizes[:3]) * 1.2
    assert box.status()["a"] == (1000, 19_000)


def test_how_much_waits_can_be_asked_beside_the_daemon_and_without_it(tmp_path: Path) -> None:
    box = box_in(tmp_path, "a", "b")
    put(box, 1, 2, 3)
    take(box, "b", 1)
    box.flush()
    assert count_waiting(tmp_path / NAME) == {"a": 3, "b": 2}
    put(box, 4)
    assert count_waiting(tmp_path / NAME) == {"a": 4, "b": 3}
    box.close()
    assert count_waiting(tmp_path / NAME) == {"a": 4, "b": 3}
    assert sorted(file.name for file in tmp_path.iterdir()) == [NAME], "asking leaves nothing behind"
    (tmp_path / NAME).write_bytes(b"nonsense" * 1000)
    with pytest.raises(OSError, match=r"outbox\.sqlite: file is not a database"):
        count_waiting(tmp_path / NAME)


@pytest.mark.parametrize("what", ["text", "half", "zeros", "other", "newer", "cursors"])
def test_a_damaged_file_is_set_aside(tmp_path: Path, what: str, caplog: pytest.LogCaptureFixture) -> None:
    box = box_in(tmp_path)
    put(box, *range(2000))
    box.close()
    file = tmp_path / NAME
    good = file.read_bytes()
    if what in ("text", "half", "zeros"):
        file.write_bytes(
            {"text": b"no database" * 999, "half": good[: len(good) // 2], "zeros": good[:9000] + bytes(99_000)}[what]
        )
    else:
        with sqlite3.connect(file) as db:
            db.execute(
                {
                    "other": "DROP TABLE events",
                    "newer": "PRAGMA user_version = 7",
                    "cursors": "UPDATE cursors SET seq = 'x'",
                }[what]
            )
        db.close()
    spoilt = file.read_bytes()
    box = box_in(tmp_path)
    put(box, 5000)
    assert "is damaged" in caplog.text
    (aside,) = tmp_path.glob(f"{NAME}.damaged-*Z")
    assert aside.stat().st_size == len(spoilt)
    events = {event.state: event for event in (msgspec.json.decode(b, type=Event) for b in bodies(box))}
    assert set(events) == {None, "outbox_damaged"}
    assert aside.name in str(events["outbox_damaged"].detail)
    box.flush()
    box.close()
    box = box_in(tmp_path)
    put(box, 5001)
    assert take(box) == [5001]


def test_a_file_damaged_while_it_is_used_is_set_aside_and_what_was_in_it_counted(tmp_path: Path) -> None:
    box = box_in(tmp_path, max_events=5000)
    for n in range(3000):
        box.put(body(n, 100))
    box.flush()
    with sqlite3.connect(tmp_path / NAME) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with (tmp_path / NAME).open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(500_000))
    taken = take(box)
    box.put(body(9999))
    box.flush()
    taken += take(box)
    assert list(tmp_path.glob(f"{NAME}.damaged-*Z"))
    delivered = [n for n in taken if isinstance(n, int) and n < 3000]
    (notice,) = [n for n in taken if isinstance(n, str)]
    assert int(notice.split()[1]) + len(delivered) == 3000
    assert 9999 in taken


def test_only_a_few_damaged_files_are_kept(tmp_path: Path) -> None:
    for second in range(6):
        (tmp_path / f"{NAME}.damaged-2026010{second}T000000Z").write_text("old")
        (tmp_path / f"{NAME}.damaged-2026010{second}T000000Z-wal").write_text("old")
    (tmp_path / NAME).write_text("no database" * 100)
    box_in(tmp_path).flush()
    assert len(list(tmp_path.glob(f"{NAME}.damaged-*Z"))) == KEPT
    assert len(list(tmp_path.glob(f"{NAME}.damaged-*Z-wal"))) == KEPT - 1


def test_a_file_that_cannot_be_opened_at_the_start_does_not_hold_up_what_comes(tmp_path: Path) -> None:
    state = tmp_path / "state"
    box = box_in(state, "a", "b")
    put(box, 1, 2)
    take(box, "b")
    box.flush()
    box.close()
    state.rename(tmp_path / "hidden")
    state.write_text("")
    box = box_in(state, "a", "b")
    box.put(body(3))
    box.put(body(4))
    with pytest.raises(OutboxError):
        box.flush()
    assert take_from_memory(box) == [3, 4]
    number(box.read("b") or b"")
    box.done("b")
    state.unlink()
    (tmp_path / "hidden").rename(state)
    box.flush()
    assert take(box, "a") == [1, 2, 3, 4], "what nobody knew of, and the rest once more"
    assert take(box, "b") == [4], "it had no backlog: nothing twice"


def test_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    assert folder(OutboxConfig(folder="/somewhere"), "usb:0") == Path("/somewhere")
    assert folder(OutboxConfig(), "usb:0") == Path("/home/me/.local/state/bittern/usb_0")
    assert folder(OutboxConfig(), "../..") == Path("/home/me/.local/state/bittern/_____")
    assert folder(OutboxConfig(), "") == Path("/home/me/.local/state/bittern/_")
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert folder(OutboxConfig(), "porch") == Path("/state/bittern/porch")
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/bittern/porch:/var/lib/other")
    assert folder(OutboxConfig(), "usb:0") == Path("/var/lib/bittern/porch")
    monkeypatch.delenv("STATE_DIRECTORY")
    monkeypatch.delenv("XDG_STATE_HOME")

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(ConfigurationError, match=r"outbox\.folder"):
        folder(OutboxConfig(), "usb:0")
