"""What the official OpenAI and Anthropic SDKs make of limits: the errors they raise, what they repeat, and what they count."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from running import Edge

INSTANT = "edge-demo-instant"
USER: Any = [{"role": "user", "content": "Hello through the edge"}]
VERSIONS = {"h1": "HTTP/1.1", "h2": "HTTP/2"}
TOKENS = 5000
DAY = "24h"


def limit(name: str, **settings: Any) -> dict[str, Any]:
    """A limit for requests that say its name, counted apart for each test."""
    expression = f'http.request.headers["x-limit"][0] eq "{name}"'
    return {"name": name, "expression": expression, "key": 'http.request.headers["x-test"][0]', **settings}


@pytest.fixture(scope="module")
def changes() -> dict[str, Any]:
    return {"limits": [
        limit("second", requests=1, period="1s"),
        limit("day", requests=1, period=DAY),
        limit("tokens", tokens=TOKENS, reserve=1000, period=DAY, algorithm="fixed-window"),
        limit("places", concurrent=1),
    ]}  # fmt: skip


class Sdk:
    """Both SDKs over one HTTP client, and the answers that they got."""

    def __init__(self, edge: Edge, version: str, test: str) -> None:
        self.statuses: list[int] = []
        self.versions: set[str] = set()
        self.http = httpx2.Client(
            verify=edge.tls(), http2=version == "h2", event_hooks={"response": [self._note]}, trust_env=False
        )
        self.url = edge.url
        self.test = test
        self.asked = 0
        self.took = 0

    def _note(self, response: httpx2.Response) -> None:
        self.statuses.append(response.status_code)
        self.versions.add(response.http_version)

    def openai(self, name: str, retries: int = 2) -> openai.OpenAI:
        fields = {"x-limit": name, "x-test": self.test}
        return openai.OpenAI(
            base_url=f"{self.url}/v1", api_key="test", http_client=self.http, max_retries=retries, default_headers=fields
        )

    def anthropic(self, name: str, retries: int = 2) -> anthropic.Anthropic:
        fields = {"x-limit": name, "x-test": self.test}
        return anthropic.Anthropic(
            base_url=self.url, api_key="test", http_client=self.http, max_retries=retries, default_headers=fields
        )

    def left(self) -> int:
        """Tokens that are left, but for what asking took: a small question tells; one of a new key tells what it sets aside."""
        self.asked += 1
        aside = TOKENS - self._ask(f"{self.test}-{self.asked}")[0]
        left, took = self._ask(self.test)
        left += aside + self.took
        self.took += took
        return left

    def _ask(self, test: str) -> tuple[int, int]:
        create = self.openai("tokens").chat.completions.with_raw_response.create
        found: Any = create(model=INSTANT, messages=USER, max_tokens=1, extra_headers={"x-test": test})
        return int(found.headers["x-ratelimit-remaining-tokens"]), found.parse().usage.total_tokens


@pytest.fixture(params=VERSIONS)
def sdk(request: pytest.FixtureRequest, edge: Edge) -> Iterator[Sdk]:
    made = Sdk(edge, request.param, request.node.name)
    yield made
    made.http.close()
    assert made.versions <= {VERSIONS[request.param]}


Ask = Callable[[Sdk, str, int], Any]


def ask_chat(sdk: Sdk, name: str, retries: int = 2) -> Any:
    return sdk.openai(name, retries).chat.completions.with_raw_response.create(model=INSTANT, messages=USER, max_tokens=50)


def ask_responses(sdk: Sdk, name: str, retries: int = 2) -> Any:
    return sdk.openai(name, retries).responses.with_raw_response.create(model=INSTANT, input="Hello", max_output_tokens=50)


def ask_messages(sdk: Sdk, name: str, retries: int = 2) -> Any:
    return sdk.anthropic(name, retries).messages.with_raw_response.create(model=INSTANT, messages=USER, max_tokens=50)


ASKS = [ask_chat, ask_responses, ask_messages]
LIMITED = (openai.RateLimitError, anthropic.RateLimitError)


@pytest.mark.parametrize("ask", ASKS)
def test_it_is_repeated_when_it_may_pass_and_not_earlier(sdk: Sdk, ask: Ask) -> None:
    ask(sdk, "second", 2)
    began = time.monotonic()
    ask(sdk, "second", 2)
    took = time.monotonic() - began
    assert sdk.statuses == [200, 429, 200], "one repetition was enough"
    assert 0.7 < took < 1.7, "the SDKs' own waits would have been shorter or longer"


@pytest.mark.parametrize("ask", ASKS)
def test_nothing_is_repeated_that_would_have_to_wait_for_hours(sdk: Sdk, ask: Ask) -> None:
    ask(sdk, "day", 5)
    with pytest.raises(LIMITED) as raised:
        ask(sdk, "day", 5)
    assert sdk.statuses == [200, 429], "one attempt"
    response = raised.value.response
    assert response.headers["x-should-retry"] == "false" and "retry-after-ms" not in response.headers
    assert 86000 < int(response.headers["retry-after"]) <= 86400
    body: Any = raised.value.body
    if isinstance(raised.value, openai.RateLimitError):
        assert (raised.value.code, raised.value.type) == ("rate_limit_exceeded", "requests")
    else:
        assert body["error"]["type"] == "rate_limit_error" and "day" in body["error"]["message"]


@pytest.mark.parametrize("ask", ASKS)
def test_where_a_client_stands(sdk: Sdk, ask: Ask) -> None:
    """On answers and on refusals, as those say it who made the SDKs."""
    found = [ask(sdk, "day", 0).headers]
    with pytest.raises(LIMITED) as raised:
        ask(sdk, "day", 0)
    found.append(raised.value.response.headers)
    for headers in found:
        assert headers["ratelimit-policy"] == '"day";q=1;w=86400'
        assert re.fullmatch(r'"day";r=0;t=86(400|3\d\d)', headers["ratelimit"])
        if ask is ask_messages:
            assert headers["anthropic-ratelimit-requests-limit"] == "1"
            assert headers["anthropic-ratelimit-requests-remaining"] == "0"
            reset = datetime.fromisoformat(headers["anthropic-ratelimit-requests-reset"])
            assert abs(reset - datetime.now(UTC) - timedelta(days=1)) < timedelta(seconds=30)
        else:
            assert headers["x-ratelimit-limit-requests"] == "1"
            assert headers["x-ratelimit-remaining-requests"] == "0"
            assert re.fullmatch(r"24h0m0s|23h59m[0-9.]+s", headers["x-ratelimit-reset-requests"])


@pytest.mark.parametrize("ask", ASKS)
def test_tokens_of_a_whole_answer(sdk: Sdk, ask: Ask) -> None:
    answer = ask(sdk, "tokens", 0)
    usage = answer.parse().usage
    used = usage.total_tokens if hasattr(usage, "total_tokens") else usage.input_tokens + usage.output_tokens
    assert used > 10 and sdk.left() == TOKENS - used
    unit = "anthropic-ratelimit-tokens-limit" if ask is ask_messages else "x-ratelimit-limit-tokens"
    assert answer.headers[unit] == str(TOKENS)


@pytest.mark.parametrize("wanted", [False, True])
def test_tokens_of_a_chat_stream(sdk: Sdk, wanted: bool) -> None:
    more: Any = {"stream_options": {"include_usage": True}} if wanted else {}
    create = sdk.openai("tokens").chat.completions.create
    chunks: list[Any] = list(create(model=INSTANT, messages=USER, stream=True, **more))
    assert (chunks[-1].usage is not None) == wanted and all(chunk.usage is None for chunk in chunks[:-1])
    assert all(chunk.choices for chunk in chunks[: -1 if wanted else None])
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    whole: Any = sdk.openai("other").chat.completions.create(model=INSTANT, messages=USER)
    assert text == whole.choices[0].message.content
    assert sdk.left() == TOKENS - whole.usage.total_tokens


def test_tokens_of_other_streams(sdk: Sdk) -> None:
    with sdk.openai("tokens").responses.stream(model=INSTANT, input="Hello") as stream:
        final = stream.get_final_response()
    assert final.usage is not None
    used = final.usage.total_tokens
    assert sdk.left() == TOKENS - used
    with sdk.anthropic("tokens").messages.stream(model=INSTANT, messages=USER, max_tokens=6) as messages:
        usage = messages.get_final_message().usage
    assert sdk.left() == TOKENS - used - usage.input_tokens - usage.output_tokens


def test_too_many_tokens(sdk: Sdk) -> None:
    with pytest.raises(openai.RateLimitError) as raised:
        sdk.openai("tokens").chat.completions.create(model=INSTANT, messages=USER, max_tokens=TOKENS)
    assert (raised.value.type, raised.value.code) == ("tokens", "rate_limit_exceeded")
    assert sdk.statuses == [429], "it is larger than the limit, and never passes"
    assert sdk.left() == TOKENS, "refused costs nothing"


def test_a_stream_that_is_closed_gives_its_place_back(sdk: Sdk) -> None:
    client = sdk.openai("places", retries=0)
    with client.chat.completions.create(model="edge-demo", messages=USER, stream=True) as stream:
        next(iter(stream))
        with pytest.raises(openai.RateLimitError):
            client.chat.completions.create(model=INSTANT, messages=USER)
    if "HTTP/2" in sdk.versions:
        return  # the SDKs' transport tells nobody that it closed a stream (test_sdks.py)
    end = time.monotonic() + 5
    while True:
        try:
            client.chat.completions.create(model=INSTANT, messages=USER)
        except openai.RateLimitError:
            assert time.monotonic() < end
        else:
            break
