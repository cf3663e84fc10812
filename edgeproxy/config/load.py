# A file becomes a Config, or one error with every problem. The only way in; the order of the steps is the subject here.
"""`load(path)` reads, `build(data)` takes the same values from Python. Both raise ConfigError and nothing else."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path as FilePath
from typing import Any

from pydantic import ValidationError

from edgeproxy import geo
from edgeproxy.config import certificates, explain
from edgeproxy.config.challenge import Challenge
from edgeproxy.config.challenge_file import read_secrets
from edgeproxy.config.checks import Finding, cross_checks, speaks_h3
from edgeproxy.config.document import MAX_BYTES, Document, parse
from edgeproxy.config.identity import BotIdentity, identity_problems
from edgeproxy.config.keys import STORE, Keys, UpstreamKey, holds_secrets
from edgeproxy.config.keys_file import LoadedKeys, read_keys, read_pepper_alone, read_upstream_key
from edgeproxy.config.limit_expressions import limit_problems
from edgeproxy.config.model import Config
from edgeproxy.config.problems import ConfigError, Problem
from edgeproxy.config.secret import Secret
from edgeproxy.config.units import FROM_FILE
from edgeproxy.rules.files import Loaded, read_rules
from edgeproxy.rules.model import RuleFiles
from edgeproxy.rules.shipped import can_hold

MAX_PAIRS = 1000  # as the model allows
MAX_GEO_FILES = 16


def load(path: str | FilePath, *, now: float | None = None) -> Config:
    """Reads and checks a configuration file, and the certificates that it names.

    `now` (seconds since the epoch) is what certificates are judged by; the clock when absent.
    Raises ConfigError with every problem that was found.
    """
    document = parse(_read(path), str(path))
    return _validate(document, time.time() if now is None else now, context=FROM_FILE)


def build(data: Mapping[str, Any], *, now: float | None = None, name: str = "<configuration>") -> Config:
    """The same for values that come from Python: keys as in the file; durations may be numbers of seconds.

    Raises ConfigError; its problems have no lines, and name the key instead.
    """
    document = Document(name, [], dict(data))
    return _validate(document, time.time() if now is None else now, context=None)


def _validate(document: Document, now: float, context: str | None) -> Config:
    config: Config | None = None
    data = document.data
    findings: list[Finding] = []
    try:
        config = Config.model_validate(data, context=context)
    except ValidationError as error:
        findings += explain.findings(error)
    findings += cross_checks(data)
    findings += _on_disk(data, now)
    rules = _rule_files(data)
    findings += rules.findings
    keys = _key_file(data)
    findings += keys.findings
    own = _upstream_keys(data)
    findings += [found for found in own.values() if isinstance(found, Finding)]
    secrets = _challenge_secrets(data)
    findings += [secrets] if isinstance(secrets, Finding) else []
    problems = [
        *document.problems, *(_placed(document, finding) for finding in findings), *limit_problems(document, rules.types),
        *rules.problems, *keys.problems,
    ]  # fmt: skip
    if problems or config is None:
        raise ConfigError(dict.fromkeys(_quiet(document, problems)))
    changes: dict[str, Any] = {}
    if rules.book.rules or rules.book.lists:
        most = _largest_body(config)
        kept = tuple(rule for rule in rules.book.rules if rule.id not in rules.shipped or can_hold(rule, most))
        changes["rules"] = RuleFiles(patterns=config.rules.patterns, book=rules.book.model_copy(update={"rules": kept}))
    if config.keys is not None:
        place = {"redis": config.store} if config.keys.redis == Secret(STORE.encode()) else {}
        changes["keys"] = config.keys.model_copy(update={"book": keys.book, **place})
    if secrets and not isinstance(secrets, Finding):
        changes["challenge"] = config.challenge.model_copy(update={"secrets": secrets})
    if own:
        upstreams = config.upstreams.items()
        changes["upstreams"] = {name: each.model_copy(update={"key": own.get(name)}) for name, each in upstreams}
    return config.model_copy(update=changes) if changes else config


def _largest_body(config: Config) -> int:
    return max(route.max_body if route.max_body is not None else config.client.max_body for route in config.routes)


def _key_file(data: dict[str, Any]) -> LoadedKeys:
    """The keys of the edge, also those of a configuration that has other problems. Those in Redis come later: who reads a
    configuration asks nobody (keys_shared.py)."""
    try:
        section = Keys.model_validate(data.get("keys"), context=FROM_FILE)
    except ValidationError:
        return LoadedKeys()  # there is none, or the model says what is wrong
    if section.redis is not None:
        return read_pepper_alone(section.pepper)
    listed = data.get("limits")
    limits = [str(each.get("name")) for each in listed if isinstance(each, dict)] if isinstance(listed, list | tuple) else []
    return read_keys(section.file, section.pepper, limits)


def _challenge_secrets(data: dict[str, Any]) -> tuple[Secret, ...] | Finding:
    """The secrets that clearances are made with, also those of a configuration that has other problems."""
    try:
        return read_secrets(Challenge.model_validate(data.get("challenge", {}), context=FROM_FILE))
    except ValidationError:
        return ()  # the model says what is wrong


def _upstream_keys(data: dict[str, Any]) -> dict[str, UpstreamKey | Finding]:
    """The upstreams' own keys, by the names of upstreams."""
    found: dict[str, UpstreamKey | Finding] = {}
    upstreams = data.get("upstreams")
    for name, upstream in upstreams.items() if isinstance(upstreams, dict) else ():
        try:
            key = UpstreamKey.model_validate(upstream.get("key") if isinstance(upstream, dict) else None, context=FROM_FILE)
        except ValidationError:
            continue
        if (key.env is None) != (key.file is None):
            found[str(name)] = read_upstream_key(("upstreams", name, "key"), key, os.environ)
    return found


def _rule_files(data: dict[str, Any]) -> Loaded:
    """All rule files, the shipped ones included, also those of a configuration that has other problems."""
    value = data.get("rules", ())
    patterns = [value] if isinstance(value, str) else value
    if not isinstance(patterns, list | tuple):
        return Loaded()
    shipped = data.get("shipped")
    wanted = {name: how for name, how in shipped.items() if how in (False, "log")} if isinstance(shipped, dict) else {}
    upstreams = data.get("upstreams")
    names = [str(name) for name in upstreams] if isinstance(upstreams, dict) else None
    limits = data.get("limits")
    listed = limits if isinstance(limits, list | tuple) else ()
    named = [str(each.get("name")) for each in listed if isinstance(each, dict) and each.get("named") is True]
    return read_rules(tuple(each if isinstance(each, str) else "" for each in patterns), names, named, wanted=wanted)


def _on_disk(data: dict[str, Any], now: float) -> Iterator[Finding]:
    """Certificates, CA files and geo files, also those of a configuration that has other problems."""
    quic = speaks_h3(data)
    tls = data.get("tls")
    pairs = tls.get("certificates") if isinstance(tls, dict) else None
    for index, pair in enumerate(pairs[:MAX_PAIRS] if isinstance(pairs, list | tuple) else ()):
        cert, key = (_file(pair.get("cert")), _file(pair.get("key"))) if isinstance(pair, dict) else (None, None)
        if cert is not None and key is not None:
            for fault in certificates.check_pair(cert, key, now, quic=quic):
                yield Finding(("tls", "certificates", index, fault.which), fault.message, fault.hint)
    upstreams = data.get("upstreams")
    for name, upstream in upstreams.items() if isinstance(upstreams, dict) else ():
        ca = _file(upstream.get("ca")) if isinstance(upstream, dict) else None
        if ca is not None and upstream["ca"] != "system":
            for message, hint in certificates.check_ca(ca):
                yield Finding(("upstreams", name, "ca"), message, hint)
    section = data.get("geo")
    files = section.get("files") if isinstance(section, dict) else None
    for index, value in enumerate(files[:MAX_GEO_FILES] if isinstance(files, list | tuple) else ()):
        path = _file(value)
        found = geo.check(path) if path is not None else None
        if found is not None:
            yield Finding(("geo", "files", index), *found)
    yield from _identities(data)


def _identities(data: dict[str, Any]) -> Iterator[Finding]:
    """What declared bots are verified by."""
    bots = data.get("bots")
    try:
        section = BotIdentity.model_validate(bots.get("identity", {}) if isinstance(bots, dict) else {}, context=FROM_FILE)
    except ValidationError:
        return  # the model says what is wrong
    for name, message, hint in identity_problems(section):
        yield Finding(("bots", "identity", name), message, hint)


def _file(value: Any) -> FilePath | None:
    return FilePath(value) if isinstance(value, str | FilePath) and str(value) not in ("", ".") else None


def _placed(document: Document, finding: Finding) -> Problem:
    if not document.lines:
        where = explain.dotted(finding.path)
        return Problem(document.file, 0, 0, f"{where}: {finding.message}" if where else finding.message, finding.hint)
    if not finding.path:
        return Problem(document.file, 0, 0, finding.message, finding.hint)
    at = document.key_at if finding.on_key else document.value_at
    return document.problem(at(finding.path), finding.message, finding.hint)


def _quiet(document: Document, problems: Iterable[Problem]) -> Iterator[Problem]:
    """The problems, without the text of lines where somebody may have written a secret."""
    lines = {place[0] for places in (document.keys, document.values) for path, place in places.items() if holds_secrets(path)}
    for problem in problems:
        secret = problem.file == document.file and problem.line in lines
        yield replace(problem, source="") if secret else problem


def _read(path: str | FilePath) -> bytes:
    file = str(path)
    try:
        with FilePath(path).open("rb") as opened:
            return opened.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise ConfigError([Problem(file, 0, 0, "file not found")]) from error
    except IsADirectoryError as error:
        raise ConfigError([Problem(file, 0, 0, "is a directory, not a file")]) from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError([Problem(file, 0, 0, f"cannot be read: {reason}")]) from error
