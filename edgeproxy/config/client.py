# The section `client`: what a client may send, and how long it may take. Nothing here knows a protocol's code.
"""Pydantic models of `client`."""

from __future__ import annotations

from pydantic import Field, StrictInt

from edgeproxy.config.section import Section, count, duration, size
from edgeproxy.config.units import Duration, Size


class ClientTimeouts(Section):
    """How long a client may take."""

    handshake: Duration = duration("10s", "From accept to the end of the TLS handshake.")
    head: Duration = duration("10s", "From the first byte of a request head to its last, in total.")
    body: Duration = duration("60s", "Between two reads of a request body.")
    idle: Duration = duration("60s", "Keep-alive: between two requests of a connection.")
    preview: Duration = duration("60s", "In total, for what is held of a request body before deciding; over it 408.")
    write: Duration = duration("60s", "Without progress while the client does not read its answer.")


class ClientH2(Section):
    """HTTP/2 towards clients (RFC 9113)."""

    max_streams: StrictInt = count(100, "Concurrent streams of a connection.", most=10_000)
    stream_window: Size = size("64KiB", "Flow-control window of a stream, on request bodies.", least="1KiB", most="1GiB")
    connection_window: Size = size("1MiB", "Flow-control window of a connection.", least="65535B", most="1GiB")
    reset_burst: StrictInt = count(100, "Streams a client may reset at once before the connection is closed.")
    reset_rate: StrictInt = count(2, "Resets a second that are forgiven again.")


class ClientH3(Section):
    """HTTP/3 towards clients (RFC 9000, RFC 9114)."""

    max_streams: StrictInt = count(100, "Concurrent requests of a connection.", most=10_000)
    stream_window: Size = size("256KiB", "Flow-control window of a stream, on request bodies.", least="1KiB", most="1GiB")
    connection_window: Size = size("1MiB", "Flow-control window of a connection.", least="64KiB", most="1GiB")
    retry_at: StrictInt = count(
        100,
        "Unfinished handshakes of one worker from which on a client has to prove its address (Retry) first; 0: always.",
        least=0,
    )
    max_per_source: StrictInt = count(200, "Connections of one worker from one IPv4 address, or one IPv6 network of 64 bits.")
    max_bodies: Size = size("64MiB", "Request content that one worker holds, over all its h3 connections.", least="1MiB")
    max_datagram: Size = size("1350B", "The largest UDP payload that is sent.", least="1200B", most="1452B")


class Client(Section):
    """Bounds on what clients send."""

    max_head: Size = size("32KiB", "Request line and headers together; over it 431.", least="1KiB", most="1MiB")
    max_headers: StrictInt = count(100, "Header lines; over it 431.", most=10_000)
    max_url: Size = size("16KiB", "The request target; over it 414.", least="256B", most="1MiB")
    max_body: Size = size("10MiB", "The request body, unless its route says otherwise; over it 413.")
    buffer: Size = size(
        "64KiB",
        "What is held of one direction of a stream before the other side is paused.",
        least="4KiB",
        most="16MiB",
    )
    max_connections: StrictInt = count(10000, "Open client connections of one worker.")
    previews: Size = size(
        "256MiB", "Bytes of request bodies that one worker holds to decide; over it 503, for the largest.", least="1MiB"
    )
    timeouts: ClientTimeouts = Field(default_factory=ClientTimeouts, description="How long a client may take.")
    h2: ClientH2 = Field(default_factory=ClientH2, description="HTTP/2 towards clients.")
    h3: ClientH3 = Field(default_factory=ClientH3, description="HTTP/3 towards clients.")
