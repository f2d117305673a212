"""Faults 21 to 24: hostile uploads, other origins, load, and a page that others can reach without a token."""

from __future__ import annotations

import contextlib
import io
import json
import socket
import struct
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import cv2
import numpy as np
import pytest
from tests.doubles import hostile_pictures
from tests.doubles.repetitions import FULL, times
from tests.doubles.served import Reply, Site, form, served
from tests.doubles.waiting import until

from bittern.page import access, app
from bittern.page.uploads import MAX_BODY

Record = Callable[..., None]

QUICK = ("TIFF, LONG8 sizes", "TIFF, huge strips", "PNG, a million chunks", "JPEG, 3000 scans", "JPEG, empty segments")


@pytest.fixture(scope="module")
def jpeg() -> bytes:
    """A 1080p picture."""
    small = np.random.default_rng(1).integers(0, 256, (27, 48, 3), np.uint8)
    picture = cv2.resize(small, (1920, 1080), interpolation=cv2.INTER_CUBIC)
    return bytes(cv2.imencode(".jpg", picture)[1].tobytes())


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with served("--data", tmp_path_factory.mktemp("page")) as site:
        yield site


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, pixels: bytes) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def bomb() -> bytes:
    """49 megapixels in 150 KB: allowed, and as costly as it gets."""
    packer = zlib.compressobj(9)
    return png(7000, 7000, b"".join(packer.compress(b"\0" * 21001) for _ in range(7000)) + packer.flush())


def uploads(jpeg: bytes) -> Iterator[tuple[str, bytes, set[int]]]:
    """Hostile bodies, and the statuses that they may get."""
    yield "PNG, 60000 x 60000", png(60000, 60000, zlib.compress(b"\0" * 1000)), {413}
    yield "PNG, 49 megapixels", bomb(), {200}
    for share in (1, 2, 10, 50, 90, 99):
        yield f"JPEG, {share} % of it", jpeg[: len(jpeg) * share // 100], {415, 422}
    yield "JPEG and HTML", jpeg + b"<script>alert(1)</script>", {200, 422}
    yield "GIF and script", b"GIF89a/*" + b"*/=1;alert(1)//" * 10, {413}
    svg = b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"><script>alert(1)</script></svg>'
    yield "SVG", svg, {415}
    yield "SVG with a declaration", b'<?xml version="1.0"?>\n' + svg, {415}
    for name, data in {
        "HTML": b"<!doctype html><script>alert(1)</script>",
        "PDF": b"%PDF-1.7\n",
        "zip": b"PK\x03\x04" + b"\0" * 100,
        "ELF": b"\x7fELF" + b"\0" * 100,
        "JSON": b'{"a": 1}',
        "one byte": b"\xff",
        "zeros": bytes(100_000),
        "MP4": b"\0\0\0\x18ftypmp42" + bytes(100),
        "OpenEXR": b"\x76\x2f\x31\x01" + bytes(100),
        "Photoshop": b"8BPS" + bytes(100),
    }.items():
        yield name, data, {415}
    yield "nothing", b"", {400}
    yield "WebP, cut", b"RIFF\xff\xff\xff\x7fWEBPVP8 ", {415, 422}
    yield (
        "BMP that lies",
        b"BM" + struct.pack("<IHHIIiiHHIIiiII", 99, 0, 0, 54, 40, 30000, 30000, 1, 24, *[0] * 6),
        {413, 422},
    )
    hostile = hostile_pictures.hostile()
    for name in hostile if FULL else QUICK:
        yield name, hostile[name](), {200, 413, 415, 422}


def memory(pid: int) -> int:
    """Bytes that a process has resident at the most so far."""
    fields = Path(f"/proc/{pid}/status").read_text().split("VmHWM:")[1].split()
    return int(fields[0]) * 1024


@contextmanager
def asked_meanwhile(site: Site, body: bytes) -> Iterator[list[int]]:
    """Another client, which asks all the time: the statuses that it gets."""
    statuses: list[int] = []
    end = threading.Event()

    def ask() -> None:
        while not end.is_set():
            statuses.append(site.ask("/api/classify", body).status)
            end.wait(0.2)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield statuses
    finally:
        end.set()
        thread.join()


def raw(site: Site, text: bytes) -> bytes:
    """What comes back for exactly these bytes."""
    with socket.create_connection(("127.0.0.1", site.port), timeout=60) as connection:
        connection.sendall(text)
        answer = b""
        while part := connection.recv(65536):
            answer += part
        return answer


def test_21_hostile_uploads(site: Site, jpeg: bytes, record: Record) -> None:
    bodies = list(uploads(jpeg))
    small = bytes(cv2.imencode(".png", np.zeros((30, 30, 3), np.uint8))[1].tobytes())
    with asked_meanwhile(site, small) as others:
        for name, body, allowed in bodies:
            reply = site.ask("/api/classify?keep=1&name=x", body)
            assert reply.status in allowed, (name, reply)
            assert len(reply.body) < 2000
        # A body that stops, at once with one of a gigabyte that is only announced.
        head = b"POST /api/classify HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        # And a peer that has had its answer, and never ends the head of its next request.
        address = ("127.0.0.1", site.port)
        with (
            socket.create_connection(address, timeout=60) as slow,
            socket.create_connection(address, timeout=60) as half,
        ):
            half.sendall(b"GET /api/health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert half.recv(65536).startswith(b"HTTP/1.1 200 ")
            half.sendall(b"G")
            slow.sendall(head + b"Content-Length: 1000\r\n\r\n" + jpeg[:10])
            answer = raw(site, head + b"Content-Length: 1000000000\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 413 ")
            assert slow.recv(65536).startswith(b"HTTP/1.1 408 ")
            while half.recv(65536):
                pass
        # A gigabyte without its length: it is cut off at the limit.
        part = b"%x\r\n" % 2**20 + bytes(2**20) + b"\r\n"
        with socket.create_connection(("127.0.0.1", site.port), timeout=60) as endless:
            endless.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n")
            sent = 0
            with contextlib.suppress(OSError):
                while sent < 1000:
                    endless.sendall(part)
                    sent += 1
            assert sent <= 2 * MAX_BODY >> 20
        bodies_in_a_form = form({f"{i}.png": body for i, (_, body, _) in enumerate(bodies[2:12])})
        assert site.ask("/api/classify", *bodies_in_a_form).status in {200, 415, 422}
    assert len(others) > 3
    assert set(others) == {200}, "others are served meanwhile"
    assert memory(site.process.pid) < 400e6
    kept = site.ask("/api/history").json["pictures"]
    for picture in kept:  # what was kept is a picture, and is never sent as it came
        reply = site.ask(f"/api/history/{picture['id']}/preview.jpg")
        assert reply.headers["content-type"] == "image/jpeg"
        assert reply.headers["x-content-type-options"] == "nosniff"
    figure = (
        f"{len(bodies) + 3} refused or answered, {len(others)} others served; {memory(site.process.pid) / 1e6:.0f} MB"
    )
    record(21, "hostile uploads", len(bodies) + 3, figure, "the right status, memory bounded, others served")


PATHS = (
    *("/static/../api.py", "/static/..%2fapi.py", "/static/%2e%2e/%2e%2e/errors.py", "/static//etc/passwd"),
    *("/..%2f..%2f..%2fetc/passwd", "/static/%00", "/static/..\\api.py", "/api/history/..%2f..%2ftoken/preview.jpg"),
    *("/api/history/%2e%2e/preview.jpg", "//etc/passwd", "/static/page.js/../../guard.py", "/.git/config"),
)
HOSTS = (
    *("evil.example", "localhost.evil.example", "127.0.0.1.nip.io", "192.0.2.1", "evil.example:8766"),
    *("[::ffff:7f00:1", ""),
)
ORIGINS = (
    *("http://evil.example", "null", "http://localhost:9", "file://", "http://127.0.0.1"),
    "https://127.0.0.1.evil.example",
)
TEXTS = ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "javascript:alert(1)", "a\r\nX-Evil: 1")


def test_22_other_origins(site: Site, jpeg: bytes, record: Record) -> None:
    count = 0
    secret = Path(app.__file__).read_bytes()[:200]
    for path in PATHS:
        reply = Reply(0, {}, raw(site, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()))
        assert reply.body[9:12] in (b"400", b"404", b"405"), (path, reply)
        assert b"root:" not in reply.body
        assert secret not in reply.body
        count += 1
    for host in HOSTS:
        answer = raw(site, f"GET /api/models HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        assert answer[9:12] in (b"421", b"400"), (host, answer)
        assert b"stop_sign" not in answer
        count += 1
    twice = raw(site, b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
    assert twice[9:12] in (b"400", b"421")
    for origin in ORIGINS:
        for method, path in (("POST", "/api/classify?keep=1"), ("DELETE", "/api/history/1"), ("GET", "/api/history")):
            reply = site.ask(path, jpeg if method == "POST" else None, {"origin": origin}, method)
            assert reply.status == 403, (origin, method)
            assert "access-control-allow-origin" not in reply.headers
            count += 1
    # Names and labels that would be code in a page are data in JSON, which no browser takes for a page.
    for text in TEXTS:
        reply = site.ask(f"/api/classify?keep=1&name={quote(text)}", jpeg)
        row = reply.json[0]
        assert reply.headers["content-type"] == "application/json"
        assert "x-evil" not in reply.headers
        label = json.dumps({"task": row["task"], "label": "<b onclick=alert(1)>../../x"}).encode()
        assert site.ask(f"/api/history/{row['id']}/label", label).status == 200
        reply = site.ask("/api/export.zip?task=" + row["task"])
        names = zipfile.ZipFile(io.BytesIO(reply.body)).namelist()
        assert all(".." not in name.split("/") and not name.startswith("/") and "<" not in name for name in names)
        assert site.ask(f"/api/history/{row['id']}", method="DELETE").status == 204
        count += 1
    page = site.ask("/")
    assert "script-src 'self';" in page.headers["content-security-policy"]
    record(22, "other hosts and origins, paths, names", count + 1, "all refused or escaped", "nothing executed or read")


class Stalled:
    """Peers that hold a connection and go no further: one says nothing, one sends half of a head, one half of a body,
    and one asks for files until nothing more of its requests is taken, and reads none of the answers."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._silent = self._connect(b"")
        self._half_head = self._connect(b"POST /api/classify HTTP/1.1\r\nHost: loc")
        self._half_body = self._connect(
            b"POST /api/classify HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nx"
        )
        self._deaf = self._connect(b"")
        until(self._stays_full)

    def _connect(self, text: bytes) -> socket.socket:
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", self._site.port))
        connection.sendall(text)
        return connection

    def _is_full(self) -> bool:
        """Whether the server takes no more requests of the one that does not read, or has dropped it already."""
        requests = b"GET /static/page.js HTTP/1.1\r\nHost: localhost\r\n\r\n" * 50
        self._deaf.setblocking(False)
        try:
            return self._deaf.send(requests) == 0
        except (BlockingIOError, ConnectionError):
            return True

    def _stays_full(self) -> bool:
        full = self._is_full()
        time.sleep(0.3)
        return full and self._is_full()

    def were_dropped(self) -> bool:
        """Whether the server has ended all of them by itself."""
        return all(map(_has_ended, (self._silent, self._half_head, self._half_body, self._deaf)))

    def close(self) -> None:
        for connection in (self._silent, self._half_head, self._half_body, self._deaf):
            connection.close()


def _has_ended(connection: socket.socket) -> bool:
    """Whether a connection is over, which also shows in its state: what came before need not be read."""
    state = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    return state in (7, 8)  # TCP_CLOSE, TCP_CLOSE_WAIT: linux/tcp_states.h


def test_23_fifty_clients_and_stalled_ones(site: Site, jpeg: bytes, record: Record) -> None:
    seconds = times(60, 2)
    statuses: list[int] = []
    stalled = Stalled(site)
    end = time.monotonic() + seconds

    def client(_number: int) -> None:
        while time.monotonic() < end:
            statuses.append(site.ask("/api/classify", jpeg).status)

    try:
        with ThreadPoolExecutor(50) as clients:
            list(clients.map(client, range(50)))
        assert len(statuses) >= 50
        assert set(statuses) == {200}
        until(stalled.were_dropped)
    finally:
        stalled.close()
    figure = f"{len(statuses) / seconds:.0f} a second; the stalled ones were dropped"
    record(23, "50 clients and 4 stalled ones", len(statuses), figure, "no error")


def test_24_without_a_token(tmp_path: Path, jpeg: bytes, record: Record) -> None:
    token = access.new_token(tmp_path)
    openapi = json.loads((app.STATIC / "openapi.json").read_text())
    routes = [(m.upper(), p.replace("{id}", "0")) for p, methods in openapi["paths"].items() for m in methods]
    routes += [("GET", f"/static/{file.name}") for file in app.STATIC.iterdir()]
    routes += [
        ("GET", "/"),
        ("GET", "/no/such/route"),
        ("POST", "/"),
        ("PUT", "/api/models"),
        ("OPTIONS", "/api/models"),
    ]
    with served("--data", tmp_path, "--host", "0.0.0.0") as site:
        replies = [site.ask(path, jpeg if method == "POST" else None, method=method) for method, path in routes]
        for (method, path), reply in zip(routes, replies, strict=True):
            assert reply.status == 401, (method, path)
            assert reply.body in (b"a token is needed\n", b""), (method, path)
        alike = [{k: v for k, v in reply.headers.items() if k not in ("date", "content-length")} for reply in replies]
        assert all(headers == alike[0] for headers in alike), "what is there looks like what is not"
        wrong = [site.ask("/api/models", headers={"authorization": f"Bearer {token[:-1]}"}).status for _ in range(12)]
        assert wrong == [401] * 10 + [429] * 2
    record(24, "routes without a token", len(routes), "all 401, all alike", "401, no information")
