"""A page's server in a process of its own, and a client that says exactly what it is told to."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

BITTERN = Path(sys.executable).with_name("bittern")


class Reply(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Site(NamedTuple):
    """A running server: its address (http://127.0.0.1:PORT/), and its process."""

    url: str
    process: subprocess.Popen[str]

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 0

    def ask(
        self, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None, method: str | None = None
    ) -> Reply:
        """One request over a connection of its own; POST if it has a body."""
        return ask_over(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60), path, body, headers, method)


def ask_over(
    connection: http.client.HTTPConnection,
    path: str,
    body: bytes | None,
    headers: Mapping[str, str] | None,
    method: str | None,
) -> Reply:
    """One request over a connection, which is closed afterwards; POST if it has a body."""
    try:
        connection.request(method or ("GET" if body is None else "POST"), path, body, dict(headers or {}))
        answer = connection.getresponse()
        return Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
    finally:
        connection.close()


@contextmanager
def served(*words: str | Path, command: str = "serve", log: Path | None = None) -> Iterator[Site]:
    """Start `bittern COMMAND --port 0 WORDS...`; afterwards SIGTERM must end it with exit code 0."""
    line = [str(BITTERN), *command.split(), "--port", "0", *(str(word) for word in words)]
    stderr = log.open("w") if log else None
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=stderr, text=True)
    assert process.stdout is not None
    try:
        first = process.stdout.readline()
        assert "http://" in first, f"{line} ended with code {process.wait()}: {first!r}"
        yield Site(first.split()[-1], process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        if stderr:
            stderr.close()


def form(files: Mapping[str, bytes]) -> tuple[bytes, dict[str, str]]:
    """A multipart form with files: the body and its headers."""
    mark = "----bittern-tests"
    body = b"".join(
        f'--{mark}\r\nContent-Disposition: form-data; name="f{i}"; filename="{name}"\r\n'
        f"Content-Type: application/octet-stream\r\n\r\n".encode()
        + data
        + b"\r\n"
        for i, (name, data) in enumerate(files.items())
    )
    return body + f"--{mark}--\r\n".encode(), {"content-type": f"multipart/form-data; boundary={mark}"}
