# A chat request and its answer under limits of tokens: what is charged where little can be read, and what is never touched.
"""tokens.py with real bodies and heads, without a pipeline; with one: test_admission.py."""

from __future__ import annotations

import gzip
import json
import logging
import zlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeproxy import tokens
from edgeproxy.chat.stripping import UsageStripper
from edgeproxy.chat.usage import UNREAD, Meter, Usage
from edgeproxy.message import Body, Headers, Peer, Reply, Request
from edgeproxy.tokens import Asked

CHAT = b'{"model":"m","messages":[{"role":"user","content":"hi"}],"max_tokens":50,"stream":true}'
SSE: Headers = [(b"content-type", b"text/event-stream")]
JSON: Headers = [(b"content-type", b"application/json")]
TEXT = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}}\n\n'


class Sent:
    """One exchange, as far as `Asked` looks at it."""

    def __init__(
        self, content: bytes = CHAT, dialect: str = "openai", *, truncated: bool = False, preview: int = 10_000,
        length: int | None = -1, fields: Headers | None = None,
    ) -> None:  # fmt: skip
        request = Request(b"POST", b"a", b"/", fields or [], len(content) if length == -1 else length, 0,
                          Peer("::1", trusted=False, secure=True))  # fmt: skip
        self.body = Body(None)
        self.body.push(content)
        self.exchange = cast("Any", SimpleNamespace(request=request, body=self.body))
        self.asked = Asked(dialect, self.exchange, content, truncated, preview)
        self.reserved = self.asked.reserve(1000)
        if not truncated:
            route = cast("Any", SimpleNamespace(asks_usage=True, preview=preview))
            self.asked.ask_for_usage(self.exchange, content, route)
        self.changed = b"".join(self.body.chunks) != content

    def answered(self, *data: bytes, headers: Headers = SSE, status: int = 200) -> bytes:
        """What the client gets of an answer."""
        reply = Reply(status, list(headers), None, stream=headers[0] == SSE[0])
        self.asked.replied(reply)
        return b"".join([self.asked.take(each, False) for each in data]) + self.asked.take(b"", True)

    @property
    def charged(self) -> int:
        """Tokens."""
        usage = self.asked.usage(True)
        assert usage is not None and usage == self.asked.usage(True), "two tickets may ask"
        return usage.charged(self.reserved)


@pytest.mark.parametrize("length", [-1, None], ids=["declared", "chunked"])
def test_a_prompt_that_cannot_be_read_is_not_free(length: int | None) -> None:
    content = b"{'model': " + b"hello " * 1000
    unanswered, broken, told = (Sent(content, length=length) for _ in range(3))
    assert unanswered.asked.ask is None and unanswered.charged == len(content) // 4
    broken.answered(TEXT * 5)
    assert len(content) // 4 < broken.charged < len(content) // 4 + 10
    told.answered(TEXT, USAGE)
    assert told.charged == 10, "models are believed"
    assert unanswered.asked.usage(False) is None


def test_what_comes_of_a_body_after_the_reply_s_head_counts_too() -> None:
    sent = Sent(b"x" * 4000, truncated=True, length=None)
    sent.answered(TEXT)
    assert sent.charged == 1001
    sent.body.push(b"x" * 4000)
    assert sent.charged == 2001
    assert Sent(b"x" * 40, truncated=True, length=8000).charged == 2000, "what it declared"


def test_a_prompt_behind_a_byte_order_mark() -> None:
    sent = Sent(b"\xef\xbb\xbf" + CHAT)
    assert sent.asked.ask is not None and not sent.changed
    assert 50 < sent.reserved < 80


@pytest.mark.parametrize(("coding", "pack"), [(b"gzip", gzip.compress), (b"deflate", zlib.compress)])
def test_a_coded_prompt_costs_what_it_says(coding: bytes, pack: Callable[[bytes], bytes]) -> None:
    content = CHAT.replace(b"hi", b"How are you today, and how is the weather? " * 40)
    plain, coded = Sent(content), Sent(pack(content), fields=[(b"content-encoding", coding)])
    assert coded.reserved == plain.reserved > 400 and not coded.changed
    assert coded.charged == coded.asked.usage(True).prompt  # type: ignore[union-attr]  # of an upstream that was reached
    assert Sent(content, fields=[(b"content-encoding", b"identity")]).reserved == plain.reserved


def test_a_coded_prompt_that_is_not_read_is_taken_to_be_long() -> None:
    br = [(b"content-encoding", b"br")]
    assert Sent(b"x" * 400, fields=br).reserved == 8 * 400 // 4 + 1000
    assert Sent(b"x" * 400, fields=br, truncated=True, length=8000).reserved == 8 * 8000 // 4 + 1000
    twice = [(b"content-encoding", b"gzip"), (b"content-encoding", b"gzip")]
    assert Sent(b"x" * 400, fields=twice).reserved == 8 * 400 // 4 + 1000
    bomb = gzip.compress(CHAT.replace(b"hi", b"x" * 1_000_000))
    assert Sent(bomb, fields=[(b"content-encoding", b"gzip")]).reserved == (32 * len(bomb) + 65536) // 4 + 1000
    plain = gzip.compress(b"no JSON " * 100)
    assert Sent(plain, fields=[(b"content-encoding", b"gzip")]).reserved == 800 // 4 + 1000


def test_a_coded_prompt_is_read_no_further_than_one_that_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    monkeypatch.setattr(tokens, "read_ask", lambda _dialect, content: read.append(len(content)))
    content = CHAT.replace(b"hi", b"How are you today? " * 1000)
    coded = Sent(gzip.compress(content, 1), fields=[(b"content-encoding", b"gzip")], preview=10_000)
    assert not read and coded.reserved == len(content) // 4 + 1000
    Sent(gzip.compress(content, 1), fields=[(b"content-encoding", b"gzip")], preview=len(content))
    assert read == [len(content)]


@pytest.mark.parametrize("kind", [SSE, JSON])
def test_a_coded_answer_costs_what_was_reserved(kind: Headers) -> None:
    sent = Sent()
    assert sent.changed
    data = TEXT + USAGE
    assert sent.answered(data, headers=[*kind, (b"content-encoding", b"gzip")]) == data, "nothing is taken out"
    assert sent.charged == sent.reserved > 50
    assert Sent(CHAT[:-1]).charged < sent.reserved
    failed = Sent()
    failed.answered(b"no", headers=[*kind, (b"content-encoding", b"br")], status=503)
    assert failed.charged == 0


def test_an_answer_that_is_none_of_a_model() -> None:
    sent, long = Sent(), Sent()
    sent.answered(b"<p>hello</p>", headers=[(b"content-type", b"text/html")])
    assert sent.charged == sent.reserved
    long.answered(b"x" * 40_000, headers=[(b"content-type", b"text/html")])
    assert long.charged >= long.reserved


def test_the_usage_of_the_background_comes_later() -> None:
    body = b'{"model":"m","input":"hi","background":true,"max_output_tokens":500%b}'
    queued, streamed, reset, failed = Sent(body % b"", "responses"), *(Sent(body % b',"stream":true', "responses") for _ in "abc")
    queued.answered(b'{"id":"r","status":"queued","usage":null}', headers=JSON)
    assert queued.charged == queued.reserved > 500
    streamed.answered(b'data: {"type":"response.completed","response":{"usage":{"input_tokens":4,"output_tokens":5}}}\n\n')
    assert streamed.charged == 9
    assert reset.charged < 100, "the upstream did not answer"
    failed.answered(b"{}", headers=JSON, status=500)
    assert failed.charged == 0
    here = Sent(body.replace(b"true", b"false") % b"", "responses")
    here.answered(b'{"id":"r","status":"completed","usage":null}', headers=JSON)
    assert here.charged < 100


@pytest.mark.parametrize(
    "name", ["content-digest", "repr-digest", "digest", "content-md5", "signature", "signature-input", "content-encoding"]
)
def test_a_body_that_its_sender_vouches_for_is_not_changed(name: str) -> None:
    sent = Sent(fields=[(b"a", b"b"), (name.encode(), b"x")])
    assert not sent.changed and sent.exchange.request.length == len(CHAT)
    assert sent.answered(TEXT, USAGE) == TEXT + USAGE and sent.charged == 10
    assert Sent(fields=[(b"a", b"b")]).changed


def test_a_body_does_not_become_longer_than_the_preview() -> None:
    grown = len(b"".join(Sent().body.chunks))
    assert grown > len(CHAT)
    assert Sent(preview=grown).changed and not Sent(preview=grown - 1).changed


class Odd(Exception):
    pass


def fails(*_: Any) -> Any:
    raise Odd("secret")


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(tokens, "_told", set())
    caplog.set_level(logging.WARNING)
    return caplog


@pytest.mark.parametrize("method", ["feed", "usage"])
def test_a_meter_that_fails(monkeypatch: pytest.MonkeyPatch, told: pytest.LogCaptureFixture, method: str) -> None:
    broken = SimpleNamespace(**{"feed": lambda _: False, "usage": fails, method: fails})
    monkeypatch.setattr(tokens, "meter", lambda *_: broken)
    for _ in range(2):
        sent = Sent()
        assert sent.answered(TEXT, TEXT, USAGE) == TEXT + TEXT
        assert sent.asked.usage(True) == UNREAD and sent.charged == sent.reserved
    assert len(told.messages) == 1 and "Odd" in told.messages[0] and "secret" not in told.messages[0]


@pytest.mark.parametrize("method", ["feed", "finish"])
@pytest.mark.parametrize("before", [b"", TEXT[:9]])
def test_a_stripper_that_fails(
    monkeypatch: pytest.MonkeyPatch, told: pytest.LogCaptureFixture, method: str, before: bytes
) -> None:
    sent = Sent()
    sent.asked.replied(Reply(200, list(SSE), None, stream=True))
    passed = sent.asked.take(TEXT + before, False)
    assert passed == TEXT
    monkeypatch.setattr(UsageStripper, method, fails)
    rest = (TEXT + USAGE)[len(before) :]
    assert sent.asked.take(rest, True) == TEXT + USAGE, "nothing is lost, nothing comes twice"
    assert sent.charged == 10 and len(told.messages) == 1


def test_no_reply_costs_the_prompt() -> None:
    sent = Sent()
    ask = sent.asked.ask
    assert ask is not None and sent.asked.usage(True) == Usage(ask.prompt, 0, 0, ask.prompt, estimated=True)
    assert Meter(ask).usage() == sent.asked.usage(True)


def test_a_stream_that_reports_nothing_is_estimated() -> None:
    sent = Sent(json.dumps({"model": "m", "messages": [], "max_tokens": 900, "stream": True}).encode())
    sent.answered(*[TEXT] * 20)
    assert 20 <= sent.charged < 60 < sent.reserved


PIECES = [
    TEXT, TEXT * 3, USAGE, b"data: [DONE]\n\n", TEXT.replace(b"\n", b"\r\n"), TEXT[:20], TEXT[20:], USAGE[:-1], b"\n",
    b"data: " + b'"choices"' * 3000, b": ping\n\n", b"\r\n\r\n",
]  # fmt: skip


@settings(deadline=None, max_examples=300)
@given(st.lists(st.sampled_from(PIECES), max_size=30))
def test_what_the_client_sees_does_not_depend_on_the_meter(pieces: list[bytes]) -> None:
    alone = UsageStripper()
    expected = b"".join([*(alone.feed(piece) for piece in pieces), alone.feed(b""), alone.finish()])
    assert Sent().answered(*pieces) == expected
