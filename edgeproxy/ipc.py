# What the processes say to each other, and how it is framed. No process is started here and no decision is made.
"""Messages between supervisor, workers and control, and their framing on Unix stream sockets.

A frame is ``!II`` (bytes of head, bytes of blob), the head (JSON of one of the structs below) and the blob: opaque
bytes for what is large (a configuration, a dump), so that an event loop parses only the small head and hands the rest
to a thread. File descriptors travel with the first byte of their frame (SCM_RIGHTS).

Supervisor ↔ child is a socketpair made before the fork. Worker ↔ control is a Unix socket in a directory that only this
user can enter (an abstract address would be open to every local user); the supervisor holds the listening end, so a
control that starts again finds the connections that were made meanwhile in its queue.
"""

from __future__ import annotations

import array
import collections
import os
import socket
import struct
from typing import Any, Final, Generic, NamedTuple, TypeVar

import msgspec

_PREFIX: Final = struct.Struct("!II")
MAX_HEAD: Final = 1 << 20
MAX_BLOB: Final = 64 << 20
MAX_FDS: Final = 64  # per frame; one slot's listening sockets
_READ: Final = 1 << 16
TICKET_KEYS: Final = 80  # bytes of TLS ticket keys in front of the configuration in a Prepare's blob


class IpcError(Exception):
    """The other side sent what is not a frame, or a frame over its bound. The connection is of no more use."""


class ChannelClosed(Exception):
    """The other side is gone."""


# Supervisor → worker


class Prepare(msgspec.Struct, tag="prepare", frozen=True):
    """Compile the configuration in the blob (TICKET_KEYS bytes, then JSON), keep it. Answer: Prepared or Failed."""

    generation: int


class Switch(msgspec.Struct, tag="switch", frozen=True):
    """Use the prepared configuration. Answer: Switched."""

    generation: int


class Forget(msgspec.Struct, tag="forget", frozen=True):
    """Drop the prepared configuration; no answer."""

    generation: int


class Lend(msgspec.Struct, tag="lend", frozen=True):
    """Listen on these sockets of another slot too (descriptors: first ``https`` of them, the rest http)."""

    slot: int
    https: int


class GiveBack(msgspec.Struct, tag="give-back", frozen=True):
    """That slot has its own worker again: stop listening on its sockets."""

    slot: int


class Reopen(msgspec.Struct, tag="reopen", frozen=True):
    """Open the access log and the events anew (they may have been rotated away)."""


class Drain(msgspec.Struct, tag="drain", frozen=True):
    """Accept no more, let streams finish, reset what is left after ``seconds``, exit. To control: fail readiness."""

    seconds: float


class Abort(msgspec.Struct, tag="abort", frozen=True):
    """Reset everything and exit."""


class Rekey(msgspec.Struct, tag="rekey", frozen=True):
    """Other keys of the edge, for the configuration that is in use: a KeyBook in the blob (JSON). No answer."""


ToWorker = Prepare | Switch | Forget | Lend | GiveBack | Reopen | Drain | Abort | Rekey


# Worker, control, keeper of keys → supervisor


class Ready(msgspec.Struct, tag="ready", frozen=True):
    generation: int


class Prepared(msgspec.Struct, tag="prepared", frozen=True):
    generation: int


class Switched(msgspec.Struct, tag="switched", frozen=True):
    generation: int


class Failed(msgspec.Struct, tag="failed", frozen=True):
    """The start (generation 0), or the preparation of that generation, failed for a reason that will not go away."""

    generation: int
    reason: str


class Seen(msgspec.Struct, tag="seen", frozen=True):
    """Control has taken in the State with this number: from now on /readyz answers by it."""

    number: int


class Keep(msgspec.Struct, tag="keep", frozen=True):
    """Control asks to have the blob (MessagePack of Kept) kept; the supervisor doesn't look into it."""


class Kept(msgspec.Struct, array_like=True):
    """What a Keep's blob holds: control's own, and all that is blocked, as a Blocked's blob has it. The supervisor gives it to
    the next control, and to workers: what is blocked holds from their first request, though control may be away."""

    own: bytes = b""
    blocks: bytes = b""


class KeysChanged(msgspec.Struct, tag="keys-changed", frozen=True):
    """Redis has other keys: a KeyBook in the blob (JSON)."""


class KeysLost(msgspec.Struct, tag="keys-lost", frozen=True):
    """Nobody knows whether the keys have changed since then (Unix time)."""

    since: float
    reason: str


class KeysFound(msgspec.Struct, tag="keys-found", frozen=True):
    """After KeysLost: Redis says what the keys are, again."""


ToSupervisor = Ready | Prepared | Switched | Failed | Seen | Keep | KeysChanged | KeysLost | KeysFound


# Supervisor → control


class ProcessState(msgspec.Struct, frozen=True):
    """``name`` as in metrics (``worker-0``); ``state``: starting, ready, back-off, draining, gone. ``served_by`` is the
    slot that listens on this slot's sockets, if any does."""

    name: str
    pid: int
    state: str
    generation: int
    served_by: int | None


class ReloadState(msgspec.Struct, frozen=True):
    result: str  # ok, failed
    at: float  # Unix time
    reason: str
    needs_restart: tuple[str, ...]


class KeysState(msgspec.Struct, frozen=True):
    """Keys that are in Redis. ``lost``: Unix time since when nobody knows whether they have changed; None: it is known."""

    lost: float | None
    updates: int  # other keys that came into use since the start


class State(msgspec.Struct, tag="state", frozen=True):
    """All that control needs to answer /readyz and the supervisor's metrics; sent whole whenever something changes."""

    number: int
    draining: bool
    started: bool  # every worker has been ready once
    generation: int
    workers: tuple[ProcessState, ...]
    supervisor: int  # pid
    restarts: dict[str, int]  # by kind: worker, control
    reloads: dict[str, int]  # by result
    last_reload: ReloadState | None
    keys: KeysState | None = None  # None: they are not in Redis


class Use(msgspec.Struct, tag="use", frozen=True):
    """This generation is in use; its configuration is the blob (JSON). What control explains by."""

    generation: int


ToControl = State | Use | Drain | Abort
ToKeeper = Drain | Abort


# Worker ↔ control


class Ask(msgspec.Struct, tag="ask", frozen=True):
    """Report now (somebody scrapes)."""

    number: int


class Blocked(msgspec.Struct, tag="blocked", frozen=True):
    """All that is blocked, in the blob (MessagePack of policy.blocks.Block): it takes the place of what was said before."""


class Look(msgspec.Struct, tag="look", frozen=True):
    """Look keys up in your own store (the blob is state/lookup.py's), or have it forget them. Answer: Looked."""

    number: int
    reset: bool


ToReporter = Ask | Blocked | Look


class Looked(msgspec.Struct, tag="looked", frozen=True):
    """The levels of a Look's keys, in the blob (MessagePack); ``done``: False when the store could not be asked."""

    number: int
    done: bool


class Report(msgspec.Struct, tag="report", frozen=True):
    """All counters of one worker since it began, in the blob (JSON of WorkerStats.dump()). ``incarnation`` is never
    used twice: a dump replaces the one before, a restarted worker adds to it. ``answers``: an Ask's number."""

    incarnation: str
    slot: int
    pid: int
    answers: int


FromReporter = Report | Looked

T = TypeVar("T")


class Message(NamedTuple, Generic[T]):
    head: T
    blob: bytes
    fds: list[int]


def encode(head: msgspec.Struct, blob: bytes = b"") -> bytes:
    """One frame. Raises IpcError if it is over its bounds."""
    data = msgspec.json.encode(head)
    if len(data) > MAX_HEAD or len(blob) > MAX_BLOB:
        raise IpcError(f"message of {len(data)} + {len(blob)} bytes is over the bound")
    return b"".join((_PREFIX.pack(len(data), len(blob)), data, blob))


class Decoder(Generic[T]):
    """Frames out of a byte stream cut anywhere. ``kinds`` is the union of structs that may arrive."""

    __slots__ = ("_buffer", "_head")

    def __init__(self, kinds: Any) -> None:
        self._buffer = bytearray()
        self._head: msgspec.json.Decoder[T] = msgspec.json.Decoder(kinds)

    def feed(self, data: bytes) -> list[tuple[T, bytes]]:
        """The frames that are complete now. Raises IpcError; then nothing that follows can be trusted."""
        buffer = self._buffer
        buffer += data
        messages: list[tuple[T, bytes]] = []
        start = 0
        while len(buffer) - start >= _PREFIX.size:
            head_size, blob_size = _PREFIX.unpack_from(buffer, start)
            if head_size > MAX_HEAD or blob_size > MAX_BLOB:
                raise IpcError(f"frame of {head_size} + {blob_size} bytes is over the bound")
            head_end = start + _PREFIX.size + head_size
            end = head_end + blob_size
            if len(buffer) < end:
                break
            try:
                head = self._head.decode(bytes(buffer[start + _PREFIX.size : head_end]))
            except (msgspec.DecodeError, UnicodeDecodeError) as e:
                raise IpcError(f"frame that can't be read: {e}") from e
            messages.append((head, bytes(buffer[head_end:end])))
            start = end
        del buffer[:start]
        return messages


class Channel(Generic[T]):
    """One end of a supervisor's socketpair: non-blocking, buffered both ways, knows no loop. Whoever owns the loop
    calls ``receive()`` when it is readable and ``flush()`` when it is writable and ``wants_write``."""

    __slots__ = ("_decoder", "_fds", "_out", "socket")

    def __init__(self, sock: socket.socket, kinds: Any) -> None:
        sock.setblocking(False)
        self.socket = sock
        self._decoder: Decoder[T] = Decoder(kinds)
        self._fds: collections.deque[int] = collections.deque()
        self._out: collections.deque[tuple[memoryview, tuple[int, ...]]] = collections.deque()

    @property
    def wants_write(self) -> bool:
        return bool(self._out)

    def fileno(self) -> int:
        return self.socket.fileno()

    def send(self, head: msgspec.Struct, blob: bytes = b"", fds: tuple[int, ...] = ()) -> None:
        """Sends, or keeps for flush(). Descriptors stay the caller's, and are duplicated so that it may close them.
        Raises ChannelClosed."""
        self._out.append((memoryview(encode(head, blob)), tuple(map(os.dup, fds))))
        self.flush()

    def flush(self) -> None:
        """Sends what the socket takes. Raises ChannelClosed."""
        while self._out:
            data, fds = self._out[0]
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
            try:
                sent = self.socket.sendmsg([data], rights)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as e:
                raise ChannelClosed(str(e)) from e
            for fd in fds:
                os.close(fd)
            if sent == len(data):
                self._out.popleft()
            else:
                self._out[0] = (data[sent:], ())

    def receive(self) -> list[Message[T]]:
        """All messages that are complete. Raises ChannelClosed, IpcError. The receiver owns the descriptors."""
        try:
            data, fds, _flags, _address = socket.recv_fds(self.socket, _READ, MAX_FDS)
        except (BlockingIOError, InterruptedError):
            return []
        except OSError as e:
            raise ChannelClosed(str(e)) from e
        self._fds.extend(fds)
        if not data:
            raise ChannelClosed("end of stream")
        # Only Lend carries descriptors, and the kernel ends a read at the frame they came with: what has arrived by the
        # time the frame is complete is that frame's.
        messages = []
        for head, blob in self._decoder.feed(data):
            taken: list[int] = []
            if isinstance(head, Lend):
                taken = list(self._fds)
                self._fds.clear()
            messages.append(Message(head, blob, taken))
        return messages

    def close(self) -> None:
        for _data, fds in self._out:
            for fd in fds:
                os.close(fd)
        self._out.clear()
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()
        self.socket.close()


def pair(parent_kinds: Any, child_kinds: Any) -> tuple[Channel[Any], Channel[Any]]:
    """A connected pair: the supervisor's end (receives ``parent_kinds``) and the child's."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    return Channel(ours, parent_kinds), Channel(theirs, child_kinds)
