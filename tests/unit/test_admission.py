# Limits in the pipeline: who is let through, what a refusal says, and that everything taken is given back or settled once.
"""admission.py with gateway.py and the embedded store, with real listeners' protocols and no sockets."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from support.edge import certificates
from support.pipeline import Stand

from edgeproxy.config.load import build
from edgeproxy.config.model import Config
from edgeproxy.config.problems import ConfigError
from edgeproxy.faults import upstream_fault
from edgeproxy.message import Reply
from edgeproxy.state.embedded import EmbeddedStore
from edgeproxy.state.ports import Admission, Admitted, Charge

GET = b"GET %b HTTP/1.1\r\nHost: localhost\r\n%b\r\n"


def stand(tmp_path: Path, *limits: dict[str, Any], rules: str = "", **changes: Any) -> Stand:
    (tmp_path / "r.yaml").write_text(f"rules:\n{rules}\n" if rules else "rules: []\n")
    paths = certificates()
    config = build({
        "listen": {"https": "127.0.0.1:8443", "admin": None},
        "tls": {"certificates": [{"cert": str(paths.cert), "key": str(paths.key)}]},
        "upstreams": {"main": {"targets": [{"url": "http://127.0.0.1:1"}]}},
        "routes": [
            {"upstream": "main"}, {"path": "/v1/", "upstream": "main", "dialect": "openai"},
            {"path": "/a/", "upstream": "main", "dialect": "anthropic"},
        ],
        "rules": [str(tmp_path / "r.yaml")],
        "shipped": {"baseline": False, "chat": False},
        "limits": list(limits),
        **changes,
    })  # fmt: skip
    made = Stand(Config.model_validate_json(config.model_dump_json()))  # as it travels to a worker
    made.gateway.log = cast("Any", SimpleNamespace(lines=[], flush=lambda: None))
    made.now = 1_000_000_000_000  # type: ignore[attr-defined]
    made.gateway.store = EmbeddedStore(clock=lambda: made.now)  # type: ignore[attr-defined]
    return made


def ask(made: Stand, path: bytes = b"/", fields: bytes = b"") -> bytes:
    return made.h1().feed(GET % (path, fields)).link.written


def status(written: bytes) -> int:
    return int(written.split(b" ")[1])


def header(written: bytes, name: bytes) -> bytes | None:
    for line in written.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]:
        key, _, value = line.partition(b": ")
        if key == name:
            return value
    return None


def test_requests_of_a_client(tmp_path: Path) -> None:
    made = stand(tmp_path, {"name": "per-ip", "requests": 2, "period": "60s"})
    first, second, third = ask(made), ask(made), ask(made)
    assert [status(each) for each in (first, second, third)] == [200, 200, 429]
    assert header(first, b"ratelimit-policy") == b'"per-ip";q=2;w=60' and header(first, b"ratelimit") == b'"per-ip";r=1;t=30'
    assert header(third, b"retry-after") == b"30" and header(third, b"ratelimit") == b'"per-ip";r=0;t=60'
    made.now += 30_000_000  # type: ignore[attr-defined]
    assert status(ask(made)) == 200
    assert made.stats.limits == {("per-ip", "allowed"): 3, ("per-ip", "limited"): 1}
    assert [json.loads(line)["outcome"] for line in made.gateway.log.lines] == [  # type: ignore[union-attr]
        "ok", "ok", "edge: rate_limit_exceeded", "ok",
    ]  # fmt: skip


def test_a_refusal_in_each_dialect(tmp_path: Path) -> None:
    made = stand(tmp_path, {"name": "all", "requests": 1, "key": "http.host"})
    ask(made)
    openai, anthropic = ask(made, b"/v1/chat/completions"), ask(made, b"/a/v1/messages")
    error = json.loads(openai.partition(b"\r\n\r\n")[2])["error"]
    assert (error["type"], error["code"]) == ("requests", "rate_limit_exceeded") and "all" in error["message"]
    assert header(openai, b"x-ratelimit-limit-requests") == b"1" and header(openai, b"x-ratelimit-reset-requests") == b"1m0s"
    assert header(openai, b"retry-after") == b"60" and header(openai, b"x-should-retry") == b"true"
    assert json.loads(anthropic.partition(b"\r\n\r\n")[2])["error"]["type"] == "rate_limit_error"
    assert header(anthropic, b"anthropic-ratelimit-requests-remaining") == b"0"


def test_an_answer_of_its_own(tmp_path: Path) -> None:
    made = stand(tmp_path, {"name": "a", "requests": 1, "status": 420, "body": "<p>calm</p>"})
    ask(made)
    written = ask(made)
    assert status(written) == 420 and written.endswith(b"<p>calm</p>")
    assert header(written, b"content-type") == b"text/html; charset=utf-8"


def test_what_is_counted_apart(tmp_path: Path) -> None:
    key = ['http.request.headers["x-key"][0]', "http.request.uri.path"]
    made = stand(tmp_path, {"name": "a", "requests": 1, "key": key})
    cases = [(b"/", b""), (b"/", b"X-Key:\r\n"), (b"/", b"X-Key: 1\r\n"), (b"/1", b"X-Key:\r\n"), (b"/1", b"")]
    assert [status(ask(made, *case)) for case in cases] == [200] * 5, "missing is not empty"
    assert [status(ask(made, *case)) for case in cases] == [429] * 5


def test_which_requests_it_is_about(tmp_path: Path) -> None:
    made = stand(tmp_path, {"name": "a", "requests": 1, "expression": 'http.request.uri.path eq "/x"'})
    assert [status(ask(made, path)) for path in (b"/", b"/", b"/x", b"/x", b"/")] == [200, 200, 200, 429, 200]
    assert header(ask(made), b"ratelimit") is None


def test_all_or_nothing(tmp_path: Path) -> None:
    made = stand(tmp_path, {"name": "wide", "requests": 3, "key": "http.host"},
                 {"name": "narrow", "requests": 1, "key": "http.request.uri.path"})  # fmt: skip
    assert [status(ask(made, path)) for path in (b"/a", b"/a", b"/a", b"/b", b"/c", b"/d")] == [200, 429, 429, 200, 200, 429]


def test_on_trial_nobody_is_refused(tmp_path: Path) -> None:
    made = stand(tmp_path, {"name": "try", "requests": 1, "mode": "log"}, {"name": "act", "requests": 3})
    assert [status(ask(made)) for _ in range(4)] == [200, 200, 200, 429]
    assert made.stats.limits == {("try", "allowed"): 1, ("try", "limited"): 2, ("act", "allowed"): 3, ("act", "limited"): 1}
    assert header(ask(made), b"ratelimit-policy") == b'"act";q=3;w=60'


def test_rules_skip_and_name_limits(tmp_path: Path) -> None:
    made = stand(tmp_path, {"name": "all", "requests": 1}, {"name": "extra", "requests": 1, "key": "http.host", "named": True},
                 rules="""\
- {id: free, expression: 'http.request.uri.path eq "/free"', action: skip, skip: {stages: [limits]}}
- {id: late, expression: 'http.request.uri.path eq "/late" and http.request.timestamp.sec gt 0', action: skip,
   skip: {stages: [limits]}}
- {id: dear, expression: 'http.request.uri.path eq "/dear"', action: set, limits: [extra]}
""")  # fmt: skip
    assert [status(ask(made, path)) for path in (b"/", b"/", b"/free", b"/late", b"/free")] == [200, 429, 200, 200, 200]
    made.now += 60_000_000  # type: ignore[attr-defined]
    assert header(ask(made, b"/dear"), b"ratelimit-policy") == b'"all";q=1;w=60, "extra";q=1;w=60'


def test_at_once(tmp_path: Path) -> None:
    made = stand(tmp_path, {"name": "two", "concurrent": 2})
    made.pool.answers = False
    first, second = made.h1().feed(GET % (b"/", b"")), None
    jobs = list(made.pool.jobs)
    second = made.h1().feed(GET % (b"/", b""))
    jobs += made.pool.jobs
    assert status(ask(made)) == 429
    jobs[0].answer()
    assert status(first.link.written) == 200
    made.h1().feed(GET % (b"/", b""))
    assert len(made.pool.jobs) == 1, "one ended, one may begin"
    assert status(ask(made)) == 429
    second.h1.connection_lost(None)
    made.h1().feed(GET % (b"/", b""))
    assert len(made.pool.jobs) == 1, "one left, one may begin"


def test_what_only_the_reply_tells(tmp_path: Path) -> None:
    made = stand(tmp_path, {"name": "bytes", "bytes": 100, "key": "http.host"},
                 {"name": "score", "score": 10, "score_header": "x-score", "key": "http.host"},
                 {"name": "errors", "requests": 1, "key": "http.host",
                  "counting_expression": "http.response.code eq 404"})  # fmt: skip

    def answer(code: int, score: bytes, size: int) -> bytes:
        made.pool.answers = False
        driver = made.h1().feed(GET % (b"/", b""))
        if made.pool.jobs:
            exchange = made.pool.jobs[0].exchange
            made.gateway.reply(exchange, Reply(code, [(b"x-score", score)], size), b"x" * size, True)
        return driver.link.written

    assert status(answer(200, b"4", 10)) == 200
    assert header(answer(200, b"many", 10), b"ratelimit") == b'"bytes";r=90;t=6, "score";r=6;t=24, "errors";r=1;t=0'
    assert header(answer(200, b"7", 10), b"ratelimit") == b'"bytes";r=80;t=12, "score";r=6;t=24, "errors";r=1;t=0'
    assert status(answer(200, b"0", 10)) == 429, "score is owed"
    made.now += 60_000_000  # type: ignore[attr-defined]
    assert status(answer(404, b"0", 500)) == 404
    assert status(answer(200, b"0", 0)) == 429


ASK = b'{"model":"m","messages":[{"role":"user","content":"hi"}],"max_tokens":50%b}'
USAGE = b'"usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}'


def chat(made: Stand, more: bytes = b"", path: bytes = b"/v1/chat/completions") -> tuple[Any, Any]:
    """A chat request. Returns: its driver, and its job, None when it did not come through."""
    made.pool.answers = False
    body = ASK % more
    sent = b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
    driver = made.h1().feed(sent % (path, len(body), body))
    if made.pool.jobs:
        job = made.pool.jobs[0]
        job.exchange.served_by = SimpleNamespace(quoted=b'"t"')  # as a real pool does
        return driver, job
    return driver, None


def left(made: Stand) -> int:
    """Tokens that are left, by a request that takes none."""
    (quota,) = [limit.quota for limit in made.snapshot.limits if limit.counts == "tokens"]
    found: list[Any] = []
    facts_key = made.snapshot.limits[0].key(_host_facts(made))
    made.gateway.store.peek([Charge(quota, cast("bytes", facts_key), 0)], found.append)
    return int(found[0][0].remaining)


def _host_facts(made: Stand) -> Any:
    made.pool.answers = False
    made.h1().feed(GET % (b"/", b""))
    exchange = made.pool.jobs[0].exchange
    made.pool.answers = True
    return exchange.plan.facts(exchange.request, exchange.ray)


TOKENS = {"name": "tokens", "tokens": 1000, "reserve": 10, "key": "http.host", "algorithm": "fixed-window", "period": "1h"}


def test_tokens_are_set_aside_and_settled(tmp_path: Path) -> None:
    made = stand(tmp_path, TOKENS)
    driver, job = chat(made)
    aside = 1000 - left(made)
    assert 50 < aside < 80, "the prompt's estimate, and what the request allows"
    content = b'{"choices":[{"message":{"content":"hello"}}],%b}' % USAGE
    made.gateway.reply(job.exchange, Reply(200, [(b"content-type", b"application/json")], len(content)), content, True)
    assert status(driver.link.written) == 200 and driver.link.written.endswith(content)
    assert left(made) == 990
    assert header(driver.link.written, b"x-ratelimit-limit-tokens") == b"1000"
    assert made.stats.limits[("tokens", "refunded")] == aside - 10


def test_a_stream_reports_what_its_client_does_not_see(tmp_path: Path) -> None:
    made = stand(tmp_path, TOKENS)
    driver, job = chat(made, b',"stream":true')
    assert b'"include_usage":true' in job.body and job.exchange.request.length == len(job.body)
    head = [(b"content-type", b"text/event-stream")]
    made.gateway.reply(job.exchange, Reply(200, head, None, stream=True), b"", False)
    text = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'
    for piece in (text, text, b'data: {"choices":[],%b}\n\n' % USAGE, b"data: [DONE]\n\n"):
        job.exchange.write(piece, False)
    job.exchange.write(b"", True)
    assert b"usage" not in driver.link.written.partition(b"\r\n\r\n")[2] and b"[DONE]" in driver.link.written
    assert driver.link.written.endswith(b"0\r\n\r\n") and left(made) == 990


@pytest.mark.parametrize("how", ["client", "upstream", "before", "error"])
def test_however_it_ends_tokens_are_settled_once(tmp_path: Path, how: str) -> None:
    made = stand(tmp_path, TOKENS)
    driver, job = chat(made, b',"stream":true')
    head, text = [(b"content-type", b"text/event-stream")], b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'
    if how == "before":
        job.exchange.served_by = None
        job.exchange.fail(upstream_fault(502, "connect", "x"))
        assert left(made) == 1000, "no upstream took it"
        return
    if how == "error":
        made.gateway.reply(job.exchange, Reply(500, [], 2), b"no", True)
        assert left(made) == 1000, "services do not charge for errors"
        return
    made.gateway.reply(job.exchange, Reply(200, head, None, stream=True), text * 5, False)
    if how == "client":
        driver.h1.connection_lost(None)
    else:
        job.exchange.fail(upstream_fault(502, "truncated", "x"))
    used = 1000 - left(made)
    assert 5 < used < 40, "what was sent, and the prompt"
    assert used == 1000 - left(made)


def test_who_cannot_be_read_pays_what_was_set_aside(tmp_path: Path) -> None:
    made = stand(tmp_path, TOKENS)
    _, job = chat(made, b',"stream":true')
    aside = 1000 - left(made)
    head = [(b"content-type", b"text/event-stream"), (b"content-encoding", b"gzip")]
    made.gateway.reply(job.exchange, Reply(200, head, None, stream=True), b"\x1f\x8b", True)
    assert 1000 - left(made) == aside > 50


def test_over_the_limit_of_tokens(tmp_path: Path) -> None:
    made = stand(tmp_path, {**TOKENS, "tokens": 60})
    _, job = chat(made)
    assert job is not None
    driver, refused = chat(made)
    error = json.loads(driver.link.written.partition(b"\r\n\r\n")[2])["error"]
    assert refused is None and status(driver.link.written) == 429
    assert (error["type"], error["code"]) == ("tokens", "rate_limit_exceeded")
    made.pool.answers = True
    assert status(ask(made, b"/other")) == 200, "what has no tokens is not under it"


class Slow:
    """A store that answers when it is told to."""

    def __init__(self, inner: EmbeddedStore) -> None:
        self.inner = inner
        self.waiting: list[Callable[[], None]] = []

    def admit(self, charges: Sequence[Charge], lease: bytes, done: Admitted) -> None:
        self.waiting.append(lambda: self.inner.admit(charges, lease, done))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def test_a_store_that_answers_later(tmp_path: Path) -> None:
    made = stand(tmp_path, {"name": "a", "requests": 2}, {"name": "b", "concurrent": 1})
    slow = Slow(cast("EmbeddedStore", made.gateway.store))
    made.gateway.store = cast("Any", slow)
    gone, stays = made.h1().feed(GET % (b"/", b"")), None
    gone.h1.connection_lost(None)
    stays = made.h1().feed(GET % (b"/", b""))
    assert stays.link.written == b""
    for each in slow.waiting:
        each()
    assert status(stays.link.written) == 200
    assert header(stays.link.written, b"ratelimit") == b'"a";r=1;t=30, "b";r=0;t=60', "who left gave back what was still granted"


def test_nobody_can_be_asked(tmp_path: Path) -> None:
    made = stand(tmp_path, {"name": "a", "requests": 1})

    def answers(allowed: bool) -> None:
        by: Any = "open" if allowed else "closed"
        made.gateway.store = cast("Any", SimpleNamespace(
            admit=lambda charges, lease, done: done(Admission(allowed, (), by)), settle=lambda changes, lease: None))  # fmt: skip

    answers(True)
    assert [status(ask(made)) for _ in range(3)] == [200] * 3
    answers(False)
    assert status(ask(made)) == 503
    assert made.stats.limits == {("a", "unasked"): 4}


@pytest.mark.parametrize(("limit", "message"), [
    ({"name": "a"}, "one amount"), ({"name": "a", "requests": 1, "bytes": 2}, "one amount"),
    ({"name": "a", "requests": 1, "key": ["ip.scr"]}, "unknown field 'ip.scr'"),
    ({"name": "a", "requests": 1, "expression": "ip.src"}, "limits\\[0\\].expression"),
    ({"name": "a", "score": 1}, "score_header"),
    ({"name": "a", "tokens": 1, "counting_expression": "http.response.code eq 200"}, "reply's usage"),
    ({"name": "a", "requests": 1, "algorithm": "fixed-window", "burst": 2}, "gcra"),
    ({"name": "a", "requests": 0}, "at least 1"), ({"name": "a b", "requests": 1}, "is not an id"),
])  # fmt: skip
def test_what_is_no_limit(tmp_path: Path, limit: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        stand(tmp_path, limit)


def reply_with(made: Stand, fields: list[tuple[bytes, bytes]], path: bytes = b"/v1/x") -> bytes:
    made.pool.answers = False
    driver = made.h1().feed(GET % (path, b""))
    if made.pool.jobs:
        made.gateway.reply(made.pool.jobs[0].exchange, Reply(200, fields, 0), b"", True)
    return driver.link.written


def test_an_upstreams_own_word_is_replaced(tmp_path: Path) -> None:
    made = stand(tmp_path, {"name": "a", "requests": 100})
    written = reply_with(made, [(b"x-ratelimit-remaining-requests", b"9999"), (b"x-ratelimit-other", b"1")])
    assert written.count(b"x-ratelimit-remaining-requests") == 1 and header(written, b"x-ratelimit-remaining-requests") == b"99"
    assert header(written, b"x-ratelimit-other") == b"1"


def test_two_scores_and_a_rule_that_hides_them(tmp_path: Path) -> None:
    scores = [{"name": n, "score": 100, "score_header": f"x-{n}", "key": "http.host"} for n in ("a", "b")]
    hides = "- {id: out, phase: response, expression: ssl, action: rewrite, headers: {remove: [x-a]}}"
    made = stand(tmp_path, *scores, rules=hides)
    assert header(reply_with(made, [(b"x-a", b"60"), (b"x-b", b"1")]), b"x-a") is None
    assert header(reply_with(made, []), b"ratelimit") == b'"a";r=40;t=36, "b";r=99;t=1'


def test_limits_on_trial_hide_no_other_and_only_see_who_is_let_through(tmp_path: Path) -> None:
    tries = [{"name": f"t{n}", "requests": n, "mode": "log", "key": "http.host"} for n in (1, 2)]
    made = stand(tmp_path, *tries, {"name": "act", "requests": 3})
    assert [status(ask(made)) for _ in range(5)] == [200, 200, 200, 429, 429]
    assert {key: n for key, n in made.stats.limits.items() if key[0] != "act"} == {
        ("t1", "allowed"): 1, ("t1", "limited"): 2, ("t2", "allowed"): 2, ("t2", "limited"): 1,
    }  # fmt: skip


def test_what_can_never_pass_says_so(tmp_path: Path) -> None:
    made = stand(tmp_path, {**TOKENS, "tokens": 40})
    written = chat(made)[0].link.written
    assert status(written) == 429 and header(written, b"x-should-retry") == b"false" and header(written, b"retry-after") is None
    assert b"may take" in written
    assert status(reply_with(made, [])) == 200


def test_used_up_tokens_refuse_nobody_else(tmp_path: Path) -> None:
    made = stand(tmp_path, {**TOKENS, "tokens": 70})
    chat(made)
    assert status(chat(made)[0].link.written) == 429
    assert status(reply_with(made, [], b"/v1/models")) == 200 and status(reply_with(made, [], b"/plain")) == 200


def test_a_limit_cannot_read_a_body_and_rules_name_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not known where limits are asked"):
        stand(tmp_path, {"name": "a", "requests": 1, "key": "http.request.body.raw"})
    with pytest.raises(ConfigError, match="no limit 'typo' with 'named: true'"):
        stand(tmp_path, {"name": "a", "requests": 1}, rules="- {id: x, expression: ssl, action: set, limits: [typo]}")
    with pytest.raises(ConfigError, match="none would ever pass"):
        stand(tmp_path, {"name": "a", "tokens": 1000})
