"""The file of the outbox: one process at a time, its size, damage, and where it is."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from pathlib import Path

import msgspec
import pytest
from tests.doubles.outboxes import bodies, body, box_in, number, put, take, take_from_memory

from bittern.config.schema import OutboxConfig
from bittern.delivery.outbox import Outbox, OutboxError, folder
from bittern.delivery.outbox_file import KEPT, NAME, OutboxFile, count_waiting
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


@pytest.mark.parametrize(
    "what", ["text", "half", "zeros", "other", "newer", "cursors", "skips", "fewer", "notice", "name"]
)
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
                    "skips": "UPDATE cursors SET seq = seq + 8 WHERE sink = 'a'",
                    "fewer": "DELETE FROM events WHERE seq = 1500",
                    "notice": "UPDATE cursors SET notice = '{}' WHERE sink = 'a'",
                    "name": "UPDATE cursors SET sink = CAST(x'ff' AS TEXT) WHERE sink = 'a'",
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


@pytest.mark.parametrize("old", [b"CREATE TABLE events", b"WITHOUT ROWID", b"NOT NULL"])
def test_a_schema_that_is_not_text_is_damage(tmp_path: Path, old: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """SQLite's message quotes it, and Python cannot decode the message."""
    box = box_in(tmp_path)
    put(box, 1, 2)
    box.close()
    file = tmp_path / NAME
    data = file.read_bytes()
    assert old in data
    file.write_bytes(data.replace(old, old[:-1] + bytes([old[-1] | 0x80]), 1))
    with pytest.raises(OSError, match=rf"{NAME}: "):
        count_waiting(file)
    box = box_in(tmp_path)
    put(box, 3)
    assert "is damaged" in caplog.text
    assert len(list(tmp_path.glob(f"{NAME}.damaged-*Z"))) == 1


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
@pytest.mark.parametrize("kind", ["folder", "pipe", "link to a device"])
def test_what_is_no_regular_file_is_set_aside(tmp_path: Path, suffix: str, kind: str) -> None:
    box = box_in(tmp_path)
    put(box, 1)
    box.close()
    file = tmp_path / f"{NAME}{suffix}"
    file.unlink(missing_ok=True)
    if kind == "folder":
        file.mkdir()
    elif kind == "pipe":
        os.mkfifo(file)
    else:
        file.symlink_to("/dev/zero")
    box = box_in(tmp_path)
    put(box, 2)
    assert len(list(tmp_path.glob(f"{NAME}.damaged-*Z{suffix}"))) == 1
    box.close()


def test_two_files_damaged_in_the_same_second_are_both_kept(tmp_path: Path) -> None:
    for text in ("first", "second"):
        (tmp_path / NAME).write_text(text * 1000)
        box = box_in(tmp_path)
        box.flush()
        box.close()
    assert len(list(tmp_path.glob(f"{NAME}.damaged-*Z"))) == 2


def killed(box: Outbox, folder: Path) -> Path:
    """What is left of an outbox whose process was killed now."""
    copy = Path(
        shutil.copytree(folder, folder.with_name(f"{folder.name}-killed"), ignore=shutil.ignore_patterns("*-shm"))
    )
    box.close()
    return copy


def test_a_log_that_ends_early_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """SQLite takes it up to the first frame that is not intact, without a word."""
    box = box_in(tmp_path / "state")
    for n in range(10):
        put(box, n)
    folder = killed(box, tmp_path / "state")
    log = folder / f"{NAME}-wal"
    data = bytearray(log.read_bytes())
    data[len(data) // 2] ^= 1
    log.write_bytes(data)
    box = box_in(folder)
    box.flush()
    assert "cannot be read" in caplog.text
    events = [msgspec.json.decode(encoded, type=Event) for encoded in bodies(box)]
    assert 0 < len(events) - 1 < 10
    assert "its last" in str(events[-1].detail)
    put(box, 11)
    folder = killed(box, folder)
    caplog.clear()
    box = box_in(folder)
    box.flush()
    assert caplog.text == "", "once"


def test_a_log_whose_header_is_damaged_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for at in (0, 9, 18, 30):
        box = box_in(tmp_path / str(at))
        for n in range(5):
            put(box, n)
        folder = killed(box, tmp_path / str(at))
        log = folder / f"{NAME}-wal"
        data = bytearray(log.read_bytes())
        data[at] ^= 4
        log.write_bytes(data)
        box_in(folder).flush()
        assert "damaged" in caplog.text or "cannot be read" in caplog.text
        caplog.clear()
        shutil.rmtree(folder)


def test_an_outbox_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    box = box_in(tmp_path)
    put(box, 1, 2, 3)
    box.close()
    with contextlib.closing(sqlite3.connect(tmp_path / NAME, isolation_level=None)) as db:
        db.execute("DELETE FROM cursors WHERE sink = '#check'")
        db.execute("PRAGMA application_id = 0")
    box = box_in(tmp_path)
    put(box, 4)
    assert count_waiting(tmp_path / NAME) == {"a": 4}
    assert take(box) == [1, 2, 3, 4]


@pytest.mark.parametrize("what", ["file", "all", "folder", "log", "renamed", "other", "text"])
def test_a_file_deleted_or_replaced_while_it_is_used_loses_nothing(
    tmp_path: Path, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    state = tmp_path / "state"
    box = box_in(state)
    put(box, *range(20))
    assert take(box, count=5) == [*range(5)]
    box.flush()
    if what == "folder":
        shutil.rmtree(state)
    elif what == "all":
        for file in state.iterdir():
            file.unlink()
    elif what == "renamed":
        (state / NAME).rename(state / "elsewhere")
    elif what in ("other", "text"):
        (tmp_path / "new").mkdir()
        (tmp_path / "new" / NAME).write_text("no database" * 1000)
        if what == "other":
            (tmp_path / "new" / NAME).unlink()
            other = box_in(tmp_path / "new")
            put(other, 100)
            other.close()
        (tmp_path / "new" / NAME).rename(state / NAME)
    else:
        (state / f"{NAME}{'-wal' if what == 'log' else ''}").unlink()
    box.put(body(20))
    box.flush()
    assert caplog.text.count("while it was in use" if what != "log" else "opened again") == 1
    assert len(list(state.glob(f"{NAME}.damaged-*Z"))) == (what in ("other", "text"))
    folder = killed(box, state)
    box = box_in(folder)
    box.flush()
    events = [msgspec.json.decode(encoded, type=Event) for encoded in bodies(box)]
    assert [event.monotonic_ns for event in events if event.state is None] == [*range(5, 21)]
    assert [event.state for event in events if event.state is not None] == ["outbox_damaged"]


def test_a_file_deleted_in_the_middle_of_a_write_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    box = box_in(tmp_path)
    put(box, 1)
    shrink = OutboxFile._shrink

    def shrink_and_lose(file: OutboxFile) -> None:
        shrink(file)
        file.path.unlink()

    box.put(body(2))
    with monkeypatch.context() as patched:
        patched.setattr(OutboxFile, "_shrink", shrink_and_lose)
        box.flush()
    put(box, 3)
    assert [event for event in take(box) if event < 100] == [1, 2, 3]
    box.close()
    assert (tmp_path / NAME).exists()


@pytest.mark.parametrize("backlog", [0, 3])
def test_another_outbox_copied_over_one_in_use_is_read_and_what_was_lost_is_counted(
    tmp_path: Path, backlog: int
) -> None:
    other = box_in(tmp_path / "other")
    put(other, *range(100, 100 + backlog))
    other.close()
    box = box_in(tmp_path / "state")
    put(box, *range(20))
    assert take(box, count=5) == [*range(5)]
    box.flush()
    with contextlib.closing(sqlite3.connect(tmp_path / "state" / NAME)) as db:  # so that nothing is in the log
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copyfile(tmp_path / "other" / NAME, tmp_path / "state" / NAME)
    box.put(body(20))
    box.flush()
    events = [msgspec.json.decode(encoded, type=Event) for encoded in bodies(box)]
    box.flush()
    events += [msgspec.json.decode(encoded, type=Event) for encoded in bodies(box)]
    assert sum(event.count or 0 for event in events) == 15
    states = [event.state for event in events if event.type == "state"]
    assert states.count("outbox_damaged") in (1, 2)
    numbers = [event.monotonic_ns for event in events if event.type == "state" and event.state is None]
    assert numbers[-1] == 20
    assert set(numbers) <= {*range(100, 103), 20}


def test_a_replaced_file_waits_for_room_on_the_disk(tmp_path: Path) -> None:
    """As long as the new one cannot be written, the old one is read."""
    box = box_in(tmp_path / "state")
    put(box, 1, 2)
    (tmp_path / "state").rename(tmp_path / "hidden")
    (tmp_path / "state").write_text("no folder")
    box.put(body(3))
    with pytest.raises(OutboxError):
        box.flush()
    assert take_from_memory(box) == [1, 2, 3]
    box.put(body(4))
    (tmp_path / "state").unlink()
    box.flush()
    events = [msgspec.json.decode(encoded, type=Event) for encoded in bodies(box)]
    assert [event.monotonic_ns for event in events if event.state is None] == [4]


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
