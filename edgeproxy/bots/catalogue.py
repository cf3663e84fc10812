# Who a User-Agent claims to be. Nothing here decides whether that is true, and a claim alone gives nobody anything.
"""`Catalogue`: the bots of catalogue.yaml; `claimed(user_agent)` names one in under two microseconds, or from memory."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Final, Literal

import msgspec

from edgeproxy.rules.regexes import whole_words

FILE: Final = Path(__file__).with_name("catalogue.yaml")
MAX_AGENT: Final = 1024  # bytes of a User-Agent that are looked at
MAX_KEPT: Final = 2048  # User-Agents whose answer is remembered

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

    __slots__ = ("_by_token", "_kept", "_search", "agents", "bots", "sources", "suffixes", "version")

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
        self._search = whole_words(self._by_token) if self._by_token else None
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
        found = self._search(text) if self._search is not None else None
        return None if found is None else self._by_token[text[found[0] : found[1]].lower()]


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
