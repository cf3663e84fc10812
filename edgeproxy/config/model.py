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
    BeforeValidator,
    Field,
    PlainSerializer,
    PlainValidator,
    StrictBool,
    StrictInt,
    StrictStr,
    WithJsonSchema,
)

from edgeproxy.config import names
from edgeproxy.config.bots import Bots, RouteBots
from edgeproxy.config.challenge import Challenge
from edgeproxy.config.client import Client, ClientH2, ClientH3, ClientTimeouts
from edgeproxy.config.keys import OptionalKeys, OptionalUpstreamKey, RouteKeys
from edgeproxy.config.limits import MAX_LIMITS, Limit
from edgeproxy.config.names import Address
from edgeproxy.config.problems import Invalid
from edgeproxy.config.secret import Secret, SecretValue
from edgeproxy.config.section import Section, count, duration, size
from edgeproxy.config.units import Age, Duration, OptionalDuration, Size, Wait, describe
from edgeproxy.rules.model import RuleFiles, RulesKey, Shipped
from edgeproxy.state.redis_url import parse as parse_store

__all__ = [
    "AccessLog", "Address", "Certificate", "Client", "ClientH2", "ClientH3", "ClientTimeouts", "Config",
    "EventLog", "Geo", "Hsts", "Listen", "Route", "Target", "Tls", "Upstream", "UpstreamTimeouts",
]  # fmt: skip


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


def _store_text(value: Any) -> Any:
    if not isinstance(value, str | Secret):
        raise Invalid("this is not the URL of a store", "like redis://127.0.0.1:6379/0")
    return value


def _store(value: Secret) -> Secret:
    try:
        parse_store(value.reveal().decode("utf-8", "surrogateescape"))
    except ValueError as e:
        raise Invalid(f"this is not the URL of a store: {e}", "like redis://127.0.0.1:6379/0") from None
    return value


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
        description="/metrics, /healthz, /readyz and /api/explain. It has no authentication: keep it on loopback. null turns "
        "it off.",
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


class EventLog(Section):
    """Where security events go."""

    file: Annotated[StrictStr, Field(min_length=1)] = Field(
        description="Path of the JSON-lines file of security events, or '-' for standard output."
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

    connect: Duration = duration("3s", "TCP and TLS set-up; over it 504, or another target.")
    first_byte: Duration = duration("120s", "From the request sent to the first byte of the answer; over it 504.")
    idle: Duration = duration("60s", "Between two chunks of the answer.")
    total: OptionalDuration = Field(
        default=None,
        description="From the request, the wait for a connection included, to the end of the answer; "
        "off, because streams may run for long.",
        json_schema_extra={"default": "off"},
    )


class Retries(Section):
    """How often a request may reach an upstream, by its client's retries and by the edge's."""

    max_attempts: StrictInt = count(
        6, "Attempts for one request, all tries of its client (as SDKs number them) and of the edge together.", most=1000
    )
    budget: StrictInt = count(
        20, "Percent of all requests that may be retries; over it the edge makes none of its own.", least=0, most=100
    )
    floor: StrictInt = count(10, "Retries a second and worker that there may be whatever the budget says.", least=0)


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
    max_connections: StrictInt = count(1024, "Connections of one worker to all targets together.")
    max_pending: StrictInt = count(1024, "Requests of one worker that may wait for one; over it 503.", least=0)
    reserved: StrictInt = count(
        25, "Percent of max_connections, rounded down, that requests of low priority leave free for others.", least=0, most=99
    )
    keepalive: Wait = duration("60s", "How long an idle connection is kept for reuse; 0s: not at all.")
    timeouts: UpstreamTimeouts = Field(default_factory=UpstreamTimeouts, description="How long an upstream may take.")
    retries: Retries = Field(default_factory=Retries, description="How often a request may reach an upstream.")
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
    preview: Size = size(
        "1MiB", "What is held of a request body where it is read before deciding (by 'models').", most="64MiB"
    )
    models: dict[Annotated[StrictStr, AfterValidator(names.model_pattern)], StrictStr] = Field(
        default_factory=dict,
        description="Model name, or prefix ending in '*', to upstream; makes the edge read the body. "
        "What matches none goes to 'upstream'.",
    )
    keys: RouteKeys | None = Field(
        default=None,
        description="required: nobody passes without a key of the edge; optional: one that is sent has to be right; off: nobody "
        "looks. Absent: required on routes with a dialect where there is a section 'keys', else off.",
    )
    stream_usage: Literal["ask", "leave"] = Field(
        default="ask",
        description="ask: where limits count tokens, OpenAI's streams are asked for their usage, which clients that "
        "did not ask never see. leave: it is estimated then.",
    )
    trailers: Literal["drop", "pass"] = Field(default="drop", description="What happens to trailers, both ways.")
    bots: RouteBots | None = Field(default=None, description="What bot scores do here, where it differs from 'bots'.")


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
    events: EventLog | None = Field(default=None, description="Absent: no security events.")
    tls: Tls = Field(description="TLS towards clients.")
    hsts: Hsts = Field(default_factory=Hsts, description="Strict-Transport-Security.")
    keys: OptionalKeys = Field(default=None, description="API keys of the edge.")
    geo: Geo = Field(default_factory=Geo, description="Where addresses are, for rules.")
    bots: Bots = Field(default_factory=Bots, description="Scores of bots, and what they do.")
    client: Client = Field(default_factory=Client, description="Bounds on what clients send.")
    drain: Wait = duration("30s", "How long streams may go on after SIGTERM before they are cut.")
    upstreams: dict[UpstreamName, Upstream] = Field(min_length=1, description="The backends, by name.")
    routes: tuple[Route, ...] = Field(min_length=1, description="Which requests go where.")
    limits: tuple[Limit, ...] = Field(
        default=(), max_length=MAX_LIMITS, description="How much clients may have; all of them hold for a request."
    )
    # A secret, since there is a password in it.
    store: Annotated[SecretValue, BeforeValidator(_store_text), AfterValidator(_store)] | None = Field(
        default=None,
        description="Redis, where limits count for several edges together: redis://, rediss://, unix://, redis+sentinel:// or "
        "redis+cluster://. Absent: this edge counts by itself.",
    )
    store_shares: StrictInt = count(
        1, "How many edges use the store; each enforces its part of a limit while the store is away.", most=10_000
    )
    on_store_failure: Literal["local", "open", "closed"] = Field(
        default="local",
        description="What limits do while those who count together cannot be asked: each enforces its share, "
        "nobody is limited, or everybody who is under a limit is refused.",
    )
    store_deadline: Duration = duration("25ms", "How long a request waits for those who count together, before on_store_failure.")
    challenge: Challenge = Field(default_factory=Challenge, description="What clients have to do whom a rule challenges.")
    rules: RulesKey = Field(
        default=RuleFiles(),
        description="Rule files, in the order they run; '*' and '**' are replaced. Relative to the working directory.",
        json_schema_extra={"default": []},
    )
    shipped: Shipped = Field(default_factory=Shipped, description="The rule files that come with the edge.")
