"""A stand-in for Home Assistant's Supervisor, which needs a machine of its own: what it does for ingress, and no more.

It forwards as `supervisor/api/ingress.py` of the real one does, by the same library: for a browser that has a session,
to the port of an add-on, with the headers that are left out and added there. All else is answered with an error, with
which Home Assistant Core starts all the same. What is real is Core's side: its `hassio` integration, and its frontend.

It runs in the Python of root.sh's root, alone. Its argument is JSON: `port`, where it listens; `addons`, by name: the
`port` of each and whether it takes bodies as a stream (`ingress_stream`). It listens on the loopback, and asks Core for
no token.
"""

from __future__ import annotations

import json
import secrets
import sys
from typing import Any

from aiohttp import ClientError, ClientSession, ClientTimeout, hdrs, web
from multidict import CIMultiDict

SETTINGS = json.loads(sys.argv[1])
ADDONS: dict[str, Any] = SETTINGS["addons"]
TOKENS = {secrets.token_urlsafe(32): name for name in ADDONS}
SESSIONS: set[str] = set()
MAX_BODY = 16 * 2**20
# A body of less is read as a whole before it is passed on.
SIMPLE = 4_194_000
NOT_PASSED_ON = (
    hdrs.CONTENT_LENGTH, hdrs.CONTENT_ENCODING, hdrs.TRANSFER_ENCODING, hdrs.SEC_WEBSOCKET_EXTENSIONS,
    hdrs.SEC_WEBSOCKET_PROTOCOL, hdrs.SEC_WEBSOCKET_VERSION, hdrs.SEC_WEBSOCKET_KEY,
    "X-Supervisor-Token", "X-Hassio-Key", "X-Remote-User-Id", "X-Remote-User-Name", "X-Remote-User-Display-Name",
)  # fmt: skip
NOT_RETURNED = (hdrs.TRANSFER_ENCODING, hdrs.CONTENT_LENGTH, hdrs.CONTENT_TYPE, hdrs.CONTENT_ENCODING)
CLIENT = web.AppKey("client", ClientSession)


def ok(**data: Any) -> web.Response:
    """What the Supervisor's interface answers."""
    return web.json_response({"result": "ok", "data": data})


async def panels(_: web.Request) -> web.Response:
    """The entries of the sidebar."""
    entries = {name: {"title": name, "icon": "mdi:bird", "admin": False, "enable": True} for name in ADDONS}
    return ok(panels=entries)


async def info(request: web.Request) -> web.Response:
    """An add-on, as far as the frontend looks at it."""
    name = request.match_info["name"]
    token = next(token for token, addon in TOKENS.items() if addon == name)
    url = f"/api/hassio_ingress/{token}/"
    return ok(name=name, slug=name, version="1", state="started", ingress=True, ingress_url=url, ingress_panel=True)


async def new_session(_: web.Request) -> web.Response:
    """A session for a browser, which Core asks for when somebody who is logged in opens an add-on."""
    session = secrets.token_hex(64)
    SESSIONS.add(session)
    return ok(session=session)


async def validate_session(request: web.Request) -> web.Response:
    """Whether a session is one; the frontend asks again and again."""
    if (await request.json())["session"] not in SESSIONS:
        raise web.HTTPUnauthorized
    return ok()


async def store(_: web.Request) -> web.Response:
    """No add-ons to install: an error here would end the start of Core's integration."""
    return ok(addons=[], repositories=[])


async def resolution(_: web.Request) -> web.Response:
    """Nothing to complain of: after an error Core would ask again every ten seconds."""
    return ok(unsupported=[], unhealthy=[], suggestions=[], issues=[], checks=[])


async def unknown(_: web.Request) -> web.Response:
    """All else."""
    return web.json_response({"result": "error", "message": "not in this stand-in"}, status=400)


async def ingress(request: web.Request) -> web.StreamResponse:
    """A request for an add-on."""
    if request.cookies.get("ingress_session", "") not in SESSIONS:
        raise web.HTTPUnauthorized
    name = TOKENS.get(request.match_info["token"])
    if name is None:
        raise web.HTTPServiceUnavailable
    addon = ADDONS[name]
    streamed = request.method == "POST" and addon["ingress_stream"]
    asked = request.app[CLIENT].request(
        request.method,
        f"http://127.0.0.1:{addon['port']}/{request.match_info['path']}",
        headers=passed_on(request),
        params=request.query,
        allow_redirects=False,
        data=request.content if streamed else await request.read(),
        timeout=ClientTimeout(total=None),
        skip_auto_headers={hdrs.CONTENT_TYPE},
    )
    try:
        async with asked as answer:
            headers = CIMultiDict((k, v) for k, v in answer.headers.items() if k not in NOT_RETURNED)
            kind = answer.headers.get(hdrs.CONTENT_TYPE, answer.content_type).partition(";")[0].strip()
            length = answer.headers.get(hdrs.CONTENT_LENGTH)
            if answer.status in (204, 304) or (length is not None and int(length) < SIMPLE):
                body = await answer.read()
                return web.Response(status=answer.status, headers=headers, content_type=kind, body=body)
            response = web.StreamResponse(status=answer.status, headers=headers)
            response.content_type = kind
            response.headers["X-Accel-Buffering"] = "no"
            try:
                await response.prepare(request)
                async for part, _ in answer.content.iter_chunks():
                    await response.write(part)
            except (ClientError, ConnectionError) as error:
                print(f"stream of {request.path}: {error!r}", flush=True)
            return response
    except ClientError as error:
        print(f"{request.path}: {error!r}", flush=True)
        raise web.HTTPBadGateway from None


def passed_on(request: web.Request) -> CIMultiDict[str]:
    """The headers of a request that the add-on gets."""
    headers = CIMultiDict((k, v) for k, v in request.headers.items() if k not in NOT_PASSED_ON)
    headers[hdrs.X_FORWARDED_FOR] = f"{headers.get(hdrs.X_FORWARDED_FOR)}, {request.remote}"
    return headers


async def client(app: web.Application) -> Any:
    """What asks the add-ons, while the server runs."""
    async with ClientSession() as session:
        app[CLIENT] = session
        yield


def main() -> None:
    app = web.Application(client_max_size=MAX_BODY)
    app.cleanup_ctx.append(client)
    app.router.add_get("/ingress/panels", panels)
    app.router.add_post("/ingress/session", new_session)
    app.router.add_post("/ingress/validate_session", validate_session)
    app.router.add_get("/addons/{name}/info", info)
    app.router.add_get("/store", store)
    app.router.add_get("/resolution/info", resolution)
    app.router.add_route("*", "/ingress/{token}/{path:.*}", ingress)
    app.router.add_route("*", "/{path:.*}", unknown)
    web.run_app(app, host="127.0.0.1", port=SETTINGS["port"], print=lambda *_: None)


main()
