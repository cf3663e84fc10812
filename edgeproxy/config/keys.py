# API keys as data: the sections `keys` and `upstreams.*.key`, and every key of a file of keys. Who may pass is policy/keys.py's
# business, and reading files keys_file.py's.
"""Pydantic models of `keys:`, of an upstream's `key:` and of `keys.yaml`; `KeyBook` is what travels to the workers."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    StrictInt,
    StrictStr,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic.json_schema import SkipJsonSchema

from edgeproxy.config import names
from edgeproxy.config.problems import Invalid, quote
from edgeproxy.config.secret import Secret, SecretValue
from edgeproxy.config.units import FROM_FILE, Duration, describe
from edgeproxy.policy.keytext import DIGEST
from edgeproxy.state.redis_url import parse as parse_store

MAX_TOKENS: Final = 1_000_000_000_000
HASH: Final = "blake2b:"
STORE: Final = "store"  # in the place of a URL: that of the configuration's key `store`

_ID: Final = re.compile(r"[0-9A-Za-z]{8}")
_OURS: Final = re.compile(r"ep-[0-9A-Za-z]{8}-[0-9A-Za-z]{8}")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_HASH: Final = re.compile(rf"{HASH}[0-9a-f]{{{2 * DIGEST}}}")
_ZONE: Final = r"(?:[Zz]|[+-][0-9]{2}:[0-9]{2})"
_WRITTEN_TIME: Final = re.compile(rf"[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}(?:[Tt ][0-9:]{{5,8}}(?:\.[0-9]{{1,6}})?{_ZONE})?")
_ENVIRONMENT: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")
# What JA4 is made of: protocol, version, SNI, counts and ALPN; then two hashes. The leading parts are a family.
_JA4: Final = re.compile(r"[tqd][0-9a-z]{2}[di][0-9]{4}[0-9a-z]{2}(?:_[0-9a-f]{12}){0,2}")


def _key_id(value: str) -> str:
    if _ID.fullmatch(value) is None:
        raise Invalid("that is not the id of a key", "the 8 letters and digits between 'ep-' and the next '-'")
    return value


def _no_key(value: str) -> str:
    # What is a key would be shown by whoever takes it for a name.
    if _OURS.search(value) is not None:
        raise Invalid("that is a key, or a part of one", "its id alone is no secret")
    return value


def _name(value: str) -> str:
    # It becomes a label of metrics and stands in log lines.
    _no_key(value)
    if _NAME.fullmatch(value) is None:
        raise Invalid(f"{quote(value)} is not a name", "letters, digits, '-', '_' and '.', at most 64")
    return value


def _hash(value: str) -> str:
    # Not a word about the value: somebody may have put the key itself there.
    if _HASH.fullmatch(value) is None:
        raise Invalid("that is not the hash of a key", "'edgeproxy keys create' writes it; the key itself is never stored")
    return value


def _pepper_id(value: str) -> str:
    if re.fullmatch(r"[0-9a-f]{16}", value) is None:
        raise Invalid("that does not name a pepper", "'edgeproxy keys create' writes it")
    return value


def parse_time(text: str) -> float:
    """Seconds since the epoch of `2026-12-31` (its first moment, UTC) or `2026-12-31T18:00:00Z`. Raises Invalid."""
    try:
        if _WRITTEN_TIME.fullmatch(text) is None:
            raise ValueError
        moment = datetime.fromisoformat(text.upper())
        return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise Invalid(f"{quote(text)} is not a time", "like 2026-12-31 (UTC) or 2026-12-31T18:00:00Z") from None


def show_time(seconds: float) -> str:
    """As parse_time reads it, in whole seconds."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _time(value: Any, info: ValidationInfo) -> float | None:
    if isinstance(value, str):
        return parse_time(value)
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool) and info.context != FROM_FILE):
        return value
    raise Invalid(f"expected a time, not {describe(value)}", "like 2026-12-31 (UTC) or 2026-12-31T18:00:00Z")


def _revoked(value: Any, info: ValidationInfo) -> float | None:
    """`revoked: true` is what somebody writes by hand, in a hurry."""
    if isinstance(value, bool):
        return 0.0 if value else None
    return _time(value, info)


def _model(value: str) -> str:
    if value == "*":
        raise Invalid("'*' is every model", "leave 'models' out")
    return names.model_pattern(_no_key(value))


def _ja4(value: str) -> str:
    if _JA4.fullmatch(value) is None:
        hint = "a JA4 fingerprint, or its leading parts: t13d1516h2, t13d1516h2_8daaf6152771"
        raise Invalid(f"{quote(value)} is not a JA4 family", hint)
    return value


def _environment(value: str) -> str:
    if _ENVIRONMENT.fullmatch(value) is None:
        # Not a word about the value: it may be the key itself.
        raise Invalid("'env' is the name of an environment variable", "the key itself has no place in the configuration")
    return value


def _file(value: Any) -> Path:
    if not isinstance(value, str | Path) or not str(value) or str(value) == ".":
        raise Invalid("expected the path of a file")
    return Path(value)


def _place_text(value: Any) -> Any:
    if not isinstance(value, str | Secret):
        # Not a word about the value: there may be a password in it.
        raise Invalid("this is not the URL of a Redis", "like redis://127.0.0.1:6379/0, or 'store' for that of 'store'")
    return value


def _place(value: Secret) -> Secret:
    text = value.reveal().decode("utf-8", "surrogateescape")
    try:
        if text != STORE:
            parse_store(text)
    except ValueError as e:
        raise Invalid(f"this is not the URL of a Redis: {e}", "like redis://127.0.0.1:6379/0, or 'store'") from None
    return value


def _as_list(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _not_written(value: Any, info: ValidationInfo) -> Any:
    """What is read from elsewhere has no place in the file."""
    if info.context == FROM_FILE:
        raise Invalid("this is read from elsewhere", "remove it")
    return value


KeyId = Annotated[StrictStr, AfterValidator(_key_id)]
Name = Annotated[StrictStr, AfterValidator(_name)]
Names = Annotated[tuple[Name, ...], Field(max_length=64), BeforeValidator(_as_list)]
Hash = Annotated[StrictStr, AfterValidator(_hash)]
_TIME_SCHEMA: Final[dict[str, Any]] = {"type": "string", "examples": ["2026-12-31", "2026-12-31T18:00:00Z"]}
Time = Annotated[float | None, PlainValidator(_time), WithJsonSchema(_TIME_SCHEMA)]
Revoked = Annotated[float | None, PlainValidator(_revoked), WithJsonSchema({"anyOf": [_TIME_SCHEMA, {"type": "boolean"}]})]
ModelPattern = Annotated[StrictStr, AfterValidator(_model)]
Ja4 = Annotated[StrictStr, AfterValidator(_ja4)]
Network = Annotated[IPv4Network | IPv6Network, PlainValidator(names.network), WithJsonSchema({"type": "string"})]
FilePath = Annotated[Path, PlainValidator(_file), WithJsonSchema({"type": "string"})]
Tokens = Annotated[StrictInt, Field(ge=1, le=MAX_TOKENS)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Previous(_Section):
    """The secret that a rotated key had before."""

    hash: Hash = Field(repr=False, description="As 'hash' of a key.")
    until: Time = Field(description="When it stops working.")


class Budget(_Section):
    """What a key may use up; limits read these numbers."""

    tokens_per_day: Tokens | None = Field(default=None, description="Prompt and completion tokens in a day.")
    tokens_per_month: Tokens | None = Field(default=None, description="The same in a month.")


class KeyModel(_Section):
    """One API key of the edge."""

    id: KeyId = Field(description="The 8 characters behind 'ep-'. No secret.")
    name: Name = Field(description="For people, metrics and logs; only one key that is not revoked has it.")
    hash: Hash = Field(repr=False, description="Keyed hash of the key; the key itself is stored nowhere.")
    created: Time = Field(default=None, description="When it was made.")
    expires: Time = Field(default=None, description="From when on it is refused; absent: never.")
    revoked: Revoked = Field(default=None, description="It is refused from now on; a time (whichever) or true.")
    models: Annotated[tuple[ModelPattern, ...], Field(max_length=256), BeforeValidator(_as_list)] = Field(
        default=(), description="Model names, or prefixes ending in '*', that it may use; absent: all."
    )
    limits: Names = Field(default=(), description="Names of limits that hold for it.")
    budget: Budget = Field(default=Budget(), description="What it may use up.")
    tags: Names = Field(default=(), description="Words for rules, logs and events.")
    networks: Annotated[tuple[Network, ...], Field(max_length=256), BeforeValidator(_as_list)] = Field(
        default=(), description="Where it may be used from; absent: anywhere."
    )
    ja4: Annotated[tuple[Ja4, ...], Field(max_length=256), BeforeValidator(_as_list)] = Field(
        default=(), description="JA4 fingerprints, or their leading parts, of clients that may use it; absent: any."
    )
    previous: Previous | None = Field(default=None, description="Its secret before it was rotated.")


def public(key: KeyModel, now: float) -> dict[str, Any]:
    """What anybody who may list keys may see of one: neither a secret nor a hash."""
    ended = key.expires is not None and key.expires <= now
    times = {name: getattr(key, name) for name in ("created", "expires", "revoked")}
    rotated = key.previous.until if key.previous is not None else None
    return {
        "key": f"ep-{key.id}",
        "name": key.name,
        "state": "revoked" if key.revoked is not None else "expired" if ended else "active",
        **{name: None if value is None else show_time(value) for name, value in times.items()},
        "old_secret_until": None if rotated is None or rotated <= now else show_time(rotated),
        "models": list(key.models),
        "limits": list(key.limits),
        "budget": key.budget.model_dump(exclude_none=True),
        "tags": list(key.tags),
        "networks": [str(network) for network in key.networks],
        "ja4": list(key.ja4),
    }


class KeyFile(_Section):
    """A file of keys."""

    pepper_id: Annotated[StrictStr, AfterValidator(_pepper_id)] | None = Field(
        default=None, description="Names the pepper that the hashes were made with."
    )
    keys: tuple[KeyModel, ...] = Field(default=(), description="The keys.")


class KeyBook(_Section):
    """Every key that was read, and the pepper. It travels to the workers (config/secret.py: TO_WORKERS).

    Attributes:
        pepper: derived (keytext.derive), as hex digits.
    """

    pepper: SecretValue
    keys: tuple[KeyModel, ...] = ()


class Keys(_Section):
    """API keys of the edge."""

    file: FilePath = Field(default=Path("keys.yaml"), description="The file of keys; 'edgeproxy keys' writes it.")
    pepper: FilePath = Field(
        default=Path("keys.pepper"), description="A file with a secret that the hashes are made with; keep it apart from backups."
    )
    redis: Annotated[SecretValue, BeforeValidator(_place_text), AfterValidator(_place)] | None = Field(
        default=None,
        description="A Redis that keeps the keys for several edges, in the place of 'file': a URL as for 'store', or 'store' "
        "for the same one.",
    )
    refresh: Annotated[Duration, Field(ge=0.1, le=3600)] = Field(
        default=2.0,
        description="How often that Redis is asked for changes: so long a revoked key may still pass.",
        json_schema_extra={"default": "2s"},
    )
    cache: FilePath | None = Field(
        default=None,
        description="A file with the keys as Redis last had them, for a start while it is away. Absent: no such start.",
    )
    networks_per_hour: Annotated[StrictInt, Field(ge=1, le=64)] = Field(
        default=8, description="A key that is seen in more networks than this within an hour makes a security event."
    )
    book: SkipJsonSchema[Annotated[KeyBook | None, BeforeValidator(_not_written)]] = None  # keys_file.py, keys_shared.py


def holds_secrets(path: tuple[str | int, ...]) -> bool:
    """Whether somebody may have written a secret at a place of the configuration: problems there show no source line."""
    return path[:1] in {("keys",), ("store",), ("challenge",)} or (path[:1] == ("upstreams",) and path[2:3] == ("key",))


RouteKeys = Literal["required", "optional", "off"]
"""What a route does with keys: nobody passes without one; one that is given has to be right; nobody looks."""


def _keys(value: Any, info: ValidationInfo) -> Any:
    if value is None and info.context == FROM_FILE:  # a protection that was begun: nothing there is not no keys
        raise Invalid("'keys' is empty", "write keys: {file: keys.yaml, pepper: keys.pepper}, or remove it")
    return value


def _upstream_key(value: Any, info: ValidationInfo) -> Any:
    if value is None and info.context != FROM_FILE:
        return value
    # Here, not below: what pydantic says of a value shows the value.
    if not isinstance(value, UpstreamKey) and not isinstance(value, dict):
        hint = "the key itself has no place in the configuration"
        raise Invalid("'key' says where the key is: {env: NAME} or {file: path}", hint)
    if isinstance(value, dict) and info.context == FROM_FILE and ("env" in value) == ("file" in value):
        raise Invalid("'key' needs either 'env' or 'file'", "{env: NAME} or {file: path}")
    return value


class UpstreamKey(_Section):
    """The key that an upstream gets, instead of the client's."""

    env: Annotated[StrictStr, AfterValidator(_environment)] | None = Field(
        default=None, description="The environment variable of the edge that holds it."
    )
    file: FilePath | None = Field(default=None, description="The file that holds it, and nothing else.")
    header: Literal["authorization", "x-api-key", "api-key"] = Field(
        default="authorization", description="The field it goes into; authorization: as 'Bearer …'."
    )
    secret: SkipJsonSchema[Annotated[SecretValue | None, BeforeValidator(_not_written)]] = None  # by config/keys_file.py


OptionalKeys = Annotated[Keys | None, BeforeValidator(_keys)]
OptionalUpstreamKey = Annotated[UpstreamKey | None, BeforeValidator(_upstream_key)]
