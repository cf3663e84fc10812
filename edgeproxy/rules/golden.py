# Golden cases: requests beside a rule file, and what its rules shall make of them. Run by `edgeproxy rules test`.
"""`X.cases.yaml` holds cases for the rules of `X.yaml`: a request, and what is expected.

    cases:
      - name: scanners are blocked
        request: {url: "https://example.org/?a=1", method: GET, headers: {user-agent: sqlmap/1.8}, client: 192.0.2.7}
        expect: {action: block, rule: block-scanners, status: 403}
      - request: {url: "https://example.org/"}
        expect: {action: pass}

Rules run as in the edge: normalised host, header names in lower case, one field line for each value. A sampled rule always
acts. `action` is that of the rule that ended the matter, or `pass`; `hits` are all that matched, in order.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictInt, StrictStr, ValidationError

from edgeproxy.config import explain
from edgeproxy.config.document import Document
from edgeproxy.config.document import parse as parse_yaml
from edgeproxy.config.problems import ConfigError, Problem
from edgeproxy.config.units import FROM_FILE
from edgeproxy.message import Headers, Peer, Request
from edgeproxy.policy.normalise import path_problem
from edgeproxy.policy.routing import parse_authority
from edgeproxy.rules.facts import Facts
from edgeproxy.rules.files import CASES, placed, read_rules
from edgeproxy.rules.rule import Rule
from edgeproxy.rules.ruleset import Ruleset, judge

_PROTOCOLS: Final = ("1.1", "2", "3")


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _listed(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _text(value: Any) -> Any:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


class CaseRequest(_Section):
    """A request."""

    url: StrictStr
    method: StrictStr = "GET"
    headers: dict[StrictStr, Annotated[tuple[StrictStr, ...], BeforeValidator(_listed)]] = Field(default_factory=dict)
    client: StrictStr = "192.0.2.1"
    http: Annotated[Literal["1.1", "2", "3"], BeforeValidator(_text)] = "2"
    at: StrictInt = 1_750_000_000  # seconds since the epoch


class Expected(_Section):
    """What the rules shall come to; what is not given is not looked at."""

    action: Literal["pass", "block", "challenge", "managed_challenge", "js_challenge", "allow", "redirect"]
    rule: StrictStr | None = None
    hits: tuple[StrictStr, ...] | None = None
    status: StrictInt | None = None
    location: StrictStr | None = None


class Case(_Section):
    """One case."""

    name: StrictStr = ""
    request: CaseRequest
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
    problems = []
    for index, case in enumerate(model.cases):
        difference = _difference(rules, case)
        if difference is not None:
            problems.append(_problem(document, index, case, difference))
    return Outcome(len(model.cases), tuple(problems))


def _problem(document: Document, index: int, case: Case, difference: str) -> Problem:
    what = f"case '{case.name}'" if case.name else f"case {index + 1}"
    return document.problem(document.key_at(("cases", index)), f"{what}: {difference}")


def _difference(rules: Ruleset, case: Case) -> str | None:
    """What is other than expected, None when nothing is."""
    facts = facts_of(case.request)
    if isinstance(facts, str):
        return facts
    broken: list[str] = []
    decision = judge(rules, facts, lambda rule, error: broken.append(f"rule '{rule.id}' failed: {error!r}"))
    if broken:
        return broken[0]
    expect, final = case.expect, decision.final
    location = final.location(facts) if final is not None and final.location is not None else None
    seen: dict[str, Any] = {
        "action": final.model.action if final is not None else "pass",
        "rule": final.id if final is not None else None,
        "hits": tuple(rule.id for rule in decision.hits),
        "status": _status(final),
        "location": location.decode("latin-1") if location is not None else None,
    }
    for key, value in seen.items():
        wanted = getattr(expect, key)
        if wanted is not None and wanted != value:
            return f"expected {key} {_shown(wanted)}, not {_shown(value)}"
    return None


def _shown(value: Any) -> str:
    return f"[{', '.join(value)}]" if isinstance(value, tuple) else "none" if value is None else str(value)


def _status(final: Rule | None) -> int | None:
    if final is None or final.model.action == "allow":
        return None
    return final.fault.status if final.fault is not None else final.model.status or 302


def facts_of(given: CaseRequest) -> Facts | str:
    """The fields of a request, or why the edge would refuse it before any rule."""
    url = urlsplit(given.url)
    authority = url.netloc.encode("utf-8", "replace")
    parsed = parse_authority(authority)
    if url.scheme not in ("http", "https") or parsed is None:
        return f"'{given.url}' is not a URL like https://example.org/path"
    target = (url.path or "/").encode() + (b"?" + url.query.encode() if url.query else b"")
    problem = path_problem(target)
    if problem is not None:
        return f"the edge refuses this request before any rule: {problem}"
    headers: Headers = [
        (name.lower().encode("latin-1", "replace"), value.encode("utf-8"))
        for name, values in given.headers.items()
        for value in values
    ]
    peer = Peer(given.client, trusted=False, secure=url.scheme == "https")
    request = Request(given.method.encode(), authority, target, headers, 0, _PROTOCOLS.index(given.http), peer)
    return Facts(request, parsed[0], given.client, b"0" * 16, lambda: float(given.at))
