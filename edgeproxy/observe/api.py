# What an operator may change or look up through the admin address, as HTTP. admin.py has decided before that the caller may.
"""`/api/blocks`, `/api/limits` and `/api/limits/reset`: JSON in, JSON out. What is sent has to say that it is JSON: a form of
another site's page cannot."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol

from aiohttp import web

from edgeproxy.explaining.question import Busy, Unclear
from edgeproxy.policy.blocks import Refused

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_JSON: Final = "application/json"


class Operator(Protocol):
    """Who does it (edgeproxy.operating.Operations)."""

    def shown(self) -> list[dict[str, Any]]:
        """All blocks."""

    async def block(self, content: bytes) -> dict[str, Any]:
        """Block, or take a block away. Raises: Refused."""

    async def limits(self, content: bytes, *, reset: bool) -> dict[str, Any]:
        """Look limits up, or reset them. Raises: Unclear, Busy."""


def routes(operator: Operator, security: Mapping[str, str], most: int) -> list[web.RouteDef]:
    """The routes.

    Args:
        security: header fields of every answer.
        most: bytes of a request's content.
    """

    def answer(content: Any, status: int = 200, **fields: str) -> web.Response:
        return web.json_response(content, status=status, headers={**security, **fields})

    async def listed(_request: web.Request) -> web.Response:
        return answer({"blocks": operator.shown()})

    def posted(work: Callable[[bytes], Awaitable[dict[str, Any]]]) -> Handler:
        async def handle(request: web.Request) -> web.Response:
            if request.content_type != _JSON:
                return answer({"error": f"send it with 'content-type: {_JSON}'"}, 415)
            try:
                return answer(await work(await request.read()))
            except web.HTTPRequestEntityTooLarge:
                return answer({"error": f"at most {most} bytes"}, 413)
            except (Unclear, Refused) as error:
                return answer({"error": str(error)}, 400)
            except Busy as error:
                return answer({"error": str(error)}, 503, **{"Retry-After": "1"})

        return handle

    async def look(content: bytes) -> dict[str, Any]:
        return await operator.limits(content, reset=False)

    async def reset(content: bytes) -> dict[str, Any]:
        return await operator.limits(content, reset=True)

    return [
        web.get("/api/blocks", listed),
        web.post("/api/blocks", posted(operator.block)),
        web.post("/api/limits", posted(look)),
        web.post("/api/limits/reset", posted(reset)),
    ]
