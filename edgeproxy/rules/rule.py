# One rule, compiled: its test and what its action needs, ready to be used; when it is asked is the ruleset's business.
"""`Rule`, and `Changes`: what a rewrite does to a request's target and to headers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

from edgeproxy.faults import Fault, client_fault, edge_fault
from edgeproxy.message import Headers, Request
from edgeproxy.policy.normalise import path_problem
from edgeproxy.rules.body import must_hold
from edgeproxy.rules.compiler import Check, Container, compile_test, compile_value
from edgeproxy.rules.facts import Facts
from edgeproxy.rules.fields import FIELDS
from edgeproxy.rules.model import CHALLENGES, HeaderChanges, HeaderValue, RuleModel
from edgeproxy.rules.parser import parse, parse_value
from edgeproxy.rules.syntax import Test, Type, Value, fields_of

MAX_TARGET: Final = 16 * 1024  # bytes of a path and query that a rewrite makes
MAX_VALUE: Final = 8 * 1024  # bytes of a header that a rewrite makes
_FINAL: Final = frozenset({"block", "allow", "redirect"}) | CHALLENGES
_NOT_IN_PATH: Final = re.compile(rb"[^\x21\x22\x24-\x3e\x40-\x5b\x5d-\x7e]")  # a '?' or '#' would end it
_NOT_IN_QUERY: Final = re.compile(rb"[^\x21\x22\x24-\x7e]")
# What a Location may not have as it is: controls, blanks, and what is not ASCII (RFC 9110 §5.5, RFC 3986 §2).
_NOT_IN_LOCATION: Final = re.compile(rb"[^\x21-\x7e]")
_NOT_IN_VALUE: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


class RunError(Exception):
    """An action cannot be carried out for this request. The text says why, and quotes nothing of the request."""


class Rule:
    """One compiled rule.

    Attributes:
        index: its place among all rules.
        label: what counts in metrics: its action, or `log` for one that only tries.
        acts: it does something, it is not in mode `log`.
        final: it ends the matter when it acts.
        challenges: it acts and challenges: who has passed a challenge passes it.
        sampled: it acts on a share of what it matches.
        fields: the fields its expressions read.
        stable: they, and what its action reads, follow from the head, the client and the configuration.
        fault: of a block or challenge: how the request is refused.
        body, content_type: of a block with an answer of its own, else None.
        location: of a redirect: gives the target.
        changes: of a rewrite.
    """

    __slots__ = (
        "__weakref__", "_check", "_lists", "_types", "acts", "body", "challenges", "changes", "content_type", "fault", "fields",
        "final", "id", "index", "label", "location", "model", "sampled", "stable",
    )  # fmt: skip

    def __init__(
        self, index: int, model: RuleModel, test: Test, lists: Mapping[str, Container], types: Mapping[str, Type]
    ) -> None:
        self.index = index
        self.model = model
        self.id = model.id
        self.acts = model.mode == "act"
        self.label: str = model.action if self.acts else "log"
        self.final = self.acts and model.action in _FINAL
        self.challenges = self.acts and model.action in CHALLENGES
        self.sampled = model.sample < 1
        self.fields = fields_of(test)
        self.stable = is_stable(self.fields)
        self.fault = _fault(model)
        self.body = model.body.encode("utf-8", "surrogatepass") if model.body is not None else None
        self.content_type = (model.content_type or guessed_type(model.body or "")).encode("ascii")
        self._lists = lists
        self._types = types
        self._check: Check | None = None
        self.location = self.either(model.location, model.location_expression)
        self.changes = Changes(self, model) if model.action == "rewrite" else None

    @property
    def check(self) -> Check:
        """The test alone, as a function of `Facts`. Stable rules are asked in batches and are compiled here at first use."""
        if self._check is None:
            self._check = compile_test(self.test(), self._lists)
        return self._check

    @property
    def lists(self) -> Mapping[str, Container]:
        """The lists that its expressions may name."""
        return self._lists

    def compile(self, test: Test) -> None:
        """Make `check` now, of the tree that is at hand."""
        self._check = compile_test(test, self._lists)

    def waits(self, request: Request) -> bool:
        """Whether it reads what is known only after the body of this request was held."""
        return any(must_hold(FIELDS[name], request) for name in self.fields)

    def test(self) -> Test:
        """The tree of its expression, read anew."""
        return parse(self.model.expression, self._types, phase=self.model.phase)

    def redirect(self, facts: Facts) -> bytes | None:
        """Where a redirect leads, as a Location can say it; None for any other rule.

        Raises: RunError when its expression has no value, or what the expression raises.
        """
        if self.location is None:
            return None
        location: bytes | None = self.location(facts)
        if not location:
            raise RunError("the location has no value")
        query = facts.http_request_uri_query
        if self.model.preserve_query and query:
            location, mark, fragment = location.partition(b"#")
            location += (b"&" if b"?" in location else b"?") + query + mark + fragment
        return _NOT_IN_LOCATION.sub(_escaped, location)

    def either(self, text: str | None, expression: str | None) -> Check | None:
        """What gives a value: text, or an expression."""
        if text is not None:
            fixed = text.encode("utf-8", "surrogatepass")
            return lambda _: fixed
        return self.compiled(expression) if expression is not None else None

    def compiled(self, expression: str) -> Check:
        """An expression of its action."""
        value: Value = parse_value(expression, self._types, phase=self.model.phase)
        names = fields_of(value)
        self.fields |= names
        self.stable = self.stable and is_stable(names)
        return compile_value(value, self._lists)


def is_stable(names: frozenset[str]) -> bool:
    """Whether fields are the same for every request with the same head of the same client."""
    return all(FIELDS[name].stable for name in names)


def _fault(model: RuleModel) -> Fault | None:
    if model.action == "block":
        return client_fault(model.status or 403, "rule_block", "This request was blocked by a rule of this site.")
    if model.action in CHALLENGES:
        return edge_fault(403, "rule_challenge", "This request has to pass a challenge first.")
    return None


def guessed_type(body: str) -> str:
    """The content type of an answer's text, as it begins."""
    start = body.lstrip()[:1]
    if start in ("{", "["):
        return "application/json"
    return f"text/{'html' if start == '<' else 'plain'}; charset=utf-8"


class Changes:
    """What a rewrite does to a request's target and to headers.

    Attributes:
        of_target: it changes where the request goes.
        of_headers: it changes headers.
        fixed: names that it removes, and lines that it adds then, when none of them has to be computed; else None.
    """

    __slots__ = ("_add", "_path", "_query", "_set", "fixed", "of_headers", "of_target", "removed")

    def __init__(self, rule: Rule, model: RuleModel) -> None:
        headers = model.headers or HeaderChanges()
        self._path = rule.either(model.path, model.path_expression)
        self._query = rule.either(model.query, model.query_expression)
        self.removed = frozenset(name.encode("ascii") for name in (*headers.remove, *headers.set))
        self._set = tuple((name.encode("ascii"), _source(rule, value)) for name, value in headers.set.items())
        self._add = tuple((name.encode("ascii"), _source(rule, value)) for name, value in headers.add.items())
        self.of_target = self._path is not None or self._query is not None
        self.of_headers = bool(self.removed or self._add)
        lines = [(name, source) for name, source in (*self._set, *self._add) if isinstance(source, bytes)]
        self.fixed = lines if len(lines) == len(self._set) + len(self._add) else None

    def target(self, facts: Facts) -> bytes:
        """The target a request has after it, in origin form.

        Raises: RunError when an expression has no value, or one that cannot be sent.
        """
        path: bytes | None = facts.http_request_uri_path
        query: bytes | None = facts.http_request_uri_query
        if facts.request.target == b"*":
            raise RunError("'*' is no path")
        if self._path is not None:
            path = self._path(facts)
            if not path or not path.startswith(b"/"):
                raise RunError("the new path is missing, or does not begin with '/'")
            path = _NOT_IN_PATH.sub(_escaped, path)
        if self._query is not None:
            query = self._query(facts)
            if query is None:
                raise RunError("the new query is a missing value")
            query = _NOT_IN_QUERY.sub(_escaped, query.removeprefix(b"?"))
        assert path is not None
        target = path + b"?" + query if query else path
        problem = "it is too long" if len(target) > MAX_TARGET else path_problem(target)
        if problem is not None:
            raise RunError(f"the new target cannot be sent: {problem}")
        return target

    def headers(self, before: Headers, facts: Facts, broken: Callable[[Exception], None]) -> tuple[Headers, Headers]:
        """The field lines after it, and those of them that it wrote.

        A value that is missing, empty or cannot be sent makes no line, and what it was to replace is gone all the same: else
        a client could choose what its own line says, by a request for which there is no value.

        Args:
            broken: told of values that cannot be computed or sent.
        """
        new = self.fixed
        if new is None:
            new = []
            for name, source in (*self._set, *self._add):
                try:
                    value = _value(name, source, facts)
                except Exception as e:
                    broken(e)
                    continue
                if value:
                    new.append((name, value))
        removed = self.removed
        return [line for line in before if line[0] not in removed] + new, new


def _source(rule: Rule, value: HeaderValue) -> Check | bytes:
    return rule.compiled(value.expression) if value.expression is not None else (value.text or "").encode("ascii")


def _value(name: bytes, source: Check | bytes, facts: Facts) -> bytes | None:
    if isinstance(source, bytes):
        return source
    value: bytes | None = source(facts)
    if value is None:
        return None
    value = value.strip(b" \t")
    if len(value) > MAX_VALUE or _NOT_IN_VALUE.search(value) is not None:
        raise RunError(f"a value of {len(value)} bytes for the header {name.decode('ascii')} cannot be sent")
    return value


def _escaped(found: re.Match[bytes]) -> bytes:
    return b"%%%02X" % found[0][0]
