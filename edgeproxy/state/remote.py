# The embedded store as a worker has it when there are several: over a Unix socket, one frame for each loop tick.
"""`RemoteStore`: the contract over a connection to a `StoreServer`.

Operations of one tick go out together; answers come in order. Everything that was sent has `deadline` seconds. When one frame
is late, or the connection ends, everything that waits is answered at once by the failure mode (fallback.py), and so is
whatever is asked until a probe was answered in time: a dead server costs one deadline in total. What the server admits
too late for anybody is given back. The connection is made again by itself.

Bounds: MAX_WAITING operations wait for answers; a settling that cannot be sent is dropped (its leases expire).
Over-admission: see fallback.py; the memory of the server is lost when it is started again, which adds one limit each time.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from edgeproxy.state import wire
from edgeproxy.state.breaker import Breaker
from edgeproxy.state.embedded import Clock, steady_clock
from edgeproxy.state.fallback import Fallback, Mode
from edgeproxy.state.memory import BLOB_SIZE, Memory
from edgeproxy.state.ports import Admission, Admitted, Change, Charge, Kind, Level, Quota
from edgeproxy.state.refusals import Refusals
from edgeproxy.state.shelf import Recent
from edgeproxy.state.stats import StoreStats

DEADLINE: Final = 0.025  # seconds
GRACE: Final = 0.002  # seconds of the deadline in which the loop is sure to have read what lay in the socket
MAX_WAITING: Final = 8192
MAX_UNSENT: Final = 1 << 20  # bytes in the socket's buffer above which settlings are dropped
MAX_QUOTAS: Final = 2048  # on one connection: then it is made anew (many reloads)
LOCAL_KEYS: Final = 50_000  # of the memory that `local` counts in
SETTLED: Final = 8192
_UNANSWERED: Final = (wire.Settle, wire.Prolong)

Done = Callable[[Any], None]
Waiting = tuple[Done, Any, Sequence[Charge] | None, bytes]
"""Whom to answer, what with if the store cannot be asked, and of an admission its charges and lease."""


class _Batch:
    """A frame that was sent."""

    __slots__ = ("given_up", "probe", "sent", "waiting")

    def __init__(self, sent: float, waiting: list[Waiting], *, probe: bool) -> None:
        self.sent = sent
        self.waiting = waiting
        self.probe = probe
        self.given_up = False  # all of it is answered


class RemoteStore(asyncio.Protocol):
    """See the module.

    Args:
        where: the server's path, or a connected socket (which is not connected again when it ends).
        shares: the number of workers.

    Attributes:
        late: operations that the failure mode answered, after they had waited.
        dropped: settlings, and leases to be prolonged, that could not be sent.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        where: str | socket.socket,
        mode: Mode,
        shares: int,
        clock: Clock | None = None,
        deadline: float = DEADLINE,
        stats: StoreStats | None = None,
    ) -> None:
        self.stats = stats or StoreStats()
        self._loop = loop
        self._where = where
        self._clock = clock or steady_clock()
        self._deadline = deadline
        self._fallback = Fallback(mode, shares, Memory(self._clock(), LOCAL_KEYS, 0), self._clock, self.stats)
        self._refusals = Refusals(self._fallback.last)
        self._settled = Recent(SETTLED)
        self._breaker = Breaker(loop.time())
        self.stats.watch = lambda: (1, 0) if self._breaker.closed else (0, 1)
        self._transport: Any = None
        self._connecting: asyncio.Task[Any] | None = None
        self._probing: asyncio.TimerHandle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._ready: asyncio.Future[None] | None = None
        self._closed = False
        self._ops: list[wire.Op] = []
        self._waiting: list[Waiting] = []
        self._blobs = 0  # bytes in _ops, and in the answers to them
        self._count = 0  # of all that waits
        self._sent: deque[_Batch] = deque()
        self._scheduled = False
        self._begin()
        self.late = 0
        self.dropped = 0

    @property
    def connected(self) -> bool:
        """Whether the server is asked (and not the failure mode)."""
        return self._breaker.closed

    async def start(self, within: float = 1.0) -> bool:
        """Connects; whether the server answered within this many seconds. If not, it is tried on."""
        self._ready = self._loop.create_future()
        self._probe()
        await asyncio.wait([self._ready], timeout=within)
        return self.connected

    # The contract

    def admit(self, charges: Sequence[Charge], lease: bytes, done: Admitted) -> None:
        known = self._refusals.check(charges, self._clock())
        if known is not None:
            self.stats.known += 1
            done(known)
        elif not self._breaker.closed or self._count >= MAX_WAITING:
            done(self._fallback.decide(charges, lease))
        else:
            self._ask(wire.Admit(wire.fitting(charges), lease), (done, None, charges, lease))

    def settle(self, changes: Sequence[Change], lease: bytes) -> None:
        if not self._settled.see(lease) or self._fallback.settle(changes, lease):
            return
        # What nobody charged (`open`) has no stamp.
        sent = wire.fitting_changes([change for change in changes if change.stamp])
        self._refusals.refunds(sent)
        if sent or not changes:
            self._settle(wire.Settle(sent, lease))

    def prolong(self, charges: Sequence[Charge], lease: bytes) -> None:
        held = [charge for charge in charges if charge.quota.kind == Kind.LEASES]
        if held and not self._fallback.prolong(held, lease):
            self._settle(wire.Prolong(wire.fitting(held), lease))

    def peek(self, charges: Sequence[Charge], done: Callable[[tuple[Level, ...] | None], None]) -> None:
        def levels(answer: Any) -> None:
            done(None if answer is None else tuple([Level(*level) for level in answer]))

        self._ask(wire.Peek(wire.fitting(charges)), (levels, None, None, b""))

    def block(self, key: bytes, ttl: int, done: Callable[[bool], None]) -> None:
        self._refusals.forget(key)
        self._ask(wire.Block(key, ttl), (done, False, None, b""))

    def reset(self, charges: Sequence[Charge], done: Callable[[bool], None]) -> None:
        for charge in charges:
            self._refusals.forget(charge.key)
        self._ask(wire.Reset(wire.fitting(charges)), (done, False, None, b""))

    def get(self, key: bytes, done: Callable[[bytes | None], None]) -> None:
        self._blobs += BLOB_SIZE  # of the answer, as far as is known
        self._ask(wire.Get(key), (done, None, None, b""))

    def put(self, key: bytes, value: bytes, ttl: int, *, once: bool, done: Callable[[bool], None]) -> None:
        if len(value) > BLOB_SIZE:
            done(False)
            return
        self._blobs += len(value)
        self._ask(wire.Put(key, value, ttl, once), (done, False, None, b""))

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._flush()  # settlings of this tick are still sent
        self._breaker.closed = False
        self._give_up()
        for handle in (self._timer, self._probing, self._connecting):
            if handle is not None:
                handle.cancel()
        if self._transport is not None:
            self._transport.close()

    # Sending

    def _ask(self, op: wire.Op, waiting: Waiting) -> None:
        if not self._breaker.closed or self._count >= MAX_WAITING:
            waiting[0](waiting[1])
            return
        self._count += 1
        self._ops.append(op)
        self._waiting.append(waiting)
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)
        elif len(self._ops) >= wire.MAX_OPS or self._blobs >= wire.FULL_FRAME:
            self._send()

    def _settle(self, op: wire.Settle | wire.Prolong) -> None:
        if self._closed or self._transport is None or self._transport.get_write_buffer_size() > MAX_UNSENT:
            self.dropped += 1
            return
        self._ops.append(op)
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        if self._ops:
            self._send()

    def _send(self, *, probe: bool = False) -> None:
        ops, waiting = self._ops, self._waiting
        self._ops, self._waiting, self._blobs = [], [], 0
        if self._transport is None:  # it was lost in this very tick, and then nothing waits
            self.dropped += len(ops)
            return
        now = self._loop.time()
        data = wire.frame(self._encode(ops))
        if self._undefined:
            data = self._define(now) + data
        self._sent.append(_Batch(now, waiting, probe=probe))
        self.stats.sent(sum([charges is not None for _, _, charges, _ in waiting]))
        self._transport.write(data)
        if self._timer is None and waiting:
            self._timer = self._loop.call_later(self._deadline - GRACE, self._is_late, False)

    def _begin(self) -> None:
        """A new connection: no quota is defined on it, and no byte has come."""
        self._frames = wire.Frames()
        self._numbers: dict[Quota, int] = {}
        self._undefined: list[Quota] = []
        self._encode = wire.encoder(self._number).encode
        self._second = False  # the probe under way follows one that was late

    def _number(self, quota: Quota) -> int:
        number = self._numbers.get(quota)
        if number is None:
            number = self._numbers[quota] = len(self._numbers)
            self._undefined.append(quota)
        return number

    def _define(self, now: float) -> bytes:
        ops = [wire.Define(q.name, q.kind, q.limit, q.window, q.burst, q.mitigation) for q in self._undefined]
        self._undefined = []
        self._sent.append(_Batch(now, [], probe=False))
        return wire.frame(self._encode(ops))

    # Answers

    def data_received(self, data: bytes) -> None:
        try:
            for payload in self._frames.feed(data):
                self._answer(wire.ANSWERS.decode(payload))
        except (wire.WireError, msgspec.DecodeError, IndexError) as error:
            self._complain(f"embedded store: {error}", None)
            self._transport.abort()
            return
        if not self._sent and len(self._numbers) >= MAX_QUOTAS:
            self._transport.abort()

    def _answer(self, answers: wire.Answers) -> None:
        batch = self._sent.popleft()
        if batch.probe:
            self._probed(batch)
        if not batch.given_up:
            self.stats.answered(len(answers.admissions), self._loop.time() - batch.sent)
        admissions, others = iter(answers.admissions), iter(answers.others)
        now = self._clock()
        for done, _, charges, lease in batch.waiting:
            answer = next(others if charges is None else admissions, None)
            if batch.given_up:
                if charges is not None and answer is not None and answer.allowed:
                    self.stats.undone += 1
                    self._refund(charges, answer, lease)
                continue
            self._count -= 1
            if charges is not None:
                if answer is None:
                    answer = self._fallback.decide(charges, lease)
                else:
                    self._fallback.note(charges, answer.verdicts, now)
                    if not answer.allowed:
                        self._refusals.learn(charges, answer.verdicts, now)
            self._call(done, answer)

    def _refund(self, charges: Sequence[Charge], admission: Admission, lease: bytes) -> None:
        """It was admitted too late: somebody else has decided by then."""
        pairs = zip(charges, admission.verdicts, strict=True)
        changes = [Change(c.quota, c.key, -1 if c.quota.kind == Kind.LEASES else -c.cost, v.stamp) for c, v in pairs]
        self._settle(wire.Settle(tuple(changes), lease))

    def _call(self, done: Done, answer: Any) -> None:
        try:
            done(answer)
        except Exception as error:  # the others are to be answered, too
            self._complain("the callback of a store's answer failed", error)

    # Failing, and recovering

    def _is_late(self, sure: bool) -> None:
        """The oldest frame may be late. Unless `sure`, what lies in the socket is read first: it may be us who are late."""
        self._timer = None
        oldest = next((batch for batch in self._sent if batch.waiting), None)
        if oldest is None:
            return
        left = oldest.sent + self._deadline - self._loop.time()
        if sure and left <= 0:
            self._fail()
        elif left <= GRACE:
            self._timer = self._loop.call_later(GRACE, self._is_late, True)
        else:
            self._timer = self._loop.call_later(left - GRACE, self._is_late, False)

    def _fail(self) -> None:
        self.stats.failures += 1
        self._breaker.fail(self._loop.time())
        self._give_up()
        self._arm()

    def _give_up(self) -> None:
        """Answers all that waits by the failure mode."""
        waiting = [w for batch in self._sent if not batch.given_up for w in batch.waiting]
        for batch in self._sent:
            batch.given_up = True
        if self._waiting:  # not even sent: settlings of this tick stay
            waiting += self._waiting
            self._ops = [op for op in self._ops if type(op) in _UNANSWERED]
            self._waiting = []
        self._count -= len(waiting)
        self.late += len(waiting)
        for done, otherwise, charges, lease in waiting:
            self._call(done, otherwise if charges is None else self._fallback.decide(charges, lease))

    def _arm(self) -> None:
        """The next probe, when the breaker wants it."""
        if self._probing is None and not self._closed:
            wait = max(self._breaker.probe_at - self._loop.time(), 0.0)
            self._probing = self._loop.call_later(wait, self._probe)

    def _probe(self) -> None:
        self._probing = None
        if self._closed or self._breaker.closed:
            return
        if self._transport is not None:
            if not any(batch.probe for batch in self._sent):
                self._send(probe=True)
        elif self._connecting is None or self._connecting.done():
            self._connecting = self._loop.create_task(self._connect())

    async def _connect(self) -> None:
        where = self._where
        try:
            if isinstance(where, str):
                await self._loop.create_unix_connection(lambda: self, where)
            else:
                await self._loop.create_unix_connection(lambda: self, sock=where)
        except OSError:
            self._breaker.fail(self._loop.time())
            self._arm()

    def _probed(self, batch: _Batch) -> None:
        now = self._loop.time()
        if now - batch.sent <= self._deadline:
            self._breaker.answered(now)
            if self._ready is not None and not self._ready.done():
                self._ready.set_result(None)
        elif not self._second:  # it was stopped, or has just begun to listen: it is there now
            self._second = True
            self._send(probe=True)
            return
        else:
            self._breaker.fail(now)
            self._arm()
        self._second = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._closed:
            transport.abort()  # type: ignore[attr-defined]  # a stream's transport
            return
        self._transport = transport
        self._begin()
        self._send(probe=True)

    def connection_lost(self, _exc: Exception | None) -> None:
        self._transport = None
        if self._closed:
            return
        self._breaker.fail(self._loop.time())  # first: who is answered now may ask again
        self._give_up()
        self._sent.clear()
        if isinstance(self._where, str):
            self._arm()

    def _complain(self, message: str, error: Exception | None) -> None:
        context: dict[str, Any] = {"message": message}
        if error is not None:
            context["exception"] = error
        self._loop.call_exception_handler(context)
