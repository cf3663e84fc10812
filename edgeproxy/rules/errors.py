# What is wrong with an expression and where in its text; the file, line and caret come later (files.py).
"""`RuleError`: the one exception that reading an expression can raise, whatever the text."""

from __future__ import annotations


class RuleError(Exception):
    """One problem of one expression.

    Attributes:
        message: what is wrong.
        offset: index of the character it is about, 0-based, in the text of the expression.
        hint: what would be right; may be empty.
    """

    def __init__(self, message: str, offset: int, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.offset = offset
        self.hint = hint
