"""A file or folder is there whole, or as it was before."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from bittern.system import fileio


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_written_and_replaced(tmp_path: Path) -> None:
    file = tmp_path / "deep/er/a.bin"
    fileio.write(file, b"one")
    assert file.read_bytes() == b"one"
    fileio.write(file, b"")
    assert file.read_bytes() == b""
    assert names(file.parent) == ["a.bin"]


def test_the_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    with fileio.atomic(tmp_path / "a") as opened:
        opened.write(b"one")
        opened.flush()
        assert not (tmp_path / "a").exists()
    assert (tmp_path / "a").read_bytes() == b"one"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_error_leaves_the_old_file(tmp_path: Path, error: type[BaseException]) -> None:
    fileio.write(tmp_path / "a", b"old")

    def fails() -> None:
        with fileio.atomic(tmp_path / "a") as opened:
            opened.write(b"new")
            raise error

    with pytest.raises(error):
        fails()
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


def test_a_folder_in_the_way_is_an_error_that_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(OSError):
        fileio.write(tmp_path / "a", b"x")
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002, 0o000])
def test_permissions_are_those_that_open_would_give(tmp_path: Path, umask: int) -> None:
    program = (
        "from bittern.system import fileio\nfrom pathlib import Path\nfileio.write(Path('a'), b'x')\n"
        "with fileio.atomic_folder(Path('f')) as folder: (folder / 'b').write_bytes(b'x')"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, umask=umask, check=True)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o666 & ~umask
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o777 & ~umask
    assert (tmp_path / "f/b").stat().st_mode & 0o777 == 0o666 & ~umask


def test_a_link_is_replaced_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"kept")
    (tmp_path / "link").symlink_to("target")
    fileio.write(tmp_path / "link", b"new")
    assert (tmp_path / "target").read_bytes() == b"kept"
    assert (tmp_path / "link").read_bytes() == b"new"


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    with fileio.atomic_folder(tmp_path / "deep/f") as folder:
        (folder / "sub").mkdir()
        (folder / "sub/a").write_bytes(b"x")
        assert not (tmp_path / "deep/f").exists()
    assert (tmp_path / "deep/f/sub/a").read_bytes() == b"x"
    assert names(tmp_path / "deep") == ["f"]


def test_a_folder_is_replaced_only_if_asked(tmp_path: Path) -> None:
    for text, replace in (("one", False), ("two", True)):
        with fileio.atomic_folder(tmp_path / "f", replace=replace) as folder:
            (folder / text).write_text(text)
        assert names(tmp_path / "f") == [text]
    with pytest.raises(OSError), fileio.atomic_folder(tmp_path / "f") as folder:
        (folder / "three").write_text("three")
    assert names(tmp_path / "f") == ["two"]
    assert names(tmp_path) == ["f"]


def test_an_error_leaves_the_old_folder(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    (tmp_path / "f/old").touch()

    def fails() -> None:
        with fileio.atomic_folder(tmp_path / "f", replace=True) as folder:
            (folder / "new").touch()
            raise ValueError

    with pytest.raises(ValueError):
        fails()
    assert names(tmp_path / "f") == ["old"]
    assert names(tmp_path) == ["f"]


@pytest.mark.parametrize("place", [None, "new", "elsewhere"])
def test_an_error_names_the_folder_and_not_the_temporary_one(tmp_path: Path, place: str | None) -> None:
    """Libraries often raise it without a name: what is left to read is that some disk is full."""
    elsewhere = str(tmp_path / "elsewhere")

    def fails() -> None:
        with fileio.atomic_folder(tmp_path / "f") as folder:
            raise OSError(
                28, "No space left on device", {"new": str(folder / "new"), "elsewhere": elsewhere}.get(str(place))
            )

    with pytest.raises(OSError, match="No space") as caught:
        fails()
    assert caught.value.filename == (elsewhere if place == "elsewhere" else str(tmp_path / "f"))


def test_a_failed_rename_puts_the_old_folder_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk says no to the second rename: the outside is played, by the call that asks it."""
    (tmp_path / "f").mkdir()
    (tmp_path / "f/old").touch()
    rename = Path.rename

    def refusing(self: Path, target: Path) -> Path:
        if ".new-" in self.name:
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refusing)
    with pytest.raises(OSError, match="No space"), fileio.atomic_folder(tmp_path / "f", replace=True) as folder:
        (folder / "new").touch()
    assert names(tmp_path / "f") == ["old"]
    assert names(tmp_path) == ["f"]


def test_if_nothing_can_be_renamed_any_more_the_old_folder_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "f").mkdir()
    (tmp_path / "f/old").touch()
    rename = Path.rename

    def only_once(self: Path, target: Path) -> Path:
        if self != tmp_path / "f":
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", only_once)
    with pytest.raises(OSError, match="Input/output"), fileio.atomic_folder(tmp_path / "f", replace=True) as folder:
        (folder / "new").touch()
    assert [names(path) for path in tmp_path.glob(".f.old-*/f")] == [["old"]]


KILLED = """
import os, signal, sys
from pathlib import Path
from bittern.system import fileio
target, kind, moment = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
calls = 0
def count(event, args):
    global calls
    if event in ("open", "os.rename", "os.chmod", "os.mkdir", "os.remove", "os.rmdir", "os.listdir", "os.scandir"):
        calls += 1
        if calls == moment:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(count)
if kind == "file":
    fileio.write(target, b"new" * 1000)
else:
    with fileio.atomic_folder(target, replace=True) as folder:
        (folder / "a").write_bytes(b"new")
        (folder / "b").write_bytes(b"new")
"""


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_killed_at_any_step_it_is_old_or_new(tmp_path: Path, kind: str) -> None:
    """SIGKILL before each call of the operating system in turn that opens, renames or removes something."""
    contents = set()
    for moment in range(1, 40):
        place = tmp_path / str(moment)
        place.mkdir()
        target = place / "t"
        if kind == "file":
            target.write_bytes(b"old")
        else:
            target.mkdir()
            (target / "a").write_bytes(b"old")
        done = subprocess.run([sys.executable, "-c", KILLED, str(target), kind, str(moment)])
        if kind == "file":
            state = target.read_bytes()
            assert state in (b"old", b"new" * 1000)
            contents.add(state[:3])
        else:
            folder = target if target.exists() else next(place.glob(".t.old-*/t"))
            files = {path.name: path.read_bytes() for path in folder.iterdir()}
            assert files in ({"a": b"old"}, {"a": b"new", "b": b"new"})
            contents.add(files["a"])
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL
    else:
        raise AssertionError("it never came to its end")
    assert moment > 4
    assert contents == {b"old", b"new"}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_no_temporary_file_is_left_when_the_folder_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        fileio.write(Path("/proc/nothing/here"), b"x")
    with pytest.raises(OSError):
        fileio.write(tmp_path / ("n" * 300), b"x")
    assert names(tmp_path) == []


@pytest.mark.parametrize("kind", ["pipe", "device", "link to a pipe", "link to a device", "socket", "folder"])
def test_only_regular_files_are_read(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "file"
    target = tmp_path / "target"
    if kind.endswith("pipe"):
        os.mkfifo(target if kind.startswith("link") else file)
    elif kind.endswith("device"):
        target = Path("/dev/zero")
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(file))
    else:
        file.mkdir()
    if kind.startswith("link") or kind == "device":
        file.symlink_to(target)
    with pytest.raises(OSError) as caught:
        fileio.read_regular(file, 1000)
    assert (caught.value.strerror or "").startswith(("expected a regular file, got a ", "Is a directory"))


def test_a_limit_on_what_is_read(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x" * 4096)
    (tmp_path / "link").symlink_to(file)
    assert fileio.read_regular(tmp_path / "link", 4096) == b"x" * 4096
    with pytest.raises(OSError, match="larger than the limit of 3 KiB"):
        fileio.read_regular(file, 3 * 1024)
    os.truncate(file, 3 * 2**30)  # sparse
    with pytest.raises(OSError, match="larger than the limit of 16 MiB"):
        fileio.open_regular(file, 16 * 2**20)
    with pytest.raises(OSError, match="not a file name"):
        fileio.read_regular("a\0b", 1)
