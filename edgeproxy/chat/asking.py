# What a chat request asks for, as far as limits need it, and how a client's stream is made to report its usage.
"""`read_ask`: a request body becomes an `Ask`. `with_usage`: the same body, asking for usage in addition.

Nothing here refuses a request: the model does that. What is odd is therefore read as its sender could have meant it, and
what a field holds that no dialect knows is not counted. Time is linear in the size of the body.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Any, Final, NamedTuple

import msgspec

from edgeproxy.chat.prompts import blocks_of, is_dense, json_tokens, texts_of
from edgeproxy.chat.tokens import estimate

MOST: Final = 1_000_000_000  # tokens; what asks for more asks for as much
_new: Final = tuple.__new__  # a NamedTuple's own constructor is a Python function and takes twice as long
_STARTS_ANSWER: Final = 3  # tokens with which a chat template opens the reply
_TOOL_USE: Final = 350  # tokens of instructions that Anthropic adds as soon as tools are offered

Number = int | float | str | None  # servers in the wild take 16.0 and "16" too
_RAW: Final = msgspec.Raw(b"")


class Ask(NamedTuple):
    """What one request may use.

    Attributes:
        model: as the client wrote it; None when it names none.
        stream: it wants events.
        usage_asked: the stream will report its usage without our doing; always true of dialects that always report.
        prompt: estimated tokens of what it sends (chat/tokens.py says how well).
        completion: the most tokens that it may be answered with, all choices together; None when it sets no bound, 0 when
            there are none (embeddings).
        choices: answers it wants to the same prompt; what a route's default bound is multiplied with.
        hidden: it also refers to text that the model's service keeps, which is not in `prompt`.
        background: the model answers later, by another request.
    """

    model: str | None
    stream: bool
    usage_asked: bool
    prompt: int
    completion: int | None
    choices: int
    hidden: bool
    background: bool = False


class _Options(msgspec.Struct):
    include_usage: Any = None


class _OpenAI(msgspec.Struct):
    """Chat completions, completions and embeddings."""

    model: str | None = None
    stream: Any = None
    stream_options: _Options | None = None
    max_tokens: Number = None
    max_completion_tokens: Number = None
    n: Number = None
    best_of: Number = None
    messages: msgspec.Raw = _RAW
    prompt: msgspec.Raw = _RAW
    input: msgspec.Raw = _RAW
    tools: msgspec.Raw = _RAW
    functions: msgspec.Raw = _RAW


class _Responses(msgspec.Struct):
    model: str | None = None
    stream: Any = None
    background: Any = None
    max_output_tokens: Number = None
    input: msgspec.Raw = _RAW
    instructions: msgspec.Raw = _RAW
    tools: msgspec.Raw = _RAW
    prompt: msgspec.Raw = _RAW
    conversation: msgspec.Raw = _RAW
    previous_response_id: msgspec.Raw = _RAW


class _Anthropic(msgspec.Struct):
    model: str | None = None
    stream: Any = None
    max_tokens: Number = None
    messages: msgspec.Raw = _RAW
    system: msgspec.Raw = _RAW
    tools: msgspec.Raw = _RAW


_decode_openai = msgspec.json.Decoder(_OpenAI).decode
_decode_responses = msgspec.json.Decoder(_Responses).decode
_decode_anthropic = msgspec.json.Decoder(_Anthropic).decode
_decode_texts = msgspec.json.Decoder(str | list[str | int | list[int]] | None).decode

# msgspec.DecodeError is a ValueError and its ValidationError too; deep nesting ends in a RecursionError.
_GARBAGE: Final = (ValueError, RecursionError)


_PATHS: Final = {
    b"/chat/completions": "openai", b"/completions": "openai", b"/embeddings": "openai", b"/responses": "responses",
    b"/messages": "anthropic",
}  # fmt: skip
_END: Final = re.compile(rb"(?:/chat)?/[a-z]+$")


@lru_cache(maxsize=256)  # clients use few
def spoken(dialect: str, target: bytes) -> str:
    """The dialect that a request is read in, and its answer: that of its path, where it is the path of one, else its route's.

    One route may lead to a service that speaks several. Read in another one, a request asks for nothing, and its answer
    reports nothing.

    Args:
        dialect: of the route.
        target: as it goes on.
    """
    found = _END.search(target.partition(b"?")[0].rstrip(b"/"))  # letters that are percent-encoded were refused
    return _PATHS.get(found[0], dialect) if found is not None else dialect


def read_ask(dialect: str, content: bytes) -> Ask | None:
    """What a whole request body asks for; None when it is not a JSON object of that dialect.

    Args:
        dialect: `openai`, `responses` or `anthropic`.
        content: in UTF-8, or in what many servers of models take in addition: with a byte order mark, UTF-16, UTF-32.
    """
    read = _READERS[dialect]
    try:
        return read(content)
    except _GARBAGE:
        pass
    try:
        # As `json.loads` does with bytes. JSON in UTF-8 without a mark was read above.
        coding = json.detect_encoding(content)
        return None if coding == "utf-8" else read(content.decode(coding).encode())
    except _GARBAGE:
        return None


def _read_openai(content: bytes) -> Ask:
    asked = _decode_openai(content)
    prompts, choices, tokens = 1, 1, 0
    if asked.n is not None or asked.best_of is not None:
        choices = max(1, _count(asked.n) or 1, _count(asked.best_of) or 1)
    # What is not there is `_RAW` itself.
    if asked.tools is not _RAW or asked.functions is not _RAW:
        tokens = json_tokens(asked.tools) + json_tokens(asked.functions)
    messages, prompt, wanted = asked.messages is not _RAW, asked.prompt is not _RAW, asked.input is not _RAW
    if messages:
        tokens += _STARTS_ANSWER + _blocks(bytes(asked.messages))
    if prompt:
        prompts, more = _texts(bytes(asked.prompt))
        tokens += more
    if wanted:
        tokens += _texts(bytes(asked.input))[1]
    most = _count(asked.max_tokens) if asked.max_tokens is not None else None
    if asked.max_completion_tokens is not None:
        bound = _count(asked.max_completion_tokens)
        most = bound if most is None or (bound is not None and bound > most) else most
    choices = min(MOST, choices * prompts)
    if most is not None:
        most = min(MOST, most * choices)
    if wanted and not messages and not prompt:
        most = 0
    options = asked.stream_options
    usage = options is not None and options.include_usage is True
    return _new(Ask, (asked.model, asked.stream is True, usage, min(MOST, tokens), most, choices, False, False))


def _read_responses(content: bytes) -> Ask:
    asked = _decode_responses(content)
    tokens = _STARTS_ANSWER + _blocks(bytes(asked.input)) + _blocks(bytes(asked.instructions)) + json_tokens(asked.tools)
    hidden = any(bytes(raw) not in {b"", b"null"} for raw in (asked.previous_response_id, asked.conversation, asked.prompt))
    most = _count(asked.max_output_tokens)
    return Ask(asked.model, asked.stream is True, True, min(MOST, tokens), most, 1, hidden, asked.background is True)


def _read_anthropic(content: bytes) -> Ask:
    asked = _decode_anthropic(content)
    tools = json_tokens(asked.tools)
    tokens = _STARTS_ANSWER + _blocks(bytes(asked.messages)) + _blocks(bytes(asked.system)) + tools
    if tools:
        tokens += _TOOL_USE
    return Ask(asked.model, asked.stream is True, True, min(MOST, tokens), _count(asked.max_tokens), 1, hidden=False)


_READERS: Final = {"openai": _read_openai, "responses": _read_responses, "anthropic": _read_anthropic}


def _blocks(raw: bytes) -> int:
    """Tokens of messages, content blocks or a text; of what has an unknown shape, those of its JSON."""
    if not raw or raw == b"null":
        return 0
    try:
        return blocks_of(raw)
    except _GARBAGE:
        return estimate(raw)


def _texts(raw: bytes) -> tuple[int, int]:
    """How many prompts (or inputs of embeddings) there are, and their tokens; numbers are tokens already."""
    if is_dense(raw, b"["):
        return raw.count(b"["), estimate(raw)
    try:
        texts = _decode_texts(raw)
    except _GARBAGE:
        # Items of the Responses dialect, or multimodal inputs: some servers take them here.
        return 1, _blocks(raw)
    if isinstance(texts, str):
        return 1, estimate(texts.encode())
    return texts_of(texts or ())


def _count(value: Number) -> int | None:
    """A bound as its sender could have meant it; None when it is none."""
    if isinstance(value, str):
        value = int(value) if value.isascii() and value.isdigit() and len(value) <= 18 else None
    if value is None or value < 0 or value != value:  # noqa: PLR0124  (NaN)
        return None
    return int(min(value, MOST))


class _Streaming(msgspec.Struct):
    stream: Any = None
    stream_options: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_decode_streaming = msgspec.json.Decoder(_Streaming).decode
_decode_options = msgspec.json.Decoder(_Options | None).decode
_KEY: Final = b'"stream_options"'
_COLON: Final = re.compile(rb"[ \t\r\n]*:[ \t\r\n]*")
_OPEN: Final = re.compile(rb"[ \t\r\n]*\{[ \t\r\n]*")
_NOT_ASKED: Final = re.compile(rb'("include_usage"[ \t\r\n]*:[ \t\r\n]*)(?:false|null)')


def with_usage(content: bytes) -> bytes | None:
    """The body of an OpenAI request for a stream (chat or completions), asking for usage in addition.

    Nothing is serialised anew: a few bytes are put in, or one `false` is replaced. None when it asks for no stream, asks for
    usage already, or when the place cannot be told for sure (the key stands in it twice, say).
    """
    try:
        streaming = _decode_streaming(content)
        if streaming.stream is not True:
            return None
        options = streaming.stream_options
        changed = _add(content) if isinstance(options, msgspec.UnsetType) else _change(content, bytes(options))
        if changed is None:
            return None
        # The proof, also that the key which was found is not one within another object, or the first of two: what was put in
        # is what is read.
        now = _decode_streaming(changed).stream_options
        if isinstance(now, msgspec.UnsetType):
            return None
        asked = _decode_options(bytes(now))
        return changed if asked is not None and asked.include_usage is True else None
    except _GARBAGE:
        return None


def _add(content: bytes) -> bytes | None:
    """`stream_options` as the first key of the body."""
    opened = _OPEN.match(content)
    # The body is an object with `stream` in it, so that another key follows.
    return content[: opened.end()] + _KEY + b':{"include_usage":true},' + content[opened.end() :] if opened else None


def _change(content: bytes, options: bytes) -> bytes | None:
    """`include_usage` within the options that are there."""
    at = content.find(_KEY)
    if at < 0:  # it is written with escapes
        return None
    colon = _COLON.match(content, at + len(_KEY))
    if colon is None or not content.startswith(options, colon.end()):
        return None
    asked = _decode_options(options)
    if asked is None:
        new = b'{"include_usage":true}'
    elif asked.include_usage is True:
        return None
    elif b"include_usage" in options:
        new, changes = _NOT_ASKED.subn(rb"\1true", options)
        if changes != 1:
            return None
    else:
        opened = _OPEN.match(options)
        if opened is None:
            return None
        comma = b"" if options[opened.end() :] == b"}" else b","
        new = options[: opened.end()] + b'"include_usage":true' + comma + options[opened.end() :]
    return content[: colon.end()] + new + content[colon.end() + len(options) :]
