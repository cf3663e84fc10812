# Datagrams of nobody we know: a new client, one that has to prove its address, a colleague's, or somebody to turn away.
"""`Door`: who gets in (RFC 9000 §5.2.2, §6, §8.1, §10.3). Nothing here keeps anything about who does not."""

from __future__ import annotations

import ipaddress
import os
from typing import TYPE_CHECKING, NamedTuple

from aioquic.quic.packet import encode_quic_retry, encode_quic_version_negotiation

from edgeproxy.quic import varint
from edgeproxy.quic.errors import CONNECTION_REFUSED, INVALID_TOKEN
from edgeproxy.quic.handshake import Handshake
from edgeproxy.quic.headers import VERSIONS
from edgeproxy.quic.ids import ID_LENGTH, RetryTokens
from edgeproxy.quic.refusal import refusal

if TYPE_CHECKING:
    from edgeproxy.listen.quic import Endpoint, QuicListener
    from edgeproxy.listen.quic_session import Session
    from edgeproxy.quic.udp import Address, Local

SMALLEST_INITIAL = 1200  # bytes of a datagram with an Initial packet (RFC 9000 §14.1)
ANSWERS_PER_SECOND = 100  # stateless resets and refusals
_RESET_SIZE = 42  # bytes of a stateless reset: looks like a small packet (RFC 9000 §10.3)
_MIN_RESET = 22
_MAX_TOKEN = 200
_MAX_ID = 20  # bytes of a connection id in the versions we speak (RFC 9000 §17.2)


class Arrival(NamedTuple):
    """A datagram and how it came. `name`: its Destination Connection ID."""

    data: bytes
    name: bytes
    endpoint: Endpoint
    address: Address
    local: Local

    def answer(self, data: bytes) -> None:
        """Send something back."""
        self.endpoint.udp.send([data], self.address, self.local)


class Door:
    """See the module."""

    __slots__ = ("_answers", "_answers_at", "_listener", "_retrying", "_sources", "_tokens", "_unreadable", "_unreadable_at")

    def __init__(self, listener: QuicListener, secret: bytes) -> None:
        self._listener = listener
        self._tokens = RetryTokens(secret)
        self._sources: dict[str, int] = {}
        self._retrying = False
        self._answers = ANSWERS_PER_SECOND
        self._answers_at = 0.0
        self._unreadable = 0  # Initials of the last second that nobody can read: each costs as much as one that is good
        self._unreadable_at = 0.0

    def knock(self, arrival: Arrival, now: float, *, passed: bool) -> None:
        """A datagram for a connection id we do not know. `passed`: another worker gave it to us."""
        data, name = arrival.data, arrival.name
        listener = self._listener
        if not data or arrival.address[1] == 0:
            listener.stats.drop("malformed")
            return
        if data[0] & 0x80:
            version = int.from_bytes(data[1:5], "big")
            if version not in VERSIONS:
                self._negotiate(arrival, version)
                return
            kind = (data[0] >> 4) & 3 if version == VERSIONS[0] else ((data[0] >> 4) - 1) & 3
            if kind == 0:
                self._initial(arrival, version, now)
                return
        elif len(data) < ID_LENGTH + 1 or not data[0] & 0x40:
            listener.stats.drop("malformed")
            return
        owner = listener.seat.owner(name) if len(name) == ID_LENGTH and not passed else None
        if owner is not None:
            listener.pass_on(owner, arrival)
        elif not data[0] & 0x80:
            self._reset(arrival, now)
        else:
            listener.stats.drop("unknown_connection")

    def _negotiate(self, arrival: Arrival, version: int) -> None:
        """RFC 9000 §6. Version 0 is somebody's negotiation packet: no answer to an answer."""
        data, name = arrival.data, arrival.name
        at = 6 + len(name)
        if not version or len(data) < SMALLEST_INITIAL or len(data) < at + 1 or len(data) < at + 1 + data[at]:
            self._listener.stats.drop("version")
            return
        source = data[at + 1 : at + 1 + data[at]]
        self._listener.stats.version_negotiations += 1
        arrival.answer(
            encode_quic_version_negotiation(source_cid=name, destination_cid=source, supported_versions=list(VERSIONS))
        )

    def _initial(self, arrival: Arrival, version: int, now: float) -> None:
        """Somebody new, if all is well."""
        data, name = arrival.data, arrival.name
        stats = self._listener.stats
        if len(data) < SMALLEST_INITIAL or not ID_LENGTH <= len(name) <= _MAX_ID:
            stats.drop("initial_too_small")
            return
        try:
            at = 6 + len(name)
            source, at = data[at + 1 : at + 1 + data[at]], at + 1 + data[at]
            size, at = varint.read(data, at)
            token = data[at : at + size]
        except IndexError:
            stats.drop("malformed")
            return
        if len(source) > _MAX_ID:  # RFC 9000 §17.2: such a packet MUST be dropped
            stats.drop("malformed")
            return
        original = self._tokens.read(token, arrival.address, name, now) if 0 < size == len(token) <= _MAX_TOKEN else None
        if original is None and self._demands_proof(now):
            stats.retries += 1
            ours = self._listener.seat.new_id()
            token = self._tokens.make(arrival.address, name, ours, now)
            arrival.answer(
                encode_quic_retry(
                    version=version, source_cid=ours, destination_cid=source, original_destination_cid=name, retry_token=token
                )
            )
            return
        key = _source(arrival.address[0])
        reason = self._full(key)
        if original == b"":
            self._refuse(arrival, version, source, INVALID_TOKEN, "invalid_token", now)
        elif reason:
            self._refuse(arrival, version, source, CONNECTION_REFUSED, reason, now)
        else:
            self._admit(arrival, version, original, key, now)

    def _admit(self, arrival: Arrival, version: int, original: bytes | None, key: str, now: float) -> None:
        listener = self._listener
        handshake = Handshake(listener.terms(), listener.seat, arrival.address, arrival.name, version, original)
        self._sources[key] = self._sources.get(key, 0) + 1
        session = listener.admit(arrival.endpoint, handshake, arrival.local, key)
        try:
            session.receive(arrival.data, arrival.address, arrival.local, now)
        except Exception as error:
            session.crash(error)
        if handshake.is_unheard:
            # Anybody can send 1200 bytes that look like an Initial: they are no reason to remember anything.
            self._unreadable += 1
            session.fail("unreadable")
            session.forget()

    def left(self, session: Session) -> None:
        """A client is gone: its source may send another."""
        left = self._sources[session.source] - 1
        if left:
            self._sources[session.source] = left
        else:
            del self._sources[session.source]

    def _full(self, key: str) -> str:
        """Why nobody new from a source is let in, "" when that is not so."""
        listener = self._listener
        client = listener.gateway.snapshot.client
        if not listener.accepting:
            return "not_accepting"
        if len(listener.open) >= client.max_connections:
            return "max_connections"
        if self._sources.get(key, 0) >= client.h3.max_per_source:
            return "max_per_source"
        return ""

    def _refuse(self, arrival: Arrival, version: int, source: bytes, code: int, reason: str, now: float) -> None:
        """Tell the client at once, as long as they are not too many: the answer needs keys."""
        if not self._may_answer(now):
            self._listener.stats.drop(reason)
            return
        self._listener.gateway.stats.fault("edge", reason)
        arrival.answer(refusal(version, arrival.name, source, code))

    def _may_answer(self, now: float) -> bool:
        """Answers to strangers are bounded in number."""
        if now - self._answers_at >= 1.0:
            self._answers, self._answers_at = ANSWERS_PER_SECOND, now
        if not self._answers:
            return False
        self._answers -= 1
        return True

    def _demands_proof(self, now: float) -> bool:
        """Too many handshakes are half open, or begin with nonsense, to believe every address; on at the limit, off at half
        of it."""
        if now - self._unreadable_at >= 1.0:
            self._unreadable, self._unreadable_at = 0, now
        limit = self._listener.gateway.snapshot.client.h3.retry_at
        half_open = self._listener.stats.half_open + self._unreadable
        if half_open >= limit:
            self._retrying = True
        elif half_open < (limit + 1) // 2:
            self._retrying = False
        return self._retrying

    def _reset(self, arrival: Arrival, now: float) -> None:
        """RFC 9000 §10.3: a client talks to a connection that is lost. Shorter than what came: so it can't go on for ever."""
        listener = self._listener
        size = min(len(arrival.data) - 1, _RESET_SIZE)
        if size < _MIN_RESET or not self._may_answer(now):
            listener.stats.drop("unknown_connection")
            return
        listener.stats.resets_sent += 1
        noise = os.urandom(size - 16)
        arrival.answer(b"%c%b%b" % (0x40 | noise[0] & 0x3F, noise[1:], listener.seat.reset_token(arrival.name)))


def _source(host: str) -> str:
    """Who is counted together: an IPv4 address, an IPv6 network of 64 bits."""
    if ":" not in host or host.startswith("::ffff:"):
        return host
    return ipaddress.ip_address(host.partition("%")[0]).exploded[:19]
