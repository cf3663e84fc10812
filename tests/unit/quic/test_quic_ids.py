# Names and tokens: what one worker made, any worker can read; what was changed, none does.
"""quic/ids.py, quic/passing.py and quic/hello.py."""

from __future__ import annotations

import os
import socket
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.quic import hello, passing
from edgeproxy.quic.ids import ID_LENGTH, TOKEN_LIFETIME, RetryTokens, Seat

SECRET = bytes(range(32))
ADDRESS = ("192.0.2.1", 1234)
ORIGINAL, SOURCE = b"original", b"\0\1source"
TOKENS = RetryTokens(SECRET)


def seats(count: int) -> list[Seat]:
    outboxes = cast("list[socket.socket]", [f"outbox {index}" for index in range(count)])
    return [Seat(index, 300 + index, SECRET, None, outboxes) for index in range(count)]


def test_an_id_names_its_worker() -> None:
    workers = seats(4)
    for worker in workers:
        names = {worker.new_id() for _ in range(100)}
        assert len(names) == 100
        for name in names:
            assert len(name) == ID_LENGTH
            assert name[:2] == bytes(((300 + worker.index) & 0xFF, worker.index))
            for other in workers:
                owner: Any = other.owner(name)
                assert owner == (None if other is worker else f"outbox {worker.index}")


def test_an_id_of_nobody() -> None:
    worker = seats(3)[0]
    for slot in (3, 4, 255):
        assert worker.owner(bytes((0, slot)) + bytes(6)) is None
    assert Seat.single().owner(bytes((0, 9)) + bytes(6)) is None


def test_reset_tokens_are_the_same_in_all_workers() -> None:
    one, other = seats(2)
    name = one.new_id()
    assert one.reset_token(name) == other.reset_token(name)
    assert len(one.reset_token(name)) == 16
    assert one.reset_token(name) != one.reset_token(one.new_id())
    assert Seat.single().reset_token(name) != Seat.single().reset_token(name)


def test_a_token_is_good_for_its_client() -> None:
    token = TOKENS.make(ADDRESS, ORIGINAL, SOURCE, 100.0)
    assert RetryTokens(SECRET).read(token, ADDRESS, SOURCE, 100.0) == ORIGINAL
    assert TOKENS.read(token, ADDRESS, SOURCE, 100.0 + TOKEN_LIFETIME) == ORIGINAL
    assert TOKENS.read(token, ADDRESS, SOURCE, 100.1 + TOKEN_LIFETIME) == b""
    assert TOKENS.read(token, ADDRESS, SOURCE, 99.0) == b"", "made in the future"
    assert TOKENS.read(token, ("192.0.2.1", 1235), SOURCE, 101.0) is None
    assert TOKENS.read(token, ("192.0.2.2", 1234), SOURCE, 101.0) is None
    assert TOKENS.read(token, ADDRESS, ORIGINAL, 101.0) == b""
    assert RetryTokens(os.urandom(32)).read(token, ADDRESS, SOURCE, 101.0) is None
    assert TOKENS.make(ADDRESS, ORIGINAL, SOURCE, 100.0) != token


@given(st.binary(min_size=8, max_size=20), st.binary(min_size=8, max_size=20))
def test_ids_of_any_length(original: bytes, source: bytes) -> None:
    token = TOKENS.make(ADDRESS, original, source, 5.0)
    assert TOKENS.read(token, ADDRESS, source, 5.0) == original
    assert len(token) <= 200, "what the listener reads"


@given(st.binary(max_size=120))
def test_garbage_is_no_token(token: bytes) -> None:
    assert TOKENS.read(token, ADDRESS, SOURCE, 1.0) is None


@given(st.integers(0, 72), st.integers(0, 7))
def test_a_changed_token_is_none(position: int, bit: int) -> None:
    token = bytearray(TOKENS.make(ADDRESS, ORIGINAL, SOURCE, 1.0))
    position = min(position, len(token) - 1)
    token[position] ^= 1 << bit
    assert TOKENS.read(bytes(token), ADDRESS, SOURCE, 1.0) is None
    assert TOKENS.read(bytes(token[:position]), ADDRESS, SOURCE, 1.0) is None


# -- passing.py ------------------------------------------------------------------------------------------------------

HOSTS = st.one_of(st.ip_addresses().map(str), st.just("fe80::1%a-rather-long-interface"))
LOCALS = st.one_of(st.none(), st.tuples(st.integers(0, 1000), st.integers(0, 1000), st.binary(min_size=1, max_size=40)))


@given(st.integers(0, 255), st.binary(max_size=2000), HOSTS, st.integers(0, 65535), LOCALS)
def test_a_datagram_is_passed_on_whole(index: int, data: bytes, host: str, port: int, local: Any) -> None:
    message = passing.pack(index, data, (host, port), local)
    assert passing.unpack(message) == (index, data, (host, port), local)
    assert len(message) <= len(data) + 100


# -- hello.py --------------------------------------------------------------------------------------------------------


def client_hello(extensions: list[tuple[int, bytes]]) -> bytes:
    listed = b"".join(kind.to_bytes(2, "big") + len(body).to_bytes(2, "big") + body for kind, body in extensions)
    rest = bytes(34) + b"\x03sid" + b"\0\x02\x13\x01" + b"\x01\0" + len(listed).to_bytes(2, "big") + listed
    return b"\x01" + len(rest).to_bytes(3, "big") + rest


def name_extension(name: bytes, kind: int = 0) -> bytes:
    entry = bytes((kind,)) + len(name).to_bytes(2, "big") + name
    return len(entry).to_bytes(2, "big") + entry


@pytest.mark.parametrize(("extensions", "name", "early"), [
    ([(0, name_extension(b"Edge.Test"))], "edge.test", False),
    ([(16, b"\0\x03\x02h3"), (0, name_extension(b"a.b")), (42, b"")], "a.b", True),
    ([(42, b"")], "", True),
    ([], "", False),
    ([(0, name_extension(b"x", kind=1))], "", False),
    ([(0, b"")], "", False),
    ([(0, b"\0\x03\0\0")], "", False),
    ([(0, name_extension("ü".encode()))], "", False),
])  # fmt: skip
def test_hellos(extensions: list[tuple[int, bytes]], name: str, early: bool) -> None:
    message = client_hello(extensions)
    assert hello.server_name(message) == name
    assert hello.offers_early_data(message) is early
    assert list(hello.extensions(message)) == extensions
    for end in range(len(message)):
        cut = message[:end]
        assert list(hello.extensions(cut)) == extensions[: len(list(hello.extensions(cut)))]
        assert hello.server_name(cut) in {"", name}
        hello.offers_early_data(cut)


@given(st.binary(max_size=200), st.integers(0, 80))
def test_garbage_never_raises(data: bytes, at: int) -> None:
    message = client_hello([(0, name_extension(b"edge.test")), (42, b"")])
    for hostile in (data, message[:at] + data, message[:at] + data + message[at + len(data) :]):
        list(hello.extensions(hostile))
        assert isinstance(hello.server_name(hostile), str)
        hello.offers_early_data(hostile)
