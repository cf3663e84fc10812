# What several keys say together: names that must exist, doors that must differ. Reads plain data, never the disk.
"""Checks across keys. They run on the plain data of the file, so that they also run when some key alone is wrong.

Whatever a check cannot read it skips: the model has reported it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from edgeproxy.config import names
from edgeproxy.config.document import Path
from edgeproxy.config.keys import STORE
from edgeproxy.config.names import Address
from edgeproxy.config.problems import Invalid, quote, suggest
from edgeproxy.config.units import format_size, parse_duration, parse_size

AMOUNTS = ("requests", "tokens", "bytes", "score", "concurrent")
MAX_ADDRESSES = 64
MAX_WORKERS = 1024  # as the model allows
MAX_H3_WORKERS = 256
MAX_SUGGESTIONS = 50  # difflib costs about a millisecond where there are hundreds of names
_YEAR = 31536000  # hstspreload.org asks for a max-age of at least this


class Finding(NamedTuple):
    """A problem by the path of its value in the data, before it has a place in a file."""

    path: Path
    message: str
    hint: str = ""
    on_key: bool = False  # point at the key, not at its value


def cross_checks(data: dict[str, Any]) -> Iterator[Finding]:
    """Everything that is wrong between keys."""
    yield from _doors(_section(data, "listen"))
    yield from _h3(_section(data, "listen"))
    yield from _seats(data)
    yield from _upstream_names(data)
    yield from _repeated_routes(data)
    yield from _preload(_section(data, "hsts"))
    yield from _previews(data)
    yield from _limits(data)
    yield from _keyless(data)
    yield from _slowed(data)
    yield from _never_challenged(data)


def _limits(data: dict[str, Any]) -> Iterator[Finding]:
    """Each limit says one amount, and its name is its own: under it what was counted is kept."""
    limits = data.get("limits")
    alone = data.get("workers", 1) == 1 or data.get("store") is not None
    if limits and not alone and _section(data, "listen").get("admin", "") is None:
        hint = "the process behind the admin address counts for all workers: remove 'admin: null', or use one worker or a store"
        yield Finding(("limits",), "limits with several workers need listen.admin", hint, True)
    first: dict[str, int] = {}
    for index, limit in enumerate(limits if isinstance(limits, list | tuple) else ()):
        if not isinstance(limit, dict):
            continue
        path: Path = ("limits", index)
        name = limit.get("name")
        if isinstance(name, str) and first.setdefault(name, index) != index:
            yield Finding((*path, "name"), f"limit {quote(name)} is there twice")
        said = [word for word in AMOUNTS if limit.get(word) is not None]
        if len(said) != 1:
            what = f"'{said[0]}' and '{said[1]}'" if said else "none"
            yield Finding(path, f"a limit has one amount, not {what}", f"one of {', '.join(AMOUNTS)}", True)
        if ("score" in said) != (limit.get("score_header") is not None):
            yield Finding(path, "'score' and 'score_header' need each other", "the reply's header that holds its points", True)
        if "tokens" in said and not any(route.get("dialect") for _, route in _routes(data)):
            yield Finding((*path, "tokens"), "no route has a 'dialect': there are no tokens to count", on_key=True)
        reserve, most = limit.get("reserve", 1024), limit.get("burst") or limit.get("tokens")
        if "tokens" in said and isinstance(reserve, int) and isinstance(most, int) and reserve >= most:
            hint = f"set 'reserve' well below {most}, or raise the limit"
            yield Finding((*path, "tokens"), f"requests without max_tokens set {reserve} aside: none would ever pass", hint, True)
        if "tokens" in said and limit.get("counting_expression") is not None:
            yield Finding((*path, "counting_expression"), "tokens are counted by the reply's usage", "leave it out", True)
        if limit.get("burst") is not None and ("concurrent" in said or limit.get("algorithm", "gcra") != "gcra"):
            yield Finding((*path, "burst"), "'burst' is of gcra alone", on_key=True)
        if limit.get("content_type") is not None and limit.get("body") is None:
            yield Finding((*path, "content_type"), "'content_type' needs 'body'", on_key=True)


def _keyless(data: dict[str, Any]) -> Iterator[Finding]:
    """Keys that are wanted and that nobody has."""
    keys = data.get("keys")
    if isinstance(keys, dict):
        if keys.get("redis") is not None and keys.get("file") is not None:
            yield Finding(("keys", "redis"), "keys are kept in one place", "remove 'file' or 'redis'", True)
        if keys.get("redis") == STORE and data.get("store") is None:
            yield Finding(("keys", "redis"), "there is no key 'store'", "write the URL of a Redis here")
        for name in ("refresh", "cache"):
            if keys.get(name) is not None and keys.get("redis") is None:
                yield Finding(("keys", name), f"'{name}' is of keys in Redis alone", "remove it", True)
        return
    for index, route in _routes(data):
        if route.get("keys") in ("required", "optional"):
            yield Finding(("routes", index, "keys"), "there is no section 'keys'", "like keys: {file: keys.yaml}")


def _slowed(data: dict[str, Any]) -> Iterator[Finding]:
    """Limits and upstreams that low scores get."""
    listed, upstreams = data.get("limits"), data.get("upstreams")
    limits = [each for each in listed if isinstance(each, dict)] if isinstance(listed, list | tuple) else []
    named = {each["name"]: each.get("named") for each in limits if isinstance(each.get("name"), str)}
    routes = ((("routes", index, "bots"), route.get("bots")) for index, route in _routes(data))
    for path, bots in ((("bots",), data.get("bots")), *routes):
        slow = bots.get("slow") if isinstance(bots, dict) else None
        if not isinstance(slow, dict):
            continue
        wanted = slow.get("limits", ())
        for index, name in enumerate(wanted if isinstance(wanted, list | tuple) else ()):
            if isinstance(name, str) and named.get(name) is not True:
                what, hint = ("is not named", "named: true") if name in named else ("is not there", suggest(name, sorted(named)))
                yield Finding((*path, "slow", "limits", index), f"the limit {quote(name)} {what}", hint)
        name = slow.get("upstream")
        if isinstance(name, str) and isinstance(upstreams, dict) and name not in upstreams:
            hint = suggest(name, sorted(map(str, upstreams)))
            yield Finding((*path, "slow", "upstream"), f"unknown upstream {quote(name)}", hint)


def _never_challenged(data: dict[str, Any]) -> Iterator[Finding]:
    """Routes that refuse all whom they would challenge, by what they say and what they inherit. Of the section alone the model
    tells."""
    whole = _section(data, "bots")
    for index, route in _routes(data):
        own = route.get("bots")
        if not isinstance(own, dict) or own.get("enabled") is False:
            continue
        said = [name for name in ("block", "challenge") if own.get(name) is not None]
        block, challenge = (own[name] if name in said else whole.get(name, 0) for name in ("block", "challenge"))
        if not said or type(block) is not int or type(challenge) is not int or not 0 < challenge < block:
            continue
        if said[0] == "block":
            there = "" if "challenge" in said else " in the section 'bots'"
            what = f"'block' ({block}) is above 'challenge' ({challenge}{there})"
        else:
            what = f"'challenge' ({challenge}) is below 'block' ({block} in the section 'bots')"
        hint = "make 'challenge' the larger one, or 0"
        yield Finding(("routes", index, "bots", said[0]), f"{what}: on this route nobody is ever challenged", hint)


def speaks_h3(data: dict[str, Any]) -> bool:
    """As `Listen.quic`, for data that may have problems."""
    listen = _section(data, "listen")
    protocols = listen.get("protocols", ["h3"])
    wanted = isinstance(protocols, list | tuple) and "h3" in protocols
    return wanted and any(address.path is None for address in _addresses(listen.get("https")))


def _doors(listen: dict[str, Any]) -> Iterator[Finding]:
    """https, http and admin must not share an address: with SO_REUSEPORT the kernel would let them, and mix them."""
    seen: list[tuple[Path, Address]] = []
    for name in ("https", "http", "admin"):
        value = listen.get(name, "127.0.0.1:9180" if name == "admin" else [])
        # The model allows no more than MAX_ADDRESSES; every pair is looked at.
        items = list(enumerate(value[:MAX_ADDRESSES])) if isinstance(value, list | tuple) else [(None, value)]
        for index, item in items:
            try:
                address = names.address(item)
            except Invalid:
                continue
            path: Path = ("listen", name) if index is None else ("listen", name, index)
            for other_path, other in seen:
                if other_path[1] != name and address.overlaps(other):
                    message = f"{name} and {other_path[1]} overlap: '{address}' and '{other}'"
                    yield Finding(path, message, "use another port")
            seen.append((path, address))
    yield from _redirects(listen, [address for path, address in seen if path[1] == "https"])


def _redirects(listen: dict[str, Any], https: list[Address]) -> Iterator[Finding]:
    """A redirect has to name a port."""
    if _all_unix(https) and listen.get("http") and listen.get("public_port") is None:
        message = "redirects have no port to name: every https address is a unix socket"
        yield Finding(("listen", "http"), message, "set listen.public_port, like 443")


def _h3(listen: dict[str, Any]) -> Iterator[Finding]:
    """What h3 needs beside itself, where it is asked for: a port, and another protocol."""
    protocols = listen.get("protocols")
    if not isinstance(protocols, list | tuple) or "h3" not in protocols:
        return
    path: Path = ("listen", "protocols", protocols.index("h3"))
    if _all_unix(list(_addresses(listen.get("https")))):
        message = "'h3' has no port to listen on: every https address is a unix socket"
        yield Finding(path, message, "remove it, or add an address like 0.0.0.0:8443")
    if set(protocols) == {"h3"}:
        hint = "clients begin with TCP and learn of h3 by Alt-Svc: [h1, h2, h3]"
        yield Finding(path, "'h3' needs 'h1' or 'h2' beside it", hint)


def _seats(data: dict[str, Any]) -> Iterator[Finding]:
    """A connection id of QUIC has one byte for the worker."""
    workers = data.get("workers")
    if isinstance(workers, int) and MAX_H3_WORKERS < workers <= MAX_WORKERS and speaks_h3(data):
        hint = "fewer, or go without h3: listen.protocols: [h1, h2]"
        yield Finding(("workers",), f"h3 has room for {MAX_H3_WORKERS} workers, not {workers}", hint)


def _addresses(value: Any) -> Iterator[Address]:
    for item in value[:MAX_ADDRESSES] if isinstance(value, list | tuple) else [value]:
        try:
            yield names.address(item)
        except Invalid:
            continue


def _all_unix(addresses: list[Address]) -> bool:
    return bool(addresses) and all(address.path is not None for address in addresses)


def _upstream_names(data: dict[str, Any]) -> Iterator[Finding]:
    upstreams = data.get("upstreams")
    if not isinstance(upstreams, dict):
        return
    known = sorted(str(name) for name in upstreams)
    listed = f"upstreams are: {', '.join(known[:8])}" if known else "'upstreams' is empty"
    unknown = 0
    for index, route in _routes(data):
        used: list[tuple[Path, Any]] = [(("routes", index, "upstream"), route.get("upstream"))]
        models = route.get("models")
        if isinstance(models, dict):
            used += [(("routes", index, "models", model), name) for model, name in models.items()]
        for path, name in used:
            if isinstance(name, str) and name not in upstreams:
                unknown += 1
                hint = (suggest(name, known) if unknown <= MAX_SUGGESTIONS else "") or listed
                yield Finding(path, f"unknown upstream {quote(name)}", hint)


def _repeated_routes(data: dict[str, Any]) -> Iterator[Finding]:
    seen: dict[tuple[str, str], int] = {}
    for index, route in _routes(data):
        host, path = route.get("host", "*"), route.get("path", "/")
        try:
            host = names.route_host(host) if isinstance(host, str) else None
        except Invalid:
            continue
        if host is None or not isinstance(path, str):
            continue
        # `/v1/` also matches `/v1`, so that a route of its own for `/v1` would never be reached.
        first = seen.setdefault((host, path.rstrip("/")), index)
        if first != index:
            message = f"routes[{index}] can never match: routes[{first}] has the same host and path"
            yield Finding(("routes", index), message, f"host {quote(host)}, path {quote(path)}: remove one")


def _preload(hsts: dict[str, Any]) -> Iterator[Finding]:
    if hsts.get("preload") is not True or hsts.get("enabled") is False:
        return
    if hsts.get("include_subdomains") is False:
        hint = "hstspreload.org refuses it otherwise"
        yield Finding(("hsts", "preload"), "preload needs include_subdomains: true", hint)
    age = hsts.get("max_age")
    try:
        seconds = parse_duration(age) if isinstance(age, str) else age
    except Invalid:
        return
    if isinstance(seconds, int | float) and seconds < _YEAR:
        yield Finding(("hsts", "preload"), "preload needs a max_age of at least a year", f"max_age: {_YEAR}")


def _previews(data: dict[str, Any]) -> Iterator[Finding]:
    """A preview that is smaller than a body in which a model has to be found, or larger than all that are held at once: such a
    request would be refused."""
    together = _bytes(_section(data, "client").get("previews"))
    for index, route in _routes(data):
        preview = _bytes(route.get("preview"))
        if route.get("models") and preview == 0:
            yield Finding(("routes", index, "preview"), "'models' reads the body, and preview is 0", "preview: 1MiB")
        limit = _bytes(route.get("max_body"))
        if limit is not None and preview is not None and preview > limit:
            message = f"preview ({format_size(preview)}) is more than max_body ({format_size(limit)})"
            yield Finding(("routes", index, "preview"), message, "no body of that size is let in")
        if together is not None and preview is not None and preview > together:
            message = f"preview ({format_size(preview)}) is more than client.previews ({format_size(together)})"
            yield Finding(("routes", index, "preview"), message, "a worker holds no more of all bodies: raise it, or hold less")


def _bytes(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    try:
        return parse_size(value) if isinstance(value, str) else value
    except Invalid:
        return None


def _section(data: dict[str, Any], name: str) -> dict[str, Any]:
    value = data.get(name)
    return value if isinstance(value, dict) else {}


def _routes(data: dict[str, Any]) -> Iterator[tuple[int, dict[str, Any]]]:
    routes = data.get("routes")
    for index, route in enumerate(routes if isinstance(routes, list | tuple) else ()):
        if isinstance(route, dict):
            yield index, route
