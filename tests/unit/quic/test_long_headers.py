# Where the long headers of a datagram end, whatever stands in it; and the one packet for those who are not let in.
"""quic/headers.py and quic/refusal.py."""

from __future__ import annotations

import os

import pytest
from aioquic.quic.connection import QuicConnection
from hypothesis import given, settings
from hypothesis import strategies as st
from support.quic_pair import client_configuration

from edgeproxy.quic.headers import VERSIONS, long_headers
from edgeproxy.quic.refusal import refusal
from edgeproxy.quic.varint import write


def long_packet(number: int, kind: int, body: bytes, token: bytes = b"") -> bytes:
    first = 0xC0 | (kind if number == VERSIONS[0] else (kind + 1) & 3) << 4
    extra = write(len(token)) + token if kind == 0 else b""
    return bytes((first,)) + number.to_bytes(4, "big") + b"\x08original\x05five5" + extra + write(len(body)) + body


@given(
    st.lists(st.tuples(st.sampled_from(VERSIONS), st.sampled_from([0, 1, 2]), st.binary(max_size=200), st.binary(max_size=70)),
             max_size=4), st.binary(max_size=60), st.booleans(),
)  # fmt: skip
@settings(max_examples=200, deadline=None)
def test_where_long_headers_end(packets: list[tuple[int, int, bytes, bytes]], tail: bytes, short: bool) -> None:
    head = b"".join(long_packet(*packet) for packet in packets)
    rest = (b"\x41" if short else b"\x01") + tail
    assert long_headers(head + rest) == (len(head) if short else len(head + rest))
    assert long_headers(head) == len(head)


@given(st.binary(max_size=100), st.integers(0, 60))
@settings(max_examples=300, deadline=None)
def test_garbage_ends_somewhere(noise: bytes, at: int) -> None:
    packet = long_packet(VERSIONS[0], 0, b"body", b"token")
    for data in (noise, b"\x80" + noise, packet[:at] + noise, packet + b"\xc0" + noise):
        end = long_headers(data)
        assert 0 <= end <= len(data)
        assert end == len(data) or data[end] & 0xC0 == 0x40


def test_retry_and_strange_versions_take_all() -> None:
    assert long_headers(b"\xf0\0\0\0\x01\x08original\0" + b"@" * 40) == 55
    assert long_headers(b"\xc0\x1a\x2a\x3a\x4a\x08original\0" + b"@" * 40) == 55


# -- refusal.py ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", VERSIONS)
@pytest.mark.parametrize("code", [0x02, 0x0B])
def test_a_refusal_is_understood(number: int, code: int) -> None:
    made = client_configuration()
    made.original_version = number
    made.supported_versions = [number]
    client = QuicConnection(configuration=made)
    client.connect(("192.0.2.1", 443), now=1.0)
    [(data, _), *_] = client.datagrams_to_send(now=1.0)
    answer = refusal(number, data[6 : 6 + data[5]], client.host_cid, code)
    assert len(answer) <= len(data)
    client.receive_datagram(answer, ("192.0.2.1", 443), now=1.1)
    assert client._close_event is not None
    assert client._close_event.error_code == code
    other = refusal(number, os.urandom(8), client.host_cid, code)
    assert other != answer
