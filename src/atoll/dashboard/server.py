"""The live page over HTTP: GET only, and bounded whoever watches."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from atoll.dashboard import page
from atoll.dashboard.connection import PatientProtocol
from atoll.dashboard.live import Live
from atoll.dashboard.parts import pack
from atoll.dashboard.source import Source
from atoll.dashboard.view import NAMES, Name
from atoll.errors import UserError
from atoll.run.directory import RunDir
from atoll.swarm.address import WILDCARDS, Address

MAX_WATCHERS = 200
WATCH_SECONDS = 600.0  # after which a watcher has to come again: who does not is forgotten
HEARTBEAT_SECONDS = 5.0  # between two signs of life to who watches
RETRY_MILLISECONDS = 2_000
NOT_NOW = "this page has as many watchers as it takes; it tries again by itself"
HEADERS = {
    "Content-Security-Policy": page.POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


class Guarded:
    """Adds the headers that every answer has."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                there = {name for name, _ in message["headers"]}
                more = ((k.lower().encode(), v.encode()) for k, v in HEADERS.items())
                message["headers"] = [*message["headers"], *(pair for pair in more if pair[0] not in there)]
            await send(message)

        await self._app(scope, receive, guarded if scope["type"] == "http" else send)


def application(live: Live) -> Starlette:
    """The page of a run, its parts, and the news of newer parts."""

    async def part(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in NAMES:
            return PlainTextResponse("no such part of a view", 404)
        found = await live.part(name)
        tag = f'"{found.version}"'
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers={"ETag": tag})
        return _json(request, found.plain, found.packed, {"ETag": tag})

    async def island(request: Request) -> Response:
        found = await live.history(request.path_params["island"])
        if found is None:
            return PlainTextResponse("no such island in this run", 404)
        return _json(request, found, pack(found), {})

    async def news(request: Request) -> Response:
        if live.num_watchers >= MAX_WATCHERS:
            return PlainTextResponse(NOT_NOW, 503, headers={"Retry-After": "30"})
        headers = {"X-Accel-Buffering": "no"}  # a proxy before this shall not hold the news back
        return StreamingResponse(_news(live), media_type="text/event-stream", headers=headers)

    routes = [
        Route("/", _fixed(page.live_page(), "text/html; charset=utf-8")),
        Route("/part/{name}", part),
        Route("/island/{island}", island),
        Route("/news", news),
        *(Route(f"/{name}", _fixed(*each)) for name, each in page.files().items()),
    ]
    return Starlette(routes=routes, middleware=[Middleware(Guarded)])


async def _news(live: Live) -> AsyncIterator[str]:
    """Which parts have a newer version, as server-sent events. There is no queue: only the newest counts."""
    live.num_watchers += 1
    try:
        yield f"retry: {RETRY_MILLISECONDS}\n\n"
        loop = asyncio.get_running_loop()
        until, known = loop.time() + WATCH_SECONDS, dict[Name, int]()
        while loop.time() < until and not live.is_over:
            found = await live.newer(known, HEARTBEAT_SECONDS)
            known |= found
            yield f"event: news\ndata: {msgspec.json.encode(found).decode()}\n\n"
    finally:
        live.num_watchers -= 1


def _fixed(data: bytes, kind: str) -> Callable[[Request], Response]:
    packed = pack(data)

    def answer(request: Request) -> Response:
        return _packed(request, data, packed, kind, {})

    return answer


def _json(request: Request, plain: bytes, packed: bytes, headers: dict[str, str]) -> Response:
    return _packed(request, plain, packed, "application/json", headers)


def _packed(request: Request, plain: bytes, packed: bytes, kind: str, headers: dict[str, str]) -> Response:
    takes = "gzip" in request.headers.get("accept-encoding", "")
    headers = {**headers, "Vary": "Accept-Encoding", **({"Content-Encoding": "gzip"} if takes else {})}
    return Response(packed if takes else plain, media_type=kind, headers=headers)


def listening(address: Address) -> socket.socket:
    """A socket that listens there. Raises UserError where none can."""
    is_any = address.host in WILDCARDS
    dual = is_any and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dual or ":" in address.host else socket.AF_INET
    try:
        return socket.create_server(
            ("" if is_any else address.host, address.port), family=family, dualstack_ipv6=dual, backlog=256
        )
    except OSError as error:
        raise UserError(f"{address}: the dashboard cannot listen there: {error.strerror or error}") from None


async def serve(run_dir: RunDir, address: Address, ready: Callable[[Address], None]) -> None:
    """Show a run until cancelled; `ready` is told where. Raises UserError without a run or a port."""
    source = Source(run_dir)
    with contextlib.closing(listening(address)) as listener:
        live = Live(source)
        config = uvicorn.Config(
            application(live),
            http=PatientProtocol,
            ws="none",
            lifespan="off",
            log_level="error",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=15,
            timeout_graceful_shutdown=1,
        )
        server = _Server(config)
        serving = asyncio.ensure_future(server.serve([listener]))
        following = asyncio.ensure_future(live.follow())
        ready(address.with_port(listener.getsockname()[1]))
        try:
            await asyncio.wait({serving, following}, return_when=asyncio.FIRST_COMPLETED)
            for task in (serving, following):
                if task.done():
                    task.result()
        finally:
            following.cancel()
            await live.close()
            server.should_exit = True
            await asyncio.gather(serving, following, return_exceptions=True)
            server.cut()
            await asyncio.sleep(0)  # in which the loop sees them end


class _Server(uvicorn.Server):
    """Leaves signals to whoever runs it."""

    def cut(self) -> None:
        """End the lines of who still watches."""
        for each in list(self.server_state.connections):
            if isinstance(each, PatientProtocol):
                each.transport.abort()

    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def, override]
        yield
