"""What the demonstration backend says, and how it reads and writes the three dialects."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.demo.answers import Answer, Ask, answer, tokenize
from edgeproxy.demo.asking import Refusal, parse_chat, parse_messages, parse_responses
from edgeproxy.demo.shapes import CHAT, MESSAGES, RESPONSES, Dialect

USER = [{"role": "user", "content": "Hello there"}]


def encode(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


def made(dialect: Dialect, **fields: Any) -> Answer:
    return answer(dialect.parse(encode(**fields)))


def events(stream: bytes) -> list[Any]:
    """Server-sent events → their data, checked for their form; `[DONE]` stays text."""
    assert stream.endswith(b"\n\n")
    found = []
    for block in stream.decode().removesuffix("\n\n").split("\n\n"):
        *names, data = block.split("\n")
        payload = data.removeprefix("data: ")
        parsed: Any = payload if payload == "[DONE]" else json.loads(payload)
        assert names == ([f"event: {parsed['type']}"] if names else [])
        found.append(parsed)
    return found


def stream(dialect: Dialect, answered: Answer) -> list[Any]:
    writer = dialect.writer(answered, "x", 1000.5)
    return events(b"".join([writer.opening(), *map(writer.token, answered.tokens), writer.closing()]))


@given(st.text())
def test_tokens_are_the_text_again(text: str) -> None:
    assert "".join(tokenize(text)) == text


def test_the_answer_echoes_the_prompt_and_is_the_same_every_time() -> None:
    ask = Ask("m", "Is  this\nthe edge?", "Be brief.", 3, 2, 9, False, False, None)
    first, second = answer(ask), answer(ask)
    assert first == second
    assert "“Is this the edge?”, which is 4 words" in first.text
    assert "3 messages" in first.text and "a system prompt of 2 words" in first.text
    assert "You offered 2 tools" in first.text
    assert "not a language model" in first.text


def test_long_prompts_are_quoted_in_part_only() -> None:
    ask = Ask("m", "word " * 10_000, "", 1, 0, 9, False, False, None)
    assert len(answer(ask).text) < 1000 and "…”, which is 10000 words" in answer(ask).text


def test_a_limit_cuts_the_answer() -> None:
    ask = Ask("m", "Hello", "", 1, 0, 1, False, False, 5)
    assert len(answer(ask).tokens) == 5 and answer(ask).cut
    whole = len(answer(Ask("m", "Hello", "", 1, 0, 1, False, False, None)).tokens)
    assert not answer(Ask("m", "Hello", "", 1, 0, 1, False, False, whole)).cut


def test_chat_is_read() -> None:
    ask = parse_chat(
        encode(
            model="m",
            messages=[
                {"role": "system", "content": "Be kind."},
                {"role": "user", "content": "One"},
                {"role": "assistant", "content": "Two"},
                {"role": "user", "content": [{"type": "text", "text": "three four"}, {"type": "image_url"}]},
            ],
            stream=True, stream_options={"include_usage": True}, max_completion_tokens=7, tools=[{}], user="ignored",
        )
    )  # fmt: skip
    assert ask == Ask("m", "three four", "Be kind.", 3, 1, 6, True, True, 7)


def test_messages_are_read() -> None:
    system = [{"type": "text", "text": "Be kind."}]
    ask = parse_messages(encode(model="m", max_tokens=9, messages=USER, system=system, stream=True))
    assert ask == Ask("m", "Hello there", "Be kind.", 1, 0, 4, True, False, 9)


@pytest.mark.parametrize(
    "asked", ["Hello there", USER, [{"type": "reasoning"}, {"role": "user", "content": [{"text": "Hello there"}]}]]
)
def test_responses_are_read(asked: Any) -> None:
    ask = parse_responses(encode(model="m", input=asked, instructions="Be kind.", max_output_tokens=3))
    assert ask == Ask("m", "Hello there", "Be kind.", 1, 0, 4, False, False, 3)


@pytest.mark.parametrize(
    ("dialect", "body", "param", "words"),
    [
        (CHAT, b"", None, "not valid JSON"),
        (CHAT, b"{", None, "not valid JSON"),
        (CHAT, b'{"model": "\xff"}', None, "not valid JSON"),
        (CHAT, b"[]", None, "must be a JSON object"),
        (CHAT, b'{"x": ' + b"[" * 100_000, None, "not valid JSON"),
        (CHAT, encode(messages=USER), "model", "Missing required parameter: 'model'"),
        (CHAT, encode(model="", messages=USER), "model", "must provide a model"),
        (CHAT, encode(model="m"), "messages", "Missing required parameter: 'messages'"),
        (CHAT, encode(model="m", messages=[]), "messages", "at least one"),
        (CHAT, encode(model=7, messages=USER), "model", "Expected `str`, got `int`"),
        (CHAT, encode(model="m", messages=[{"content": "x"}]), "messages[0].role", "Missing required"),
        (CHAT, encode(model="m", messages=USER, stream="yes"), "stream", "Expected `bool | null`"),
        (CHAT, encode(model="m", messages=USER, max_tokens=0), "max_tokens", "at least 1"),
        (CHAT, encode(model="m", messages=USER, n=2), "n", "one answer"),
        (MESSAGES, encode(model="m", messages=USER), "max_tokens", "Missing required parameter: 'max_tokens'"),
        (MESSAGES, encode(model="m", messages=[], max_tokens=1), "messages", "at least one"),
        (RESPONSES, encode(model="m"), "input", "Missing required parameter: 'input'"),
        (RESPONSES, encode(model="m", input=[]), "input", "at least one"),
    ],
)
def test_what_is_wrong_is_named(dialect: Dialect, body: bytes, param: str | None, words: str) -> None:
    with pytest.raises(Refusal) as refused:
        dialect.parse(body)
    assert refused.value.status == 400
    assert refused.value.param == param
    assert words in refused.value.message


@pytest.mark.parametrize("usage", [True, False])
def test_a_chat_stream(usage: bool) -> None:
    answered = made(CHAT, model="m", messages=USER, stream=True, stream_options={"include_usage": usage})
    *chunks, done = stream(CHAT, answered)
    assert done == "[DONE]"
    assert {(c["object"], c["id"], c["model"], c["created"]) for c in chunks} == {
        ("chat.completion.chunk", "chatcmpl-x", "m", 1000)
    }
    if usage:
        *chunks, last = chunks
        tokens = len(answered.tokens)
        assert last["choices"] == []
        assert last["usage"]["prompt_tokens"] == 2
        assert last["usage"]["completion_tokens"] == tokens
        assert last["usage"]["total_tokens"] == tokens + 2
        assert all(c["usage"] is None for c in chunks)
    else:
        assert not any("usage" in c for c in chunks)
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert "".join(c["choices"][0]["delta"].get("content", "") for c in chunks) == answered.text
    assert [c["choices"][0]["finish_reason"] for c in chunks] == [None] * (len(chunks) - 1) + ["stop"]


def test_a_messages_stream() -> None:
    answered = made(MESSAGES, model="m", max_tokens=4, messages=USER, stream=True)
    found = stream(MESSAGES, answered)
    assert [e["type"] for e in found] == [
        "message_start", "content_block_start", "ping", *["content_block_delta"] * 4, "content_block_stop",
        "message_delta", "message_stop",
    ]  # fmt: skip
    assert found[0]["message"]["usage"]["input_tokens"] == 2
    assert found[0]["message"]["content"] == [] and found[0]["message"]["stop_reason"] is None
    assert "".join(e["delta"]["text"] for e in found if e["type"] == "content_block_delta") == answered.text
    assert found[-2]["delta"] == {"stop_reason": "max_tokens", "stop_sequence": None}
    assert found[-2]["usage"] == {"output_tokens": 4}


@pytest.mark.parametrize(("limit", "status"), [(None, "completed"), (3, "incomplete")])
def test_a_responses_stream(limit: int | None, status: str) -> None:
    answered = made(RESPONSES, model="m", input="Hello there", stream=True, max_output_tokens=limit)
    found = stream(RESPONSES, answered)
    assert [e["sequence_number"] for e in found] == list(range(len(found)))
    assert [e["type"] for e in found if e["type"] != "response.output_text.delta"] == [
        "response.created", "response.in_progress", "response.output_item.added", "response.content_part.added",
        "response.output_text.done", "response.content_part.done", "response.output_item.done", f"response.{status}",
    ]  # fmt: skip
    assert found[0]["response"]["usage"] is None
    final = found[-1]["response"]
    assert final["usage"]["output_tokens"] == len(answered.tokens)
    assert final["output"][0]["content"][0]["text"] == answered.text
    assert final["incomplete_details"] == (None if limit is None else {"reason": "max_output_tokens"})


def test_errors_are_worded_in_the_dialect() -> None:
    refusal = Refusal(404, "No such model.", code="model_not_found")
    assert CHAT.error(refusal, "req_1") == {
        "error": {
            "message": "No such model.", "type": "invalid_request_error", "param": None, "code": "model_not_found",
        }
    }  # fmt: skip
    assert MESSAGES.error(refusal, "req_1") == {
        "type": "error", "error": {"type": "not_found_error", "message": "No such model."}, "request_id": "req_1",
    }  # fmt: skip
