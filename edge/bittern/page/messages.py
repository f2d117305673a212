"""What goes between the server and its workers: a JSON object and bytes, each with its length before it."""

from __future__ import annotations

import struct
from typing import Any

import msgspec

# Lengths of the JSON object and of the bytes after it.
HEAD = struct.Struct("<IQ")


class RequestFailed(Exception):
    """A request without a result: the status of HTTP that says so, and why."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def encode(message: dict[str, Any], payload: bytes = b"") -> bytes:
    """A message in bytes."""
    text = msgspec.json.encode(message)
    return HEAD.pack(len(text), len(payload)) + text + payload


def decode(text: bytes) -> dict[str, Any]:
    """The JSON object of a message."""
    return msgspec.json.decode(text, type=dict[str, Any])
