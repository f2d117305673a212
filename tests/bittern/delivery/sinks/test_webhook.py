"""The webhook, against a web server of raw sockets."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import hmac
import http.client
import socket
import ssl
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from pathlib import Path

import msgspec
import pytest
from tests.doubles.camera_process import descriptors
from tests.doubles.http_peer import OK, Answer, Peer, status
from tests.doubles.waiting import until, within

from bittern import __version__
from bittern.config.schema import WebhookConfig
from bittern.delivery.sinks.base import Undelivered
from bittern.delivery.sinks.webhook import WebhookSink, _Connection
from bittern.errors import ConfigurationError
from bittern.events import Event, to_line

EVENT = Event(id="0190-1", type="alarm.on", time="2026-01-01T00:00:00.000Z", monotonic_ns=1, source="s", label="stop")
BODY = to_line(EVENT)[:-1]


def sink_to(peer: Peer, timeout_s: float = 5.0, **options: str) -> WebhookSink:
    return WebhookSink(WebhookConfig(url=peer.url, timeout_s=timeout_s, **options))


def test_a_post_has_the_event_and_its_id(peer: Peer) -> None:
    assert sink_to(peer).deliver(EVENT, BODY) == "200 OK"
    (request,) = peer.requests
    assert request.line == "POST /hook HTTP/1.1"
    assert request.body == BODY
    assert msgspec.json.decode(request.body, type=Event) == EVENT
    assert request.headers["content-type"] == "application/json"
    assert request.headers["idempotency-key"] == EVENT.id
    assert request.headers["user-agent"] == f"bittern/{__version__}"
    assert request.headers["host"] == f"127.0.0.1:{peer.port}"
    assert "x-bittern-signature" not in request.headers


def test_the_secret_signs_the_body(peer: Peer, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"  open sesame \nsecond line\n")
    sink_to(peer, secret_file=str(secret)).deliver(EVENT, BODY)
    expected = hmac.new(b"open sesame", peer.requests[0].body, hashlib.sha256).hexdigest()
    assert peer.requests[0].headers["x-bittern-signature"] == f"sha256={expected}"


def test_path_and_query_are_sent_as_they_are(peer: Peer) -> None:
    WebhookSink(WebhookConfig(url=f"http://127.0.0.1:{peer.port}?token=%20a&b=c#part")).deliver(EVENT, BODY)
    assert peer.requests[0].line == "POST /?token=%20a&b=c HTTP/1.1"


def test_a_proxy_in_the_environment_is_not_used(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert sink_to(peer).deliver(EVENT, BODY) == "200 OK"


@pytest.mark.parametrize("answer", [OK, status(500), b"nonsense\r\n\r\n", b"", b"HTTP/1.1 200 OK\r\nA: b"])
def test_nothing_of_a_request_waits_for_the_garbage_collector(peer: Peer, answer: bytes) -> None:
    # Which comes late where little else is garbage: a daemon would grow by megabytes in between.
    peer.answer = lambda _: answer
    sink, port = sink_to(peer), peer.port
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            with contextlib.suppress(Undelivered):
                sink.deliver(EVENT, BODY)
        assert not [kept for kept in gc.get_objects() if isinstance(kept, _Connection) and kept.port == port]
    finally:
        gc.enable()
    assert len(peer.requests) == 3


def test_nothing_of_a_refused_connection_waits_for_the_garbage_collector() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    sink = WebhookSink(WebhookConfig(url=f"http://127.0.0.1:{port}/hook"))
    gc.collect()
    gc.disable()
    try:
        with pytest.raises(Undelivered, match="refused"):
            sink.deliver(EVENT, BODY)
        assert not [kept for kept in gc.get_objects() if isinstance(kept, _Connection) and kept.port == port]
    finally:
        gc.enable()


@pytest.mark.parametrize("code", [201, 202, 204])
def test_every_2xx_means_taken(peer: Peer, code: int) -> None:
    peer.answer = lambda _: status(code, "Whatever")
    assert sink_to(peer).deliver(EVENT, BODY) == f"{code} {http.client.responses[code]}"


def test_the_header_is_the_answer_whatever_becomes_of_the_body(peer: Peer) -> None:
    peer.answer = lambda _: b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf of i"
    assert sink_to(peer).deliver(EVENT, BODY) == "200 OK"


def test_a_body_without_end_is_not_read(peer: Peer) -> None:
    def flood(sock: socket.socket) -> None:
        sock.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        with contextlib.suppress(OSError):
            while sum(sent) < 200_000_000:
                sent.append(sock.send(bytes(65536)))

    sent: list[int] = []
    peer.answer = lambda _: flood
    assert sink_to(peer).deliver(EVENT, BODY) == "200 OK"
    assert sum(sent) < 100_000_000, "it is not read"


@pytest.mark.parametrize("code", [400, 401, 403, 404, 405, 408, 410, 413, 425, 429, 500, 502, 503, 504])
def test_what_somebody_can_mend_is_tried_again(peer: Peer, code: int) -> None:
    peer.answer = lambda _: status(code)
    with pytest.raises(
        Undelivered, match=f"127.0.0.1:{peer.port} answered {code} {http.client.responses[code]}"
    ) as failed:
        sink_to(peer).deliver(EVENT, BODY)
    assert not failed.value.final


def test_only_422_is_a_refusal_of_this_event(peer: Peer) -> None:
    peer.answer = lambda _: status(422, "Unprocessable Content")
    with pytest.raises(Undelivered, match="422") as failed:
        sink_to(peer).deliver(EVENT, BODY)
    assert failed.value.final


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(peer: Peer, code: int) -> None:
    with Peer() as other:
        peer.answer = lambda _: status(code, "Moved", f"Location: {other.url}")
        with pytest.raises(Undelivered, match="redirects are not followed; put the final address") as failed:
            sink_to(peer).deliver(EVENT, BODY)
        assert f"to http://127.0.0.1:{other.port}:" in failed.value.reason
        assert not failed.value.final
        assert other.requests == []


def test_retry_after_in_seconds_and_as_a_date(peer: Peer) -> None:
    def retry_after(*headers: str) -> float | None:
        peer.answer = lambda _: status(429, "Slow down", *headers)
        with pytest.raises(Undelivered) as failed:
            sink_to(peer).deliver(EVENT, BODY)
        return failed.value.retry_after_s

    assert retry_after("Retry-After: 17") == 17
    # By the peer's clock, which here is years behind.
    assert retry_after(f"Retry-After: {formatdate(1000, usegmt=True)}", f"Date: {formatdate(940, usegmt=True)}") == 60
    assert retry_after(f"Retry-After: {formatdate(940, usegmt=True)}", f"Date: {formatdate(1000, usegmt=True)}") == 0
    soon = retry_after(f"Retry-After: {formatdate(time.time() + 100, usegmt=True)}")
    assert soon is not None
    assert 90 < soon <= 101
    for nonsense in ("", "-5", "soon", "1e9", "٣", "Mon, 99 Foo 2026 99:99:99 GMT", "nan", "inf"):
        assert retry_after(f"Retry-After: {nonsense}") is None
    assert retry_after("Retry-After: " + "9" * 500) is not None


@pytest.mark.parametrize("way", ["never", "drip"])
def test_the_time_is_for_the_whole_request(peer: Peer, way: str) -> None:
    peer.answer = getattr(peer, way)
    begun = time.monotonic()
    with within(), pytest.raises(Undelivered, match=r"no complete answer from .* within 0\.5 s"):
        sink_to(peer, timeout_s=0.5).deliver(EVENT, BODY)
    assert time.monotonic() - begun > 0.4


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 2",
        b"HTTP/1.1 200 OK",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 OK fine\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000 + b"\r\n",
        b"HTTP/1.1 200 " + b"x" * 100_000,
        b"HTTP/1.1 100 Continue\r\n\r\n" * 1000,
    ],
    ids=[
        "nothing",
        "half a header",
        "half a status",
        "no line break",
        "no blank line",
        "TLS",
        "SSH",
        "no status",
        "many headers",
        "long line",
        "100",
    ],
)
def test_what_is_no_answer_is_a_failure_in_one_line(peer: Peer, answer: bytes) -> None:
    peer.answer = lambda _: answer
    with pytest.raises(Undelivered) as failed:
        sink_to(peer).deliver(EVENT, BODY)
    assert failed.value.reason.isprintable()
    assert len(failed.value.reason) < 400
    assert not failed.value.final


def test_what_a_peer_says_cannot_break_the_log(peer: Peer) -> None:
    peer.answer = lambda _: b"HTTP/1.1 500 a\x1b[31m\x00b" + b"c" * 5000 + b"\r\n\r\n"
    with pytest.raises(Undelivered) as failed:
        sink_to(peer).deliver(EVENT, BODY)
    assert failed.value.reason.isprintable()
    assert len(failed.value.reason) < 400


def test_nobody_there_and_no_such_host(peer: Peer) -> None:
    sink = sink_to(peer)
    peer.down()
    with pytest.raises(Undelivered, match="Connection refused"):
        sink.deliver(EVENT, BODY)
    peer.up()
    with pytest.raises(Undelivered, match=r"nowhere\.invalid:80: "):
        WebhookSink(WebhookConfig(url="http://nowhere.invalid/")).deliver(EVENT, BODY)


@pytest.mark.parametrize("way", ["never", "drip"])
def test_close_breaks_off_a_request(peer: Peer, way: str) -> None:
    peer.answer = getattr(peer, way)
    sink = sink_to(peer, timeout_s=30)
    with ThreadPoolExecutor(1) as thread:
        attempt = thread.submit(sink.deliver, EVENT, BODY)
        until(lambda: peer.requests)
        sink.close()
        with pytest.raises(Undelivered):
            attempt.result(20)
    with pytest.raises(Undelivered, match="closed"):
        sink.deliver(EVENT, BODY)
    sink.close()


def test_no_file_descriptor_stays_behind(peer: Peer) -> None:
    sink = sink_to(peer, timeout_s=0.3)
    ways: list[Answer] = [
        lambda _: OK,
        peer.half,
        peer.never,
        lambda _: status(500),
        lambda _: status(301, "Moved", "Location: /"),
    ]

    def deliver_each_way() -> None:
        for way in ways:
            peer.answer = way
            with contextlib.suppress(Undelivered):
                sink.deliver(EVENT, BODY)

    deliver_each_way()
    before, threads = descriptors(), threading.active_count()
    for _ in range(3):
        deliver_each_way()
    until(lambda: descriptors() <= before and threading.active_count() <= threads)


def test_https_checks_the_certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        (
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=127.0.0.1 "
            f"-addext subjectAltName=IP:127.0.0.1 -keyout {key} -out {certificate}"
        ).split(),
        check=True,
        capture_output=True,
    )
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    with Peer(tls) as peer:
        with pytest.raises(Undelivered, match=r"(?i)certificate"):
            sink_to(peer).deliver(EVENT, BODY)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert sink_to(peer).deliver(EVENT, BODY) == "200 OK"
        peer.answer = peer.drip
        with within(), pytest.raises(Undelivered, match="no complete answer"):
            sink_to(peer, timeout_s=0.5).deliver(EVENT, BODY)


def test_a_peer_that_does_not_shake_hands_costs_the_time_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        sink = WebhookSink(WebhookConfig(url=f"https://127.0.0.1:{silent.getsockname()[1]}/", timeout_s=0.4))
        with within(), pytest.raises(Undelivered, match="no complete answer"):
            sink.deliver(EVENT, BODY)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://", "expected http://HOST/PATH"),
        ("http:///path", "expected http://HOST/PATH"),
        ("http://h:99999/", "invalid port"),
        ("http://h:x/", "invalid port"),
        ("http://[::1/", "invalid host"),
        ("http://h/a b", "in ASCII without spaces"),
        ("http://h/ä", "ASCII"),
        ("http://h/\r\nX: y", "in ASCII without spaces"),
        ("http://" + "x" * 70 + "/", "invalid host"),
        ("http://user:secret@h/", "are not supported"),
    ],
)
def test_an_address_that_cannot_be_right(url: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=r"webhook\.url") as refused:
        WebhookSink(WebhookConfig(url=url))
    assert says in str(refused.value)
    assert "secret@" not in str(refused.value)


def test_a_secret_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"webhook\.secret_file: .*absent: No such file"):
        WebhookSink(WebhookConfig(url="http://h/", secret_file=str(tmp_path / "absent")))
    (tmp_path / "empty").write_bytes(b"\nsecret\n")
    with pytest.raises(ConfigurationError, match="first line must be the key"):
        WebhookSink(WebhookConfig(url="http://h/", secret_file=str(tmp_path / "empty")))
