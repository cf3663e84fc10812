# Which limits a request is under, and what it costs there; who counts, and what a refusal looks like, is not known here.
"""`Limits` of a snapshot, compiled: for the facts of a request the charges that an admission is made of.

A limit's key is a hash of its name and of the values of its `key` expressions, each with its type, so that a missing value,
an empty text and the number 0 are three keys. Where expressions read only what a plan knows, charges are made once per plan.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

from edgeproxy.config.limits import Limit, amount
from edgeproxy.config.units import format_duration
from edgeproxy.policy.rates import Rate, Rates
from edgeproxy.rules.addresses import V6, network
from edgeproxy.rules.compiler import Check, Container, compile_test, compile_value
from edgeproxy.rules.facts import Facts
from edgeproxy.rules.fields import FIELDS
from edgeproxy.rules.lists import TYPES, container
from edgeproxy.rules.model import RuleBook
from edgeproxy.rules.parser import parse, parse_any
from edgeproxy.rules.rule import guessed_type
from edgeproxy.rules.syntax import Type, fields_of
from edgeproxy.state.ports import Charge, Kind, Quota

if TYPE_CHECKING:
    from edgeproxy.policy.keys import Key

_KINDS: Final = {"gcra": Kind.GCRA, "fixed-window": Kind.FIXED, "sliding-window": Kind.SLIDING}
_MICROSECONDS: Final = 1_000_000


class CompiledLimit:
    """One limit.

    Attributes:
        counts: `requests`, `tokens`, `bytes`, `score` or `concurrent`.
        quota: what a store needs to know.
        stable: whether it applies, and its key, follow from the head, the client and the configuration.
        of_body: it has to know the body of the request.
        afterwards: its units are known only when the reply is; before, it is asked whether anything is left.
        replies: which replies count; None: it does not matter.
        acts: it refuses; else it only counts and logs.
        rate: how clients are told of it.
        said: its amount, for people.
        reserve: tokens that an answer is taken to have where its request sets no bound.
        body, content_type: of its refusal, when it has its own.
        score: the reply's header that holds its points.
        budget: it is what a key of the edge may use up.
        label: its name in metrics; counters: their keys, of what was allowed, limited, and not asked.
    """

    __slots__ = (
        "_applies", "_keys", "_seed", "acts", "afterwards", "body", "budget", "content_type", "counters", "counts", "label",
        "model", "name", "named", "of_body", "quota", "rate", "replies", "reserve", "said", "score", "stable",
    )  # fmt: skip

    def __init__(self, model: Limit, lists: Mapping[str, Container], types: Mapping[str, Type]) -> None:
        """Compile. Raises: RuleError for a limit that was not checked."""
        said = amount(model)
        assert said is not None
        self.model = model
        self.name = model.name
        self.named = model.named
        self.counts, number = said
        self.budget = False
        self._labelled(model.name)
        self.acts = model.mode == "act"
        self.reserve = model.reserve
        concurrent = self.counts == "concurrent"
        self.quota = Quota(
            model.name,
            Kind.LEASES if concurrent else _KINDS[model.algorithm],
            number,
            int((model.lease if concurrent else model.period) * _MICROSECONDS),
            model.burst or 0,
            int(model.mitigation_timeout * _MICROSECONDS),
        )
        self.rate = Rate(model.name, self.counts, max(number, self.quota.burst), 0 if concurrent else self.quota.window)
        self.said = f"{number} at once" if concurrent else f"{number} {self.counts} in {format_duration(model.period)}"
        self.body = model.body.encode("utf-8", "surrogatepass") if model.body is not None else None
        self.content_type = (model.content_type or guessed_type(model.body or "")).encode("ascii")
        self.score = model.score_header.encode("ascii") if model.score_header is not None else None
        self._seed = _framed(model.name.encode("ascii"))
        test = parse(model.expression, types) if model.expression is not None else None
        values = [parse_any(text, types) for text in model.key]
        names = frozenset().union(*map(fields_of, values), fields_of(test) if test is not None else ())
        self.stable = all(FIELDS[name].stable for name in names)
        self.of_body = "edge.model" in names
        self._applies = compile_test(test, lists) if test is not None else None
        sources = [compile_value(value, lists) for value in values]
        self._keys: tuple[Check, ...] = tuple([
            _network(source, model.ipv6_prefix) if text.strip() == "ip.src" else source
            for text, source in zip(model.key, sources, strict=True)
        ])  # fmt: skip
        self.replies = None
        if model.counting_expression is not None:
            self.replies = compile_test(parse(model.counting_expression, types, phase="response"), lists)
        self.afterwards = self.replies is not None or self.counts in ("bytes", "score")

    def _labelled(self, label: str) -> None:
        self.label = label
        self.counters = tuple((label, outcome) for outcome in ("allowed", "limited", "unasked"))

    @classmethod
    def of_budget(cls, key_id: str, number: int, period: float, word: str) -> CompiledLimit:
        """What one key of the edge may use up: one counter, whoever asks."""
        model = Limit(name=f"{key_id}.{word}", tokens=number, period=period, algorithm="fixed-window", key=("ssl",))
        limit = cls(model, {}, {})
        limit.budget = True
        limit._labelled(f"budget.{word}")
        limit.rate = Rate(f"budget.{word}", "tokens", number, limit.quota.window)
        return limit

    def key(self, facts: Facts) -> bytes | None:
        """What a request is counted under; None where the limit is not about it.

        Raises: what an expression raises.
        """
        if self._applies is not None and not self._applies(facts):
            return None
        text = self._seed
        for source in self._keys:
            text += encoded(source(facts))
        return blake2b(text, digest_size=16).digest()

    def charge(self, key: bytes, tokens: int) -> Charge:
        """What a request takes before it is forwarded.

        Args:
            tokens: that it may use.
        """
        if self.afterwards:
            return Charge(self.quota, key, 0)
        return Charge(self.quota, key, tokens if self.counts == "tokens" else 1)


def _network(address: Check, bits: int) -> Check:
    """The client's address, but of IPv6 only its network: who has one has 2^64 addresses."""
    return lambda facts: network(code, bits) if (code := address(facts)) is not None and code >= V6 else code


class Together:
    """Limits that one exchange is under, and what follows from which they are; made once for all such exchanges.

    Attributes:
        rates: how clients are told of them.
        leased: one is of concurrency; lease: the seconds that the shortest of those keeps a place, 0.0 without.
        tokens: one is of tokens.
        reads: one wants to see the reply's head.
        settles: what was taken may have to be corrected when an exchange is over.
    """

    __slots__ = ("lease", "leased", "limits", "rates", "reads", "settles", "tokens")

    def __init__(self, limits: tuple[CompiledLimit, ...]) -> None:
        """Of at least one limit."""
        self.limits = limits
        self.rates = Rates([limit.rate for limit in limits])
        leases = [limit.quota.window for limit in limits if limit.counts == "concurrent"]
        self.leased = bool(leases)
        self.lease = min(leases, default=0) / _MICROSECONDS
        self.tokens = any(limit.counts == "tokens" for limit in limits)
        self.reads = any(limit.replies is not None or limit.score is not None for limit in limits)
        self.settles = self.leased or self.tokens or any(limit.afterwards for limit in limits)


def compile_limits(limits: tuple[Limit, ...], book: RuleBook) -> tuple[CompiledLimit, ...]:
    """All limits of a configuration; their expressions may name the lists of the rule files."""
    lists: dict[str, Container] = {each.name: container(each) for each in book.lists} if limits else {}
    types = {each.name: TYPES[each.kind] for each in book.lists}
    return tuple(CompiledLimit(limit, lists, types) for limit in limits)


def compile_budgets(keys: Sequence[Key]) -> dict[str, tuple[CompiledLimit, ...]]:
    """The budgets of keys, by the keys' ids: limits of tokens in a day, and in thirty days, that only they are under."""
    budgets = {}
    for key in keys:
        numbers = ((key.tokens_per_day, 86400.0, "day"), (key.tokens_per_month, 30 * 86400.0, "month"))
        made = []
        for number, period, word in numbers:
            if number is not None:
                made.append(CompiledLimit.of_budget(key.id, number, period, word))
        if made:
            budgets[key.id] = tuple(made)
    return budgets


def encoded(value: Any) -> bytes:
    """A value with its type, so that no two values look alike: missing, texts, numbers, truths, arrays and maps."""
    if value is None:
        return b"-"
    if isinstance(value, bool):
        return b"t" if value else b"f"
    if isinstance(value, int):
        return _framed(b"i%d" % value)
    if isinstance(value, bytes):
        return _framed(b"s" + value)
    if isinstance(value, dict):
        return _framed(b"m" + b"".join(encoded(key) + encoded(each) for key, each in sorted(value.items())))
    return _framed(b"a" + b"".join(map(encoded, value)))


def _framed(value: bytes) -> bytes:
    return b"%d:%b" % (len(value), value)
