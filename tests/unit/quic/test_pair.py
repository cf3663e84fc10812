# Ours against aioquic's client: transfers both ways arrive whole, whatever the network does to the packets.
"""quic/connection.py and quic/handshake.py against another implementation."""

from __future__ import annotations

import random
from typing import Any

import pytest
from aioquic.quic.events import ConnectionTerminated, StopSendingReceived, StreamDataReceived, StreamReset
from support.quic_pair import Network, Pair, client_configuration, terms

from edgeproxy.quic.established import Limits
from edgeproxy.quic.streams import Stream

CONTENT = random.Random(5).randbytes(1 << 18)


class Echo:
    """Answers each request with bytes of CONTENT, and waits when the stream is full.

    As every writer must, it writes first and asks then: who waits with nothing queued is never told to go on.
    """

    def __init__(self, pair: Pair, size: int) -> None:
        self.app = pair.app
        self.size = size
        self.sent: dict[int, int] = {}
        self.app.on_data = self.on_data
        self.app.writable = self.writable  # type: ignore[method-assign]
        self.fullest = 0

    def on_data(self, stream: Stream, data: bytes, fin: bool) -> None:
        if fin and not stream.id & 2:
            self.sent[stream.id] = 0
            self.writable(stream)

    def writable(self, stream: Stream) -> None:
        while True:
            at = self.sent[stream.id]
            chunk = CONTENT[at : min(at + 5000, self.size)]
            self.sent[stream.id] += len(chunk)
            done = self.sent[stream.id] == self.size
            stream.send(chunk, done)
            assert stream.connection is not None
            self.fullest = max(self.fullest, stream.connection.queued)
            if done:
                return
            if stream.is_full():
                stream.waiting = True
                return


def received(pair: Pair) -> dict[int, bytes]:
    got: dict[int, bytes] = {}
    for event in pair.events:
        if isinstance(event, StreamDataReceived):
            got[event.stream_id] = got.get(event.stream_id, b"") + event.data
    return got


def ended(pair: Pair) -> int:
    return sum(isinstance(event, StreamDataReceived) and event.end_stream for event in pair.events)


def transfer(pair: Pair, sizes: list[int], reply: int, *, most: float = 120.0) -> Echo:
    """Requests of some sizes, all at once, each answered with `reply` bytes."""
    echo = Echo(pair, reply)
    ids = []
    for size in sizes:
        stream_id = pair.client.get_next_available_stream_id()
        ids.append(stream_id)
        pair.client.send_stream_data(stream_id, CONTENT[:size], end_stream=True)
    pair._flush()
    pair.run(lambda: ended(pair) >= len(sizes), most=most)
    got = received(pair)
    for stream_id, size in zip(ids, sizes, strict=True):
        assert pair.app.data[stream_id] == CONTENT[:size]
        assert got[stream_id] == CONTENT[:reply]
    pair.run(lambda: not pair.connection.streams.busy, most=most)
    connection = pair.connection
    assert connection.queued == 0
    assert connection.data_received == connection.data_consumed == sum(sizes)
    return echo


@pytest.mark.parametrize("size", [1, 1199, 1200, 70_000, 1 << 18])
def test_clean(size: int) -> None:
    pair = Pair().handshake()
    transfer(pair, [size, size // 2 or 1], size)
    assert pair.connection.recovery.lost == 0
    assert pair.connection.recovery.probed == 0
    pair.rest(1.0)
    assert pair.connection.recovery.in_flight == 0
    assert pair.connection.timer_at() == 0.0


@pytest.mark.parametrize("seed", range(8))
def test_loss_reordering_and_repetition(seed: int) -> None:
    network = Network(seed, loss=0.1, repeat=0.1, jitter=0.02)
    pair = Pair(network).handshake()
    transfer(pair, [50_000, 1, 20_000], 60_000)
    pair.client.close()
    pair._flush()
    assert not any(isinstance(event, ConnectionTerminated) for event in pair.events)


@pytest.mark.parametrize("suite", range(3))
def test_half_of_everything_is_lost(suite: int) -> None:
    network = Network(suite, loss=0.4)
    made = client_configuration(idle_timeout=600.0)
    made.cipher_suites = [(made.cipher_suites or terms().configurations[1].cipher_suites)[suite]]  # type: ignore[index]  # a list
    offer = terms(Limits(idle=600.0))
    pair = Pair(network, offer=offer, configuration=made)
    pair.run(lambda: type(pair.state).__name__ == "Connection" and pair.client._handshake_confirmed, most=300.0)
    transfer(pair, [3000], 8000, most=600.0)


def test_small_windows() -> None:
    """Both sides have to grant more all the time."""
    limits = Limits(stream_window=4000, connection_window=6000)
    made = client_configuration(max_data=5000, max_stream_data=3000)
    pair = Pair(Network(3, loss=0.03), offer=terms(limits), configuration=made).handshake()
    echo = transfer(pair, [20_000, 15_000, 9000], 30_000)
    assert echo.fullest <= 3 * (64 * 1024 + 5000)


def test_many_streams() -> None:
    """More than are allowed at a time: the client has to be given credit."""
    pair = Pair(Network(4, loss=0.02), offer=terms(Limits(max_streams=10))).handshake()
    transfer(pair, [100] * 60, 700)
    assert pair.connection.streams.requests == 60


def test_a_black_out() -> None:
    pair = Pair(Network(7)).handshake()
    transfer(pair, [1000], 1000)
    echo = Echo(pair, 200_000)
    stream_id = pair.client.get_next_available_stream_id()
    pair.client.send_stream_data(stream_id, b"more", end_stream=True)
    pair._flush()
    pair.run(lambda: echo.sent.get(stream_id, 0) > 60_000)
    pair.network.quiet = True
    pair.rest(4.0)
    sent = len(pair.sizes[1])
    pair.rest(4.0)
    assert len(pair.sizes[1]) - sent <= 8, "probes become rare"
    pair.network.quiet = False
    pair.run(lambda: ended(pair) == 2, most=60.0)
    assert received(pair)[stream_id] == CONTENT[:200_000]


def test_the_client_moves_in_the_middle() -> None:
    pair = Pair(Network(9, loss=0.02)).handshake()
    echo = Echo(pair, 250_000)
    pair.client.send_stream_data(0, b"go", end_stream=True)
    pair._flush()
    for port in (6001, 6002, 6003):
        pair.run(lambda port=port: len(received(pair).get(0, b"")) > (port - 6000) * 50_000)
        pair.address = (pair.address[0], port)
        pair.client.change_connection_id()
        pair._flush()
    pair.run(lambda: ended(pair) == 1)
    assert received(pair)[0] == CONTENT[:250_000]
    assert pair.connection.paths.moves >= 3
    assert pair.connection.paths.address[1] == 6003
    assert echo.sent[0] == 250_000


def test_keys_are_updated_by_the_client() -> None:
    pair = Pair(Network(11, loss=0.05, jitter=0.02)).handshake()
    for turn in range(4):
        pair.client.request_key_update()
        transfer_one(pair, turn)
    assert pair.connection.protection.updates == 4


def test_keys_are_updated_by_us(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeproxy.quic.protection.UPDATE_AFTER", 60)
    pair = Pair(Network(12, loss=0.03)).handshake()
    for turn in range(4):
        transfer_one(pair, turn)
    assert pair.connection.protection.updates >= 2


def transfer_one(pair: Pair, turn: int) -> None:
    echo = Echo(pair, 60_000)
    stream_id = pair.client.get_next_available_stream_id()
    pair.client.send_stream_data(stream_id, b"x" * 3000, end_stream=True)
    pair._flush()
    pair.run(lambda: ended(pair) == turn + 1)
    assert received(pair)[stream_id] == CONTENT[:60_000]
    assert echo.sent[stream_id] == 60_000


def test_streams_are_given_up_by_either_side() -> None:
    pair = Pair(Network(13, loss=0.1)).handshake()
    for _ in range(3):
        stream_id = pair.client.get_next_available_stream_id()
        pair.client.send_stream_data(stream_id, bytes(2000))
    pair._flush()
    pair.run(lambda: len(pair.app.data) == 3)
    pair.client.reset_stream(0, 0x10C)
    pair.client.stop_stream(0, 0x10C)
    ours = pair.app.streams[4]
    ours.send(bytes(50_000), False)
    ours.reset(0x102)
    ours.stop(0x100)
    pair.app.streams[8].send(b"done", True)
    pair.client.send_stream_data(8, b"", end_stream=True)
    pair.connection.mark()
    pair._flush()
    pair.run(lambda: not pair.connection.streams.busy)
    assert pair.app.resets[0] == (0, 0x10C)
    assert (4, 0x100) in pair.app.resets, "the answer to STOP_SENDING"
    assert pair.app.stops == [(0, 0x10C)]
    pair.rest(1.0)
    seen: dict[str, Any] = {type(event).__name__: event for event in pair.events}
    assert isinstance(seen["StreamReset"], StreamReset)
    assert isinstance(seen["StopSendingReceived"], StopSendingReceived)
    assert pair.connection.queued == 0
    assert pair.connection.data_consumed == pair.connection.data_received


@pytest.mark.parametrize("ours", [True, False])
def test_the_end(ours: bool) -> None:
    pair = Pair().handshake()
    if ours:
        pair.connection.close(0x10A, "no more")
    else:
        pair.client.close(0x102, reason_phrase="no more")
    pair._flush()
    pair.rest(5.0)
    [event] = [event for event in pair.events if isinstance(event, ConnectionTerminated)]
    assert (event.error_code, event.reason_phrase) == (0x10A if ours else 0x102, "no more")
    assert pair.app.reasons == ["no more" if ours else "application error 0x102 no more"]
    assert not pair.connection.is_open
