# What is under way to a server: batches and single questions, and what becomes of their replies.
"""`Batch` and `Question`: the calls of a RedisStore (see redis_link.Call)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from edgeproxy.state.redis_batch import Give, Take, decode
from edgeproxy.state.redis_lane import Lane
from edgeproxy.state.redis_link import Refusal

if TYPE_CHECKING:
    from edgeproxy.state.redis import RedisStore


class Batch:
    """One EVALSHA under way; a `Call`."""

    __slots__ = ("_lane", "_store", "_tries", "gives", "late", "sent", "takes")

    def __init__(self, store: RedisStore, takes: list[Take], gives: list[Give]) -> None:
        self.takes = takes
        self.gives = gives
        self.late = False
        self.sent = 0.0
        self._store = store
        self._tries = 0
        self._lane: Lane

    def send(self, lane: Lane, since: float, *, prefix: bytes = b"", extra: tuple[Any, ...] = ()) -> None:
        """Send it; also again, if nothing of it was done.

        Args:
            since: from when the deadline runs.
        """
        lane.call(prefix + self.prepare(lane), self, since, extra=extra)

    def prepare(self, lane: Lane) -> bytes:
        """The command, for a lane that is to send it."""
        self._lane = lane
        self._store.stats.sent(len(self.takes))
        # Twice the deadline: what is a little late is undone when it is heard; this is for what is never heard.
        not_after = lane.time() + int(self._store.settings.deadline * 2e6)
        return self._store.packer.pack(self.takes, self.gives, not_after)

    def retry(self) -> bool:
        """Whether it may be sent once more."""
        self._tries += 1
        again = self._tries <= 2 and not self.late and self._lane.up
        self._store.stats.resent += again
        return again

    def answered(self, reply: Any) -> None:
        store, lane = self._store, self._lane
        lane.landed(self)
        if type(reply) is not bytes:
            self._refused(reply)
            return
        answer = decode(reply)
        lane.offset = answer[0] - int(store.loop.time() * 1e6)
        stats = store.stats
        stats.settles += len(self.gives)
        if answer[1]:  # the server looked at it too late, or our idea of its clock was wrong
            self.gives = []
            if not self.takes:
                return  # settlements are made, however late it is
            if self.retry():
                self.send(lane, self.sent)
            elif not self.late:
                self.late = True
                self.overdue()
            return
        if self.late:
            store.undo(answer, self.takes)
            return
        stats.answered(len(self.takes), store.loop.time() - self.sent)
        store.judged(answer, self.takes)

    def _refused(self, reply: Any) -> None:
        if not isinstance(reply, Refusal):
            reply = Refusal("ERR an answer that is none")
        if reply.word == "NOSCRIPT" and self.retry():
            self._lane.again(self.prepare(self._lane), self)
        else:
            self._store.refused(self._lane, self, reply)

    def overdue(self) -> None:
        self._store.stats.failures += 1
        self._store.hand_back(self.takes)

    def lost(self) -> None:
        if not self.late:
            self.late = True
            self.overdue()
        self._store.lose(self)


class Question:
    """A single command under way; a `Call`."""

    __slots__ = ("_done", "_store", "_tries", "data", "lane", "late", "sent")

    def __init__(self, store: RedisStore, lane: Lane, data: bytes, done: Callable[[Any], None]) -> None:
        self.data = data
        self.late = False
        self.sent = 0.0
        self._store = store
        self.lane = lane
        self._done = done
        self._tries = 0

    def answered(self, reply: Any) -> None:
        self.lane.landed(self)
        if self.late:
            return
        if isinstance(reply, Refusal):
            self._tries += 1
            if self._tries <= 2 and self.lane.up:
                if reply.word == "NOSCRIPT":
                    self.lane.again(self.data, self)
                    return
                if self._store.misdirected(self, reply):
                    return
            self._store.say(f"{self.lane.label}: {str(reply)[:200]}")
            reply = None
        self._done(reply)

    def overdue(self) -> None:
        self._done(None)

    def lost(self) -> None:
        if not self.late:
            self.overdue()
