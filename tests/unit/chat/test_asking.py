# Bodies as official SDKs and odd clients send them: what they may use, and usage asked for without touching anything else.
from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeproxy.chat.asking import MOST, Ask, read_ask, spoken, with_usage
from edgeproxy.chat.tokens import estimate

HELLO = {"role": "user", "content": "Hello, how are you?"}


def asked(dialect: str, **body: Any) -> Ask:
    ask = read_ask(dialect, json.dumps(body).encode())
    assert ask is not None
    return ask


def chat(**more: Any) -> Ask:
    return asked("openai", model="m", messages=[HELLO], **more)


def prompt(dialect: str = "openai", **body: Any) -> int:
    return asked(dialect, **body).prompt


def test_a_chat_request() -> None:
    ask = chat(stream=True, stream_options={"include_usage": True}, max_completion_tokens=50)
    assert ask == Ask("m", True, True, ask.prompt, 50, 1, False)
    assert 8 <= ask.prompt <= 20


def test_a_messages_request() -> None:
    ask = asked("anthropic", model="m", system="Be short.", messages=[HELLO], max_tokens=1024, stream=True)
    assert ask == Ask("m", True, True, ask.prompt, 1024, 1, False)
    assert ask.prompt > prompt("anthropic", messages=[HELLO])


def test_a_responses_request() -> None:
    ask = asked("responses", model="m", input="Hello", instructions="Be short.", max_output_tokens=7)
    assert ask == Ask("m", False, True, ask.prompt, 7, 1, False)
    assert ask.prompt > prompt("responses", input="Hello")


@pytest.mark.parametrize(
    ("body", "completion", "choices"),
    [
        ({}, None, 1),
        ({"max_tokens": 10}, 10, 1),
        ({"max_tokens": 10, "max_completion_tokens": 30}, 30, 1),
        ({"max_tokens": 30, "max_completion_tokens": 10}, 30, 1),
        ({"max_tokens": 10, "n": 4}, 40, 4),
        ({"max_tokens": 10, "n": None}, 10, 1),
        ({"n": 4}, None, 4),
        ({"max_tokens": 10, "n": 2, "best_of": 5}, 50, 5),
        ({"max_tokens": "10"}, 10, 1),
        ({"max_tokens": 10.0}, 10, 1),
        ({"max_tokens": 0}, 0, 1),
        ({"max_tokens": -1}, None, 1),
        ({"max_tokens": "ten"}, None, 1),
        ({"max_tokens": None}, None, 1),
        ({"max_tokens": 10, "n": -3}, 10, 1),
        ({"max_tokens": 10**30, "n": 10**30}, MOST, MOST),
        ({"max_tokens": 1e300}, MOST, 1),
        ({"max_tokens": "9" * 5000}, None, 1),
    ],
)
def test_bounds(body: dict[str, Any], completion: int | None, choices: int) -> None:
    ask = chat(**body)
    assert (ask.completion, ask.choices) == (completion, choices)


def test_of_two_equal_keys_the_last_counts() -> None:
    ask = read_ask("openai", b'{"messages":[],"max_tokens":1,"max_tokens":900}')
    assert ask is not None and ask.completion == 900


@pytest.mark.parametrize(
    ("body", "tokens", "choices"),
    [
        ({"prompt": "Say this is a test"}, 5, 1),
        ({"prompt": ["Say this is a test", "Say this is a test"]}, 10, 2),
        ({"prompt": [1, 2, 3, 4]}, 4, 1),
        ({"prompt": [[1, 2, 3], [4, 5]]}, 5, 2),
    ],
)
def test_completions(body: dict[str, Any], tokens: int, choices: int) -> None:
    ask = asked("openai", max_tokens=16, **body)
    assert abs(ask.prompt - tokens) <= 1
    assert (ask.choices, ask.completion) == (choices, 16 * choices)


@pytest.mark.parametrize(("wanted", "tokens"), [("Hello there", 2), (["Hello there"] * 3, 6), ([1, 2, 3], 3), ([[1], [2, 3]], 3)])
def test_embeddings_are_answered_with_no_tokens(wanted: Any, tokens: int) -> None:
    ask = asked("openai", input=wanted, model="e")
    assert ask.completion == 0
    assert abs(ask.prompt - tokens) <= 2


def test_escapes_cost_what_they_stand_for() -> None:
    messages = [{"role": "user", "content": "Все люди рождаются свободными" * 20}]
    body = {"messages": messages, "tools": [{"type": "function", "function": {"name": "f", "description": "Люди" * 30}}]}
    plain = read_ask("openai", json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode())
    escaped = read_ask("openai", json.dumps(body, separators=(",", ":")).encode())
    assert plain == escaped


LONG = "All human beings are born free and equal in dignity and rights. " * 20
COST = estimate(LONG.encode())
MEDIUM = base64.b64encode(bytes(300_000)).decode()


@pytest.mark.parametrize(
    ("dialect", "message"),
    [
        ("openai", {"role": "user", "content": LONG}),
        ("openai", {"role": "user", "content": [{"type": "text", "text": LONG}]}),
        ("openai", {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": LONG}}]}),
        ("openai", {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": LONG}}),
        ("openai", {"role": "tool", "tool_call_id": "c", "content": LONG}),
        ("openai", {"role": "assistant", "content": None, "refusal": None, "reasoning_content": LONG}),
        ("responses", {"role": "user", "content": [{"type": "input_text", "text": LONG}]}),
        ("responses", {"type": "function_call", "name": "f", "arguments": LONG, "call_id": "c"}),
        ("responses", {"type": "function_call_output", "call_id": "c", "output": LONG}),
        ("responses", {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": LONG}]}),
        ("responses", {"type": "reasoning", "summary": [{"type": "summary_text", "text": LONG}]}),
        ("responses", {"type": "custom_tool_call", "call_id": "c", "name": "f", "input": LONG}),
        ("anthropic", {"role": "user", "content": [{"type": "text", "text": LONG}]}),
        ("anthropic", {"role": "assistant", "content": [{"type": "thinking", "thinking": LONG, "signature": MEDIUM}]}),
        ("anthropic", {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {"a": LONG}}]}),
        ("anthropic", {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": LONG}]}),
        (
            "anthropic",
            {"role": "user", "content": [{"type": "tool_result", "content": [{"type": "text", "text": LONG}]}]},
        ),
        (
            "anthropic",
            {"role": "user", "content": [{"type": "document", "source": {"type": "text", "data": LONG}}]},
        ),
        (
            "anthropic",
            {
                "role": "user",
                "content": [{"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": LONG}]}}],
            },
        ),
        (
            "anthropic",
            {"role": "user", "content": [{"type": "search_result", "source": "s", "content": [{"type": "text", "text": LONG}]}]},
        ),
    ],
)  # fmt: skip
def test_text_counts_wherever_it_is(dialect: str, message: dict[str, Any]) -> None:
    key = "input" if dialect == "responses" else "messages"
    assert COST <= prompt(dialect, **{key: [message]}) <= COST + 25


@pytest.mark.parametrize(
    ("dialect", "part", "least", "most"),
    [
        ("openai", {"type": "image_url", "image_url": {"url": MEDIUM}}, 700, 1600),
        ("openai", {"type": "image_url", "image_url": {"url": MEDIUM, "detail": "low"}}, 85, 120),
        ("openai", {"type": "input_audio", "input_audio": {"data": MEDIUM, "format": "wav"}}, 100, 1500),
        ("openai", {"type": "file", "file": {"file_data": MEDIUM}}, 1000, 10000),
        ("responses", {"type": "input_image", "image_url": MEDIUM}, 700, 1600),
        ("responses", {"type": "input_image", "image_url": MEDIUM, "detail": "low"}, 85, 120),
        ("anthropic", {"type": "image", "source": {"type": "base64", "data": MEDIUM}}, 700, 1600),
        ("anthropic", {"type": "document", "source": {"type": "base64", "data": MEDIUM}}, 1000, 10000),
        ("anthropic", {"type": "redacted_thinking", "data": MEDIUM}, 0, 20),
    ],
)
def test_media_have_fixed_costs(dialect: str, part: dict[str, Any], least: int, most: int) -> None:
    key = "input" if dialect == "responses" else "messages"
    assert least <= prompt(dialect, **{key: [{"role": "user", "content": [part]}]}) <= most


@pytest.mark.parametrize("dialect", ["openai", "responses", "anthropic"])
def test_tools_count(dialect: str) -> None:
    tools = [{"type": "function", "name": "f", "description": LONG}]
    body = {"messages": [HELLO]} if dialect != "responses" else {"input": "Hello"}
    more = prompt(dialect, tools=tools, **body) - prompt(dialect, tools=[], **body)
    assert COST <= more <= COST + (400 if dialect == "anthropic" else 50)


def test_shapes_that_nobody_knows_count_as_their_json() -> None:
    assert prompt("openai", messages={"oddly": LONG}) <= COST + 40
    assert prompt("openai", messages=[{"role": "user", "content": 5, "text": LONG}]) >= COST
    assert prompt("openai", messages=[[LONG]]) >= COST


@pytest.mark.parametrize("item", [b"{}", b'{"content":[]}', b'{"content":{}}', b'[{"type":"a"}]'])
def test_bodies_made_of_brackets_are_not_walked(item: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def walk(raw: bytes) -> None:
        raise AssertionError

    content = b'{"messages":[' + b",".join([item] * 20_000) + b"]}"
    monkeypatch.setattr("edgeproxy.chat.prompts._decode_blocks", walk)
    ask = read_ask("openai", content)
    assert ask is not None and ask.prompt >= 20_000
    lists = read_ask("openai", b'{"max_tokens":5,"prompt":[' + b",".join([b"[1]"] * 20_000) + b"]}")
    assert lists is not None and lists.choices >= 20_000 and lists.completion == 5 * lists.choices


@pytest.mark.parametrize("field", ["previous_response_id", "conversation", "prompt"])
def test_what_the_service_keeps_is_hidden(field: str) -> None:
    assert asked("responses", input="a", **{field: "id"}).hidden
    assert not asked("responses", input="a", **{field: None}).hidden


GARBAGE = [
    b"", b"null", b"[]", b'"text"', b"{", b'{"model":5}', b"\xff\xfe{}", b'{"messages":[]} x', b'{"model":"\xff"}',
    b'{"max_tokens":{}}', b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    b'{"messages":' + b"[" * 100_000,
]  # fmt: skip


@pytest.mark.parametrize("dialect", ["openai", "responses", "anthropic"])
@pytest.mark.parametrize("content", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_is_none(dialect: str, content: bytes) -> None:
    if b"max_tokens" in content and dialect == "responses":
        content = content.replace(b"max_tokens", b"max_output_tokens")
    assert read_ask(dialect, content) is None
    assert with_usage(content) is None


@pytest.mark.parametrize("depth", [50, 300, 900, 5000, 100_000])
def test_deep_nesting_never_raises(depth: int) -> None:
    deep = b'[{"role":"user","content":' * depth + b'"x"' + b"}]" * depth
    for dialect in ("openai", "anthropic"):
        read_ask(dialect, b'{"messages":' + deep + b"}")
    read_ask("responses", b'{"input":' + deep + b"}")


@settings(deadline=None)
@given(st.sampled_from(["openai", "responses", "anthropic"]), st.binary(max_size=300))
def test_no_bytes_raise(dialect: str, content: bytes) -> None:
    read_ask(dialect, content)
    with_usage(content)


BUSY = settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)  # the machine may be busy with other tests
ANYTHING = st.recursive(
    st.sampled_from([None, True, 0, -1, 10**20, 1.5, float("nan"), "", "low", "text", "é\ud800"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["type", "role", "content", "text", "source", "input", "output", "image_url", "tool_calls", "function",
                         "arguments", "data", "name", "detail", "summary", "delta"]),
        inner,
        max_size=4,
    ),
    max_leaves=8,
)  # fmt: skip
KEYS = ["model", "messages", "prompt", "input", "tools", "system", "instructions", "max_tokens", "n", "stream", "stream_options"]


@BUSY
@given(st.sampled_from(["openai", "responses", "anthropic"]), st.dictionaries(st.sampled_from(KEYS), ANYTHING))
def test_no_json_raises(dialect: str, body: dict[str, Any]) -> None:
    ask = read_ask(dialect, json.dumps(body).encode())
    if ask is not None:
        assert 0 <= ask.prompt <= MOST
        assert ask.completion is None or 0 <= ask.completion <= MOST
    with_usage(json.dumps(body).encode())


# --- with_usage


def injected(content: bytes) -> dict[str, Any] | None:
    changed = with_usage(content)
    return None if changed is None else json.loads(changed)


@pytest.mark.parametrize(
    ("content", "changed"),
    [
        (b'{"stream":true}', b'{"stream_options":{"include_usage":true},"stream":true}'),
        (b' {\r\n\t"stream" : true }\n', b' {\r\n\t"stream_options":{"include_usage":true},"stream" : true }\n'),
        (b'{"stream":true,"stream_options":null}', b'{"stream":true,"stream_options":{"include_usage":true}}'),
        (b'{"stream":true,"stream_options":{}}', b'{"stream":true,"stream_options":{"include_usage":true}}'),
        (b'{"stream_options" : { } ,"stream":true}', b'{"stream_options" : { "include_usage":true} ,"stream":true}'),
        (
            b'{"stream":true,"stream_options":{"include_obfuscation":false}}',
            b'{"stream":true,"stream_options":{"include_usage":true,"include_obfuscation":false}}',
        ),
        (
            b'{"stream":true,"stream_options":{"a":1, "include_usage" :false}}',
            b'{"stream":true,"stream_options":{"a":1, "include_usage" :true}}',
        ),
        (b'{"stream":false,"stream":true}', b'{"stream_options":{"include_usage":true},"stream":false,"stream":true}'),
    ],
)
def test_the_splice(content: bytes, changed: bytes) -> None:
    assert with_usage(content) == changed


@pytest.mark.parametrize(
    "content",
    [
        b"{}",
        b'{"stream":false}',
        b'{"stream":1}',
        b'{"stream":true,"stream":false}',
        b'{"stream":true,"stream_options":{"include_usage":true}}',
        b'{"stream":true,"stream_options":5}',
        b'{"stream":true,"stream_options":{"include_usage":5}}',
        b'{"stream":true,"stream_options":{"include_usage":false,"include_usage":false}}',
        b'{"stream":true,"stream_options":{},"stream_options":{}}',
        b'{"stream":true,"stream_options":{"a":"stream_options"},"stream_options":{}}',
        # The key is escaped: the one that is seen is within a text or another object.
        b'{"stream":true,"stream\\u005foptions":{}}',
        b'{"stream":true,"x":{"stream_options":{}},"stream\\u005foptions":{}}',
        b'{"stream":true,"stream_options":{},"stream\\u005foptions":{}}',
        b'{"stream":true,"stream_options":{"include_usage":false,"x":{"include_usage":false}}}',
        b'{"stream":true,"stream_options":{"x":"include_usage"}}',
    ],
)
def test_what_is_not_certain_is_left_alone(content: bytes) -> None:
    assert with_usage(content) is None


def test_texts_do_not_mislead_it() -> None:
    text = 'My "stream_options":{"include_usage":false} and \\"stream_options\\":{} are { } "stream":false'
    body = {"messages": [{"role": "user", "content": text}], "stream": True}
    assert injected(json.dumps(body).encode()) == {**body, "stream_options": {"include_usage": True}}
    body["stream_options"] = {"include_obfuscation": False}
    assert injected(json.dumps(body).encode()) == {
        **body, "stream_options": {"include_obfuscation": False, "include_usage": True},
    }  # fmt: skip


@BUSY
@given(
    st.dictionaries(st.text(max_size=12) | st.sampled_from(["stream_options ", "messages", "x"]), ANYTHING, max_size=4),
    st.sampled_from([None, {}, {"include_obfuscation": False}, {"include_usage": False}, {"include_usage": None}, ...]),
    st.sampled_from([None, 1, "\t"]),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_only_the_one_key_differs(body: dict[str, Any], options: Any, indent: Any, ascii_only: bool, random: Any) -> None:
    body["stream"] = True
    body.pop("stream_options", None)
    if options is not ...:
        body["stream_options"] = options
    items = list(body.items())
    random.shuffle(items)
    try:
        content = json.dumps(dict(items), indent=indent, ensure_ascii=ascii_only, allow_nan=False).encode()
    except ValueError:
        return  # not a number, or half a surrogate pair
    changed = injected(content)
    expected = {**body, "stream_options": {**(body.get("stream_options") or {}), "include_usage": True}}
    assert changed == expected or (changed is None and content.count(b'"stream_options"') != 1) or not _sound(content)


def _sound(content: bytes) -> bool:
    """Whether msgspec reads it at all: lone surrogates, numbers without bounds."""
    return read_ask("openai", b'{"x":' + content + b"}") is not None


@pytest.mark.parametrize("coding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("dialect", ["openai", "responses", "anthropic"])
def test_other_codings_of_unicode(dialect: str, coding: str) -> None:
    """What `json.loads` takes as bytes, which servers read bodies with."""
    body = {"model": "m", "messages": [{"role": "user", "content": "Grüße " * 50}], "input": "Grüße " * 50, "stream": True}
    text = json.dumps(body, ensure_ascii=False)
    assert json.loads(text.encode(coding)) == body
    ask = read_ask(dialect, text.encode(coding))
    assert ask is not None and ask.prompt > 50 and ask == read_ask(dialect, text.encode())
    assert with_usage(text.encode(coding)) is None, "only what is plain UTF-8 is changed"


def test_a_mark_and_no_json() -> None:
    for content in (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff{", b"\x00\x00\xfe\xff{", b"\x00", b"{\x00", b"\xef\xbb\xbf[]"):
        assert read_ask("openai", content) is None


@pytest.mark.parametrize(("value", "background"), [(True, True), (False, False), (None, False), ("true", False)])
def test_an_answer_in_the_background(value: object, background: bool) -> None:
    assert asked("responses", input="Hello", background=value).background is background
    assert not asked("responses", input="Hello").background and not chat(background=value).background


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (b"/v1/responses", "responses"), (b"/v1/responses/", "responses"), (b"/openai/v1/responses?api-version=1", "responses"),
        (b"/v1/messages", "anthropic"), (b"/v1/chat/completions", "openai"),
        (b"/v1/completions", "openai"), (b"/v1/embeddings", "openai"), (b"/v1/messages/count_tokens", "other"),
        (b"/v1/models", "other"), (b"/", "other"), (b"/v1/x?/responses", "other"), (b"*", "other"),
        (b"/v1/responses/r_1", "other"),
    ],
)  # fmt: skip
def test_the_dialect_of_a_path(target: bytes, said: str) -> None:
    assert spoken("other", target) == said
