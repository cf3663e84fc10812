# Who a User-Agent claims to be. Nothing here decides whether that is true, and a claim alone gives nobody anything.
"""`Catalogue`: the bots of catalogue.yaml; `claimed(user_agent)` names one in under two microseconds, or from memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import re2

FILE: Final = Path(__file__).with_name("catalogue.yaml")
MAX_AGENT: Final = 1024  # bytes of a User-Agent that are looked at
MAX_KEPT: Final = 2048  # User-Agents whose answer is remembered
_MAX_MEMORY: Final = 8 << 20  # bytes of RE2's program

# cf.verified_bot_category has one of these.
Category = Literal[
    "Academic Research", "Accessibility", "Advertising & Marketing", "Aggregator", "AI Assistant", "AI Crawler", "AI Search",
    "Archiver", "Feed Fetcher", "Monitoring & Analytics", "Page Preview", "Search Engine Crawler", "Search Engine Optimization",
    "Security", "Social Media Marketing", "Webhooks", "Other",
]  # fmt: skip


class Bot(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A bot, and the ways by which it can prove who it is.

    Attributes:
        tokens: words of its User-Agent; none where only a signature names it.
        ranges: names of files of published networks, without `.json`.
        dns: what its host name ends with, without the dot before it, lower case.
        agents: origins of its key directories: `https://chatgpt.com`.
    """

    name: str
    operator: str
    category: Category
    tokens: tuple[str, ...] = ()
    ranges: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    agents: tuple[str, ...] = ()


class _File(msgspec.Struct, forbid_unknown_fields=True):
    version: int
    sources: dict[str, str]
    bots: tuple[Bot, ...]


class Catalogue:
    """See the module.

    Attributes:
        version: of the file.
        sources: name of a file of networks → URL that its operator publishes it at.
        agents: origin of a key directory → bot.
        suffixes: of all bots' host names.
    """

    __slots__ = ("_by_token", "_kept", "_match", "_search", "agents", "bots", "sources", "suffixes", "version")

    def __init__(self, bots: Sequence[Bot], sources: dict[str, str] | None = None, version: int = 0) -> None:
        """Raises ValueError where two bots have the same token, or one a source that is not there."""
        self.version = version
        self.bots = tuple(bots)
        self.sources = sources or {}
        self.agents = {agent: bot for bot in bots for agent in bot.agents}
        self.suffixes = tuple(sorted({suffix for bot in bots for suffix in bot.dns}))
        self._by_token: dict[bytes, Bot] = {}
        for bot in bots:
            if unknown := set(bot.ranges) - set(self.sources):
                raise ValueError(f"the bot {bot.name} has networks in '{min(unknown)}', which is none of the sources")
            for token in bot.tokens:
                # The same word in two spellings (`DotBot`, `dotbot`) is fine within one bot.
                first = self._by_token.setdefault(token.lower().encode(), bot)
                if first is not bot:
                    raise ValueError(f"the token '{token}' is of two bots: {first.name}, {bot.name}")
        self._match = _alternation(self._by_token)._regexp.Match if self._by_token else None
        self._search = re2._Anchor.UNANCHORED
        self._kept: dict[bytes, Bot | None] = {}

    def claimed(self, user_agent: bytes) -> Bot | None:
        """Whom a User-Agent names, None for nobody. Of several the first one in the text."""
        kept = self._kept
        try:
            return kept[user_agent]
        except KeyError:
            pass
        bot = self._find(user_agent[:MAX_AGENT])
        if len(user_agent) <= MAX_AGENT:
            if len(kept) >= MAX_KEPT:
                del kept[next(iter(kept))]
            kept[user_agent] = bot
        return bot

    def _find(self, text: bytes) -> Bot | None:
        if self._match is None:
            return None
        first, last = self._match(self._search, text, 0, len(text))[0]
        return self._by_token[text[first:last].lower()] if first >= 0 else None


def _alternation(tokens: Iterable[bytes]) -> Any:
    """All tokens as one expression. RE2 prefers the alternative that stands first: the longest.

    A word that begins or ends with a letter or digit is not found inside a longer one (`Yeti` in `Yetisports`).
    """
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.case_sensitive = False
    options.never_capture = True
    options.log_errors = False
    options.max_mem = _MAX_MEMORY
    words = sorted(tokens, key=lambda word: (-len(word), word))
    return re2._Regexp(b"|".join(_word(word) for word in words), options)


def _word(token: bytes) -> bytes:
    before = rb"\b" if token[:1].isalnum() else b""
    behind = rb"\b" if token[-1:].isalpha() else b""  # `Mastodon/4` also finds version 40
    return b"%b%b%b" % (before, re2.escape(token), behind)


@cache
def shipped() -> Catalogue:
    """That of catalogue.yaml, read once a process."""
    return read(FILE.read_bytes())


def read(text: bytes) -> Catalogue:
    """Raises ValueError for what is not a catalogue."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        file = msgspec.convert(yaml.load(text, loader), _File)  # noqa: S506  one of the two safe ones
    except (yaml.YAMLError, msgspec.ValidationError) as error:
        raise ValueError(f"not a catalogue of bots: {error}") from error
    return Catalogue(file.bots, file.sources, file.version)
