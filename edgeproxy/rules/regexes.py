# Regular expressions are written for Rust's engine and run by RE2: what the two read differently is refused here.
"""`compile_pattern`: a linear-time regex over bytes, or a RuleError at the character that another engine reads otherwise.

Cloudflare compiles patterns with Rust's `regex`, Unicode switched off (wirefilter, rhs_types/regex/imp_real.rs): `.` is
one byte, `\\w \\d \\s \\b` are ASCII. RE2 in Latin-1 mode does the same for what is let through here. RE2 alone would
accept and mean something else by a `{` that repeats nothing, `[a&&b]`, `\\Q…\\E`, `\\C`, `\\pL`, `\\07` and `\\x{e9}`; its
`\\s` has no vertical tab, so that one is rewritten. Python's own `re` is never used: it can take exponential time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, Final

import re2

from edgeproxy.rules.errors import RuleError

MAX_PATTERN: Final = 4096
_MAX_REPEAT: Final = 1000
_MAX_MEMORY: Final = 1 << 20  # bytes of one compiled pattern (RE2's own limit is 8 MiB)
_SMALL: Final = 200  # steps of RE2's program
_MAX_UNION: Final = 8 << 20  # of many patterns in one
_REPEAT: Final = re.compile(r"\{([0-9]{1,9})(?:,([0-9]{0,9}))?\}")
_FLAGS: Final = re.compile(r"\(\?([A-Za-z-]*)([:)])")
_POSIX: Final = re.compile(
    r"\[:\^?(?:alnum|alpha|ascii|blank|cntrl|digit|graph|lower|print|punct|space|upper|word|xdigit):\]"
)
_HEX: Final = re.compile(r"\\x(?:([0-9A-Fa-f]{2})|\{([0-9A-Fa-f]{1,8})\})")
_LETTERS: Final = frozenset("dDwWsSaftnrvx")  # escapes that mean the same everywhere
_OUTSIDE: Final = _LETTERS | frozenset("bBAz")  # and those that make sense outside […] alone
_SPACES: Final = {"s": "[:space:]", "S": "[:^space:]"}
_SIGN: Final = re.compile(r"\\([\\.+*?()\[\]{}^$])")  # an escape that makes a sign an ordinary character
_META: Final = frozenset("\\.+*?()|[]{}^$")

Search = Callable[[bytes], bool]
Find = Callable[..., int]


class _Scanner:
    """Walks over a pattern once, refuses, and writes it for RE2."""

    def __init__(self, pattern: str, places: list[int], named: bool = True) -> None:
        self.pattern = pattern
        self.places = places
        self.named = named  # groups keep their names
        self.at = 0
        self.out: list[str] = []
        self.folds = False
        self.high = -1  # the first character beyond ASCII

    def refuse(self, message: str, hint: str = "", at: int | None = None) -> RuleError:
        return RuleError(message, self.places[self.at if at is None else at], hint)

    def run(self) -> bytes:
        pattern = self.pattern
        while self.at < len(pattern):
            char = pattern[self.at]
            if char == "\\":
                self._escape(_OUTSIDE, "")
            elif char == "[":
                self._class()
            elif char == "{":
                self._repeat()
            elif char == "(":
                self._group()
            elif ord(char) > 0x7F:
                self._beyond_ascii(char)
            else:
                self._copy(char)
        if self.folds and self.high >= 0:
            raise self.refuse("(?i) folds ASCII letters only", "write both cases of other letters", self.high)
        return "".join(self.out).encode("latin-1")

    def _copy(self, text: str) -> None:
        self.out.append(text)
        self.at += len(text)

    def _beyond_ascii(self, char: str) -> None:
        """A character is its UTF-8 bytes, and a `+` behind it repeats them all."""
        self.high = self.at if self.high < 0 else self.high
        encoded = "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", "surrogatepass"))
        self.out.append(f"(?:{encoded})")
        self.at += 1

    def _escape(self, letters: frozenset[str], inside: str) -> None:
        """`inside` is what stands around a class name that is part of […]: nothing, else brackets are added."""
        letter = self.pattern[self.at + 1 : self.at + 2]
        if not letter:
            raise self.refuse("a backslash at the end")
        if letter == "x":
            self._hexadecimal()
            return
        if letter in "<>":
            message = f"'\\{letter}' is a word boundary to Rust and a character to RE2"
            raise self.refuse(message, "write \\b, or the character alone")
        if letter == "b" and self.pattern[self.at + 2 : self.at + 3] == "{" and not inside:
            raise self.refuse("'\\b{…}' is not supported", "write \\b")
        if (letter.isascii() and letter.isalnum() and letter not in letters) or not letter.isascii():
            hint = "there are no back-references" if letter.isdigit() else ""
            raise self.refuse(f"the escape '\\{letter}' is not supported", hint)
        if letter in _SPACES:
            self.out.append(_SPACES[letter] if inside else f"[{_SPACES[letter]}]")
            self.at += 2
            return
        if letter == "_":
            self.out.append("_")
            self.at += 2
            return
        self._copy(f"\\{letter}")

    def _hexadecimal(self) -> None:
        found = _HEX.match(self.pattern, self.at)
        if found is None:
            raise self.refuse("'\\x' is followed by two hexadecimal digits, or by digits in braces")
        if found[2] is not None and int(found[2], 16) > 0x7F:
            raise self.refuse("'\\x{…}' beyond 7f is a character to Rust and a byte to RE2", "write the bytes: \\xc3\\xa9")
        byte = int(found[1] or found[2], 16)
        if byte > 0x7F:
            self.high = self.at if self.high < 0 else self.high
        self.out.append(f"\\x{byte:02x}")
        self.at = found.end()

    def _repeat(self) -> None:
        found = _REPEAT.match(self.pattern, self.at)
        if found is None:
            raise self.refuse("a '{' that repeats nothing", "write \\{ for the character, {2} or {2,5} to repeat")
        if max(int(found[1]), int(found[2] or 0)) > _MAX_REPEAT:
            raise self.refuse(f"more than {_MAX_REPEAT} repetitions")
        self._copy(found[0])

    def _group(self) -> None:
        if not self.pattern.startswith("(?", self.at):
            self._copy("(")
            return
        if self.pattern.startswith(("(?P<", "(?<"), self.at) and self.pattern[self.at + 3 : self.at + 4] not in "=!":
            if self.named:
                self._copy("(?P<" if self.pattern[self.at + 2] == "P" else "(?<")
            else:
                self.out.append("(")
                self.at = self.pattern.index(">", self.at) + 1
            return
        found = _FLAGS.match(self.pattern, self.at)
        if found is None or not set(found[1]) <= set("imsU-"):
            raise self.refuse("this kind of group is not supported", "known are (?:…), (?P<name>…) and the flags i, m, s and U")
        self.folds = self.folds or "i" in found[1].partition("-")[0]
        self._copy(found[0])
        if found[2] == ")" and self.pattern[self.at : self.at + 1] in ("*", "+", "?", "{"):
            raise self.refuse("flags cannot be repeated", "RE2 would repeat what stands before them")

    def _class(self) -> None:
        pattern, start = self.pattern, self.at
        self._copy("[")
        if pattern.startswith("^", self.at):
            self._copy("^")
        if pattern.startswith("]", self.at):
            self.out.append("\\")
            self._copy("]")
        while True:
            if self.at >= len(pattern):
                raise self.refuse("the class is not closed", "a ']' is missing", start)
            char = pattern[self.at]
            if char == "]":
                self._copy("]")
                return
            self._class_part(char)

    def _class_part(self, char: str) -> None:
        pattern, at = self.pattern, self.at
        if pattern[at : at + 2] in ("&&", "--", "~~"):
            raise self.refuse(f"'{pattern[at : at + 2]}' in a class is an operation on sets to Rust", "escape the character")
        if char == "[":
            found = _POSIX.match(pattern, at)
            if found is None:
                raise self.refuse("a '[' in a class begins another one to Rust", "write \\[ for the character")
            self._copy(found[0])
        elif char == "\\":
            self._escape(_LETTERS, "in")
            behind = pattern[self.at : self.at + 2]
            if pattern[at + 1] in "dDwWsS" and behind[:1] == "-" and behind != "-]":
                raise self.refuse("a range cannot begin with a class", "put the '-' last, or write \\-")
        elif ord(char) > 0x7F:
            raise self.refuse("a character beyond ASCII cannot stand in a class", "write an alternative: (?:[a-z]|é)")
        else:
            self._copy(char)


def compile_pattern(pattern: str, places: list[int] | None = None, *, captures: bool = True) -> Any:
    """A compiled pattern of RE2.

    Args:
        captures: groups are wanted; who only asks whether is answered faster.
        places: index of each character, and of the end, for the error.

    Raises: RuleError.
    """
    places = list(range(len(pattern) + 1)) if places is None else places
    if len(pattern) > MAX_PATTERN:
        raise RuleError(f"a regular expression has at most {MAX_PATTERN} characters", places[0])
    translated = _Scanner(pattern, places).run()
    try:
        return _compiled(translated, _MAX_MEMORY, captures)
    except re2.error as e:
        text = e.args[0] if e.args else "not a regular expression"
        reason = text.decode("latin-1") if isinstance(text, bytes) else str(text)
        raise RuleError(f"the regular expression is refused: {reason}", places[0]) from None


def _compiled(translated: bytes, memory: int, captures: bool) -> Any:
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.log_errors = False
    options.never_capture = not captures
    options.max_mem = memory
    return re2._Regexp(translated, options)  # not re2.compile: its cache would keep what a reload took away


def searcher(compiled: Any) -> Search:
    """Whether the pattern is found anywhere in some bytes; straight to RE2, without Python's match objects."""
    match, anywhere = compiled._regexp.Match, re2._Anchor.UNANCHORED

    def search(value: bytes) -> bool:
        return bool(match(anywhere, value, 0, len(value))[0][0] >= 0)

    return search


def is_small(pattern: str) -> bool:
    """Whether a pattern that `compile_pattern` accepts is one that many others can be run together with: no large repeats."""
    return bool(compile_pattern(pattern, captures=False)._regexp.ProgramSize() <= _SMALL)


def any_word(words: Iterable[bytes]) -> Find | None:
    """Where the first of many words begins in `value` from `start`, -1 where none does: one scan, whatever their number.

    None when they are too many for RE2's memory.
    """
    return _finder(b"|".join(re.escape(word) for word in words))


def any_pattern(patterns: Iterable[str]) -> Find | None:
    """The same for patterns that `compile_pattern` accepts."""
    return _finder(b"|".join(b"(?:%b)" % _Scanner(each, list(range(len(each) + 1)), named=False).run() for each in patterns))


def _finder(translated: bytes) -> Find | None:
    try:
        match = _compiled(translated, _MAX_UNION, captures=False)._regexp.Match
    except re2.error:
        return None
    anywhere = re2._Anchor.UNANCHORED

    def find(value: bytes, start: int = 0) -> int:
        return match(anywhere, value, start, len(value))[0][0]  # type: ignore[no-any-return]  # RE2: an int

    return find


def whole_words(words: Iterable[bytes]) -> Callable[[bytes], tuple[int, int] | None]:
    """Where the first of many words begins and ends, in any case; of several that begin there the longest.

    A word is not found inside a longer one: not behind a letter, digit or `_` if it begins with one, nor before one if it
    ends with a letter (`Version/4` also finds `Version/40`). Raises ValueError when they are too many for RE2's memory.
    """
    ordered = sorted(words, key=lambda word: (-len(word), word))  # RE2 prefers the alternative that stands first
    ends = (rb"\b" if word[-1:].isalpha() else b"" for word in ordered)
    begins = (rb"\b" if word[:1].isalnum() else b"" for word in ordered)
    pattern = b"|".join(b"%b%b%b" % parts for parts in zip(begins, map(re.escape, ordered), ends, strict=True))
    try:
        match = _compiled(b"(?i)" + pattern, _MAX_UNION, captures=False)._regexp.Match
    except re2.error as error:
        raise ValueError("too many words") from error
    anywhere = re2._Anchor.UNANCHORED

    def search(value: bytes) -> tuple[int, int] | None:
        first, last = match(anywhere, value, 0, len(value))[0]
        return (first, last) if first >= 0 else None

    return search


def literals(pattern: str) -> list[bytes] | None:
    """The words of a pattern that is nothing but words (`sqlmap|wp-login\\.php`), None for any other."""
    if _META.intersection(_SIGN.sub("", pattern).replace("|", "")) or not pattern.isascii():
        return None
    words = [_SIGN.sub(r"\1", word) for word in pattern.split("|")]
    return [word.encode("ascii") for word in words] if all(words) else None
