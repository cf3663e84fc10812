# What browsers save, as questions.
from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from edgeproxy.explaining import har
from edgeproxy.explaining.har import read_har
from edgeproxy.explaining.question import Unclear


def archive(*entries: dict[str, Any]) -> bytes:
    return json.dumps({"log": {"version": "1.2", "creator": {}, "entries": list(entries)}}).encode()


def entry(**about: Any) -> dict[str, Any]:
    return {"startedDateTime": "x", "request": {"method": "GET", "url": "https://x/", "headers": [], "cookies": [], **about}}


def test_requests_and_replies() -> None:
    posted = entry(
        method="POST", httpVersion="h3", headers=[{"name": ":authority", "value": "x"}, {"name": "X-A", "value": "1"}],
        postData={"mimeType": "application/json", "text": '{"a": "é"}'},
    )  # fmt: skip
    posted["response"] = {"status": 201, "statusText": "", "headers": [{"name": "Content-Type", "value": "text/plain"}]}
    first, second = read_har(b"\xef\xbb\xbf" + archive(posted, entry()), "203.0.113.7")
    assert (first.method, first.http, first.body, first.client) == ("POST", "3", '{"a": "é"}'.encode(), "203.0.113.7")
    assert first.headers[1] == ("X-A", "1")
    assert (first.status, first.reply_headers) == (201, [("Content-Type", "text/plain")])
    assert (second.method, second.status, second.body) == ("GET", None, None)


def test_a_body_in_base64_and_an_answer_that_never_came() -> None:
    one = entry(method="POST", postData={"text": base64.b64encode(b"\xff\x00").decode(), "encoding": "base64"})
    one["response"] = {"status": 0, "headers": []}
    (question,) = read_har(archive(one))
    assert (question.body, question.status) == (b"\xff\x00", None)


@pytest.mark.parametrize(("said", "http"), [
    ("HTTP/1.1", "1.1"), ("http/2.0", "2"), ("HTTP/2", "2"), ("h2", "2"), ("h3", "3"), ("HTTP/3", "3"), ("http/1.0", "1.0"),
    ("unknown", ""), ("", ""),
])  # fmt: skip
def test_versions(said: str, http: str) -> None:
    assert read_har(archive(entry(httpVersion=said)))[0].http == http


@pytest.mark.parametrize(("content", "why"), [
    (b"no json", "not a HAR file"), (b"{}", "not a HAR file"), (b'{"log": {"entries": []}}', "no entries"),
    (b'{"log": {"entries": [{"request": {"url": 5}}]}}', r"entries\[0\].request.url"), (b"\xff", "not a HAR file"),
    (archive(entry(postData={"text": "!", "encoding": "base64"})), "base64"),
])  # fmt: skip
def test_what_is_refused(content: bytes, why: str) -> None:
    with pytest.raises(Unclear, match=why):
        read_har(content)


def test_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(har, "MAX_ENTRIES", 2)
    with pytest.raises(Unclear, match="more than 2"):
        read_har(archive(*[entry()] * 3))
    monkeypatch.setattr(har, "MAX_FILE", 10)
    with pytest.raises(Unclear, match="larger"):
        read_har(archive(entry()))


def test_what_is_nested_too_deep_is_no_crash() -> None:
    with pytest.raises(Unclear, match="not a HAR file"):
        read_har(b'{"log": {"x": ' + b"[" * 100_000 + b"]" * 100_000 + b', "entries": []}}')
