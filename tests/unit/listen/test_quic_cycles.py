# However a client's connection ends, nothing of it is left for the garbage collector: workers hardly ever let it run.
"""Reference cycles of QUIC sessions, connections, streams and HTTP/3 on them."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from support.h3_stand import head
from support.quic_listener import Client, Listening

GET = head(((b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"edge.test"), (b":path", b"/")))


@pytest.fixture
def collector() -> Iterator[None]:
    """Off, but for `garbage`."""
    gc.collect()
    gc.disable()
    yield
    gc.set_debug(0)
    gc.garbage.clear()
    gc.enable()


def garbage() -> Counter[str]:
    """What only the collector can free, of our own types."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    gc.collect()
    found = Counter(type(thing).__name__ for thing in gc.garbage if type(thing).__module__.startswith("edgeproxy"))
    gc.garbage.clear()
    gc.set_debug(0)
    return found


def left(client: Client) -> None:
    client.quic.close()
    client.talk()


def vanished(client: Client) -> None:
    client.listening.sweep(300.0)
    client.listening.sweep(300.0)


def asked_and_left(client: Client) -> None:
    client.quic.send_stream_data(0, GET, end_stream=True)
    client.talk()
    left(client)


def left_in_the_middle(client: Client) -> None:
    client.quic.send_stream_data(0, GET[:5])
    client.quic.send_stream_data(4, GET, end_stream=True)
    client.talk(2)
    left(client)


def broke_the_rules(client: Client) -> None:
    client.quic.send_stream_data(0, b"\0\1x", end_stream=True)  # DATA before HEADERS
    client.talk()


def drained(client: Client) -> None:
    client.listening.listener.drain()
    client.talk()
    client.listening.sweep(300.0)


def aborted(client: Client) -> None:
    client.listening.listener.abort()



ENDS: list[Callable[[Client], None]] = [
    left, vanished, asked_and_left, left_in_the_middle, broke_the_rules, drained, aborted,
]  # fmt: skip


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.usefixtures("collector")
def test_nothing_is_left_of_a_connection(end: Callable[[Client], None]) -> None:
    listening = Listening()
    client = Client(listening).talk()
    assert listening.stats.connections_open == 1
    end(client)
    listening.sweep(5.0)
    assert not listening.listener.sessions
    assert not garbage()


@pytest.mark.usefixtures("collector")
def test_nothing_is_left_of_a_handshake() -> None:
    listening = Listening()
    client = Client(listening)
    listening.feed(*client.first())
    assert listening.stats.half_open == 1
    vanished(client)
    assert not listening.listener.sessions
    assert not garbage()
