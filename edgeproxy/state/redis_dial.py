# How a server is reached: connect, TLS, log in, choose the database, bring the scripts. It runs in the background.
"""`dial` opens one link that is ready for batches; `find` asks sentinels where the primary is; `ask` sends one command."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import ssl
from importlib.resources import files
from typing import Any, Final

from edgeproxy.state.redis_link import Link, Refusal, command
from edgeproxy.state.redis_url import Address, Login, Place, label

TIMEOUT: Final = 1.0  # seconds for a connection, with all that is said on it before it is ready


def _script(name: str) -> bytes:
    here = files("edgeproxy.state")
    return b"\n".join(here.joinpath(part).read_bytes() for part in ("units.lua", name))


SCRIPTS: Final = {name: _script(f"{name}.lua") for name in ("admit", "peek", "block", "reset", "list")}
SHA: Final = {name: hashlib.sha1(text, usedforsecurity=False).hexdigest().encode() for name, text in SCRIPTS.items()}
LOAD: Final = b"".join(command(b"SCRIPT", b"LOAD", text) for text in SCRIPTS.values())


class Unreachable(Exception):
    """A server that cannot be used; the text says which and why, without secrets."""


class Asked:
    """A call whose reply is awaited; only while connecting."""

    __slots__ = ("late", "reply", "sent")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.sent = loop.time()
        self.late = False
        self.reply: asyncio.Future[Any] = loop.create_future()

    def answered(self, reply: Any) -> None:
        if not self.reply.done():
            self.reply.set_result(reply)

    def overdue(self) -> None:
        """Nobody asks: a timeout stands around all of it."""

    def lost(self) -> None:
        if not self.reply.done():
            self.reply.set_result(Refusal("the connection was closed"))


async def ask(link: Link, *words: bytes) -> Any:
    """Send a command and wait. A Refusal is returned, not raised."""
    call = Asked(asyncio.get_running_loop())
    link.send(command(*words), (call,))
    return await call.reply


async def open_link(address: Address, login: Login, context: ssl.SSLContext | None) -> Link:
    """Connect and log in.

    Raises: Unreachable.
    """
    loop = asyncio.get_running_loop()
    host, port = address
    link = Link()
    try:
        async with asyncio.timeout(TIMEOUT):
            if port:
                transport, _ = await loop.create_connection(
                    lambda: link, host, port, ssl=context, server_hostname=host if context else None
                )
                raw = transport.get_extra_info("socket")
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            else:
                await loop.create_unix_connection(lambda: link, host)
            if login.password:
                words = [part.encode() for part in (login.user, login.password) if part]
                _expect(address, await ask(link, b"AUTH", *words))
    except BaseException as e:
        link.abort()
        if isinstance(e, TimeoutError):
            raise Unreachable(f"{label(address)}: no answer in {TIMEOUT:g} s") from None
        if isinstance(e, OSError):
            raise Unreachable(f"{label(address)}: {e.strerror or e}") from None
        raise
    return link


def _expect(address: Address, reply: Any) -> Any:
    if isinstance(reply, Refusal):
        raise Unreachable(f"{label(address)}: {reply}")
    return reply


async def dial(place: Place, address: Address, context: ssl.SSLContext | None) -> tuple[Link, int]:
    """Open a link to a server that takes writes.

    Returns: the link, and what is to be added to the loop's time in µs to have the server's.

    Raises: Unreachable.
    """
    link = await open_link(address, place.login, context)
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(TIMEOUT):
            if place.db:
                _expect(address, await ask(link, b"SELECT", b"%d" % place.db))
            role = _expect(address, await ask(link, b"ROLE"))
            if role[0] != b"master":
                raise Unreachable(f"{label(address)}: it is a {role[0].decode()}")
            for text in SCRIPTS.values():
                _expect(address, await ask(link, b"SCRIPT", b"LOAD", text))
            seconds, micros = _expect(address, await ask(link, b"TIME"))
            return link, int(seconds) * 1_000_000 + int(micros) - int(loop.time() * 1e6)
    except TimeoutError:
        link.abort()
        raise Unreachable(f"{label(address)}: no answer in {TIMEOUT:g} s") from None
    except BaseException:
        link.abort()
        raise


async def find(place: Place, context: ssl.SSLContext | None) -> Address:
    """Where the sentinels say that the primary is: the first of them that knows.

    Raises: Unreachable.
    """
    why = ""
    for sentinel in place.addresses:
        try:
            link = await open_link(sentinel, place.sentinel_login, context)
            try:
                async with asyncio.timeout(TIMEOUT):
                    found = await ask(link, b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", place.name.encode())
            finally:
                link.abort()
        except TimeoutError:
            why = f"{label(sentinel)}: no answer in {TIMEOUT:g} s"
        except Unreachable as e:
            why = str(e)
        else:
            if isinstance(found, list) and len(found) == 2:
                return found[0].decode(), int(found[1])
            why = f"{label(sentinel)}: {found or f'it watches no {place.name!r}'}"
    raise Unreachable(f"no sentinel could be asked; the last one, {why}")
