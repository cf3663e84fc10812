# What the demonstration backend says. It is a plain function of the request: no clock, no chance, no model.
"""The question that all dialects are reduced to, and the deterministic text that answers it."""

from __future__ import annotations

import re
from dataclasses import dataclass

EXCERPT = 280
_TOKEN = re.compile(r"\s*\S+|\s+$")


@dataclass(frozen=True, slots=True)
class Ask:
    """A chat request without its dialect.

    Attributes:
        model: the model's name as the client wrote it.
        prompt: text of the last message that is not the assistant's.
        system: text of the system prompt, or "".
        turns: messages in the conversation, the system prompt not counted.
        tools: tools that were offered.
        prompt_tokens: tokens of everything that was sent.
        stream: the client wants events.
        include_usage: the client wants the usage event of a chat stream (`stream_options.include_usage`).
        limit: most tokens to answer with, None without a bound.
    """

    model: str
    prompt: str
    system: str
    turns: int
    tools: int
    prompt_tokens: int
    stream: bool
    include_usage: bool
    limit: int | None


@dataclass(frozen=True, slots=True)
class Answer:
    """The text for an `Ask`, cut into tokens; `cut` when the client's limit ended it early."""

    ask: Ask
    tokens: tuple[str, ...]
    cut: bool

    @property
    def text(self) -> str:
        return "".join(self.tokens)


def tokenize(text: str) -> list[str]:
    """Words with the white space before them: joined, they are the text again."""
    return _TOKEN.findall(text)


def answer(ask: Ask) -> Answer:
    """The answer to `ask`, cut to its limit."""
    tokens = tokenize(compose(ask))
    limit = len(tokens) if ask.limit is None else ask.limit
    return Answer(ask, tuple(tokens[:limit]), limit < len(tokens))


def compose(ask: Ask) -> str:
    """The whole text for `ask`."""
    words = len(ask.prompt.split())
    length = _count(words, "word")
    parts = [
        f"You wrote “{_excerpt(ask.prompt)}”, which is {length}." if words else "You wrote nothing yet.",
        "I am the demonstration backend behind edgeproxy, not a language model:",
        "I repeat what reaches me, so that you can watch an answer come through the edge word by word.",
        f"Our conversation has {_count(ask.turns, 'message')} so far"
        + (f" and a system prompt of {_count(len(ask.system.split()), 'word')}." if ask.system else "."),
    ]
    if ask.tools:
        parts.append(f"You offered {_count(ask.tools, 'tool')}; I cannot use tools, so I left them alone.")
    parts.append("Write something else, or leave in the middle of an answer: I notice at once, and stop.")
    return " ".join(parts)


def _excerpt(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= EXCERPT else text[:EXCERPT].rstrip() + "…"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
