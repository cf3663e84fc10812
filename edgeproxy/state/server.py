# The embedded store's side of the socket: one Memory, many workers. It decides nothing; Memory does.
"""`StoreServer`, for the control process. Plain protocols: no task for a connection or a frame, one write for each read."""

from __future__ import annotations

import asyncio
import socket
from typing import Any, Final

import msgspec

from edgeproxy.state import wire
from edgeproxy.state.embedded import Clock, steady_clock
from edgeproxy.state.memory import Memory
from edgeproxy.state.ports import Admission, Quota

MAX_QUOTAS: Final = 4096  # of one connection: many reloads; then it begins anew
MAX_UNSENT: Final = 8 << 20  # bytes of answers that a worker does not read


class StoreServer:
    """See the module.

    Attributes:
        memory: what the workers share; those in the same process may use it directly, with `clock`.
    """

    __slots__ = ("_peers", "_server", "clock", "memory")

    def __init__(self, memory: Memory | None = None, clock: Clock | None = None) -> None:
        self.clock = clock or steady_clock()
        self.memory = Memory(self.clock()) if memory is None else memory  # an empty one is false
        self._peers: set[_Peer] = set()
        self._server: asyncio.Server | None = None

    async def start(self, listening: socket.socket) -> None:
        """Serves on a listening Unix stream socket."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(lambda: _Peer(self, self._peers), sock=listening)

    def close(self) -> None:
        """Ends all connections, and listens no more."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for peer in list(self._peers):
            peer.abort()


class _Peer(asyncio.Protocol):
    """One worker's connection."""

    def __init__(self, server: StoreServer, peers: set[_Peer]) -> None:
        self._memory = server.memory
        self._clock = server.clock
        self._peers = peers
        self._frames = wire.Frames()
        self._quotas: list[Quota] = []
        self._decode = wire.decoder(self._quotas).decode
        self._encode = msgspec.msgpack.Encoder().encode
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._peers.add(self)

    def connection_lost(self, _exc: Exception | None) -> None:
        self._peers.discard(self)

    def abort(self) -> None:
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        try:
            answers = [wire.frame(self._encode(self._run(self._decode(f)))) for f in self._frames.feed(data)]
        except (wire.WireError, msgspec.DecodeError, ValueError) as error:
            self._transport.abort()
            asyncio.get_running_loop().call_exception_handler({"message": f"embedded store: {error}"})
            return
        if answers:
            self._transport.write(b"".join(answers) if len(answers) > 1 else answers[0])
            if self._transport.get_write_buffer_size() > MAX_UNSENT:
                self._transport.abort()

    def _run(self, ops: list[wire.Op]) -> wire.Answers:
        memory, now = self._memory, self._clock()
        admissions: list[Admission] = []
        others: list[Any] = []
        for op in ops:
            kind = type(op)
            if kind is wire.Admit:
                admissions.append(memory.admit(op.charges, op.lease, now))  # type: ignore[union-attr]  # faster than a match
            elif kind is wire.Settle:
                memory.settle(op.changes, op.lease, now)  # type: ignore[union-attr]
            else:
                self._rarely(op, others, now)
        return wire.Answers(admissions, others)

    def _rarely(self, op: wire.Op, others: list[Any], now: int) -> None:
        memory = self._memory
        match op:
            case wire.Define():
                if len(self._quotas) >= MAX_QUOTAS:
                    raise wire.WireError("too many quotas on one connection")
                self._quotas.append(Quota(op.name, op.kind, op.limit, op.window, op.burst, op.mitigation))
            case wire.Prolong():
                memory.prolong(op.charges, op.lease, now)
            case wire.Peek():
                others.append(memory.peek(op.charges, now))
            case wire.Block():
                others.append(memory.block(op.key, op.ttl, now))
            case wire.Reset():
                memory.reset(op.charges)
                others.append(True)
            case wire.Get():
                others.append(memory.get(op.key, now))
            case wire.Put():
                others.append(memory.put(op.key, op.value, op.ttl, now, once=op.once))
