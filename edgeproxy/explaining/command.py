# `edgeproxy explain`: what was said on the command line becomes questions, and explanations become text. cli.py only reads
# the options.
"""`Asked`, and `run`, which gives the text to print."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from edgeproxy.config.model import Config
from edgeproxy.explaining.answer import Explanation
from edgeproxy.explaining.course import explain
from edgeproxy.explaining.curl import read_curl
from edgeproxy.explaining.har import MAX_FILE, read_har
from edgeproxy.explaining.paper import PaperSnapshot
from edgeproxy.explaining.question import MAX_BODY, Question, Unclear
from edgeproxy.explaining.shell import words
from edgeproxy.explaining.text import render

_URL: Final = 96  # columns of a URL in a summary


@dataclass(slots=True)
class Asked:
    """What was said.

    Attributes:
        request: a URL, a curl command in one word, or a curl command in many.
        method, headers, data, http: of a URL; None and empty: not said.
        har, entry: a HAR file, and which of its entries (1 is the first; None: a summary of all).
        client, ja4: address that the request comes from, and its fingerprint.
        status, reply_headers: of the reply.
    """

    request: list[str] = field(default_factory=list)
    method: str | None = None
    headers: list[str] = field(default_factory=list)
    data: str | None = None
    http: str | None = None
    har: Path | None = None
    entry: int | None = None
    client: str | None = None
    status: int | None = None
    reply_headers: list[str] = field(default_factory=list)
    ja4: str | None = None


@dataclass(slots=True)
class Style:
    """How it is told."""

    json: bool = False
    brief: bool = False
    colour: bool = False
    show_secrets: bool = False


def run(config: Config, asked: Asked, style: Style) -> str:
    """The text to print.

    Raises: Unclear.
    """
    questions = _questions(asked)
    snapshot = PaperSnapshot(config)
    if asked.har is not None and asked.entry is None and len(questions) > 1:
        return _summaries(snapshot, questions, style)
    at = (asked.entry or 1) - 1
    if not 0 <= at < len(questions):
        raise Unclear(f"the file has entries 1 to {len(questions)}, not {asked.entry}")
    explanation = explain(snapshot, questions[at], show_secrets=style.show_secrets)
    if style.json:
        return msgspec.json.format(msgspec.json.encode(explanation), indent=2).decode() + "\n"
    return render(explanation, colour=style.colour, brief=style.brief)


def read_file(name: str, most: int = MAX_BODY) -> bytes:
    """What is in a file, `-` for standard input not among them.

    Raises: Unclear.
    """
    try:
        with Path(name).open("rb") as opened:
            content = opened.read(most + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise Unclear(f"{name} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(content) > most:
        raise Unclear(f"{name} is larger than {most >> 20} MiB")
    return content


def header(line: str) -> tuple[str, str]:
    """`Name: value`.

    Raises: Unclear.
    """
    name, colon, value = line.partition(":")
    if not colon:
        raise Unclear(f"the header {line!r} has no ':'")
    return name.strip(), value.strip()


def _questions(asked: Asked) -> list[Question]:
    if (asked.har is None) == (not asked.request):
        raise Unclear("give a URL, a curl command or --har FILE (and only one of them)")
    if asked.entry is not None and asked.har is None:
        raise Unclear("--entry belongs to --har")
    if asked.har is not None or asked.request[0].split(None, 1)[:1] == ["curl"]:
        if asked.method or asked.headers or asked.data is not None or asked.http:
            raise Unclear("-X, -H, --data and --http belong to a URL: a curl command or HAR file says these itself")
        found = _told(asked)
    else:
        found = [_flags(asked)]
    for question in found:
        question.ja4 = asked.ja4 or ""
        if asked.status is not None:
            question.status = asked.status
        if asked.reply_headers:
            question.reply_headers = [header(line) for line in asked.reply_headers]
            question.status = question.status or 200
        if question.status is not None and not 200 <= question.status <= 599:
            raise Unclear(f"{question.status} is not the status of a reply: 200 to 599")
    return found


def _told(asked: Asked) -> list[Question]:
    """What a HAR file or a curl command says."""
    if asked.har is not None:
        return read_har(read_file(str(asked.har), MAX_FILE), asked.client)
    command = words(asked.request[0]) if len(asked.request) == 1 else asked.request
    return [read_curl(command, read_file, asked.client)]


def _flags(asked: Asked) -> Question:
    if len(asked.request) > 1:
        raise Unclear(f"one URL, not {len(asked.request)} words: a curl command begins with 'curl'")
    body = None
    if asked.data is not None:
        body = read_file(asked.data[1:]) if asked.data.startswith("@") else asked.data.encode("utf-8", "surrogateescape")
    question = Question(asked.request[0], asked.method, [header(line) for line in asked.headers], body)
    if asked.client is not None:
        question.client = asked.client
    if asked.http is not None:
        question.http = asked.http
    return question


def _summaries(snapshot: PaperSnapshot, questions: list[Question], style: Style) -> str:
    """A line for each request."""
    rows = []
    for number, question in enumerate(questions, 1):
        try:
            found: Explanation | None = explain(snapshot, question, show_secrets=style.show_secrets)
            says = found.outcome.says if found is not None else ""
        except Unclear as error:  # a browser also saves data: and chrome-extension: requests
            found, says = None, f"not a request for the edge: {error}"
        rows.append({
            "entry": number, "method": question.method, "url": question.url,
            "outcome": found.outcome if found is not None else None, "says": says,
        })  # fmt: skip
    if style.json:
        return msgspec.json.format(msgspec.json.encode(rows), indent=2).decode() + "\n"
    width = len(str(len(rows)))
    lines = [f"{row['entry']:>{width}}  {row['method']} {_cut(str(row['url']))}\n{'':>{width}}  → {row['says']}" for row in rows]
    return "\n".join([*lines, "", "Details: --entry N"]) + "\n"


def _cut(text: str) -> str:
    shown = "".join(char if char.isprintable() else "�" for char in text[:_URL])
    return shown + "…" if len(text) > _URL else shown
