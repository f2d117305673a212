"""A web server for webhooks, of raw sockets, so that it can also answer in ways that no server library would."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nfine\n"


def status(code: int, reason: str = "No", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {code} {reason}", "Content-Length: 0", *headers, "", ""]
    return "\r\n".join(lines).encode()


class Request(NamedTuple):
    line: str
    headers: dict[str, str]
    body: bytes

    @property
    def event(self) -> Any:
        return json.loads(self.body)


Answer = Callable[[Request], bytes | Callable[[socket.socket], None]]


class Peer:
    """Answers every request by `answer(request)`: bytes, or a function that does what it likes with the socket.

    `down` refuses connections until `up`, on the same port.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.answer: Answer = lambda _: OK
        self.requests: list[Request] = []
        self.ended = threading.Event()
        self.port = 0
        self._tls = tls
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener: socket.socket | None = None
        self.up()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}/hook"

    @property
    def events(self) -> list[Any]:
        return [request.event for request in self.requests]

    def up(self) -> None:
        self._listener = listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        self.port = listener.getsockname()[1]
        listener.listen(50)
        self._start(lambda: self._accept(listener))

    def down(self) -> None:
        assert self._listener is not None
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._listener = None
        for sock in list(self._open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.ended.set()
        if self._listener is not None:
            self.down()
        for thread in self._threads:
            thread.join(5)
            assert not thread.is_alive()

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def _start(self, run: Callable[[], None]) -> None:
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        thread = threading.Thread(target=run, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = listener.accept()
                self._start(lambda sock=sock: self._serve(sock))  # type: ignore[misc]

    def _serve(self, sock: socket.socket) -> None:
        sock.settimeout(30)
        self._open.add(sock)
        with contextlib.suppress(OSError, ValueError):
            if self._tls is not None:
                self._open.discard(sock)
                sock = self._tls.wrap_socket(sock, server_side=True)
                self._open.add(sock)
            with sock.makefile("rb") as stream:
                line = stream.readline().decode().strip()
                headers = {}
                while (header := stream.readline().decode().strip()) != "":
                    name, _, value = header.partition(":")
                    headers[name.lower()] = value.strip()
                body = stream.read(int(headers.get("content-length", "0")))
            if line:
                request = Request(line, headers, body)
                self.requests.append(request)
                answer = self.answer(request)
                if callable(answer):
                    answer(sock)
                else:
                    sock.sendall(answer)
        self._open.discard(sock)
        sock.close()

    # --- ways to answer badly ---

    def never(self, _: Request) -> Callable[[socket.socket], None]:
        """Takes the request, and is silent until the client leaves."""
        return lambda sock: self._until_left(sock, None)

    def drip(self, _: Request) -> Callable[[socket.socket], None]:
        """A byte of a header that never ends, every 50 ms."""
        return lambda sock: self._until_left(sock, b"x")

    def half(self, _: Request) -> bytes:
        """Half of a header, then the end."""
        return b"HTTP/1.1 200 OK\r\nContent-Le"

    def _until_left(self, sock: socket.socket, what: bytes | None) -> None:
        sock.settimeout(0.05)
        if what:
            sock.sendall(b"HTTP/1.1 200 OK\r\nX-Long: ")
        while not self.ended.is_set():
            with contextlib.suppress(TimeoutError):
                if not sock.recv(1):
                    return
            if what:
                sock.sendall(what)
