# The list of what can be measured: names, units, targets, and who takes part.
"""`PARTS`, one for each table, in the order they run; `CASES`, what may be named on the command line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench import cases, h3_cases, h3_load
from bench.cases import Bench
from bench.peers import Peer
from bench.report import Run, Table, Target

Action = Callable[[Bench, Peer], Run]


@dataclass(frozen=True, slots=True)
class Part:
    """One table of a case: how its runs are made and what edgeproxy is to reach in it."""

    case: str
    name: str
    title: str
    unit: str
    action: Action
    targets: tuple[Target, ...] = ()
    h3: bool = False
    bare: bool = False
    missing: Callable[[], str | None] = lambda: None

    def without(self, peer: Peer) -> str | None:
        """Why the peer takes no part in it (None: it does)."""
        if peer.bare and not self.bare:
            return "answers by itself"
        return peer.no_h3 if self.h3 else None

    def rounds(self, wanted: int) -> int:
        """Memory varies little and takes long to fill: two rounds are enough."""
        return min(wanted, 2) if self.case == "conns" else wanted

    def table(self) -> Table:
        return Table(self.name, self.title, self.unit, list(self.targets))


PARTS = (
    Part("h1", "h1", "HTTP/1.1", "CPU µs/request", cases.h1, (Target("envoy", 0.8, "stretch 0.75"),)),
    Part("h1", "h1 new heads", "another target each time", "CPU µs/request", cases.h1_heads),
    Part("h2", "h2", "HTTP/2", "CPU µs/request", cases.h2, (Target("envoy", 0.6),)),
    Part("sse", "sse", "SSE", "CPU µs/chunk", cases.sse, (Target("envoy", 1.1),)),
    Part("handshake", "handshake", "new connection", "CPU ms", cases.handshake, (Target("nginx", 1.5),)),
    Part(
        "h3",
        "h3",
        "HTTP/3",
        "CPU µs/request",
        h3_cases.h3,
        (Target("envoy", 1.25, "goal 1.0"), Target("caddy", 1.0, "goal")),
        h3=True,
        bare=True,
        missing=h3_load.missing,
    ),
    Part(
        "h3-handshake",
        "h3-handshake",
        "new QUIC connection",
        "CPU ms",
        h3_cases.h3_handshake,
        (Target("envoy", 2.0),),
        h3=True,
        bare=True,
        missing=h3_load.missing_client,
    ),
    Part(
        "h3-sse",
        "h3-sse",
        "SSE over HTTP/3",
        "CPU µs/chunk",
        h3_cases.h3_sse,
        (Target("envoy", 2.0),),
        h3=True,
        missing=h3_load.missing,
    ),
    Part(
        "h3-download",
        "h3-download",
        "download over HTTP/3",
        "CPU ms/64 MiB",
        h3_cases.h3_download,
        (Target("caddy", 8.33, "0.12 of its throughput per CPU; stretch 4.0, 0.25 of it"),),
        h3=True,
        missing=h3_load.missing,
    ),
    Part("conns", "conns idle", f"{cases.IDLE:,} idle", "KB/connection", cases.conns_idle, (Target("envoy", 0.6),)),
    Part(
        "conns",
        "conns streaming",
        f"{cases.STREAMING:,} streaming",
        "KB/connection",
        cases.conns_streaming,
        (Target("envoy", 1.0),),
    ),
    Part(
        "conns",
        "conns idle after 1 MiB up and down",
        f"{cases.STREAMING:,} idle",
        "KB/connection",
        cases.conns_bulk_idle,
        (Target("envoy", 0.6),),
    ),
    Part(
        "conns",
        "conns streaming after 1 MiB up and down",
        f"{cases.STREAMING:,} streaming",
        "KB/connection",
        cases.conns_bulk_streaming,
        (Target("envoy", 1.0),),
    ),
    Part("start", "start", "exec to ready", "ms", cases.start, (Target(None, 1000.0),)),
)
CASES = tuple(dict.fromkeys([*(part.case for part in PARTS[:-1]), "workers", PARTS[-1].case, "rules", "limits", "bots"]))
