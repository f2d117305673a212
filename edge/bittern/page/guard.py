"""What stands before every route: the host that is asked, the origin, the token; and what an answer forbids."""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import socket
from collections.abc import Iterable
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bittern.page.access import SESSION_S, Access, TooManyWrong
from bittern.page.uploads import small_body

_SAFE = ("GET", "HEAD", "OPTIONS")
_STYLE = (
    ":root{color-scheme:light dark}body{font:1.1rem system-ui;max-width:22rem;margin:20vh auto;padding:0 1rem}"
    "input,button{font:inherit;width:100%;box-sizing:border-box;padding:.6rem;margin:.5rem 0}"
)
# With "no-referrer" a browser sends a form with the origin "null". Home Assistant's ingress puts that in the place of
# the page's own header, so the form's page says it once more.
_REFERRER = "same-origin"
_LOGIN = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    f'<meta name="referrer" content="{_REFERRER}">'
    f"<title>Token</title><style>{_STYLE}</style>"
    '<main><h1>Token</h1><form method="post" action="{action}"><label>Token'
    '<input name="token" type="password" autocomplete="current-password" autofocus required></label>'
    "<button>OK</button></form><p>{note}</p></main></html>"
)
_MAX_LOGIN_BYTES = 4096
# What a reverse proxy adds; see RFC 7239, section 1, for those before it.
_PROXIED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip")

_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
POLICY = (
    f"default-src 'none'; script-src 'self'; style-src 'self' 'sha256-{_STYLE_HASH}'; img-src 'self' blob:; "
    "connect-src 'self'; form-action 'self'; manifest-src 'self'; worker-src 'self'; base-uri 'none'; "
    "frame-ancestors 'self'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": _REFERRER,
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(self), geolocation=(), microphone=()",
}


class Guard:
    """Wraps the application.

    Args:
        app: answers what is let through.
        access: checks tokens; None where everybody may use the page (on loopback).
        names: host names by which the page may be asked for, besides addresses and localhost.
    """

    def __init__(self, app: ASGIApp, access: Access | None, names: Iterable[str] = ()) -> None:
        self._app = app
        self._access = access
        self._names = {name.lower().rstrip(".") for name in names}
        if access is not None:
            own = socket.gethostname().lower()
            self._names |= {own, own.partition(".")[0], f"{own.partition('.')[0]}.local"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or let it through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for key, value in HEADERS.items():
                    headers.setdefault(key, value)
                headers.setdefault("cache-control", "no-store")
            await send(message)

        refusal = await self._refusal(scope, receive)
        await (refusal or self._app)(scope, receive, send_guarded)

    async def _refusal(self, scope: Scope, receive: Receive) -> Response | None:
        headers = Headers(scope=scope)
        if len(headers.getlist("host")) != 1 or not self._is_own(headers["host"]):
            return PlainTextResponse("wrong host: ask by an address, or start with --name\n", 421)
        if not _same_origin(scope["method"], headers):
            return PlainTextResponse("refused: this comes from another site\n", 403)
        if self._access is None:
            if any(key in headers for key in _PROXIED):  # so that a page without a token is not open to the world
                return PlainTextResponse(
                    "refused: this comes through a proxy; start with --name, or set page.names\n", 403
                )
            return None
        # Without a token a path that is there looks like one that is not.
        client = (scope.get("client") or ("", 0))[0]
        try:
            kind, _, token = headers.get("authorization", "").partition(" ")
            if kind.lower() == "bearer":
                return None if self._access.has_token(token.strip(), client) else _ask_for_token(scope, headers)
            if self._has_cookie(headers):
                return None
            if scope["method"] == "POST" and _path(scope) == "/login":
                return await self._log_in(Request(scope, receive), client)
        except TooManyWrong as error:
            return PlainTextResponse(f"{error}\n", 429, {"retry-after": str(error.seconds)})
        return _ask_for_token(scope, headers)

    def _is_own(self, netloc: str) -> bool:
        """Whether a Host header is one of ours: a name of somebody else may have been pointed at this address."""
        try:
            host = urlsplit(f"//{netloc}").hostname or ""
        except ValueError:
            return False
        host = host.rstrip(".")
        if host == "localhost" or host in self._names:
            return True
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        return self._access is not None or address.is_loopback

    def _has_cookie(self, headers: Headers) -> bool:
        assert self._access is not None
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(self._access.cookie)
        except CookieError:
            return False
        return cookie is not None and self._access.has_session(cookie.value)

    async def _log_in(self, request: Request, client: str) -> Response:
        assert self._access is not None
        try:
            body = await small_body(request, _MAX_LOGIN_BYTES)
        except HTTPException as error:
            return PlainTextResponse(f"{error.detail}\n", error.status_code, error.headers)
        (token, *_) = parse_qs(body.decode("ascii", "replace")).get("token", [""])
        if not self._access.has_token(token.strip(), client):
            return _login_page("login", "Wrong token.")
        response = RedirectResponse("./", 303)
        secure = urlsplit(request.headers.get("origin", "")).scheme == "https"
        response.set_cookie(
            self._access.cookie,
            self._access.new_session(),
            max_age=int(SESSION_S),
            httponly=True,
            samesite="strict",
            secure=secure,
        )
        return response


def _path(scope: Scope) -> str:
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def _same_origin(method: str, headers: Headers) -> bool:
    """Whether a request comes from the page itself, from a program, or from a link that somebody followed."""
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc.lower() != headers["host"].lower():
        return False
    site = headers.get("sec-fetch-site", "none")
    if site in ("none", "same-origin"):
        return True
    return method in _SAFE and headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") != "iframe"


def _ask_for_token(scope: Scope, headers: Headers) -> Response:
    if "text/html" in headers.get("accept", ""):
        depth = _path(scope).count("/") - 1
        return _login_page("../" * depth + "login", "")
    return PlainTextResponse("a token is needed\n", 401, {"www-authenticate": "Bearer"})


def _login_page(action: str, note: str) -> Response:
    return HTMLResponse(_LOGIN.replace("{action}", action).replace("{note}", note), 401)
