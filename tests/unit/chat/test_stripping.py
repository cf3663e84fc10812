# The usage event taken out of a stream: what is left is to the byte what a stream without it would be, however it is cut.
from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.chat.stripping import HOLD, UsageStripper
from edgeproxy.demo.answers import Ask, answer
from edgeproxy.demo.shapes import CHAT

USAGE = b'{"id":"c","object":"chat.completion.chunk","choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2}}'
TEXT = b'{"choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":null}],"usage":null}'
LIE = json.dumps(
    {"choices": [{"index": 0, "delta": {"content": '"choices":[],"usage":{"prompt_tokens":5}\n\ndata: {}'}}], "usage": None}
).encode()
LAST = b'{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":5,"completion_tokens":2}}'
FILTER = b'{"choices":[],"prompt_filter_results":[{"prompt_tokens":1}],"usage":null}'


def stream(end: bytes, *data: bytes) -> bytes:
    return b"".join(b"data: " + item + end + end for item in data)


def stripped(parts: list[bytes]) -> bytes:
    stripper = UsageStripper()
    return b"".join([stripper.feed(part) for part in parts]) + stripper.finish()


ALL = (TEXT, LIE, FILTER, LAST, USAGE, b"[DONE]")
LEFT = (TEXT, LIE, FILTER, LAST, b"[DONE]")


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_at_every_position(end: bytes) -> None:
    whole, left = stream(end, *ALL), stream(end, *LEFT)
    assert stripped([whole]) == left
    assert stripped([bytes([byte]) for byte in whole]) == left
    for at in range(len(whole)):
        assert stripped([whole[:at], whole[at:]]) == left


def test_the_demonstration_backend() -> None:
    def written(include_usage: bool) -> list[bytes]:
        asked = Ask("m", "Hello", "", 1, 0, 3, True, include_usage, None)
        writer = CHAT.writer(answer(asked), "id", 1.0)
        return [writer.opening(), *map(writer.token, answer(asked).tokens), writer.closing()]

    assert stripped(written(True)).replace(b',"usage":null', b"") == b"".join(written(False))


def test_it_waits_for_nothing_that_could_be_read() -> None:
    stripper = UsageStripper()
    assert stripper.feed(stream(b"\n", TEXT)) == stream(b"\n", TEXT)
    assert stripper.feed(stream(b"\n", TEXT) + b"data: {") == stream(b"\n", TEXT)
    assert stripper.feed(TEXT[1:] + b"\n\n") == stream(b"\n", TEXT)
    assert stripper.feed(stream(b"\n", USAGE)[:-1]) == b""
    assert stripper.feed(b"\n" + stream(b"\n", b"[DONE]")) == stream(b"\n", b"[DONE]")
    assert stripper.finish() == b""


def test_an_event_that_never_ends() -> None:
    assert stripped([stream(b"\n", TEXT), b"data: " + USAGE]) == stream(b"\n", TEXT)
    assert stripped([stream(b"\n", TEXT), b"data: " + TEXT]) == stream(b"\n", TEXT) + b"data: " + TEXT


def test_little_is_held_of_a_huge_event() -> None:
    stripper = UsageStripper()
    data = b"data: " + b"x" * 50 + b"\r\n"
    passed = 0
    for count in range(1, 2000):
        passed += len(stripper.feed(data))
        assert count * len(data) - passed <= HOLD
    assert passed == count * len(data) - 2
    assert stripper.feed(b"\r\n") == b"\r\n\r\n"
    assert stripper.feed(stream(b"\r\n", USAGE)) == b""


def test_what_is_too_long_to_be_held_passes_however_it_comes() -> None:
    event = stream(b"\n", USAGE[:-1] + b',"x":"' + b"x" * HOLD + b'"}')
    assert stripped([event]) == stripped([event[:100], event[100:]]) == stripped([event[:-1], event[-1:]]) == event


PARTS = st.lists(
    st.sampled_from(
        [
            *(b"data: " + item for item in ALL), b"data: " + b"x" * (HOLD + 10), b": ping", b"event: a", b"\n", b"\r\n", b"\r",
            b"\n\n", b"\r\n\r\n",
        ]
    ),
    max_size=14,
).map(b"".join)  # fmt: skip


def reference(whole: bytes) -> bytes:
    """Line by line: empty lines between events stay, lines of an event that is the one and the line that ends it go."""
    left, event = b"", b""
    for line in whole.splitlines(keepends=True):
        if line.strip(b"\r\n"):
            event += line
        elif event:
            left += b"" if USAGE in event and _is_one(event) else event + line
            event = b""
        else:
            left += line
    return left + (b"" if USAGE in event and _is_one(event) else event)


def _is_one(event: bytes) -> bool:
    data = [line[6:].strip(b"\r\n") for line in event.splitlines() if line.startswith(b"data: ")]
    return data == [USAGE] and len(event) < HOLD


@given(PARTS, st.lists(st.integers(1, 200), max_size=30))
def test_any_chunking_of_anything(whole: bytes, sizes: list[int]) -> None:
    cuts, at = [], 0
    for size in sizes:
        cuts.append(whole[at : at + size])
        at += size
    cuts.append(whole[at:])
    assert stripped(cuts) == stripped([whole]) == reference(whole)
