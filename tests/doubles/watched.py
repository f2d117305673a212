"""A daemon with a page in a process of its own, and the viewers of its live picture."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.doubles.served import BITTERN, Site
from tests.doubles.waiting import until


class Daemon(Site):
    """A running daemon: the address of its page, and its process."""

    def page_process(self) -> int | None:
        """The process id of its page; None while it has none."""
        for child in Path(f"/proc/{self.process.pid}/task").glob("*/children"):
            for pid in child.read_text().split():
                command = Path(f"/proc/{pid}/cmdline")
                if command.exists() and b"bittern.page.live" in command.read_bytes():
                    return int(pid)
        return None


@contextmanager
def watched(folder: Path, config: str, page: str = "", token: str = "") -> Iterator[Daemon]:
    """Start `bittern watch` with a configuration that has a page; afterwards SIGTERM must end it with exit code 0.

    Its stdout is in `events`, its stderr in `log` of the folder, its state in `state`, its snapshots in `snapshots`.

    Args:
        folder: for all this.
        config: TOML, without a table [page].
        page: further lines of that table.
        token: of its page, if it asks for one.
    """
    folder.mkdir(exist_ok=True)
    file, log = folder / "watch.toml", folder / "log"
    tables = f'[outbox]\nfolder = "{folder / "state"}"\n[snapshots]\nfolder = "{folder / "snapshots"}"\n'
    file.write_text(config + tables + f"[page]\nport = 0\n{page}")
    with log.open("w") as stderr, (folder / "events").open("w") as stdout:
        process = subprocess.Popen([BITTERN, "watch", "--config", file], stdout=stdout, stderr=stderr, text=True)
        try:
            until(lambda: "the page is at" in log.read_text() or process.poll() is not None)
            match = re.search(r"the page is at (\S+)", log.read_text())
            assert match, log.read_text()
            daemon = Daemon(match[1], process)
            bearer = {"authorization": f"Bearer {token}"} if token else {}
            until(lambda: daemon.ask("/api/thresholds", headers=bearer).json["alarms"])
            yield daemon
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0, log.read_text()
        finally:
            process.kill()
            process.wait()


class Viewer:
    """Someone who asks for the live picture; takes nothing unless told to."""

    def __init__(self, daemon: Site) -> None:
        self._socket = socket.create_connection(("127.0.0.1", daemon.port), timeout=30)
        self._socket.sendall(b"GET /api/live.mjpg HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        self._data = b""

    def _more(self) -> None:
        data = self._socket.recv(65536)
        assert data, "the stream ended"
        self._data += data

    def status(self) -> int:
        """Of the answer."""
        while b"\r\n\r\n" not in self._data:
            self._more()
        return int(self._data.split()[1])

    def frames(self, count: int) -> list[bytes]:
        """The next JPEG files."""
        frames: list[bytes] = []
        while len(frames) < count:
            head = re.search(rb"Content-Length: (\d+)\r\n\r\n", self._data)
            if head is None or len(self._data) < head.end() + int(head[1]):
                self._more()
                continue
            frames.append(self._data[head.end() : head.end() + int(head[1])])
            self._data = self._data[head.end() + int(head[1]) :]
        return frames

    def close(self) -> None:
        """Go away."""
        self._socket.close()
