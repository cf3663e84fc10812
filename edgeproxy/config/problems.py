# What is wrong with a configuration, where it stands in the file, and how it is shown to the person who wrote it.
"""Problems of a configuration, and the one error that carries them.

Nothing here knows YAML, pydantic or a key of the model. A problem is found once, by whoever reads that part, and always
says where, what, and what to do.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

# More than anybody reads; the rest is counted. Keeps the error text of a broken 1 MiB file bounded.
MAX_SHOWN = 100
_WINDOW = 120  # cells of a source line that are shown
# A password in a URL must not travel from the file into a terminal's scroll-back or a log line.
_USERINFO = re.compile(r"(?<=://)[^/@\s]+(?=@)")
# Neither must an API key that somebody put where its file or variable should be named.
KEY_LIKE = r"\b(?:ep-[0-9A-Za-z]{8}-[0-9A-Za-z]{12,}|(?:sk|pk|rk|gsk|xai|hf)[-_][0-9A-Za-z_-]{12,})"
_KEY = re.compile(KEY_LIKE)


class Invalid(ValueError):
    """A value that a validator refuses: `message` says what is wrong, `hint` what would be right (may be empty)."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to correct. `line` and `column` are 1-based; 0 means the problem concerns the file as a whole.

    `source` is the text of that line (without its line break), or empty when there is none to show.
    """

    file: str
    line: int
    column: int
    message: str
    hint: str = ""
    source: str = ""

    def headline(self) -> str:
        """`edge.yaml:3:9 unknown key 'timeout' (did you mean 'timeouts'?)`, one line."""
        where = f"{self.file}:{self.line}:{self.column}" if self.line else f"{self.file}:"
        # Messages name keys and paths as the file has them; none of their characters may steer a terminal.
        return printable(f"{where} {self.message}" + (f" ({self.hint})" if self.hint else ""))

    def render(self) -> str:
        """The headline, and below it the source line with a caret under the column."""
        if not self.line or not self.source.strip():
            return self.headline()
        text, caret = _excerpt(self.source, self.column)
        return f"{self.headline()}\n    {text}\n    {caret}^"


class ConfigError(Exception):
    """A configuration that cannot be used. `problems` holds every problem, in file order; there is at least one."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        found = list(problems)
        files = {file: index for index, file in enumerate(dict.fromkeys(problem.file for problem in found))}
        self.problems: list[Problem] = sorted(found, key=lambda one: (files[one.file], one.line, one.column))
        super().__init__(self.problems)

    def __str__(self) -> str:
        shown = [problem.render() for problem in self.problems[:MAX_SHOWN]]
        hidden = len(self.problems) - len(shown)
        if hidden:
            shown.append(f"… and {hidden} more")
        return "\n".join(shown)


def suggest(word: str, known: Iterable[str]) -> str:
    """`did you mean 'timeouts'?` for the nearest known word, or empty."""
    found = nearest(word, known)
    return f"did you mean '{found}'?" if found else ""


def nearest(word: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """The known word that was probably meant, or empty. Case, `-` and `_` make no difference."""
    spelled = {_plain(name): name for name in islice(known, 500)}
    plain = _plain(word)[:80]  # difflib is quadratic; no key is that long
    if plain in spelled:
        return spelled[plain]
    near = difflib.get_close_matches(plain, spelled, n=1, cutoff=cutoff)
    return spelled[near[0]] if near else ""


def one_of(words: Sequence[str]) -> str:
    """`'a'`, `'a' or 'b'`, `'a', 'b' or 'c'`."""
    quoted = [f"'{word}'" for word in words]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} or {quoted[-1]}"


def quote(value: object, limit: int = 60) -> str:
    """A value from the file as it may stand in a message: in quotes, on one line, printable, bounded."""
    text = value if isinstance(value, str) else str(value)
    text = _stars(_USERINFO.sub("***", text))
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    return f"'{printable(text)}'"


def printable(text: str) -> str:
    """The text on one line, what cannot be printed (line breaks, escapes, lone surrogates) written as \\xNN."""
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)


def _stars(text: str) -> str:
    return _KEY.sub(lambda found: "*" * len(found[0]), text)


def _plain(word: str) -> str:
    return word.lower().replace("-", "_")


def _excerpt(source: str, column: int) -> tuple[str, str]:
    """The shown part of a line and the blanks before its caret; a long line is cut to a window around the column."""
    source = _stars(source)  # as long as it was
    at = min(max(column - 1, 0), len(source))
    start = 0 if len(source) <= _WINDOW else max(0, min(at - _WINDOW // 3, len(source) - _WINDOW))
    head, tail = _shown(source[start:at]), _shown(source[at : start + _WINDOW])
    # Indices are kept until here, because masking changes lengths; what is masked never reaches over the caret unseen.
    text = _USERINFO.sub("***", head + tail)
    head = _USERINFO.sub("***", head)
    lead = "… " if start else ""
    blanks = "".join("\t" if char == "\t" else " " * _cells(char) for char in lead + head)
    return lead + text + (" …" if start + _WINDOW < len(source) else ""), blanks


def _shown(text: str) -> str:
    """Printable text: control characters of a file must not steer the terminal that shows it."""
    return "".join(char if char.isprintable() or char == "\t" else "\N{REPLACEMENT CHARACTER}" for char in text)


def _cells(char: str) -> int:
    """Columns a character takes in a terminal."""
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1
