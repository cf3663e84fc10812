# The demonstration backend over HTTP. What it says is in answers.py, how it looks on the wire in shapes.py.
"""A chat backend without a model: OpenAI's and Anthropic's paths, a page with a chat box, and a WebSocket echo.

`python -m edgeproxy.demo.backend --port 9000` runs it alone. It is plain HTTP/1.1 and belongs behind the edge.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import secrets
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from aiohttp import WSMsgType, web

from edgeproxy.demo import page
from edgeproxy.demo.answers import answer
from edgeproxy.demo.asking import JSON, Refusal
from edgeproxy.demo.child import die_with
from edgeproxy.demo.shapes import CHAT, MESSAGES, RESPONSES, Dialect

HUMAN_PACE = 0.04  # seconds between tokens: 25 tokens a second
MAX_BODY = 1 << 20
MAX_WEBSOCKET_MESSAGE = 1 << 20
BROKEN_AFTER = 8  # tokens that a breaking answer still sends
CREATED = 1_767_225_600  # the models' date, 2026-01-01T00:00:00Z
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Model:
    """One name under `/v1/models`: how fast it answers (factor of the pace), and the fault it shows, if any."""

    label: str
    pace: float = 1.0
    fault: str = ""


MODELS = {
    "edge-demo": Model("Demonstration, at a human pace"),
    "edge-demo-instant": Model("Demonstration, without delays", pace=0.0),
    "edge-demo-limited": Model("Always over its rate limit", fault="limited"),
    "edge-demo-overloaded": Model("Always overloaded", fault="overloaded"),
    "edge-demo-broken": Model("Breaks off in mid-answer", fault="broken"),
}


@dataclass(slots=True)
class Counters:
    """What happened so far: answers under way now, those begun, and how they ended."""

    active: int = 0
    started: int = 0
    completed: int = 0
    cancelled: int = 0
    refused: int = 0
    broken: int = 0


class _BrokenOff(ConnectionResetError):
    """The connection was reset on purpose (a model whose fault this is)."""


COUNTERS: web.AppKey[Counters] = web.AppKey("counters", Counters)
PACE: web.AppKey[float] = web.AppKey("pace", float)
SOCKETS: web.AppKey[set[web.WebSocketResponse]] = web.AppKey("sockets", set)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def create_app(pace: float = HUMAN_PACE) -> web.Application:
    """The application; `pace` is the delay between tokens in seconds, 0 for none."""
    app = web.Application(client_max_size=MAX_BODY, middlewares=[_in_dialect])
    app[COUNTERS] = Counters()
    app[PACE] = pace
    app[SOCKETS] = set()
    app.on_response_prepare.append(_sign)
    app.on_shutdown.append(_close_sockets)
    app.add_routes(
        [
            web.get("/", _page),
            web.get("/health", _health),
            web.get("/counters", _counters),
            web.get("/ws", _echo),
            web.post("/v1/chat/completions", _chat),
            web.post("/v1/messages", _messages),
            web.post("/v1/responses", _responses),
            web.get("/v1/models", _models),
            web.get("/v1/models/{model}", _model),
        ]
    )
    return app


async def start(app: web.Application, listener: socket.socket) -> web.AppRunner:
    """Serves `app` on a bound socket until `runner.cleanup()`. A client that leaves cancels its handler."""
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    await web.SockSite(runner, listener).start()
    return runner


async def _chat(request: web.Request) -> web.StreamResponse:
    return await _answer(request, CHAT)


async def _messages(request: web.Request) -> web.StreamResponse:
    return await _answer(request, MESSAGES)


async def _responses(request: web.Request) -> web.StreamResponse:
    return await _answer(request, RESPONSES)


async def _answer(request: web.Request, dialect: Dialect) -> web.StreamResponse:
    """Counts, and ends when the client leaves: aiohttp cancels the handler, or a write finds the socket gone."""
    counters = request.app[COUNTERS]
    counters.started += 1
    counters.active += 1
    try:
        response = await _produce(request, dialect)
    except _BrokenOff:
        counters.broken += 1
        raise
    except (asyncio.CancelledError, ConnectionResetError):
        counters.cancelled += 1
        raise
    except (Refusal, web.HTTPException):
        counters.refused += 1
        raise
    finally:
        counters.active -= 1
    counters.completed += 1
    return response


async def _produce(request: web.Request, dialect: Dialect) -> web.StreamResponse:
    ask = dialect.parse(await request.read())
    model = _known(ask.model)
    _refuse(model.fault, dialect)
    made = answer(ask)
    writer = dialect.writer(made, secrets.token_hex(12), time.time())
    delay = request.app[PACE] * model.pace
    breaks = model.fault == "broken"
    tokens = made.tokens[:BROKEN_AFTER] if breaks else made.tokens
    if not ask.stream:
        await asyncio.sleep(delay * len(tokens))
        if breaks:
            _break_off(request)
        return web.json_response(writer.whole())
    response = web.StreamResponse(headers={"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"})
    response.content_type = "text/event-stream"
    await response.prepare(request)
    await response.write(writer.opening())
    for token in tokens:
        await asyncio.sleep(delay)  # with no delay too: the loop must be able to tell us that the client has left
        await response.write(writer.token(token))
    if breaks:
        _break_off(request)
    await response.write(writer.closing())
    await response.write_eof()
    return response


def _known(name: str) -> Model:
    model = MODELS.get(name)
    if model is None:
        raise Refusal(
            404, f"The model `{name}` does not exist here. There are: {', '.join(MODELS)}.", code="model_not_found"
        )
    return model


def _refuse(fault: str, dialect: Dialect) -> None:
    if fault == "limited":
        message = "Rate limit reached: this model always says so, to show what a client makes of it."
        raise Refusal(429, message, code="rate_limit_exceeded", retry_after=1)
    if fault == "overloaded":
        message = "The server is overloaded: this model always says so, to show what a client makes of it."
        raise Refusal(dialect.overloaded, message)


def _break_off(request: web.Request) -> NoReturn:
    """Ends the connection with a reset, so that nobody can take what was sent for a complete answer."""
    if request.transport is not None:
        request.transport.abort()
    raise _BrokenOff


async def _models(request: web.Request) -> web.Response:
    entries = [_describe(name, request) for name in MODELS]
    if _is_anthropic(request):
        ends = {"first_id": entries[0]["id"], "last_id": entries[-1]["id"]}
        return web.json_response({"data": entries, "has_more": False, **ends})
    return web.json_response({"object": "list", "data": entries})


async def _model(request: web.Request) -> web.Response:
    name = request.match_info["model"]
    _known(name)
    return web.json_response(_describe(name, request))


def _describe(name: str, request: web.Request) -> JSON:
    if _is_anthropic(request):
        created = "2026-01-01T00:00:00Z"
        about = {"display_name": MODELS[name].label, "lifecycle": "active"}
        return {"type": "model", "id": name, "created_at": created, **about}
    return {"id": name, "object": "model", "created": CREATED, "owned_by": "edgeproxy"}


def _is_anthropic(request: web.Request) -> bool:
    """Both vendors list models at the same path; only Anthropic's clients send this header, and they must."""
    return request.path.startswith("/v1/messages") or "anthropic-version" in request.headers


async def _page(request: web.Request) -> web.Response:  # noqa: ARG001  (aiohttp's signature)
    return web.Response(text=page.HTML, content_type="text/html", headers=page.HEADERS)


async def _health(request: web.Request) -> web.Response:  # noqa: ARG001
    return web.json_response({"status": "ok"})


async def _counters(request: web.Request) -> web.Response:
    counters = request.app[COUNTERS]
    return web.json_response({name: getattr(counters, name) for name in Counters.__slots__})


async def _echo(request: web.Request) -> web.WebSocketResponse:
    """Sends every message back as it came, text as text and bytes as bytes."""
    echo = web.WebSocketResponse(max_msg_size=MAX_WEBSOCKET_MESSAGE, autoclose=False)
    await echo.prepare(request)
    request.app[SOCKETS].add(echo)
    try:
        async for message in echo:
            if message.type is WSMsgType.TEXT:
                await echo.send_str(message.data)
            elif message.type is WSMsgType.BINARY:
                await echo.send_bytes(message.data)
        # RFC 6455 §5.5.1: a close is answered with the status it came with; aiohttp by itself would say 1000.
        await echo.close(code=echo.close_code or 1000)
    finally:
        request.app[SOCKETS].discard(echo)
    return echo


async def _close_sockets(app: web.Application) -> None:
    sockets = app[SOCKETS]
    for echo in list(sockets):
        await echo.close(code=1001, message=b"the backend is going away")  # RFC 6455 §7.4.1


@web.middleware
async def _in_dialect(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Everything that goes wrong under /v1/ is told in the dialect of its path, aiohttp's own refusals included."""
    try:
        return await handler(request)
    except Refusal as e:
        return _error(request, e)
    except web.HTTPException as e:
        if not request.path.startswith("/v1/"):
            raise
        return _error(request, _translated(request, e))
    except ConnectionResetError:
        raise  # the connection is gone: there is nobody to tell
    except Exception:
        _log.exception("the demonstration backend failed")
        return _error(request, Refusal(500, "The demonstration backend failed; its output says why."))


def _translated(request: web.Request, error: web.HTTPException) -> Refusal:
    messages = {
        404: f"Invalid URL ({request.method} {request.path})",
        405: f"Not allowed to {request.method} on {request.path}.",
        413: f"The body of the request is larger than {MAX_BODY} bytes.",
    }
    return Refusal(error.status, messages.get(error.status, error.reason))


def _error(request: web.Request, refusal: Refusal) -> web.Response:
    dialect = MESSAGES if _is_anthropic(request) else CHAT
    request_id = _request_id()
    response = web.json_response(dialect.error(refusal, request_id), status=refusal.status)
    response.headers[dialect.request_id_header] = request_id
    if refusal.retry_after is not None:
        response.headers["Retry-After"] = str(refusal.retry_after)
    return response


async def _sign(request: web.Request, response: web.StreamResponse) -> None:
    """The headers of every answer."""
    response.headers["Server"] = "edgeproxy-demo"
    if request.path.startswith("/v1/"):
        dialect = MESSAGES if _is_anthropic(request) else CHAT
        response.headers.setdefault(dialect.request_id_header, _request_id())


def _request_id() -> str:
    return f"req_{secrets.token_hex(12)}"


async def run(listener: socket.socket, pace: float) -> None:
    """Serves until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    runner = await start(create_app(pace), listener)
    try:
        await stop.wait()
    finally:
        await runner.cleanup()


def main(arguments: list[str] | None = None) -> int:
    """The command line of this module; the demo passes a socket that is already listening (`--fd`)."""
    parser = argparse.ArgumentParser(prog="python -m edgeproxy.demo.backend", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 for a free one; it is printed")
    parser.add_argument("--fd", type=int, help="a listening socket that was inherited, instead of host and port")
    parser.add_argument("--pace", type=float, default=HUMAN_PACE, help="seconds between tokens (default: %(default)s)")
    parser.add_argument("--parent", type=int, help="end when this process, which must be the parent, ends")
    options = parser.parse_args(arguments)
    if options.parent is not None and not die_with(options.parent):
        return 1
    listener = _listener(options)
    host, port = listener.getsockname()[:2]
    sys.stdout.write(f"listening on http://{host}:{port}\n")
    sys.stdout.flush()
    asyncio.run(run(listener, options.pace))
    return 0


def _listener(options: Any) -> socket.socket:
    if options.fd is not None:
        return socket.socket(fileno=options.fd)
    return socket.create_server((options.host, options.port), backlog=1024)


if __name__ == "__main__":
    sys.exit(main())
