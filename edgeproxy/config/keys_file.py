# Files of keys, peppers and upstreams' keys are read here, and whatever is wrong with them is said without showing one.
"""`read_keys` and `read_upstream_key`. Both raise nothing: what is wrong is in what they return."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path as FilePath
from typing import Any, Final

import msgspec
from pydantic import ValidationError

from edgeproxy.config import explain
from edgeproxy.config.checks import Finding
from edgeproxy.config.document import MAX_BYTES, Document, Path, parse
from edgeproxy.config.keys import HASH, KeyBook, KeyFile, UpstreamKey
from edgeproxy.config.problems import KEY_LIKE, ConfigError, Problem, quote, suggest
from edgeproxy.config.secret import Secret
from edgeproxy.config.units import FROM_FILE
from edgeproxy.policy.keytext import derive, pepper_id

MIN_PEPPER: Final = 32  # bytes
MAX_SECRET: Final = 8192  # bytes; longer is no key but a wrong file
# Keys and hashes, as they may stand in a line that is shown: long runs of letters and digits (the parts of JA4 fingerprints
# have at most 12), and whatever follows the beginnings of well-known keys.
_PRECIOUS: Final = re.compile(KEY_LIKE + r"|[0-9A-Za-z]{20,}")
_VISIBLE: Final = re.compile(rb"[\x21-\x7e]+")


@dataclass(slots=True)
class LoadedKeys:
    """What reading came to.

    Attributes:
        book: the keys; None when there are problems.
        document: the file, when it is YAML.
        model: what it says, when that is valid in itself.
        problems: of the file, in their places, without anything that could be a secret.
        findings: of the configuration's section `keys`, by their path.
    """

    book: KeyBook | None = None
    document: Document | None = None
    model: KeyFile | None = None
    problems: list[Problem] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


def read_keys(file: FilePath, pepper: FilePath | None, limits: Collection[str] | None = None) -> LoadedKeys:
    """Reads a file of keys and its pepper.

    Args:
        pepper: None: without it, as far as that goes; there is no book then.
        limits: names of limits that keys may name; None: nobody knows them.
    """
    loaded = LoadedKeys()
    derived: bytes | None = None
    if pepper is not None:
        try:
            derived = read_pepper(pepper)
        except ValueError as error:
            loaded.findings.append(Finding(("keys", "pepper"), str(error), "'edgeproxy keys create' makes one"))
    try:
        with file.open("rb") as opened:
            raw = opened.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        hint = "'edgeproxy keys create --name NAME' makes it"
        loaded.findings.append(Finding(("keys", "file"), f"{quote(str(file))} cannot be read: {_reason(error)}", hint))
        return loaded
    _parse(raw, str(file), loaded)
    if loaded.document is not None:
        _findings(loaded, derived, limits)
    loaded.problems = [_without_secrets(problem) for problem in dict.fromkeys(loaded.problems)]
    if derived is not None and loaded.model is not None and not loaded.problems and not loaded.findings:
        assert pepper is not None
        loaded.book = KeyBook(pepper=Secret(derived.hex().encode("ascii")), keys=loaded.model.keys)
    return loaded


def read_pepper_alone(pepper: FilePath) -> LoadedKeys:
    """A book without keys: with it nobody passes until they are there."""
    loaded = LoadedKeys()
    try:
        loaded.book = KeyBook(pepper=Secret(read_pepper(pepper).hex().encode("ascii")))
    except ValueError as error:
        hint = "'edgeproxy keys create' makes one; all edges with the same keys have the same one"
        loaded.findings.append(Finding(("keys", "pepper"), str(error), hint))
    return loaded


def read_shared(raw: bytes, name: str, derived: bytes | None) -> LoadedKeys:
    """Reads the keys that several edges share: JSON, of what a file of keys says.

    Args:
        name: how problems call it.
        derived: the pepper; None: without it, as far as that goes; there is no book then.
    """
    loaded = LoadedKeys(document=Document(name, [], {}))
    try:
        data = _decoded(raw)
        loaded.document = Document(name, [], data)
        loaded.model = KeyFile.model_validate(data, context=FROM_FILE)
    except ValueError as error:
        found = explain.findings(error, KeyFile) if isinstance(error, ValidationError) else [Finding((), str(error))]
        loaded.problems += [_named(name, each) for each in found]
    else:
        _findings(loaded, derived, None)
    loaded.problems = [_without_secrets(problem) for problem in dict.fromkeys(loaded.problems)]
    if derived is not None and loaded.model is not None and not loaded.problems:
        loaded.book = KeyBook(pepper=Secret(derived.hex().encode("ascii")), keys=loaded.model.keys)
    return loaded


def _decoded(raw: bytes) -> dict[str, Any]:
    """Raises ValueError with a sentence that says nothing of the content."""
    if len(raw) > MAX_BYTES:
        raise ValueError("larger than 1 MiB")
    try:
        data = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ValueError("that is not JSON") from None
    if not isinstance(data, dict):
        raise ValueError("that is not a JSON object")
    return data


def _named(name: str, finding: Finding) -> Problem:
    where = explain.dotted(finding.path)
    return Problem(name, 0, 0, f"{where}: {finding.message}" if where else finding.message, finding.hint)


def read_pepper(path: FilePath) -> bytes:
    """What keys are hashed with (keytext.derive). Raises ValueError with a sentence that says nothing of the content."""
    try:
        with path.open("rb") as opened:
            content = opened.read(MAX_SECRET + 1)
    except (OSError, ValueError) as error:
        raise ValueError(f"{hide(quote(str(path)))} cannot be read: {_reason(error)}") from error
    if not MIN_PEPPER <= len(content.strip()) <= MAX_SECRET:
        raise ValueError(f"{hide(quote(str(path)))} is no pepper: it holds {MIN_PEPPER} to {MAX_SECRET} bytes")
    return derive(content)


def read_upstream_key(path: Path, key: UpstreamKey, environment: Mapping[str, str]) -> UpstreamKey | Finding:
    """The same with its secret, or what is wrong.

    Args:
        path: of the section, `("upstreams", name, "key")`.
    """
    if key.file is not None:
        where, at = hide(quote(str(key.file))), (*path, "file")
        try:
            with key.file.open("rb") as opened:
                value = opened.read(MAX_SECRET + 1).strip()
        except (OSError, ValueError) as error:
            return Finding(at, f"{where} cannot be read: {_reason(error)}")
    else:
        where, at = f"the environment variable {hide(quote(key.env or ''))}", (*path, "env")
        found = environment.get(key.env or "")
        if found is None:
            return Finding(at, f"{where} is not set", "it is read when the edge starts and reloads")
        value = found.encode("utf-8", "surrogateescape").strip()
    if not value or len(value) > MAX_SECRET or _VISIBLE.fullmatch(value) is None:
        return Finding(at, f"{where} holds no key", "one line of printable ASCII without blanks, nothing else")
    return key.model_copy(update={"secret": Secret(value)})


def _parse(raw: bytes, file: str, loaded: LoadedKeys) -> None:
    if not raw.strip():
        loaded.document, loaded.model = Document(file, [], {}), KeyFile()
        return
    try:
        document = parse(raw, file, starts="keys")
    except ConfigError as error:
        loaded.problems += error.problems
        return
    loaded.document = document
    loaded.problems += document.problems
    try:
        loaded.model = KeyFile.model_validate(document.data, context=FROM_FILE)
    except ValidationError as error:
        loaded.problems += [_placed(document, finding) for finding in explain.findings(error, KeyFile)]


def _findings(loaded: LoadedKeys, derived: bytes | None, limits: Collection[str] | None) -> None:
    """Everything that is wrong between keys."""
    document = loaded.document
    assert document is not None
    found: list[Finding] = []
    named = document.data.get("pepper_id")
    if derived is not None and isinstance(named, str) and named != pepper_id(derived):
        hint = "with this one no key would be known: use the pepper that the file was made with"
        found.append(Finding(("pepper_id",), "the hashes were made with another pepper", hint))
    found += _repeated(document, "id", revoked=True)
    found += _repeated(document, "name", revoked=False)
    for index, key in enumerate(loaded.model.keys if loaded.model is not None else ()):
        if key.created is not None and key.expires is not None and key.expires <= key.created:
            found.append(Finding(("keys", index, "expires"), "the key expires before it was made"))
        if key.previous is not None and key.previous.hash == key.hash:
            found.append(Finding(("keys", index, "previous"), "the previous hash is the present one"))
        for place, name in enumerate(key.limits):
            if limits is not None and name not in limits:
                path = ("keys", index, "limits", place)
                found.append(Finding(path, f"unknown limit {quote(name)}", suggest(name, limits)))
    if document.lines:
        loaded.problems += [_placed(document, finding) for finding in found]
    else:
        loaded.problems += [_named(document.file, finding) for finding in found]


def _repeated(document: Document, what: str, *, revoked: bool) -> Iterator[Finding]:
    """What two keys say alike, `revoked` ones included or not."""
    first: dict[str, int] = {}
    listed = document.data.get("keys")
    for index, raw in enumerate(listed if isinstance(listed, list) else ()):
        value = raw.get(what) if isinstance(raw, dict) and (revoked or not raw.get("revoked")) else None
        if isinstance(value, str) and first.setdefault(value, index) != index:
            line = document.value_at(("keys", first[value], what))[0]
            yield Finding(("keys", index, what), f"{what} {quote(value)} is there twice", f"first on line {line}" if line else "")


def _placed(document: Document, finding: Finding) -> Problem:
    at = document.key_at if finding.on_key else document.value_at
    return document.problem(at(finding.path) if finding.path else (0, 0), finding.message, finding.hint)


def _without_secrets(problem: Problem) -> Problem:
    """A key that somebody put into the file is not shown, and neither are hashes; every column stays where it was."""
    message, hint, source = (hide(text) for text in (problem.message, problem.hint, problem.source))
    return replace(problem, message=message, hint=hint, source=source)


def hide(text: str) -> str:
    """The text with stars for what may be a secret, as long as it was."""
    return _PRECIOUS.sub(lambda found: "*" * len(found[0]), text)


def hash_text(digest: bytes) -> str:
    """A hash as the file has it."""
    return HASH + digest.hex()


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
