# The three dialects as JSON: what answers, their events and errors look like. No sockets here.
"""OpenAI Chat Completions, Anthropic Messages and OpenAI Responses, in the shapes that their official SDKs read.

A `Dialect` parses bytes into an `Ask`, writes an `Answer` whole or as server-sent events, and words refusals.
Shapes: the public API references of OpenAI and Anthropic, and the types of `openai` 3.54 and `anthropic` 2.12.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from edgeproxy.demo.answers import Answer, Ask
from edgeproxy.demo.asking import JSON, Refusal, parse_chat, parse_messages, parse_responses

_encode = msgspec.json.Encoder().encode


class Writer(Protocol):
    """One answer on its way out. `opening`, a `token` for each, `closing` make a stream; `whole` is the other form."""

    def opening(self) -> bytes: ...
    def token(self, text: str) -> bytes: ...
    def closing(self) -> bytes: ...
    def whole(self) -> JSON: ...


@dataclass(frozen=True, slots=True)
class Dialect:
    """What the HTTP part needs of a dialect.

    Attributes:
        parse: body of a request → what is asked; raises Refusal.
        writer: (answer, identity, seconds since 1970) → its shape; the identity becomes part of the ids.
        error: (refusal, request id) → the JSON of an error.
        request_id_header: the header field in which the official services name a request.
        overloaded: the status that says "too much work here, try later".
    """

    parse: Callable[[bytes], Ask]
    writer: Callable[[Answer, str, float], Writer]
    error: Callable[[Refusal, str], JSON]
    request_id_header: str
    overloaded: int


class _ChatWriter:
    def __init__(self, answer: Answer, identity: str, now: float) -> None:
        self._answer = answer
        self._head: JSON = {"id": f"chatcmpl-{identity}", "created": int(now), "model": answer.ask.model}
        self._usage_wanted = answer.ask.include_usage
        self._finish = "length" if answer.cut else "stop"

    def opening(self) -> bytes:
        return self._chunk({"role": "assistant", "content": "", "refusal": None})

    def token(self, text: str) -> bytes:
        return self._chunk({"content": text})

    def closing(self) -> bytes:
        last = self._chunk({}, self._finish)
        if self._usage_wanted:
            last += _event({**self._head, **_CHUNK, "choices": [], "usage": self._usage()})
        return last + b"data: [DONE]\n\n"

    def whole(self) -> JSON:
        message: JSON = {"role": "assistant", "content": self._answer.text, "refusal": None, "annotations": []}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": self._finish}
        return {**self._head, **_COMPLETION, "choices": [choice], "usage": self._usage()}

    def _chunk(self, delta: JSON, finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        chunk = {**self._head, **_CHUNK, "choices": [choice]}
        if self._usage_wanted:
            chunk["usage"] = None
        return _event(chunk)

    def _usage(self) -> JSON:
        sent, made = self._answer.ask.prompt_tokens, len(self._answer.tokens)
        return {
            "prompt_tokens": sent,
            "completion_tokens": made,
            "total_tokens": sent + made,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": 0, "audio_tokens": 0, "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        }  # fmt: skip


_CHUNK: JSON = {"object": "chat.completion.chunk", "service_tier": "default", "system_fingerprint": "fp_edgeproxy_demo"}
_COMPLETION: JSON = {**_CHUNK, "object": "chat.completion"}


class _MessagesWriter:
    def __init__(self, answer: Answer, identity: str, now: float) -> None:  # noqa: ARG002  (there are no dates here)
        self._answer = answer
        self._identity = f"msg_{identity}"
        self._stop = "max_tokens" if answer.cut else "end_turn"

    def opening(self) -> bytes:
        block = {"type": "text", "text": ""}
        return b"".join(
            (
                _named({"type": "message_start", "message": self._message([], None, 1)}),
                _named({"type": "content_block_start", "index": 0, "content_block": block}),
                _named({"type": "ping"}),
            )
        )

    def token(self, text: str) -> bytes:
        return _named({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}})

    def closing(self) -> bytes:
        delta = {"stop_reason": self._stop, "stop_sequence": None}
        usage = {"output_tokens": len(self._answer.tokens)}
        return b"".join(
            (
                _named({"type": "content_block_stop", "index": 0}),
                _named({"type": "message_delta", "delta": delta, "usage": usage}),
                _named({"type": "message_stop"}),
            )
        )

    def whole(self) -> JSON:
        content = [{"type": "text", "text": self._answer.text}]
        return self._message(content, self._stop, len(self._answer.tokens))

    def _message(self, content: list[JSON], stop: str | None, output: int) -> JSON:
        return {
            "id": self._identity, "type": "message", "role": "assistant", "model": self._answer.ask.model,
            "content": content, "stop_reason": stop, "stop_sequence": None,
            "usage": {
                "input_tokens": self._answer.ask.prompt_tokens, "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 0, "output_tokens": output, "service_tier": "standard",
            },
        }  # fmt: skip


class _ResponsesWriter:
    def __init__(self, answer: Answer, identity: str, now: float) -> None:
        self._answer = answer
        self._identity = identity
        self._now = int(now)
        self._sequence = 0
        self._place = {"item_id": f"msg_{identity}", "output_index": 0, "content_index": 0}

    def opening(self) -> bytes:
        started = self._response("in_progress", [])
        return b"".join(
            (
                self._named("response.created", response=started),
                self._named("response.in_progress", response=started),
                self._named("response.output_item.added", output_index=0, item=self._item("in_progress", [])),
                self._named("response.content_part.added", **self._place, part=_part("")),
            )
        )

    def token(self, text: str) -> bytes:
        return self._named("response.output_text.delta", **self._place, delta=text, logprobs=[])

    def closing(self) -> bytes:
        text = self._answer.text
        status = "incomplete" if self._answer.cut else "completed"
        return b"".join(
            (
                self._named("response.output_text.done", **self._place, text=text, logprobs=[]),
                self._named("response.content_part.done", **self._place, part=_part(text)),
                self._named("response.output_item.done", output_index=0, item=self._item(status, [_part(text)])),
                self._named(f"response.{status}", response=self.whole()),
            )
        )

    def whole(self) -> JSON:
        status = "incomplete" if self._answer.cut else "completed"
        return self._response(status, [self._item(status, [_part(self._answer.text)])])

    def _named(self, kind: str, **fields: Any) -> bytes:
        event = _named({"type": kind, "sequence_number": self._sequence, **fields})
        self._sequence += 1
        return event

    def _item(self, status: str, content: list[JSON]) -> JSON:
        item_id = f"msg_{self._identity}"
        return {"id": item_id, "type": "message", "status": status, "role": "assistant", "content": content}

    def _response(self, status: str, output: list[JSON]) -> JSON:
        finished = status != "in_progress"
        sent, made = self._answer.ask.prompt_tokens, len(self._answer.tokens)
        usage = {
            "input_tokens": sent, "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": made, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": sent + made,
        }  # fmt: skip
        return {
            "id": f"resp_{self._identity}", "object": "response", "created_at": self._now, "status": status,
            "background": False, "completed_at": self._now if status == "completed" else None, "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "instructions": None, "max_output_tokens": self._answer.ask.limit, "max_tool_calls": None,
            "model": self._answer.ask.model, "output": output, "parallel_tool_calls": True,
            "previous_response_id": None, "prompt_cache_key": None, "reasoning": {"effort": None, "summary": None},
            "safety_identifier": None, "service_tier": "default", "store": False, "temperature": 1.0,
            "text": {"format": {"type": "text"}, "verbosity": "medium"}, "tool_choice": "none", "tools": [],
            "top_logprobs": 0, "top_p": 1.0, "truncation": "disabled", "usage": usage if finished else None,
            "user": None, "metadata": {},
        }  # fmt: skip


def _part(text: str) -> JSON:
    return {"type": "output_text", "annotations": [], "logprobs": [], "text": text}


def _event(data: JSON) -> bytes:
    return b"data: " + _encode(data) + b"\n\n"


def _named(data: JSON) -> bytes:
    kind: str = data["type"]
    return b"event: " + kind.encode() + b"\ndata: " + _encode(data) + b"\n\n"


_OPENAI_TYPES = {429: "requests", 500: "server_error", 503: "server_error"}
_ANTHROPIC_TYPES = {
    401: "authentication_error", 403: "permission_error", 404: "not_found_error", 413: "request_too_large",
    429: "rate_limit_error", 500: "api_error", 529: "overloaded_error",
}  # fmt: skip


def _openai_error(refusal: Refusal, request_id: str) -> JSON:  # noqa: ARG001  (OpenAI names it in a header only)
    kind = _OPENAI_TYPES.get(refusal.status, "invalid_request_error")
    return {"error": {"message": refusal.message, "type": kind, "param": refusal.param, "code": refusal.code}}


def _anthropic_error(refusal: Refusal, request_id: str) -> JSON:
    kind = _ANTHROPIC_TYPES.get(refusal.status, "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": refusal.message}, "request_id": request_id}


CHAT = Dialect(parse_chat, _ChatWriter, _openai_error, "x-request-id", 503)
MESSAGES = Dialect(parse_messages, _MessagesWriter, _anthropic_error, "request-id", 529)
RESPONSES = Dialect(parse_responses, _ResponsesWriter, _openai_error, "x-request-id", 503)
