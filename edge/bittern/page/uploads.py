"""The bodies of requests: read within limits on bytes, on time, and on what is in memory at once."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import NamedTuple

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

# Of one request; `bittern.model.pictures.MAX_BYTES` of a single picture.
MAX_BODY = 64 * 2**20
# Of all requests that are being read or answered.
MAX_HELD = 256 * 2**20
# A body may take this long, and longer while it comes at least at this rate (bytes a second).
GRACE_S = 10.0
_SLOWEST = 16 * 1024
_MAX_FILES = 100


class Upload(NamedTuple):
    """A file that was sent."""

    name: str
    data: bytes


class Bodies:
    """Reads bodies, and counts how much of them is held.

    Attributes:
        held: bytes of all requests that are being read or answered.
    """

    def __init__(self) -> None:
        self.held = 0

    @contextlib.asynccontextmanager
    async def files(self, request: Request) -> AsyncIterator[list[Upload]]:
        """The files of a request: the parts of a multipart form that are files, or else the body itself.

        The name of a body is the parameter `name` of the address; "-" without one.

        Raises:
            HTTPException: 400 without a file, 408 for a slow body, 413 for a large one, 503 where too much is held.
        """
        length = request.headers.get("content-length", "")
        if length.isdigit() and int(length) > MAX_BODY:
            raise _too_large()
        receipt = _Receipt(self, request)
        try:
            kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind == "multipart/form-data":
                uploads = await _parts(Request(request.scope, receipt.receive))
            else:
                body = b"".join([part async for part in Request(request.scope, receipt.receive).stream()])
                uploads = [Upload(request.query_params.get("name") or "-", body)] if body else []
            if not uploads:
                raise HTTPException(400, "no picture: send a file as the body, or as multipart/form-data")
            yield uploads
        except ClientDisconnect:
            raise HTTPException(400, "the body ended too early") from None
        finally:
            self.held -= receipt.bytes


async def small_body(request: Request, most: int) -> bytes:
    """The body of a request that has only a few words to say.

    Args:
        request: whose body is read.
        most: bytes that it may have.

    Raises:
        HTTPException: 400 where it ends too early, 408 where it takes longer than `GRACE_S`, 413 where it is larger.
    """
    body = b""
    try:
        async with asyncio.timeout(GRACE_S):
            async for part in request.stream():
                body += part
                if len(body) > most:
                    raise HTTPException(413, f"larger than {most} bytes", {"connection": "close"})
    except TimeoutError:
        raise HTTPException(408, "the body comes too slowly", {"connection": "close"}) from None
    except ClientDisconnect:
        raise HTTPException(400, "the body ended too early") from None
    return body


class _Receipt:
    """Receives one body, within the limits."""

    def __init__(self, bodies: Bodies, request: Request) -> None:
        self._bodies = bodies
        self._receive = request.receive
        self._begin = time.monotonic()
        self.bytes = 0

    async def receive(self) -> Message:
        left = self._begin + GRACE_S + self.bytes / _SLOWEST - time.monotonic()
        try:
            message = await asyncio.wait_for(self._receive(), max(left, 0.0))
        except TimeoutError:
            raise HTTPException(408, "the body comes too slowly", {"connection": "close"}) from None
        count = len(message.get("body", b""))
        self.bytes += count
        self._bodies.held += count
        if self.bytes > MAX_BODY:
            raise _too_large()
        if self._bodies.held > MAX_HELD:
            raise HTTPException(503, "too many pictures at a time: try again", {"retry-after": "1"})
        return message


async def _parts(request: Request) -> list[Upload]:
    try:
        async with request.form(max_files=_MAX_FILES, max_fields=_MAX_FILES) as form:
            files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
            return [Upload(file.filename or "-", await file.read()) for file in files]
    except MultiPartException as error:
        raise HTTPException(400, str(error)) from None


def _too_large() -> HTTPException:
    # The rest of the body is not read: the connection ends.
    return HTTPException(413, f"larger than the limit of {MAX_BODY >> 20} MiB", {"connection": "close"})
