# Error bodies and in-band error events: what the official SDKs raise depends on every field of them.
from __future__ import annotations

import json
from typing import Any

import pytest

from edgeproxy.chat.dialects import error_body, stream_error
from edgeproxy.faults import Fault, client_fault, edge_fault, upstream_fault

OPENAI = [
    (client_fault(400, "body", "m"), "invalid_request_error"),
    (client_fault(408, "body_timeout", "m"), "timeout_error"),
    (client_fault(413, "body_too_large", "m"), "invalid_request_error"),
    (client_fault(417, "expect", "m"), "invalid_request_error"),
    (edge_fault(404, "no_route", "m"), "invalid_request_error"),
    (edge_fault(503, "upstream_full", "m"), "overloaded_error"),
    (edge_fault(508, "loop", "m"), "server_error"),
    (upstream_fault(502, "closed", "m"), "server_error"),
    (upstream_fault(504, "idle_timeout", "m"), "timeout_error"),
]
ANTHROPIC = [
    (client_fault(400, "body", "m"), "invalid_request_error"),
    (client_fault(408, "body_timeout", "m"), "timeout_error"),
    (client_fault(413, "body_too_large", "m"), "request_too_large"),
    (edge_fault(404, "no_route", "m"), "not_found_error"),
    (edge_fault(503, "upstream_full", "m"), "overloaded_error"),
    (upstream_fault(502, "closed", "m"), "api_error"),
    (upstream_fault(504, "idle_timeout", "m"), "timeout_error"),
]


@pytest.mark.parametrize(("fault", "kind"), OPENAI, ids=lambda value: getattr(value, "reason", value))
@pytest.mark.parametrize("dialect", ["openai", "responses"])
def test_openai_bodies(dialect: str, fault: Fault, kind: str) -> None:
    expected = {"error": {"message": "m", "type": kind, "param": None, "code": fault.reason}}
    assert json.loads(error_body(dialect, fault, "ray")) == expected


@pytest.mark.parametrize(("fault", "kind"), ANTHROPIC, ids=lambda value: getattr(value, "reason", value))
def test_anthropic_bodies(fault: Fault, kind: str) -> None:
    expected = {"type": "error", "error": {"type": kind, "message": "m"}, "request_id": "ray"}
    assert json.loads(error_body("anthropic", fault, "ray")) == expected


FAULT = upstream_fault(502, "truncated", 'it "broke" off\n')


def parsed(event: bytes | None) -> tuple[str | None, dict[str, Any]]:
    """Name and data of the one event."""
    assert event is not None
    assert event.endswith(b"\n\n")
    assert event.count(b"\n\n") == 1
    name, data = None, None
    for line in event.decode().rstrip("\n").split("\n"):
        field, _, value = line.partition(": ")
        if field == "event":
            name = value
        else:
            assert field == "data"
            assert data is None
            data = json.loads(value)
    assert isinstance(data, dict)
    return name, data


def test_openai_event() -> None:
    name, data = parsed(stream_error("openai", FAULT, b"data: 1\n\n"))
    assert name is None
    assert data == {"error": {"message": FAULT.message, "type": "server_error", "param": None, "code": "truncated"}}


def test_anthropic_event() -> None:
    name, data = parsed(stream_error("anthropic", FAULT, b"data: 1\n\n"))
    assert name == "error"
    assert data == {"type": "error", "error": {"type": "api_error", "message": FAULT.message}}


@pytest.mark.parametrize(
    ("tail", "number"),
    [
        (b'data: {"sequence_number":4}\n\n', 5),
        (b'data: {"sequence_number": 4}\n\ndata: {"sequence_number" : 41}\n\n', 42),
        (b"data: {}\n\n", 0),
        (b'data: {"sequence_number":-1}\n\n', 0),
    ],
)
def test_responses_event_counts_on(tail: bytes, number: int) -> None:
    _, data = parsed(stream_error("responses", FAULT, tail))
    assert data == {
        "type": "error", "code": "truncated", "message": FAULT.message, "param": None, "sequence_number": number,
    }  # fmt: skip


@pytest.mark.parametrize("dialect", ["openai", "anthropic", "responses"])
@pytest.mark.parametrize("tail", [b"data: 1\n\n", b"data: 1\r\n\r\n", b"data: 1\r\r", b": ping\n\n"])
def test_an_event_may_follow_a_boundary(dialect: str, tail: bytes) -> None:
    parsed(stream_error(dialect, FAULT, tail))


@pytest.mark.parametrize("dialect", ["openai", "anthropic", "responses"])
@pytest.mark.parametrize("tail", [b"data: 1\n", b"data: 1\r\n", b"data: {", b"data: 1\r\n\r", b"\\n\\n", b"\n"])
def test_no_event_in_the_middle_of_another(dialect: str, tail: bytes) -> None:
    assert stream_error(dialect, FAULT, tail) is None
