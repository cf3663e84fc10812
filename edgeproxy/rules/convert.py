# Rulesets of Cloudflare's API become rules of ours; what cannot be carried is told, never guessed.
"""`convert(data)` takes an export (the API's JSON) and returns rules and what was left out.

Rulesets are put into the order in which Cloudflare runs their phases. Each rule is checked as if it stood in a file: what
comes out loads. Shapes: Cloudflare's Rulesets API (`action`, `action_parameters`), as its pages for each product say.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from edgeproxy.rules.converted import Converted, Left, said, wrong

PHASES: Final = (
    "http_request_dynamic_redirect", "http_request_transform", "http_config_settings", "http_request_origin", "ddos_l7",
    "http_request_firewall_custom", "http_ratelimit", "http_request_firewall_managed", "http_request_sbfm",
    "http_request_redirect", "http_request_late_transform", "http_request_cache_settings", "http_custom_errors",
    "http_response_headers_transform", "http_response_firewall_managed", "http_response_compression", "http_log_custom_fields",
)  # fmt: skip
_RESPONSE: Final = "http_response_headers_transform"
# Phases and products that a skip leaves out there, and the stage that does the same here.
_STAGES: Final = {"http_ratelimit": "limits", "http_request_sbfm": "bots", "rateLimit": "limits"}
_NOT_HERE: Final = {
    "execute": "managed rulesets are Cloudflare's own; 'shipped: {baseline: true}' covers common probes",
    "set_config": "settings of Cloudflare's products",
    "set_cache_settings": "caching by rules is not built yet",
    "compress_response": "replies are not compressed here yet",
    "serve_error": "error pages of one's own are not built",
    "score": "scores of managed rulesets are Cloudflare's own",
    "log_custom_field": "fields of the access log are fixed",
    "force_connection_close": "connections are not closed by rules",
    "ddos_dynamic": "Cloudflare's own protection",
    "bypass": "an action of old firewall rules: say 'skip'",
}
_UNSUITED: Final = re.compile(r"[^A-Za-z0-9._-]+")
# Quoted text is left alone; outside of it the old names of geography are those of `ip.src`.
_OLD_NAMES: Final = re.compile(r'"(?:\\.|[^"\\])*"|\bip\.geoip\.(?=[a-z])')

Raw = dict[str, Any]


class Unfit(Exception):
    """A rule that has no counterpart here; the text says why."""


@dataclass(slots=True)
class _One:
    """A rule on its way.

    Attributes:
        ruleset, raw: where it comes from.
        rule: what it became, so far.
        problem: why it was left out.
        lost: parts of it that have no counterpart.
        address: where it routes to.
        parts: expressions that were joined for it; each has to be one alone.
    """

    ruleset: Raw
    raw: Raw
    rule: Raw
    problem: str | None = None
    lost: list[str] = field(default_factory=list)
    address: str = ""
    parts: tuple[str, ...] = ()

    @property
    def parameters(self) -> Raw:
        return _mapping(self.raw.get("action_parameters"))

    def left(self) -> Iterator[Left]:
        about = said(self.raw.get("description"))
        if self.problem is not None:
            yield Left(self.rule["id"], about, self.problem)
        else:
            yield from (Left(self.rule["id"], about, f"carried, but without {part}") for part in self.lost)


Act = Callable[[_One], None]


def convert(data: Any) -> Converted:
    """An export: a ruleset, a list of them, or an answer of the API around either.

    Raises: Unfit when it is none of these.
    """
    rulesets = list(_rulesets(data))
    if not rulesets:
        raise Unfit("there is no ruleset in it: the API's answer has 'result' with 'phase' and 'rules'")
    made = Converted()
    names: set[str] = set()
    custom = {str(each.get("id")): each for each in rulesets if each.get("kind") == "custom"}
    used = {_executed(rule) for each in rulesets for rule in _rules(each)} & set(custom)
    ones: list[_One] = []
    for ruleset in sorted(rulesets, key=_order):
        name = said(ruleset.get("name")) or "a ruleset"
        if ruleset.get("kind") == "managed":
            made.left.append(Left(name, "", _NOT_HERE["execute"]))
        elif not isinstance(ruleset.get("rules"), list):
            made.left.append(Left(name, "", "it has no rules here: ask the API for it by its id"))
        elif str(ruleset.get("id")) not in used:
            for rule in _rules(ruleset):
                ones += _with_executed(ruleset, rule, custom, names)
    for one in ones:
        if not _skips(one):
            _convert(one, _act)
    later: list[_One] = []
    for one in reversed(ones):  # skips name rules behind them: those that were carried
        if _skips(one):
            _convert(one, lambda one: _skip(one, later[::-1]))
        if one.problem is None:
            later.append(one)
    made.total = len(ones)
    made.rules = [one.rule for one in ones if one.problem is None]
    made.upstreams = {one.rule["upstream"]: one.address for one in ones if one.address and one.problem is None}
    made.left += [left for one in ones for left in one.left()]
    return made


def _rulesets(data: Any) -> Iterator[Raw]:
    if isinstance(data, list):
        for each in data:
            yield from _rulesets(each)
    elif isinstance(data, dict):
        if "phase" in data and ("rules" in data or "kind" in data):
            yield data
        else:
            for key in ("result", "rulesets"):
                yield from _rulesets(data.get(key))


def _order(ruleset: Raw) -> int:
    phase = ruleset.get("phase")
    return PHASES.index(phase) if phase in PHASES else len(PHASES)


def _rules(ruleset: Raw) -> list[Raw]:
    rules = ruleset.get("rules")
    return [each for each in rules if isinstance(each, dict)] if isinstance(rules, list) else []


def _executed(rule: Raw) -> str:
    return str(_mapping(rule.get("action_parameters")).get("id")) if rule.get("action") == "execute" else ""


def _with_executed(ruleset: Raw, raw: Raw, custom: dict[str, Raw], names: set[str]) -> Iterator[_One]:
    """A rule; or those of a custom ruleset that it runs, each under its condition, too."""
    inner = custom.get(_executed(raw))
    if inner is None:
        yield _One(ruleset, raw, _head(raw, names))
        return
    outer = str(raw.get("expression", "true"))
    for given in _rules(inner):
        each, lost = _overridden(given, _mapping(raw.get("action_parameters")).get("overrides"))
        expression = str(each.get("expression", "true"))
        both = expression if outer.strip("() ") == "true" else f"({outer}) and ({expression})"
        rule = _head({**each, "expression": both}, names)
        if raw.get("enabled") is False:
            rule["enabled"] = False
        yield _One(inner, each, rule, lost=lost, parts=(_renamed(outer), _renamed(expression)))


def _overridden(raw: Raw, overrides: Any) -> tuple[Raw, list[str]]:
    """A rule as the one that executes its ruleset changes it, and what of the changes has no counterpart.

    What is said about the rule comes before what is said about all. The action `log` tries a rule: `mode: log`.
    """
    if overrides is not None and not isinstance(overrides, dict):
        return raw, ["the override 'overrides'"]
    whole = _mapping(overrides)
    named = [each for each in _list(whole.get("rules")) if isinstance(each, dict) and each.get("id") == raw.get("id")]
    lost = [key for key in whole if key not in ("action", "enabled", "rules")]
    lost += [key for each in named for key in each if key not in ("id", "action", "enabled")]
    if not isinstance(whole.get("rules", []), list):
        lost.append("rules")
    made = dict(raw)
    for each in (whole, *named):
        action, enabled = each.get("action"), each.get("enabled")
        if isinstance(enabled, bool):
            made["enabled"] = enabled
        if action == "log" and raw.get("action") != "log":
            made = {**made, "action": raw.get("action"), "action_parameters": raw.get("action_parameters"), "mode": "log"}
        elif isinstance(action, str):
            made.pop("mode", None)
            made["action"] = action
            if action != raw.get("action"):
                made.pop("action_parameters", None)
    return made, [f"the override '{said(key)}'" for key in dict.fromkeys(lost)]


def _head(raw: Raw, names: set[str]) -> Raw:
    """What every rule has."""
    rule: Raw = {"id": _name(raw, names)}
    if said(raw.get("description")):
        rule["description"] = said(raw["description"])
    rule["expression"] = _renamed(str(raw.get("expression", "")).strip())
    if raw.get("enabled") is False:
        rule["enabled"] = False
    if raw.get("mode") == "log":  # an override; Cloudflare's rules have no such key
        rule["mode"] = "log"
    return rule


def _name(raw: Raw, names: set[str]) -> str:
    """An id that is valid and not taken."""
    given = str(raw.get("ref") or raw.get("id") or raw.get("description") or "")
    plain = _UNSUITED.sub("-", given).strip("-.")[:56] or "rule"
    name, count = plain, 1
    while name in names:
        count += 1
        name = f"{plain}-{count}"
    names.add(name)
    return name


def _renamed(expression: str) -> str:
    return _OLD_NAMES.sub(lambda found: found[0] if found[0].startswith('"') else "ip.src.", expression)


def _mapping(value: Any) -> Raw:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


# -- one rule --------------------------------------------------------------------------------------------------------


def _skips(one: _One) -> bool:
    return one.raw.get("action") == "skip"


def _convert(one: _One, act: Act) -> None:
    """Gives the rule its action, or the reason why not."""
    one.rule["action"] = one.raw.get("action")
    if one.ruleset.get("phase") == _RESPONSE:
        one.rule["phase"] = "response"
    try:
        for part in one.parts:
            problem = wrong({**one.rule, "action": "log", "expression": part})
            if problem is not None:
                raise Unfit(problem)
        act(one)
        one.problem = wrong(one.rule)
    except Unfit as e:
        one.problem = str(e)


def _act(one: _One) -> None:
    action = str(one.raw.get("action"))
    if "ratelimit" in one.raw:
        raise Unfit(f"a rate limit ({_limit(one.raw['ratelimit'])}): limits are no rules here")
    if "exposed_credential_check" in one.raw:
        raise Unfit("a check for exposed credentials")
    if action in _NOT_HERE:
        raise Unfit(f"'{action}': {_NOT_HERE[action]}")
    if action not in _ACTIONS:
        raise Unfit(f"the action '{said(action)}' is not known here")
    _ACTIONS[action](one)


def _limit(raw: Any) -> str:
    limit = _mapping(raw)
    by = ", ".join(map(str, _list(limit.get("characteristics")))) or "?"
    return f"{limit.get('requests_per_period', '?')} requests in {limit.get('period', '?')} s by {said(by)}"


def _plain(one: _One) -> None:
    if one.parameters:
        one.lost.append(f"the parameters {', '.join(map(said, one.parameters))}")


def _block(one: _One) -> None:
    response = _mapping(one.parameters.get("response"))
    for ours, theirs in (("status", "status_code"), ("body", "content"), ("content_type", "content_type")):
        if response.get(theirs) not in (None, ""):
            one.rule[ours] = response[theirs]
    if "body" not in one.rule:
        one.rule.pop("content_type", None)


def _redirect(one: _One) -> None:
    if "from_list" in one.parameters:
        raise Unfit("a bulk redirect: its list is not in the export")
    given = _mapping(one.parameters.get("from_value"))
    target = _mapping(given.get("target_url"))
    _value_of(one.rule, "location", target)
    one.rule["status"] = given.get("status_code", 301)  # their default; ours is 302
    if given.get("preserve_query_string"):
        one.rule["preserve_query"] = True


def _value_of(rule: Raw, key: str, given: Raw) -> None:
    if given.get("expression") is not None:
        rule[f"{key}_expression"] = _renamed(str(given["expression"]))
    elif given.get("value") is not None:
        rule[key] = given["value"]


def _rewrite(one: _One) -> None:
    uri = _mapping(one.parameters.get("uri"))
    for key in ("path", "query"):
        _value_of(one.rule, key, _mapping(uri.get(key)))
    changes: Raw = {}
    for name, given in _mapping(one.parameters.get("headers")).items():
        operation = _mapping(given).get("operation")
        if operation == "remove":
            changes.setdefault("remove", []).append(name)
        elif operation in ("set", "add"):
            expression = given.get("expression")
            value = {"expression": _renamed(str(expression))} if expression is not None else given.get("value", "")
            changes.setdefault(operation, {})[name] = value
        else:
            raise Unfit(f"the operation '{said(operation)}' on the header '{said(name)}'")
    if changes:
        one.rule["headers"] = changes


def _route(one: _One) -> None:
    origin = _mapping(one.parameters.get("origin"))
    host, port, header = origin.get("host"), origin.get("port"), one.parameters.get("host_header")
    if host is None and port is None:
        raise Unfit("only the Host or SNI changes: that is 'host' of an upstream here")
    address = f"{host or 'the same host'}:{port}" if port is not None else str(host)
    name = _UNSUITED.sub("-", f"{host or 'port'}-{port}" if port is not None else str(host)).strip("-.")[:64]
    one.rule["upstream"] = name
    one.address = address
    if header is not None:
        one.rule["host"] = header
    if "sni" in one.parameters:
        one.lost.append("'sni': the name in TLS is that of the upstream's target")


# -- skips -----------------------------------------------------------------------------------------------------------


def _skip(one: _One, later: list[_One]) -> None:
    """Rules and stages that do not run.

    Args:
        later: what was carried of the rules behind it, in order.
    """
    given = one.parameters
    phase = one.ruleset.get("phase")
    named = {str(name) for names in _mapping(given.get("rules")).values() if isinstance(names, list) for name in names}
    wholes = {str(name) for name in _list(given.get("rulesets"))}
    rules: list[str] = []
    seen: set[str] = set()
    for each in later:
        its_id, its_ruleset = str(each.raw.get("id")), str(each.ruleset.get("id"))
        here = given.get("ruleset") == "current" and each.ruleset is one.ruleset
        here = here or (given.get("phase") == "current" and each.ruleset.get("phase") == phase)
        if here or its_id in named or its_ruleset in wholes:
            rules.append(each.rule["id"])
            seen |= {its_id, its_ruleset}
    skipped = [str(name) for key in ("phases", "products") for name in _list(given.get(key))]
    stages = [_STAGES[name] for name in skipped if name in _STAGES]
    without = [*sorted((named | wholes) - seen), *(name for name in skipped if name not in _STAGES)]
    one.lost += [f"skipping '{said(name)}'" for name in without]
    if not rules and not stages:
        raise Unfit("nothing of what it skips is here")
    one.rule["skip"] = {
        **({"rules": rules} if rules else {}),
        **({"stages": list(dict.fromkeys(stages))} if stages else {}),
    }


_ACTIONS: Final[dict[str, Act]] = {
    "block": _block, "challenge": _plain, "managed_challenge": _plain, "js_challenge": _plain, "log": _plain,
    "allow": _plain, "redirect": _redirect, "rewrite": _rewrite, "route": _route,
}  # fmt: skip
