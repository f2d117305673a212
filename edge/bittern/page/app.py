"""The application: routes, static files, and the form of an error."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from bittern.page.http import as_json

STATIC = Path(__file__).parent / "static"


def application(routes: Sequence[BaseRoute], page: str) -> Starlette:
    """An application that answers routes, and shows a page.

    Args:
        routes: besides those of the static files.
        page: the file in `STATIC` that is shown at /.
    """

    async def index(_request: Request) -> Response:
        return FileResponse(STATIC / page, headers={"cache-control": "no-cache"})

    async def service_worker(_request: Request) -> Response:
        # At the top, because it may only look after what lies below itself.
        return FileResponse(STATIC / "sw.js", headers={"cache-control": "no-cache"})

    handlers = {HTTPException: _error, Exception: _failure}
    shown = [
        Route("/", index),
        Route("/sw.js", service_worker),
        *routes,
        Mount("/static", StaticFiles(directory=STATIC)),
    ]
    return Starlette(routes=shown, exception_handlers=handlers)  # type: ignore[arg-type]


async def _error(_request: Request, error: HTTPException) -> Response:
    response = as_json({"error": error.detail}, error.status_code)
    response.headers.update(error.headers or {})
    return response


async def _failure(_request: Request, _error: Exception) -> Response:
    """A mistake of ours: what it was is for the log, not for whoever asks."""
    return as_json({"error": "internal error: the server's log says more"}, 500)
