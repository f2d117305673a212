"""What the interfaces of the pages share: parameters and bodies of requests, labels, and answers."""

from __future__ import annotations

import contextlib
import re
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from bittern.page.uploads import small_body

_MAX_LABEL = 100
_MAX_JSON_BYTES = 64 * 1024


async def read_json(request: Request) -> dict[str, Any]:
    """The JSON object of a small body.

    Raises:
        HTTPException: 400 where there is none, and see `small_body`.
    """
    body = await small_body(request, _MAX_JSON_BYTES)
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise HTTPException(400, "expected a JSON object") from None


def whole_number(request: Request, name: str, default: int, least: int, most: int) -> int:
    """A parameter of the address that is a whole number.

    Raises:
        HTTPException: 400 where it is something else, or out of its range.
    """
    text = request.query_params.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 10 and least <= int(text) <= most):
        raise HTTPException(400, f"{name}: expected a number from {least} to {most}, got {text!r}")
    return int(text)


def flag(request: Request, name: str) -> bool:
    """A parameter of the address that is 0 or 1; 0 if it is not there.

    Raises:
        HTTPException: 400 where it is something else.
    """
    value = request.query_params.get(name, "0")
    if value not in ("0", "1"):
        raise HTTPException(400, f"{name}: expected 0 or 1, got {value!r}")
    return value == "1"


def label_of(given: dict[str, Any]) -> str | None:
    """The "label" of a JSON object; None takes a label back.

    Raises:
        HTTPException: 400 where it cannot be one.
    """
    label = given.get("label")
    if label is not None and not is_label(label):
        raise HTTPException(400, f"label: expected a text of 1 to {_MAX_LABEL} characters, or null")
    return label


def is_label(value: object) -> bool:
    """Whether something can be a label: a text on one line that is not too long and has something to see in it."""
    return isinstance(value, str) and 0 < len(value) <= _MAX_LABEL and value.isprintable() and value.strip() == value


def folder_name(text: str) -> str:
    """A label or task as the name of a folder: what a file system or an unzip program might trip over becomes "_"."""
    name = re.sub(r'[\x00-\x1f\x7f<>:"/\\|?*]', "_", text).strip(" .")
    return name or "_"


def as_json(value: Any, status: int = 200) -> Response:
    """A value as the answer."""
    return Response(msgspec.json.encode(value), status, media_type="application/json")


async def as_zip(task: str, pictures: Iterable[tuple[str, str, Path]], folder: Path) -> Response:
    """A zip with a folder for each label as the answer; a picture whose file is gone is left out.

    Args:
        task: which the zip is named after.
        pictures: label, name in the zip, and file of each.
        folder: on whose disk the zip is made; it has no name there.

    Raises:
        HTTPException: 507 where it cannot be written.
    """
    try:
        file = await run_in_threadpool(_pack, pictures, folder)
    except OSError as error:
        raise HTTPException(507, f"the zip cannot be written: {error.strerror}") from None
    name = f"attachment; filename*=utf-8''{quote(folder_name(task))}.zip"
    return StreamingResponse(_parts(file), media_type="application/zip", headers={"content-disposition": name})


def _pack(pictures: Iterable[tuple[str, str, Path]], folder: Path) -> IO[bytes]:
    file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by `_parts`
    try:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:  # pictures are compressed already
            for label, name, source in pictures:
                with contextlib.suppress(FileNotFoundError):
                    archive.write(source, f"{folder_name(label)}/{name}")
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file


def _parts(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while part := file.read(1 << 18):
            yield part
