"""Streams of one HTTP/2 connection to the edge, frame by frame: what RST_STREAM does, and what it must not do."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import h2.config
import h2.connection
import h2.events
import pytest
from running import Backend, Edge, until

ASK = {"model": "edge-demo", "messages": [{"role": "user", "content": "Hello"}]}


class Client:
    """A blocking HTTP/2 client: requests go out at once, answers are collected by stream."""

    def __init__(self, edge: Edge) -> None:
        context = edge.tls()
        context.set_alpn_protocols(["h2"])
        self.authority = f"localhost:{edge.https}"
        plain = socket.create_connection(("127.0.0.1", edge.https), timeout=10)
        self.socket = context.wrap_socket(plain, server_hostname="localhost")
        assert self.socket.selected_alpn_protocol() == "h2"
        self.connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.connection.initiate_connection()
        self.status: dict[int, str] = {}
        self.data: dict[int, bytes] = {}
        self.ended: set[int] = set()
        self.flush()

    def flush(self) -> None:
        self.socket.sendall(self.connection.data_to_send())

    def post(self, path: str, body: object) -> int:
        stream: int = self.connection.get_next_available_stream_id()
        head = [(":method", "POST"), (":scheme", "https"), (":authority", self.authority), (":path", path)]
        self.connection.send_headers(stream, head)
        self.connection.send_data(stream, json.dumps(body).encode(), end_stream=True)
        self.data[stream] = b""
        self.flush()
        return stream

    def reset(self, stream: int) -> None:
        self.connection.reset_stream(stream, 8)  # CANCEL
        self.flush()

    def receive(self) -> None:
        """Whatever comes next."""
        received = self.socket.recv(65536)
        assert received, "the edge closed the connection"
        for event in self.connection.receive_data(received):
            if isinstance(event, h2.events.ResponseReceived):
                fields: list[Any] = list(event.headers)
                self.status[event.stream_id] = dict(fields)[":status"]
            elif isinstance(event, h2.events.DataReceived):
                self.data[event.stream_id] += event.data
                self.connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                self.ended.add(event.stream_id)
            assert not isinstance(event, h2.events.ConnectionTerminated | h2.events.StreamReset), event
        self.flush()


@pytest.fixture
def client(edge: Edge) -> Iterator[Client]:
    made = Client(edge)
    with made.socket:
        yield made


def test_a_reset_stops_the_backend_and_no_other_stream(client: Client, backend: Backend) -> None:
    before = backend.counters()
    leaves = client.post("/v1/chat/completions", {**ASK, "stream": True})
    stays = client.post("/v1/chat/completions", {**ASK, "stream": True, "max_tokens": 30})
    while client.data[leaves].count(b"data: ") < 3 or not client.data[stays]:
        client.receive()
    client.reset(leaves)
    until(lambda: backend.counters()["cancelled"] == before["cancelled"] + 1, 1.0)
    while stays not in client.ended:
        client.receive()
    assert client.data[stays].endswith(b"data: [DONE]\n\n")
    assert client.data[stays].count(b"data: ") == 30 + 3
    assert backend.counters()["cancelled"] == before["cancelled"] + 1


def test_a_reset_before_the_first_byte_stops_the_backend(client: Client, backend: Backend) -> None:
    before = backend.counters()
    stream = client.post("/v1/messages", {**ASK, "max_tokens": 500})
    until(lambda: backend.counters()["active"] == 1, 2.0)
    assert client.data[stream] == b"" and stream not in client.status
    client.reset(stream)
    until(lambda: backend.counters()["cancelled"] == before["cancelled"] + 1, 1.0)
    again = client.post("/v1/messages", {**ASK, "model": "edge-demo-instant", "max_tokens": 5})
    while again not in client.ended:
        client.receive()
    assert client.status[again] == "200"  # the connection is as good as before


def test_many_streams_at_once(client: Client) -> None:
    streams = [client.post("/v1/chat/completions", {**ASK, "stream": True, "max_tokens": 10}) for _ in range(50)]
    while not client.ended.issuperset(streams):
        client.receive()
    assert {client.status[stream] for stream in streams} == {"200"}
    assert all(client.data[stream].endswith(b"data: [DONE]\n\n") for stream in streams)
