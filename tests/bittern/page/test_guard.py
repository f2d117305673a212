"""Host, origin and token: what is let through to a page, and what a refusal tells."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import subprocess
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import PlainTextResponse
from tests.doubles.served import BITTERN

from bittern.errors import ConfigurationError
from bittern.page import access
from bittern.page.access import Access, TooManyWrong
from bittern.page.address import Address, access_of
from bittern.page.guard import Guard


def ask(guard: Guard, method: str = "GET", path: str = "/x", body: bytes = b"", **headers: Any) -> tuple[int, Any, str]:
    """What a guard before an application that answers "inside" says: status, headers, body."""
    given = {"host": "127.0.0.1:8766"} | {key.replace("_", "-"): value for key, value in headers.items()}
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": b"",
        "client": ("192.0.2.1", 1),
        "headers": [(key.encode(), value.encode()) for key, value in given.items()],
    }
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(guard(scope, receive, send))
    answer = {key.decode(): value.decode() for key, value in sent[0]["headers"]}
    return sent[0]["status"], answer, b"".join(message.get("body", b"") for message in sent[1:]).decode()


@pytest.fixture
def local() -> Guard:
    return Guard(PlainTextResponse("inside"), None)


@pytest.fixture
def token(tmp_path: Path) -> str:
    return access.new_token(tmp_path)


@pytest.fixture
def locked(tmp_path: Path, token: str) -> Guard:
    return Guard(PlainTextResponse("inside"), Access(tmp_path), ["bittern.example.org"])


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8766", "localhost", "LOCALHOST:1", "[::1]:8766", "127.8.9.1", "localhost."]
)
def test_own_hosts(local: Guard, host: str) -> None:
    assert ask(local, host=host)[0] == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "192.0.2.7", "", "[::1", "localhost.evil", "user@evil", "a b"]
)
def test_other_hosts(local: Guard, host: str) -> None:
    status, _, body = ask(local, host=host)
    assert status == 421
    assert "inside" not in body


@pytest.mark.parametrize("host", ["192.0.2.7:8766", "bittern.example.org", "[2001:db8::1]", "localhost"])
def test_own_hosts_where_others_can_reach_it(locked: Guard, token: str, host: str) -> None:
    assert ask(locked, host=host, authorization=f"Bearer {token}")[0] == 200
    assert ask(locked, host="other.example.org", authorization=f"Bearer {token}")[0] == 421


@pytest.mark.parametrize(
    ("method", "headers", "passes"),
    [
        ("POST", {}, True),  # a program
        ("POST", {"origin": "http://127.0.0.1:8766", "sec_fetch_site": "same-origin"}, True),
        ("POST", {"origin": "https://127.0.0.1:8766"}, True),  # behind a proxy that encrypts
        ("POST", {"origin": "http://127.0.0.1:9999"}, False),
        ("POST", {"origin": "http://evil.example"}, False),
        ("POST", {"origin": "null"}, False),
        ("POST", {"sec_fetch_site": "same-site"}, False),
        ("DELETE", {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"}, False),
        ("GET", {"origin": "http://evil.example"}, False),
        ("GET", {"sec_fetch_site": "cross-site", "sec_fetch_mode": "no-cors", "sec_fetch_dest": "image"}, False),
        ("GET", {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate", "sec_fetch_dest": "document"}, True),
        ("GET", {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate", "sec_fetch_dest": "iframe"}, False),
    ],
)
def test_origins(local: Guard, method: str, headers: dict[str, Any], passes: bool) -> None:
    assert (ask(local, method, **headers)[0] == 200) is passes


def test_a_token_or_nothing(locked: Guard, token: str) -> None:
    assert ask(locked, authorization=f"Bearer {token}")[2] == "inside"
    for path in ("/", "/api/models", "/static/page.js", "/no/such/thing", "/login"):
        status, headers, body = ask(locked, path=path)
        assert (status, body) == (401, "a token is needed\n"), path
        assert headers["www-authenticate"] == "Bearer"
    status, headers, body = ask(locked, path="/history", accept="text/html")
    assert status == 401
    assert 'name="token"' in body
    style = body.partition("<style>")[2].partition("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"'sha256-{digest}'" in headers["content-security-policy"]


def test_a_browser_logs_in(locked: Guard, token: str) -> None:
    assert ask(locked, "POST", "/login", b"token=wrong")[0] == 401
    assert ask(locked, "POST", "/login", b"x" * 5000)[0] == 413
    status, headers, _ = ask(locked, "POST", "/login", f"token={token}".encode(), origin="http://127.0.0.1:8766")
    cookie = headers["set-cookie"]
    assert status == 303
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert token not in cookie
    value = cookie.partition(";")[0]
    assert ask(locked, cookie=value)[2] == "inside"
    assert ask(locked, cookie=f"{value.partition('=')[0]}=other")[0] == 401
    assert ask(locked, "POST", "/login", f"token={token}".encode(), origin="http://evil.example")[0] == 403


def test_two_pages_of_a_host_have_two_cookies(locked: Guard, token: str, tmp_path: Path) -> None:
    """Browsers send the cookies of a host to all of its ports."""
    other_token = access.new_token(tmp_path / "other")
    other = Guard(PlainTextResponse("inside"), Access(tmp_path / "other"))
    cookies = [
        ask(guard, "POST", "/login", f"token={t}".encode())[1]["set-cookie"].partition(";")[0]
        for guard, t in ((locked, token), (other, other_token))
    ]
    assert len({cookie.partition("=")[0] for cookie in cookies}) == 2
    assert all(ask(guard, cookie="; ".join(cookies))[2] == "inside" for guard in (locked, other))
    assert ask(other, cookie=cookies[0])[0] == 401


@pytest.mark.parametrize("header", ["x_forwarded_for", "forwarded", "x_real_ip", "x_forwarded_host"])
def test_a_page_without_a_token_is_not_opened_by_a_proxy(local: Guard, locked: Guard, token: str, header: str) -> None:
    proxied: dict[str, Any] = {header: "192.0.2.9"}
    status, _, body = ask(local, **proxied)
    assert status == 403
    assert "--name" in body
    assert ask(locked, authorization=f"Bearer {token}", **proxied)[0] == 200


def test_a_new_token_ends_the_sessions_of_the_old_one(tmp_path: Path, token: str) -> None:
    one = Access(tmp_path)
    session = one.new_session()
    assert one.has_session(session)
    other = access.new_token(tmp_path)
    assert not one.has_session(session)
    assert not one.has_token(token, "a")
    assert one.has_token(other, "a")
    (tmp_path / access.FILE).unlink()
    assert not one.has_token(other, "a")


def test_the_token_is_kept_only_as_its_hash(tmp_path: Path, token: str) -> None:
    assert len(token) >= 43
    assert token not in (tmp_path / access.FILE).read_text()


def test_wrong_tokens_are_counted(tmp_path: Path, token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    one = Access(tmp_path)
    for _ in range(access.WRONG_A_MINUTE):
        assert not one.has_token("wrong", "a")
    with pytest.raises(TooManyWrong, match="try again in"):
        one.has_token(token, "a")
    assert one.has_token(token, "b"), "from another address"
    now[0] += 61
    assert one.has_token(token, "a")


def test_wrong_tokens_of_many_addresses_are_counted(tmp_path: Path, token: str) -> None:
    one = Access(tmp_path)
    for i in range(200):
        assert not one.has_token("wrong", f"192.0.2.{i}")
    with pytest.raises(TooManyWrong):
        one.has_token(token, "198.51.100.1")


def test_too_many_wrong_tokens_are_429(locked: Guard, token: str) -> None:
    statuses = [ask(locked, authorization="Bearer x")[0] for _ in range(12)]
    assert statuses == [401] * 10 + [429] * 2
    assert ask(locked, authorization=f"Bearer {token}")[0] == 429


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.1.2.3"])
def test_loopback_needs_no_token(host: str, tmp_path: Path) -> None:
    assert access_of(Address(host), tmp_path) is None


@pytest.mark.parametrize(
    "address", [Address("0.0.0.0"), Address("192.0.2.1"), Address("::"), Address(names=["bittern.example.org"])]
)
def test_others_do_not_reach_it_without_a_token(address: Address, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="bittern serve --new-token"):
        access_of(address, tmp_path)
    access.new_token(tmp_path)
    assert access_of(address, tmp_path) is not None


@pytest.mark.parametrize("text", ["", "sha256 abc", "plain secret", "\xff"])
def test_a_damaged_file_of_the_token(text: str, tmp_path: Path) -> None:
    (tmp_path / access.FILE).write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigurationError, match="token"):
        Access(tmp_path)


def test_the_command_shows_a_token_once_and_does_not_start_without(tmp_path: Path) -> None:
    serve = [str(BITTERN), "serve", "--data", str(tmp_path), "--port", "0"]
    done = subprocess.run([*serve, "--host", "0.0.0.0"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "bittern serve --new-token" in done.stderr
    made = subprocess.run([*serve, "--new-token"], capture_output=True, text=True)
    assert made.returncode == 0
    assert Access(tmp_path).has_token(made.stdout.strip(), "a")
