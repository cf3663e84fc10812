# The load generators are wrk and h2load; this file writes their scripts and reads what they print.
"""Load at C speed, pinned to the load core, and its results as data."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from bench import probe, upstream
from bench.children import Child, Failure, find

POST = """\
wrk.method = "POST"; wrk.path = "/v1/chat/completions"; wrk.body = [==[BODY]==]
wrk.headers["Host"] = "HOST"; wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer sk-test"
"""
# Behind POST: no head is like the one before it.
PATHS = """\
local number = 0
function request() number = number + 1; return wrk.format(nil, "/v1/chat/completions?request=" .. number) end
"""
# The length of every finished stream is compared: a chunk that is missing or doubled shows.
STREAM = """\
wrk.method = "POST"; wrk.path = "/sse/fast"; wrk.body = [==[BODY]==]
wrk.headers["Host"] = "HOST"; wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer sk-test"
bad = 0
local threads = {}
function setup(thread) table.insert(threads, thread) end
function response(status, headers, body) if status ~= 200 or #body ~= LENGTH then bad = bad + 1 end end
function truncated() local n = 0; for _, t in ipairs(threads) do n = n + t:get("bad") end; return n end
"""
# One line of JSON instead of wrk's rounded figures.
SUMMARY = """\
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('BENCH {"requests":%d,"seconds":%.6f,"connect":%d,"read":%d,"write":%d,"status":%d,' ..
    '"timeout":%d,"truncated":%d,"p50_us":%d,"p99_us":%d}\\n', summary.requests, summary.duration / 1e6,
    e.connect, e.read, e.write, e.status, e.timeout, truncated and truncated() or 0, latency:percentile(50),
    latency:percentile(99)))
end
"""


@dataclass(frozen=True, slots=True)
class Result:
    """What a load generator saw over its whole run; `errors` by kind, only those above zero. Latencies in µs."""

    requests: int
    seconds: float
    errors: dict[str, int]
    p50: float = 0.0
    p99: float = 0.0


def parse_wrk(text: str) -> Result:
    """The BENCH line of our script; raises Failure when wrk printed none (it could not connect at all)."""
    for line in text.splitlines():
        if line.startswith("BENCH "):
            data = json.loads(line[6:])
            kinds = ("connect", "read", "write", "status", "timeout", "truncated")
            errors = {kind: data[kind] for kind in kinds if data[kind]}
            return Result(data["requests"], data["seconds"], errors, data["p50_us"], data["p99_us"])
    raise Failure(f"wrk gave no result: {text.strip()[-300:]}")


UNITS = {"us": 1.0, "ms": 1e3, "s": 1e6}


def parse_h2load(text: str) -> Result:
    """h2load's report: the finished, requests, status codes and "time for request" lines."""
    finished = re.search(r"finished in ([\d.]+)(us|ms|s)\b", text)
    kinds = ("total", "started", "done", "succeeded", "failed", "errored", "timeout")
    counts = re.search("requests: " + ", ".join(rf"(\d+) {kind}" for kind in kinds), text)
    codes = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", text)
    if finished is None or counts is None or codes is None:
        raise Failure(f"h2load gave no result: {text.strip()[-300:]}")
    _, _, done, succeeded, failed, errored, timeout = (int(n) for n in counts.groups())
    # Streams whose head had come when the time was up count as 2xx but not as done: compare the other classes instead.
    status = sum(int(n) for n in codes.groups()[1:])
    seen = {"failed": failed, "errored": errored, "timeout": timeout, "status": status}
    protocol = re.search(r"Application protocol: (\S+)", text)
    if protocol is None or protocol[1] != "h2":  # without h2 in ALPN, h2load goes on in HTTP/1.1 and says so only here
        seen["protocol"] = done
    latency = re.search(r"time for request:\s+\S+\s+\S+\s+([\d.]+)(us|ms|s)", text)  # min, max, mean
    mean = float(latency[1]) * UNITS[latency[2]] if latency else 0.0
    return Result(succeeded, float(finished[1]) * UNITS[finished[2]] / 1e6, {k: n for k, n in seen.items() if n}, mean)


def program(name: str) -> str:
    path = find(name)
    if path is None:
        package = {"wrk": "wrk", "h2load": "nghttp2-client"}[name]
        raise Failure(f"{name} is missing (Debian package {package})")
    return path


def wrk(
    folder: Path, port: int, *, cores: str, connections: int, seconds: int, stream: bool = False, plain: bool = False,
    more: str = "",
) -> Child:  # fmt: skip
    """wrk with one thread against https://127.0.0.1:`port` (`plain`: http); its output goes to wrk.out in `folder`.

    Args:
        more: of the script, behind ours.
    """
    script = folder / ("sse.lua" if stream else "post.lua")
    text = STREAM.replace("LENGTH", str(upstream.STREAM_BYTES)) if stream else POST
    script.write_text(text.replace("BODY", upstream.QUESTION).replace("HOST", probe.HOST) + more + SUMMARY)
    log = folder / "wrk.out"
    log.unlink(missing_ok=True)
    options = ["-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "20s", "-s", str(script)]
    url = f"http{'' if plain else 's'}://127.0.0.1:{port}/"
    return Child([program("wrk"), *options, url], cores=cores, cwd=folder, log=log)


def h2load(folder: Path, port: int, *, cores: str, connections: int, streams: int, seconds: int) -> Child:
    """h2load with one thread, the same request as wrk's; its output goes to h2load.out in `folder`."""
    body = folder / "question.json"
    body.write_text(upstream.QUESTION)
    log = folder / "h2load.out"
    log.unlink(missing_ok=True)
    headers = ["-H", "content-type: application/json", "-H", "authorization: Bearer sk-test"]
    options = ["-t1", f"-c{connections}", f"-m{streams}", f"-D{seconds}", "-d", str(body), *headers]
    options.append(f"--connect-to=127.0.0.1:{port}")
    url = f"https://{probe.HOST}:{port}/v1/chat/completions"
    return Child([program("h2load"), *options, url], cores=cores, cwd=folder, log=log)
