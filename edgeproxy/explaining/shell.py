# A line of a POSIX shell as words: only what stands still in it. Whatever a shell would compute is refused, not guessed.
"""`words`: quoting of sh and bash, `$'…'` included, which is how browsers copy requests."""

from __future__ import annotations

import re
from typing import Final

from edgeproxy.explaining.question import Unclear

MAX_LINE: Final = 1 << 20  # characters
_SIMPLE: Final = {
    "n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "e": "\x1b", "E": "\x1b", "f": "\f", "v": "\v", "\\": "\\", "'": "'",
    '"': '"', "?": "?",
}  # fmt: skip
_CODE: Final = re.compile(r"x[0-9A-Fa-f]{1,2}|u[0-9A-Fa-f]{1,4}|U[0-9A-Fa-f]{1,8}|[0-7]{1,3}")
# Surrogates; those that Python reads bytes as (U+DC80 to U+DCFF) may come from a terminal.
_HALF: Final = re.compile("[\ud800-\udc7f\udd00-\udfff]")
_ENDS: Final = "|&;<>()"


def words(line: str) -> list[str]:
    """The words of one command. Line breaks behind a backslash are blanks.

    Raises: Unclear.
    """
    if len(line) > MAX_LINE:
        raise Unclear(f"the command is longer than {MAX_LINE >> 20} Mi characters")
    found = _HALF.search(line)
    if found is not None:
        raise Unclear(f"the command has half a character in it (U+{ord(found[0]):04X})")
    return _Line(line).words()


class _Line:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def words(self) -> list[str]:
        found: list[str] = []
        word: list[str] | None = None  # None: between two
        while self.at < len(self.text):
            char = self.text[self.at]
            self.at += 1
            if char in " \t\r\n":
                if word is not None:
                    found.append("".join(word))
                    word = None
                continue
            piece = self._piece(char)
            if piece is None:
                continue
            word = [] if word is None else word
            word.append(piece)
        if word is not None:
            found.append("".join(word))
        return found

    def _piece(self, char: str) -> str | None:
        """What one character, and what belongs to it, adds to a word; None: nothing, not even an empty word."""
        if char == "'":
            return self._until("'")
        if char == '"':
            return self._double()
        if char == "\\":
            return self._escaped()
        if char == "$" and self.text[self.at : self.at + 1] == "'":
            self.at += 1
            return self._ansi()
        if char in "$`":
            raise Unclear("the command has a variable or a command in it ('$' or '`'): put what it gives in its place")
        if char in _ENDS:
            raise Unclear(f"the command has a {char!r} outside of quotes: only one command is read, quote its URL")
        return char

    def _until(self, quote: str) -> str:
        end = self.text.find(quote, self.at)
        if end < 0:
            raise Unclear(f"a quote ({quote}) is not closed")
        found = self.text[self.at : end]
        self.at = end + 1
        return found

    def _escaped(self) -> str | None:
        if self.text.startswith("\r\n", self.at):
            self.at += 2
            return None
        char = self.text[self.at : self.at + 1]
        self.at += 1
        return None if char in ("\n", "") else char

    def _double(self) -> str:
        found: list[str] = []
        while self.at < len(self.text):
            char = self.text[self.at]
            self.at += 1
            if char == '"':
                return "".join(found)
            if char in "$`":
                raise Unclear("the command has a variable or a command in double quotes: put what it gives in its place")
            if char == "\\" and self.text[self.at : self.at + 1] in ('"', "\\", "$", "`", "\n"):
                char = self.text[self.at]
                self.at += 1
                if char == "\n":
                    continue
            found.append(char)
        raise Unclear('a quote (") is not closed')

    def _ansi(self) -> str:
        """`$'…'` (bash, ANSI-C quoting)."""
        found: list[str] = []
        while self.at < len(self.text):
            char = self.text[self.at]
            self.at += 1
            if char == "'":
                return "".join(found)
            found.append(char if char != "\\" else self._code())
        raise Unclear("a quote ($') is not closed")

    def _code(self) -> str:
        number = _CODE.match(self.text, self.at)
        if number is None:
            char = self.text[self.at : self.at + 1]
            self.at += 1
            return _SIMPLE.get(char, "\\" + char)
        self.at = number.end()
        digits = number[0]
        if digits[0] in "uU":
            code = int(digits[1:], 16)
            if 0xD800 <= code <= 0xDFFF:
                raise Unclear(f"'\\{digits}' is half a character")
            return chr(code) if code < 0x110000 else "\ufffd"
        code = int(digits[1:], 16) if digits[0] == "x" else int(digits, 8) & 0xFF
        # A byte; those above 127 come back as themselves when the text is encoded.
        return chr(code) if code < 0x80 else chr(0xDC00 + code)
