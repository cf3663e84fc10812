# What a regular expression cannot match without: words that are looked for before the pattern is run.
"""`required(pattern)`: words of which one is in every text that the pattern matches, in lower case.

Reads what `regexes.compile_pattern` has accepted, and is careful: whatever is not plain text ends a word, and a pattern of
which nothing certain can be said has no words. A word that is wrong would make a rule miss; one that is missing costs time.
"""

from __future__ import annotations

import re
from typing import Final

MAX_WORDS: Final = 32  # of one pattern
_COUNT: Final = re.compile(r"\{([0-9]+)(?:,[0-9]*)?\}")
_HEX: Final = re.compile(r"\\x(?:([0-9A-Fa-f]{2})|\{([0-9A-Fa-f]+)\})")
_FLAGS: Final = re.compile(r"\(\?[imsU-]*([:)])")
_NAMED: Final = re.compile(r"\(\?P?<\w+>")
_POSIX: Final = re.compile(r"\[:\^?[a-z]+:\]")
_CONTROLS: Final = {"a": "\a", "f": "\f", "t": "\t", "n": "\n", "r": "\r", "v": "\v"}

Words = tuple[bytes, ...]


def required(pattern: str) -> Words | None:
    """The words, None when there are none for sure. None of them is empty."""
    reader = _Reader(pattern)
    words = reader.alternatives()
    return words if reader.at == len(pattern) else None


def _better(one: Words | None, other: Words | None) -> Words | None:
    """Of two sets of words that are both required, the one whose shortest word is longer: it is found less often."""
    if one is None or other is None:
        return other if one is None else one
    return max(one, other, key=lambda words: (min(map(len, words)), -len(words)))


class _Reader:
    """Walks over a pattern once; groups are read by calling itself (their depth is what RE2 let through)."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.at = 0

    def alternatives(self) -> Words | None:
        """Up to the end of the pattern or of the group: a word of each alternative."""
        found: list[Words | None] = [self._sequence()]
        while self.pattern.startswith("|", self.at):
            self.at += 1
            found.append(self._sequence())
        words: dict[bytes, None] = {}
        for each in found:
            if each is None:
                return None
            words.update(dict.fromkeys(each))
        return tuple(words) if len(words) <= MAX_WORDS else None

    def _sequence(self) -> Words | None:
        best: Words | None = None
        run = b""  # plain text right before here
        while self.at < len(self.pattern) and self.pattern[self.at] not in "|)":
            text, inner = self._item()
            least, most = self._times()
            if least and text is not None:
                run += text.lower()
            if inner is not None and least:
                best = _better(best, inner)
            if text is None or (least, most) != (1, 1):
                # What follows may not stand right behind it: the word ends here.
                best, run = _better(best, (run,) if run else None), b""
        return _better(best, (run,) if run else None)

    def _item(self) -> tuple[bytes | None, Words | None]:
        """One item without its repetition: its bytes if it is plain text, or the words of a group."""
        char = self.pattern[self.at]
        if char == "\\":
            return self._escape(), None
        if char == "[":
            self._class()
            return None, None
        if char == "(":
            return self._group()
        self.at += 1
        if char in ".^$":
            return None, None
        return char.encode("utf-8", "surrogatepass"), None

    def _escape(self) -> bytes | None:
        found = _HEX.match(self.pattern, self.at)
        if found is not None:
            self.at = found.end()
            return bytes([int(found[1] or found[2], 16)])
        letter = self.pattern[self.at + 1]
        self.at += 2
        if letter in _CONTROLS:
            return _CONTROLS[letter].encode()
        return None if letter.isalnum() or not letter.isascii() else letter.encode()

    def _class(self) -> None:
        pattern = self.pattern
        self.at += 1
        self.at += pattern.startswith("^", self.at)
        self.at += pattern.startswith("]", self.at)
        while self.at < len(pattern) and pattern[self.at] != "]":
            posix = _POSIX.match(pattern, self.at)
            self.at = posix.end() if posix is not None else self.at + 1 + (pattern[self.at] == "\\")
        self.at += 1

    def _group(self) -> tuple[bytes | None, Words | None]:
        flags, named = _FLAGS.match(self.pattern, self.at), _NAMED.match(self.pattern, self.at)
        if flags is not None:
            self.at = flags.end()
            if flags[1] == ")":  # (?i): no group; letters are compared in lower case anyway
                return b"", None
        else:
            self.at = named.end() if named is not None else self.at + 1
        words = self.alternatives()
        self.at += 1  # the bracket
        return None, words

    def _times(self) -> tuple[int, int | None]:
        """How often the item before may stand here, (1, 1) when nothing is said; None is without end."""
        least, most, said = 1, 1, False
        while self.at < len(self.pattern):
            char = self.pattern[self.at]
            count = _COUNT.match(self.pattern, self.at) if char == "{" else None
            if count is not None:
                least, said = min(least, int(count[1])), True
                self.at = count.end()
            elif char in "*+?":
                # A '?' behind another repetition only makes it lazy; taken for "optional" it loses a word, no match.
                least, said = least if char == "+" else 0, True
                self.at += 1
            else:
                break
        return least, None if said else most
