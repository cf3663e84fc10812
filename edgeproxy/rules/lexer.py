# The characters of an expression become tokens here, one at a time and as the parser expects them; no meaning is known.
"""`Lexer`: a place in a text, with one method for each kind of token.

The language cannot be cut into tokens beforehand: `1.5` is part of an IP address, `61:62` two bytes and `[` inside a regex
keeps a quote from ending it. So the parser says what it expects, as wirefilter's does. Every method skips blanks first,
and raises RuleError at the character that does not fit.
"""

from __future__ import annotations

import re
from typing import Final

from edgeproxy.rules.errors import RuleError

_BLANK: Final = re.compile(r"[ \t\r\n]*")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z0-9_]+)*")
_LIST: Final = re.compile(r"[a-z0-9_]+(?:\.[a-z0-9_]+)*")
_INT: Final = re.compile(r"0x[0-9A-Fa-f]+|-?[0-9]+")
_HEX: Final = re.compile(r"[0-9A-Fa-f]{2}(?:([:.-])[0-9A-Fa-f]{2})(?:\1[0-9A-Fa-f]{2})*(?![0-9A-Za-z_:.-])")
_ADDRESS: Final = re.compile(r"[0-9A-Fa-f.:/]+")
_PLAIN: Final = re.compile(r'[^"\\]*')
_ESCAPE: Final = re.compile(r'\\(?:(["\\])|x([0-9A-Fa-f]{2})|([0-3][0-7]{2}))')
_RAW: Final = re.compile(r'r(#{0,255})"')
WORD: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_")
_INT_MIN, _INT_MAX = -(1 << 63), (1 << 63) - 1


class Lexer:
    """See the module.

    Attributes:
        text: the expression.
        at: index of the next character.
    """

    __slots__ = ("at", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def skip(self) -> int:
        """Skips blanks; the index behind them."""
        found = _BLANK.match(self.text, self.at)
        self.at = found.end() if found is not None else self.at
        return self.at

    def peek(self, token: str) -> bool:
        """Whether a token stands here."""
        return self.text.startswith(token, self.skip())

    def take(self, token: str) -> bool:
        """Takes a token if it stands here."""
        if self.peek(token):
            self.at += len(token)
            return True
        return False

    def take_bare(self, token: str) -> bool:
        """The same, without skipping blanks: an index follows its value at once."""
        if self.text.startswith(token, self.at):
            self.at += len(token)
            return True
        return False

    def expect(self, token: str, meaning: str) -> None:
        """Takes a token that must stand here."""
        if not self.take(token):
            raise self.error(f"expected '{token}' {meaning}")

    def error(self, message: str, hint: str = "") -> RuleError:
        """An error about the next character."""
        at = self.skip()
        return RuleError(message if at < len(self.text) else f"{message}, not the end of the expression", at, hint)

    @property
    def ended(self) -> bool:
        """Whether nothing but blanks is left."""
        return self.skip() == len(self.text)

    def word(self) -> str:
        """The letters that stand here, for a message; not taken."""
        found = _NAME.match(self.text, self.skip())
        return found[0] if found is not None else ""

    def name(self) -> str:
        """A field's or function's name."""
        found = _NAME.match(self.text, self.skip())
        if found is None:
            raise self.error("expected a field or function")
        self.at = found.end()
        return found[0]

    def at_name(self) -> bool:
        """Whether a name stands here (and no raw string: `r"…"`)."""
        return _NAME.match(self.text, self.skip()) is not None and _RAW.match(self.text, self.at) is None

    def list_name(self) -> str:
        """The name behind a `$`."""
        found = _LIST.match(self.text, self.at)
        end = found.end() if found is not None else self.at
        if found is None or self.text[end : end + 1] in WORD:
            raise RuleError("not the name of a list", self.at, "lower-case letters, digits and '_' follow the '$'")
        self.at = end
        return found[0]

    def integer(self) -> int:
        """A decimal, `0x` hexadecimal or `0` octal number, in 64 bits."""
        start = self.skip()
        found = _INT.match(self.text, start)
        if found is None:
            raise self.error("expected a number")
        digits = found[0]
        octal = len(digits) > 1 and digits[0] == "0" and digits[1] != "x"
        if self.text[found.end() : found.end() + 1] in WORD or (octal and not set(digits) <= set("01234567")):
            raise RuleError("not a number", start, "decimal, hexadecimal like 0x1f, or octal like 017")
        if len(digits) > 30:
            raise RuleError("the number does not fit 64 bits", start)
        number = int(digits, 16 if digits[1:2] == "x" else 8 if octal else 10)
        if not _INT_MIN <= number <= _INT_MAX:
            raise RuleError("the number does not fit 64 bits", start)
        self.at = found.end()
        return number

    def address(self) -> str | None:
        """The characters of an address, network or range (`a..b`), None when something else stands here."""
        found = _ADDRESS.match(self.text, self.skip())
        if found is None or self.text[found.end() : found.end() + 1] in WORD:
            return None
        self.at = found.end()
        return found[0]

    def string(self) -> bytes:
        """`"…"`, `r"…"`, `r#"…"#` or bytes like `61:62:63`."""
        start = self.skip()
        if self.take('"'):
            return self._escaped(start)
        raw = self._raw_string()
        if raw is not None:
            return raw.encode("utf-8", "surrogatepass")
        found = _HEX.match(self.text, start)
        if found is None:
            raise self.error("expected a string", 'strings stand in double quotes: "…"')
        self.at = found.end()
        return bytes.fromhex(found[0].replace(found[1], " "))

    def at_string(self) -> bool:
        """Whether a string stands here, bytes like `61:62` included."""
        return self.peek('"') or _RAW.match(self.text, self.at) is not None or _HEX.match(self.text, self.at) is not None

    def _escaped(self, start: int) -> bytes:
        parts: list[bytes] = []
        text = self.text
        while True:
            plain = _PLAIN.match(text, self.at)
            assert plain is not None  # it matches nothing, too
            parts.append(plain[0].encode("utf-8", "surrogatepass"))
            self.at = plain.end()
            if self.at >= len(text):
                raise RuleError("the closing quote is missing", start)
            if text[self.at] == '"':
                self.at += 1
                return b"".join(parts)
            found = _ESCAPE.match(text, self.at)
            if found is None:
                hint = r'known are \" \\ \xHH and three octal digits; a raw string r"…" takes every backslash as it is'
                raise RuleError("not an escape of this language", self.at, hint)
            char, digits, octal = found.groups()
            parts.append(char.encode() if char else bytes([int(digits, 16) if digits else int(octal, 8)]))
            self.at = found.end()

    def _raw_string(self) -> str | None:
        found = _RAW.match(self.text, self.skip())
        if found is None:
            return None
        end = self.text.find(f'"{found[1]}', found.end())
        if end < 0:
            raise RuleError(f"the end of the raw string is missing: '\"{found[1]}'", self.at)
        content = self.text[found.end() : end]
        self.at = end + 1 + len(found[1])
        return content

    def pattern(self) -> tuple[str, list[int]]:
        """A regex, with the index of each of its characters (and of its end) in the text.

        In a quoted one only `\\"` is an escape, every other backslash is the regex's own; a quote inside `[…]` does not
        end it.
        """
        start = self.skip()
        raw = self._raw_string()
        if raw is not None:
            first = self.text.index('"', start) + 1
            return raw, list(range(first, first + len(raw) + 1))
        if not self.take('"'):
            raise self.error("expected a regular expression in quotes", 'like "^/api/" or r"^/api/"')
        chars: list[str] = []
        places: list[int] = []
        text, inside = self.text, False
        while self.at < len(text):
            char, at = text[self.at], self.at
            if char == '"' and not inside:
                self.at += 1
                return "".join(chars), [*places, at]
            size = 2 if char == "\\" else 1
            unit = text[at : at + size]
            if unit == '\\"' and not inside:
                unit, at = '"', at + 1
            elif char in "[]":
                inside = char == "["
            chars += unit
            places += range(at, at + len(unit))
            self.at += size
        raise RuleError("the closing quote is missing", start)
