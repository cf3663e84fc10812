# What models report of their usage: which JSON holds it in each dialect, and how it is told from text that looks like it.
"""`Report` and its readers.

A report is only what JSON says it is: the document is decoded, never searched, so that no text of a model or a client can
pass for one. Of a document too long to be kept, its end is proven to be one (`Reader.of_tail`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from edgeproxy.chat.asking import MOST

_GARBAGE: Final = (ValueError, RecursionError)
_USAGE: Final = b'"usage"'
_new: Final = tuple.__new__  # a NamedTuple's own constructor is a Python function and takes twice as long
_TRIES: Final = 8
_BACKSLASH: Final = 0x5C


class Report(NamedTuple):
    """What one JSON document says; None where it says nothing.

    Attributes:
        prompt: all of the prompt, what was cached included.
        cached: what of it was read from a cache.
        total: the sum as the model gave it; 0 when it gave none.
        begun: it was said before the answer; there will be more of it.
    """

    prompt: int | None
    completion: int | None
    cached: int | None
    total: int
    begun: bool = False


class _Details(msgspec.Struct, gc=False):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct, gc=False):
    """The three dialects' names side by side."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: _Details | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: _Details | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None


class _Holder(msgspec.Struct, gc=False):
    usage: _Usage | None = None


class _Messages(msgspec.Struct, gc=False):
    usage: _Usage | None = None
    message: _Holder | None = None


class _Responses(msgspec.Struct, gc=False):
    usage: _Usage | None = None
    response: _Holder | None = None


def _sane(*numbers: int | None) -> bool:
    for number in numbers:  # noqa: SIM110  all() of a generator takes three times as long
        if number is not None and not 0 <= number <= MOST:
            return False
    return True


def _of_openai(usage: _Usage) -> Report | None:
    prompt, completion, total = usage.prompt_tokens, usage.completion_tokens, usage.total_tokens
    cached = usage.prompt_tokens_details.cached_tokens if usage.prompt_tokens_details else None
    if prompt is None or not _sane(prompt, completion, total, cached):
        return None
    return _new(Report, (prompt, completion or 0, cached, total or 0, False))  # of embeddings there is no completion


def _of_responses(usage: _Usage) -> Report | None:
    prompt, completion, total = usage.input_tokens, usage.output_tokens, usage.total_tokens
    cached = usage.input_tokens_details.cached_tokens if usage.input_tokens_details else None
    if prompt is None or completion is None or not _sane(prompt, completion, total, cached):
        return None
    return Report(prompt, completion, cached, total or 0)


def _of_anthropic(usage: _Usage) -> Report | None:
    """The prompt in three parts; `message_delta` gives those that `message_start` has given again, or none of them."""
    fresh, read, written = usage.input_tokens, usage.cache_read_input_tokens, usage.cache_creation_input_tokens
    completion = usage.output_tokens
    if completion is None or not _sane(fresh, read, written, completion):
        return None
    # Some versions repeat the caches without the rest: half a prompt is none.
    prompt = None if fresh is None else fresh + (read or 0) + (written or 0)
    return Report(prompt, completion, None if prompt is None else read, 0)


class Reader:
    """Reports of one dialect.

    Attributes:
        mark: every report has these bytes in it; few other documents have.
        delta: every event of a stream that brings text has these bytes in it, once.
        lines: such an event has, its empty one included, as services write them.
    """

    __slots__ = ("_decode", "_opening", "_read", "delta", "lines", "mark")

    def __init__(
        self,
        decode: Callable[[bytes], _Holder | _Messages | _Responses],
        read: Callable[[_Usage], Report | None],
        opening: bytes,
        mark: bytes,
        delta: bytes,
        lines: int,
    ) -> None:
        self._decode = decode
        self._read = read
        self._opening = opening
        self.mark = mark
        self.delta = delta
        self.lines = lines

    def of(self, document: bytes) -> Report | None:
        """The report in a JSON document: a reply, or the data of an event."""
        try:
            found = self._decode(document)
        except _GARBAGE:
            return None
        usage = found.usage
        if usage is not None:
            return self._read(usage)
        if isinstance(found, _Messages) and found.message is not None and found.message.usage is not None:
            report = self._read(found.message.usage)
            return report._replace(begun=True) if report is not None else None
        if isinstance(found, _Responses) and found.response is not None and found.response.usage is not None:
            return self._read(found.response.usage)
        return None

    def of_tail(self, tail: bytes, *, event: bool) -> Report | None:
        """The report in a JSON document of which only the end was kept.

        In JSON the bytes `"usage"`, without a backslash before them, are a string of their own and never part of another
        one. If what follows closes exactly the objects that a report lies in, then it lies there; the decoder proves it.

        Args:
            event: the document is the data of an event.
        """
        opening = self._opening if event else b"{"
        at = len(tail)
        for _ in range(_TRIES):
            at = tail.rfind(_USAGE, 0, at)
            if at <= 0:  # at 0 nobody knows what was before it
                return None
            if tail[at - 1] != _BACKSLASH:
                report = self.of(opening + tail[at:])
                if report is not None:
                    return report
        return None


_decoder = msgspec.json.Decoder
READERS: Final = {
    "openai": Reader(_decoder(_Holder).decode, _of_openai, b"{", b'prompt_tokens"', b'"choices"', 2),
    "responses": Reader(_decoder(_Responses).decode, _of_responses, b'{"response":{', b'output_tokens"', b'.delta"', 3),
    "anthropic": Reader(_decoder(_Messages).decode, _of_anthropic, b"{", b'output_tokens"', b'"content_block_delta"', 3),
}
