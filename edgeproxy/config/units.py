# Units as people write them (3s, 10MiB) become seconds and bytes here and only here.
"""Durations and sizes: parsing, printing, and the pydantic types that the model is built from.

A duration in a file needs its unit, because `30` has been read as seconds, milliseconds and minutes by different
proxies. A number that comes from Python is seconds. A size without a unit is bytes, which nobody mistakes.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field, ValidationInfo, WithJsonSchema

from edgeproxy.config.problems import Invalid, quote, suggest

# The context that load() validates with: the value was written in a file, where a bare number is ambiguous.
FROM_FILE: Final = "file"

DURATION_PATTERN: Final = r"^([0-9]{1,12}(\.[0-9]{1,6})?(ms|s|m|h|d))+$"
SIZE_PATTERN: Final = r"^[0-9]{1,15}(\.[0-9]{1,6})? ?(B|KiB|MiB|GiB|TiB|kB|KB|MB|GB|TB)$"

# Largest first: the parts of `1h30m` have to come in this order.
_SECONDS: Final = {
    "d": Decimal(86400),
    "h": Decimal(3600),
    "m": Decimal(60),
    "s": Decimal(1),
    "ms": Decimal("0.001"),
}
_BYTES: Final = {
    "B": 1,
    "KiB": 1 << 10,
    "MiB": 1 << 20,
    "GiB": 1 << 30,
    "TiB": 1 << 40,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
}
_DURATION_PART: Final = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)(ms|s|m|h|d)")
_NUMBER_AND_WORD: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-zµ]*)")
_SPELLED: Final = {
    "sec": "s", "secs": "s", "second": "s", "seconds": "s",
    "min": "m", "mins": "m", "minute": "m", "minutes": "m",
    "hr": "h", "hrs": "h", "hour": "h", "hours": "h",
    "day": "d", "days": "d", "msec": "ms", "millis": "ms", "millisecond": "ms", "milliseconds": "ms",
}  # fmt: skip
MAX_DURATION: Final = 10 * 366 * 86400.0  # ten years: longer is a slip, and every timer can hold it
MAX_SIZE: Final = 1 << 50


def parse_duration(text: str) -> float:
    """Seconds of `500ms`, `3s`, `2h`, `1h30m`, `0s`.

    Raises Invalid. Units: ms, s, m, h, d; decimals are allowed; parts come largest first and each unit once.
    """
    seconds, at, floor = Decimal(0), 0, len(_SECONDS)
    order = list(_SECONDS)[::-1]
    while part := _DURATION_PART.match(text, at):
        rank = order.index(part[2])
        if rank >= floor:
            raise Invalid(f"{quote(text)} is not a duration", "larger units come first and each once, like '1h30m'")
        floor = rank
        seconds += Decimal(part[1]) * _SECONDS[part[2]]
        at = part.end()
    if at == 0 or at != len(text):
        raise Invalid(f"{quote(text)} is not a duration", _duration_hint(text))
    if seconds > MAX_DURATION:
        raise Invalid(f"{quote(text)} is longer than ten years", "the units are ms, s, m, h and d")
    return float(seconds)


def parse_size(text: str) -> int:
    """Bytes of `512B`, `64KiB`, `1.5MiB`, `10MB`, `1048576`. KiB, MiB, GiB count in 1024, kB, MB, GB in 1000.

    Raises Invalid, also where the result is no whole number of bytes.
    """
    if re.fullmatch(r"[0-9]{1,15}", text):
        size = Decimal(text)
    elif re.fullmatch(SIZE_PATTERN, text):
        number, word = _split(text)
        size = Decimal(number) * _BYTES[word]
    else:
        raise Invalid(f"{quote(text)} is not a size", _size_hint(text))
    if size != size.to_integral_value():
        raise Invalid(f"{quote(text)} is not a whole number of bytes", "use a smaller unit")
    if size > MAX_SIZE:
        raise Invalid(f"{quote(text)} is larger than 1024TiB", "sizes are bytes, KiB, MiB or GiB")
    return int(size)


def format_duration(seconds: float) -> str:
    """The shortest exact text that parse_duration reads back: 90.0 → `1m30s`, 0.5 → `500ms`."""
    left, text = round(Decimal(repr(float(seconds))), 9), ""
    for unit, scale in _SECONDS.items():
        count = left if unit == "ms" else Decimal(left // scale)
        if unit == "ms":
            count = left / scale
        if count:
            text += f"{count.normalize():f}{unit}"
        left -= count * scale
    return text or "0s"


def format_size(size: int) -> str:
    """The shortest exact text with a 1024-based unit that parse_size reads back: 10485760 → `10MiB`."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size and size % _BYTES[unit] == 0:
            return f"{size // _BYTES[unit]}{unit}"
    return f"{size}B"


def _split(text: str) -> tuple[str, str]:
    found = _NUMBER_AND_WORD.fullmatch(text)
    return (found[1], found[2]) if found else ("", "")


def _duration_hint(text: str) -> str:
    number, word = _split(text.strip())
    if number and not word:
        return f"a duration needs its unit: '{number}s' or '{number}ms'"
    if number and (unit := _SPELLED.get(word.lower()) or next((u for u in _SECONDS if u == word.lower()), None)):
        return f"write '{number}{unit}'"
    if re.fullmatch(r"[0-9]+(:[0-9]+)+", text):
        return "a time of day or h:mm is not a duration: write '8m30s' or '8h30m'"
    if text.startswith("-"):
        return "a duration is not negative"
    return "write a number and a unit: 500ms, 3s, 2m, 1h30m, 7d"


def _size_hint(text: str) -> str:
    number, word = _split(text.strip())
    if number and len(word) == 1 and word.upper() in "KMGT":
        return f"write '{number}{word.upper()}iB' (1024-based) or '{number}{word.upper()}B' (1000-based)"
    if number and (near := {unit.lower(): unit for unit in _BYTES}.get(word.lower())):
        return f"write '{number}{near}'"
    if number and (near_text := suggest(word, _BYTES)):
        return near_text
    if text.startswith("-"):
        return "a size is not negative"
    return "write a number and a unit: 512B, 64KiB, 10MiB, 1GiB"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _duration(value: Any, info: ValidationInfo) -> Any:
    if isinstance(value, str):
        return parse_duration(value)
    if not _is_number(value):
        raise Invalid(f"expected a duration, not {describe(value)}", "like 500ms, 3s, 2m, 1h30m")
    if info.context == FROM_FILE and value != 0:
        raise Invalid("a duration needs its unit", f"write '{value}s' or '{value}ms'")
    if not 0 <= value <= MAX_DURATION:  # also refuses NaN
        raise Invalid(f"{value} seconds is not a duration between 0 and ten years")
    return value


def _off_or_duration(value: Any, info: ValidationInfo) -> Any:
    if value is None or value == "off":
        return None
    return _duration(value, info)


def _whole_seconds(value: Any, info: ValidationInfo) -> Any:
    """An age as HTTP writes it: a bare number is seconds, as in the header; `365d` is fine too."""
    if isinstance(value, int) and not isinstance(value, bool):
        if not 0 <= value <= MAX_DURATION:
            raise Invalid(f"{value} is not an age in seconds between 0 and ten years")
        return value
    seconds = _duration(value, info)
    if seconds != int(seconds):
        raise Invalid(f"{quote(value)} is not a whole number of seconds")
    return int(seconds)


def size_from(value: Any) -> Any:
    """The validator of Size: text with a unit, or a number of bytes."""
    if isinstance(value, str):
        return parse_size(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise Invalid(f"expected a size, not {describe(value)}", "like 512B, 64KiB, 10MiB")
    if not 0 <= value <= MAX_SIZE:
        raise Invalid(f"{value} is not a size in bytes", "a size is not negative, and at most 1024TiB")
    return value


def describe(value: object) -> str:
    """What a value is, in the words of the file: `a list`, `the number 3`, `nothing`."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if _is_number(value):
        return f"the number {value}"
    if isinstance(value, str):
        return f"the text {quote(value)}"
    return "a list" if isinstance(value, list | tuple) else "a mapping" if isinstance(value, dict) else quote(value)


_DURATION_SCHEMA: Final[dict[str, Any]] = {"type": "string", "pattern": DURATION_PATTERN}
_SIZE_SCHEMA: Final[list[dict[str, Any]]] = [
    {"type": "string", "pattern": SIZE_PATTERN},
    {"type": "integer", "minimum": 0},
]

# Seconds, more than 0: a timer of zero would refuse everything.
Duration = Annotated[float, Field(gt=0), BeforeValidator(_duration), WithJsonSchema(_DURATION_SCHEMA)]
# Seconds, 0 allowed where "at once" is a meaning.
Wait = Annotated[float, BeforeValidator(_duration), WithJsonSchema(_DURATION_SCHEMA)]
# Seconds or None, written `off`.
OptionalDuration = Annotated[
    Annotated[float, Field(gt=0)] | None,
    BeforeValidator(_off_or_duration),
    WithJsonSchema({"anyOf": [_DURATION_SCHEMA, {"const": "off"}, {"type": "null"}]}),
]
# Whole seconds, as in `max-age`.
Age = Annotated[
    int,
    BeforeValidator(_whole_seconds),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0}, _DURATION_SCHEMA]}),
]
# Bytes.
Size = Annotated[int, BeforeValidator(size_from), WithJsonSchema({"anyOf": _SIZE_SCHEMA})]
