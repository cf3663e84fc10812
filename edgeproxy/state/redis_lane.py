# One server and the way to it: a link that is kept, a deadline on what is asked, a breaker, and what waits to be sent.
"""`Lane`: while its server answers, work is sent in batches; from the first failure on it is handed back at once.

Batches: what is asked in one round of the loop goes together. While a batch is on its way the next one gathers, so that at
saturation batches grow by themselves, and nothing waits for longer than one round trip.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Protocol

from edgeproxy.state.breaker import FIRST, LONGEST, Breaker
from edgeproxy.state.redis_batch import Give, Take
from edgeproxy.state.redis_dial import LOAD, SCRIPTS, Unreachable
from edgeproxy.state.redis_link import Call, Link, Refusal, command

FULL: Final = 64  # exchanges in a batch; with so many waiting, the next one does not wait for the one before
SILENCE: Final = 1.0  # seconds after which a link on which a probe gets no answer is given up
_GRACE: Final = 0.001  # seconds in which a reply may be read that came while the loop was busy
MOST_GIVES: Final = 65_536  # settlements that are kept for a server that is away; of more, the oldest are dropped
_PING: Final = command(b"PING")

Dial = Callable[[], Awaitable[tuple[Link, int]]]


class Owner(Protocol):
    """What a lane needs of the store."""

    def send(self, lane: Lane, takes: list[Take], gives: list[Give], since: float) -> None:
        """Make batches of all of it and send them by `lane.call`; the oldest has waited since then."""

    def hand_back(self, takes: list[Take]) -> None:
        """The server is not to be asked: decide without it."""

    def rise(self, lane: Lane) -> None:
        """The server answers (again)."""

    def fell(self, lane: Lane) -> None:
        """It does not answer any more."""

    def say(self, text: str) -> None:
        """For the log."""


class Lane:
    """See the module.

    Attributes:
        up: the server is asked.
        offset: µs to be added to the loop's time to have the server's, as of the last reply.
        breaker: says when it is asked again.
        gives: settlements that wait, also while it is not up.
        dropped: settlements that were given up (a counter).
    """

    __slots__ = (
        "_deadline",
        "_dial",
        "_flying",
        "_gone",
        "_keeper",
        "_link",
        "_loop",
        "_owner",
        "_probing",
        "_scheduled",
        "_since",
        "_takes",
        "_watch",
        "_watch_due",
        "breaker",
        "dropped",
        "gives",
        "label",
        "offset",
        "up",
    )

    def __init__(
        self, loop: asyncio.AbstractEventLoop, owner: Owner, label: str, dial: Dial, deadline: float
    ) -> None:
        self.label = label
        self.up = False
        self.offset = 0
        self.breaker = Breaker(loop.time())
        self._loop = loop
        self._owner = owner
        self._dial = dial
        self._deadline = deadline
        self._link: Link | None = None
        self.gives: list[Give] = []
        self.dropped = 0
        self._takes: list[Take] = []
        self._since = 0.0  # when the first of them came
        self._flying = 0  # batches whose reply may still come in time
        self._scheduled = False
        self._watch: asyncio.TimerHandle | None = None
        self._watch_due = 0.0
        self._probing: asyncio.TimerHandle | None = None
        self._gone = asyncio.Event()
        self._keeper = loop.create_task(self._keep())

    # Work

    def take(self, take: Take) -> None:
        """Send this with the next batch. Only while `up`."""
        takes = self._takes
        takes.append(take)
        if len(takes) == 1:
            self._since = self._loop.time()
            self._schedule()
        elif len(takes) >= FULL:
            self.flush()

    def give(self, give: Give) -> None:
        """Send this with the next batch, as soon as there can be one."""
        gives = self.gives
        gives.append(give)
        if self.up:
            if len(gives) == 1:
                self._schedule()
            elif len(gives) >= FULL:
                self.flush()
        elif len(gives) > MOST_GIVES:
            self.dropped += len(gives) // 8
            del gives[: len(gives) // 8]

    def _schedule(self) -> None:
        if not self._flying and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._on_round)

    def _on_round(self) -> None:
        self._scheduled = False
        self.flush()

    def flush(self) -> None:
        """Send what waits."""
        takes, gives = self._takes, self.gives
        if self.up and (takes or gives):
            self._takes, self.gives = [], []
            self._owner.send(self, takes, gives, self._since if takes else self._loop.time())

    def call(self, data: bytes, call: Call, since: float, *, extra: tuple[Call, ...] = ()) -> None:
        """Send a command now. Only while `up`.

        Args:
            since: from when the deadline runs.
            extra: what takes the replies to commands that stand before it in `data`.
        """
        self._flying += 1
        call.sent = since
        self._send(data, (*extra, call) if extra else (call,), since)

    def call_all(self, data: Sequence[bytes], calls: Sequence[Call], since: float) -> None:
        """As `call`, for several commands in one write."""
        self._flying += len(calls)
        for call in calls:
            call.sent = since
        self._send(b"".join(data), calls, since)

    def _send(self, data: bytes, calls: Sequence[Call], since: float) -> None:
        assert self._link is not None
        self._link.send(data, calls)
        due = since + self._deadline
        if self._watch is None or due < self._watch_due:
            self._arm(due, False)

    def _arm(self, due: float, looked: bool) -> None:
        if self._watch is not None:
            self._watch.cancel()
        self._watch_due = due
        self._watch = self._loop.call_at(due, self._on_deadline, looked)

    def again(self, data: bytes, call: Call) -> None:
        """Send it anew because the server has lost its scripts, with them. The deadline runs on."""
        assert self._link is not None
        self._flying += 1
        self._link.send(LOAD + data, (*(Skipped() for _ in SCRIPTS), call))

    def landed(self, call: Call) -> None:
        """To be said first by a call that got its reply. What has gathered meanwhile is sent before it is looked at."""
        if not call.late:
            self._flying -= 1
            if not self._flying and (self._takes or self.gives):
                self.flush()

    def time(self) -> int:
        """The server's time, in µs, as far as it is known."""
        return int(self._loop.time() * 1e6) + self.offset

    # Failure

    def _on_deadline(self, looked: bool) -> None:
        self._watch = None
        link = self._link
        if link is None or not self.up:
            return
        oldest = min((call.sent for call in link.calls if not call.late), default=None)
        if oldest is None:
            return
        due = oldest + self._deadline
        now = self._loop.time()
        if due > now:
            self._arm(due, False)
        elif not looked:  # the reply may lie in the socket: the loop was busy
            self._arm(now + _GRACE, True)
        else:
            self.fail(f"no answer in {self._deadline * 1000:g} ms")

    def fail(self, reason: str, *, hang_up: bool = False) -> None:
        """Decide everything without the server from now on, and see when it answers again.

        Args:
            hang_up: the connection is of no use: make a new one.
        """
        was, self.up = self.up, False
        self._flying = 0
        link = self._link
        if self.breaker.fail(self._loop.time()) or was:
            self._owner.say(f"{self.label}: {reason}; limits are decided without it")
            self._owner.fell(self)
        for call in tuple(link.calls) if link is not None else ():
            if not call.late:
                call.late = True
                call.overdue()
        takes, self._takes = self._takes, []
        if takes:
            self._owner.hand_back(takes)
        if hang_up and link is not None:
            link.abort()
        elif link is not None and self._probing is None:
            self._probing = self._loop.call_at(self.breaker.probe_at, self._probe)

    def _probe(self) -> None:
        self._probing = None
        if self._link is not None and not self.up:
            self._link.send(_PING, (Probe(self._loop.time(), self._on_probe),))
            self._probing = self._loop.call_later(SILENCE, self._on_silence)

    def _on_silence(self) -> None:
        self._probing = None
        if self._link is not None and not self.up:
            self._link.abort()

    def _on_probe(self, sent: float, reply: Any) -> None:
        if self._probing is not None:
            self._probing.cancel()
            self._probing = None
        now = self._loop.time()
        if isinstance(reply, Refusal):
            self.breaker.fail(now)
            self._probing = self._loop.call_at(self.breaker.probe_at, self._probe)
        elif now - sent > self._deadline:
            self._probing = self._loop.call_later(FIRST, self._probe)
        else:
            self._rise()

    def _rise(self) -> None:
        self.breaker.answered(self._loop.time())
        self.up = True
        self._owner.say(f"{self.label}: answers")
        self._owner.rise(self)
        self.flush()

    # The link

    async def _keep(self) -> None:
        delay, said = FIRST, ""
        while True:
            try:
                link, self.offset = await self._dial()
            except Exception as e:  # whatever a server says, or a name leads to: this goes on
                why = str(e) if isinstance(e, Unreachable) else f"{self.label}: {type(e).__name__}: {e}"
                if why != said:  # once, not with every attempt
                    said = why
                    self._owner.say(f"{why}; trying again")
                await asyncio.sleep(delay)
                delay = min(delay * 2, LONGEST)
                continue
            delay, said = FIRST, ""
            self._gone.clear()
            self._link = link
            link.watch(self._on_lost)
            if not self._gone.is_set():
                self._rise()
            await self._gone.wait()
            # A server that closes what it accepts must not be dialled in a circle.
            await asyncio.sleep(FIRST)

    def _on_lost(self) -> None:
        self.fail("the connection was closed")
        self._link = None
        self._stop(probing_only=True)
        self._gone.set()

    def _stop(self, *, probing_only: bool) -> None:
        if self._probing is not None:
            self._probing.cancel()
            self._probing = None
        if self._watch is not None and not probing_only:
            self._watch.cancel()
            self._watch = None

    def close(self) -> None:
        """Send what settles, hand back what asks, and hang up."""
        self._keeper.cancel()
        takes, self._takes = self._takes, []
        if takes:
            self._owner.hand_back(takes)
        link, up = self._link, self.up
        if up:
            self.flush()
            self.fail("closed")
        self._stop(probing_only=False)
        if link is not None:
            link.close(linger=up)


class Probe:
    """Asks whether the server answers."""

    __slots__ = ("_done", "late", "sent")

    def __init__(self, sent: float, done: Callable[[float, Any], None]) -> None:
        self.sent = sent
        self.late = True  # it is sent when the lane is down: no deadline runs on it
        self._done = done

    def answered(self, reply: Any) -> None:
        self._done(self.sent, reply)

    def overdue(self) -> None:
        """Its own timer says so (`_on_silence`)."""

    def lost(self) -> None:
        """The lane knows."""


class Skipped:
    """A reply that nobody reads."""

    __slots__ = ("late", "sent")

    def __init__(self) -> None:
        self.sent = 0.0
        self.late = True

    def answered(self, reply: Any) -> None:
        """See the class."""

    def overdue(self) -> None:
        """See the class."""

    def lost(self) -> None:
        """See the class."""
