"""A web server of pictures that speaks Reddit's JSON too, and misbehaves where a path says so."""

from __future__ import annotations

import json
import socket
from collections import Counter
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.doubles.http_peer import Peer, Request, status

SECRET = "a-secret-that-nobody-shows"


def answer(body: bytes, kind: str = "image/jpeg", *headers: str, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    lines = ["HTTP/1.1 200 OK", f"Content-Length: {size}", f"Content-Type: {kind}", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


class PictureServer:
    """Answers by path.

    Attributes:
        peer: the server itself.
        files: contents by path.
        children: the posts of the one subreddit, `birds`, newest first; see `post`.
        rate: headers of the next answer of the API.
        asked: how often each path was asked for.
    """

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.files: dict[str, bytes] = {}
        self.children: list[dict[str, Any]] = []
        self.busy = 0
        self.asked: Counter[str] = Counter()
        peer.answer = self._answer

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.peer.port}"

    def post(self, name: str, url: str, **changes: Any) -> None:
        data = {
            "id": name,
            "name": f"t3_{name}",
            "url": url,
            "author": "somebody",
            "author_fullname": "t2_x",
            "permalink": f"/r/birds/comments/{name}/",
            "title": f"A bird,\n{name}",
            "subreddit": "birds",
            "over_18": False,
            "removed_by_category": None,
        }
        self.children.append({"kind": "t3", "data": data | changes})

    def _answer(self, request: Request) -> bytes | Callable[[socket.socket], None]:
        method, target, _ = request.line.split(" ", 2)
        address = urlsplit(target)
        path = address.path
        self.asked[path] += 1
        if path.startswith("/stall"):
            return self.peer.never(request)
        if path.startswith("/half"):
            return answer(self.files["/half"][:2000], length=len(self.files["/half"]))
        if path.startswith("/later") and self.asked[path] == 1:
            return status(429, "Later", "Retry-After: 0")
        if path.startswith("/never"):
            return status(503, "Busy", "Retry-After: 0")
        if path == "/api/v1/access_token":
            if SECRET.encode() not in request.body and "Basic" not in request.headers.get("authorization", ""):
                return status(401)
            token = {"access_token": "t", "token_type": "bearer", "expires_in": 3600, "scope": "*"}
            return self._json(token)
        if path == "/r/birds/new":
            if self.busy:
                self.busy -= 1
                return status(429, "Later", "retry-after: 7")
            return self._listing(parse_qs(address.query))
        if path.startswith("/r/"):
            return status(404)
        if method == "GET" and path in self.files:
            return answer(self.files[path])
        return status(404)

    def _listing(self, query: dict[str, list[str]]) -> bytes:
        names = [child["data"]["name"] for child in self.children]
        after = query.get("after", [""])[0]
        start = names.index(after) + 1 if after in names else 0
        part = self.children[start : start + 2]  # pages of two
        last = names[start + 1] if start + 2 < len(names) else None
        return self._json({"kind": "Listing", "data": {"children": part, "after": last, "before": None, "dist": 2}})

    def _json(self, value: Any) -> bytes:
        limits = ("x-ratelimit-remaining: 99", "x-ratelimit-used: 1", "x-ratelimit-reset: 1")
        return answer(json.dumps(value).encode(), "application/json", *limits)
