"""The official OpenAI and Anthropic SDKs through the edge, over TLS with the CA verified, HTTP/1.1 and HTTP/2."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from running import Backend, Edge, until

INSTANT = "edge-demo-instant"
SLOW = "edge-demo"
USER: Any = [{"role": "user", "content": "Hello through the edge"}]
ECHO = "You wrote “Hello through the edge”, which is 4 words."
VERSIONS = {"h1": "HTTP/1.1", "h2": "HTTP/2"}
# What is passed to the SDKs records the protocol version of each answer, so that no test passes over the wrong one.
Seen = list[str]


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def http(edge: Edge, version: str) -> Iterator[httpx2.Client]:
    """A synchronous client for the SDKs; every answer must come by the wanted version."""
    seen: Seen = []
    hooks = {"response": [lambda response: seen.append(response.http_version)]}
    with httpx2.Client(verify=edge.tls(), http2=version == "h2", event_hooks=hooks, trust_env=False) as client:
        yield client
    assert set(seen) <= {VERSIONS[version]}


@pytest.fixture
async def ahttp(edge: Edge, version: str) -> AsyncIterator[httpx2.AsyncClient]:
    """The same, asynchronous."""
    seen: Seen = []

    async def note(response: httpx2.Response) -> None:
        seen.append(response.http_version)

    hooks = {"response": [note]}
    async with httpx2.AsyncClient(
        verify=edge.tls(), http2=version == "h2", event_hooks=hooks, trust_env=False
    ) as client:
        yield client
    assert set(seen) <= {VERSIONS[version]}


@pytest.fixture
def gpt(edge: Edge, http: httpx2.Client) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{edge.url}/v1", api_key="test", http_client=http, max_retries=0)


@pytest.fixture
def agpt(edge: Edge, ahttp: httpx2.AsyncClient) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{edge.url}/v1", api_key="test", http_client=ahttp, max_retries=0)


@pytest.fixture
def claude(edge: Edge, http: httpx2.Client) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=edge.url, api_key="test", http_client=http, max_retries=0)


@pytest.fixture
def aclaude(edge: Edge, ahttp: httpx2.AsyncClient) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(base_url=edge.url, api_key="test", http_client=ahttp, max_retries=0)


# OpenAI: Chat Completions


def test_chat(gpt: openai.OpenAI) -> None:
    answer = gpt.chat.completions.create(model=INSTANT, messages=USER)
    text = answer.choices[0].message.content
    assert text is not None and text.startswith(ECHO)
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None and answer.usage.prompt_tokens == 4
    assert answer.usage.total_tokens == 4 + answer.usage.completion_tokens > 4


def test_chat_stream(gpt: openai.OpenAI) -> None:
    options: Any = {"include_usage": True}
    chunks = list(gpt.chat.completions.create(model=INSTANT, messages=USER, stream=True, stream_options=options))
    *pieces, last = chunks
    text = "".join(piece.choices[0].delta.content or "" for piece in pieces)
    assert text == gpt.chat.completions.create(model=INSTANT, messages=USER).choices[0].message.content
    assert pieces[-1].choices[0].finish_reason == "stop"
    assert last.choices == [] and last.usage is not None and last.usage.completion_tokens == len(pieces) - 2


async def test_chat_async(agpt: openai.AsyncOpenAI) -> None:
    answer, stream = await asyncio.gather(
        agpt.chat.completions.create(model=INSTANT, messages=USER),
        agpt.chat.completions.create(model=INSTANT, messages=USER, stream=True),
    )
    text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    assert text == answer.choices[0].message.content and text.startswith(ECHO)


def test_chat_stream_arrives_while_it_is_made(gpt: openai.OpenAI, backend: Backend) -> None:
    with gpt.chat.completions.create(model=SLOW, messages=USER, stream=True, max_tokens=12) as stream:
        pieces = iter(stream)
        for _ in range(3):
            next(pieces)
        assert backend.counters()["active"] == 1  # the backend is still writing what we already read the start of
        assert len(list(pieces)) == 12 + 2 - 3


# OpenAI: Responses and models


def test_responses(gpt: openai.OpenAI) -> None:
    answer = gpt.responses.create(model=INSTANT, input="Hello through the edge")
    assert answer.status == "completed" and answer.output_text.startswith(ECHO)
    assert answer.usage is not None and answer.usage.input_tokens == 4


def test_responses_stream(gpt: openai.OpenAI) -> None:
    with gpt.responses.stream(model=INSTANT, input="Hello through the edge") as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        final = stream.get_final_response()
    assert final.output_text == text and text.startswith(ECHO)
    assert final.usage is not None and final.usage.output_tokens > 10


async def test_responses_async(agpt: openai.AsyncOpenAI) -> None:
    stream = await agpt.responses.create(model=INSTANT, input="Hello through the edge", stream=True)
    events = [event.type async for event in stream]
    assert events[0] == "response.created" and events[-1] == "response.completed"


def test_models(gpt: openai.OpenAI, claude: anthropic.Anthropic) -> None:
    names = [model.id for model in gpt.models.list()]
    assert names == [model.id for model in claude.models.list()] and INSTANT in names
    assert gpt.models.retrieve(SLOW).id == claude.models.retrieve(SLOW).id == SLOW


# Anthropic: Messages


def test_messages(claude: anthropic.Anthropic) -> None:
    answer = claude.messages.create(model=INSTANT, messages=USER, max_tokens=500)
    (block,) = answer.content
    assert block.type == "text" and block.text.startswith(ECHO)
    assert answer.stop_reason == "end_turn" and answer.usage.input_tokens == 4


def test_messages_stream(claude: anthropic.Anthropic) -> None:
    with claude.messages.stream(model=INSTANT, messages=USER, max_tokens=6) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == "You wrote “Hello through the edge”,"
    assert final.stop_reason == "max_tokens" and final.usage.output_tokens == 6


async def test_messages_async(aclaude: anthropic.AsyncAnthropic) -> None:
    answer = await aclaude.messages.create(model=INSTANT, messages=USER, max_tokens=500)
    async with aclaude.messages.stream(model=INSTANT, messages=USER, max_tokens=500) as stream:
        final = await stream.get_final_message()
    assert final.content[0].model_dump()["text"] == answer.content[0].model_dump()["text"]


# Errors keep their status, their shape and their headers


@pytest.mark.parametrize(
    ("model", "error", "code"),
    [
        ("no-such-model", openai.NotFoundError, "model_not_found"),
        ("edge-demo-limited", openai.RateLimitError, "rate_limit_exceeded"),
        ("edge-demo-overloaded", openai.InternalServerError, None),
        ("", openai.BadRequestError, None),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
def test_openai_errors(
    gpt: openai.OpenAI, model: str, error: type[openai.APIStatusError], code: str | None, stream: bool
) -> None:
    with pytest.raises(error) as raised:
        gpt.chat.completions.create(model=model, messages=USER, stream=stream)
    assert raised.value.code == code
    assert raised.value.request_id is not None and raised.value.request_id.startswith("req_")
    if error is openai.RateLimitError:
        assert raised.value.response.headers["retry-after"] == "1"


@pytest.mark.parametrize(
    ("model", "error", "kind"),
    [
        ("no-such-model", anthropic.NotFoundError, "not_found_error"),
        ("edge-demo-limited", anthropic.RateLimitError, "rate_limit_error"),
        ("edge-demo-overloaded", anthropic.InternalServerError, "overloaded_error"),
        ("", anthropic.BadRequestError, "invalid_request_error"),
    ],
)
def test_anthropic_errors(
    claude: anthropic.Anthropic, model: str, error: type[anthropic.APIStatusError], kind: str
) -> None:
    with pytest.raises(error) as raised:
        claude.messages.create(model=model, messages=USER, max_tokens=10)
    body: Any = raised.value.body
    assert body["error"]["type"] == kind
    assert raised.value.request_id == body["request_id"]


def test_an_upstream_that_is_down_is_an_error_of_the_dialect(
    edge: Edge, gpt: openai.OpenAI, claude: anthropic.Anthropic
) -> None:
    with pytest.raises(openai.InternalServerError) as first:
        gpt.with_options(base_url=f"{edge.url}/dead/openai").chat.completions.create(model=SLOW, messages=USER)
    assert first.value.status_code == 502 and isinstance(first.value.body, dict) and first.value.message
    dead = claude.with_options(base_url=f"{edge.url}/dead/anthropic")
    with pytest.raises(anthropic.InternalServerError) as second:
        dead.messages.create(model=SLOW, messages=USER, max_tokens=10)
    assert second.value.status_code == 502
    body: Any = second.value.body
    assert body["type"] == "error" and body["error"]["type"] == "api_error"


def test_an_answer_that_breaks_off_is_never_taken_for_complete(
    gpt: openai.OpenAI, claude: anthropic.Anthropic
) -> None:
    chunks: list[Any] = []
    stream = gpt.chat.completions.create(model="edge-demo-broken", messages=USER, stream=True)
    with pytest.raises(openai.APIError):
        deque(map(chunks.append, stream), maxlen=0)
    assert len(chunks) == 1 + 8  # what had come is not lost: the role and eight tokens
    with (
        claude.messages.stream(model="edge-demo-broken", messages=USER, max_tokens=500) as messages,
        pytest.raises(anthropic.APIError),
    ):
        messages.until_done()
    with pytest.raises(openai.APIError):
        list(gpt.responses.create(model="edge-demo-broken", input="Hello", stream=True))


def test_an_answer_that_breaks_before_its_head_is_a_bad_gateway(gpt: openai.OpenAI) -> None:
    with pytest.raises(openai.InternalServerError) as raised:
        gpt.chat.completions.create(model="edge-demo-broken", messages=USER)
    assert raised.value.status_code == 502


# A client that leaves: the backend stops within a second. Over HTTP/1.1 closing a stream closes its connection. Over
# HTTP/2 the SDKs' transport sends no RST_STREAM for it (encode/httpcore#1098), so nobody behind it can know: there the
# whole client is closed. What RST_STREAM does is tested in test_h2_streams.py.


def cancelled(backend: Backend, before: dict[str, int]) -> Callable[[], bool]:
    def happened() -> bool:
        now = backend.counters()
        return now["cancelled"] == before["cancelled"] + 1 and now["active"] == 0

    return happened


def test_closing_an_openai_stream_stops_the_backend(gpt: openai.OpenAI, backend: Backend, version: str) -> None:
    before = backend.counters()
    with gpt.chat.completions.create(model=SLOW, messages=USER, stream=True) as stream:
        next(iter(stream))
    if version == "h2":
        gpt.close()
    until(cancelled(backend, before), 1.0)


def test_closing_an_anthropic_stream_stops_the_backend(
    claude: anthropic.Anthropic, backend: Backend, version: str
) -> None:
    before = backend.counters()
    with claude.messages.stream(model=SLOW, messages=USER, max_tokens=500) as stream:
        next(stream.text_stream)
    if version == "h2":
        claude.close()
    until(cancelled(backend, before), 1.0)


async def test_closing_async_streams_stops_the_backend(
    agpt: openai.AsyncOpenAI, backend: Backend, version: str
) -> None:
    before = backend.counters()
    stream = await agpt.responses.create(model=SLOW, input="Hello", stream=True)
    await anext(aiter(stream))
    await stream.close()
    if version == "h2":
        await agpt.close()
    await asyncio.to_thread(until, cancelled(backend, before), 1.0)


async def test_leaving_openai_before_the_first_byte_stops_the_backend(
    agpt: openai.AsyncOpenAI, backend: Backend, version: str
) -> None:
    call = agpt.chat.completions.create(model=SLOW, messages=USER)
    await leave_early(agpt, call, backend, version)


async def test_leaving_anthropic_before_the_first_byte_stops_the_backend(
    aclaude: anthropic.AsyncAnthropic, backend: Backend, version: str
) -> None:
    call = aclaude.messages.create(model=SLOW, messages=USER, max_tokens=500)
    await leave_early(aclaude, call, backend, version)


async def leave_early(
    client: openai.AsyncOpenAI | anthropic.AsyncAnthropic, ask: Coroutine[Any, Any, Any], backend: Backend, version: str
) -> None:
    """Without streaming the whole answer takes seconds, and not a byte of it has come when the client leaves."""
    before = backend.counters()
    call = asyncio.create_task(ask)
    await asyncio.to_thread(until, lambda: backend.counters()["active"] == 1, 2.0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    if version == "h2":
        await client.close()
    await asyncio.to_thread(until, cancelled(backend, before), 1.0)
