# From merged dumps to Prometheus text. Every metric name, label and help text of the edge is in this file and explained
# in docs/operations.md (a test compares the two). It counts nothing itself.
"""A prometheus_client collector over dumps; made anew for each scrape, so no state of it can grow."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any, Final

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from edgeproxy import __version__
from edgeproxy.ipc import State
from edgeproxy.observe.bot_stats import BotDump
from edgeproxy.observe.metrics import CLASS_NAMES, CLASSES, DURATION_BUCKETS, PROTOCOLS, Dump
from edgeproxy.observe.quic_stats import RTT_BUCKETS, QuicDump
from edgeproxy.state.stats import LATENCY_BUCKETS, SIZE_BUCKETS, StoreDump

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_LE: Final = (*map(str, DURATION_BUCKETS), "+Inf")
_RTT_LE: Final = (*map(str, RTT_BUCKETS), "+Inf")
_STORE_LE: Final = (*map(str, LATENCY_BUCKETS), "+Inf")
_SIZE_LE: Final = (*map(str, SIZE_BUCKETS), "+Inf")
_UPSTREAM: Final = ("upstream", "target")


class Process(msgspec.Struct, frozen=True):
    """What the kernel says of one process: resident bytes, CPU seconds (user and system) since it began, open files."""

    name: str
    rss: int
    cpu: float
    fds: int


class Scrape(msgspec.Struct, frozen=True):
    """All that one answer of /metrics is made of. ``ages``: how old each worker's numbers were when it
    was asked for new ones and gave none, by process name; 0 where it answered. ``blocks``: in force, by kind."""

    total: Dump
    state: State
    ready: bool
    processes: Sequence[Process]
    ages: dict[str, float]
    blocks: dict[str, int] = {}


def render(scrape: Scrape) -> bytes:
    """The Prometheus text (format 0.0.4)."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Once(scrape))
    return generate_latest(registry)


class _Once(Collector):
    def __init__(self, scrape: Scrape) -> None:
        self._scrape = scrape

    def describe(self) -> Iterable[Metric]:  # names are unique by construction; no need to collect twice
        return ()

    def collect(self) -> Iterator[Metric]:
        total = self._scrape.total
        yield from _clients(total)
        yield from _bots(total["bots"])
        yield _gauge("blocks", "Blocks in force, by what they are about.", ("kind",), _by_key(self._scrape.blocks))
        yield from _store(total["store"])
        yield from _quic(total["quic"])
        yield from _routes(total["routes"])
        yield from _upstreams(total["upstreams"])
        yield from _processes(self._scrape)


_UNITS: Final = ("settled", "refunded")


def _clients(total: Dump) -> Iterator[Metric]:
    yield _gauge("connections_open", "Open client connections whose handshake is done.", ("protocol",),
                 _by_protocol(total["connections_open"]))  # fmt: skip
    yield _counter("connections", "Client connections whose handshake was completed.", ("protocol",),
                   _by_protocol(total["connections_total"]))  # fmt: skip
    yield _gauge("streams_open", "Requests in progress.", (), [((), total["streams_open"])])
    yield _gauge("handshakes_pending", "Connections whose TLS handshake is not done yet.", (),
                 [((), total["handshakes_pending"])])  # fmt: skip
    resumed = total["handshakes_resumed"]
    yield _counter("handshakes", "Completed TLS handshakes.", ("resumed",),
                   [(("false",), total["handshakes"] - resumed), (("true",), resumed)])  # fmt: skip
    yield _counter("handshake_failures", "TLS handshakes that failed.", ("reason",),
                   _by_key(total["handshake_failures"]))  # fmt: skip
    yield _counter("redirects", "Redirects from the plain port to https.", (), [((), total["redirects"])])
    yield _counter("faults", "Requests and connections that ended in a fault, by whose fault it is.",
                   ("source", "reason"), [((source, reason), n) for source, reason, n in total["faults"]])  # fmt: skip
    yield _counter("rule_hits", "Requests that a rule matched, by what it did.", ("rule", "action"),
                   [((rule, action), n) for rule, action, n in total["rule_hits"]])  # fmt: skip
    yield _counter("rule_errors", "Rules that failed while they ran; they count as not matching.", ("rule",),
                   _by_key(total["rule_errors"]))  # fmt: skip
    requests = [row for row in total["limits"] if row[1] not in _UNITS]
    units = [row for row in total["limits"] if row[1] in _UNITS]
    yield _counter("limit_requests", "Requests that a limit was asked about, by what became of them.", ("limit", "outcome"),
                   [((name, outcome), n) for name, outcome, n in requests])  # fmt: skip
    yield _counter("limit_units", "Units of a limit that were corrected after the answer: settled (more), refunded (fewer).",
                   ("limit", "outcome"), [((name, outcome), n) for name, outcome, n in units])  # fmt: skip
    yield _counter("blocked", "Requests that an operator's block refused, by its kind.", ("kind",), _by_key(total["blocked"]))
    yield _counter("challenges", "Challenges, by what became of them, and why some were not passed.", ("outcome", "reason"),
                   [((outcome, reason), n) for outcome, reason, n in total["challenges"]])  # fmt: skip
    yield _counter("log_dropped", "Access log lines that were dropped.", (), [((), total["log_dropped"])])
    yield _counter("events_dropped", "Event lines that were dropped.", (), [((), total["events_dropped"])])


_SCORE_LE: Final = ("0", "1", *(str(9 + 10 * n) for n in range(10)))


def _bots(bots: BotDump) -> Iterator[Metric]:
    scores, sums = bots["scores"], list(accumulate(bots["scores"]))
    histogram = HistogramMetricFamily("edgeproxy_bot_score", "Requests by their bot score; 0: it was not computed.")
    buckets = [(le, sums[int(le)]) for le in _SCORE_LE]
    histogram.add_metric([], [*buckets, ("+Inf", sums[-1])], sum(value * n for value, n in enumerate(scores)))
    yield histogram
    yield _counter("bot_detections", "Requests for which a heuristic was true.", ("detection",), _by_key(bots["detections"]))
    yield _counter("bot_acts", "Requests that the bot policy did something about (act), or would have (log).", ("act", "mode"),
                   [((act, mode), n) for act, mode, n in bots["acts"]])  # fmt: skip
    yield _counter("bot_failures", "Bot scores that could not be computed.", (), [((), bots["failures"])])
    yield _counter("bot_lookups", "Look-ups that verify bots.", ("what", "outcome"),
                   [((what, outcome), n) for what, outcome, n in bots["lookups"]])  # fmt: skip
    yield _counter("bot_range_reads", "Files of published networks that were read.", ("outcome",), _by_key(bots["range_reads"]))
    yield _gauge("bot_range_files_broken", "Files of published networks that cannot be used.", (), [((), bots["ranges_broken"])])
    yield _gauge("bot_range_oldest_timestamp_seconds", "When the oldest file of published networks in use was written.", (),
                 [((), bots["ranges_oldest"])])  # fmt: skip


def _store(store: StoreDump) -> Iterator[Metric]:
    yield _counter("store_decisions", "Exchanges that limits were asked about, by who decided.", ("by",),
                   _by_key(store["decided"]))  # fmt: skip
    latency = HistogramMetricFamily("edgeproxy_store_latency_seconds", "How long exchanges waited for the store's answer.")
    latency.add_metric([], list(zip(_STORE_LE, accumulate(store["latencies"]), strict=True)), store["latency_sum"])
    yield latency
    sizes = HistogramMetricFamily("edgeproxy_store_batch_size", "Exchanges in what is sent to the store at once.")
    sizes.add_metric([], list(zip(_SIZE_LE, accumulate(store["sizes"]), strict=True)), store["size_sum"])
    yield sizes
    yield _counter("store_failures", "Batches that were refused, lost or overdue.", (), [((), store["failures"])])
    yield _counter("store_settles", "Settlements that the store has made.", (), [((), store["settles"])])
    yield _counter("store_undone", "Exchanges that the store admitted too late, given back.", (), [((), store["undone"])])
    yield _gauge("store_breakers", "Workers' ways to servers of the store: closed (asked), open (not asked).", ("state",),
                 [(("closed",), store["asked"]), (("open",), store["away"])])  # fmt: skip
    yield _gauge("store_fallback", "Workers that decide without the store, or a part of it, by their failure mode.", ("mode",),
                 _by_key(store["fallback"]))  # fmt: skip


def _quic(quic: QuicDump) -> Iterator[Metric]:
    def both(into: str, out: str) -> _Rows:
        return [(("in",), quic[into]), (("out",), quic[out])]

    def one(name: str) -> _Rows:
        return [((), quic[name])]

    yield _gauge("quic_connections_open", "Open QUIC connections whose handshake is confirmed.", (), one("connections_open"))
    yield _gauge("quic_handshakes_pending", "QUIC connections whose handshake is not confirmed yet.", (), one("half_open"))
    yield _counter("quic_datagrams", "UDP datagrams.", ("direction",), both("datagrams_in", "datagrams_out"))
    yield _counter("quic_syscalls", "System calls that carried them.", ("direction",), both("reads", "writes"))
    yield _counter("quic_bytes", "Bytes of UDP payload.", ("direction",), both("bytes_in", "bytes_out"))
    resumed = quic["handshakes_resumed"]
    yield _counter("quic_handshakes", "Completed QUIC handshakes.", ("resumed",),
                   [(("false",), quic["handshakes"] - resumed), (("true",), resumed)])  # fmt: skip
    yield _counter("quic_handshake_failures", "QUIC handshakes that failed.", ("reason",),
                   _by_key(quic["handshake_failures"]))  # fmt: skip
    yield _counter("quic_retries", "Clients asked to prove their address (Retry).", (), one("retries"))
    yield _counter("quic_version_negotiations", "Clients told which versions there are.", (), one("version_negotiations"))
    yield _counter("quic_resets_sent", "Stateless resets sent.", (), one("resets_sent"))
    yield _counter("quic_packets_sent", "Packets sent.", (), one("packets_sent"))
    yield _counter("quic_packets_lost", "Sent packets that were found lost.", (), one("packets_lost"))
    yield _counter("quic_probes", "Probe packets sent because no acknowledgement came.", (), one("probes"))
    yield _counter("quic_migrations", "Connections that moved to another address of the client.", (), one("migrations"))
    yield _counter("quic_passed", "Datagrams passed on between workers.", ("direction",), both("passed_in", "passed_on"))
    yield _counter("quic_drops", "Datagrams and packets that were not used.", ("reason",), _by_key(quic["drops"]))
    rtt = HistogramMetricFamily("edgeproxy_quic_rtt_seconds", "Smoothed round-trip time of connections that are heard of.")
    rtt.add_metric([], list(zip(_RTT_LE, accumulate(quic["rtt_buckets"]), strict=True)), quic["rtt_sum"])
    yield rtt


def _routes(routes: dict[str, list[Any]]) -> Iterator[Metric]:
    requests = _counter("requests", "Finished requests.", ("protocol", "route", "class"), ())
    received = _counter("request_bytes", "Bytes of request bodies.", ("route",), ())
    sent = _counter("response_bytes", "Bytes of answer bodies.", ("route",), ())
    durations = HistogramMetricFamily(
        "edgeproxy_request_duration_seconds",
        "From the request's head to the end of its answer; streams count in full.",
        labels=["route"],
    )
    for route, (counts, buckets, seconds, bytes_in, bytes_out) in routes.items():
        for index, n in enumerate(counts):
            if n:  # 18 combinations a route, of which few ever happen
                labels = [PROTOCOLS[index // CLASSES], route, CLASS_NAMES[index % CLASSES]]
                requests.add_metric(labels, n)
        received.add_metric([route], bytes_in)
        sent.add_metric([route], bytes_out)
        durations.add_metric([route], list(zip(_LE, accumulate(buckets), strict=True)), seconds)
    yield from (requests, durations, received, sent)


def _upstreams(targets: list[Dump]) -> Iterator[Metric]:
    def column(name: str) -> list[tuple[tuple[str, ...], float]]:
        return [((t["name"], t["target"]), t[name]) for t in targets]

    yield _counter("upstream_connects", "Connections opened to the target.", _UPSTREAM, column("connects"))
    yield _counter("upstream_connect_failures", "Connections to the target that could not be opened.", _UPSTREAM,
                   column("connect_failures"))  # fmt: skip
    yield _counter("upstream_reused", "Requests sent on a kept connection.", _UPSTREAM, column("reused"))
    yield _counter("upstream_retries", "Requests repeated after a kept connection had died.", _UPSTREAM,
                   column("retries"))  # fmt: skip
    yield _counter("upstream_retries_withheld", "Requests not tried again: attempts or budget were used up.", _UPSTREAM,
                   column("retries_withheld"))  # fmt: skip
    yield _counter("upstream_client_retries", "Requests that clients say are retries.", _UPSTREAM,
                   column("client_retries"))  # fmt: skip
    yield _counter("upstream_client_retries_refused", "Those that were refused, having been tried too often.", _UPSTREAM,
                   column("client_retries_refused"))  # fmt: skip
    yield _counter("upstream_resets", "Answers that broke off.", _UPSTREAM, column("resets"))
    timeouts = [((t["name"], t["target"], kind), n) for t in targets for kind, n in t["timeouts"].items()]
    yield _counter("upstream_timeouts", "Timers that ran out.", (*_UPSTREAM, "timer"), timeouts)
    yield _gauge("upstream_connections_open", "Open connections to the target.", _UPSTREAM, column("open"))
    yield _gauge("upstream_requests_active", "Requests in progress at the target.", _UPSTREAM, column("active"))
    yield _gauge("upstream_requests_pending", "Requests that wait for a connection.", _UPSTREAM, column("pending"))
    yield _gauge("upstream_requests_pending_low", "Those of them that have low priority.", _UPSTREAM, column("pending_low"))
    up = [((t["name"], t["target"]), t["up"] / t["reporters"]) for t in targets if t["reporters"]]
    yield _gauge("upstream_up", "Share of the workers that find the target up, 0 to 1.", _UPSTREAM, up)


def _processes(scrape: Scrape) -> Iterator[Metric]:
    state = scrape.state
    yield _gauge("ready", "What /readyz says: 1 for 200, 0 for 503.", (), [((), int(scrape.ready))])
    yield _gauge("config_generation", "Configurations that have been in use since the start.", (),
                 [((), state.generation)])  # fmt: skip
    yield _counter("reloads", "Reloads (SIGHUP) by their result.", ("result",), _by_key(state.reloads))
    yield _counter("restarts", "Processes started again because they had ended.", ("kind",),
                   _by_key(state.restarts))  # fmt: skip
    if state.keys is not None:
        lost = state.keys.lost
        yield _gauge("keys_age_seconds", "For how long nobody knows whether the keys in Redis have changed; 0: it is known.", (),
                     [((), 0.0 if lost is None else max(0.0, time.time() - lost))])  # fmt: skip
        yield _counter("keys_updates", "Other keys from Redis that came into use.", (), [((), state.keys.updates)])
    yield _gauge("worker_up", "1 where the worker of a slot is ready.", ("process",),
                 [((w.name,), int(w.state == "ready")) for w in state.workers])  # fmt: skip
    yield _gauge("worker_report_age_seconds", "Age of the counters of each worker in this answer.", ("process",),
                 _by_key(scrape.ages))  # fmt: skip
    processes = scrape.processes
    yield _gauge("process_resident_memory_bytes", "Resident memory; pages shared since the fork count in each.",
                 ("process",), [((p.name,), p.rss) for p in processes])  # fmt: skip
    yield _counter("process_cpu_seconds", "User and system CPU time; begins at 0 with each new process.",
                   ("process",), [((p.name,), p.cpu) for p in processes])  # fmt: skip
    yield _gauge("process_open_fds", "Open file descriptors.", ("process",), [((p.name,), p.fds) for p in processes])
    yield _gauge("build_info", "The version that runs; always 1.", ("version",), [((__version__,), 1)])


_Rows = Iterable[tuple[tuple[str, ...], float]]


def _gauge(name: str, text: str, labels: Sequence[str], rows: _Rows) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"edgeproxy_{name}", text, labels=list(labels))
    for values, n in rows:
        family.add_metric(list(values), n)
    return family


def _counter(name: str, text: str, labels: Sequence[str], rows: _Rows) -> CounterMetricFamily:
    family = CounterMetricFamily(f"edgeproxy_{name}", text, labels=list(labels))  # the text format adds _total
    for values, n in rows:
        family.add_metric(list(values), n)
    return family


def _by_protocol(values: list[int]) -> _Rows:
    return [((name,), n) for name, n in zip(PROTOCOLS, values, strict=True)]


def _by_key(values: dict[str, Any]) -> _Rows:
    return [((key,), n) for key, n in values.items()]
