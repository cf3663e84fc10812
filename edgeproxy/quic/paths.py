# Where the peer is and by which names both sides are called (RFC 9000 §5.1, §8.2, §9).
"""`Paths`: connection ids, migration and path validation of one connection."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from edgeproxy.quic import varint
from edgeproxy.quic.errors import CONNECTION_ID_LIMIT_ERROR, PROTOCOL_VIOLATION, TransportError
from edgeproxy.quic.packing import AGAIN, ONCE
from edgeproxy.quic.protection import TAG
from edgeproxy.quic.recovery import INITIAL_RTT, SMALLEST

if TYPE_CHECKING:
    from edgeproxy.quic.connection import Connection
    from edgeproxy.quic.established import Established

MAX_OWN_IDS = 4  # names we give the peer, at a time
MAX_GONE = 64
PROBE_AFTER = 64 * 1024  # bytes of stream data: who asks for less gains nothing
MAX_PROBES = 3
MAX_WAITING = 200  # frames that wait to be sent: who asks for more of them and acknowledges none must not fill our memory
MAX_PEER_IDS = 8  # names we take from it: active_connection_id_limit of our transport parameters
_UNLIMITED = 1 << 62


class Path:
    """An address of the peer.

    Attributes:
        received, sent: bytes, counted until the path is validated (§8.1: at most three times as many may go out).
        challenge: what must come back, b"" when nothing is open.
    """

    __slots__ = ("address", "challenge", "received", "sent", "validated")

    def __init__(self, address: tuple[str, int], *, validated: bool) -> None:
        self.address = address
        self.validated = validated
        self.received = 0
        self.sent = 0
        self.challenge = b""


class Paths:
    """See the module.

    Attributes:
        address: of the current path.
        other: the path of the packet that is being read, when it is not the current one.
        peer_id: what we call the peer.
        size: bytes of our largest datagrams on this path.
        until: when the validation of the current path is given up, 0.0 while none is open.
        outgoing: datagrams for other addresses: (datagram, address).
        probe: a datagram for this one that shares no system call with others, b"" without.
        probe_at: bytes of stream data after which it is worth to try larger datagrams.
        expand: the next packet is to be filled up to 1200 bytes: the path must prove that it takes them (§8.2.1, §8.2.2).
        moves: migrations so far.
    """

    __slots__ = (
        "_connection", "_current", "_gone", "_name", "_other_name", "_own", "_peer", "_peer_retired", "_peer_sequence", "_probes",
        "_sequence", "_validated", "address", "expand", "moves", "other", "outgoing", "peer_id", "probe", "probe_at", "size",
        "until",
    )  # fmt: skip

    def __init__(self, connection: Connection, made: Established) -> None:
        self._connection = connection
        self._current = Path(made.address, validated=True)
        self._validated = self._current  # where to go back to
        self.address = made.address
        self.other: Path | None = None
        self.outgoing: list[tuple[bytes, tuple[str, int]]] = []
        self.size = SMALLEST
        self.until = 0.0
        self.moves = 0
        self.probe = b""
        self.probe_at = PROBE_AFTER
        self._probes = 0
        self.expand = False
        self._own = dict(made.ids)
        self._sequence = max(made.ids) + 1
        self.peer_id = made.peer_id
        self._name = self._other_name = made.ids[0]
        self._peer_sequence = 0
        self._peer: dict[int, bytes] = {}
        self._peer_retired = 0
        self._gone: set[int] = set()  # numbers we have retired: they may be offered once more by a late packet

    # -- sending on the current path -------------------------------------------------------------------------------

    def allowance(self) -> int:
        """Bytes that may be sent now, as far as the address is known to be the peer's."""
        path = self._current
        return _UNLIMITED if path.validated else 3 * path.received - path.sent

    def sent(self, size: int) -> None:
        """A datagram went out."""
        if not self._current.validated:
            self._current.sent += size

    def begin_probe(self, sent: int, size: int) -> bool:
        """Whether to send a probe of a path's size now; the next one comes later, if at all (RFC 8899 §5.1.2: MAX_PROBES)."""
        self._probes += 1
        wanted = self.size < size and self._probes <= MAX_PROBES and self._current.validated
        self.probe_at = sent + PROBE_AFTER * 4 if wanted else _UNLIMITED
        return wanted

    def shrink(self) -> None:
        """The path does not take larger datagrams any more (RFC 8899 §4.3): the smallest, until another probe says otherwise."""
        recovery = self._connection.recovery
        self.size = recovery.size = SMALLEST
        recovery.holes = 0
        self.probe_at, self._probes = self._connection.data_sent + PROBE_AFTER * 4, 0  # bad luck must not be for ever

    def is_due(self, frame: bytes) -> bool:
        """A frame that got lost is worth to be sent again: all but a challenge to an address the peer has left."""
        return frame[:1] != b"\x1a" or frame[1:] == self._current.challenge

    # -- receiving -------------------------------------------------------------------------------------------------

    def arrived(self, data: bytes, address: tuple[str, int]) -> None:
        """An authentic packet came from an address."""
        self.other = None
        path = self._current
        if address == self.address:
            self._name = data[1:9]
            if not path.validated:
                path.received += len(data)
                self._connection.mark()  # three times as much may go out
            return
        last = self._validated
        if address == last.address and last is not path:
            self.other = last
        else:
            self.other = Path(address, validated=False)
            self.other.received = len(data)
        self._other_name = data[1:9]

    def settle(self, *, newest: bool, probing: bool, now: float) -> None:
        """The packet's frames are handled: has the peer moved (§9.3)?"""
        path, self.other = self.other, None
        if path is None or probing or not newest:
            return
        connection = self._connection
        if self._current.validated:
            self._validated = self._current
        same_host = path.address[0] == self.address[0]
        self._current = path
        self.address = path.address
        self.moves += 1
        self.size = connection.recovery.size = SMALLEST
        self.probe_at, self._probes = connection.data_sent + PROBE_AFTER, 0
        if not same_host:
            connection.recovery.moved(connection.next_number)
        if self._other_name != self._name and self._peer:
            # §9.5: the client took another name for us to move, so that its addresses can't be linked: we do the same.
            self._retire(self._peer_sequence)
            self._take_next()
        self._name = self._other_name
        self.until = 0.0
        if not path.validated:
            path.challenge = os.urandom(8)
            self.until = now + 3 * max(connection.recovery.pto(), 2 * INITIAL_RTT)
            self.expand = True
            control = connection.control
            for waiting in [waiting for waiting in control if waiting[0][:1] == b"\x1a"]:
                control.remove(waiting)  # of an address it has left: who moves with each packet must not fill our memory
            control.appendleft((b"\x1a" + path.challenge, connection, AGAIN))
        connection.mark()

    def challenged(self, token: bytes) -> None:
        """PATH_CHALLENGE: the answer goes where it came from (§8.2.2)."""
        connection = self._connection
        path = self.other
        if path is None:
            if len(connection.control) < MAX_WAITING:
                self.expand = True
                connection.control.append((b"\x1b" + token, connection, ONCE))
                connection.mark()
        elif len(self.outgoing) < 4 and (path.validated or 3 * path.received - path.sent >= SMALLEST):
            # §8.2.2: expanded to 1200 bytes, which is why one small datagram gets no answer.
            # §9.5: under a name that was not used on the path we are on; it is the one we take if the client moves there.
            name = self._peer[min(self._peer)] if self._peer else self.peer_id
            padding = bytes(SMALLEST - 9 - 3 - len(name) - TAG)
            datagram = connection.seal_alone(b"\x1b" + token + padding, name)
            path.sent += len(datagram)
            self.outgoing.append((datagram, path.address))
            connection.mark()

    def answered(self, token: bytes) -> None:
        """PATH_RESPONSE."""
        path = self._current
        if path.challenge and token == path.challenge:
            path.challenge = b""
            path.validated = True
            self._validated = path
            self.until = 0.0
            self._connection.mark()

    def take_outgoing(self) -> list[tuple[bytes, tuple[str, int]]]:
        """Datagrams for other addresses."""
        if not self.outgoing:
            return self.outgoing
        outgoing, self.outgoing = self.outgoing, []
        return outgoing

    def give_up(self) -> None:
        """The new address did not answer: back to the one that was known, if there is one (§9.3.2)."""
        self.until = 0.0
        if self._validated is self._current or not self._validated.validated:
            self._connection.vanish("path validation failed")
            return
        self._current = self._validated
        self.address = self._current.address
        self._connection.mark()

    # -- names -----------------------------------------------------------------------------------------------------

    def introduce(self, most: int) -> None:
        """Give the peer more names for us, as many as it takes."""
        while len(self._own) < min(most, MAX_OWN_IDS):
            self._issue()

    def _issue(self) -> None:
        connection = self._connection
        name, token = connection.host.new_id()
        if len(connection.control) > MAX_WAITING:
            raise TransportError(CONNECTION_ID_LIMIT_ERROR, "too many connection ids retired", 0x19)
        sequence = self._sequence
        self._sequence += 1
        self._own[sequence] = name
        connection.host.issued(connection, name)
        frame = b"\x18%b\0%c%b%b" % (varint.write(sequence), len(name), name, token)
        connection.control.append((frame, connection, AGAIN))
        connection.mark()

    def retired(self, sequence: int) -> None:
        """RETIRE_CONNECTION_ID: the peer does not use a name any more; it gets another one."""
        if sequence >= self._sequence:
            raise TransportError(PROTOCOL_VIOLATION, "a connection id that was never issued", 0x19)
        name = self._own.pop(sequence, None)
        if name is not None:
            self._connection.host.retired(name)
            self._issue()

    def offered(self, sequence: int, retire: int, name: bytes) -> None:
        """NEW_CONNECTION_ID: a name for the peer, and which of the old ones to forget (§19.15)."""
        peer = self._peer
        if not self.peer_id:
            raise TransportError(PROTOCOL_VIOLATION, "connection ids of a client that uses none", 0x18)  # §19.15
        if sequence in self._gone:
            return
        known = peer.get(sequence, name if sequence != self._peer_sequence else self.peer_id)
        if known != name:
            raise TransportError(PROTOCOL_VIOLATION, "two connection ids with one number", 0x18)
        if sequence < self._peer_retired:
            self._retire(sequence)
        elif sequence != self._peer_sequence:
            peer[sequence] = name
        if retire > self._peer_retired:
            self._peer_retired = retire
            for old in [old for old in peer if old < retire]:
                del peer[old]
                self._retire(old)
            if self._peer_sequence < retire:
                if not peer:
                    raise TransportError(PROTOCOL_VIOLATION, "no connection id is left", 0x18)
                self._retire(self._peer_sequence)
                self._take_next()
        if len(peer) + 1 > MAX_PEER_IDS:
            raise TransportError(CONNECTION_ID_LIMIT_ERROR, "more connection ids than we asked for", 0x18)

    def _take_next(self) -> None:
        self._peer_sequence = min(self._peer)
        self.peer_id = self._peer.pop(self._peer_sequence)

    def _retire(self, sequence: int) -> None:
        connection = self._connection
        self._gone.add(sequence)
        if len(self._gone) > MAX_GONE:
            self._gone.discard(min(self._gone))
        if len(connection.control) > MAX_WAITING:
            raise TransportError(CONNECTION_ID_LIMIT_ERROR, "too many connection ids to retire", 0x18)
        connection.control.append((b"\x19" + varint.write(sequence), connection, AGAIN))
        connection.mark()

    def clear(self) -> None:
        """The connection is over."""
        del self._connection

    @property
    def names(self) -> list[bytes]:
        """What the peer may call us."""
        return list(self._own.values())
