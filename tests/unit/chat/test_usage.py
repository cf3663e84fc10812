# Usage read from replies as they pass: shapes of the official SDKs, any chunking, broken streams, text that pretends.
from __future__ import annotations

import gzip
import json
import random
from typing import Any

import pytest
from anthropic.types import Message, RawMessageDeltaEvent, RawMessageStartEvent
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from openai.types import CreateEmbeddingResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseCompletedEvent

from edgeproxy.chat import usage as module
from edgeproxy.chat.asking import Ask
from edgeproxy.chat.usage import NOTHING, TAIL, Meter, Usage, meter
from edgeproxy.demo import shapes
from edgeproxy.demo.answers import Answer
from edgeproxy.demo.answers import Ask as DemoAsk

SSE = b"text/event-stream; charset=utf-8"
JSON = b"application/json"
ASK = Ask("m", True, True, 40, None, 1, False)
DIALECTS = {"openai": shapes.CHAT, "anthropic": shapes.MESSAGES, "responses": shapes.RESPONSES}
PROSE = (
    "All human beings are born free and equal in dignity and rights. They are endowed with reason and conscience and should "
    "act towards one another in a spirit of brotherhood. Everyone is entitled to all the rights and freedoms set forth in "
    "this Declaration, without distinction of any kind, such as race, colour, sex, language, religion, political or other "
    "opinion, national or social origin, property, birth or other status. "
)


def read(dialect: str, parts: list[bytes], kind: bytes | None = SSE, ask: Ask | None = ASK, status: int = 200) -> Usage:
    measuring = meter(dialect, ask, status, kind)
    for part in parts:
        measuring.feed(part)
    found = measuring.usage()
    assert measuring.usage() == found  # asked twice, answered alike
    return found


def written(dialect: str, tokens: list[str], include_usage: bool = True) -> list[bytes]:
    """The demonstration backend's events of an answer."""
    asked = DemoAsk("gpt-4o-mini", "", "", 1, 0, 12, True, include_usage, None)
    writer = DIALECTS[dialect].writer(Answer(asked, tuple(tokens), False), "id", 1.0)
    return [writer.opening(), *map(writer.token, tokens), writer.closing()]


def whole(dialect: str, tokens: list[str]) -> bytes:
    asked = DemoAsk("gpt-4o-mini", "", "", 1, 0, 12, False, False, None)
    return json.dumps(DIALECTS[dialect].writer(Answer(asked, tuple(tokens), False), "id", 1.0).whole()).encode()


def sse(*data: Any, end: str = "\n") -> bytes:
    texts = [item if isinstance(item, str) else json.dumps(item) for item in data]
    return "".join(f"data: {text}{end}{end}" for text in texts).encode()


TOKENS = [f" word{number}" for number in range(9)]
LIES = [
    'He said "usage": {"prompt_tokens": 999, "completion_tokens": 999, "output_tokens": 999, "input_tokens": 999}',
    '"usage"', '","usage":{"prompt_tokens":999,"completion_tokens":999,"input_tokens":999,"output_tokens":999},"x":"', '\\"usage',
    '\n\ndata: {"usage":{"prompt_tokens":999,"completion_tokens":999}}\n\n', 'prompt_tokens"', 'output_tokens"', "\\", '"',
    '{"type":"message_delta","usage":{"output_tokens":999}}', '"choices"', ".delta", "content_block_delta",
]  # fmt: skip


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("tokens", [TOKENS, LIES], ids=["words", "lies"])
def test_what_the_demonstration_backend_reports(dialect: str, tokens: list[str]) -> None:
    expected = Usage(12, len(tokens), 0, 12 + len(tokens), estimated=False)
    assert read(dialect, written(dialect, tokens)) == expected
    assert read(dialect, [whole(dialect, tokens)], JSON) == expected


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_at_every_position(dialect: str, end: bytes) -> None:
    stream = b"".join(written(dialect, TOKENS[:3] + LIES[:2])).replace(b"\n", end)
    expected = read(dialect, [stream])
    assert not expected.estimated
    assert read(dialect, [bytes([byte]) for byte in stream]) == expected
    for at in range(len(stream)):
        assert read(dialect, [stream[:at], stream[at:]]) == expected


CHAT_USAGE = {
    "prompt_tokens": 1117, "completion_tokens": 46, "total_tokens": 1163,
    "prompt_tokens_details": {"cached_tokens": 1024, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 12, "audio_tokens": 0, "accepted_prediction_tokens": 0},
}  # fmt: skip
RESPONSES_USAGE = {
    "input_tokens": 36, "input_tokens_details": {"cached_tokens": 20, "cache_write_tokens": 0}, "output_tokens": 87,
    "output_tokens_details": {"reasoning_tokens": 64}, "total_tokens": 123,
}  # fmt: skip
ANTHROPIC_USAGE = {
    "cache_creation": {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 0}, "cache_creation_input_tokens": 100,
    "cache_read_input_tokens": 2000, "input_tokens": 30, "output_tokens": 5, "server_tool_use": None, "service_tier": "standard",
}  # fmt: skip
RESPONSE = {
    "id": "resp_1", "object": "response", "created_at": 1.0, "status": "completed", "error": None, "incomplete_details": None,
    "instructions": None, "model": "gpt-5", "output": [], "parallel_tool_calls": True, "temperature": 1.0,
    "tool_choice": "auto", "tools": [], "top_p": 1.0, "usage": RESPONSES_USAGE, "metadata": {"usage": "mine"}, "user": None,
}  # fmt: skip


def test_shapes_of_the_sdks() -> None:
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [], "usage": CHAT_USAGE}
    event = ChatCompletionChunk.model_validate(chunk).model_dump_json()
    expected = Usage(1117, 46, 1024, 1163, estimated=False)
    assert read("openai", [sse(event, "[DONE]")]) == expected
    reply = ChatCompletion.model_validate({**chunk, "object": "chat.completion"}).model_dump_json().encode()
    assert read("openai", [reply], JSON) == expected
    embedding = {"object": "list", "data": [], "model": "e", "usage": {"prompt_tokens": 8, "total_tokens": 8}}
    reply = CreateEmbeddingResponse.model_validate(embedding).model_dump_json().encode()
    assert read("openai", [reply], JSON) == Usage(8, 0, 0, 8, estimated=False)

    expected = Usage(36, 87, 20, 123, estimated=False)
    reply = Response.model_validate(RESPONSE).model_dump_json().encode()
    assert read("responses", [reply], JSON) == expected
    completed = {"type": "response.completed", "response": RESPONSE, "sequence_number": 9}
    assert read("responses", [sse(ResponseCompletedEvent.model_validate(completed).model_dump_json())]) == expected

    message = {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "content": [], "stop_reason": None,
        "stop_sequence": None, "usage": ANTHROPIC_USAGE,
    }  # fmt: skip
    reply = Message.model_validate(message).model_dump_json().encode()
    assert read("anthropic", [reply], JSON) == Usage(2130, 5, 2000, 2135, estimated=False)
    start = RawMessageStartEvent.model_validate({"type": "message_start", "message": message}).model_dump_json()
    delta = {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}}
    made = {"output_tokens": 64}
    for reported in (made, {**made, "cache_read_input_tokens": 2000}, {**ANTHROPIC_USAGE, **made}):
        end = RawMessageDeltaEvent.model_validate({**delta, "usage": reported}).model_dump_json()
        assert read("anthropic", [sse(start, end)]) == Usage(2130, 64, 2000, 2194, estimated=False)


def test_usage_in_every_chunk() -> None:
    """As vLLM does with `continuous_usage_stats`: what the last one said."""
    def chunk(made: int) -> dict[str, Any]:
        usage = {"prompt_tokens": 10, "completion_tokens": made, "total_tokens": 10 + made}
        return {"choices": [{"index": 0, "delta": {"content": " word"}}], "usage": usage}

    assert read("openai", [sse(chunk(1), chunk(2)), sse(chunk(3))]) == Usage(10, 3, 0, 13, estimated=False)


def test_text_behind_a_report_counts_too() -> None:
    early = {"choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 0, "total_tokens": 10}}
    text = {"choices": [{"index": 0, "delta": {"content": " word"}}]}
    assert read("openai", [sse(early, text, text, text)]) == Usage(10, 3, 0, 13, estimated=True)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("size", [3, 60])
def test_a_broken_stream_is_estimated_from_what_was_sent(dialect: str, size: int) -> None:
    """PROSE has 81 tokens by o200k, in one event a word and in events of 60 characters."""
    words = PROSE.split() if size == 3 else [PROSE[at : at + size] for at in range(0, len(PROSE), size)]
    tokens = [f" {word}" for word in words] if size == 3 else words
    for times in (1, 10):
        found = read(dialect, written(dialect, tokens * times)[:-1])
        assert found.estimated
        assert found.prompt == (12 if dialect == "anthropic" else ASK.prompt)
        assert 81 * times * 0.75 <= found.completion <= 81 * times * 1.3
        assert found.total == found.prompt + found.completion


@pytest.mark.parametrize("dialect", DIALECTS)
def test_repetitions_behind_the_text_are_no_text(dialect: str) -> None:
    """Responses sends all of the text three times more; then the connection breaks."""
    events = written(dialect, [f" {word}" for word in PROSE.split()])
    closing = events[-1]
    cut = closing.rfind(b"event: response.completed") if dialect == "responses" else 0
    found = read(dialect, [*events[:-1], closing[:cut]])
    assert found.estimated
    assert 60 <= found.completion <= 106


def test_tool_calls_and_reasoning_are_text() -> None:
    call = {"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"arguments": PROSE}}]}}]}
    thought = {"choices": [{"delta": {"reasoning_content": PROSE}}]}
    for event in (call, thought):
        assert 60 * 3 <= read("openai", [sse(event)] * 3).completion <= 106 * 3
    thinking = {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": PROSE}}
    arguments = {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": PROSE}}
    for event in (thinking, arguments):
        assert 60 * 3 <= read("anthropic", [sse(event)] * 3).completion <= 106 * 3


def test_an_estimate_is_never_above_the_bound() -> None:
    ask = ASK._replace(completion=5)
    assert read("openai", written("openai", TOKENS)[:-1], ask=ask).completion == 5
    start = written("anthropic", TOKENS)[:-1]
    assert read("anthropic", start, ask=ask).completion == 5
    assert read("openai", [b'{"data":[' + b"0.5," * 1000], JSON, ask=ask._replace(completion=0)) == Usage(40, 0, 0, 40, True)
    # What the model reports is believed, whatever was asked.
    assert read("openai", written("openai", TOKENS), ask=ask).completion == len(TOKENS)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_truncated_document_is_estimated(dialect: str) -> None:
    document = whole(dialect, [PROSE] * 10)
    cut = document[: document.index(b"or other status") + 3000]
    found = read(dialect, [cut[:100], cut[100:]], JSON)
    assert found.estimated
    assert 81 * 6 <= found.completion <= 81 * 14
    assert read(dialect, [], JSON) == read(dialect, []) == Usage(40, 0, 0, 40, estimated=True)


def test_errors_cost_nothing_and_other_bodies_a_guess() -> None:
    assert read("openai", [whole("openai", TOKENS)], JSON, status=429) == NOTHING
    assert read("openai", [b"x" * 400], b"text/html") == Usage(40, 100, 0, 140, estimated=True, unread=True)
    coded = meter("openai", ASK, 200, JSON, coded=True)
    coded.feed(b"\x1f" * 400)
    assert coded.usage() == Usage(40, 100, 0, 140, estimated=True, unread=True)
    assert read("openai", [whole("openai", TOKENS)], None) == Usage(12, 9, 0, 21, estimated=False)
    assert not read("openai", [whole("openai", TOKENS)], b"application/problem+JSON ; x=y").estimated


@pytest.mark.parametrize(
    "usage",
    [{}, {"prompt_tokens": -1, "completion_tokens": 1}, {"prompt_tokens": 10**12, "completion_tokens": 1},
     {"prompt_tokens": "1", "completion_tokens": 1}, {"completion_tokens": 1}, [], 5, "text", None],
)  # fmt: skip
def test_reports_that_are_none(usage: Any) -> None:
    assert read("openai", [sse({"choices": [], "usage": usage, "x": 'prompt_tokens"'})]).estimated
    assert read("openai", [json.dumps({"choices": [], "usage": usage}).encode()], JSON).estimated


@pytest.mark.parametrize("dialect", DIALECTS)
def test_what_cannot_be_read_is_charged_as_it_was_reserved(dialect: str) -> None:
    packed = gzip.compress(b"".join(written(dialect, TOKENS)))
    strange = json.dumps({"usage": {"input_tokens": "9", "output_tokens": 1.5, "prompt_tokens": -1}}).encode()
    early = json.dumps({"usage": {"prompt_tokens": 9}, "x": "y" * 3 * TAIL}).encode()
    cases = [(SSE, packed), (JSON, packed), (b"x/y", packed), (JSON, b" ", b"[1]"), (JSON, strange), (JSON, early)]
    for kind, *parts in cases:
        found = read(dialect, parts, kind)
        assert found.unread and found.charged(10**6) == 10**6 and found.charged(1) == found.total
    meters = meter(dialect, ASK, 200, SSE, coded=True)
    meters.feed(b"x")
    assert meters.usage().unread


@pytest.mark.parametrize("dialect", DIALECTS)
def test_what_is_read_or_cut_is_charged_as_it_is(dialect: str) -> None:
    stream, document = b"".join(written(dialect, TOKENS, include_usage=False)), whole(dialect, TOKENS)
    for at in range(len(stream)):
        assert read(dialect, [stream[:at]]).charged(10**6) < 10**6
    cut = document[: document.rindex(b'"usage"')]
    for parts, kind in (([document], JSON), ([b"\n", cut], JSON), ([b'{"error":{}}'], JSON), ([], b"x/y")):
        assert read(dialect, parts, kind).charged(10**6) < 10**6
    pings, error = (b": ping\n\n", b"\n\n: ping\r\n\r\n"), b'event: error\ndata: {"error":{}}\n\n'
    for text in (*pings, error, b"\n\n", b"\xef\xbb\xbfdata: {}\n\n"):
        assert not read(dialect, [text]).unread


def test_what_was_asked_may_be_told_later() -> None:
    stream, none = meter("openai", None, 200, SSE), Meter(None)
    stream.feed(written("openai", TOKENS)[0])
    assert (stream.usage().prompt, none.usage().prompt) == (0, 0)
    stream.ask = none.ask = ASK
    assert (stream.usage().prompt, none.usage()) == (40, Usage(40, 0, 0, 40, estimated=True))


# --- documents and events that are longer than what is kept


def long_response(tools: list[Any], after: dict[str, Any] | None = None) -> dict[str, Any]:
    text = "Some text. \"usage\": {}" * 12000
    output = [{"type": "message", "content": [{"type": "output_text", "text": text}]}]
    return {"id": "r", "tools": tools, "output": output, "usage": RESPONSES_USAGE, **(after or {})}


LYING_USER = '"usage":{"input_tokens":1,"output_tokens":1}'
LYING_TOOL = {"parameters": {"properties": {"usage": {"input_tokens": 1, "output_tokens": 1}}}}


@pytest.mark.parametrize("chunk", [1000, 16384, 10**9])
@pytest.mark.parametrize("after", [{}, {"metadata": {"usage": "x", "b": '\\"usage"'}, "user": LYING_USER}])
def test_the_end_of_a_long_document_proves_itself(chunk: int, after: dict[str, Any]) -> None:
    response = long_response([], after)
    expected = Usage(36, 87, 20, 123, estimated=False)
    document = json.dumps(response).encode()
    assert len(document) > 2 * TAIL
    assert read("responses", [document[at : at + chunk] for at in range(0, len(document), chunk)], JSON) == expected
    event = sse({"type": "response.completed", "response": response, "sequence_number": 4})
    assert read("responses", [event[at : at + chunk] for at in range(0, len(event), chunk)]) == expected


def test_a_lie_at_the_end_of_a_long_document_is_none() -> None:
    response = long_response([], {"usage": None, "tools": [LYING_TOOL], "metadata": {"usage": "1"}})
    assert read("responses", [json.dumps(response).encode()], JSON).estimated
    assert read("responses", [sse({"type": "response.completed", "response": response})]).estimated
    escaped = long_response([], {"usage": None, 'z"usage': {"input_tokens": 1, "output_tokens": 1}})
    assert read("responses", [json.dumps(escaped).encode()], JSON).estimated
    nested = long_response([], {"usage": None, "z": {"usage": {"input_tokens": 1, "output_tokens": 1}}})
    assert read("responses", [json.dumps(nested).encode()], JSON).estimated


def test_long_embeddings() -> None:
    data = [{"object": "embedding", "index": 0, "embedding": [random.Random(1).random()] * 40000}]
    document = json.dumps({"object": "list", "data": data, "usage": {"prompt_tokens": 8, "total_tokens": 8}}).encode()
    assert read("openai", [document[at : at + 5000] for at in range(0, len(document), 5000)], JSON) == Usage(8, 0, 0, 8, False)


@pytest.mark.parametrize("kind", [SSE, JSON])
@pytest.mark.parametrize("unit", [b"data: {\"choices\":[" + b"[" * 1000, b"x" * 1017, b"\r\n: c", b"data: x\r", b"\n"])
def test_memory_is_bounded(kind: bytes, unit: bytes) -> None:
    measuring: Any = meter("openai", ASK, 200, kind)
    for _ in range(2000):
        measuring.feed(unit)
        assert len(measuring._held) <= 2 * TAIL + len(unit)
    measuring.usage()


def test_much_text_is_kept_of_no_stream() -> None:
    measuring: Any = meter("openai", ASK, 200, SSE)
    event = sse({"choices": [{"delta": {"content": "x" * 20_000}}]})
    for _ in range(500):
        measuring.feed(event)
    assert sum(map(len, measuring._sent._texts)) < 50_000
    # One character without end is no language; the point is that size was counted, not text.
    assert measuring.usage().completion > 500 * 1000


# --- any chunking

BROKEN = b'data: {"choices":'  # the line goes on with what follows, which makes no JSON
TEXTS = [*TOKENS[:2], *LIES, PROSE, "y" * 700, "é" * 300]
LINES = [
    *(sse({"id": "c", "choices": [{"delta": {"content": text}}], "usage": None}) for text in TEXTS),
    sse({"choices": [], "usage": CHAT_USAGE}),
    b": ping\n\n", b"event: x\n", b"\n", BROKEN, b"data: [DONE]\n\n",
]  # fmt: skip
MIXED = [*LINES, *(line.replace(b"\n", end) for line in LINES for end in (b"\r", b"\r\n"))]


def in_two_ways(stream: bytes, sizes: list[int]) -> tuple[Usage, Usage]:
    cuts, at = [], 0
    for size in sizes:
        cuts.append(stream[at : at + size])
        at += size
    cuts.append(stream[at:])
    return read("openai", cuts), read("openai", [stream])


CHECKS = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
SLOW = settings(suppress_health_check=CHECKS, deadline=None, max_examples=200)
SIZES = st.lists(st.integers(1, 300), max_size=40)


@SLOW
@example([LINES[0], b": ping\n\n", BROKEN, LINES[0]], b"\n", [89], False)
@given(st.lists(st.sampled_from(LINES), max_size=25), st.sampled_from([b"\n", b"\r\n", b"\r"]), SIZES, st.booleans())
def test_any_chunking_reads_the_same(
    monkeypatch: pytest.MonkeyPatch, lines: list[bytes], end: bytes, sizes: list[int], small: bool
) -> None:
    with monkeypatch.context() as patch:
        if small:  # so that long events are among them
            patch.setattr(module, "TAIL", 256)
            patch.setattr(module, "_HEAD", 64)
        stream = b"".join(lines).replace(b"\n", end)
        found, expected = in_two_ways(stream, sizes)
    # An empty line too many counts as a byte here and as none there. A broken event may be counted as one here and as two
    # there, so that other events are the samples of the estimate.
    off = 2 + expected.completion // 10 + 60 * lines.count(BROKEN)
    assert found == expected or (found.estimated and abs(found.completion - expected.completion) <= off)
    assert (found.prompt, found.cached, found.estimated) == (expected.prompt, expected.cached, expected.estimated)


@SLOW
@given(st.lists(st.sampled_from(MIXED), max_size=25).map(b"".join), SIZES)
def test_any_chunking_with_all_line_ends_finds_the_same_reports(stream: bytes, sizes: list[int]) -> None:
    found, expected = in_two_ways(stream, sizes)
    assert (found.prompt, found.cached, found.estimated) == (expected.prompt, expected.cached, expected.estimated)
    assert found.estimated or found == expected


@settings(deadline=None)
@given(st.sampled_from(sorted(DIALECTS)), st.sampled_from([SSE, JSON, None, b"x"]), st.lists(st.binary(max_size=60), max_size=10))
def test_no_bytes_raise(dialect: str, kind: bytes | None, parts: list[bytes]) -> None:
    assert isinstance(meter(dialect, None, 200, kind), Meter)
    assert read(dialect, parts, kind).estimated


@settings(deadline=None)
@given(st.lists(st.text(max_size=30) | st.sampled_from(LIES), min_size=1, max_size=8), st.sampled_from(sorted(DIALECTS)))
def test_no_text_is_taken_for_usage(texts: list[str], dialect: str) -> None:
    texts = [text.encode("utf-8", "replace").decode() for text in texts]
    expected = Usage(12, len(texts), 0, 12 + len(texts), estimated=False)
    assert read(dialect, written(dialect, texts)) == expected
    assert read(dialect, [whole(dialect, texts)], JSON) == expected
    broken = read(dialect, written(dialect, texts, include_usage=False)[:-1])
    assert broken.estimated
    assert broken.prompt != 999
