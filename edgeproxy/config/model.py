# The configuration as data: every key, its type, default and bound. One key's validity is decided here; what concerns
# several keys is in checks.py, what concerns the disk in certificates.py.
"""Pydantic models of the configuration file. Durations are float seconds, sizes int bytes; everything is frozen.

The field descriptions are the reference: the JSON Schema carries them, and a test holds docs/configuration.md
against them.
"""

from __future__ import annotations

import os
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    StrictBool,
    StrictInt,
    StrictStr,
    WithJsonSchema,
)

from edgeproxy.config import names
from edgeproxy.config.keys import OptionalKeys, OptionalUpstreamKey
from edgeproxy.config.names import Address
from edgeproxy.config.problems import Invalid
from edgeproxy.config.units import Age, Duration, OptionalDuration, Size, Wait, describe, parse_duration, parse_size
from edgeproxy.rules.model import RuleFiles, RulesKey

__all__ = [
    "AccessLog", "Address", "Certificate", "Client", "ClientH2", "ClientH3", "ClientTimeouts", "Config",
    "Geo", "Hsts", "Listen", "Route", "Target", "Tls", "Upstream", "UpstreamTimeouts",
]  # fmt: skip


def _duration(default: str, description: str) -> Any:
    return Field(default=parse_duration(default), description=description, json_schema_extra={"default": default})


def _size(default: str, description: str, *, least: str = "0B", most: str = "1TiB") -> Any:
    return Field(
        default=parse_size(default),
        ge=parse_size(least),
        le=parse_size(most),
        description=description,
        json_schema_extra={"default": default},
    )


def _count(default: int, description: str, *, least: int = 1, most: int = 1_000_000) -> Any:
    return Field(default=default, ge=least, le=most, description=description)


def _as_list(value: Any) -> Any:
    """One item may stand without its list."""
    return [value] if isinstance(value, str | int | Address) else value


def _workers(value: Any) -> Any:
    if value == "auto":
        # The cores this process may use: fewer than the machine has under taskset, cpusets and most containers.
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if isinstance(value, str) and not value[:1].isdigit():
        raise Invalid(f"expected a number or 'auto', not {describe(value)}")
    return value


def _tls_version(value: Any) -> Any:
    # `min_version: 1.2` without quotes is a number in YAML; what is meant is not in doubt.
    return str(value) if isinstance(value, float) else value


def _distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    for index, value in enumerate(values):
        if value in values[:index]:
            raise Invalid(f"'{value}' is listed twice")
    return values


def _file(value: Any) -> Any:
    if not isinstance(value, str | Path):
        raise Invalid(f"expected the path of a file, not {describe(value)}")
    if not str(value) or str(value) == ".":
        raise Invalid("the path of a file is empty")
    return Path(value)


_ADDRESS_SCHEMA: dict[str, Any] = {"type": "string", "examples": ["0.0.0.0:8443", "[::]:8443", ":8443", "unix:/run/x"]}
ListenAddress = Annotated[
    Address,
    PlainValidator(names.address),
    # The supervisor hands a Config to its workers as JSON; an address travels as it is written.
    PlainSerializer(str, return_type=str, when_used="json"),
    WithJsonSchema(_ADDRESS_SCHEMA),
]
Addresses = Annotated[
    Annotated[tuple[ListenAddress, ...], Field(max_length=64)],
    AfterValidator(_distinct),
    BeforeValidator(_as_list),
    WithJsonSchema({"anyOf": [_ADDRESS_SCHEMA, {"type": "array", "items": _ADDRESS_SCHEMA}]}),
]
_NETWORK_SCHEMA: dict[str, Any] = {"type": "string", "examples": ["10.0.0.0/8", "2001:db8::/32"]}
Network = Annotated[IPv4Network | IPv6Network, PlainValidator(names.network), WithJsonSchema(_NETWORK_SCHEMA)]
Networks = Annotated[
    tuple[Network, ...],
    BeforeValidator(_as_list),
    WithJsonSchema({"anyOf": [_NETWORK_SCHEMA, {"type": "array", "items": _NETWORK_SCHEMA}]}),
]
File = Annotated[Path, PlainValidator(_file), WithJsonSchema({"type": "string"})]
Port = Annotated[StrictInt, Field(ge=1, le=65535)]


class Section(BaseModel):
    """A mapping of the file: unknown keys are errors, and nothing changes after it was read."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Listen(Section):
    """Where the edge listens."""

    https: Addresses = Field(
        min_length=1, description="TLS addresses: host:port, [v6]:port, :port or unix:/path; one or a list."
    )
    http: Addresses = Field(
        default=(),
        description="Plain addresses; all they do is redirect to https.",
        json_schema_extra={"default": []},
    )
    admin: ListenAddress | None = Field(
        default=Address("127.0.0.1", 9180),
        description="/metrics, /healthz and /readyz. It has no authentication: keep it on loopback. null turns it off.",
        json_schema_extra={"default": "127.0.0.1:9180"},
    )
    public_port: Port | None = Field(
        default=None,
        description="The port clients reach, when it differs from the first https port (behind a port mapping). "
        "Redirects and Alt-Svc name it.",
    )
    protocols: Annotated[tuple[Literal["h1", "h2", "h3"], ...], AfterValidator(_distinct)] = Field(
        default=("h1", "h2", "h3"),
        min_length=1,
        description="What is spoken at the https addresses: h1 and h2 over TCP (by ALPN, h2 first), h3 over UDP on the "
        "same ports.",
    )
    alt_svc: StrictBool = Field(default=True, description="Tells clients of h1 and h2 by the field Alt-Svc that there is h3.")
    alt_svc_max_age: Age = Field(
        default=86400,
        description="How long clients may remember that: seconds, or like 24h.",
        json_schema_extra={"default": "24h"},
    )

    @property
    def redirect_port(self) -> int | None:
        """The port redirects and Alt-Svc name: public_port, or that of the first TCP https address; None when all are unix."""
        if self.public_port is not None:
            return self.public_port
        return next((address.port for address in self.https if address.port is not None), None)

    @property
    def quic(self) -> bool:
        """Whether there are UDP sockets: h3 is wanted, and an https address has a port. (By default h3 is wanted; on unix
        sockets alone that means nothing.)"""
        return "h3" in self.protocols and any(address.port is not None for address in self.https)


class AccessLog(Section):
    """Where the access log goes."""

    file: Annotated[StrictStr, Field(min_length=1)] = Field(
        description="Path of the JSON-lines file, or '-' for standard output."
    )


class Certificate(Section):
    """A certificate chain and its key, both PEM. A relative path starts at the working directory of the process."""

    cert: File = Field(description="PEM file: the certificate first, then its intermediates.")
    key: File = Field(description="PEM file of the private key, not encrypted.")


class Tls(Section):
    """TLS towards clients."""

    certificates: tuple[Certificate, ...] = Field(
        min_length=1,
        max_length=1000,
        description="One or more; chosen by SNI from the names in each certificate, the first when nothing matches.",
    )
    min_version: Annotated[
        Literal["1.2", "1.3"],
        BeforeValidator(_tls_version),
        WithJsonSchema({"enum": ["1.2", "1.3", 1.2, 1.3]}),
    ] = Field(default="1.2", description="The oldest TLS version that is accepted.")


class Hsts(Section):
    """Strict-Transport-Security (RFC 6797), sent on every https answer."""

    enabled: StrictBool = Field(default=True, description="false sends no header at all.")
    max_age: Age = Field(default=63072000, description="How long browsers insist on https: seconds, or like 730d.")
    include_subdomains: StrictBool = Field(default=True, description="Covers every subdomain of the host too.")
    preload: StrictBool = Field(
        default=False,
        description="Asks to be built into browsers; hard to undo. Needs include_subdomains and max_age of a year.",
    )


class Geo(Section):
    """Files that say where addresses are."""

    files: tuple[File, ...] = Field(
        default=(),
        max_length=16,
        description="Files in MaxMind's format (.mmdb), of cities, countries or networks; a value is that of the first "
        "that has one. Put new ones in place by renaming.",
        json_schema_extra={"default": []},
    )


class ClientTimeouts(Section):
    """How long a client may take."""

    handshake: Duration = _duration("10s", "From accept to the end of the TLS handshake.")
    head: Duration = _duration("10s", "From the first byte of a request head to its last, in total.")
    body: Duration = _duration("60s", "Between two reads of a request body.")
    idle: Duration = _duration("60s", "Keep-alive: between two requests of a connection.")
    preview: Duration = _duration("60s", "In total, for what is held of a request body before deciding; over it 408.")
    write: Duration = _duration("60s", "Without progress while the client does not read its answer.")


class ClientH2(Section):
    """HTTP/2 towards clients (RFC 9113)."""

    max_streams: StrictInt = _count(100, "Concurrent streams of a connection.", most=10_000)
    stream_window: Size = _size("64KiB", "Flow-control window of a stream, on request bodies.", least="1KiB", most="1GiB")
    connection_window: Size = _size("1MiB", "Flow-control window of a connection.", least="65535B", most="1GiB")
    reset_burst: StrictInt = _count(100, "Streams a client may reset at once before the connection is closed.")
    reset_rate: StrictInt = _count(2, "Resets a second that are forgiven again.")


class ClientH3(Section):
    """HTTP/3 towards clients (RFC 9000, RFC 9114)."""

    max_streams: StrictInt = _count(100, "Concurrent requests of a connection.", most=10_000)
    stream_window: Size = _size("256KiB", "Flow-control window of a stream, on request bodies.", least="1KiB", most="1GiB")
    connection_window: Size = _size("1MiB", "Flow-control window of a connection.", least="64KiB", most="1GiB")
    retry_at: StrictInt = _count(
        100,
        "Unfinished handshakes of one worker from which on a client has to prove its address (Retry) first; 0: always.",
        least=0,
    )
    max_per_source: StrictInt = _count(200, "Connections of one worker from one IPv4 address, or one IPv6 network of 64 bits.")
    max_bodies: Size = _size("64MiB", "Request content that one worker holds, over all its h3 connections.", least="1MiB")
    max_datagram: Size = _size("1350B", "The largest UDP payload that is sent.", least="1200B", most="1452B")


class Client(Section):
    """Bounds on what clients send."""

    max_head: Size = _size("32KiB", "Request line and headers together; over it 431.", least="1KiB", most="1MiB")
    max_headers: StrictInt = _count(100, "Header lines; over it 431.", most=10_000)
    max_url: Size = _size("16KiB", "The request target; over it 414.", least="256B", most="1MiB")
    max_body: Size = _size("10MiB", "The request body, unless its route says otherwise; over it 413.")
    buffer: Size = _size(
        "64KiB",
        "What is held of one direction of a stream before the other side is paused.",
        least="4KiB",
        most="16MiB",
    )
    max_connections: StrictInt = _count(10000, "Open client connections of one worker.")
    previews: Size = _size("256MiB", "Bytes of request bodies that one worker holds to decide; over it 503.", least="1MiB")
    timeouts: ClientTimeouts = Field(default_factory=ClientTimeouts, description="How long a client may take.")
    h2: ClientH2 = Field(default_factory=ClientH2, description="HTTP/2 towards clients.")
    h3: ClientH3 = Field(default_factory=ClientH3, description="HTTP/3 towards clients.")


class Target(Section):
    """One server of an upstream."""

    url: Annotated[StrictStr, AfterValidator(names.target_url)] = Field(
        description="http://host:port or https://host:port, nothing after it."
    )

    @property
    def tls(self) -> bool:
        """Whether the target is spoken to over TLS."""
        return self.url.startswith("https:")

    @property
    def host(self) -> str:
        """Host name or IP literal, without the brackets of an IPv6 literal."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """The port, 80 or 443 where the URL names none."""
        return urlsplit(self.url).port or (443 if self.tls else 80)


class UpstreamTimeouts(Section):
    """How long an upstream may take."""

    connect: Duration = _duration("3s", "TCP and TLS set-up; over it 504, or another target.")
    first_byte: Duration = _duration("120s", "From the request sent to the first byte of the answer; over it 504.")
    idle: Duration = _duration("60s", "Between two chunks of the answer.")
    total: OptionalDuration = Field(
        default=None,
        description="From the request, the wait for a connection included, to the end of the answer; "
        "off, because streams may run for long.",
        json_schema_extra={"default": "off"},
    )


class Upstream(Section):
    """A named group of servers that answer alike."""

    targets: tuple[Target, ...] = Field(min_length=1, description="The servers.")
    balance: Literal["least-outstanding", "round-robin"] = Field(
        default="least-outstanding", description="Which target gets the next request."
    )
    host: Literal["preserve", "upstream"] = Field(
        default="preserve",
        description="The Host that is sent: the client's, or the target's own (needed by most public APIs).",
    )
    ca: Annotated[StrictStr, Field(min_length=1)] = Field(
        default="system", description="What https targets are verified against: 'system', or a PEM file."
    )
    max_connections: StrictInt = _count(1024, "Connections of one worker to all targets together.")
    max_pending: StrictInt = _count(1024, "Requests of one worker that may wait for one; over it 503.", least=0)
    keepalive: Wait = _duration("60s", "How long an idle connection is kept for reuse; 0s: not at all.")
    timeouts: UpstreamTimeouts = Field(default_factory=UpstreamTimeouts, description="How long an upstream may take.")
    key: OptionalUpstreamKey = Field(default=None, description="The key that it gets, instead of the client's.")


class Route(Section):
    """Which requests go to which upstream. The most specific host wins, then the longest path."""

    host: Annotated[StrictStr, AfterValidator(names.route_host)] = Field(
        default="*", description="Exact name, '*.example.org' (any subdomain), or '*'. Without a port."
    )
    path: Annotated[StrictStr, AfterValidator(names.route_path)] = Field(
        default="/", description="A prefix of the path, in whole segments; starts with '/'."
    )
    upstream: StrictStr = Field(description="A name below 'upstreams'.")
    dialect: Literal["openai", "anthropic", "responses"] | None = Field(
        default=None,
        description="The API spoken here: errors of the edge take its shape. Absent: HTML or JSON by Accept.",
    )
    max_body: Size | None = Field(default=None, description="The request body of this route; absent: client.max_body.")
    preview: Size = _size(
        "1MiB", "What is held of a request body where it is read before deciding (by 'models').", most="64MiB"
    )
    models: dict[Annotated[StrictStr, AfterValidator(names.model_pattern)], StrictStr] = Field(
        default_factory=dict,
        description="Model name, or prefix ending in '*', to upstream; makes the edge read the body. "
        "What matches none goes to 'upstream'.",
    )
    trailers: Literal["drop", "pass"] = Field(default="drop", description="What happens to trailers, both ways.")


UpstreamName = Annotated[StrictStr, AfterValidator(names.upstream_name)]


class Config(Section):
    """The configuration of an edge."""

    listen: Listen = Field(description="Where the edge listens.")
    workers: Annotated[
        StrictInt,
        Field(ge=1, le=1024),
        BeforeValidator(_workers),
        WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1, "maximum": 1024}, {"const": "auto"}]}),
    ] = Field(default=1, description="Worker processes; 'auto' is one for each core this process may use.")
    trusted_proxies: Networks = Field(
        default=(),
        description="Networks whose X-Forwarded-For is believed; the rightmost address outside them is the client.",
        json_schema_extra={"default": []},
    )
    access_log: AccessLog | None = Field(default=None, description="Absent: no access log.")
    tls: Tls = Field(description="TLS towards clients.")
    hsts: Hsts = Field(default_factory=Hsts, description="Strict-Transport-Security.")
    keys: OptionalKeys = Field(default=None, description="API keys of the edge.")
    geo: Geo = Field(default_factory=Geo, description="Where addresses are, for rules.")
    client: Client = Field(default_factory=Client, description="Bounds on what clients send.")
    drain: Wait = _duration("30s", "How long streams may go on after SIGTERM before they are cut.")
    upstreams: dict[UpstreamName, Upstream] = Field(min_length=1, description="The backends, by name.")
    routes: tuple[Route, ...] = Field(min_length=1, description="Which requests go where.")
    rules: RulesKey = Field(
        default=RuleFiles(),
        description="Rule files, in the order they run; '*' and '**' are replaced. Relative to the working directory.",
        json_schema_extra={"default": []},
    )
