# Golden cases: requests beside a rule file, and what its rules shall make of them. Run by `edgeproxy rules test`.
"""`X.cases.yaml` holds cases for the rules of `X.yaml`: a request, a reply where that matters, and what is expected.

    cases:
      - name: scanners are blocked
        request: {url: "https://example.org/?a=1", method: GET, headers: {user-agent: sqlmap/1.8}, client: 192.0.2.7}
        expect: {action: block, rule: block-scanners, status: 403}
      - request: {url: "https://example.org/old"}
        response: {status: 200, headers: {server: x}}
        expect: {action: pass, path: /new, headers: {x-a: b, cookie: null}, response_headers: {server: null}}

Rules run as in the edge: normalised host, header names in lower case, one field line for each value. A sampled rule always
acts. `{300 of 'x'}` in a URL or a body stands for that many of them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictInt, StrictStr, ValidationError, model_validator

from edgeproxy.config import explain
from edgeproxy.config.document import Document
from edgeproxy.config.document import parse as parse_yaml
from edgeproxy.config.problems import ConfigError, Problem
from edgeproxy.config.units import FROM_FILE
from edgeproxy.message import Headers, Peer, Reply, Request
from edgeproxy.policy.normalise import path_problem
from edgeproxy.policy.routing import parse_authority
from edgeproxy.prints import Prints
from edgeproxy.rules.body import HeldBody
from edgeproxy.rules.facts import Context, Facts
from edgeproxy.rules.files import CASES, placed, read_rules
from edgeproxy.rules.rule import Rule
from edgeproxy.rules.ruleset import Ruleset, holds, judge
from edgeproxy.rules.walk import Broken, Decision

_PROTOCOLS: Final = ("1.1", "2", "3")
_REPEATED: Final = re.compile(r"\{([0-9]{1,6}) of '([^']{0,64})'\}")


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _listed(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _text(value: Any) -> Any:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


Lines = dict[StrictStr, Annotated[tuple[StrictStr, ...], BeforeValidator(_listed)]]
Wanted = dict[StrictStr, StrictStr | None]


Ending = Literal["pass", "refused", "block", "challenge", "managed_challenge", "js_challenge", "allow", "redirect"]


class CaseRequest(_Section):
    """A request."""

    url: StrictStr
    method: StrictStr = "GET"
    headers: Lines = Field(default_factory=dict)
    client: StrictStr = "192.0.2.1"
    ja4: StrictStr | None = None  # absent: not known
    http: Annotated[Literal["1.1", "2", "3"], BeforeValidator(_text)] = "2"
    at: StrictInt = 1_750_000_000  # seconds since the epoch
    body: StrictStr | None = None
    length: StrictInt | None = None  # Content-Length; absent: of the body
    dialect: Literal["openai", "anthropic", "responses"] | None = None  # of the route that takes it


class CaseResponse(_Section):
    """The upstream's reply."""

    status: StrictInt = 200
    headers: Lines = Field(default_factory=dict)


class Expected(_Section):
    """What the rules shall come to; what is not given is not looked at.

    Attributes:
        action: of the rule that ended the matter; pass: none did; refused: the edge refuses it before any rule.
        hits: all rules that matched, in order; those of the response phase behind the others.
        misses: rules that must not be among them.
        path, query, headers: of the request that goes to the upstream; a header that is null must not be there.
        upstream, host: that a rule of action `route` chose.
        stages: that a rule of action `skip` left out.
        response_headers: of the reply that goes to the client.
    """

    action: Ending | None = None
    rule: StrictStr | None = None
    hits: tuple[StrictStr, ...] | None = None
    misses: tuple[StrictStr, ...] = ()
    status: StrictInt | None = None
    location: StrictStr | None = None
    path: StrictStr | None = None
    query: StrictStr | None = None
    headers: Wanted = Field(default_factory=dict)
    upstream: StrictStr | None = None
    host: StrictStr | None = None
    tags: tuple[StrictStr, ...] | None = None
    priority: Literal["normal", "low"] | None = None
    stages: tuple[StrictStr, ...] | None = None
    response_headers: Wanted = Field(default_factory=dict)

    @model_validator(mode="after")
    def _something(self) -> Expected:
        if not self.model_fields_set:
            raise ValueError("nothing is expected")
        return self


class Case(_Section):
    """One case."""

    name: StrictStr = ""
    request: CaseRequest
    response: CaseResponse | None = None
    expect: Expected


class CaseFile(_Section):
    """A file of cases."""

    cases: tuple[Case, ...] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the cases went: how many there were, and a problem for each that failed."""

    cases: int
    problems: tuple[Problem, ...]


def case_files(paths: list[Path]) -> list[Path]:
    """The case files that paths stand for: themselves, those of a directory, that of a rule file."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(each for each in path.rglob("*") if each.name.endswith(CASES))
        elif path.name.endswith(CASES):
            found.append(path)
        else:
            found.append(path.with_name(f"{path.stem}.cases{path.suffix}"))
    return list(dict.fromkeys(found))


def run(path: Path) -> Outcome:
    """Runs the cases of one file. Whatever is wrong, files that cannot be read included, is in the outcome."""
    rule_file = path.with_name(path.name.replace(".cases.", "."))
    loaded = read_rules((str(rule_file),))
    if loaded.problems or loaded.findings:
        return Outcome(0, tuple(ConfigError(loaded.problems).problems))
    try:
        document = parse_yaml(path.read_bytes(), str(path), rules=True)
        if document.problems:
            return Outcome(0, tuple(document.problems))
        model = CaseFile.model_validate(document.data, context=FROM_FILE)
    except OSError as e:
        return Outcome(0, (Problem(str(path), 0, 0, f"cannot be read: {e.strerror}"),))
    except ConfigError as e:
        return Outcome(0, tuple(e.problems))
    except ValidationError as e:
        return Outcome(0, tuple(placed(document, finding) for finding in explain.findings(e, CaseFile)))
    rules = Ruleset(loaded.book)
    known = {rule.id for rule in loaded.book.rules}
    problems = []
    for index, case in enumerate(model.cases):
        difference = _unknown(case.expect, known) or _difference(rules, case)
        if difference is not None:
            problems.append(_problem(document, index, case, difference))
    return Outcome(len(model.cases), tuple(problems))


def _problem(document: Document, index: int, case: Case, difference: str) -> Problem:
    what = f"case '{case.name}'" if case.name else f"case {index + 1}"
    return document.problem(document.key_at(("cases", index)), f"{what}: {difference}")


def _unknown(expect: Expected, known: set[str]) -> str | None:
    """A name that is no rule's would always be missed."""
    for name in (*expect.misses, *(expect.hits or ()), *((expect.rule,) if expect.rule else ())):
        if name not in known:
            return f"there is no rule '{name}'"
    return None


# -- what the rules make of a case -----------------------------------------------------------------------------------


def _difference(rules: Ruleset, case: Case) -> str | None:
    """What is other than expected, None when nothing is."""
    facts = facts_of(case.request)
    if isinstance(facts, str):
        return facts
    expect = case.expect
    problem = path_problem(facts.request.target)
    if problem is not None:
        return None if expect.action == "refused" else f"the edge refuses this request before any rule: {problem}"
    broken: list[str] = []

    def failed(rule: Rule, error: Exception) -> None:
        broken.append(f"rule '{rule.id}' failed: {error!r}")

    decision = judge(rules, facts, failed)
    if decision.request is not facts.request:
        facts = facts.following(decision.request)
    hits = [rule.id for rule in decision.hits]
    reply: Headers = []
    if case.response is not None and (decision.final is None or decision.final.model.action == "allow"):
        reply = _replied(rules, case.response, facts, decision, hits, failed)
    seen = _seen(decision, facts, hits)
    if broken:
        return broken[0]
    for key, value in seen.items():
        wanted = getattr(expect, key)
        if wanted is not None and wanted != value:
            return f"expected {key} {_shown(wanted)}, not {_shown(value)}"
    missed = [name for name in expect.misses if name in hits]
    if missed:
        return f"expected a miss of {missed[0]}, which matched"
    return _other_lines("headers", expect.headers, facts.request.headers) or _other_lines(
        "response_headers", expect.response_headers, reply
    )


def _seen(decision: Decision, facts: Facts, hits: list[str]) -> dict[str, Any]:
    """What the keys of `expect` are compared with."""
    final = decision.final
    path, _, query = facts.request.target.partition(b"?")
    return {
        "action": final.model.action if final is not None else "pass",
        "rule": final.id if final is not None else None,
        "hits": tuple(hits),
        "status": _status(final),
        "location": decision.location.decode("ascii") if decision.location is not None else None,
        "path": path.decode("latin-1"),
        "query": query.decode("latin-1"),
        "upstream": decision.upstream,
        "host": decision.host.decode("ascii") if decision.host is not None else None,
        "tags": decision.tags,
        "priority": "low" if decision.low else "normal",
        "stages": tuple(sorted(decision.stages)),
    }


def _status(final: Rule | None) -> int | None:
    if final is None or final.model.action == "allow":
        return None
    return final.fault.status if final.fault is not None else final.model.status or 302


def _replied(
    rules: Ruleset, given: CaseResponse, facts: Facts, decision: Decision, hits: list[str], failed: Broken
) -> Headers:
    """The headers of a reply after the rules of the response phase; what they hit is added to `hits`."""
    original = Reply(given.status, _lines(given.headers), None)
    facts.reply = reply = original
    for rule in rules.responses.rules:
        if rule.id in decision.left_out or not holds(rule, facts, failed):
            continue
        hits.append(rule.id)
        if rule.changes is not None and rule.acts:
            headers, _ = rule.changes.headers(reply.headers, facts, partial(failed, rule))
            reply = original.with_headers(headers)
            facts = facts.following(facts.request)
            facts.reply, facts.original_reply = reply, original
    return reply.headers


def _other_lines(what: str, wanted: Wanted, lines: Headers) -> str | None:
    """The first header that is other than expected; several lines of a name are one value, joined by ', '."""
    for name, expected in wanted.items():
        values = [value for key, value in lines if key == name.lower().encode("latin-1", "replace")]
        value = b", ".join(values).decode("latin-1") if values else None
        if value != expected:
            return f"expected {what}.{name} {_shown(expected)}, not {_shown(value)}"
    return None


def _shown(value: Any) -> str:
    return f"[{', '.join(value)}]" if isinstance(value, tuple) else "none" if value is None else str(value)


# -- from text to a request ------------------------------------------------------------------------------------------


def facts_of(given: CaseRequest) -> Facts | str:
    """The fields of a request, or why it cannot be one."""
    url = urlsplit(_expanded(given.url))
    authority = url.netloc.encode("utf-8", "replace")
    parsed = parse_authority(authority)
    if url.scheme not in ("http", "https") or parsed is None:
        return f"'{given.url}' is not a URL like https://example.org/path"
    target = (url.path or "/").encode() + (b"?" + url.query.encode() if url.query else b"")
    content = _expanded(given.body).encode() if given.body is not None else b""
    length = len(content) if given.length is None else given.length
    peer = Peer(given.client, trusted=False, secure=url.scheme == "https")
    if given.ja4 is not None:
        peer.prints = Prints(b"")
        peer.prints.ja4 = given.ja4
    protocol = _PROTOCOLS.index(given.http)
    request = Request(given.method.encode(), authority, target, _lines(given.headers), length, protocol, peer)
    context = Context(dialect=lambda _host, _target: given.dialect)
    facts = Facts(request, parsed[0], given.client, b"0" * 16, lambda: float(given.at), context)
    if length:
        facts.body = HeldBody(content, truncated=length > len(content))
    return facts


def _lines(given: Lines) -> Headers:
    return [
        (name.lower().encode("latin-1", "replace"), value.encode("utf-8"))
        for name, values in given.items()
        for value in values
    ]


def _expanded(text: str) -> str:
    return _REPEATED.sub(lambda found: found[2] * int(found[1]), text)
