# The functions of the rules language: what they take, what they give, and what they do. No request is known here.
"""`FUNCTIONS` by name. The parser checks calls against them, the compiler calls `Function.run`.

Arguments that are not marked as literal come from the request and may be missing (None): then the result is missing,
unless the function says otherwise. What goes wrong with a value (no base64, no JSON) gives a missing value, too.
Meanings are those of Cloudflare's reference; where its page is silent, those of wirefilter.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote_to_bytes

import msgspec

from edgeproxy.rules.addresses import V6, network, show_ip
from edgeproxy.rules.errors import RuleError
from edgeproxy.rules.regexes import compile_pattern
from edgeproxy.rules.syntax import BOOL, BYTES, INT, IP, Type, array, mapping
from edgeproxy.rules.wildcards import Pattern, filled, split, template

STRINGS: Final = array(BYTES)
_UNICODE: Final = re.compile(rb"%u([0-9A-Fa-f]{4})")
_MAX_DECODES: Final = 8  # rounds of a recursive url_decode
_MAX_SPLIT: Final = 128
_decode_json = msgspec.json.decode


@dataclass(frozen=True, slots=True)
class Param:
    """One parameter: the types it may have; `literal`: True written down, False from the request, None either."""

    types: tuple[Type, ...]
    literal: bool | None = None


@dataclass(frozen=True, slots=True)
class Function:
    """One function.

    Attributes:
        params: in order; the last one repeats when `most` is larger.
        least, most: how many arguments.
        returns: the type of the result; None: that of the first argument.
        run: called with the arguments; literal ones as `prepare` made them.
        prepare: turns the literal arguments (None where an argument is none) into what `run` wants; raises RuleError
            with the index of the argument as offset.
        cost: about how dear, for ordering tests (a comparison is 1).
        takes_missing: `run` is called with None for what is missing.
    """

    params: tuple[Param, ...]
    least: int
    most: int
    returns: Type | None
    run: Callable[..., Any]
    prepare: Callable[[list[Any]], list[Any]] | None = None
    cost: int = 3
    takes_missing: bool = False


def _concat(*parts: Any) -> Any:
    there = [part for part in parts if part is not None]
    if not there:
        return None
    return b"".join(there) if isinstance(there[0], bytes) else [item for part in there for item in part]


def _substring(value: bytes, start: int, end: int | None = None) -> bytes:
    return value[start:end]


def _split(value: bytes, separator: bytes, limit: int) -> list[bytes]:
    return value.split(separator, limit - 1)


def _check_split(args: list[Any]) -> list[Any]:
    if not args[1]:
        raise RuleError("the separator is empty", 1)
    if not 1 <= args[2] <= _MAX_SPLIT:
        raise RuleError(f"the limit is 1 to {_MAX_SPLIT}", 2)
    return args


def _join(values: list[bytes], separator: bytes) -> bytes:
    return separator.join(values)


def _to_string(value: Any) -> bytes:
    if isinstance(value, bool):
        return b"true" if value else b"false"
    return str(value).encode("ascii")


def _show_address(value: int) -> bytes:
    return show_ip(value).encode("ascii")


def _remove_bytes(value: bytes, unwanted: bytes) -> bytes:
    return value.translate(None, unwanted)


def _remove_query_args(query: bytes, *names: bytes) -> bytes:
    return b"&".join(part for part in query.split(b"&") if part.partition(b"=")[0] not in names)


def _url_decode(value: bytes, options: bytes = b"") -> bytes:
    for _ in range(_MAX_DECODES if b"r" in options else 1):
        decoded = unquote_to_bytes(value.replace(b"+", b" "))
        if b"u" in options:
            decoded = _UNICODE.sub(lambda found: chr(int(found[1], 16)).encode("utf-8", "replace"), decoded)
        if decoded == value:
            break
        value = decoded
    return value


def _check_url_decode(args: list[Any]) -> list[Any]:
    if len(args) > 1 and not set(args[1]) <= set(b"ru"):
        raise RuleError("the options are 'r' (again until nothing changes) and 'u' (%uXXXX)", 1)
    return args


def _encode_base64(value: bytes, flags: bytes = b"") -> bytes:
    encoded = base64.urlsafe_b64encode(value) if b"u" in flags else base64.b64encode(value)
    return encoded if b"p" in flags else encoded.rstrip(b"=")


def _check_encode_base64(args: list[Any]) -> list[Any]:
    if len(args) > 1 and not set(args[1]) <= set(b"up"):
        raise RuleError("the flags are 'u' (URL-safe) and 'p' (padding)", 1)
    return args


def _decode_base64(value: bytes) -> bytes | None:
    try:
        return base64.b64decode(value.translate(bytes.maketrans(b"-_", b"+/")) + b"=" * (-len(value) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None


def _look_up(kind: type) -> Callable[..., Any]:
    def look_up(value: bytes, *keys: bytes | int) -> Any:
        try:
            found = _decode_json(value)
            for key in keys:
                found = found[key.decode("utf-8")] if isinstance(key, bytes) else found[key] if isinstance(found, list) else None
        except (msgspec.DecodeError, UnicodeDecodeError, KeyError, IndexError, TypeError, RecursionError):
            return None
        if type(found) is not kind:  # a bool is no integer
            return None
        return found.encode("utf-8") if isinstance(found, str) else found

    return look_up


def _check_keys(args: list[Any]) -> list[Any]:
    for index, key in enumerate(args[1:], 1):
        if isinstance(key, bytes):
            try:
                key.decode("utf-8")
            except UnicodeDecodeError:
                raise RuleError("a key is UTF-8", index) from None
        elif key < 0:
            raise RuleError("an index begins at 0", index)
    return args


def _cidr(address: int, bits4: int, bits6: int) -> int:
    return network(address, bits4 if address < V6 else bits6)


def _cidr6(address: int, bits6: int) -> int:
    return network(address, bits6) if address >= V6 else address


def _check_bits(args: list[Any]) -> list[Any]:
    for index, bits in enumerate(args[1:], 1):
        most = 32 if index == 1 and len(args) == 3 else 128
        if not 0 <= bits <= most:
            raise RuleError(f"a prefix length is 0 to {most}", index)
    return args


def _prepare_regex(args: list[Any]) -> list[Any]:
    try:
        pattern = args[1].decode("utf-8")
        compiled = compile_pattern(pattern)
    except UnicodeDecodeError:
        raise RuleError("a regular expression is UTF-8", 1) from None
    except RuleError as e:
        raise RuleError(e.message, 1, e.hint) from None
    parts = template(args[2])
    if isinstance(parts, str):
        raise RuleError(parts, 2)
    return [args[0], compiled, parts]


def _regex_replace(value: bytes, pattern: Any, parts: list[bytes | int]) -> bytes:
    found = pattern.search(value)
    if found is None:
        return value
    return value[: found.start()] + filled(parts, (found[0], *found.groups(b""))) + value[found.end() :]


def _prepare_wildcard(args: list[Any]) -> list[Any]:
    pieces = split(args[1])
    if isinstance(pieces, str):
        raise RuleError(pieces, 1)
    parts = template(args[2])
    if isinstance(parts, str):
        raise RuleError(parts, 2)
    if len(args) > 3 and args[3] not in (b"", b"s"):
        raise RuleError("the only flag is 's' (case-sensitive)", 3)
    return [args[0], Pattern(pieces, strict=len(args) > 3 and args[3] == b"s"), parts]


def _wildcard_replace(value: bytes, pattern: Pattern, parts: list[bytes | int]) -> bytes:
    return pattern.replace(value, parts)


def _uuid4(seed: bytes) -> bytes:
    return str(uuid.UUID(bytes=hashlib.sha256(seed).digest()[:16], version=4)).encode("ascii")


def _timed_hmac(key: bytes, message: bytes, lifetime: int, now: int, separator: int = 0, flags: bytes = b"") -> bool:
    """`<message><separator><issued, 10 digits>-<MAC in base64, percent-encoded or (flag 's') URL-safe>`."""
    signed, dash, mac = message.rpartition(b"-")
    issued = signed[-10:]
    if not dash or not issued.isdigit() or len(issued) != 10:
        return False
    content = signed[: -10 - separator] if separator else signed[:-10]
    wanted = hmac.digest(key, content + issued, "sha256")
    given = _decode_base64(mac if b"s" in flags else unquote_to_bytes(mac))
    return given is not None and hmac.compare_digest(wanted, given) and int(issued) <= now <= int(issued) + lifetime


def _check_hmac(args: list[Any]) -> list[Any]:
    if args[2] < 0:
        raise RuleError("the lifetime is in seconds", 2)
    if len(args) > 4 and not 0 <= args[4] <= 64:
        raise RuleError("the length of the separator is 0 to 64", 4)
    if len(args) > 5 and args[5] not in (b"", b"s"):
        raise RuleError("the only flag is 's' (URL-safe)", 5)
    return args


_REQUEST: Final = Param((BYTES,), literal=False)
_TEXT: Final = Param((BYTES,), literal=True)
_NUMBER: Final = Param((INT,), literal=True)
_ARRAYS: Final = (STRINGS, array(INT), array(BOOL), array(STRINGS))
_KEY: Final = Param((BYTES, INT), literal=True)

FUNCTIONS: Final[dict[str, Function]] = {
    "cidr": Function((Param((IP,), literal=False), _NUMBER, _NUMBER), 3, 3, IP, _cidr, _check_bits, cost=2),
    "cidr6": Function((Param((IP,), literal=False), _NUMBER), 2, 2, IP, _cidr6, _check_bits, cost=2),
    "concat": Function((Param((BYTES, STRINGS)),), 2, 16, None, _concat, takes_missing=True),
    "decode_base64": Function((_REQUEST,), 1, 1, BYTES, _decode_base64),
    "encode_base64": Function((Param((BYTES,)), _TEXT), 1, 2, BYTES, _encode_base64, _check_encode_base64),
    "ends_with": Function((_REQUEST, Param((BYTES,))), 2, 2, BOOL, bytes.endswith, cost=2),
    "has_key": Function((Param((mapping(STRINGS), mapping(INT))), Param((BYTES,))), 2, 2, BOOL, dict.__contains__, cost=2),
    "has_value": Function((Param((STRINGS,), literal=False), Param((BYTES,))), 2, 2, BOOL, list.__contains__, cost=2),
    "is_timed_hmac_valid_v0": Function(
        (Param((BYTES,)), _REQUEST, _NUMBER, Param((INT,)), _NUMBER, _TEXT), 4, 6, BOOL, _timed_hmac, _check_hmac, cost=12
    ),
    "join": Function((Param((STRINGS,), literal=False), _TEXT), 2, 2, BYTES, _join),
    "len": Function((Param((BYTES, *_ARRAYS), literal=False),), 1, 1, INT, len, cost=1),
    "lookup_json_integer": Function((_REQUEST, _KEY), 2, 16, INT, _look_up(int), _check_keys, cost=30),
    "lookup_json_string": Function((_REQUEST, _KEY), 2, 16, BYTES, _look_up(str), _check_keys, cost=30),
    "lower": Function((_REQUEST,), 1, 1, BYTES, bytes.lower, cost=2),
    "regex_replace": Function((_REQUEST, _TEXT, _TEXT), 3, 3, BYTES, _regex_replace, _prepare_regex, cost=25),
    "remove_bytes": Function((_REQUEST, _TEXT), 2, 2, BYTES, _remove_bytes),
    "remove_query_args": Function((_REQUEST, _TEXT), 2, 32, BYTES, _remove_query_args, cost=8),
    "sha256": Function((Param((BYTES,)),), 1, 1, BYTES, lambda value: hashlib.sha256(value).digest(), cost=8),
    "split": Function((_REQUEST, _TEXT, _NUMBER), 3, 3, STRINGS, _split, _check_split),
    "starts_with": Function((_REQUEST, Param((BYTES,))), 2, 2, BOOL, bytes.startswith, cost=2),
    "substring": Function((_REQUEST, _NUMBER, _NUMBER), 2, 3, BYTES, _substring, cost=2),
    "to_string": Function((Param((INT, BOOL, IP), literal=False),), 1, 1, BYTES, _to_string, cost=2),
    "upper": Function((_REQUEST,), 1, 1, BYTES, bytes.upper, cost=2),
    "url_decode": Function((_REQUEST, _TEXT), 1, 2, BYTES, _url_decode, _check_url_decode, cost=8),
    "uuidv4": Function((_REQUEST,), 1, 1, BYTES, _uuid4, cost=20),
    "wildcard_replace": Function((_REQUEST, _TEXT, _TEXT, _TEXT), 3, 4, BYTES, _wildcard_replace, _prepare_wildcard, cost=8),
}


def runner(name: str, first: Type) -> Callable[..., Any]:
    """What is called at run time; an address is a number there, so that its text needs a function of its own."""
    return _show_address if name == "to_string" and first == IP else FUNCTIONS[name].run
