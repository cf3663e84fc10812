# What wrk, h2load and nginx print, as data; a report that is not there is an error, never a zero.
from __future__ import annotations

from pathlib import Path

import pytest

from bench import load, upstream
from bench.children import Failure

WRK = """\
Running 5s test @ https://127.0.0.1:8443/
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     8.35ms    3.11ms  42.10ms   88.01%
  54321 requests in 5.01s, 41.2MB read
  Non-2xx or 3xx responses: 7
BENCH {"requests":54321,"seconds":5.010000,"connect":0,"read":2,"write":0,"status":7,"timeout":0,"truncated":0,\
"p50_us":8000,"p99_us":15000}
"""

H2LOAD = """\
starting benchmark...
TLS Protocol: TLSv1.3
Application protocol: h2
finished in 5.00s, 19124.20 req/s, 10.03MB/s
requests: 95700 total, 95828 started, 95621 done, 95621 succeeded, 3 failed, 0 errored, 0 timeout
status codes: 95649 2xx, 0 3xx, 0 4xx, 2 5xx
traffic: 50.17MB (52610000) total, 1.10MB (1150000) headers (space savings 95.10%), 41.7MB (43700000) data
                     min         max         mean         sd        +/- sd
time for request:      812us     42.10ms      6.68ms      2.10ms    80.00%
time for connect:     7.18ms     20.03ms     11.68ms      3.23ms    81.25%
"""


def test_wrk() -> None:
    result = load.parse_wrk(WRK)
    assert result == load.Result(54321, 5.01, {"read": 2, "status": 7}, 8000, 15000)


def test_wrk_without_result() -> None:
    with pytest.raises(Failure, match="unable to connect"):
        load.parse_wrk("unable to connect to 127.0.0.1:1 Connection refused\n")


def test_h2load() -> None:
    result = load.parse_h2load(H2LOAD)
    # More 2xx than done: streams that were cut off when the time was up are no errors.
    assert result == load.Result(95621, 5.0, {"failed": 3, "status": 2}, 6680.0)


def test_h2load_in_http_1_is_an_error() -> None:
    result = load.parse_h2load(H2LOAD.replace("protocol: h2", "protocol: http/1.1"))
    assert result.errors["protocol"] == 95621


@pytest.mark.parametrize(("text", "seconds"), [("812us", 0.000812), ("40.5ms", 0.0405), ("5.00s", 5.0)])
def test_h2load_units(text: str, seconds: float) -> None:
    assert load.parse_h2load(H2LOAD.replace("finished in 5.00s", f"finished in {text}")).seconds == pytest.approx(
        seconds
    )


@pytest.mark.parametrize("missing", ["finished in", "requests:", "status codes:"])
def test_h2load_without_result(missing: str) -> None:
    with pytest.raises(Failure, match="no result"):
        load.parse_h2load(H2LOAD.replace(missing, "…"))


def test_stub_status() -> None:
    page = (
        "Active connections: 3 \nserver accepts handled requests\n 101 101 98765 \nReading: 0 Writing: 1 Waiting: 2 \n"
    )
    assert upstream.parse_status(page) == 98765
    with pytest.raises(ValueError, match="stub_status"):
        upstream.parse_status("<html>404</html>")


def test_upstream_configuration_needs_no_lua() -> None:
    plain = upstream.configuration(9000, Path("file"), [])
    assert "lua" not in plain
    assert upstream.ANSWER in plain
    streaming = upstream.configuration(9000, Path("file"), ["load_module x.so;"])
    assert "content_by_lua_block" in streaming
    assert upstream.EVENT.replace("\n", "\\n") in streaming
