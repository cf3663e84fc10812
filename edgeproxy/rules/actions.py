# Which keys an action needs, and which it cannot have: what the model of one key alone does not say.
"""`action_findings` looks at the plain data of one rule, so that it also speaks of a rule that has other problems."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, TypeGuard

from edgeproxy.config.checks import Finding
from edgeproxy.config.document import Path
from edgeproxy.policy.headers import REPLY_FIXED, REQUEST_FIXED
from edgeproxy.rules.model import KEYS, RESPONSE_ACTIONS

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


def action_findings(path: Path, raw: dict[str, Any]) -> Iterator[Finding]:
    """What is wrong with the keys of one rule together.

    Args:
        path: of the rule in its file.
        raw: the rule as it was read.
    """
    action = raw.get("action")
    if not isinstance(action, str):
        return
    raw = {key: value for key, value in raw.items() if value is not None}  # `location: null` is no location
    for key, actions in KEYS.items():
        if key in raw and action not in actions:
            yield Finding((*path, key), f"'{key}' has no meaning for the action '{action}'", on_key=True)
    response = raw.get("phase") == "response"
    if response and action not in RESPONSE_ACTIONS:
        yield Finding((*path, "action"), f"'{action}' is too late in the response phase", "there are 'rewrite' and 'log'")
    yield from _CHECKS.get(action, _nothing)(path, raw, response)


def _nothing(_path: Path, _raw: dict[str, Any], _response: bool) -> Iterator[Finding]:
    return iter(())


def _block(path: Path, raw: dict[str, Any], _response: bool) -> Iterator[Finding]:
    status = raw.get("status")
    if _is_number(status) and not 400 <= status <= 499:
        yield Finding((*path, "status"), f"a block answers with 400 to 499, not {status}")
    if "content_type" in raw and "body" not in raw:
        yield Finding((*path, "content_type"), "'content_type' needs 'body'", on_key=True)


def _redirect(path: Path, raw: dict[str, Any], _response: bool) -> Iterator[Finding]:
    status = raw.get("status")
    if _is_number(status) and status not in _REDIRECTS:
        yield Finding((*path, "status"), f"a redirect answers with 301, 302, 303, 307 or 308, not {status}")
    if ("location" in raw) == ("location_expression" in raw):
        yield Finding(path, "a redirect needs either 'location' or 'location_expression'", on_key=True)


def _rewrite(path: Path, raw: dict[str, Any], response: bool) -> Iterator[Finding]:
    wanted = ["path", "path_expression", "query", "query_expression", "headers"]
    if response:
        for key in wanted[:4]:
            if key in raw:
                yield Finding((*path, key), f"'{key}' is of the request: a response has 'headers' only", on_key=True)
    elif not any(key in raw for key in wanted):
        yield Finding(path, "a rewrite needs 'path', 'query' or 'headers'", on_key=True)
    if response and "headers" not in raw:
        yield Finding(path, "a rewrite of a response needs 'headers'", on_key=True)
    for key in ("path", "query"):
        if key in raw and f"{key}_expression" in raw:
            yield Finding((*path, key), f"there is '{key}' or '{key}_expression', not both", on_key=True)
    if isinstance(raw.get("headers"), dict):
        yield from _headers((*path, "headers"), raw["headers"], response)


def _headers(path: Path, raw: dict[str, Any], response: bool) -> Iterator[Finding]:
    fixed = REPLY_FIXED if response else REQUEST_FIXED
    if not any(raw.get(part) for part in ("set", "add", "remove")):
        yield Finding(path, "'headers' needs 'set', 'add' or 'remove'", on_key=True)
    for part in ("set", "add", "remove"):
        names = raw.get(part)
        spelled: dict[str, str] = {}
        for name in names if isinstance(names, dict) else ():
            if isinstance(name, str) and spelled.setdefault(name.lower(), name) != name:
                yield Finding((*path, part, name), f"'{name}' and '{spelled[name.lower()]}' are one header", on_key=True)
        for index, name in enumerate(names if isinstance(names, list | dict) else ()):
            if not isinstance(name, str) or name.lower().encode("utf-8", "replace") not in fixed:
                continue
            hint = "a rule of action 'route' has 'host'" if name.lower() == "host" else ""
            place = (*path, part, index if part == "remove" else name)
            yield Finding(place, f"the header '{name}' is the edge's own business", hint, part != "remove")
        for name, value in names.items() if isinstance(names, dict) else ():
            if isinstance(value, dict) and ("text" in value) == ("expression" in value):
                yield Finding((*path, part, name), "a header's value is text, or {expression: …}", on_key=True)


def _route(path: Path, raw: dict[str, Any], _response: bool) -> Iterator[Finding]:
    if "upstream" not in raw:
        yield Finding(path, "a route needs 'upstream'", on_key=True)


def _set(path: Path, raw: dict[str, Any], _response: bool) -> Iterator[Finding]:
    if not any(key in raw for key in ("tags", "cache", "limits", "priority")):
        yield Finding(path, "a set needs 'tags', 'limits' or 'priority'", on_key=True)


def _skip(path: Path, raw: dict[str, Any], _response: bool) -> Iterator[Finding]:
    skip = raw.get("skip")
    if ("skip" in raw and not skip) or (isinstance(skip, dict) and not any(skip.values())):
        yield Finding((*path, "skip"), "nothing is skipped: name 'rules' or 'stages'", "without 'skip', all later rules", True)


def _is_number(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


_CHECKS: Final = {
    "block": _block, "redirect": _redirect, "rewrite": _rewrite, "route": _route, "set": _set, "skip": _skip,
}  # fmt: skip
