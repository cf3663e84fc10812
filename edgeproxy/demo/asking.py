# What clients may ask: bytes of a request in one of three dialects become an `Ask`, or a `Refusal` that says why not.
"""Parsers of OpenAI Chat Completions, Anthropic Messages and OpenAI Responses requests.

Fields that this backend has no use for are ignored, as long as the body is one JSON object.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, TypeVar

import msgspec

from edgeproxy.demo.answers import Ask, tokenize

JSON = dict[str, Any]
Content = str | list[JSON] | None
_PLACE = re.compile(r" - at `\$\.?(?P<path>.*)`$")
_MISSING = re.compile(r"Object missing required field `(?P<field>\w+)`(?: - at `\$\.?(?P<path>.*)`)?$")


class Refusal(Exception):
    """A request that is answered with an error.

    Attributes:
        status: HTTP status.
        message: the sentence that the client reads.
        param, code: OpenAI's fields; Anthropic has no use for them.
        retry_after: whole seconds for the `retry-after` header, None for no header.
    """

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None,
        retry_after: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.retry_after = retry_after


class Message(msgspec.Struct):
    role: str
    content: Content = None


class StreamOptions(msgspec.Struct):
    include_usage: bool = False


class ChatRequest(msgspec.Struct):
    model: str
    messages: list[Message]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int | None = None
    tools: list[JSON] | None = None


class MessagesRequest(msgspec.Struct):
    model: str
    max_tokens: int
    messages: list[Message]
    system: Content = None
    stream: bool | None = None
    tools: list[JSON] | None = None


class Item(msgspec.Struct):
    """An input item of the Responses API; items other than messages (tool results, reasoning) have no role."""

    role: str | None = None
    content: Content = None


class ResponsesRequest(msgspec.Struct):
    model: str
    input: str | list[Item]
    instructions: str | None = None
    stream: bool | None = None
    max_output_tokens: int | None = None
    tools: list[JSON] | None = None


def parse_chat(body: bytes) -> Ask:
    """POST /v1/chat/completions. Raises Refusal."""
    asked = _decode(body, ChatRequest)
    if not asked.messages:
        raise Refusal(400, "'messages' must hold at least one message.", param="messages")
    if asked.n not in {None, 1}:
        raise Refusal(400, "This backend gives one answer a request: leave 'n' out.", param="n")
    limit = asked.max_tokens if asked.max_completion_tokens is None else asked.max_completion_tokens
    _positive(limit, "max_tokens" if asked.max_completion_tokens is None else "max_completion_tokens")
    system = " ".join(_text(m.content) for m in asked.messages if m.role in {"system", "developer"})
    usage = asked.stream_options is not None and asked.stream_options.include_usage
    return _ask(asked, asked.messages, system, limit, include_usage=usage)


def parse_messages(body: bytes) -> Ask:
    """POST /v1/messages. Raises Refusal."""
    asked = _decode(body, MessagesRequest)
    if not asked.messages:
        raise Refusal(400, "messages: at least one message is required", param="messages")
    _positive(asked.max_tokens, "max_tokens")
    system = _text(asked.system)
    return _ask(asked, asked.messages, system, asked.max_tokens, extra=system)


def parse_responses(body: bytes) -> Ask:
    """POST /v1/responses. Raises Refusal."""
    asked = _decode(body, ResponsesRequest)
    items = [Item("user", asked.input)] if isinstance(asked.input, str) else asked.input
    messages = [Message(item.role, item.content) for item in items if item.role is not None]
    if not messages:
        raise Refusal(400, "'input' must hold at least one message.", param="input")
    _positive(asked.max_output_tokens, "max_output_tokens")
    led = " ".join(_text(m.content) for m in messages if m.role in {"system", "developer"})
    instructions = asked.instructions or ""
    system = f"{instructions} {led}".strip()
    return _ask(asked, messages, system, asked.max_output_tokens, extra=instructions)


_Body = TypeVar("_Body", ChatRequest, MessagesRequest, ResponsesRequest)


def _decode(body: bytes, kind: type[_Body]) -> _Body:
    """Bytes → request. The message names the field, as the real services do."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as e:
        reason = str(e)
        if missing := _MISSING.match(reason):
            place = ".".join(p for p in (missing["path"], missing["field"]) if p)
            raise Refusal(
                400, f"Missing required parameter: '{place}'.", param=place, code="missing_required_parameter"
            ) from e
        found = _PLACE.search(reason)
        place = found["path"] if found else ""
        what = _PLACE.sub("", reason)
        text = f"Invalid type for '{place}': {what}." if place else f"The body must be a JSON object: {what}."
        raise Refusal(400, text, param=place or None, code="invalid_type") from e
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise Refusal(400, f"The body of the request is not valid JSON: {e}.") from e


def _positive(limit: int | None, name: str) -> None:
    if limit is not None and limit < 1:
        raise Refusal(400, f"'{name}' must be at least 1, it is {limit}.", param=name, code="integer_below_min_value")


def _ask(
    asked: ChatRequest | MessagesRequest | ResponsesRequest, messages: Iterable[Message], system: str,
    limit: int | None, *, include_usage: bool = False, extra: str = "",
) -> Ask:  # fmt: skip
    """`extra` is text that counts as prompt but is not among the messages (Anthropic's `system`, `instructions`)."""
    if not asked.model:
        raise Refusal(400, "you must provide a model parameter", param="model")
    turns = [m for m in messages if m.role not in {"system", "developer"}]
    questions = [_text(m.content) for m in turns if m.role != "assistant"]
    sent = sum(len(tokenize(_text(m.content))) for m in messages) + len(tokenize(extra))
    return Ask(
        asked.model, questions[-1] if questions else "", system, len(turns), len(asked.tools or ()), sent,
        bool(asked.stream), include_usage, limit,
    )  # fmt: skip


def _text(content: Content) -> str:
    """The text of a content that is a string or a list of parts; images and the like count as nothing."""
    if isinstance(content, str):
        return content
    texts = (part.get("text") for part in content or ())
    return " ".join(text for text in texts if isinstance(text, str))
