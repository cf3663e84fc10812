# A HAR file (what browsers save of their network traffic) as questions. Nothing is decided here.
"""`read_har`: HTTP Archive 1.2, as far as it says what was asked and answered."""

from __future__ import annotations

import base64
import binascii
from typing import Final

import msgspec

from edgeproxy.explaining.question import Question, Unclear

MAX_FILE: Final = 64 << 20  # bytes
MAX_ENTRIES: Final = 10_000


class _Pair(msgspec.Struct):
    name: str
    value: str = ""


class _Posted(msgspec.Struct):
    text: str = ""
    encoding: str = ""


class _Request(msgspec.Struct, rename="camel"):
    url: str
    method: str = "GET"
    http_version: str = ""
    headers: list[_Pair] = []
    post_data: _Posted | None = None


class _Response(msgspec.Struct):
    status: int = 0
    headers: list[_Pair] = []


class _Entry(msgspec.Struct):
    request: _Request
    response: _Response | None = None


class _Log(msgspec.Struct):
    entries: list[_Entry]


class _Archive(msgspec.Struct):
    log: _Log


_decode = msgspec.json.Decoder(_Archive).decode


def read_har(content: bytes, client: str | None = None) -> list[Question]:
    """The requests of a file, in its order.

    Args:
        client: address that they are sent from; None: the question's default.

    Raises: Unclear.
    """
    if len(content) > MAX_FILE:
        raise Unclear(f"the file is larger than {MAX_FILE >> 20} MiB")
    try:
        entries = _decode(content.removeprefix(b"\xef\xbb\xbf")).log.entries
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Unclear(f"not a HAR file: {error}") from None
    if not entries:
        raise Unclear("the HAR file has no entries")
    if len(entries) > MAX_ENTRIES:
        raise Unclear(f"the HAR file has more than {MAX_ENTRIES} entries")
    return [_question(entry, client) for entry in entries]


def _question(entry: _Entry, client: str | None) -> Question:
    asked, replied = entry.request, entry.response
    question = Question(
        asked.url, asked.method, _pairs(asked.headers), _body(asked.post_data), http=_version(asked.http_version)
    )
    if client is not None:
        question.client = client
    if replied is not None and 200 <= replied.status <= 599:  # 0: there was no answer
        question.status = replied.status
        question.reply_headers = _pairs(replied.headers)
    return question


def _pairs(pairs: list[_Pair]) -> list[tuple[str, str]]:
    return [(pair.name, pair.value) for pair in pairs]


def _body(posted: _Posted | None) -> bytes | None:
    if posted is None:
        return None
    if posted.encoding == "base64":
        try:
            return base64.b64decode(posted.text, validate=True)
        except (binascii.Error, ValueError):
            raise Unclear("the body of an entry is said to be base64, and is not") from None
    return posted.text.encode("utf-8", "surrogatepass")


def _version(text: str) -> str:
    """`HTTP/2`, `http/2.0`, `h3`, `HTTP/1.1`: they differ by browser."""
    plain = text.lower().removeprefix("http/").removeprefix("h")
    return {"1.0": "1.0", "1.1": "1.1", "2": "2", "2.0": "2", "3": "3", "3.0": "3"}.get(plain, "")
